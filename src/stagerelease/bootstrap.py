"""Settings in, wired ports out. The only file that picks adapters."""

from __future__ import annotations

from dataclasses import dataclass

from stagerelease.db.engine import make_engine
from stagerelease.db.migrate import upgrade
from stagerelease.db.work import Works
from stagerelease.identity.links import load_or_create_link_key
from stagerelease.kernel.clock import Clock
from stagerelease.ledger.signer import LogSigner, load_or_create_signer
from stagerelease.settings import Settings
from stagerelease.storage.local import LocalBlobStore
from stagerelease.storage.ports import BlobStore


@dataclass(frozen=True, slots=True)
class Box:
    """Everything a process needs, wired."""

    settings: Settings
    works: Works
    blobs: BlobStore
    signer: LogSigner
    link_key: bytes


def prepare_data_dir(settings: Settings) -> None:
    """Make the data directory, readable by its owner (and nginx's group for blobs) alone."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    settings.data_dir.chmod(0o750)
    (settings.data_dir / "keys").mkdir(mode=0o700, exist_ok=True)


def build(settings: Settings, *, migrate: bool = False, clock: Clock | None = None) -> Box:
    """Wire the adapters that ``settings`` names; ``migrate`` brings the schema to head first.

    Raises:
        Unavailable: the database does not answer, or its schema is not the one this version needs.
    """
    prepare_data_dir(settings)
    password = None
    if settings.database_password_file is not None:
        password = settings.database_password_file.read_text().strip()
    engine = make_engine(
        settings.resolved_database_url, pool_size=settings.threads, password=password
    )
    if migrate:
        upgrade(engine)
    return Box(
        settings=settings,
        works=Works(engine, clock),
        blobs=LocalBlobStore(settings.blobs_dir),
        signer=load_or_create_signer(settings.log_key_file, settings.log_origin),
        link_key=load_or_create_link_key(settings.link_key_file),
    )

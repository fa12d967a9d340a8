"""Settings in, wired ports out. The only file that picks adapters."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

from stagerelease.db.engine import make_engine
from stagerelease.db.migrate import upgrade
from stagerelease.db.work import Works
from stagerelease.engine.ports import Engine
from stagerelease.engine.remote import SOCKET_URL, RemoteEngine, Where
from stagerelease.identity.links import load_or_create_link_key
from stagerelease.kernel.clock import Clock
from stagerelease.kernel.errors import Invalid, Unavailable
from stagerelease.ledger.signer import LogSigner, load_or_create_signer
from stagerelease.settings import Settings
from stagerelease.storage.local import LocalBlobStore
from stagerelease.storage.ports import BlobStore

SILENCE = 30
"""Seconds beyond the longest request that the inference process may say nothing."""


@dataclass(frozen=True, slots=True)
class Box:
    """Everything a process needs, wired."""

    settings: Settings
    works: Works
    blobs: BlobStore
    signer: LogSigner
    link_key: bytes
    engine: Engine


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
        engine=build_remote_engine(settings),
    )


def inference_secret(settings: Settings) -> str | None:
    """Return the secret that web and inference share, or None when there is none.

    Raises:
        Invalid: the file is not there or empty.
    """
    file = settings.inference_secret_file
    if file is None:
        return None
    secret = file.read_text().strip() if file.is_file() else ""
    if not secret:
        raise Invalid(
            f"There is no secret in {file}.",
            reason="inference.secret",
            next_step="Make one: sh deploy/make-secrets.sh, or openssl rand -hex 32.",
        )
    return secret


def build_remote_engine(settings: Settings) -> RemoteEngine:
    """Return the engine of web processes: a client of another process. Nothing is asked yet.

    Raises:
        Invalid: the address, the secret or the names of models cannot be used.
    """
    names = {}
    for pair in filter(None, (p.strip() for p in settings.inference_models.split(","))):
        ours, sign, theirs = pair.partition("=")
        if not (ours and sign and theirs):
            raise Invalid(
                f"STAGERELEASE_INFERENCE_MODELS says {pair!r}; write repo_id=name,…",
                reason="settings.invalid",
            )
        names[ours] = theirs
    others: Any = {
        "secret": inference_secret(settings),
        "dialect": settings.inference_dialect,
        "models": names,
        "patience": settings.inference_longest + SILENCE,
    }
    if settings.inference_url:
        return RemoteEngine(Where.of(settings.inference_url, **others))
    return RemoteEngine(Where(SOCKET_URL, socket=settings.inference_socket, **others))


def build_engine(settings: Settings) -> Engine:
    """Return the engine of the inference process: the one place that may load torch, and late.

    Raises:
        Unavailable: what it needs is not installed.
    """
    if find_spec("torch") is None or find_spec("stagerelease.engine.local") is None:
        raise Unavailable(
            "The inference extra is not installed, so no model can be asked here. Whoever runs "
            "this service installs it with: pip install 'stagerelease[inference]' (in a checkout: "
            "make inference).",
            retry_after=300,
            reason="inference.extra",
        )
    local: Any = import_module("stagerelease.engine.local")  # by name: no import leads to torch
    options = local.Options(
        dtype=settings.inference_dtype,
        threads=settings.inference_threads,
        memory=settings.inference_memory,
        store_memory=settings.inference_store_memory,
        sequences=settings.inference_batch,
        patience=settings.inference_patience,
        grace=settings.inference_grace,
    )
    return cast("Engine", local.LocalEngine(LocalBlobStore(settings.blobs_dir), options))

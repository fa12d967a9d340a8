"""The ledger's signing key: where it lives, and how a checkpoint is signed with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stagerelease.kernel.errors import Invalid
from stagerelease.ledger import notes


@dataclass(frozen=True, slots=True)
class LogSigner:
    """An origin and its Ed25519 key. ``vkey`` is public and is what verifiers hold."""

    origin: str
    skey: str
    vkey: str


def load_or_create_signer(path: Path, origin: str) -> LogSigner:
    """Return the signer whose key is in ``path``, making the key on first use (mode 600).

    Several processes may start at once: the file is created exclusively, and the loser reads.

    Raises:
        Invalid: the file holds no note key, or the key of a log with another origin.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        skey, _ = notes.generate_key(origin)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(skey + "\n")
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    skey = path.read_text().strip()
    try:
        vkey = notes.vkey_of(skey)
    except notes.NoteRefused as error:
        raise Invalid(
            f"The log's key in {path} cannot be used: {error}.",
            reason="ledger.key",
            next_step="Restore it from a backup; a new key would make this another log.",
        ) from error
    name = notes.key_name(vkey)
    if name != origin:  # verifiers hold the old name: signing under a new one forks the log
        raise Invalid(
            f"The log's key in {path} is of the log {name}, and the settings call it {origin}.",
            reason="ledger.origin",
            next_step=f"Set STAGERELEASE_LOG_ORIGIN={name}.",
        )
    return LogSigner(origin=origin, skey=skey, vkey=vkey)

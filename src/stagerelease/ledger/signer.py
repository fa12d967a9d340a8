"""The ledger's signing key: where it lives, and how a checkpoint is signed with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

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
    return LogSigner(origin=origin, skey=skey, vkey=notes.vkey_of(skey))

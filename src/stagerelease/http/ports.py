"""What the faces need from outside, by name; ``bootstrap`` hands it in."""

from __future__ import annotations

from typing import Protocol

from stagerelease.db.work import Works
from stagerelease.engine.ports import Engine
from stagerelease.ledger.signer import LogSigner
from stagerelease.settings import Settings
from stagerelease.storage.ports import BlobStore


class Ports(Protocol):
    """Settings and wired adapters."""

    @property
    def settings(self) -> Settings:
        """Return the operator's settings."""
        ...

    @property
    def works(self) -> Works:
        """Return the door to the database."""
        ...

    @property
    def blobs(self) -> BlobStore:
        """Return where bytes are kept."""
        ...

    @property
    def signer(self) -> LogSigner:
        """Return the ledger's signer."""
        ...

    @property
    def link_key(self) -> bytes:
        """Return the key that signs mailed links."""
        ...

    @property
    def engine(self) -> Engine:
        """Return what computes text, in another process."""
        ...

"""Rows that say which bytes are in the store. Written only after the bytes are durable there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import update
from sqlalchemy.dialects import postgresql, sqlite

from stagerelease.catalog import queries
from stagerelease.catalog.tables import Blob, BlobReference
from stagerelease.db.work import Work
from stagerelease.kernel.errors import Invalid, Unavailable
from stagerelease.ledger import service as ledger
from stagerelease.storage.ports import BlobStore


def note_blobs(work: Work, sizes: Mapping[str, int], *, blobs: BlobStore | None = None) -> None:
    """Write that bytes of these digests and sizes are in the store; with ``blobs``, look first.

    The row is written before the store is looked at: clearing unreferenced bytes takes the row
    before it removes the file, so of the two one always sees the other.

    Raises:
        Invalid: the same digest is known with another size.
        Unavailable: the bytes are not in the store (any more).
    """
    rows = [
        {"sha256": digest, "size": size, "created_at": work.now}
        for digest, size in sorted(sizes.items())  # one order for all: no deadlock
    ]
    statement: Any = postgresql.insert(Blob) if work.is_postgres else sqlite.insert(Blob)
    work.session.execute(statement.on_conflict_do_nothing(), rows)
    known = queries.find_blobs(work, sorted(sizes))
    for digest, size in sizes.items():
        if known[digest].size != size:
            raise Invalid(
                f"{digest[:12]}… is known with {known[digest].size:,} bytes, not {size:,}.",
                reason="blob.size",
            )
    if blobs is not None:
        check_present(blobs, sizes)


def refer(
    work: Work, sha256: str, *, size: int, owner: str, blobs: BlobStore | None = None
) -> None:
    """Write that ``owner`` (``evidence:<id>``, ``agreement:<id>``, …) needs this blob to stay.

    Its bytes are durable in the store already; with ``blobs``, that is looked at inside this
    transaction, after the row that holds them. Doing it again changes nothing.

    Raises:
        Invalid: the same digest is known with another size.
        Unavailable: the bytes are not in the store (any more).
    """
    note_blobs(work, {sha256: size})
    row = {"sha256": sha256, "owner": owner, "created_at": work.now}
    statement: Any = (
        postgresql.insert(BlobReference) if work.is_postgres else sqlite.insert(BlobReference)
    )
    work.session.execute(statement.on_conflict_do_nothing(), [row])
    if blobs is not None:
        check_present(blobs, {sha256: size})


def note_healed(work: Work, sha256: str) -> None:
    """Write that bytes known to be corrupt were replaced by bytes that hash to their name."""
    work.session.execute(update(Blob).where(Blob.sha256 == sha256).values(corrupt_at=None))
    ledger.append(work, type="catalog.blob-healed", subject=f"blob:{sha256}", detail={})


def check_present(blobs: BlobStore, sizes: Mapping[str, int]) -> None:
    """Return only if the store holds each of these digests with its size.

    Raises:
        Unavailable: it does not (any more).
    """
    for digest, size in sizes.items():
        if not blobs.has(digest) or blobs.size(digest) != size:
            raise Unavailable(
                f"The bytes {digest[:12]}… are not in the store any more; they were cleared "
                "while they waited. Send them again.",
                reason="blob.missing",
            )

"""Reads of the log: entries, nodes, proofs and checkpoints. Never writes.

What is stored is believed here as far as it can be read; ``fsck`` is what recomputes it. Where a
stored row is missing or unreadable, ``Corrupt`` says so instead of a guess.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.kernel.errors import Corrupt, NotFound
from stagerelease.ledger import merkle, notes
from stagerelease.ledger.tables import (
    LogCheckpoint,
    LogCommitment,
    LogDetail,
    LogHead,
    LogLeaf,
    LogNode,
)

LOOKED_AT = 5_000
"""Entries that one search reads."""


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One entry: its place, its hash, and what the leaf says."""

    idx: int
    hash: bytes
    body: bytes
    leaf: dict[str, Any]

    @property
    def private(self) -> bool:
        """Tell whether only some may read what it says: such a leaf hides behind a nonce."""
        return "nonce" in self.leaf


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """One signed tree head."""

    size: int
    note: str
    created_at: datetime


def _corrupt(sentence: str) -> Corrupt:
    return Corrupt(
        sentence,
        reason="ledger.corrupt",
        next_step="Stop the service and run `stagerelease ledger verify`.",
    )


def log_size(work: Work) -> int:
    """Return how many entries the log has."""
    return frontier(work).size


def frontier(work: Work, *, lock: bool = False) -> merkle.Frontier:
    """Return the stored frontier; ``lock`` holds the head row until the Work ends.

    Raises:
        Corrupt: the head row is missing, or its frontier does not fit its size.
    """
    statement = select(LogHead.size, LogHead.frontier).where(LogHead.id == 1)
    if lock:  # PostgreSQL; an SQLite writer has held the write lock since BEGIN
        statement = statement.with_for_update()
    row = work.session.execute(statement).one_or_none()
    if row is None:
        raise _corrupt("The head of the log is missing.")
    try:
        return merkle.Frontier.load(row.size, bytes(row.frontier))
    except ValueError as error:
        raise _corrupt(f"The head of the log does not fit its size: {error}.") from error


def node_of(work: Work) -> merkle.NodeOf:
    """Return a look-up of stored hashes for proofs; it raises ``Corrupt`` where one is missing."""

    def node(level: int, idx: int) -> bytes:
        if level == 0:
            statement = select(LogLeaf.hash).where(LogLeaf.idx == idx)
        else:
            statement = select(LogNode.hash).where(LogNode.level == level, LogNode.idx == idx)
        found = work.session.execute(statement).scalar_one_or_none()
        if found is None:
            raise _corrupt(f"The log's node {level}/{idx} is missing.")
        return bytes(found)

    return node


def entry(work: Work, idx: int) -> EntryRow:
    """Return entry ``idx``.

    Raises:
        NotFound: the log is not that long.
    """
    row = work.session.execute(
        select(LogLeaf.idx, LogLeaf.hash, LogLeaf.body).where(LogLeaf.idx == idx)
    ).one_or_none()
    if row is None:
        raise NotFound(f"The log has no entry {idx}.", reason="ledger.entry")
    return _entry(row.idx, row.hash, row.body)


def _entry(idx: int, hash_: bytes, body: bytes) -> EntryRow:
    try:
        leaf = json.loads(body)
    except ValueError as error:
        raise _corrupt(f"The body of log entry {idx} cannot be read.") from error
    return EntryRow(idx, bytes(hash_), bytes(body), leaf)


def entries(work: Work, *, start: int, limit: int) -> list[EntryRow]:
    """Return at most ``limit`` entries from ``start`` on."""
    rows = work.session.execute(
        select(LogLeaf.idx, LogLeaf.hash, LogLeaf.body)
        .where(LogLeaf.idx >= start)
        .order_by(LogLeaf.idx)
        .limit(limit)
    )
    return [_entry(row.idx, row.hash, row.body) for row in rows]


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for: the beginning of a type, and what an entry is about or who did it."""

    type: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """Entries that fit, newest first, and the index below which nothing was looked at yet."""

    rows: tuple[EntryRow, ...]
    next: int | None


def search(work: Work, wanted: Search, *, before: int | None, limit: int) -> Found:
    """Return entries below ``before`` that fit, newest first: ``limit`` of them at most.

    Types are read from the bodies, so one call looks at ``LOOKED_AT`` entries and no more; where
    it stopped is in the answer. ``wanted.value`` finds through commitments that still stand.
    """
    size = log_size(work)
    top = size if before is None else min(before, size)
    narrowed = bool(wanted.type or wanted.value)
    floor = max(0, top - (LOOKED_AT if narrowed else limit))
    committed: set[str] = set()
    if wanted.value:
        found = select(LogCommitment.commitment).where(LogCommitment.value == wanted.value)
        committed = set(work.session.execute(found).scalars())
    statement = (
        select(LogLeaf.idx, LogLeaf.hash, LogLeaf.body)
        .where(LogLeaf.idx < top, LogLeaf.idx >= floor)
        .order_by(LogLeaf.idx.desc())
    )
    rows: list[EntryRow] = []
    for row in work.session.execute(statement):
        one = _entry(row.idx, row.hash, row.body)
        leaf = one.leaf
        fits = str(leaf.get("type", "")).startswith(wanted.type)
        if wanted.value:
            fits = fits and bool(committed & {leaf.get("subject"), leaf.get("actor")})
        if fits:
            rows.append(one)
        if len(rows) == limit:
            return Found(tuple(rows), one.idx or None)
    return Found(tuple(rows), floor or None)


def latest_checkpoint(work: Work) -> CheckpointRow | None:
    """Return the newest signed checkpoint, or None when nothing was signed yet."""
    row = work.session.execute(
        select(LogCheckpoint.size, LogCheckpoint.note, LogCheckpoint.created_at)
        .order_by(LogCheckpoint.size.desc())
        .limit(1)
    ).one_or_none()
    return CheckpointRow(*row) if row else None


def checkpoints(work: Work) -> list[CheckpointRow]:
    """Return every signed checkpoint, oldest first."""
    rows = work.session.execute(
        select(LogCheckpoint.size, LogCheckpoint.note, LogCheckpoint.created_at).order_by(
            LogCheckpoint.size
        )
    )
    return [CheckpointRow(*row) for row in rows]


def root_at(work: Work, size: int) -> bytes:
    """Return the root of the first ``size`` entries."""
    return merkle.EMPTY_ROOT if size == 0 else merkle.range_hash(0, size, node_of(work))


def prove(work: Work, idx: int) -> str:
    """Return a tlog-proof of entry ``idx`` under the newest signed checkpoint.

    Raises:
        NotFound: there is no such entry, or it is newer than the newest checkpoint.
    """
    checkpoint = latest_checkpoint(work)
    if checkpoint is None or not 0 <= idx < checkpoint.size:
        raise NotFound(
            f"Entry {idx} is not under a signed checkpoint yet.",
            reason="ledger.unsigned",
            next_step="Checkpoints are signed every 5 seconds; ask again then.",
        )
    proof = merkle.inclusion_proof(idx, checkpoint.size, node_of(work))
    return notes.write_proof(idx, proof, checkpoint.note)


def consistency(work: Work, old: int, new: int) -> list[bytes]:
    """Return the proof that the log of ``old`` entries is a prefix of that of ``new``.

    Raises:
        NotFound: the sizes do not exist.
    """
    if not 0 <= old <= new <= log_size(work):
        raise NotFound(
            f"There are no logs of {old} and {new} entries, the second no smaller than the first.",
            reason="ledger.size",
            next_step="Ask with sizes of checkpoints you hold.",
        )
    return merkle.consistency_proof(old, new, node_of(work))


def reveal(work: Work, commitment: str) -> str | None:
    """Return what a commitment in a leaf stands for, or None when it was erased."""
    return work.session.execute(
        select(LogCommitment.value).where(LogCommitment.commitment == commitment)
    ).scalar_one_or_none()


def detail_body(work: Work, sha256: str) -> str | None:
    """Return the very text whose SHA-256 a leaf commits to, or None when it was erased."""
    body = work.session.execute(
        select(LogDetail.body).where(LogDetail.sha256 == sha256)
    ).scalar_one_or_none()
    return body.decode() if isinstance(body, bytes) else body


def detail(work: Work, sha256: str) -> dict[str, Any] | None:
    """Return the detail that a leaf commits to, or None when it was erased."""
    body = detail_body(work, sha256)
    if body is None:
        return None
    found: dict[str, Any] = json.loads(body)["detail"]
    return found

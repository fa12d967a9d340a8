"""Recomputes the whole log from its leaves and reports everything that does not agree.

Nothing stored is trusted and nothing stored may stop it: text is read as bytes, missing rows are
findings. It may run while the log grows; it then covers the entries there were when it began.
Rows of the side tables that are gone are not findings: that is how a person is erased.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, cast, func, select
from sqlalchemy.orm import InstrumentedAttribute

from stagerelease.db.work import Work
from stagerelease.kernel.canonical import canonical
from stagerelease.kernel.digests import is_sha256, sha256_hex
from stagerelease.ledger import merkle, notes
from stagerelease.ledger.tables import (
    LogCheckpoint,
    LogCommitment,
    LogDetail,
    LogHead,
    LogLeaf,
    LogNode,
)

BATCH = 1000
STREAM = {"yield_per": BATCH}  # rows come as they are read, however long the log is
_COMMITTED = {"detail_sha256": "its detail", "actor": "its actor", "subject": "its subject"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not agree: where, and what."""

    where: str
    sentence: str


@dataclass(slots=True)
class _Log:
    """What was read before the leaves, and what the leaves have proved so far."""

    work: Work
    vkey: str | None
    checkpoints: dict[int, bytes]  # size -> note, until the log has grown to it
    altered: dict[str, str]  # digest -> which side table holds other bytes under it
    grown: merkle.Frontier = field(default_factory=lambda: merkle.Frontier(0, ()))
    expected: dict[tuple[int, int], bytes] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def report(self, where: str, sentence: str) -> None:
        self.findings.append(Finding(where, sentence))


def verify_all(
    work: Work, *, vkey: str | None = None, progress: Callable[[int], None] | None = None
) -> list[Finding]:
    """Return every disagreement in the log; an empty list means all of it verifies.

    Checked: leaf hashes, canonical form, gaps, every stored subtree and that there are no others,
    the head and its frontier, each checkpoint's root (and its signature and origin under ``vkey``),
    and every detail and commitment that still exists. Any single changed byte of these is found.
    """
    log = _Log(work, vkey, _checkpoints(work), _altered(work))
    head = _head(log)
    for idx, body, stored in _leaves(work, below=head.size if head else None):
        if idx != log.grown.size:
            log.report(f"leaf {log.grown.size}", f"it is missing; the next is {idx}")
            break  # whatever follows stands on other places than its own
        _check_checkpoint(log)
        _check_leaf(log, idx, body, stored)
        log.grown, made = log.grown.append(merkle.leaf_hash(body))
        log.expected |= {(level, at): digest for level, at, digest in made}
        if log.grown.size % BATCH == 0:
            _check_nodes(log)
            if progress is not None:
                progress(log.grown.size)
    _check_checkpoint(log)
    _check_nodes(log)
    if progress is not None:
        progress(log.grown.size)
    if head and (head.size, bytes(head.frontier)) != (log.grown.size, log.grown.dump()):
        log.report("head", "its size or frontier is not that of the leaves")
    for size in log.checkpoints:
        log.report(f"checkpoint {size}", f"the log has only {log.grown.size} entries")
    for digest, what in log.altered.items():
        log.report(f"{what} {digest}", "it is not what its digest says, and no entry names it")
    return log.findings


# --- what is read first -------------------------------------------------------------------------


def _raw(work: Work, column: InstrumentedAttribute[str]) -> ColumnElement[Any]:
    """Return a text column as bytes: damaged text must not stop the reading."""
    return func.convert_to(column, "UTF8") if work.is_postgres else cast(column, LargeBinary)


def _checkpoints(work: Work) -> dict[int, bytes]:
    """Return the notes by size. Read before the head, so that none can be ahead of it."""
    columns = select(LogCheckpoint.size, _raw(work, LogCheckpoint.note))
    rows = work.session.execute(columns.order_by(LogCheckpoint.size))
    return {size: bytes(note) for size, note in rows}


def _altered(work: Work) -> dict[str, str]:
    """Return the digests under which a side table holds something else than they commit to."""
    found = {}
    commitments = select(
        _raw(work, LogCommitment.commitment), LogCommitment.salt, _raw(work, LogCommitment.value)
    )
    for key, salt, value in work.session.execute(commitments, execution_options=STREAM):
        digest = bytes(key).decode(errors="backslashreplace")
        if sha256_hex(bytes(salt) + bytes(value)) != digest:
            found[digest] = "commitment"
    details = select(_raw(work, LogDetail.sha256), LogDetail.body)
    for key, body in work.session.execute(details, execution_options=STREAM):
        digest = bytes(key).decode(errors="backslashreplace")
        if sha256_hex(bytes(body)) != digest:
            found[digest] = "detail"
    return found


def _head(log: _Log) -> Any:
    """Return the head row, or None; its counts are read in one statement, at one instant."""
    leaves = select(func.count()).select_from(LogLeaf).scalar_subquery()
    nodes = select(func.count()).select_from(LogNode).scalar_subquery()
    rows = log.work.session.execute(
        select(LogHead.id, LogHead.size, LogHead.frontier, leaves, nodes)
    ).all()
    if len(rows) != 1 or rows[0].id != 1:
        log.report("head", f"there are {len(rows)} head rows; one belongs there, with id 1")
        return None
    _, size, _, leaf_count, node_count = rows[0]
    if leaf_count != size:
        log.report("leaves", f"{leaf_count} are stored, the head says {size}")
    if size >= 0 and node_count != merkle.stored_nodes(size):
        log.report("nodes", f"{node_count} are stored, {merkle.stored_nodes(size)} belong there")
    return rows[0]


def _leaves(work: Work, *, below: int | None) -> Iterator[tuple[int, bytes, bytes]]:
    statement = select(LogLeaf.idx, LogLeaf.body, LogLeaf.hash).order_by(LogLeaf.idx)
    if below is not None:  # what is appended while this runs is for the next run
        statement = statement.where(LogLeaf.idx < below)
    with work.session.execute(statement, execution_options=STREAM) as rows:
        for idx, body, stored in rows:
            yield idx, bytes(body), bytes(stored)


# --- what the leaves prove ----------------------------------------------------------------------


def _check_leaf(log: _Log, idx: int, body: bytes, stored: bytes) -> None:
    where = f"leaf {idx}"
    if merkle.leaf_hash(body) != stored:
        log.report(where, "its stored hash is not that of its body")
        return
    try:
        leaf = json.loads(body)
        if canonical(leaf) != body:
            log.report(where, "its body is not canonical JSON")
            return
    except (ValueError, RecursionError):
        log.report(where, "its body is not JSON that can be canonical")
        return
    if not isinstance(leaf, dict) or not all(_is_digest(leaf.get(name)) for name in _COMMITTED):
        log.report(where, "its body is not that of an entry")
        return
    for name, sentence in _COMMITTED.items():
        if log.altered.pop(leaf[name], None):
            log.report(where, f"{sentence} was altered")


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and is_sha256(value)


def _check_nodes(log: _Log) -> None:
    """Compare the subtrees completed since the last call: one statement for each level."""
    places: dict[int, list[int]] = {}
    for level, idx in log.expected:
        places.setdefault(level, []).append(idx)
    for level, indices in places.items():
        rows = log.work.session.execute(
            select(LogNode.idx, LogNode.hash).where(
                LogNode.level == level, LogNode.idx.between(indices[0], indices[-1])
            )
        )
        stored = {row.idx: bytes(row.hash) for row in rows}
        for idx in indices:
            if stored.get(idx) != log.expected[level, idx]:
                log.report(f"node {level}/{idx}", "it is missing or altered")
    log.expected.clear()


def _check_checkpoint(log: _Log) -> None:
    """Check the checkpoint of exactly the leaves read so far, if there is one."""
    note = log.checkpoints.pop(log.grown.size, None)
    if note is None:
        return
    where = f"checkpoint {log.grown.size}"
    try:
        text = note.decode()
        if log.vkey:
            stated = notes.open_checkpoint(text, log.vkey)
        else:
            stated = notes.parse_checkpoint(notes.parse_note(text).text)
    except ValueError as error:  # NoteRefused, or bytes that are no text
        log.report(where, f"{error}")
        return
    if stated.size != log.grown.size or stated.root != log.grown.root():
        log.report(where, "its root is not that of the entries it covers")

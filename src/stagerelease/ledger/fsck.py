"""Recomputes the whole log from its leaves and reports everything that does not agree."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sqlalchemy import func, select

from stagerelease.db.work import Work
from stagerelease.kernel.canonical import canonical
from stagerelease.kernel.digests import sha256_hex
from stagerelease.ledger import merkle, notes, queries
from stagerelease.ledger.tables import LogCommitment, LogDetail, LogHead, LogLeaf, LogNode

BATCH = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not agree: where, and what."""

    where: str
    sentence: str


def _leaves(work: Work) -> Iterator[tuple[int, bytes, bytes]]:
    last = -1
    while True:
        rows = work.session.execute(
            select(LogLeaf.idx, LogLeaf.body, LogLeaf.hash)
            .where(LogLeaf.idx > last)
            .order_by(LogLeaf.idx)
            .limit(BATCH)
        ).all()
        if not rows:
            return
        for row in rows:
            yield row.idx, bytes(row.body), bytes(row.hash)
        last = rows[-1].idx


def verify_all(
    work: Work, *, vkey: str | None = None, progress: Callable[[int], None] | None = None
) -> list[Finding]:
    """Return every disagreement in the log; an empty list means all of it verifies.

    Checked: leaf hashes, canonical form, gaps, every stored subtree, the frontier, each
    checkpoint's root (and its signature under ``vkey``), details and commitments that still exist.
    """
    findings: list[Finding] = []
    grown = merkle.Frontier(0, ())
    roots = {c.size: c for c in queries.checkpoints(work)}
    expected_nodes = 0
    for position, (idx, body, stored) in enumerate(_leaves(work)):
        if idx != position:
            findings.append(Finding(f"leaf {position}", f"it is missing; the next is {idx}"))
            return findings
        findings += _check_leaf(work, idx, body, stored)
        if grown.size in roots:
            findings += _check_checkpoint(roots.pop(grown.size), grown, vkey)
        grown, made = grown.append(merkle.leaf_hash(body))
        expected_nodes += len(made)
        findings += _check_nodes(work, made)
        if progress is not None:
            progress(idx + 1)
    if grown.size in roots:
        findings += _check_checkpoint(roots.pop(grown.size), grown, vkey)
    findings += [
        Finding(f"checkpoint {size}", "it covers more entries than there are") for size in roots
    ]
    count = work.session.execute(select(func.count()).select_from(LogNode)).scalar_one()
    if count != expected_nodes:
        findings.append(Finding("nodes", f"{count} are stored, {expected_nodes} belong there"))
    head = work.session.execute(select(LogHead.size, LogHead.frontier)).one()
    if head.size != grown.size or bytes(head.frontier) != grown.dump():
        findings.append(Finding("head", "its size or frontier is not that of the leaves"))
    return findings


def _check_leaf(work: Work, idx: int, body: bytes, stored: bytes) -> list[Finding]:
    where = f"leaf {idx}"
    if merkle.leaf_hash(body) != stored:
        return [Finding(where, "its stored hash is not that of its body")]
    try:
        leaf = json.loads(body)
        if canonical(leaf) != body:
            return [Finding(where, "its body is not canonical JSON")]
    except ValueError:
        return [Finding(where, "its body is not JSON")]
    findings = []
    detail = work.session.get(LogDetail, leaf["detail_sha256"])
    if detail is not None and sha256_hex(bytes(detail.body)) != detail.sha256:
        findings.append(Finding(where, "its detail was altered"))
    for name in ("actor", "subject"):
        row = work.session.get(LogCommitment, leaf[name])
        if row is not None and sha256_hex(bytes(row.salt) + row.value.encode()) != leaf[name]:
            findings.append(Finding(where, f"what its {name} stands for was altered"))
    work.session.expunge_all()
    return findings


def _check_nodes(work: Work, made: list[tuple[int, int, bytes]]) -> list[Finding]:
    findings = []
    for level, idx, digest in made:
        stored = work.session.execute(
            select(LogNode.hash).where(LogNode.level == level, LogNode.idx == idx)
        ).scalar_one_or_none()
        if stored is None or bytes(stored) != digest:
            findings.append(Finding(f"node {level}/{idx}", "it is missing or altered"))
    return findings


def _check_checkpoint(
    row: queries.CheckpointRow, grown: merkle.Frontier, vkey: str | None
) -> list[Finding]:
    where = f"checkpoint {row.size}"
    try:
        text = notes.verify(row.note, vkey) if vkey else row.note.rpartition("\n\n")[0] + "\n"
        stated = notes.parse_checkpoint(text)
    except notes.NoteRefused as error:
        return [Finding(where, f"{error}")]
    if stated.size != grown.size or stated.root != grown.root():
        return [Finding(where, "its root is not that of the entries it covers")]
    return []

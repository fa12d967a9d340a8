"""Appends to the log inside the caller's transaction; sequences bulk events; signs tree heads.

A leaf says what happened, when, and commits to who and to what by salted hashes: no personal data
is in it, and erasing a salt leaves the log whole. Leaf order is commit order without gaps, because
the head row is locked last and its size is the next index.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, func, select, update

from stagerelease.db.work import Work
from stagerelease.kernel.canonical import canonical
from stagerelease.kernel.clock import iso
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import Invalid
from stagerelease.kernel.ids import new_salt
from stagerelease.ledger import merkle, notes, queries
from stagerelease.ledger.signer import LogSigner
from stagerelease.ledger.tables import (
    LogCheckpoint,
    LogCommitment,
    LogDetail,
    LogHead,
    LogLeaf,
    LogNode,
    LogPending,
)

LEAF_VERSION = 1
LONGEST_LEAF = 16 * 1024
NONCE = 16


def commit_to(work: Work, value: str) -> str:
    """Return SHA-256(salt ‖ value) for a fresh 32-byte salt, and keep the salt beside the value."""
    salt = new_salt()
    commitment = sha256_hex(salt + value.encode())
    work.session.add(LogCommitment(commitment=commitment, salt=salt, value=value))
    return commitment


def append(
    work: Work,
    *,
    type: str,  # noqa: A002 (the word the leaf itself uses)
    subject: str,
    prev_state: str | None = None,
    new_state: str | None = None,
    detail: Mapping[str, Any],
    policy_sha256: str | None = None,
    private: bool = True,
    actor: str | None = None,
    at: str | None = None,
) -> int:
    """Append one leaf and return its index. The last thing a use case does before it ends.

    ``type`` is public; ``subject`` and the actor are committed to with salts; ``detail`` (any JSON)
    is stored beside the log and committed to by digest, salted by a nonce kept with it.

    Raises:
        Invalid: the leaf would be longer than ``LONGEST_LEAF`` bytes.
    """
    wrapped = canonical({"detail": dict(detail), "nonce": new_salt(NONCE).hex()})
    leaf: dict[str, Any] = {
        "v": LEAF_VERSION,
        "type": type,
        "at": at or iso(work.now),
        "actor": commit_to(work, actor or work.actor.id),
        "subject": commit_to(work, subject),
        "detail_sha256": sha256_hex(wrapped),
    }
    optional = {"prev_state": prev_state, "new_state": new_state, "policy_sha256": policy_sha256}
    leaf |= {name: value for name, value in optional.items() if value is not None}
    if private:  # hash tiles are public: a nonce keeps a private leaf from being guessed
        leaf["nonce"] = new_salt(NONCE).hex()
    body = canonical(leaf)
    if len(body) > LONGEST_LEAF:
        raise Invalid("A log entry would be too long; put the detail in by digest.")
    work.session.add(LogDetail(sha256=leaf["detail_sha256"], body=wrapped))
    return _append_body(work, body)


def _append_body(work: Work, body: bytes) -> int:
    """Lock the head, write the leaf and the subtrees it completes, advance the head."""
    session = work.session
    session.flush()  # every other row first: the head is locked last and shortest
    head = session.execute(
        select(LogHead.size, LogHead.frontier).where(LogHead.id == 1).with_for_update()
    ).one()
    frontier = merkle.Frontier.load(head.size, head.frontier)
    leaf = merkle.leaf_hash(body)
    grown, made = frontier.append(leaf)
    session.add(LogLeaf(idx=frontier.size, body=body, hash=leaf))
    session.add_all(LogNode(level=level, idx=idx, hash=digest) for level, idx, digest in made)
    session.execute(
        update(LogHead).where(LogHead.id == 1).values(size=grown.size, frontier=grown.dump())
    )
    session.flush()
    return frontier.size


def enqueue_bulk(
    work: Work,
    *,
    type: str,  # noqa: A002
    subject: str,
    detail: Mapping[str, Any],
    actor: str | None = None,
    private: bool = True,
) -> None:
    """Write a bulk event (downloads, usage) to be sequenced within a second.

    It commits with the caller's rows; only its place in the log is decided later.
    """
    event = {
        "type": type,
        "subject": subject,
        "detail": dict(detail),
        "actor": actor or work.actor.id,
        "private": private,
        "at": iso(work.now),
    }
    work.session.add(LogPending(event=event, created_at=work.now))


def has_pending(work: Work) -> bool:
    """Tell whether bulk events wait for their place."""
    return work.session.execute(select(LogPending.id).limit(1)).first() is not None


def sequence_pending(work: Work, limit: int = 500) -> int:
    """Give waiting bulk events their places, in order, and return how many."""
    rows = work.session.execute(
        select(LogPending.id, LogPending.event)
        .order_by(LogPending.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for _, event in rows:
        append(work, **event)
    if rows:
        ids = [row.id for row in rows]
        work.session.execute(delete(LogPending).where(LogPending.id.in_(ids)))
    return len(rows)


def checkpoint_due(work: Work) -> bool:
    """Tell whether the log has grown since its newest checkpoint."""
    signed = work.session.execute(select(func.max(LogCheckpoint.size))).scalar_one()
    return queries.log_size(work) > (signed if signed is not None else -1)


def sign_checkpoint(work: Work, signer: LogSigner) -> str:
    """Sign the present tree head and return the note; the same note when nothing has moved."""
    row = work.session.execute(
        select(LogHead.size, LogHead.frontier).where(LogHead.id == 1).with_for_update()
    ).one()
    known = work.session.get(LogCheckpoint, row.size)
    if known is not None:
        return known.note
    frontier = merkle.Frontier.load(row.size, row.frontier)
    head = notes.Checkpoint(signer.origin, frontier.size, frontier.root())
    note = notes.sign(head.body(), signer.skey)
    work.session.add(LogCheckpoint(size=frontier.size, note=note, created_at=work.now))
    return note

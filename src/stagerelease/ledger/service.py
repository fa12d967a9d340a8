"""Appends to the log inside the caller's transaction; sequences bulk events; signs tree heads.

A leaf says what happened, when, and commits to who and to what by salted hashes: no personal data
is in it, and erasing a salt leaves the log whole. Leaf order is commit order without gaps, because
the head row is locked last and its size is the next index. An index never comes from a sequence: a
rollback would leave a hole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from stagerelease.db.work import Work
from stagerelease.kernel.canonical import canonical
from stagerelease.kernel.clock import iso
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import Corrupt, Invalid
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
LONGEST_LEAF = 16 * 1024  # tlog-tiles counts bytes in 16 bits; we stay well below
LONGEST_VALUE = 400  # of a subject or actor, as its column
LONGEST_TYPE = 100
NONCE = 16


# --- leaves -------------------------------------------------------------------------------------


def append(
    work: Work,
    *,
    type: str,
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
        Invalid: the leaf would be longer than ``LONGEST_LEAF`` bytes, or cannot be canonical JSON.
        Corrupt: the stored head cannot be appended to.
    """
    leaf = {
        "type": type,
        "at": at or iso(work.now),
        "prev_state": prev_state,
        "new_state": new_state,
        "policy_sha256": policy_sha256,
    }
    who = actor or work.actor.id
    body = _write_leaf(work, leaf, actor=who, subject=subject, detail=dict(detail), private=private)
    return _extend(work, [body])


def _write_leaf(
    work: Work,
    leaf: Mapping[str, Any],
    *,
    actor: str,
    subject: str,
    detail: dict[str, Any],
    private: bool,
) -> bytes:
    """Keep what the leaf commits to, and return its canonical bytes, not yet in the log."""
    _require_form(leaf["type"], actor, subject)
    wrapped = _canonical({"detail": detail, "nonce": new_salt(NONCE).hex()})
    digest = sha256_hex(wrapped)
    work.session.add(LogDetail(sha256=digest, body=wrapped))
    full = {name: value for name, value in leaf.items() if value is not None} | {
        "v": LEAF_VERSION,
        "actor": commit_to(work, actor),
        "subject": commit_to(work, subject),
        "detail_sha256": digest,
    }
    if private:  # hash tiles are public: a nonce keeps a private leaf from being guessed
        full["nonce"] = new_salt(NONCE).hex()
    body = _canonical(full)
    if len(body) > LONGEST_LEAF:
        raise Invalid(
            f"A log entry would have {len(body)} bytes; at most {LONGEST_LEAF} fit.",
            reason="ledger.too_long",
            next_step="Put what is long into the detail.",
        )
    return body


def commit_to(work: Work, value: str) -> str:
    """Return SHA-256(salt ‖ value) for a fresh 32-byte salt, and keep the salt beside the value."""
    salt = new_salt()
    commitment = sha256_hex(salt + value.encode())
    work.session.add(LogCommitment(commitment=commitment, salt=salt, value=value))
    return commitment


def _canonical(value: Any) -> bytes:
    try:
        return canonical(value)
    except (ValueError, RecursionError) as error:
        raise Invalid(
            f"A log entry holds a value that canonical JSON cannot: {error}.",
            reason="ledger.not_canonical",
            next_step="Use text, whole numbers below 2^53, finite numbers, lists and objects.",
        ) from error


def _require_form(type_: str, actor: str, subject: str) -> None:
    """Refuse, before anything is written, what one of the two databases could not keep."""
    _canonical([type_, actor, subject])  # a lone surrogate is not text
    for value, longest in ((type_, LONGEST_TYPE), (actor, LONGEST_VALUE), (subject, LONGEST_VALUE)):
        if not 0 < len(value) <= longest or "\x00" in value:
            raise Invalid(
                f"A log entry's type has 1 to {LONGEST_TYPE} characters, its actor and subject "
                f"1 to {LONGEST_VALUE}, none of them NUL.",
                reason="ledger.form",
            )


def _extend(work: Work, bodies: Sequence[bytes]) -> int:
    """Lock the head, write leaves and the subtrees they complete, advance the head.

    Returns the index of the first leaf.
    """
    session = work.session
    session.flush()  # every other row first: the head is locked last and shortest
    frontier = queries.frontier(work, lock=True)
    first = frontier.size
    leaves: list[dict[str, Any]] = []
    nodes: list[dict[str, Any]] = []
    for body in bodies:
        leaf = merkle.leaf_hash(body)
        leaves.append({"idx": frontier.size, "body": body, "hash": leaf})
        frontier, made = frontier.append(leaf)
        nodes += [{"level": level, "idx": idx, "hash": digest} for level, idx, digest in made]
    session.execute(insert(LogLeaf), leaves)
    if nodes:
        session.execute(insert(LogNode), nodes)
    session.execute(
        update(LogHead).where(LogHead.id == 1).values(size=frontier.size, frontier=frontier.dump())
    )
    return first


# --- erasure ------------------------------------------------------------------------------------


def forget_actors(work: Work, indices: Collection[int]) -> None:
    """Erase for good who did what these entries tell: the entries and all their hashes stand."""
    for idx in indices:
        commitment = queries.entry(work, idx).leaf["actor"]
        work.session.execute(delete(LogCommitment).where(LogCommitment.commitment == commitment))


def forget(work: Work, *, values: Collection[str]) -> None:
    """Erase for good that entries are by, or about, exactly these; the entries stand."""
    work.session.flush()
    work.session.execute(delete(LogCommitment).where(LogCommitment.value.in_(sorted(values))))


def forget_details(work: Work, indices: Collection[int]) -> None:
    """Erase for good the details of these entries; their digests in the log stand."""
    for idx in indices:
        digest = queries.entry(work, idx).leaf["detail_sha256"]
        work.session.execute(delete(LogDetail).where(LogDetail.sha256 == digest))


# --- bulk events --------------------------------------------------------------------------------


def enqueue_bulk(
    work: Work,
    *,
    type: str,
    subject: str,
    detail: Mapping[str, Any],
    actor: str | None = None,
    private: bool = True,
) -> None:
    """Write a bulk event (downloads, usage) to be sequenced within a second.

    It commits with the caller's rows; only its place in the log is decided later.

    Raises:
        Invalid: the sequencer could not log it. Refused here, where the one at fault hears it: one
            event that cannot be logged would stop every event behind it.
    """
    who = actor or work.actor.id
    _require_form(type, who, subject)
    event = {
        "leaf": {"type": type, "at": iso(work.now)},
        "subject": subject,
        "detail": dict(detail),
        "actor": who,
        "private": private,
    }
    _canonical(event)
    work.session.add(LogPending(event=event, created_at=work.now))


def has_pending(work: Work) -> bool:
    """Tell whether bulk events wait for their place."""
    return work.session.execute(select(LogPending.id).limit(1)).first() is not None


def sequence_pending(work: Work, limit: int = 500) -> int:
    """Give waiting bulk events their places, in the order of their rows, and return how many.

    A second sequencer waits for the first (no SKIP LOCKED), so it cannot overtake it.
    """
    rows = work.session.execute(
        select(LogPending.id, LogPending.event)
        .order_by(LogPending.id)
        .limit(limit)
        .with_for_update()
    ).all()
    if rows:
        bodies = [_write_leaf(work, **row.event) for row in rows]
        done = LogPending.id.in_([row.id for row in rows])
        work.session.execute(
            delete(LogPending).where(done).execution_options(synchronize_session=False)
        )
        _extend(work, bodies)
    return len(rows)


# --- tree heads ---------------------------------------------------------------------------------


def checkpoint_due(work: Work) -> bool:
    """Tell whether the log has grown since its newest checkpoint."""
    signed = work.session.execute(select(func.max(LogCheckpoint.size))).scalar_one()
    return queries.log_size(work) > (signed if signed is not None else -1)


def sign_checkpoint(work: Work, signer: LogSigner) -> str:
    """Sign the present tree head and return the note; the same note when nothing has moved.

    A log must not sign what contradicts a checkpoint it signed before (tlog-checkpoint), so the
    stored nodes must first prove that the newest one is a prefix of the head.

    Raises:
        Corrupt: they do not; nothing is signed.
    """
    frontier = queries.frontier(work, lock=True)
    known = work.session.get(LogCheckpoint, frontier.size)
    if known is not None:
        return known.note
    newest = queries.latest_checkpoint(work)
    if newest is not None:
        _require_growth(work, newest, frontier)
    head = notes.Checkpoint(signer.origin, frontier.size, frontier.root())
    note = notes.sign(head.body(), signer.skey)
    work.session.add(LogCheckpoint(size=frontier.size, note=note, created_at=work.now))
    return note


def _require_growth(work: Work, newest: queries.CheckpointRow, head: merkle.Frontier) -> None:
    try:
        old = notes.parse_checkpoint(notes.parse_note(newest.note).text)
        proof = merkle.consistency_proof(old.size, head.size, queries.node_of(work))
        merkle.check_consistency(old.size, old.root, head.size, head.root(), proof)
    except ValueError as error:
        raise Corrupt(
            f"The log of {head.size} entries does not continue the checkpoint of {newest.size} "
            f"entries that was signed before: {error}.",
            reason="ledger.forked",
            next_step="Stop the service and run `stagerelease ledger verify`.",
        ) from error

"""Use cases that take evidence away from decisions: retract, dispute or supersede it, and re-open.

A request that rests on evidence nobody stands by any more was approved on something else than it
says now. So every unapplied one gets a new edition in the same transaction: its approvals and
judgements are void, and people look again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import or_, select

from stagerelease.catalog.tables import Revision, RevisionFile
from stagerelease.db.work import Work
from stagerelease.evidence import service as evidence
from stagerelease.evidence.queries import EvidenceRow, facts_of, load_evidence
from stagerelease.evidence.rules import STANDING
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.errors import Conflict, NotFound
from stagerelease.releases.moving import lock_tracks, move
from stagerelease.releases.promotions import renew_hash
from stagerelease.releases.rules import OPEN, REOPENED, State, check_text
from stagerelease.releases.tables import Promotion, Track


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a piece of evidence, and the promotion requests it re-opened."""

    evidence_id: str
    state: str
    reopened: tuple[int, ...]


def retract_evidence(work: Work, evidence_id: str, *, reason: str) -> Taken:
    """Retract evidence and re-open every unapplied request that rests on it.

    Raises:
        NotFound: there is no such evidence.
        Conflict: its state does not lead to retracted.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)  # whose it is, is decided where it lives
    reason = check_text(reason, "reason")
    using = _lock_users(work, evidence_id)
    evidence.retract(work, evidence_id, reason=reason)
    return _reopen(work, using, evidence_id, "retracted", reason)


def dispute_evidence(work: Work, evidence_id: str, *, reason: str) -> Taken:
    """Dispute accepted evidence, which stops counting, and re-open unapplied requests likewise.

    Raises:
        NotFound: there is no such evidence.
        Conflict: its state does not lead to disputed.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    reason = check_text(reason, "reason")
    using = _lock_users(work, evidence_id)
    evidence.dispute(work, evidence_id, reason=reason)
    return _reopen(work, using, evidence_id, "disputed", reason)


def accept_evidence(
    work: Work, evidence_id: str, *, reason: str = "", seen: str | None = None
) -> EvidenceRow:
    """Accept submitted evidence; unapplied requests that rest on what it supersedes are re-opened.

    Else a piece that blocks a request could be put out of the way by another that says worse.

    Raises: what ``evidence.service.accept`` raises.
        Conflict: its authors changed meanwhile what it supersedes.
    """
    require(work.actor, Permission.EVIDENCE_DECIDE)
    old = load_evidence(work, evidence_id).supersedes_id
    using = _lock_users(work, old) if old is not None else []
    stood = old is not None and load_evidence(work, old).state in STANDING
    row = evidence.accept(work, evidence_id, reason=reason, seen=seen)
    if row.supersedes_id != old:
        raise Conflict(
            f"{row.id} was changed a moment ago.",
            reason="conflict.concurrent",
            next_step="Look at it as it is now.",
        )
    if old is not None and stood:
        _reopen(work, using, old, "superseded", f"{row.id} was accepted in its place.")
    return row


def _lock_users(work: Work, evidence_id: str) -> list[Promotion]:
    """Return the unapplied requests that name this evidence, locked, their tracks locked before.

    Every track the evidence could be about is locked, so that no request names it meanwhile.
    """
    known = facts_of(work, [evidence_id])
    if not known:
        raise NotFound(f"There is no evidence {evidence_id!r}.", reason="evidence.unknown")
    tracks = lock_tracks(work, _tracks_about(work, known[0].subject_sha256))
    waiting = work.session.execute(
        select(Promotion)
        .where(
            Promotion.track_id.in_([track.id for track in tracks]),
            Promotion.state.in_(sorted(OPEN)),
        )
        .order_by(Promotion.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return [p for p in waiting.scalars().all() if evidence_id in p.evidence_ids]


def _tracks_about(work: Work, subject_sha256: str) -> Collection[str]:
    holding = select(RevisionFile.revision_id).where(RevisionFile.sha256 == subject_sha256)
    manifest = select(Revision.id).where(Revision.manifest_sha256 == subject_sha256)
    return list(
        work.session.execute(
            select(Track.id).where(
                or_(Track.revision_id.in_(holding), Track.revision_id.in_(manifest))
            )
        ).scalars()
    )


def _reopen(
    work: Work, promotions: Collection[Promotion], evidence_id: str, became: str, reason: str
) -> Taken:
    reopened = []
    for promotion in promotions:
        to = REOPENED.get(State(promotion.state))
        if to is None:
            continue  # a draft, or sent back: nobody has vouched for it as it stands
        old = promotion.request_hash
        renew_hash(work, promotion)
        move(
            work,
            promotion,
            to,
            event="reopened",
            detail={
                "voids": old,
                "evidence": evidence_id,
                "reason": f"Evidence {evidence_id} was {became}: {reason}",
            },
        )
        reopened.append(promotion.id)
    work.session.flush()
    return Taken(evidence_id, became, tuple(reopened))

"""Use cases of a reviewer: approve, reject, send back, answer a manual gate.

Every act binds to the ``request_hash`` the reviewer saw (invariant 2).
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.identity import queries as identity
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, Forbidden, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.releases import facts, queries, rules
from stagerelease.releases.facts import PromotionRow
from stagerelease.releases.gates import (
    ApprovalFact,
    Facts,
    GateResult,
    Outcome,
    counted,
    evaluate,
    evidence_authors,
)
from stagerelease.releases.humans import accountable
from stagerelease.releases.moving import lock_promotion, move
from stagerelease.releases.promotions import check_alive, check_seen, read_back
from stagerelease.releases.rules import REVIEWABLE, State, check_text
from stagerelease.releases.tables import Approval, Judgement, Promotion


def _begin_review(work: Work, promotion_id: int, request_hash: str | None, act: str) -> Promotion:
    """Lock a request for one act of a reviewer, and check everything such acts have in common."""
    me = accountable(work, f"{act} a promotion request")
    promotion = lock_promotion(work, promotion_id)
    if promotion.requester_id == me:
        raise Forbidden(
            f"You opened this promotion request, so you cannot {act} it.",
            reason="promotion.own",
            next_step="Ask another reviewer.",
        )
    check_alive(work, promotion)
    if request_hash is not None:
        check_seen(promotion, request_hash)
    if State(promotion.state) not in REVIEWABLE:
        raise Conflict(
            f"The promotion request is {rules.in_words(promotion.state)}: it is not under review.",
            reason=f"promotion.{promotion.state}",
            next_step="Wait until its requester submits it.",
        )
    return promotion


def _verdict(work: Work, promotion: Promotion, verdict: str) -> tuple[Facts, frozenset[str]]:
    """Check that this person's verdict counts here; return the facts before it, and their roles."""
    me = work.actor.id
    quorum = queries.plan_of(work, promotion.plan_version_id).stage(promotion.to_stage).quorum
    held = frozenset(identity.roles_now(work, me))
    if not held & frozenset(quorum.roles):
        raise Forbidden(
            f"The stage {promotion.to_stage} is decided by {' or '.join(quorum.roles)}, and you "
            f"hold {', '.join(sorted(held)) or 'no role'}.",
            reason="promotion.role",
        )
    given = work.session.execute(
        select(Approval.id).where(
            Approval.promotion_id == promotion.id,
            Approval.person_id == me,
            Approval.request_hash == promotion.request_hash,
            Approval.verdict == verdict,
        )
    ).first()
    if given is not None:
        raise Conflict("You have decided on this request already.", reason="promotion.decided")
    seen = facts.gather(work, promotion.id)
    if verdict == "approve":
        _refuse_author(seen, me, "approve")
    return seen, held


def _refuse_author(seen: Facts, person_id: str, act: str) -> None:
    wrote = evidence_authors(seen).get(person_id)
    if wrote is not None:
        raise Forbidden(
            f"You are an author of evidence {wrote}, which this promotion request rests on, so "
            f"you cannot {act} it.",
            reason="promotion.evidence-author",
            next_step="Ask a reviewer who wrote none of its evidence.",
        )


def _record_verdict(
    work: Work, promotion: Promotion, verdict: str, comment: str, held: frozenset[str]
) -> None:
    if State(promotion.state) is State.SUBMITTED:
        move(work, promotion, State.IN_REVIEW)
    event = {"approve": "approval", "reject": "rejection", "request_changes": "change-request"}
    leaf = ledger.append(
        work,
        type=f"review.{event[verdict]}",
        subject=f"promotion:{promotion.id}",
        prev_state=promotion.state,
        new_state=promotion.state,
        detail={
            "person": work.actor.id,
            "roles": sorted(held),
            "request_hash": promotion.request_hash,
            "comment": comment,
        },
        policy_sha256=queries.plan_sha256(work, promotion.plan_version_id),
    )
    work.session.add(
        Approval(
            id=new_id("apv"),
            promotion_id=promotion.id,
            person_id=work.actor.id,
            roles=sorted(held),
            request_hash=promotion.request_hash,
            verdict=verdict,
            comment=comment,
            at=work.now,
            leaf_idx=leaf,
        )
    )


def approve(work: Work, promotion_id: int, *, request_hash: str, comment: str = "") -> PromotionRow:
    """Approve exactly the request whose hash the reviewer saw.

    The approval that reaches the quorum makes the request approved, and scheduled when it names a
    time to come.

    Raises:
        Stale: the request was edited since.
        Forbidden: the requester, an author of its evidence, a machine's account, or none of the
            quorum's roles.
        Conflict: ended, expired, not under review, or approved by this person already.
    """
    require(work.actor, Permission.PROMOTION_DECIDE)
    comment = check_text(comment, "comment", required=False)
    promotion = _begin_review(work, promotion_id, request_hash, "approve")
    seen, held = _verdict(work, promotion, "approve")
    mine = ApprovalFact(
        person_id=work.actor.id,
        name=work.actor.name,
        request_hash=promotion.request_hash,
        human=True,
        disabled=False,
        roles=held,
    )
    with_mine = replace(seen, approvals=(*seen.approvals, mine))
    _record_verdict(work, promotion, "approve", comment, held)
    reached = len(counted(with_mine)) >= seen.target.quorum.count
    if reached and State(promotion.state) is State.IN_REVIEW:
        settle(work, promotion)
    return read_back(work, promotion)


def settle(work: Work, promotion: Promotion) -> None:
    """Move a request whose quorum is reached on to approved, and to scheduled if it must wait."""
    move(work, promotion, State.APPROVED)
    if promotion.scheduled_for is not None and promotion.scheduled_for > work.now:
        move(work, promotion, State.SCHEDULED, detail={"for": iso(promotion.scheduled_for)})


def reject(work: Work, promotion_id: int, *, request_hash: str, comment: str) -> PromotionRow:
    """End a request with one reviewer's reasons; a new one may be opened.

    Raises: as ``approve``.
    """
    require(work.actor, Permission.PROMOTION_DECIDE)
    comment = check_text(comment, "comment")
    promotion = _begin_review(work, promotion_id, request_hash, "reject")
    _, held = _verdict(work, promotion, "reject")
    _record_verdict(work, promotion, "reject", comment, held)
    move(work, promotion, State.REJECTED, reason=comment)
    return read_back(work, promotion)


def request_changes(
    work: Work, promotion_id: int, *, request_hash: str, comment: str
) -> PromotionRow:
    """Send a request back to its requester, who edits and resubmits it.

    Raises: as ``approve``; Conflict also once the quorum is reached (reject it then).
    """
    require(work.actor, Permission.PROMOTION_DECIDE)
    comment = check_text(comment, "comment")
    promotion = _begin_review(work, promotion_id, request_hash, "ask for changes to")
    _, held = _verdict(work, promotion, "request_changes")
    _record_verdict(work, promotion, "request_changes", comment, held)
    move(work, promotion, State.CHANGES_REQUESTED, reason=None, detail={"comment": comment})
    return read_back(work, promotion)


def _check_asked(work: Work, promotion: Promotion, gate: str) -> None:
    """Return only if that gate of this request waits for a person's answer now.

    Raises:
        NotFound: the stage asked for has no such gate that people answer.
        Conflict: answered already, or nothing is asked of anybody there.
        Forbidden: inconclusive evidence is not judged by its own author.
    """
    seen = facts.gather(work, promotion.id)
    results = [r for r in evaluate(seen) if r.waivable]  # what every stage has is never judged
    found = next((r for r in results if r.key == gate), None)
    if found is None:
        keys = ", ".join(r.key for r in results if _asks(r)) or "none"
        raise NotFound(
            f"The stage {promotion.to_stage} has no gate of that name that waits for an answer; "
            f"it has {keys}.",
            reason="gate.unknown",
        )
    if any(j.gate == gate and j.request_hash == promotion.request_hash for j in seen.judgements):
        raise Conflict(
            f"The gate {gate} is answered already.",
            reason="gate.answered",
            next_step="If that answer no longer counts, its requester edits the request, which "
            "asks everything anew.",
        )
    if not _asks(found):
        raise Conflict(
            f"The gate {gate} asks nobody: {found.sentence}",
            reason="gate.not-asked",
            next_step="Only a manual or an inconclusive gate is answered by a person.",
        )
    if found.kind != "manual":
        _refuse_author(seen, work.actor.id, "judge")


def _asks(result: GateResult) -> bool:
    return result.kind == "manual" or result.found is Outcome.INCONCLUSIVE


def judge(
    work: Work,
    promotion_id: int,
    *,
    gate: str,
    passed: bool,
    reason: str,
    request_hash: str | None = None,
) -> PromotionRow:
    """Answer a manual or an inconclusive gate of this request, once and on record.

    The answer holds for exactly this request; nobody is asked again, whatever else is found.

    Raises:
        NotFound: the stage asked for has no such gate.
        Conflict: answered already, nothing to answer, ended, expired or not under review.
        Stale, Forbidden: as ``approve``.
    """
    require(work.actor, Permission.PROMOTION_DECIDE)
    reason = check_text(reason, "reason")
    promotion = _begin_review(work, promotion_id, request_hash, "judge")
    _check_asked(work, promotion, gate)
    if State(promotion.state) is State.SUBMITTED:
        move(work, promotion, State.IN_REVIEW)
    leaf = ledger.append(
        work,
        type="review.judgement",
        subject=f"promotion:{promotion.id}",
        prev_state=promotion.state,
        new_state=promotion.state,
        detail={
            "person": work.actor.id,
            "gate": gate,
            "passed": passed,
            "reason": reason,
            "request_hash": promotion.request_hash,
        },
        policy_sha256=queries.plan_sha256(work, promotion.plan_version_id),
    )
    work.session.add(
        Judgement(
            id=new_id("jdg"),
            promotion_id=promotion.id,
            gate=gate,
            passed=passed,
            person_id=work.actor.id,
            request_hash=promotion.request_hash,
            reason=reason,
            at=work.now,
            leaf_idx=leaf,
        )
    )
    return read_back(work, promotion)

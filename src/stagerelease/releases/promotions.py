"""Use cases of a requester: open a promotion request, name its evidence, edit it, end it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.evidence.facts import EvidenceFact
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.clock import said
from stagerelease.kernel.errors import Blocked, Conflict, FieldError, Forbidden, Invalid, Stale
from stagerelease.ledger import service as ledger
from stagerelease.releases import facts, queries, rules
from stagerelease.releases.facts import PromotionRow
from stagerelease.releases.gates import GateResult, evaluate
from stagerelease.releases.humans import accountable
from stagerelease.releases.moving import lock_promotion, lock_track, move
from stagerelease.releases.rules import ENDED, MAX_EVIDENCE, State, check_schedule, check_text
from stagerelease.releases.tables import Promotion


def _hash(work: Work, promotion: Promotion) -> str:
    return rules.request_hash(
        rules.Vouched(
            track_id=promotion.track_id,
            from_stage=promotion.from_stage,
            to_stage=promotion.to_stage,
            manifests=(promotion.manifest_sha256,),
            evidence_ids=tuple(promotion.evidence_ids),
            plan_sha256=queries.plan_sha256(work, promotion.plan_version_id),
            rationale=promotion.rationale,
            scheduled_for=promotion.scheduled_for,
            edition=promotion.edition,
        )
    )


def _named(work: Work, track_id: str, asked: Sequence[str] | None) -> list[str]:
    """Return the ids of the evidence a request rests on: ``asked``, or all accepted about it.

    The caller holds the track, so that nothing of it is retracted between here and the hash.

    Raises:
        Invalid: one is not there, is not about this track or is not accepted; or too many.
    """
    about = {e.id: e for e in facts.about(work, queries.load_track(work, track_id))}
    accepted = {e.id for e in about.values() if e.state == "accepted"}
    ids = accepted if asked is None else set(asked)
    if len(ids) > MAX_EVIDENCE:
        raise Invalid(
            f"A request rests on at most {MAX_EVIDENCE} pieces of evidence, and these are "
            f"{len(ids)}.",
            reason="evidence.many",
            next_step="Name those that its gates need.",
        )
    wrong = [
        FieldError(f"evidence_ids.{i}", f"evidence_ids.{i}: {_why_not(about.get(name), name)}")
        for i, name in enumerate(asked or ())
        if name not in accepted
    ]
    if wrong:
        raise Invalid(
            f"The request cannot rest on that evidence: {wrong[0].sentence}",
            reason="evidence.unfit",
            next_step="List the evidence about this track.",
            fields=wrong,
        )
    return sorted(ids)


def _why_not(found: EvidenceFact | None, name: str) -> str:
    if found is None:
        return f"there is no evidence {name!r} about a file or the manifest of this track."
    return f"{name} is {found.state}, not accepted."


def open_promotion(
    work: Work,
    *,
    track_id: str,
    to: str,
    rationale: str,
    scheduled_for: datetime | None = None,
    evidence_ids: Sequence[str] | None = None,
    draft: bool = False,
) -> PromotionRow:
    """Open a request to move a track one stage up, and submit it (unless ``draft``).

    ``evidence_ids`` is what it rests on, frozen under its hash; None takes all accepted evidence
    about the track.

    Raises:
        NotFound: there is no such track.
        Invalid: evidence that is not accepted, or not about this track.
        Blocked: ``to`` is not the next stage.
        Forbidden: not a person. Else whoever runs a machine could approve what it asks for.
    """
    require(work.actor, Permission.PROMOTION_OPEN)
    me = accountable(work, "open a promotion request")
    rationale = check_text(rationale, "rationale")
    scheduled_for = check_schedule(scheduled_for, work.now)
    track = lock_track(work, track_id)
    plan = queries.plan_of(work, track.plan_version_id)
    wrong = rules.step(plan, track.stage, to)
    if wrong is not None:
        raise Blocked([wrong], next_step="Ask for the next stage.")
    promotion = Promotion(
        track_id=track.id,
        from_stage=track.stage,
        to_stage=to,
        state=State.DRAFT.value,
        requester_id=me,
        rationale=rationale,
        manifest_sha256=catalog.load_revision(work, track.revision_id).manifest_sha256,
        plan_version_id=track.plan_version_id,
        evidence_ids=_named(work, track.id, evidence_ids),
        edition=1,
        request_hash="",
        scheduled_for=scheduled_for,
        created_at=work.now,
        expires_at=rules.expiry(work.now, scheduled_for, plan),
    )
    promotion.request_hash = _hash(work, promotion)
    work.session.add(promotion)
    work.session.flush()  # its number is given by the database
    _log_opened(work, promotion)
    if not draft:
        _submit(work, promotion)
    return read_back(work, promotion)


def _log_opened(work: Work, promotion: Promotion) -> None:
    ledger.append(
        work,
        type="promotion.opened",
        subject=f"promotion:{promotion.id}",
        new_state=State.DRAFT.value,
        detail={
            "track": promotion.track_id,
            "from": promotion.from_stage,
            "to": promotion.to_stage,
            "request_hash": promotion.request_hash,
            "evidence": promotion.evidence_ids,
        },
        policy_sha256=queries.plan_sha256(work, promotion.plan_version_id),
    )


def _submit(work: Work, promotion: Promotion) -> None:
    plan = queries.plan_of(work, promotion.plan_version_id)
    promotion.submitted_at = work.now
    promotion.expires_at = rules.expiry(work.now, promotion.scheduled_for, plan)
    move(work, promotion, State.SUBMITTED)


def read_back(work: Work, promotion: Promotion) -> PromotionRow:
    """Return the request as it is now in this Work."""
    work.session.flush()
    return facts.load_promotion(work, promotion.id)


def check_seen(promotion: Promotion, request_hash: str) -> None:
    """Return only if ``request_hash`` is that of the request as it stands; else raise Stale."""
    if request_hash != promotion.request_hash:
        raise Stale(
            "The promotion request was edited since you looked: what you saw is not what would be "
            "decided.",
            reason="promotion.edited",
            next_step="Look at it again, and decide on what it says now.",
        )


def check_alive(work: Work, promotion: Promotion) -> None:
    """Return only if the request has neither ended nor expired; else raise Conflict."""
    state = State(promotion.state)
    if state in ENDED:
        raise Conflict(
            f"The promotion request is {rules.in_words(state)}.", reason=f"promotion.{state}"
        )
    # The sweeper will say so too; the clock decides (invariant 9).
    if promotion.expires_at is not None and work.now >= promotion.expires_at:
        raise Conflict(
            f"The promotion request expired at {said(promotion.expires_at)}.",
            reason="promotion.expired",
            next_step="Open a new request.",
        )


def _check_requester(work: Work, promotion: Promotion, act: str) -> None:
    if accountable(work, f"{act} a promotion request") != promotion.requester_id:
        raise Forbidden(
            f"Only the requester may {act} a promotion request.",
            reason="promotion.not-requester",
            next_step="Open a request of your own.",
        )


def edit_promotion(
    work: Work,
    promotion_id: int,
    *,
    rationale: str | None = None,
    scheduled_for: datetime | None = None,
    unschedule: bool = False,
    evidence_ids: Sequence[str] | None = None,
    request_hash: str | None = None,
) -> PromotionRow:
    """Change one's own request; it becomes a draft with a new hash, and its approvals are void.

    ``evidence_ids``, when given, is all it rests on from now on. ``request_hash``, when given, is
    the one the requester looked at.

    Raises:
        Stale: the request was edited since.
        Invalid: nothing would change, or evidence that is not accepted or not about this track.
        Conflict: the request has ended.
    """
    require(work.actor, Permission.PROMOTION_OPEN)
    if evidence_ids is not None:  # tracks are locked before requests
        lock_track(work, facts.load_promotion(work, promotion_id).track_id)
    promotion = lock_promotion(work, promotion_id)
    _check_requester(work, promotion, "edit")
    if request_hash is not None:
        check_seen(promotion, request_hash)
    check_alive(work, promotion)
    before = (promotion.rationale, promotion.scheduled_for, list(promotion.evidence_ids))
    if rationale is not None:
        promotion.rationale = check_text(rationale, "rationale")
    if unschedule:
        promotion.scheduled_for = None
    elif scheduled_for is not None:
        promotion.scheduled_for = check_schedule(scheduled_for, work.now)
    if evidence_ids is not None:
        promotion.evidence_ids = _named(work, promotion.track_id, evidence_ids)
    if (promotion.rationale, promotion.scheduled_for, promotion.evidence_ids) == before:
        raise Invalid("Nothing in the request would change.", reason="edit.empty")
    old = promotion.request_hash
    renew_hash(work, promotion)
    move(work, promotion, State.DRAFT, event="edited", detail={"voids": old})
    return read_back(work, promotion)


def renew_hash(work: Work, promotion: Promotion) -> None:
    """Make the request a new edition with a new hash, so that nothing said of it counts on."""
    promotion.edition += 1
    promotion.request_hash = _hash(work, promotion)


def resubmit(work: Work, promotion_id: int) -> PromotionRow:
    """Submit one's own draft (after an edit, or opened as one).

    Only a draft: to submit again what is under review would put its end off, for ever.

    Raises:
        Conflict: it is no draft. Invalid: the time it was scheduled for is over.
    """
    require(work.actor, Permission.PROMOTION_OPEN)
    promotion = lock_promotion(work, promotion_id)
    _check_requester(work, promotion, "submit")
    check_alive(work, promotion)
    if State(promotion.state) is not State.DRAFT:
        raise Conflict(
            f"The promotion request is {rules.in_words(promotion.state)}, not a draft.",
            reason=f"promotion.{promotion.state}",
            next_step="Edit it first, if it is to say something else.",
        )
    if promotion.scheduled_for is not None and promotion.scheduled_for <= work.now:
        raise Invalid(
            f"The time it was scheduled for, {said(promotion.scheduled_for)}, is over.",
            reason="schedule.range",
            next_step="Edit the request first.",
        )
    _submit(work, promotion)
    return read_back(work, promotion)


def cancel(work: Work, promotion_id: int, *, reason: str = "") -> PromotionRow:
    """End an unapplied request; whoever may open requests may end one."""
    require(work.actor, Permission.PROMOTION_OPEN)
    reason = check_text(reason, "reason", required=False)
    promotion = lock_promotion(work, promotion_id)
    move(work, promotion, State.CANCELLED, reason=reason or None)
    return read_back(work, promotion)


def what_blocks(work: Work, track_id: str, to: str) -> tuple[GateResult, ...]:
    """Return every gate that a request of ``to`` for this track would meet, as things stand.

    Raises:
        Blocked: ``to`` is not the next stage.
    """
    require(work.actor, Permission.PROMOTION_READ)
    track = queries.load_track(work, track_id)
    wrong = rules.step(queries.plan_of(work, track.plan_version_id), track.stage, to)
    if wrong is not None:
        raise Blocked([wrong], next_step="Ask for the next stage.")
    return evaluate(facts.imagine(work, track, to))


def list_promotions(
    work: Work,
    *,
    track_id: str | None = None,
    state: str | None = None,
    after: int | None = None,
    limit: int | None = None,
) -> list[PromotionRow]:
    """Return promotion requests to somebody who may read them, oldest first.

    At most ``limit`` of them, with numbers above ``after``. ``state`` is one of the states or
    ``open``.
    """
    require(work.actor, Permission.PROMOTION_READ)
    if state is not None and state not in {"open", *State}:
        raise Invalid(f"There is no state {state!r}.", reason="promotion.state")
    if track_id is not None and not queries.storable(track_id):
        return []
    return facts.list_promotions(work, track_id=track_id, state=state, after=after, limit=limit)

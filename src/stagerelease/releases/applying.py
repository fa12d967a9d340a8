"""The decision itself: apply a request, apply what is due, expire what nobody applied.

Everything is checked again inside the applying transaction, under the locks of the track, its open
requests and the approvers' accounts and roles (invariant 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import select

from stagerelease.db.work import Work, Works
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.actor import SYSTEM
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Blocked
from stagerelease.releases import facts, queries
from stagerelease.releases.facts import PromotionRow
from stagerelease.releases.gates import Facts, GateResult, counted, evaluate
from stagerelease.releases.moving import (
    lock_open_promotions,
    lock_promotion,
    lock_track,
    lock_tracks,
    move,
    supersede,
)
from stagerelease.releases.promotions import check_seen
from stagerelease.releases.reviewing import settle
from stagerelease.releases.rules import OPEN, State, blockers
from stagerelease.releases.tables import Promotion, Track
from stagerelease.releases.tracks import move_track

log = structlog.get_logger(__name__)


def apply(work: Work, promotion_id: int, *, request_hash: str | None = None) -> PromotionRow:
    """Move the track one stage up, if every gate passes at this instant.

    Other unapplied requests of the track are superseded. Stage event, announcement and log entries
    commit together or not at all. ``request_hash``, when given, is the one that was looked at.

    Raises:
        NotFound: there is no such request.
        Stale: the request was edited since it was looked at.
        Blocked: lists every reason, not just the first.
    """
    require(work.actor, Permission.PROMOTION_APPLY)
    row = facts.load_promotion(work, promotion_id)
    track = lock_track(work, row.track_id)
    if request_hash is not None:
        check_seen(lock_promotion(work, promotion_id), request_hash)
    _apply_locked(work, track, promotion_id)
    return facts.load_promotion(work, promotion_id)


def _apply_locked(work: Work, track: Track, promotion_id: int) -> None:
    competing = lock_open_promotions(work, track.id)
    promotion = next((p for p in competing if p.id == promotion_id), None)
    if promotion is None:  # it has ended; the facts say how
        promotion = lock_promotion(work, promotion_id)
    seen = facts.gather(work, promotion_id, lock=True)
    results = evaluate(seen)
    found = blockers(seen, results)
    if found:
        raise Blocked(found, next_step=f"See the gates of promotion request {promotion_id}.")
    others = [p for p in competing if p.id != promotion_id]
    _log_decision(work, promotion, seen, results)
    supersede(work, others, because=f"Promotion request {promotion_id} was applied.")
    move_track(
        work,
        track,
        promotion.to_stage,
        event="track.promoted",
        promotion_id=promotion.id,
        waived=waived_of(results),
    )
    work.session.flush()  # rows returned are read back


def waived_of(results: Sequence[GateResult]) -> list[dict[str, str]]:
    """Return what a move's public history tells for ever of the gates that were waived for it."""
    return [
        {
            "gate": result.key,
            "rule": result.rule,
            "found": result.found.value if result.found else "",
            "reason": result.waiver.reason,
            "until": iso(result.waiver.until),
            "waiver": result.waiver.id,
        }
        for result in results
        if result.waiver is not None
    ]


def _log_decision(
    work: Work, promotion: Promotion, seen: Facts, results: tuple[GateResult, ...]
) -> None:
    if State(promotion.state) is State.SUBMITTED:
        move(work, promotion, State.IN_REVIEW)
    if State(promotion.state) is State.IN_REVIEW:
        # The quorum was short when the last approval came, and is reached now: an approver's role
        # was given back.
        settle(work, promotion)
    move(
        work,
        promotion,
        State.APPLIED,
        detail={
            "approved_by": sorted(a.person_id for a in counted(seen)),
            "gates": [
                {
                    "key": result.key,
                    "kind": result.kind,
                    "measured": result.measured,
                    "threshold": result.threshold,
                    "outcome": result.outcome.value,
                    "evidence": [use.id for use in result.evidence if use.counted],
                    **({"waiver": result.waiver.id} if result.waiver else {}),
                    **({"judged_by": result.judgement.person_id} if result.judgement else {}),
                }
                for result in results
            ],
        },
    )


def apply_due(work: Work) -> list[int]:
    """Apply every scheduled request whose time has come and that nothing blocks; return numbers.

    Each is checked again as ``apply`` does. What is blocked stays scheduled, is reported in the
    operator's log, and is tried again until it expires.
    """
    require(work.actor, Permission.PROMOTION_APPLY)
    due = facts.due_promotions(work)
    # All tracks at once and in order: a lock may not wait for another after the ledger is locked.
    tracks = {track.id: track for track in lock_tracks(work, {track for _, track in due})}
    applied = []
    for number, track_id in due:
        try:
            _apply_locked(work, tracks[track_id], number)
        except Blocked as error:
            codes = [blocker.code for blocker in error.blockers]
            log.warning("a scheduled promotion is blocked", promotion=number, blockers=codes)
        else:
            applied.append(number)
    return applied


def promotions_due(work: Work) -> bool:
    """Tell whether ``apply_due`` or ``expire_stale`` would find anything; takes no lock."""
    require(work.actor, Permission.PROMOTION_APPLY)
    stale = select(Promotion.id).where(
        Promotion.state.in_(sorted(OPEN)), Promotion.expires_at <= work.now
    )
    due = facts.due_promotions(work)
    return bool(due) or work.session.execute(stale.limit(1)).first() is not None


def expire_stale(work: Work) -> list[int]:
    """Expire every unapplied request whose time is over; return their numbers."""
    require(work.actor, Permission.PROMOTION_APPLY)
    stale = work.session.execute(
        select(Promotion)
        .where(Promotion.state.in_(sorted(OPEN)), Promotion.expires_at <= work.now)
        .order_by(Promotion.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    numbers = []
    for promotion in stale.scalars().all():
        move(work, promotion, State.EXPIRED, reason="Nobody applied it in time.")
        numbers.append(promotion.id)
    return numbers


def announce(works: Works, payload: Mapping[str, Any]) -> None:
    """Handle the job ``releases.announce``: tell the operator's log that a track moved.

    Runs again without harm. Says only what the stage event says; never who decided.
    """
    with works.begin(SYSTEM, read_only=True) as work:
        track = queries.load_track(work, str(payload["track"]))
    log.info(
        "a track moved",
        track=track.id,
        repository=track.repo_id,
        kind=track.kind,
        before=payload["from"],
        after=payload["to"],
        promotion=payload.get("promotion"),
    )

"""The one way a promotion request changes state, and the locks every decision takes first.

Lock order, everywhere in this slice: tracks (by id), then promotion requests (by number), then
evidence and waivers, then people and roles, then the ledger. The clock is read again when locks are
held: who waited for one decides at an instant after what it waited for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.errors import NotFound
from stagerelease.ledger import service as ledger
from stagerelease.releases import queries
from stagerelease.releases.queries import MAX_ID
from stagerelease.releases.rules import ENDED, OPEN, State, check_move
from stagerelease.releases.tables import Promotion, Track

TOLD = frozenset(
    {State.SUBMITTED, State.APPROVED, State.APPLIED, State.REJECTED, State.CHANGES_REQUESTED}
)
"""Moves that somebody is told of: the requester, and who holds a role of the quorum."""


def lock_tracks(work: Work, track_ids: Collection[str]) -> list[Track]:
    """Return tracks, locked in the one order; rows that only refer to them are not kept waiting."""
    rows = work.session.execute(
        select(Track)
        .where(Track.id.in_(sorted(track_ids)))
        .order_by(Track.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    found = list(rows.scalars())
    work.refresh_now()
    return found


def lock_track(work: Work, track_id: str) -> Track:
    """Return a track, locked.

    Raises:
        NotFound: there is none.
    """
    found = lock_tracks(work, [track_id]) if queries.storable(track_id) else []
    if not found:
        raise NotFound(f"There is no track {track_id!r}.", reason="track.unknown")
    return found[0]


def lock_promotion(work: Work, promotion_id: int) -> Promotion:
    """Return a promotion request, locked.

    Raises:
        NotFound: there is none.
    """
    found = None
    if 0 < promotion_id <= MAX_ID:
        found = work.session.execute(
            select(Promotion)
            .where(Promotion.id == promotion_id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        ).scalar_one_or_none()
        work.refresh_now()
    if found is None:
        raise NotFound(f"There is no promotion request {promotion_id}.", reason="promotion.unknown")
    return found


def lock_open_promotions(work: Work, track_id: str) -> list[Promotion]:
    """Return every unapplied request of a track, locked; the caller holds the track already."""
    rows = work.session.execute(
        select(Promotion)
        .where(Promotion.track_id == track_id, Promotion.state.in_(sorted(OPEN)))
        .order_by(Promotion.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    found = list(rows.scalars())
    work.refresh_now()
    return found


def move(
    work: Work,
    promotion: Promotion,
    to: State,
    *,
    event: str | None = None,
    reason: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> int:
    """Move ``promotion`` to ``to`` and log it; return the leaf's index.

    The table of moves decides whether that is possible, so no caller can skip a state.

    Raises:
        Conflict: the request's state does not lead to ``to``.
    """
    check_move(promotion.state, to)
    before = promotion.state
    promotion.state = to.value
    if to in ENDED:
        promotion.ended_at = work.now
        promotion.end_reason = reason
    name = event or to.value
    if to in TOLD or event == "reopened":
        _tell(work, promotion, name, reason=reason, detail=detail)
    work.session.flush()  # a lost race over the row shows here, before the log is locked
    return ledger.append(
        work,
        type=f"promotion.{name}",
        subject=f"promotion:{promotion.id}",
        prev_state=before,
        new_state=to.value,
        detail={
            "track": promotion.track_id,
            "from": promotion.from_stage,
            "to": promotion.to_stage,
            "request_hash": promotion.request_hash,
            **({"reason": reason} if reason else {}),
            **(detail or {}),
        },
        policy_sha256=queries.plan_sha256(work, promotion.plan_version_id),
    )


def _tell(
    work: Work,
    promotion: Promotion,
    name: str,
    *,
    reason: str | None,
    detail: Mapping[str, Any] | None,
) -> None:
    track = queries.load_track(work, promotion.track_id)
    quorum = queries.plan_of(work, promotion.plan_version_id).stage(promotion.to_stage).quorum
    because = reason or (detail or {}).get("reason") or (detail or {}).get("comment")
    emit(
        work,
        f"promotion.{name}",
        subject=f"promotion:{promotion.id}",
        people=[promotion.requester_id],
        roles=quorum.roles,
        facts={
            "promotion_id": promotion.id,
            "track_id": track.id,
            "repo_id": track.repo_id,
            "kind": track.kind,
            "from_stage": promotion.from_stage,
            "stage": promotion.to_stage,
            "request_hash": promotion.request_hash,
            "rationale": promotion.rationale,
            **({"reason": because} if because else {}),
        },
    )


def supersede(work: Work, promotions: Collection[Promotion], *, because: str) -> None:
    """End requests that the track has moved away from."""
    for promotion in promotions:
        move(work, promotion, State.SUPERSEDED, reason=because)

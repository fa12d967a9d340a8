"""Asking for a promotion: what it would meet now and when, then the request, or its next edition.

The first page is the dry run: nothing is opened by looking.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import Request, Response

from stagerelease.db.work import Work
from stagerelease.evidence.facts import EvidenceFact
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.desk.steps import (
    Number,
    after_refusal,
    desk_router,
    instant,
    needed,
    take,
)
from stagerelease.http.pages.forms import Sent, Typed
from stagerelease.http.pages.frame import page
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.errors import DomainError, Forbidden, NotFound
from stagerelease.releases import facts
from stagerelease.releases import queries as reading
from stagerelease.releases import service as releases
from stagerelease.releases.facts import PromotionRow
from stagerelease.releases.queries import TrackRow

router = desk_router("/staff")
TRACK = "/tracks/{track_id}/promote"
EDIT = "/promotions/{number}/edit"


def _accepted(work: Work, track: TrackRow) -> list[EvidenceFact]:
    return [e for e in facts.about(work, track) if e.state == "accepted"]


def _next_stage(work: Work, track: TrackRow) -> str:
    above = reading.plan_of(work, track.plan_version_id).next(track.stage)
    if above is None:
        raise NotFound(
            f"There is no stage above {track.stage} for this track.",
            reason="track.top",
            next_step="Look at its track: it is where its plan leads, or withdrawn.",
        )
    return above.name


def _form(
    request: Request,
    begin: Any,
    track_id: str,
    *,
    editing: int | None = None,
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        require(work.actor, Permission.PROMOTION_OPEN)
        track = reading.load_track(work, track_id)
        row = facts.load_promotion(work, editing) if editing else None
        stage = row.to_stage if row else _next_stage(work, track)
        ahead = releases.simulate(work, track.id, stage)
        known = _accepted(work, track)
        now = work.now
    return page(
        request,
        "desk/promote.html",
        track=track,
        to=stage,
        ahead=ahead,
        known=known,
        row=row,
        now=now,
        **after_refusal(refusal),
        **_values(row, known, typed),
    )


def _values(
    row: PromotionRow | None, known: Sequence[EvidenceFact], typed: Typed | None
) -> dict[str, Any]:
    if typed is not None:
        return {
            "rationale": typed.raw("rationale"),
            "scheduled": typed.raw("scheduled_for"),
            "chosen": typed.all("evidence"),
        }
    at = row.scheduled_for if row else None
    return {
        "rationale": row.rationale if row else "",
        "scheduled": f"{at:%Y-%m-%dT%H:%M}" if at else "",
        "chosen": list(row.evidence_ids) if row else [e.id for e in known],
    }


@router.get(TRACK)
def dry_run(request: Request, begin: BeginPage, track_id: str) -> Response:
    """Show what a promotion of a track would meet, and the form that asks for it."""
    return _form(request, begin, track_id)


@router.post(TRACK)
def open_promotion(request: Request, begin: BeginPage, sent: Sent, track_id: str) -> Response:
    """Open a request: submitted at once, or kept as a draft."""
    draft = sent.raw("_do") == "draft"

    def act(work: Work) -> PromotionRow:
        track = reading.load_track(work, track_id)
        return releases.open_promotion(
            work,
            track_id=track.id,
            to=sent.get("to") or _next_stage(work, track),
            rationale=needed(sent, "rationale", "Say why now. Reviewers decide on it."),
            scheduled_for=instant(sent.get("scheduled_for"), "scheduled_for"),
            evidence_ids=sent.all("evidence"),
            draft=draft,
        )

    def then(row: PromotionRow) -> str:
        return f"/staff/promotions/{row.id}?done={'draft' if draft else 'opened'}#done"

    again = partial(_form, request, begin, track_id, typed=sent)
    return take(begin, Permission.PROMOTION_OPEN, act, then=then, again=again)


def _own(work: Work, number: int) -> PromotionRow:
    row = facts.load_promotion(work, number)
    if row.requester_id != work.actor.id:
        raise Forbidden(
            "Only the requester may edit a promotion request.",
            reason="promotion.not-requester",
            next_step="Open a request of your own.",
        )
    return row


@router.get(EDIT)
def edit_form(request: Request, begin: BeginPage, number: Number) -> Response:
    """Show the form of a new edition of one's own request."""
    with begin(read_only=True) as work:
        require(work.actor, Permission.PROMOTION_OPEN)
        row = _own(work, number)
    return _form(request, begin, row.track_id, editing=number)


@router.post(EDIT)
def edit(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Change one's own request: it becomes a draft, and what was decided on it is void."""

    def act(work: Work) -> PromotionRow:
        _own(work, number)
        at = instant(sent.get("scheduled_for"), "scheduled_for")
        row = releases.edit_promotion(
            work,
            number,
            rationale=needed(sent, "rationale", "Say why now. Reviewers decide on it."),
            scheduled_for=at,
            unschedule=at is None,
            evidence_ids=sent.all("evidence"),
            request_hash=sent.get("request_hash"),
        )
        return row if sent.raw("_do") == "draft" else releases.resubmit(work, number)

    def again(refusal: DomainError) -> Response:
        with begin(read_only=True) as work:
            require(work.actor, Permission.PROMOTION_OPEN)
            track_id = _own(work, number).track_id
        return _form(request, begin, track_id, editing=number, refusal=refusal, typed=sent)

    done = "draft" if sent.raw("_do") == "draft" else "submitted"
    return take(
        begin,
        Permission.PROMOTION_OPEN,
        act,
        then=f"/staff/promotions/{number}?done={done}#done",
        again=again,
    )

"""A track: where it stands, how it got there, what it rests on, who holds it, what stops it."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from fastapi import Request, Response
from markupsafe import Markup

from stagerelease.db.work import Work
from stagerelease.entitlements import service as entitlements
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.desk.holds import covered
from stagerelease.http.pages.desk.steps import (
    after_refusal,
    desk_router,
    needed,
    take_grave,
    typed_name,
)
from stagerelease.http.pages.desk.thread import Said
from stagerelease.http.pages.forms import Sent, Typed
from stagerelease.http.pages.frame import day, page
from stagerelease.http.pages.models import Rung
from stagerelease.identity.rules import Permission, authorize
from stagerelease.kernel.errors import DomainError
from stagerelease.partners import service as partners
from stagerelease.releases import facts
from stagerelease.releases import queries as reading
from stagerelease.releases import service as releases
from stagerelease.releases.ladder import WITHDRAWN, Plan
from stagerelease.releases.tracks import TrackPage

router = desk_router("/staff/tracks")
MOST = 200
NOTICES = {"withdrawn": "The release is withdrawn. Its grants are suspended, and holders are told."}


@router.get("/{track_id}")
def show_track(request: Request, begin: BeginPage, track_id: str, done: str = "") -> Response:
    """Show a track."""
    return _show(request, begin, track_id, done=done)


def _show(
    request: Request,
    begin: Any,
    track_id: str,
    *,
    done: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        found = releases.show_track(work, track_id)
        plan = reading.plan_of(work, found.track.plan_version_id)
        evidence = facts.about(work, found.track)
        holders = _holders(work, track_id)
        waivers = releases.list_waivers(work, track_id=track_id, limit=MOST)
        names = covered(work, found.holds)
        may = {
            name: authorize(work.actor, permission).allowed
            for name, permission in (
                ("open", Permission.PROMOTION_OPEN),
                ("hold", Permission.HOLD_LAY),
                ("withdraw", Permission.RELEASE_WITHDRAW),
            )
        }
    above = plan.next(found.track.stage)
    return page(
        request,
        "desk/track.html",
        track=found.track,
        found=found,
        plan=plan,
        rungs=_rungs(found, plan),
        above=above.name if above else "",
        lowest=found.track.stage == plan.ladder[0].name,
        gone=found.track.stage == WITHDRAWN,
        events=_events(found),
        evidence=sorted(evidence, key=lambda e: e.measured_at, reverse=True)[:MOST],
        holders=holders,
        waivers=waivers,
        names=names,
        may=may,
        notice=NOTICES.get(done, ""),
        **after_refusal(refusal, typed, "typed", "why"),
    )


def _holders(work: Work, track_id: str) -> Counter[str] | None:
    """Return how many grants there are on a track in each state; None to who may not know."""
    if not authorize(work.actor, Permission.GRANT_READ).allowed:
        return None
    rows = partners.holders_report(work, track_id=track_id, limit=500)
    return Counter(row.state for row in rows)


def _rungs(found: TrackPage, plan: Plan) -> list[tuple[Rung, Markup | str]]:
    """Return the ladder, each stage with when it was entered and what leads into it."""
    entered = {event.to_stage: event.at for event in found.events}
    rungs = []
    for stage in plan.ladder:
        if stage.name in entered:
            words: Markup | str = Markup("since {}").format(day(entered[stage.name]))
            if stage.name != found.track.stage:
                words = Markup("entered {}").format(day(entered[stage.name]))
        else:
            gates = f", {len(stage.gates)} gates" if len(stage.gates) > 1 else ""
            days = stage.minimum_dwell.days
            wait = f", {days} days in the stage below" if days else ""
            words = f"{stage.quorum.count} approvals{wait}{gates}"
        rungs.append((Rung(stage.name, stage.name in entered), words))
    return rungs


def _events(found: TrackPage) -> list[Said]:
    said = []
    for event in found.events:
        if event.from_stage is None:
            title = f"Started at {event.to_stage}"
        elif event.to_stage == WITHDRAWN:
            title = f"Withdrawn from {event.from_stage}"
        else:
            title = f"From {event.from_stage} to {event.to_stage}"
            if event.promotion_id:
                title += f", by promotion {event.promotion_id}"
        waived = "".join(
            f"\nWaived: {one['rule']}. {one['reason']}" for one in event.waived
        ).strip()
        kind = "bad" if event.to_stage == WITHDRAWN else "good" if event.from_stage else ""
        words = "\n".join(filter(None, (event.reason, waived)))
        said.append(Said(title, event.at, "", words, kind, event.leaf_idx))
    return said


@router.post("/{track_id}/withdraw")
def withdraw(request: Request, begin: BeginPage, sent: Sent, track_id: str) -> Response:
    """Take a release off every stage, once the model's name was typed."""

    def act(work: Work) -> object:
        typed_name(sent, reading.load_track(work, track_id).repo_id)
        reason = needed(sent, "why", "Say why. Everybody may read it.")
        entitlements.withdraw(work, track_id, reason=reason)
        return None

    again = partial(_show, request, begin, track_id, typed=sent)
    return take_grave(
        begin,
        Permission.RELEASE_WITHDRAW,
        act,
        then=f"/staff/tracks/{track_id}?done=withdrawn#done",
        again=again,
    )

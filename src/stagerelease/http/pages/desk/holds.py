"""Holds: one person lays one over a track, a family or everything; two people lift it."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import Request, Response

from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.desk.steps import (
    Number,
    after_refusal,
    desk_router,
    names_of,
    needed,
    take_grave,
    wrong,
)
from stagerelease.http.pages.forms import Sent, Typed
from stagerelease.http.pages.frame import page
from stagerelease.identity.rules import Permission, authorize
from stagerelease.kernel.errors import DomainError
from stagerelease.releases import queries as reading
from stagerelease.releases import service as releases
from stagerelease.releases.queries import HoldRow
from stagerelease.releases.rules import LIFT_CONSENTS

router = desk_router("/staff/holds")
FIELDS = ("over", "reason", "public_reason")
MOST = 200
NOTICES = {
    "laid": "The hold is laid. Nothing it covers is delivered or promoted from now on.",
    "consented": "Your consent is on record. A second person lifts the hold.",
    "lifted": "Two people consented: the hold is lifted.",
}


def covered(work: Work, holds: list[HoldRow] | tuple[HoldRow, ...]) -> dict[str, str]:
    """Return what holds are over, in words, by the id of their scope."""
    named = {hold.scope_id for hold in holds if hold.scope == "track" and hold.scope_id}
    found = {row.id: f"{row.repo_id}, {row.kind}" for row in reading.find_tracks(work, named)}
    return found | {row.id: row.name for row in catalog.list_families(work)}


def choices(work: Work) -> list[tuple[str, str]]:
    """Return what a hold or an incident may be over, widest last, as values and words of a form."""
    tracks = reading.list_tracks(work, limit=MOST)
    families = catalog.list_families(work)
    return [
        *((f"track:{row.id}", f"{row.repo_id}, {row.kind}") for row in tracks),
        *((f"family:{row.id}", f"Every track of {row.name}") for row in families[:MOST]),
        ("everything:", "Everything"),
    ]


@router.get("")
def list_holds(request: Request, begin: BeginPage, over: str = "") -> Response:
    """Show what is on hold, what was, and the form that lays one."""
    return _list(request, begin, values={"over": over})


def _list(
    request: Request,
    begin: Any,
    *,
    values: dict[str, str],
    refusal: DomainError | None = None,
) -> Response:
    with begin(read_only=True) as work:
        rows = releases.list_holds(work)
        names = covered(work, rows)
        options = choices(work)
        lays = authorize(work.actor, Permission.HOLD_LAY).allowed
    return page(
        request,
        "desk/holds.html",
        active=[row for row in rows if row.lifted_at is None],
        lifted=[row for row in reversed(rows) if row.lifted_at is not None][:MOST],
        names=names,
        options=options,
        lays=lays,
        **after_refusal(refusal),
        values={key: values.get(key, "") for key in FIELDS},
    )


@router.post("")
def lay(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Lay a hold."""

    def act(work: Work) -> HoldRow:
        scope, _, scope_id = needed(sent, "over", "Choose what it is over.").partition(":")
        if scope not in ("track", "family", "everything"):
            raise wrong("over", "Choose what it is over.")
        return releases.lay_hold(
            work,
            scope=scope,
            scope_id=scope_id or None,
            reason=needed(sent, "reason", "Say why. Staff read it."),
            public_reason=sent.get("public_reason"),
        )

    again = partial(_list, request, begin, values=sent.values(*FIELDS))

    def then(row: HoldRow) -> str:
        return f"/staff/holds/{row.id}?done=laid#done"

    return take_grave(begin, Permission.HOLD_LAY, act, then=then, again=again)


@router.get("/{number}")
def show_hold(request: Request, begin: BeginPage, number: Number, done: str = "") -> Response:
    """Show one hold and who consents to lift it."""
    return _show(request, begin, number, done=done)


def _show(
    request: Request,
    begin: Any,
    number: int,
    *,
    done: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        hold = releases.show_hold(work, number)
        names = covered(work, (hold,))
        who = names_of(work, [hold.laid_by, *(c.person_id for c in hold.consents)])
        lifts = authorize(work.actor, Permission.HOLD_LIFT).allowed
        mine = any(c.person_id == work.actor.id for c in hold.consents)
    return page(
        request,
        "desk/hold.html",
        hold=hold,
        names=names,
        who=who,
        lifts=lifts,
        mine=mine,
        asked=LIFT_CONSENTS,
        notice=NOTICES.get(done, ""),
        **after_refusal(refusal),
        reason=typed.raw("reason") if typed else "",
    )


@router.post("/{number}/lift")
def lift(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Consent to lift a hold; the second person's consent lifts it."""

    def act(work: Work) -> HoldRow:
        reason = needed(sent, "reason", "Say why it can be lifted.")
        return releases.lift_hold(work, number, reason=reason)

    def then(row: HoldRow) -> str:
        done = "lifted" if row.lifted_at else "consented"
        return f"/staff/holds/{number}?done={done}#done"

    again = partial(_show, request, begin, number, typed=sent)
    return take_grave(begin, Permission.HOLD_LIFT, act, then=then, again=again)

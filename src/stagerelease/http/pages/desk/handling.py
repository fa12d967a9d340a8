"""Steps of an incident: assess, confirm with what it stops named first, contain, close, tell.

Which of them comes next is said by ``incidents.rules.MOVES``.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

from fastapi import Request, Response

from stagerelease.db.work import Work
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.desk.incidents import (
    DAYS,
    receivers,
    show,
    stopped_by,
)
from stagerelease.http.pages.desk.steps import (
    Act,
    Number,
    after_refusal,
    desk_router,
    names_of,
    needed,
    take,
    take_grave,
    wrong,
)
from stagerelease.http.pages.forms import Sent, Typed
from stagerelease.http.pages.frame import page
from stagerelease.identity.rules import Permission, require
from stagerelease.incidents import queries as reading
from stagerelease.incidents import service as incidents
from stagerelease.incidents.rows import IncidentPage
from stagerelease.kernel.errors import DomainError

router = desk_router("/staff/incidents")


def _step(
    request: Request,
    begin: Any,
    number: int,
    sent: Typed,
    act: Act,
    *,
    done: str,
    grave: bool = False,
) -> Response:
    again = partial(show, request, begin, number, typed=sent)
    where = f"/staff/incidents/{number}?done={done}#done"
    way = take_grave if grave else take
    return way(begin, Permission.INCIDENT_MANAGE, act, then=where, again=again)


def _links(sent: Typed, found: IncidentPage) -> incidents.Links:
    """Return what the form says an incident covers, beside what it names already."""
    chosen = [one.partition(":") for one in sent.all("covers")]
    return incidents.Links(
        everything=any(kind == "everything" for kind, _, _ in chosen),
        tracks=[name for kind, _, name in chosen if kind == "track"],
        families=[name for kind, _, name in chosen if kind == "family"],
        grants=found.grants,
        evidence=found.evidence,
    )


@router.post("/{number}/triage")
def triage(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Say how severe it is, whether it must stop releases, and what it is about."""

    def act(work: Work) -> object:
        severity = needed(sent, "severity", "Choose how severe it is.")
        return incidents.triage(
            work,
            number,
            severity=severity,
            blocking=sent.ticked("blocking"),
            actor_tier=sent.number("actor_tier"),
            title=sent.get("title"),
            public_summary=sent.get("public_summary"),
            links=_links(sent, incidents.show_incident(work, number)),
            reason=sent.get("reason"),
        )

    return _step(request, begin, number, sent, act, done="triaged")


@router.post("/{number}/reassess")
def reassess(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Say more about a confirmed incident; what a blocking one covers besides stops at once."""

    def act(work: Work) -> object:
        reason = needed(sent, "reason", "Say what is known besides.")
        return incidents.reassess(
            work,
            number,
            reason=reason,
            severity=sent.get("severity") or None,
            blocking=sent.ticked("blocking"),
            actor_tier=sent.number("actor_tier"),
            title=sent.get("title"),
            public_summary=sent.get("public_summary"),
            links=_links(sent, incidents.show_incident(work, number)),
        )

    return _step(request, begin, number, sent, act, done="reassessed", grave=True)


@router.get("/{number}/freeze")
def before_confirming(request: Request, begin: BeginPage, number: Number) -> Response:
    """Show what confirming an incident stops, by name and with the count as it is now."""
    return _freeze(request, begin, number)


def _freeze(
    request: Request,
    begin: Any,
    number: int,
    *,
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        require(work.actor, Permission.INCIDENT_MANAGE)
        found = incidents.show_incident(work, number)
        stopped = stopped_by(work, number)
        tracks = reading.covered_tracks(work, found.incident)
        now = work.now
    return page(
        request,
        "desk/freeze.html",
        part="desk/stops.html",
        i=found.incident,
        stopped=stopped,
        tracks=tracks,
        now=now,
        **after_refusal(refusal),
        values=typed.values("reason", "advisory", "days")
        if typed
        else {"reason": "", "advisory": "", "days": str(DAYS)},
    )


@router.post("/{number}/confirm")
def confirm(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Confirm it; a blocking one stops what it covers and tells every holder at once."""

    def act(work: Work) -> object:
        reason = needed(sent, "reason", "Say how you know.")
        return incidents.confirm(
            work,
            number,
            reason=reason,
            advisory=sent.get("advisory") or None,
            acknowledge_within=_days(sent),
        )

    again = partial(_freeze, request, begin, number, typed=sent)
    return take_grave(
        begin,
        Permission.INCIDENT_MANAGE,
        act,
        then=f"/staff/incidents/{number}?done=confirmed#done",
        again=again,
    )


def _days(sent: Typed) -> timedelta:
    days = sent.number("days")
    if days is None or not 1 <= days <= 90:
        raise wrong("days", "Give a number of days, 1 to 90.")
    return timedelta(days=days)


@router.post("/{number}/dismiss")
def dismiss(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Dismiss a triaged report."""

    def act(work: Work) -> object:
        reason = needed(sent, "dismiss_reason", "Say why it is no incident.")
        return incidents.dismiss(work, number, reason=reason, reply=sent.get("reply"))

    return _step(request, begin, number, sent, act, done="dismissed")


@router.post("/{number}/mitigate")
def mitigate(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Say that its harm is contained."""

    def act(work: Work) -> object:
        reason = needed(sent, "mitigate_reason", "Say how it is contained.")
        return incidents.mitigate(work, number, reason=reason)

    return _step(request, begin, number, sent, act, done="mitigated")


@router.post("/{number}/close")
def close(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Close it, or consent to."""

    def act(work: Work) -> object:
        outcome = needed(sent, "outcome", "Say what came of it.")
        return incidents.close(
            work, number, outcome=outcome, public_outcome=sent.get("public_outcome")
        )

    return _step(request, begin, number, sent, act, done="closed", grave=True)


@router.post("/{number}/reopen")
def reopen(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Open it again."""

    def act(work: Work) -> object:
        reason = needed(sent, "reopen_reason", "Say why it is opened again.")
        return incidents.reopen(work, number, reason=reason)

    return _step(request, begin, number, sent, act, done="reopened", grave=True)


@router.post("/{number}/note")
def note(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Put a word on its thread."""

    def act(work: Work) -> object:
        text = needed(sent, "text", "Write what is to be read.")
        readers = sent.get("visibility")
        if readers not in ("private", "reporter", "public"):
            raise wrong("visibility", "Choose who reads it.")
        return incidents.add_note(work, number, text=text, visibility=readers)

    return _step(request, begin, number, sent, act, done="noted")


@router.post("/{number}/advise")
def advise(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Tell every holder of what it covers."""

    def act(work: Work) -> object:
        text = needed(sent, "advice", "Write what holders are to know and do.")
        return incidents.send_advisory(work, number, text=text, within=_days(sent))

    return _step(request, begin, number, sent, act, done="advised")


@router.post("/{number}/erase")
def erase(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Erase the reporter's contact, and their words if asked."""

    def act(work: Work) -> object:
        reason = needed(sent, "erase_reason", "Say why it is erased.")
        return incidents.erase_report(work, number, reason=reason, words=sent.ticked("words"))

    return _step(request, begin, number, sent, act, done="erased", grave=True)


@router.get("/{number}/advisories/{advisory_id}")
def receipts(request: Request, begin: BeginPage, number: Number, advisory_id: str) -> Response:
    """Show whom an advisory went to, and who acknowledged it."""
    with begin(read_only=True) as work:
        found = incidents.show_incident(work, number)
        advisory = next((a for a in found.advisories if a.id == advisory_id), None)
        rows = incidents.advisory_receipts(work, advisory_id, limit=500) if advisory else []
        told = receivers(work, rows)
        who = names_of(work, [row.acknowledged_by for row in rows])
        now = work.now
    return page(
        request,
        "desk/advisory.html",
        i=found.incident,
        advisory=advisory,
        rows=rows,
        told=told,
        who=who,
        now=now,
        status=200 if advisory else 404,
    )

"""What access officers work with: the queue, and one request with everything needed to decide it.

A refused step shows the request again with what was typed; each step says which version of the
request it was decided on, so that nobody decides on what has moved on.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response

from stagerelease.access import service as access
from stagerelease.access.rules import DEFAULT_TERM, REAPPLY_AFTER, State
from stagerelease.db.work import Work
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent, Typed, end_of_day
from stagerelease.http.pages.frame import by_field, page, to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.http.pages.requests import grant_of
from stagerelease.http.problems import status_of
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.kernel.errors import (
    Conflict,
    DomainError,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    Stale,
)

router = APIRouter(
    prefix="/staff/requests",
    include_in_schema=False,
    dependencies=[Depends(speak_page), Depends(refuse_forgery)],
)
PAGE = 50
FIELDS = ("question", "text", "conflict", "until", "comment", "reason", "days", "assignee")
NOTICES = {
    "assign": "The request is assigned.",
    "ask": "Your question was sent. The request waits for the applicant now.",
    "note": "Your note was kept. The applicant cannot read it.",
    "conflict": "Your conflict of interest is on record. Somebody else will decide this request.",
    "approve": "The request is approved, and the applicant was told.",
    "reject": "The request is rejected, and the applicant was told why.",
}
FILTERS = {
    "open": "All open",
    "nobody": "Nobody's",
    "me": "Mine",
    "returned": "Waiting for the applicant",
    "decided": "Decided",
}


READY = {
    "storage": (
        "question",
        "Who can read it",
        "Where will the files be kept, and who else can read them?",
    ),
    "affiliation": (
        "question",
        "Affiliation",
        "Which page of your organisation names you and your role there?",
    ),
    "purpose": (
        "question",
        "What is measured",
        "What exactly will you measure, and what do you need these weights for rather than those "
        "that are public?",
    ),
    "public": (
        "reason",
        "The public one is enough",
        "What you describe can be done with the weights that are public already.",
    ),
    "unknown": (
        "reason",
        "Cannot be verified",
        "We could not verify the organisation you name.",
    ),
}
"""Answers to begin from: the field each is for, its name, and its words."""


@router.get("")
def queue(
    request: Request, begin: BeginPage, show: str = "open", after: str = "", beside: str = ""
) -> Response:
    """Show what waits, oldest first; with one request beside it, if one is named."""
    show = show if show in FILTERS else "open"
    states: tuple[str, ...] = ()
    if show == "returned":
        states = (State.RETURNED,)
    elif show == "decided":
        states = (State.APPROVED, State.REJECTED, State.WITHDRAWN, State.EXPIRED)
    with begin(read_only=True) as work:
        found = access.queue(
            work,
            states=states,
            assignee=show if show in ("nobody", "me") else None,
            limit=PAGE,
            after=after or None,
        )
        opened = access.request_page(work, beside) if beside else None
    more = urlencode({"show": show, "after": found.next}) if found.next else ""
    return page(
        request,
        "queue.html",
        part="queue_beside.html",
        found=found,
        show=show,
        after=after,
        filters=FILTERS,
        more=more,
        paged=bool(after),
        opened=opened,
    )


def _show(
    request: Request,
    begin: BeginPage,
    request_id: str,
    *,
    done: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
    ready: str = "",
) -> Response:
    with begin(read_only=True) as work:
        require(work.actor, Permission.ACCESS_REQUEST_READ)
        shown = access.request_page(work, request_id)
        grant = grant_of(work, shown.request.grant_id)
        decides = authorize(work.actor, Permission.ACCESS_REQUEST_DECIDE).allowed
        me, now = work.actor.id, work.now
    errors = by_field(refusal.fields) if refusal else {}
    values = {key: typed.raw(key) if typed else "" for key in FIELDS}
    if not typed:
        values["until"] = f"{now + DEFAULT_TERM:%Y-%m-%d}"
        values["days"] = str(REAPPLY_AFTER.days)
        if ready in READY:
            key, _, words = READY[ready]
            values[key] = words
    return page(
        request,
        "review.html",
        status=status_of(refusal) if refusal else 200,
        shown=shown,
        grant=grant,
        decides=decides,
        me=me,
        waited=((shown.request.decided_at or now) - shown.request.submitted_at).total_seconds(),
        barred=_barred(shown, me),
        notice=NOTICES.get(done, ""),
        refusal=refusal,
        errors=errors,
        values=values,
        ready=READY,
    )


def _barred(shown: access.RequestPage, me: str) -> str:
    """Return why the viewer may not decide this request, or nothing."""
    if shown.request.applicant_id == me:
        return "This is your own request. Somebody else decides it."
    mine = next((c for c in shown.conflicts if c.person_id == me), None)
    if mine is None:
        return ""
    how = "You declared a conflict of interest" if mine.declared else "You have an interest in it"
    return f"{how}: {mine.reason} Somebody else decides this request."


@router.get("/{request_id}")
def review(
    request: Request, begin: BeginPage, request_id: str, done: str = "", ready: str = ""
) -> Response:
    """Show one request with its answers, its thread, and what can be done with it.

    ``ready`` names an answer to begin from.
    """
    return _show(request, begin, request_id, done=done, ready=ready)


def _do(
    request: Request,
    begin: BeginPage,
    request_id: str,
    typed: Typed,
    act: Callable[[Work], object],
    *,
    done: str,
) -> Response:
    """Take a step, then lead back to the request; show a refusal there, with what was typed."""
    try:
        with begin(proved=done == "approve") as work:  # it lets somebody in
            require(work.actor, Permission.ACCESS_REQUEST_DECIDE)  # before any word on the form
            act(work)
    except (Invalid, Conflict, Stale, Forbidden, NotFound) as error:
        return _show(request, begin, request_id, refusal=error, typed=typed)
    return to(f"/staff/requests/{request_id}?done={done}#done")


@router.post("/{request_id}/assign")
def assign(request: Request, begin: BeginPage, sent: Sent, request_id: str) -> Response:
    """Give the request to somebody by handle, or to oneself."""
    who = sent.get("assignee") or None

    def act(work: Work) -> object:
        return access.assign(work, request_id, assignee=who, seen=sent.number("seen"))

    return _do(request, begin, request_id, sent, act, done="assign")


@router.post("/{request_id}/ask")
def ask(request: Request, begin: BeginPage, sent: Sent, request_id: str) -> Response:
    """Return the request to its applicant with a question."""

    def act(work: Work) -> object:
        _needed(sent, "question", "Write your question.")
        question = sent.get("question")
        return access.ask(work, request_id, question=question, seen=sent.number("seen"))

    return _do(request, begin, request_id, sent, act, done="ask")


@router.post("/{request_id}/note")
def note(request: Request, begin: BeginPage, sent: Sent, request_id: str) -> Response:
    """Leave a note for other staff."""

    def act(work: Work) -> object:
        _needed(sent, "text", "Write your note.")
        return access.add_note(work, request_id, text=sent.get("text"))

    return _do(request, begin, request_id, sent, act, done="note")


@router.post("/{request_id}/conflict")
def conflict(request: Request, begin: BeginPage, sent: Sent, request_id: str) -> Response:
    """Declare one's own conflict of interest."""

    def act(work: Work) -> object:
        _needed(sent, "conflict", "Say what the conflict is.")
        return access.declare_conflict(work, request_id, reason=sent.get("conflict"))

    return _do(request, begin, request_id, sent, act, done="conflict")


@router.post("/{request_id}/approve")
def approve(request: Request, begin: BeginPage, sent: Sent, request_id: str) -> Response:
    """Let the applicant in until a date."""

    def act(work: Work) -> object:
        _needed(sent, "until", "Say when access ends.")
        return access.approve(
            work,
            request_id,
            until=end_of_day(sent.get("until"), "until"),
            comment=sent.get("comment"),
            seen=sent.number("seen"),
        )

    return _do(request, begin, request_id, sent, act, done="approve")


@router.post("/{request_id}/reject")
def reject(request: Request, begin: BeginPage, sent: Sent, request_id: str) -> Response:
    """Refuse the request with a reason that the applicant reads."""

    def act(work: Work) -> object:
        _needed(sent, "reason", "Give a reason. The applicant reads it.")
        days = sent.number("days")
        if days is None:
            sentence = "Give a number of days, such as 30."
            raise Invalid(sentence, reason="page.days", fields=[FieldError("days", sentence)])
        return access.reject(
            work,
            request_id,
            reason=sent.get("reason"),
            reapply_after=timedelta(days=min(days, 100_000)),
            seen=sent.number("seen"),
        )

    return _do(request, begin, request_id, sent, act, done="reject")


def _needed(sent: Typed, key: str, sentence: str) -> None:
    if not sent.get(key):
        raise Invalid(sentence, reason="page.empty", fields=[FieldError(key, sentence)])

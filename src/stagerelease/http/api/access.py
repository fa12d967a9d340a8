"""Access requests over JSON. Parse, call one use case, shape the answer.

Drafts may be written without an account: their secret travels in the header ``X-Draft-Secret``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from pydantic import Field

from stagerelease.access import service
from stagerelease.access.abuse import Visitor, visitor_of
from stagerelease.access.rules import State, Status
from stagerelease.http.api.access_shapes import (
    ConfirmationOut,
    ConfirmedOut,
    ConflictOut,
    DecisionTimesOut,
    DraftOut,
    NoteOut,
    OutcomeOut,
    QueuedOut,
    QueueOut,
    RequestOut,
    RequestPageOut,
)
from stagerelease.http.begin import Begin, BeginPublic
from stagerelease.http.wire import In, InstantIn, Paging, keyset, origin_of

router = APIRouter(prefix="/api/v1/access-requests", tags=["access"])

Id = Annotated[str, Path(max_length=64)]
DryRun = Annotated[bool, Query(description="Do everything, then undo it.")]
RepoId = Annotated[str, Field(min_length=1, max_length=200)]
Secret = Annotated[str | None, Header(alias="X-Draft-Secret", max_length=200)]
Seen = Annotated[int | None, Field(ge=1, description="The version of the request you looked at.")]
Message = Annotated[str, Field(min_length=1, max_length=4000)]
Typed = Annotated[
    dict[Annotated[str, Field(max_length=200)], str | bool | list[str]], Field(max_length=100)
]


class SubmitIn(In):
    """A request for access; ``fields`` are the answers, by the form's keys or labels."""

    repo_id: RepoId
    fields: Typed = Field(default_factory=dict)


class DraftIn(In):
    """What was typed so far, mistakes and all; it replaces what was kept."""

    answers: Typed


class NewDraftIn(DraftIn):
    """A draft for a repository."""

    repo_id: RepoId


class ConfirmIn(In):
    """The token of a mailed link."""

    token: Annotated[str, Field(min_length=1, max_length=2000)]


class AcceptIn(In):
    """How long, and for what, an applicant is let in; a year and download unless said otherwise."""

    valid_until: InstantIn | None = None
    permissions: Annotated[
        list[Literal["download", "infer"]],
        Field(min_length=1, max_length=2, default_factory=lambda: ["download"]),
    ]


class ApproveIn(In):
    """Until when, and for what, an applicant is let in; what they read with it."""

    until: InstantIn | None = None
    permissions: Annotated[
        list[Literal["download", "infer"]],
        Field(min_length=1, max_length=2, default_factory=lambda: ["download"]),
    ]
    comment: Annotated[str, Field(max_length=2000)] = ""
    seen: Seen = None


class AdmitIn(AcceptIn):
    """Somebody to let in who has not asked."""

    repo_id: RepoId
    person: Annotated[str, Field(min_length=1, max_length=64)]


class RejectIn(In):
    """Why, as the applicant reads it, and how long until they may ask again."""

    reason: Annotated[str, Field(min_length=1, max_length=200)]
    reapply_after_days: Annotated[int, Field(ge=0, le=366)] = 30
    seen: Seen = None


class AssignIn(In):
    """Who looks at the request; the caller unless said otherwise."""

    assignee: Annotated[str | None, Field(min_length=1, max_length=64)] = None
    seen: Seen = None


class AskIn(In):
    """A question to the applicant."""

    question: Message
    seen: Seen = None


class ReplyIn(In):
    """What the applicant says, and the answers they correct."""

    message: Message
    answers: Typed | None = None


class NoteIn(In):
    """A note that the applicant never reads."""

    text: Message


class ConflictIn(In):
    """Why somebody else should decide."""

    reason: Message


def visitor(request: Request) -> Visitor:
    """Return where a request comes from, as limits know it."""
    return visitor_of(request.app.state.link_key, request.client.host if request.client else None)


# --- lists --------------------------------------------------------------------------------------


@router.get("")
def list_requests(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    repo_id: Annotated[str | None, Query(max_length=200)] = None,
    status: Status | None = None,
) -> list[RequestOut]:
    """List access requests, newest first: one's own, to staff all."""
    with begin(read_only=True) as work:
        rows = service.list_requests(
            work, repo_id=repo_id, status=status, limit=page.limit + 1, after=page.after
        )
    part = keyset(request, response, rows, page, lambda row: row.id)
    return [RequestOut.model_validate(row) for row in part]


@router.get("/queue")
def queue(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    state: Annotated[list[State] | None, Query(max_length=8)] = None,
    repo_id: Annotated[str | None, Query(max_length=200)] = None,
    assignee: Annotated[str | None, Query(max_length=64)] = None,
    older_than_days: Annotated[int | None, Query(ge=0, le=3660)] = None,
) -> QueueOut:
    """Show reviewers what waits, oldest first; ``assignee`` is a handle, ``me`` or ``nobody``."""
    with begin(read_only=True) as work:
        found = service.queue(
            work,
            states=state or (),
            repo_id=repo_id,
            assignee=assignee,
            older_than=None if older_than_days is None else timedelta(days=older_than_days),
            limit=page.limit,
            after=page.after,
        )
    if found.next is not None:
        url = request.url.include_query_params(limit=page.limit, after=found.next)
        there = f"{origin_of(request)}{request.url.path}?{url.query}"
        response.headers["Link"] = f'<{there}>; rel="next"'
    return QueueOut(
        requests=[QueuedOut.of(row) for row in found.rows],
        next=found.next,
        waiting=found.waiting,
        times=DecisionTimesOut.model_validate(found.times),
    )


@router.get("/decision-times")
def decision_times(begin: BeginPublic) -> DecisionTimesOut:
    """Tell anybody how long answers took in the last 90 days."""
    with begin(read_only=True) as work:
        return DecisionTimesOut.model_validate(service.decision_times(work))


# --- asking -------------------------------------------------------------------------------------


@router.post("", status_code=201)
def submit(body: SubmitIn, begin: Begin) -> RequestOut:
    """Ask for access with every answer the form needs: 422 names each that is missing or wrong.

    While a request waits, asking again answers with that one.
    """
    with begin() as work:
        row = service.submit_whole(work, repo_id=body.repo_id, answers=body.fields)
        return RequestOut.model_validate(row)


@router.post("/drafts", status_code=201)
def begin_draft(request: Request, body: NewDraftIn, begin: BeginPublic) -> DraftOut:
    """Begin a draft. Without a token the answer holds its secret, which is never shown again."""
    with begin(quiet=True) as work:
        row = service.save_draft(
            work, answers=body.answers, repo_id=body.repo_id, visitor=visitor(request)
        )
        return DraftOut.of(row)


@router.get("/drafts/{draft_id}")
def show_draft(draft_id: Id, begin: BeginPublic, secret: Secret = None) -> DraftOut:
    """Show a draft to its author."""
    with begin(read_only=True) as work:
        return DraftOut.of(service.show_draft(work, draft_id, secret=secret))


@router.put("/drafts/{draft_id}")
def save_draft(
    request: Request, draft_id: Id, body: DraftIn, begin: BeginPublic, secret: Secret = None
) -> DraftOut:
    """Save a draft; mistakes are named in ``wrong``, and kept."""
    with begin(quiet=True) as work:
        row = service.save_draft(
            work,
            answers=body.answers,
            draft_id=draft_id,
            secret=secret,
            visitor=visitor(request),
        )
        return DraftOut.of(row)


@router.delete("/drafts/{draft_id}", status_code=204)
def discard_draft(draft_id: Id, begin: BeginPublic, secret: Secret = None) -> None:
    """Throw a draft away, with everything in it."""
    with begin(quiet=True) as work:
        service.discard_draft(work, draft_id, secret=secret)


@router.post("/drafts/{draft_id}/submit")
def submit_draft(
    request: Request,
    draft_id: Id,
    begin: BeginPublic,
    body: Annotated[DraftIn | None, Body()] = None,
    secret: Secret = None,
) -> OutcomeOut:
    """Send a draft: at once when signed in, else once the mailed link has been followed.

    What was typed is stored even when this answers with a refusal.
    """
    with begin() as work:
        outcome = service.submit_draft(
            work,
            draft_id,
            secret=secret,
            answers=None if body is None else body.answers,
            visitor=visitor(request),
        )
    return OutcomeOut.of(outcome.check())


@router.get("/confirm")
def show_confirmation(
    request: Request, begin: BeginPublic, token: Annotated[str, Query(max_length=2000)]
) -> ConfirmationOut:
    """Show what a mailed link would do; changes nothing."""
    with begin(read_only=True) as work:
        found = service.show_confirmation(work, request.app.state.link_key, token)
        return ConfirmationOut.model_validate(found)


@router.post("/confirm")
def confirm_address(request: Request, body: ConfirmIn, begin: BeginPublic) -> ConfirmedOut:
    """Confirm an address by the token that was mailed to it, and send the request."""
    with begin() as work:
        done = service.confirm_address(work, request.app.state.link_key, body.token)
        return ConfirmedOut(request=RequestOut.model_validate(done.request), made=done.made)


# --- one request --------------------------------------------------------------------------------


@router.get("/{request_id}")
def show_request(request_id: Id, begin: Begin) -> RequestPageOut:
    """Show a request and every step it took; to staff with notes and conflicts of interest."""
    with begin(read_only=True) as work:
        return RequestPageOut.of(service.request_page(work, request_id))


@router.post("/{request_id}/reply")
def reply(request_id: Id, body: ReplyIn, begin: Begin) -> RequestOut:
    """Answer a question, or say something, in the thread of one's own request."""
    with begin() as work:
        row = service.reply(work, request_id, message=body.message, answers=body.answers)
        return RequestOut.model_validate(row)


@router.post("/{request_id}/withdraw")
def withdraw(request_id: Id, begin: Begin) -> RequestOut:
    """Take back one's own request."""
    with begin() as work:
        return RequestOut.model_validate(service.withdraw(work, request_id))


@router.post("/{request_id}/assign")
def assign(request_id: Id, body: AssignIn, begin: Begin) -> RequestOut:
    """Take a request up, or give it to another reviewer."""
    with begin() as work:
        row = service.assign(work, request_id, assignee=body.assignee, seen=body.seen)
        return RequestOut.model_validate(row)


@router.post("/{request_id}/ask")
def ask(request_id: Id, body: AskIn, begin: Begin) -> RequestOut:
    """Return a request to its applicant with a question."""
    with begin() as work:
        row = service.ask(work, request_id, question=body.question, seen=body.seen)
        return RequestOut.model_validate(row)


@router.post("/{request_id}/notes", status_code=201)
def add_note(request_id: Id, body: NoteIn, begin: Begin) -> NoteOut:
    """Leave a note for other staff."""
    with begin() as work:
        return NoteOut.model_validate(service.add_note(work, request_id, text=body.text))


@router.post("/{request_id}/conflicts", status_code=201)
def declare_conflict(request_id: Id, body: ConflictIn, begin: Begin) -> ConflictOut:
    """Declare one's own conflict of interest in a request."""
    with begin() as work:
        found = service.declare_conflict(work, request_id, reason=body.reason)
        return ConflictOut.model_validate(found)

"""Access requests over JSON. Parse, call one use case, shape the answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AwareDatetime, Field

from stagerelease.access import service
from stagerelease.access.rules import Status
from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, Out, Paging, paged

router = APIRouter(prefix="/api/v1/access-requests", tags=["access"])

Id = Annotated[str, Path(max_length=64)]
DryRun = Annotated[bool, Query(description="Do everything, then undo it.")]
Answer = Annotated[str, Field(max_length=2000)]
RepoId = Annotated[str, Field(min_length=1, max_length=200)]


class SubmitIn(In):
    """A request for access; ``fields`` are the applicant's answers."""

    repo_id: RepoId
    fields: Annotated[
        dict[Annotated[str, Field(max_length=100)], Answer],
        Field(max_length=20, default_factory=dict),
    ]


class AcceptIn(In):
    """How long, and for what, an applicant is let in; a year and download unless said otherwise."""

    valid_until: AwareDatetime | None = None
    permissions: Annotated[
        list[Literal["download", "infer"]],
        Field(min_length=1, max_length=2, default_factory=lambda: ["download"]),
    ]


class AdmitIn(AcceptIn):
    """Somebody to let in who has not asked."""

    repo_id: RepoId
    person: Annotated[str, Field(min_length=1, max_length=64)]


class RejectIn(In):
    """Why, as the applicant reads it, and how long until they may ask again."""

    reason: Annotated[str, Field(min_length=1, max_length=200)]
    reapply_after_days: Annotated[int, Field(ge=0, le=366)] = 30


class RequestOut(Out):
    """An access request."""

    id: str
    repo_id: str
    handle: str
    display_name: str
    status: str
    state: str
    answers: dict[str, str]
    submitted_at: Instant
    decided_at: Instant | None
    reason: str | None
    may_reapply_after: Instant | None
    grant_id: str | None
    grant_state: str | None
    version: int


class RequestEventOut(Out):
    """One step of a request."""

    from_state: str | None
    to_state: str
    actor_id: str
    comment: str
    at: Instant
    leaf_idx: int


class RequestPageOut(Out):
    """An access request with its steps."""

    request: RequestOut
    events: list[RequestEventOut]


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
        rows = service.list_requests(work, repo_id=repo_id, status=status)
    part = paged(request, response, rows, page, lambda row: row.id)
    return [RequestOut.model_validate(row) for row in part]


@router.post("", status_code=201)
def submit(body: SubmitIn, begin: Begin) -> RequestOut:
    """Ask for access. While a request waits, asking again answers with that one."""
    with begin() as work:
        row = service.submit(work, repo_id=body.repo_id, answers=body.fields)
        return RequestOut.model_validate(row)


@router.post("/admit", status_code=201)
def admit(body: AdmitIn, begin: Begin, dry_run: DryRun = False) -> RequestOut:
    """Let somebody in who has not asked."""
    with begin(dry_run=dry_run) as work:
        row = service.grant(
            work,
            repo_id=body.repo_id,
            handle=body.person,
            valid_until=body.valid_until,
            permissions=body.permissions,
        )
        return RequestOut.model_validate(row)


@router.get("/{request_id}")
def show_request(request_id: Id, begin: Begin) -> RequestPageOut:
    """Show a request and every step it took."""
    with begin(read_only=True) as work:
        return RequestPageOut.model_validate(service.show_request(work, request_id))


@router.post("/{request_id}/accept")
def accept(request_id: Id, body: AcceptIn, begin: Begin, dry_run: DryRun = False) -> RequestOut:
    """Accept a request: a grant is issued in the same transaction."""
    with begin(dry_run=dry_run) as work:
        row = service.accept(work, request_id, **body.model_dump())
        return RequestOut.model_validate(row)


@router.post("/{request_id}/reject")
def reject(request_id: Id, body: RejectIn, begin: Begin, dry_run: DryRun = False) -> RequestOut:
    """Reject a request; access that it had led to is revoked."""
    with begin(dry_run=dry_run) as work:
        wait = timedelta(days=body.reapply_after_days)
        row = service.reject(work, request_id, reason=body.reason, reapply_after=wait)
        return RequestOut.model_validate(row)


@router.post("/{request_id}/reopen")
def reopen(request_id: Id, begin: Begin, dry_run: DryRun = False) -> RequestOut:
    """Put a decided request back to waiting; access that it had led to is revoked."""
    with begin(dry_run=dry_run) as work:
        return RequestOut.model_validate(service.reopen(work, request_id))


@router.post("/{request_id}/withdraw")
def withdraw(request_id: Id, begin: Begin) -> RequestOut:
    """Take back one's own request."""
    with begin() as work:
        return RequestOut.model_validate(service.withdraw(work, request_id))

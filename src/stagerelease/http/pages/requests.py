"""A request as its applicant follows it: the thread, a reply, a way back."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from stagerelease.access import service as access
from stagerelease.db.work import Work
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent
from stagerelease.http.pages.frame import by_field, page, to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.http.pages.models import Paper, show_model
from stagerelease.kernel.errors import FieldError, Invalid, NotFound
from stagerelease.partners import service as partners

router = APIRouter(
    include_in_schema=False, dependencies=[Depends(speak_page), Depends(refuse_forgery)]
)


def grant_of(work: Work, grant_id: str | None) -> partners.GrantPage | None:
    """Return the grant that a request led to, as far as the caller may know of it."""
    return None if grant_id is None else partners.show_grant(work, grant_id)


def paper_of(work: Work, repo_id: str) -> Paper | None:
    """Return the agreement that access to a model rests on now, if one is in force."""
    try:
        return show_model(work, repo_id).paper
    except NotFound:
        return None  # withdrawn or hidden since


def _show(
    request: Request, begin: BeginPage, request_id: str, *, status: int = 200, **more: Any
) -> Response:
    with begin(read_only=True) as work:
        shown = access.request_page(work, request_id)
        if shown.request.applicant_id != work.actor.id:
            return to(f"/staff/requests/{shown.request.id}")
        grant = grant_of(work, shown.request.grant_id)
        paper = paper_of(work, shown.request.repo_id)
        times = access.decision_times(work)
    context: dict[str, Any] = {"sent": False, "replied": False, "message": "", **more}
    return page(
        request,
        "status.html",
        status=status,
        shown=shown,
        grant=grant,
        paper=paper,
        times=times,
        **context,
    )


@router.get("/requests/{request_id}")
def request_status(
    request: Request, begin: BeginPage, request_id: str, sent: str = "", replied: str = ""
) -> Response:
    """Show where a request stands, and everything said about it."""
    return _show(request, begin, request_id, sent=bool(sent), replied=bool(replied))


@router.post("/requests/{request_id}/reply")
def reply(request: Request, begin: BeginPage, sent: Sent, request_id: str) -> Response:
    """Answer a reviewer, or tell them something."""
    message = sent.get("message")
    try:
        with begin() as work:
            access.reply(work, request_id, message=message)
    except Invalid as error:
        wrong = error.fields or (FieldError("message", error.sentence),)
        return _show(
            request, begin, request_id, status=422, message=message, errors=by_field(wrong)
        )
    return to(f"/requests/{request_id}?replied=1#thread")


@router.post("/requests/{request_id}/withdraw")
def withdraw(begin: BeginPage, request_id: str) -> Response:
    """Take one's own request back."""
    with begin() as work:
        access.withdraw(work, request_id)
    return to(f"/requests/{request_id}")

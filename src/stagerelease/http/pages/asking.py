"""Asking for access: the form of a model, its draft, and the mailed link that sends it.

What was typed is stored whether or not it is right, and shown again after a redirect; when it
cannot be stored it is shown again at once. A visitor's draft is named by a cookie of this form
alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from stagerelease.access import service as access
from stagerelease.access.abuse import Visitor, visitor_of
from stagerelease.access.drafting import DraftRow
from stagerelease.access.formbook import FormPage
from stagerelease.access.forms import ADDRESS_KEY
from stagerelease.db.work import Work
from stagerelease.http.pages.begin import (
    BeginVisitor,
    check_channel,
    is_secure,
    session_cookie,
    set_session,
)
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent, answers_of
from stagerelease.http.pages.frame import by_field, page, to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.http.pages.models import canonical, show_model
from stagerelease.http.problems import headers_of, status_of
from stagerelease.http.wire import origin_of
from stagerelease.identity import queries as people
from stagerelease.identity import sessions
from stagerelease.kernel.errors import DomainError, NotFound

router = APIRouter(
    include_in_schema=False, dependencies=[Depends(speak_page), Depends(refuse_forgery)]
)
DAYS_30 = 30 * 24 * 3600
Answers = Mapping[str, Any]


def _visitor(request: Request) -> Visitor:
    return visitor_of(request.app.state.link_key, request.client.host if request.client else None)


# --- the cookie of a visitor's draft ------------------------------------------------------------


def _draft_cookie(request: Request) -> str:
    return "__Secure-srd" if is_secure(request) else "srd"


def _named(request: Request) -> tuple[str | None, str | None]:
    """Return the id and the secret of the draft that this browser began here."""
    draft_id, _, secret = request.cookies.get(_draft_cookie(request), "").partition(".")
    return (draft_id, secret) if secret else (None, None)


def _name_draft(request: Request, response: Response, draft: DraftRow) -> None:
    if draft.secret is None:
        return
    response.set_cookie(
        _draft_cookie(request),
        f"{draft.id}.{draft.secret}",
        max_age=DAYS_30,
        path=f"/models/{draft.repo_id}",
        secure=is_secure(request),
        httponly=True,
        samesite="lax",
    )


def _find(request: Request, work: Work, repo_id: str) -> DraftRow | None:
    """Return the draft that the visitor has begun for a model, by account or by cookie."""
    if work.actor.known:
        return access.find_draft(work, repo_id=repo_id)
    draft_id, secret = _named(request)
    if draft_id is None:
        return None
    try:
        draft = access.show_draft(work, draft_id, secret=secret)
    except NotFound:
        return None  # sent, thrown away or over: one begins anew
    return draft if draft.repo_id == repo_id else None


# --- the form -----------------------------------------------------------------------------------


def _prefilled(work: Work) -> dict[str, str]:
    if not work.actor.known:
        return {}
    me = people.load_person(work, work.actor.id)
    return {"name": me.display_name, ADDRESS_KEY: me.email or ""}


@router.get("/models/{org}/{name}/request")
def request_form(
    request: Request, begin: BeginVisitor, org: str, name: str, saved: str = "", check: str = ""
) -> Response:
    """Show the form of a model, with what was saved, and what is wrong with it if asked."""
    repo_id = f"{org}/{name}"
    with begin(read_only=True) as work:
        real = canonical(work, repo_id)
        if real != repo_id:
            return to(f"/models/{real}/request")
        model = show_model(work, repo_id)
        form = access.form_for(work, repo_id=repo_id)
        draft = _find(request, work, repo_id)
        answers = draft.answers if draft else _prefilled(work)
        times = access.decision_times(work)
        waiting = waiting_for(work, repo_id)
    return page(
        request,
        "request.html",
        model=model,
        form=form.form,
        draft=draft,
        answers=answers,
        times=times,
        waiting=waiting,
        saved=bool(saved),
        errors=by_field(draft.wrong) if draft and check else {},
        refusal=None,
        origin=origin_of(request),
    )


def waiting_for(work: Work, repo_id: str) -> access.RequestPage | None:
    """Return the caller's own request for a model that is still open, if there is one."""
    if not work.actor.known:
        return None
    for row in access.list_requests(work, repo_id=repo_id, limit=20):
        if row.applicant_id == work.actor.id and row.status == "pending":
            return access.request_page(work, row.id)
    return None


@router.post("/models/{org}/{name}/request")
def save_or_send(
    request: Request, begin: BeginVisitor, sent: Sent, org: str, name: str
) -> Response:
    """Save what was typed; send it too if that button was pressed. Then show what became of it."""
    repo_id = f"{org}/{name}"
    with begin(read_only=True) as work:
        form = access.form_for(work, repo_id=repo_id)
    answers = answers_of(sent, form.form)
    try:
        with begin() as work:
            draft, outcome = _store(request, work, form, answers, send=sent.raw("_do") == "send")
    except DomainError as error:  # nothing could be kept, so it is handed back as it is
        return _again(request, begin, form, answers, error)
    here = f"/models/{draft.repo_id}/request"
    response: Response = to(f"{here}?saved=1#saved")
    if outcome is not None and outcome.request is not None:
        return to(f"/requests/{outcome.request.id}?sent=1")
    if outcome is not None and outcome.confirming:
        response = to(f"{here}/sent")
    elif outcome is not None and outcome.refused is not None and not outcome.refused.fields:
        response = _again(request, begin, form, answers, outcome.refused)
    elif outcome is not None:
        response = to(f"{here}?check=1#errors")
    _name_draft(request, response, draft)
    return response


def _store(
    request: Request, work: Work, form: FormPage, answers: Answers, *, send: bool
) -> tuple[DraftRow, access.Outcome | None]:
    """Save answers into the visitor's draft, begun now if there is none; send it if asked."""
    begun = _find(request, work, form.repo_id)
    secret = None if work.actor.known else _named(request)[1]
    visitor = _visitor(request)
    draft = access.save_draft(
        work,
        answers=answers,
        repo_id=form.repo_id if begun is None else None,
        draft_id=begun.id if begun else None,
        secret=secret if begun else None,
        visitor=visitor,
    )
    if not send:
        return draft, None
    opened = draft.secret or secret
    return draft, access.submit_draft(work, draft.id, secret=opened, visitor=visitor)


def _again(
    request: Request,
    begin: Any,
    form: FormPage,
    answers: Answers,
    error: DomainError,
) -> Response:
    """Return the form with everything typed, and why it could not be taken."""
    with begin(read_only=True) as work:
        model = show_model(work, form.repo_id)
        times = access.decision_times(work)
    return page(
        request,
        "request.html",
        status=status_of(error),
        headers=headers_of(error),
        model=model,
        form=form.form,
        draft=None,
        answers=answers,
        times=times,
        waiting=None,
        saved=False,
        errors=by_field(error.fields),
        refusal=error,
        origin=origin_of(request),
    )


@router.post("/models/{org}/{name}/request/discard")
def discard(request: Request, begin: BeginVisitor, org: str, name: str) -> Response:
    """Throw the draft away."""
    repo_id = f"{org}/{name}"
    with begin(read_only=True) as work:
        found = _find(request, work, repo_id)
    if found is not None:  # without one nothing is written, and nobody waits
        with begin() as work:
            access.discard_draft(work, found.id, secret=_named(request)[1])
    response = to(f"/models/{repo_id}/request")
    secure = is_secure(request)
    response.delete_cookie(_draft_cookie(request), path=f"/models/{repo_id}", secure=secure)
    return response


@router.get("/models/{org}/{name}/request/sent")
def confirmation_sent(request: Request, begin: BeginVisitor, org: str, name: str) -> Response:
    """Say that a mail was sent, and to which address."""
    repo_id = f"{org}/{name}"
    with begin(read_only=True) as work:
        model = show_model(work, repo_id)
        draft = _find(request, work, repo_id)
    return page(request, "request_sent.html", model=model, draft=draft)


# --- the mailed link ----------------------------------------------------------------------------


@router.get("/access/confirm")
def confirm_page(request: Request, begin: BeginVisitor, t: str = "") -> Response:
    """Show what following the link does; changes nothing."""
    with begin(read_only=True) as work:
        found = access.show_confirmation(work, request.app.state.link_key, t)
    return page(request, "confirm.html", found=found, token=t)


@router.post("/access/confirm")
def confirm(request: Request, begin: BeginVisitor, sent: Sent) -> Response:
    """Confirm the address, send the request, and sign its person in."""
    check_channel(request)
    with begin() as work:
        done = access.confirm_address(work, request.app.state.link_key, sent.raw("t"))
        cookie = sessions.open_session(work, done.person_id, replaces=session_cookie(request))
    response = to(f"/requests/{done.request.id}?sent=1")
    set_session(request, response, cookie)
    return response

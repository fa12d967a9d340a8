"""Signing in and out. A mailed link is opened, then confirmed: mail programs open links too."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from stagerelease.access.abuse import visitor_of
from stagerelease.http.pages.begin import (
    BeginVisitor,
    check_channel,
    clear_session,
    session_cookie,
    set_session,
)
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent
from stagerelease.http.pages.frame import by_field, page, safe_next, to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.identity import entering, sessions
from stagerelease.kernel.errors import Invalid

router = APIRouter(
    include_in_schema=False, dependencies=[Depends(speak_page), Depends(refuse_forgery)]
)


@router.get("/sign-in")
def sign_in_form(request: Request, begin: BeginVisitor, next: str = "") -> Response:
    """Ask for an address; who is signed in already goes on."""
    check_channel(request)
    with begin(read_only=True) as work:
        known = work.actor.known
    if known:
        return to(safe_next(next) or "/me")
    return page(request, "sign_in.html", next=safe_next(next), values={"address": ""})


@router.post("/sign-in")
def ask_to_sign_in(request: Request, begin: BeginVisitor, sent: Sent) -> Response:
    """Have a link mailed, if the address has an account; the answer does not tell."""
    check_channel(request)
    key: bytes = request.app.state.link_key
    network = visitor_of(key, request.client.host if request.client else None).network
    then = safe_next(sent.raw("next"))
    try:
        with begin(quiet=True) as work:
            entering.ask_to_sign_in(work, sent.get("address"), network=network, next_path=then)
    except Invalid as error:
        values = sent.values("address")
        return page(
            request,
            "sign_in.html",
            status=422,
            next=then,
            values=values,
            errors=by_field(error.fields),
        )
    return to("/sign-in/sent")


@router.get("/sign-in/sent")
def sign_in_sent(request: Request, begin: BeginVisitor) -> Response:
    """Say that a mail is on its way, if there is anybody to mail to."""
    with begin(read_only=True):
        pass
    return page(request, "sign_in_sent.html", minutes=int(entering.LIFETIME.total_seconds() // 60))


@router.get("/sign-in/confirm")
def sign_in_confirm(request: Request, begin: BeginVisitor, t: str = "") -> Response:
    """Show whom a mailed link signs in; changes nothing."""
    check_channel(request)
    with begin(read_only=True) as work:
        found = entering.show_sign_in(work, request.app.state.link_key, t)
    return page(request, "sign_in_confirm.html", person=found.person, token=t)


@router.post("/sign-in/confirm")
def sign_in(request: Request, begin: BeginVisitor, sent: Sent) -> Response:
    """Use a mailed link up and sign in, with a new session."""
    check_channel(request)
    with begin() as work:
        found, cookie = entering.sign_in(
            work, request.app.state.link_key, sent.raw("t"), replaces=session_cookie(request)
        )
    response = to(safe_next(found.next) or "/me")
    set_session(request, response, cookie)
    return response


@router.post("/sign-out")
def sign_out(request: Request, begin: BeginVisitor) -> Response:
    """End this browser's session."""
    cookie = session_cookie(request)
    if cookie is not None:
        with begin() as work:
            sessions.close_session(work, cookie)
    response = to("/sign-in")
    clear_session(request, response)
    return response

"""Signing in and out: by passkey, by a mailed link, by password; and the first time of all.

A mailed or printed link is opened, then confirmed: mail programs open links too.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from stagerelease.http.pages.begin import (
    BeginVisitor,
    BeginWork,
    check_channel,
    clear_session,
    session_cookie,
    set_session,
)
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent
from stagerelease.http.pages.frame import by_field, page, safe_next, to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.http.pages.proof import named_address, site_of
from stagerelease.http.pages.slowly import network_of, slowly
from stagerelease.identity import entering, passkeys, passwords, proving, sessions
from stagerelease.kernel.errors import FieldError, Invalid

router = APIRouter(
    include_in_schema=False, dependencies=[Depends(speak_page), Depends(refuse_forgery)]
)
scripted = APIRouter(include_in_schema=False, dependencies=[Depends(refuse_forgery)])
"""What the script of the page calls: refusals are problem documents."""
NO_STORE = {"Cache-Control": "no-store"}


def _form(
    request: Request,
    then: str,
    *,
    refusal: Invalid | None = None,
    address: str = "",
    login: str = "",
) -> Response:
    return page(
        request,
        "sign_in.html",
        status=422 if refusal else 200,
        next=then,
        named=named_address(request),
        values={"address": address, "login": login},
        errors=by_field(refusal.fields) if refusal else {},
    )


@router.get("/sign-in")
def sign_in_form(request: Request, begin: BeginVisitor, next: str = "") -> Response:
    """Ask for an address; who is signed in already goes on."""
    check_channel(request)
    with begin(read_only=True) as work:
        known = work.actor.known
    if known:
        return to(safe_next(next) or "/me")
    return _form(request, safe_next(next))


@router.post("/sign-in")
def ask_to_sign_in(request: Request, begin: BeginVisitor, sent: Sent) -> Response:
    """Have a link mailed, if the address has an account; the answer does not tell."""
    check_channel(request)
    then, network = safe_next(sent.raw("next")), network_of(request)
    try:
        with begin(quiet=True) as work:
            entering.ask_to_sign_in(work, sent.get("address"), network=network, next_path=then)
    except Invalid as error:
        return _form(request, then, refusal=error, address=sent.raw("address"))
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


@router.post("/sign-in/password")
async def sign_in_by_password(request: Request, begin: BeginVisitor, sent: Sent) -> Response:
    """Sign in with an address and a password; an unknown address is answered alike, as late."""
    check_channel(request)
    then, login, network = safe_next(sent.raw("next")), sent.get("login"), network_of(request)
    if not login or not sent.raw("password"):  # nothing was guessed, so nothing is counted
        return await run_in_threadpool(_form, request, then, refusal=_incomplete(), login=login)

    def counted() -> passwords.Attempt:
        with begin(quiet=True) as work:
            return passwords.begin_attempt(work, login, network=network)

    attempt = await run_in_threadpool(counted)
    if not await slowly(request, passwords.matches, attempt, sent.raw("password")):
        return _form(request, then, refusal=passwords.wrong(), login=login)
    cookie = await run_in_threadpool(_enter, begin, attempt, session_cookie(request))
    response = to(then or "/me")
    set_session(request, response, cookie)
    return response


def _incomplete() -> Invalid:
    sentence = "Type your address and your password."
    return Invalid(sentence, reason="password.none", fields=[FieldError("password", sentence)])


def _enter(begin: BeginWork, attempt: passwords.Attempt, replaces: str | None) -> str:
    if attempt.person is None:
        raise passwords.wrong()
    with begin() as work:
        passwords.succeed(work, attempt)
        return sessions.open_session(work, attempt.person.id, replaces=replaces, method="password")


@scripted.post("/sign-in/passkey/options")
def passkey_options(request: Request, begin: BeginVisitor) -> JSONResponse:
    """Return what the browser asks for a passkey with: nobody's in particular."""
    check_channel(request)
    with begin(quiet=True) as work:
        options = passkeys.begin_sign_in(work, site_of(request), network=network_of(request))
    return JSONResponse(options, headers=NO_STORE)


@scripted.post("/sign-in/passkey")
def sign_in_by_passkey(request: Request, begin: BeginVisitor, sent: Sent) -> JSONResponse:
    """Sign in whose passkey it is, with a new session."""
    check_channel(request)
    cookie = ""
    with begin() as work:
        shown = passkeys.show(
            work,
            site_of(request),
            ceremony=sent.raw("ceremony"),
            credential=sent.raw("credential"),
        )
        if not shown.copied:
            cookie = sessions.open_session(
                work, shown.person_id, replaces=session_cookie(request), method="passkey"
            )
    shown.check()
    response = JSONResponse({"next": safe_next(sent.raw("next")) or "/me"}, headers=NO_STORE)
    set_session(request, response, cookie)
    return response


@router.get("/enrol")
def enrol_form(request: Request, begin: BeginVisitor, t: str = "") -> Response:
    """Show whom a printed link lets in; changes nothing."""
    check_channel(request)
    with begin(read_only=True) as work:
        person = proving.show_enrolment(work, request.app.state.link_key, t)
    return page(request, "enrol.html", person=person, token=t)


@router.post("/enrol")
def enrol(request: Request, begin: BeginVisitor, sent: Sent) -> Response:
    """Use a printed link up, sign in, and go on to the keys."""
    check_channel(request)
    key: bytes = request.app.state.link_key
    with begin() as work:
        cookie = proving.enter(work, key, sent.raw("t"), replaces=session_cookie(request))
    response = to("/me/security/passkey?first=1")
    set_session(request, response, cookie)
    return response


@router.post("/sign-out")
def sign_out(request: Request, begin: BeginVisitor) -> Response:
    """End this browser's session."""
    cookie = session_cookie(request)
    if cookie is not None:
        with begin(read_only=True) as work:  # a made-up cookie makes nobody wait for a writer
            known = work.actor.known
        if known:
            with begin() as work:
                sessions.close_session(work, cookie)
    response = to("/sign-in")
    clear_session(request, response)
    return response

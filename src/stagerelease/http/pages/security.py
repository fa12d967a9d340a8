"""How I sign in, and where I am signed in: passkeys, password, sessions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from stagerelease.http.pages.begin import BeginPage, clear_session, session_cookie
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent
from stagerelease.http.pages.frame import by_field, page, to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.http.pages.proof import named_address, site_of
from stagerelease.http.pages.slowly import slowly
from stagerelease.identity import passkeys, passwords, sessions
from stagerelease.identity import queries as people
from stagerelease.identity.ways import FRESH, way_asked
from stagerelease.kernel.errors import Invalid

router = APIRouter(
    prefix="/me",
    include_in_schema=False,
    dependencies=[Depends(speak_page), Depends(refuse_forgery)],
)
scripted = APIRouter(prefix="/me", include_in_schema=False, dependencies=[Depends(refuse_forgery)])
"""What the script of a page calls: refusals are problem documents."""
HERE = "/me/security"
DONE = {
    "passkey": "The passkey is yours. From now on it is what acts that count ask for.",
    "removed": "The passkey is removed. It does not sign anybody in any more.",
    "password": "Your password is set, and every other browser of yours is signed out.",
    "session": "That browser is signed out.",
}
METHODS = {
    "link": "a mailed link",
    "passkey": "a passkey",
    "password": "a password",
    "demo": "one click, in a demonstration",
    "printed": "a link printed on the host",
    "sso": "single sign-on",
}


def _show(request: Request, begin: BeginPage, **more: Any) -> Response:
    error: Invalid | None = more.pop("refusal", None)
    with begin(read_only=True) as work:
        way = way_asked(work, work.actor.id)
        held, has_password = passkeys.list_passkeys(work), passwords.has_password(work)
        open_sessions = sessions.list_sessions(work)
        mine = sessions.session_id(work, session_cookie(request) or "")
    context: dict[str, Any] = {"done": "", **more}
    return page(
        request,
        "security.html",
        status=422 if error else 200,
        errors=by_field(error.fields) if error else {},
        way=way,
        passkeys=held,
        has_password=has_password,
        open_sessions=open_sessions,
        mine=mine,
        methods=METHODS,
        minutes=int(FRESH.total_seconds() // 60),
        shortest=passwords.SHORTEST,
        **context,
    )


@router.get("/security")
def security(request: Request, begin: BeginPage, done: str = "") -> Response:
    """Show how and where the person is signed in."""
    return _show(request, begin, done=DONE.get(done, ""))


@router.get("/security/passkey")
def new_passkey(request: Request, begin: BeginPage, first: str = "") -> Response:
    """Show the form that makes a passkey, to who has just shown that it is them."""
    with begin(read_only=True, proved=True) as work:
        person = people.load_person(work, work.actor.id)
    named = named_address(request)
    return page(request, "passkey.html", person=person, first=bool(first), named=named)


@scripted.post("/security/passkey/options")
def passkey_options(request: Request, begin: BeginPage) -> JSONResponse:
    """Return what the browser makes a passkey from."""
    with begin(quiet=True, proved=True) as work:
        options = passkeys.begin_enrolment(work, site_of(request))
    return JSONResponse(options, headers={"Cache-Control": "no-store"})


@scripted.post("/security/passkey")
def add_passkey(request: Request, begin: BeginPage, sent: Sent) -> JSONResponse:
    """Keep the passkey that the browser has made."""
    with begin(proved=True) as work:
        passkeys.enrol(
            work,
            site_of(request),
            ceremony=sent.raw("ceremony"),
            credential=sent.raw("credential"),
            name=sent.raw("name"),
        )
    return JSONResponse(
        {"next": f"{HERE}?done=passkey#done"}, headers={"Cache-Control": "no-store"}
    )


@router.post("/security/passkeys/{passkey_id}/remove")
def remove_passkey(begin: BeginPage, passkey_id: str) -> Response:
    """Have a passkey not be believed any more."""
    with begin(proved=True) as work:
        passkeys.remove_passkey(work, passkey_id)
    return to(f"{HERE}?done=removed#done")


@router.post("/security/password")
async def set_password(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Set a password; every other browser of the person is signed out."""
    new = sent.raw("new")

    def check() -> None:
        with begin(read_only=True, proved=True) as work:
            passwords.check_new(new, person=people.load_person(work, work.actor.id))

    def keep(hashed: str) -> None:
        with begin(proved=True) as work:
            passwords.set_password(work, hashed)
            sessions.close_other_sessions(work, session_cookie(request) or "")

    try:
        await run_in_threadpool(check)
    except Invalid as error:
        return await run_in_threadpool(_show, request, begin, refusal=error)
    await run_in_threadpool(keep, await slowly(request, passwords.hash_new, new))
    return to(f"{HERE}?done=password#done")


@router.post("/sessions/{session_id}/close")
def close_one(request: Request, begin: BeginPage, session_id: str) -> Response:
    """Sign one of the person's browsers out."""
    with begin() as work:
        mine = sessions.session_id(work, session_cookie(request) or "") == session_id
        sessions.close_my_session(work, session_id)
    if not mine:
        return to(f"{HERE}?done=session#done")
    response = to("/sign-in")
    clear_session(request, response)
    return response


@router.post("/sessions/close")
def close_sessions(request: Request, begin: BeginPage) -> Response:
    """Sign out everywhere."""
    with begin() as work:
        sessions.close_all_sessions(work)
    response = to("/sign-in")
    clear_session(request, response)
    return response

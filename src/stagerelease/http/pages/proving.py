"""Showing again that it is you, for an act that counts: passkey, else password, else a link."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from stagerelease.http.pages.begin import BeginPage, BeginWork, session_cookie
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent
from stagerelease.http.pages.frame import page
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.http.pages.proof import kept_of, show_proof_page, site_of
from stagerelease.http.pages.slowly import network_of, slowly
from stagerelease.identity import links, passkeys, passwords, proving, sessions
from stagerelease.kernel.errors import Invalid

router = APIRouter(
    prefix="/step-up",
    include_in_schema=False,
    dependencies=[Depends(speak_page), Depends(refuse_forgery)],
)
scripted = APIRouter(
    prefix="/step-up", include_in_schema=False, dependencies=[Depends(refuse_forgery)]
)
"""What the script of a page calls: refusals are problem documents."""


def _cookie(request: Request) -> str:
    return session_cookie(request) or ""


@router.post("")
async def prove_by_password(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Take a password, and offer to go on."""
    network = network_of(request)

    def counted() -> passwords.Attempt:
        with begin() as work:
            return passwords.begin_my_attempt(work, network=network)

    attempt = await run_in_threadpool(counted)
    kept = kept_of(sent)
    if not await slowly(request, passwords.matches, attempt, sent.raw("password")):
        refusal = Invalid("That is not your password.", reason="password.wrong")
        return show_proof_page(request, kept, way="password", status=422, refusal=refusal)
    await run_in_threadpool(_proved_by_password, begin, attempt, _cookie(request))
    return show_proof_page(request, kept, way="password", proved=True)


def _proved_by_password(begin: BeginWork, attempt: passwords.Attempt, cookie: str) -> None:
    with begin() as work:
        passwords.succeed(work, attempt)
        sessions.prove_session(work, cookie, method="password")


@router.post("/link")
def ask_for_link(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Mail a link, and wait for it with what was being done."""
    with begin() as work:
        kept = kept_of(sent)
        address = proving.ask_to_prove(work, _cookie(request))
    return show_proof_page(request, kept, way="link", mailed_to=address)


@router.get("/confirm")
def show_link(request: Request, begin: BeginPage, t: str = "") -> Response:
    """Show what a mailed link is for; changes nothing."""
    with begin(read_only=True) as work:
        links.open_link(work, request.app.state.link_key, t, purpose=proving.PROVE)
    return page(request, "step_up_confirm.html", token=t, done=False)


@router.post("/confirm")
def prove_by_link(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Use a mailed link up."""
    with begin() as work:
        proving.prove_by_link(
            work, request.app.state.link_key, sent.raw("t"), cookie=_cookie(request)
        )
    return page(request, "step_up_confirm.html", token="", done=True)


@scripted.post("/passkey/options")
def passkey_options(request: Request, begin: BeginPage) -> JSONResponse:
    """Return what the browser asks the person's passkey with."""
    with begin(quiet=True) as work:
        options: dict[str, Any] = passkeys.begin_showing(
            work, site_of(request), person_id=work.actor.id
        )
    return JSONResponse(options, headers={"Cache-Control": "no-store"})


@scripted.post("/passkey")
def prove_by_passkey(request: Request, begin: BeginPage, sent: Sent) -> JSONResponse:
    """Take a passkey's answer."""
    with begin() as work:
        shown = passkeys.show(
            work,
            site_of(request),
            ceremony=sent.raw("ceremony"),
            credential=sent.raw("credential"),
            person_id=work.actor.id,
        )
        if not shown.copied:
            sessions.prove_session(work, _cookie(request), method="passkey")
    shown.check()
    return JSONResponse({"next": ""}, headers={"Cache-Control": "no-store"})

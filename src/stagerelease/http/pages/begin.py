"""The door from a page to a Work: a session's cookie says who acts, and nothing else does.

``begin(proved=True)`` is for acts that count: it asks for a fresh proof of who acts, and refuses
with a page that takes it and then sends the same form on.

A bearer token is not looked at here, and a cookie is not looked at anywhere else: no page can be
driven by a token, no API call by a browser's cookie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Response

from stagerelease.db.work import Work, Works
from stagerelease.http.guard import is_loopback
from stagerelease.http.pages.standing import standing_of
from stagerelease.identity import sessions
from stagerelease.identity.rules import Permission, authorize, is_staff
from stagerelease.kernel.actor import ANONYMOUS, Actor
from stagerelease.kernel.errors import Forbidden, Unauthenticated

DEMO = frozenset({"demo"})
"""One-click sign-ins of a demonstration: nobody has anything to show there, so nothing is asked."""
BeginWork = Callable[..., AbstractContextManager[Work]]
DAYS_7 = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at a page, as its frame shows them."""

    name: str = ""
    known: bool = False
    staff: bool = False
    may: frozenset[Permission] = frozenset()


NOBODY = Viewer()


def viewer_of(actor: Actor) -> Viewer:
    """Return an actor as the frame of a page shows them."""
    return Viewer(
        name=actor.name if actor.known else "",
        known=actor.known,
        staff=is_staff(actor),
        may=frozenset(p for p in Permission if authorize(actor, p).allowed),
    )


def is_secure(request: Request) -> bool:
    """Tell whether the browser speaks https with us, as far as we and our proxy know."""
    public = str(request.app.state.settings.public_url)
    return request.url.scheme == "https" or public.startswith("https://")


def cookie_name(request: Request) -> str:
    """Return the session cookie's name: ``__Host-sr``, or ``sr`` on loopback http (RFC 6265bis)."""
    return "__Host-sr" if is_secure(request) else "sr"


def session_cookie(request: Request) -> str | None:
    """Return the session cookie of a request, if it sends one."""
    return request.cookies.get(cookie_name(request))


def set_session(request: Request, response: Response, cookie: str) -> None:
    """Give the browser its session.

    Raises:
        Forbidden: the browser speaks plain http from another machine.
    """
    check_channel(request)
    response.set_cookie(
        cookie_name(request),
        cookie,
        max_age=DAYS_7,
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="lax",
    )


def clear_session(request: Request, response: Response) -> None:
    """Take the session's cookie from the browser."""
    name, secure = cookie_name(request), is_secure(request)
    response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")


def check_channel(request: Request) -> None:
    """Return only if a cookie would not cross a network in the clear.

    Raises:
        Forbidden: it would.
    """
    if is_secure(request) or (request.client is not None and is_loopback(request.client.host)):
        return
    raise Forbidden(
        "Signing in over plain HTTP from another machine would show your session to others.",
        reason="forbidden.plain-http",
        next_step="Use the https:// address of this service.",
    )


def _opener(request: Request, *, must_be_known: bool) -> BeginWork:
    works: Works = request.app.state.works

    @contextmanager
    def begin(
        *, read_only: bool = False, quiet: bool = False, proved: bool = False
    ) -> Iterator[Work]:
        cookie = session_cookie(request)
        due = False
        with works.begin(ANONYMOUS, read_only=read_only, quiet=quiet) as work:
            if cookie is not None:
                due = _enter(work, cookie, must_be_known=must_be_known)
            elif must_be_known:
                raise Unauthenticated(
                    "This page is for somebody who is signed in.",
                    reason="session.missing",
                    next_step="Sign in.",
                )
            request.state.viewer = viewer_of(work.actor)
            request.state.standing = request.app.state.standing = standing_of(work)
            if proved:
                _require_proof(request, work, cookie)
            yield work
        if due and cookie is not None and read_only:
            with works.begin(ANONYMOUS, quiet=True) as work:
                sessions.touch_session(work, cookie)

    return begin


def _require_proof(request: Request, work: Work, cookie: str | None) -> None:
    """Return only if whoever is signed in has just shown that it is them, or it is a demo."""
    if cookie is None:
        raise Unauthenticated("You are not signed in.", reason="session.missing")
    spared = DEMO if request.app.state.demo is not None else frozenset()
    sessions.require_proof(work, cookie, spared=spared)


def _enter(work: Work, cookie: str, *, must_be_known: bool) -> bool:
    """Make the session's person the actor; tell whether its use has to be noted."""
    try:
        work.actor = sessions.authenticate_session(work, cookie)
    except Unauthenticated:
        if must_be_known:
            raise
        return False
    due = sessions.seen_due(work, cookie)
    if due and not work.read_only:
        sessions.touch_session(work, cookie)
    return due


async def begin_page(request: Request) -> BeginWork:
    """Give a page its door; the visitor must be signed in, and ``proved`` if the act asks it."""
    return _opener(request, must_be_known=True)


async def begin_visitor(request: Request) -> BeginWork:
    """Give a page its door; anybody may come in, and whoever is signed in is known."""
    return _opener(request, must_be_known=False)


BeginPage = Annotated[BeginWork, Depends(begin_page)]
BeginVisitor = Annotated[BeginWork, Depends(begin_visitor)]

"""Signing in as one of the demo world's people, with one click, where that can do no harm.

Every condition has to hold, each time: the data directory is a demo one, the service listens on
this machine alone, and the request comes from this machine, by its own name and port, through no
proxy. A proxy on this machine that says nothing of itself cannot be told from a browser here by
what it sends; a page of another origin can. Never put one in front of a demo (docs/operators.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request, Response

from stagerelease.http.pages.begin import BeginVisitor, session_cookie, set_session
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent
from stagerelease.http.pages.frame import to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.identity import queries as people
from stagerelease.identity import sessions
from stagerelease.kernel.errors import NotFound
from stagerelease.settings import Settings

router = APIRouter(
    include_in_schema=False, dependencies=[Depends(speak_page), Depends(refuse_forgery)]
)
FILE = "demo.json"
PREFIX = "demo-"
"""What the name of every demo account begins with; no other account is signed in here."""
PROXIED = (
    *("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"),
    *("x-forwarded-port", "x-forwarded-server", "x-real-ip", "x-client-ip", "cf-connecting-ip"),
)
ROLES = {
    "owner": ("Owner", "everything, and who has which role"),
    "release_manager": ("Release manager", "opens promotions and applies them"),
    "reviewer_a": ("Reviewer A", "approves promotions"),
    "reviewer_b": ("Reviewer B", "is the second to approve"),
    "access_officer": ("Access officer", "decides requests for access"),
    "security": ("Security", "handles incidents and lays holds"),
    "auditor": ("Auditor", "reads everything, changes nothing"),
    "partner": ("Partner", "administers an organisation that signed"),
    "researcher": ("Researcher", "was let in, and signed"),
    "outsider": ("Outsider", "has an account and nothing else"),
}


@dataclass(frozen=True, slots=True)
class DemoWorld:
    """The people of a demo data directory: the handle of each role."""

    people: Mapping[str, str]

    def faces(self) -> list[tuple[str, str, str]]:
        """Return key, name and what they do, of each person one can be here."""
        return [(key, *ROLES[key]) for key in ROLES if key in self.people]


def read_demo(settings: Settings) -> DemoWorld | None:
    """Return the demo world of the data directory, or None: it is no demo directory."""
    path = settings.data_dir / FILE
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    found = document.get("people") if isinstance(document, dict) else None
    if not isinstance(found, dict):
        return None
    ours = {k: v for k, v in found.items() if k in ROLES and str(v).startswith(PREFIX)}
    return DemoWorld(ours) if ours else None


def _is_here(host: str | None) -> bool:
    """Tell whether a host name is one of this machine's own."""
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def may_enter(request: Request) -> bool:
    """Tell whether one-click sign-in is possible for this request; every condition has to hold."""
    settings: Settings = request.app.state.settings
    return (
        request.app.state.demo is not None
        and read_demo(settings) is not None
        and not settings.public_url
        and not settings.trusted_proxies
        and _is_here(settings.host)
        and request.client is not None
        and _is_here(request.client.host)
        and _is_ours(request, str(request.url))
        and _is_ours(request, request.headers.get("origin", str(request.url)))
        # A proxy with nothing configured asks by 1.0, as no browser has for twenty years.
        and request.scope["http_version"] != "1.0"
        and not any(name in request.headers for name in PROXIED)
    )


def _is_ours(request: Request, address: str) -> bool:
    """Tell whether an address is at one of this machine's names and at the port that was asked."""
    try:
        parts = urlsplit(address)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return False
    server = request.scope.get("server")
    return _is_here(parts.hostname) and server is not None and port == server[1]


@router.post("/demo/sign-in")
def sign_in_as(request: Request, begin: BeginVisitor, sent: Sent) -> Response:
    """Sign in as one of the demo's people.

    Raises:
        NotFound: this is not a demo on this machine, or it has no such person.
    """
    demo: DemoWorld | None = request.app.state.demo
    handle = demo.people.get(sent.get("role")) if demo else None
    if handle is None or not may_enter(request):
        raise NotFound("There is nothing at this address.", reason="demo")
    with begin() as work:
        person = people.load_person(work, handle)
        cookie = sessions.open_session(
            work, person.id, replaces=session_cookie(request), method="demo"
        )
    response = to("/")
    set_session(request, response, cookie)
    return response

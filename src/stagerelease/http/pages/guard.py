"""Refuses what another site makes a browser send: cross-site request forgery.

Every unsafe request to a page is looked at, with a cookie or without: signing somebody in as
somebody else is forgery too. ``Sec-Fetch-Site`` decides where the browser sends it (all current
ones, over https and on loopback); else ``Origin`` must be ours; a cookie with neither is refused.
"""

from __future__ import annotations

from fastapi import Request

from stagerelease.http.pages.begin import session_cookie
from stagerelease.http.wire import origin_of
from stagerelease.kernel.errors import Forbidden

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
OURS = frozenset({"same-origin", "none"})


def is_forged(
    *, site: str | None, origin: str | None, ours: frozenset[str], has_cookie: bool
) -> bool:
    """Tell whether an unsafe request comes from a page that is not ours. Pure.

    ``site`` and ``origin`` are the two headers, ``ours`` the origins of this service.
    """
    if site is not None:
        return site not in OURS
    if origin is not None:
        return origin not in ours
    return has_cookie


async def refuse_forgery(request: Request) -> None:
    """Return only if a request may change anything.

    Raises:
        Forbidden: it was made by another site (``forbidden.cross-site``).
    """
    if request.method in SAFE:
        return
    here = f"{request.url.scheme}://{request.url.netloc}"
    if is_forged(
        site=request.headers.get("sec-fetch-site"),
        origin=request.headers.get("origin"),
        ours=frozenset({here, origin_of(request)}),
        has_cookie=session_cookie(request) is not None,
    ):
        raise Forbidden(
            "This form was not sent from a page of this service, so nothing was done.",
            reason="forbidden.cross-site",
            next_step="Open the page here and send the form again.",
        )

"""The first pages: what happened, and every model with where it is on its way out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse

from stagerelease.http.pages import shelf
from stagerelease.http.pages.begin import BeginVisitor, is_secure
from stagerelease.http.pages.demo import may_enter
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent
from stagerelease.http.pages.frame import THEME_COOKIE, assets, page, safe_next, to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.kernel.errors import NotFound
from stagerelease.notices import service
from stagerelease.notices.feed import KINDS
from stagerelease.notices.service import Entry

router = APIRouter(include_in_schema=False, dependencies=[Depends(speak_page)])
PAGE, MODELS = 30, 24
KIND_WORDS = {
    "release": "Releases",
    "withdrawal": "Withdrawals",
    "hold": "Holds",
    "incident": "Incidents",
}
YEAR = 365 * 24 * 3600
FOR_EVER = "public, max-age=31536000, immutable"


@router.get("/")
def home(
    request: Request, begin: BeginVisitor, kind: str = "", model: str = "", after: str = ""
) -> HTMLResponse:
    """Tell what was released, stopped and said, newest first, and where the newest models are."""
    kind = kind if kind in KINDS else ""
    model = model.strip()[:200]
    whole = not (kind or model or after)
    with begin(read_only=True) as work:
        found = service.stretch(
            work, after=after or None, kind=kind or None, repo_id=model or None, limit=PAGE
        )
        models = shelf.lately(work) if whole else []
    chosen = {key: value for key, value in (("kind", kind), ("model", model)) if value}
    return page(
        request,
        "home.html",
        part="entries.html",
        days=by_day(found.entries),
        models=models,
        whole=whole,
        kind=kind,
        model=model,
        kinds=[("", "Everything"), *((k, KIND_WORDS[k]) for k in KINDS)],
        newest="/" + (f"?{urlencode(chosen)}" if chosen else "") if after else "",
        older=f"/?{urlencode({**chosen, 'after': found.next})}" if found.next else "",
        faces=request.app.state.demo.faces() if may_enter(request) else [],
    )


def by_day(entries: Iterable[Entry]) -> list[tuple[datetime, list[Entry]]]:
    """Return entries under the day (UTC) they are of, both newest first."""
    found: list[tuple[datetime, list[Entry]]] = []
    for entry in entries:
        if not found or found[-1][0].date() != entry.at.date():
            found.append((entry.at, []))
        found[-1][1].append(entry)
    return found


@router.get("/models")
def models(request: Request, begin: BeginVisitor, after: str = "") -> HTMLResponse:
    """List the models that the visitor may know of, by name."""
    with begin(read_only=True) as work:
        found, following = shelf.models(work, after=after or None, limit=MODELS)
    older = f"/models?{urlencode({'after': following})}" if following else ""
    return page(
        request, "models.html", models=found, older=older, newest="/models" if after else ""
    )


@router.get("/static/{digest}/{name:path}")
async def static_file(request: Request, digest: str, name: str) -> Response:
    """Answer a static file; its address changes with its content, so it is kept for ever."""
    asset = assets().get(name)
    if asset is None or digest != asset.digest[:16]:
        raise NotFound("There is no such file.", reason="static")
    packed = "gzip" in request.headers.get("accept-encoding", "")
    tag = f'"{asset.digest}{"-gz" if packed else ""}"'
    headers = {
        "ETag": tag,
        "Cache-Control": FOR_EVER,
        "Vary": "Accept-Encoding",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if packed:
        headers["Content-Encoding"] = "gzip"
    body = asset.packed if packed else asset.body
    return Response(body, headers=headers, media_type=asset.media_type)


@router.post("/theme", dependencies=[Depends(refuse_forgery)])
async def choose_theme(request: Request, sent: Sent) -> Response:
    """Keep the visitor's choice of light, dark or what their system says, in this browser."""
    response = to(safe_next(sent.raw("next")) or "/")
    chosen = sent.get("theme")
    if chosen in ("light", "dark"):
        secure = is_secure(request)
        response.set_cookie(
            THEME_COOKIE, chosen, max_age=YEAR, secure=secure, httponly=True, samesite="lax"
        )
    else:
        response.delete_cookie(THEME_COOKIE)
    return response

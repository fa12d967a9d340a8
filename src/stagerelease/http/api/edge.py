"""What the edge beside this service asks for. Never answers anything that came from outside."""

from __future__ import annotations

import hmac

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from stagerelease.downloads.edge import EdgeWatch
from stagerelease.kernel.errors import NotFound
from stagerelease.settings import Settings

router = APIRouter(prefix="/internal", include_in_schema=False)
EDGE_HEADER = "x-stagerelease-edge"
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-proto", "via")
"""Every public request has one of these, because the edge sets it; the edge's own has none."""


def _is_the_edge(request: Request) -> bool:
    settings: Settings = request.app.state.settings
    if settings.edge_secret_file is None or any(name in request.headers for name in FORWARDED):
        return False
    secret = settings.edge_secret_file.read_text().strip()
    shown = request.headers.get(EDGE_HEADER, "")
    return bool(secret) and hmac.compare_digest(secret.encode(), shown.encode())


@router.get("/cuts")
def edge_cuts(request: Request) -> PlainTextResponse:
    """Answer the count of cuts; when it has moved, the edge ends every connection it has."""
    if not _is_the_edge(request):
        raise NotFound("There is nothing at this address.", reason="route")
    watch: EdgeWatch = request.app.state.edge_watch
    return PlainTextResponse(str(watch.cuts()), headers={"Cache-Control": "no-store"})

"""The first page: every model, and where it is on its way out."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse

from stagerelease.http.pages.begin import BeginVisitor
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.frame import assets, page
from stagerelease.http.pages.models import list_models
from stagerelease.http.wire import origin_of
from stagerelease.kernel.errors import NotFound

router = APIRouter(include_in_schema=False, dependencies=[Depends(speak_page)])
FOR_EVER = "public, max-age=31536000, immutable"


@router.get("/")
def home(request: Request, begin: BeginVisitor) -> HTMLResponse:
    """List the models that the visitor may know of."""
    with begin(read_only=True) as work:
        models = list_models(work)
    return page(request, "home.html", models=models, origin=origin_of(request))


@router.get("/static/{digest}/{name}")
async def static_file(request: Request, digest: str, name: str) -> Response:
    """Answer a static file; its address changes with its content, so it is kept for ever."""
    asset = assets().get(name)
    if asset is None or digest != asset.digest[:16]:
        raise NotFound("There is no such file.", reason="static")
    tag = f'"{asset.digest}"'
    headers = {
        "ETag": tag,
        "Cache-Control": FOR_EVER,
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(asset.body, headers=headers, media_type=asset.media_type)

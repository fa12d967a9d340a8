"""The first page: every model, and where it is on its way out."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from stagerelease.http.pages.begin import BeginVisitor
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.frame import assets, page, to
from stagerelease.http.pages.models import canonical, list_models, show_model
from stagerelease.http.wire import origin_of
from stagerelease.kernel.errors import NotFound

router = APIRouter(include_in_schema=False, dependencies=[Depends(speak_page)])
names = APIRouter(include_in_schema=False, dependencies=[Depends(speak_page)])
"""Tried after every other route: two words in a path are a model only if nothing else has them."""

FOR_EVER = "public, max-age=31536000, immutable"


@router.get("/")
def home(request: Request, begin: BeginVisitor) -> HTMLResponse:
    """List the models that the visitor may know of."""
    with begin(read_only=True) as work:
        models = list_models(work)
    return page(request, "home.html", models=models, origin=origin_of(request))


@names.get("/models/{org}/{name}")
@names.get("/{org}/{name}")
def model(begin: BeginVisitor, org: str, name: str) -> RedirectResponse:
    """Lead from a model's own address, which refusals and feeds name, to the page it has."""
    with begin(read_only=True) as work:
        real = canonical(work, f"{org}/{name}")
        show_model(work, real)  # whoever may not know of it is not led on
    return to(f"/models/{real}/request")


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

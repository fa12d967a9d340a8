"""Release reports over HTTP: the public one for anybody, the full one for staff."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from stagerelease.http.begin import BeginPublic
from stagerelease.reports import service
from stagerelease.reports.rendering import FORMATS, render

router = APIRouter(prefix="/api/v1/tracks", tags=["reports"])
SEALED = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""The page brings its own style and nothing runs in it: no script, no request, no form."""


@router.get(
    "/{track_id}/report",
    response_class=Response,
    responses={200: {"content": {kind.partition(";")[0]: {} for kind in FORMATS.values()}}},
)
def report(
    request: Request,
    begin: BeginPublic,
    track_id: Annotated[str, Path(max_length=64)],
    audience: Annotated[Literal["public", "full"], Query()] = "public",
    format: Annotated[Literal["html", "pdf", "json"], Query()] = "html",
) -> Response:
    """Make the release report of a track: one self-contained file, with its log proofs."""
    with begin(read_only=True) as work:
        made = service.build(work, track_id, audience=audience, vkey=request.app.state.signer.vkey)
    name = f"release-report-{track_id}-{audience}.{format}"
    return Response(
        render(made, format),
        media_type=FORMATS[format],
        headers={
            # Under this policy a browser shows a page and no PDF, so that one is saved.
            "Content-Disposition": f"{'inline' if format == 'html' else 'attachment'}; "
            f'filename="{name}"',
            "Content-Security-Policy": SEALED,
            "Cache-Control": "private, no-cache" if audience == "full" else "no-cache",
        },
    )

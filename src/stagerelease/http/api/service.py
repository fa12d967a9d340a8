"""Health, version and the pages that problem types point at."""

from __future__ import annotations

import html
import shutil

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from stagerelease import __version__
from stagerelease.http.begin import BeginPublic
from stagerelease.http.wire import Out
from stagerelease.kernel import errors
from stagerelease.kernel.errors import DomainError, NotFound, Unavailable
from stagerelease.ledger import queries as ledger

router = APIRouter(tags=["service"])
LOW_DISK = 256 * 2**20


class LiveOut(Out):
    """The process answers."""

    ok: bool = True


class ReadyOut(Out):
    """The process can do its work."""

    ok: bool = True
    log_size: int
    free_bytes: int


class VersionOut(Out):
    """What runs here."""

    name: str = "stagerelease"
    version: str


@router.get("/livez")
async def livez() -> LiveOut:
    """Answer that the process is alive."""
    return LiveOut()


@router.get("/readyz")
def readyz(request: Request, begin: BeginPublic) -> ReadyOut:
    """Answer that database and disk are usable."""
    free = shutil.disk_usage(request.app.state.settings.data_dir).free
    if free < LOW_DISK:
        raise Unavailable(f"Only {free // 2**20} MiB of disk are free.", reason="disk")
    with begin(read_only=True) as work:
        return ReadyOut(log_size=ledger.log_size(work), free_bytes=free)


@router.get("/version")
async def version() -> VersionOut:
    """Tell the version."""
    return VersionOut(version=__version__)


def all_codes() -> dict[str, type[DomainError]]:
    """Return every public error code and its class."""
    found: dict[str, type[DomainError]] = {}
    waiting: list[type[DomainError]] = [errors.DomainError]
    while waiting:
        cls = waiting.pop()
        found[cls.code] = cls
        waiting.extend(cls.__subclasses__())
    return found


@router.get("/problems/{code}", response_class=HTMLResponse)
async def problem_page(code: str) -> HTMLResponse:
    """Explain a problem type."""
    cls = all_codes().get(code)
    if cls is None:
        raise NotFound(f"There is no problem type {code!r}.")
    title, words = html.escape(cls.title), html.escape((cls.__doc__ or "").strip())
    return HTMLResponse(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<h1>{title}</h1><p>{words}</p><p>Code: <code>{html.escape(code)}</code></p></html>",
        headers={"Content-Security-Policy": "default-src 'none'"},
    )

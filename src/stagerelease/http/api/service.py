"""Health and version."""

from __future__ import annotations

import shutil

from fastapi import APIRouter, Request

from stagerelease import __version__
from stagerelease.http.begin import BeginPublic
from stagerelease.http.wire import Out
from stagerelease.kernel.errors import Unavailable
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

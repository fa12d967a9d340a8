"""A body that is asked about while it flows: cut when whoever gets it may not have it any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from stagerelease.http.delivery import ByteDelivery
from stagerelease.http.sentinel import InFlight, Sentinel
from stagerelease.storage.ports import LocalBlob

Recheck = Callable[[], tuple[bool, datetime | None]]
"""Ask again whether the body may go on, and until when at the latest; called from any thread."""


def watched(
    request: Request,
    blob: LocalBlob,
    headers: Mapping[str, str],
    *,
    recheck: Recheck,
    epoch: int,
    until: datetime | None,
    done: Callable[[int, int, str], None] | None = None,
) -> ByteDelivery:
    """Return the response that carries a blob, watched until it ends.

    ``epoch`` is the access epoch that its permission was decided under. ``done`` is told, in a
    thread, the first byte, how many left, and how it ended.
    """
    sentinel: Sentinel = request.app.state.sentinel
    flight = InFlight(recheck=recheck, until=until, epoch=epoch, loop=asyncio.get_running_loop())

    async def finish(first: int, sent: int, outcome: str) -> None:
        sentinel.release(flight)
        if done is not None:
            await run_in_threadpool(done, first, sent, outcome)

    sentinel.admit(flight)
    return ByteDelivery(request, blob, headers, cut=flight.cut, finish=finish)

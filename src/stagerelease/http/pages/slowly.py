"""Runs what is slow on purpose, hashing passwords, beside the threads that answer everybody else.

As many run at once as there are cores. Whoever waits holds neither a thread nor a connection, and
when too many wait the next is told to come back: a flood of sign-ins stops sign-ins by password
and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread
from fastapi import FastAPI, Request

from stagerelease.access.abuse import visitor_of
from stagerelease.kernel.errors import Unavailable

MOST_WAITING = 40
P = ParamSpec("P")
T = TypeVar("T")


def install_slow(app: FastAPI) -> None:
    """Give an application the room in which its slow work is done."""
    app.state.slow = anyio.CapacityLimiter(os.cpu_count() or 1)


async def slowly(
    request: Request, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Return what ``function`` returns, once its turn has come.

    Raises:
        Unavailable: too many wait already.
    """
    limiter: anyio.CapacityLimiter = request.app.state.slow
    if limiter.statistics().tasks_waiting >= MOST_WAITING:
        raise Unavailable(
            "Too many people are signing in with a password at this moment.",
            retry_after=10,
            reason="password.busy",
        )
    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=limiter)


def network_of(request: Request) -> str:
    """Return the keyed digest of the network a request comes from, for counting."""
    key: bytes = request.app.state.link_key
    return visitor_of(key, request.client.host if request.client else None).network

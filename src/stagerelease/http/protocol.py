"""uvicorn's HTTP protocol plus two things: a handle on the connection of a request, which ASGI
lacks, and impatience with connections that send no request.

A body that is cut while its client reads nothing can only be ended by dropping the connection:
closing would wait for the client to take what is buffered. And only who knows the transport knows
whether a memoryview goes to the kernel untouched. Serve with ``http=LinkedProtocol`` (or its dotted
name ``stagerelease.http.protocol:LinkedProtocol``); everything works without it, more slowly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXTENSION = "stagerelease.link"
HEAD_LIMIT = 20.0
"""Seconds that a connection, or a request that has begun, has until its headers are complete: who
holds connections and says nothing would else take the place of everybody."""
BODY_IDLE = 60.0
"""Seconds without a byte of a body that we are ready to read."""


@dataclass(slots=True)
class Link:
    """The connection under one request."""

    transport: asyncio.Transport
    untouched: bool
    """A body goes from its buffer to the kernel, and user space never reads it on the way."""
    flow: FlowControl
    flushed: bool = True
    """The kernel took every byte handed over, also when the connection is lost after that."""

    @property
    def unsent(self) -> int:
        """Return the bytes handed over that the kernel has not taken yet."""
        return self.transport.get_write_buffer_size()

    @property
    def lost(self) -> bool:
        """Tell whether the connection is closed or closing."""
        return self.transport.is_closing()

    def drain_fully(self) -> None:
        """Call the connection drained only when all that was handed over has left it.

        Writing then pauses while any byte waits and resumes when none does, which tells a client
        that hangs up the moment it has everything from one that left early.
        """
        if not self.lost:
            # TLS transports pause at the limit, not above it: with 0 they would never resume.
            high = 0 if self.untouched else 1
            self.transport.set_write_buffer_limits(high=high, low=0)

    async def drained(self) -> None:
        """Wait until the connection takes more at once, or is lost."""
        await self.flow.drain()

    def abort(self) -> None:
        """Drop the connection and what is buffered for it; the client sees a short read."""
        self.transport.abort()


class LinkedProtocol(HttpToolsProtocol):
    """Puts a ``Link`` into the extensions of every request's scope; hangs up on the silent."""

    _link: Link
    _patience: asyncio.TimerHandle | None = None
    _heard = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Remember the connection."""
        super().connection_made(transport)
        # uvloop writes a plain socket straight from the buffer and keeps the rest as a view;
        # TLS encrypts in user space, and asyncio's own transport copies what does not fit.
        plain = transport.get_extra_info("sslcontext") is None
        self._link = Link(
            transport, plain and type(transport).__module__ == "uvloop.loop", self.flow
        )
        self._wait(HEAD_LIMIT, self._no_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._heed()
        super().connection_lost(exc)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._heed()
        self._patience = self.loop.call_later(seconds, then)

    def _heed(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _no_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait(HEAD_LIMIT, self._no_head)  # an answer before it is still on its way
        else:
            self.transport.close()

    def _no_body(self) -> None:
        # Not the client's silence: what has come is not read yet, or it waits for our word.
        if self.flow.read_paused or self.cycle.waiting_for_100_continue:
            self._heard = self.loop.time()
        rest = self._heard + BODY_IDLE - self.loop.time()
        if rest > 0:
            self._wait(rest, self._no_body)
        else:
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Wait for the body from here on."""
        self._heard = self.loop.time()
        self._wait(BODY_IDLE, self._no_body)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note that the client is there."""
        self._heard = self.loop.time()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for nothing: the next request has its own time, and idling its own limit."""
        self._heed()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Note that bytes wait for the kernel."""
        self._link.flushed = False
        super().pause_writing()

    def resume_writing(self) -> None:
        """Note that the kernel has what was handed over."""
        self._link.flushed = True
        super().resume_writing()

    def on_message_begin(self) -> None:
        """Add the link to the scope of the request that begins."""
        self._wait(HEAD_LIMIT, self._no_head)
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: {"link": self._link}}


def link_of(scope: Mapping[str, Any]) -> Link | None:
    """Return the connection under a request, or None when another protocol serves it."""
    extension = scope.get("extensions", {}).get(EXTENSION, {})
    link = extension.get("link")
    return link if isinstance(link, Link) else None

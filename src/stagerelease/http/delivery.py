"""Sends the bytes of a local blob, whole or one range; or tells nginx to send them.

A delivery ends in one of four ways: ``whole`` (everything asked for has left this process),
``client_left``, ``cut`` (the caller withdrew permission) or ``failed`` (the bytes cannot be read).
Every end but the first drops the connection before the body is complete, so that no client can
take a part for the whole. Nothing here decides who may have the bytes, and nothing compresses them.

Do not put Starlette's BaseHTTPMiddleware or GZipMiddleware around a route that returns this: they
copy the body, and mapped bytes must reach the kernel untouched (see storage.windows).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from weakref import WeakKeyDictionary

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from stagerelease.http.protocol import Link, link_of
from stagerelease.http.ranges import select
from stagerelease.kernel.errors import Corrupt
from stagerelease.storage.ports import LocalBlob
from stagerelease.storage.windows import COPY, CopiedReader, Reader, Windows

Finish = Callable[[int, int, str], Awaitable[None]]
"""Called with the first byte, the count of bytes that left, and how it ended."""

Unread = Callable[[], Awaitable[None]]

DOWNLOAD_HEADER = "X-Stagerelease-Download"
"""Carries the download's id to nginx, for its log; nginx does not pass it on."""

log = logging.getLogger("stagerelease.delivery")

# Process-wide by nature: page-table space, and threads of their own, so that slow disks never
# take the request threads that answer everything else. Threads start when first needed.
_windows = Windows()
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()
_threads = ThreadPoolExecutor(8, thread_name_prefix="delivery")


class ByteDelivery(Response):
    """A response whose body is a blob on this machine.

    ``cut`` ends the delivery at once when set, even while the client reads nothing. ``finish`` is
    awaited exactly once, however the delivery ends. The count it gets is of bytes the kernel took
    from this process; it may fall short by one slice when the client vanished.
    """

    def __init__(
        self,
        request: Request,
        blob: LocalBlob,
        headers: Mapping[str, str],
        *,
        cut: asyncio.Event,
        finish: Finish,
    ) -> None:
        fields = {name.lower(): value for name, value in headers.items()}
        asked = request.headers if request.method == "GET" else {}
        self._selection = select(
            blob.size,
            range_header=asked.get("range"),
            if_range=asked.get("if-range"),
            etag=fields.get("etag"),
            last_modified=fields.get("last-modified"),
        )
        fields["accept-ranges"] = "bytes"
        fields["content-length"] = str(self._selection.length)
        if self._selection.content_range is not None:
            fields["content-range"] = self._selection.content_range
        super().__init__(None, status_code=self._selection.status, headers=fields)
        self._blob = blob
        self._cut = cut
        self._finish = finish
        self._handed = 0  # bytes given to the transport
        self._settled = 0  # bytes of them seen to have left it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, and report how that ended."""
        outcome = "failed"
        try:
            if self._selection.length == 0 or scope["method"] == "HEAD":
                await super().__call__(scope, receive, send)
                outcome = "failed" if self._selection.status == 416 else "whole"
            else:
                outcome = await self._deliver(scope, receive, send)
        finally:
            await self._finish(self._selection.start, self._settled, outcome)

    async def _deliver(self, scope: Scope, receive: Receive, send: Send) -> str:
        link = link_of(scope)
        loop = asyncio.get_running_loop()
        reader = await loop.run_in_executor(_threads, _open, self._blob, link)
        if link is not None:
            link.drain_fully()  # over TLS as well: what counts as delivered depends on it
        try:
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            return await self._race(reader, link, receive, send)
        finally:
            # Unmapping a large file takes milliseconds, and a load may still be under way.
            _threads.submit(reader.close)

    async def _race(self, reader: Reader, link: Link | None, receive: Receive, send: Send) -> str:
        """Send until done, until the client is gone or until cut, whichever comes first."""
        body = asyncio.ensure_future(self._send_body(reader, link, send))
        gone = asyncio.ensure_future(_disconnect(receive))
        cut = asyncio.ensure_future(self._cut.wait())
        try:
            await asyncio.wait({body, gone, cut}, return_when=asyncio.FIRST_COMPLETED)
            if body.done():
                return body.result()
            self._settle(link)
            if not cut.done():
                whole = self._settled == self._selection.length  # it hung up having it all
                return "whole" if whole else "client_left"
            self._drop(link)
            if link is not None:
                await asyncio.wait({gone}, timeout=1)  # so that uvicorn knows, and logs nothing
            return "cut"
        finally:
            for task in (body, gone, cut):
                task.cancel()
            await asyncio.gather(body, gone, cut, return_exceptions=True)

    async def _send_body(self, reader: Reader, link: Link | None, send: Send) -> str:
        loop = asyncio.get_running_loop()
        offset = self._selection.start
        end = offset + self._selection.length
        try:
            while offset < end:
                length = reader.span(offset, end)
                body = reader.ready(offset, length)
                if body is None:
                    body = await loop.run_in_executor(_threads, reader.load, offset, length)
                await self._hand_over(reader, offset, body, link, send)
                offset += length
        except (Corrupt, OSError) as error:
            log.error("delivery of %s failed at byte %d: %s", self._blob.path.name, offset, error)
            self._drop(link)
            return "failed"
        # Waits until the last slice has left the transport, as every send waits for the one before.
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self._settle(link)
        if link is not None and self._settled < self._selection.length:
            return "client_left"
        self._settled = self._selection.length
        return "whole"

    async def _hand_over(
        self, reader: Reader, offset: int, body: memoryview, link: Link | None, send: Send
    ) -> None:
        """Give one slice to the transport.

        Where the connection tells when it is ready, all deliveries together write one slice per
        turn of the loop: eight of them never stand between a small request and its answer.
        """
        message = {"type": "http.response.body", "body": body, "more_body": True}
        if link is None:
            await send(message)
            self._handed += len(body)
            self._settle(link)
            await asyncio.sleep(0)
            return
        await link.drained()
        async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            reader.passing(offset)
            await link.drained()  # at once, unless it changed while we waited for our turn
            await send(message)
            if not link.lost:  # a write to a lost connection went nowhere
                self._handed += len(body)
            self._settle(link)
            await asyncio.sleep(0)

    def _settle(self, link: Link | None) -> None:
        """Count what surely left; without a link, a send vouches for the one before it."""
        if link is None:
            self._settled = max(self._settled, self._handed - COPY)
        elif link.flushed:
            self._settled = self._handed
        elif not link.lost:  # a lost connection has forgotten what it still held
            self._settled = max(self._settled, self._handed - link.unsent)

    def _drop(self, link: Link | None) -> None:
        """End the connection short; without a link, returning early makes the server close it."""
        if link is not None:
            link.abort()


class Handover(Response):
    """The empty answer that makes nginx send a file.

    ``unread`` is awaited when nginx has hung up before a byte of the answer was written: it does
    so when its own client has left, and then neither sends nor logs anything.
    """

    def __init__(self, headers: Mapping[str, str], *, unread: Unread | None) -> None:
        super().__init__(None, status_code=200, headers=headers)
        self._unread = unread

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, unless nobody is there to read it."""
        link = link_of(scope)
        if self._unread is not None and link is not None and link.lost:
            await self._unread()
        await super().__call__(scope, receive, send)


def accel_response(
    request: Request,
    blob: LocalBlob,
    headers: Mapping[str, str],
    *,
    root: Path,
    prefix: str,
    download_id: str | None = None,
    unread: Unread | None = None,
) -> Response:
    """Return the empty answer that makes nginx send the file from its internal location.

    nginx sets length and range itself. Of our headers it keeps Content-Type, Content-Disposition
    and Cache-Control; its location must add the others from ``$upstream_http_…`` and switch its
    own ETag off, as the configuration in deploy/ does. Never send this to a client directly.
    """
    del request  # the same question gets the same answer: nginx looks at the range
    fields = {name.lower(): value for name, value in headers.items()}
    fields.pop("accept-ranges", None)  # nginx would send ours and its own
    fields["x-accel-redirect"] = prefix + blob.path.relative_to(root).as_posix()
    if download_id is not None:
        fields[DOWNLOAD_HEADER.lower()] = download_id
    return Handover(fields, unread=unread)


def _open(blob: LocalBlob, link: Link | None) -> Reader:
    if link is not None and link.untouched:
        return _windows.open(blob.path, blob.size)
    return CopiedReader(blob.path, blob.size)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

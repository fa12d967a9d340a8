"""Carries one generation to its client, and ends it the moment anything says so.

Five things can end it: its last token, the client hanging up, the client reading nothing, the time
limit, and access that is withdrawn meanwhile (the sentinel asks again whenever anything changed).
Whatever the end, the engine's generator is closed, which stops the work within one token, and what
was used is recorded once, also when the client goes at that very moment. Until the first event
everything is decided, so refusals have a status; after it, the last event says what happened, in
OpenAI's shape, and no ``[DONE]`` follows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import structlog
from fastapi.responses import JSONResponse, Response
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from stagerelease.db.work import Works
from stagerelease.engine.ports import Admitted, Ended, Engine, Event, Job, Piece
from stagerelease.engine.wire import SSE_DONE, sse
from stagerelease.http.openai.errors import document_of, refusal
from stagerelease.http.openai.recording import Record
from stagerelease.http.openai.wire import Shape, Usage, answer_headers, permit_headers
from stagerelease.http.protocol import link_of
from stagerelease.http.sentinel import InFlight, Sentinel
from stagerelease.inference import service as inference
from stagerelease.inference.service import Permit
from stagerelease.kernel.errors import DomainError, Unavailable
from stagerelease.settings import Settings

T = TypeVar("T")
log = structlog.get_logger(__name__)
LAST_WORDS = 1.0
"""Seconds that the last event of a stream that is cut gets to reach its client."""
SOON = 0.3
"""Seconds that the last event of such a stream waits for its record."""
BEHIND = 1.0
"""Seconds after which a client that takes nothing is behind: what is computed is then not known."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a generation needs of the process it runs in."""

    works: Works
    engine: Engine
    sentinel: Sentinel
    settings: Settings

    @classmethod
    def of(cls, request: Request) -> Room:
        """Return the room of a request's application."""
        state = request.app.state
        return cls(state.works, state.engine, state.sentinel, state.settings)


class Watch:
    """Keeps asking whether a permitted request may go on; ``over`` is set when it may not."""

    def __init__(self, room: Room, permit: Permit) -> None:
        self._room, self._permit = room, permit
        self._refused: DomainError | None = None
        self.flight = InFlight(
            recheck=self._recheck,
            until=permit.until,
            epoch=permit.epoch,
            loop=asyncio.get_running_loop(),
        )

    def _recheck(self) -> tuple[bool, datetime | None]:
        until, self._refused = inference.recheck(self._room.sentinel.works, self._permit)
        return self._refused is None, until

    @property
    def over(self) -> asyncio.Event:
        """Return the event that is set when the request must end."""
        return self.flight.cut

    @property
    def refused(self) -> DomainError:
        """Return why it must end."""
        return self._refused or Unavailable(
            "Whether you may go on cannot be checked now, so this was stopped.",
            reason="access.unchecked",
        )

    def __enter__(self) -> Watch:
        self._room.sentinel.admit(self.flight)
        return self

    def __exit__(self, *_: object) -> None:
        self._room.sentinel.release(self.flight)


class Generation(Response):
    """An answer under way."""

    def __init__(
        self, request: Request, permit: Permit, job: Job, shape: Shape, *, stream: bool
    ) -> None:
        super().__init__()
        self._room = Room.of(request)
        self._request_id: str = request.state.request_id
        self._permit, self._job, self._shape, self._stream = permit, job, shape, stream
        self._record = Record(self._room.works, permit.request_id)
        self._usage = self._record.usage
        self._started = False
        self._waits_since: float | None = None  # for the client to take what there is

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, and record how that ended."""
        outcome = "failed"
        try:
            with Watch(self._room, self._permit) as watch:
                outcome = await self._race(watch, scope, receive, send)
        finally:
            await self._end(outcome)

    async def _end(self, outcome: str, *, patience: float | None = None) -> None:
        """Record the end, once: before the last bytes leave, where there are such.

        A client that has its answer may ask again at once, and must find its quota free. Of one
        that did not take what there was, the engine has computed more than came here; so all that
        it may have computed is counted.
        """
        since = self._waits_since
        if since is not None and time.monotonic() - since > BEHIND:
            self._usage.suppose(len(self._job.prompts) * self._job.n, each=self._job.max_tokens)
        await self._record.end(outcome, patience=patience)

    async def _race(self, watch: Watch, scope: Scope, receive: Receive, send: Send) -> str:
        answer = asyncio.ensure_future(self._answer(scope, receive, send))
        gone = asyncio.ensure_future(_disconnect(receive))
        over = asyncio.ensure_future(watch.over.wait())
        try:
            await asyncio.wait(
                {answer, gone, over},
                timeout=self._room.settings.inference_longest,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if answer.done():
                return answer.result()
            await _stopped(answer)
            if gone.done() and not over.done():
                return "client_left"
            why: DomainError = watch.refused if over.done() else _too_long()
            outcome = "cut" if over.done() else "timeout"
            await self._end(outcome, patience=SOON)
            await self._end_early(why, scope, receive, send)
            return outcome
        finally:
            for task in (answer, gone, over):
                task.cancel()
            await asyncio.gather(answer, gone, over, return_exceptions=True)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> str:
        async with aclosing(self._room.engine.generate(self._job)) as events:
            try:
                first = await anext(events)
                assert isinstance(first, Admitted)  # noqa: S101 (the port's promise)
                self._usage.see(first)
                if not self._stream:
                    document = await self._collect(events)
                    await self._end("completed")
                    response = JSONResponse(document, headers=answer_headers(self._permit))
                    await response(scope, receive, send)
                    return "completed"
                await self._open(send)
                async for event in events:
                    await self._pass_on(event, send)
                await self._close(send)
            except DomainError as error:
                await self._end(error.reason)
                await self._end_early(error, scope, receive, send)
                return error.reason
            except TimeoutError:
                if (link := link_of(scope)) is not None:
                    link.abort()  # closing would wait for a client that takes nothing
                return "stalled"
            except Exception:
                log.exception("a generation broke", request=self._permit.request_id)
                await self._end("failed")
                await self._end_early(_broke(), scope, receive, send)
                return "failed"
        return "completed"

    async def _collect(self, events: Any) -> dict[str, Any]:
        pieces: dict[int, list[Piece]] = {}
        ends: dict[int, Ended] = {}
        async for event in events:
            self._usage.see(event)
            if isinstance(event, Ended):
                ends[event.index] = event
            else:
                pieces.setdefault(event.index, []).append(event)
        return self._shape.whole(pieces, ends, self._usage)

    # --- streams

    async def _open(self, send: Send) -> None:
        headers = {
            "Content-Type": "text/event-stream; charset=utf-8",
            **answer_headers(self._permit),
        }
        raw = [(k.lower().encode(), v.encode("latin-1")) for k, v in headers.items()]
        self._started = True
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        for document in self._shape.opening():
            await self._send(send, sse(document))

    async def _pass_on(self, event: Event, send: Send) -> None:
        assert not isinstance(event, Admitted)  # noqa: S101 (the port's promise)
        self._usage.see(event)
        if isinstance(event, Ended):
            await self._send(send, sse(self._shape.end(event)))
        elif (document := self._shape.part(event)) is not None:
            await self._send(send, sse(document))

    async def _close(self, send: Send) -> None:
        last = SSE_DONE
        if getattr(self._shape, "include_usage", False):
            last = sse(self._shape.usage(self._usage)) + last
        await self._end("completed")
        await self._send(send, last, more=False)

    async def _send(self, send: Send, body: bytes, *, more: bool = True) -> None:
        """Hand bytes over; fail when the client takes nothing for too long.

        Nothing is kept meanwhile but what the connection buffers: the engine is not asked for more.
        """
        self._waits_since = time.monotonic()
        async with asyncio.timeout(self._room.settings.inference_stall):
            await send({"type": "http.response.body", "body": body, "more_body": more})
        self._waits_since = None

    async def _end_early(
        self, error: DomainError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Say why there is no more: as the answer, or as a stream's last event."""
        if not self._started:
            answer = refusal(error, self._request_id)
            answer.headers.update(permit_headers(self._permit))
            await answer(scope, receive, send)
            return
        last = sse(document_of(error, self._request_id))
        try:
            async with asyncio.timeout(LAST_WORDS):
                await send({"type": "http.response.body", "body": last, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            if (link := link_of(scope)) is not None:
                link.abort()


async def while_permitted(
    request: Request, permit: Permit, work: Callable[[Usage], Awaitable[T]]
) -> T:
    """Return what ``work`` returns under a permit, recording the usage that it fills in.

    For what is answered whole, such as scores.

    Raises:
        Gated: access was withdrawn meanwhile.
        DomainError: as ``work`` does.
    """
    room, outcome = Room.of(request), "failed"
    record = Record(room.works, permit.request_id)
    task = asyncio.ensure_future(work(record.usage))
    gone = asyncio.ensure_future(_disconnect(request.receive))
    try:
        with Watch(room, permit) as watch:
            over = asyncio.ensure_future(watch.over.wait())
            try:
                await asyncio.wait(
                    {task, gone, over},
                    timeout=room.settings.inference_longest,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if task.done():
                    outcome = _outcome_of(task)
                    return task.result()
                outcome = "cut" if over.done() else "client_left" if gone.done() else "timeout"
                raise watch.refused if over.done() else _too_long()
            finally:
                over.cancel()
    finally:
        gone.cancel()
        if outcome not in ("cut", "client_left", "timeout"):
            record.usage.settle()
        await _stopped(task)
        await record.end(outcome, patience=SOON if outcome == "cut" else None)


def _outcome_of(task: asyncio.Future[Any]) -> str:
    error = task.exception()
    if error is None:
        return "completed"
    return error.reason if isinstance(error, DomainError) else "failed"


def _broke() -> Unavailable:
    return Unavailable("Something broke on our side; it is on record.", reason="bug")


def _too_long() -> Unavailable:
    return Unavailable("This took too long and was stopped.", retry_after=120, reason="timeout")


async def _stopped(task: asyncio.Future[Any]) -> None:
    """Cancel a task and wait until it has ended, whatever it says."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""Serves an ``Engine`` over HTTP to the web processes, in OpenAI's completions protocol and a bit.

It decides no permissions and knows no people: who may ask was decided where the question comes
from. It listens on a Unix socket that its owner alone may open, or on TCP with a shared secret.
Every refusal leaves before the first byte; what breaks later is the last event of the stream.
"""

from __future__ import annotations

import hmac
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from stagerelease.engine import wire
from stagerelease.engine.asked import CompletionIn, ScoreIn, job_of, read_body
from stagerelease.engine.connected import ClientLeft, while_connected
from stagerelease.engine.metering import Meter, Metered
from stagerelease.engine.ports import Admitted, Checkpoint, Ended, Engine, Event, Job, Piece
from stagerelease.engine.rules import require_sound, require_texts
from stagerelease.kernel.clock import SystemClock
from stagerelease.kernel.errors import DomainError, Unauthenticated

MOST_KNOWN = 256
"""Checkpoints whose files are remembered, so that they can be asked for by name alone."""


class _NotFound(Exception):
    """A model was asked for by a name that says nothing here."""


def inference_app(engine: Engine, *, secret: str | None = None) -> Starlette:
    """Return the application over ``engine``; with ``secret``, every question must show it."""
    server = _Server(engine, secret)
    return Starlette(
        routes=[
            Route("/v1/completions", server.guarded(server.completions), methods=["POST"]),
            Route("/v1/score", server.guarded(server.score), methods=["POST"]),
            Route("/v1/models", server.guarded(server.models), methods=["GET"]),
            Route("/metrics", server.guarded(server.metrics), methods=["GET"]),
            Route("/healthz", server.healthz, methods=["GET"]),
        ]
    )


class _Server:
    def __init__(self, engine: Engine, secret: str | None) -> None:
        self.engine = engine
        self.secret = secret.encode() if secret else None
        self.meter = Meter()
        self.known: OrderedDict[str, Checkpoint] = OrderedDict()

    def guarded(
        self, route: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return ``route`` behind the secret, with refusals in OpenAI's shape."""

        async def answer(request: Request) -> Response:
            try:
                self._require_secret(request)
                return await route(request)
            except DomainError as error:
                return refusal(error)
            except _NotFound as error:
                body = {
                    "message": str(error),
                    "type": "invalid_request_error",
                    "param": "model",
                    "code": "model_not_found",
                }
                return JSONResponse({"error": body}, 404)

        return answer

    def _require_secret(self, request: Request) -> None:
        if self.secret is None:
            return
        shown = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        if not hmac.compare_digest(shown, self.secret):
            raise Unauthenticated("This process answers those who know its secret.")

    def _checkpoint(self, body: CompletionIn | ScoreIn) -> Checkpoint:
        if body.stagerelease is None:
            known = self.known.get(body.model)
            if known is None:
                raise _NotFound(f"No model {body.model!r} was used here yet; name its files.")
            return known
        given = body.stagerelease.checkpoint
        checkpoint = Checkpoint(given.commit, given.repo_id, given.files)
        for name in (checkpoint.commit, wire.model_id(checkpoint)):
            self.known[name] = checkpoint
            self.known.move_to_end(name)
        while len(self.known) > MOST_KNOWN:
            self.known.popitem(last=False)
        return checkpoint

    async def completions(self, request: Request) -> Response:
        body = await read_body(request, CompletionIn)
        job = job_of(body, self._checkpoint(body))
        require_sound(job)
        return _Completions(self.engine, self.meter, job, body)

    async def score(self, request: Request) -> Response:
        body = await read_body(request, ScoreIn)
        texts = [t if isinstance(t, str) else tuple(t) for t in body.texts]
        require_texts(texts, body.top)
        work = self.engine.score(self._checkpoint(body), texts, top=body.top)
        try:
            scored = await while_connected(request.receive, work)
        except ClientLeft:
            return Response(status_code=499)
        self.meter.scored(sum(len(tokens) for tokens in scored))
        data = [wire.score_document(tokens) for tokens in scored]
        return JSONResponse({"object": "score", "model": body.model, "data": data})

    async def models(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse(wire.state_document(await self.engine.state()))

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002
        page, media_type = self.meter.page(await self.engine.state())
        return Response(page, media_type=media_type)

    async def healthz(self, request: Request) -> Response:  # noqa: ARG002
        draining = (await self.engine.state()).draining
        return JSONResponse({"status": "draining" if draining else "ok"}, 503 if draining else 200)


def refusal(error: DomainError) -> Response:
    """Return a refusal as an answer."""
    if isinstance(error, Unauthenticated):
        body = {"message": error.sentence, "type": "invalid_request_error", "param": None}
        return JSONResponse({"error": body | {"code": "invalid_api_key"}}, 401)
    status, _ = wire.status_and_type(error)
    headers = {}
    if (wait := getattr(error, "retry_after", None)) is not None:
        headers["Retry-After"] = str(wait)
    return JSONResponse(wire.error_document(error), status, headers)


class _Completions(Response):
    """Asks the engine while the client is there; streams, or answers when all is done."""

    def __init__(self, engine: Engine, meter: Meter, job: Job, body: CompletionIn) -> None:
        super().__init__()
        self._engine, self._meter, self._job = engine, meter, job
        self._stream, self._model = body.stream, body.model
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._sequences = len(job.prompts) * job.n
        told = job.logprobs is not None
        self._places = [wire.Places() if told else None for _ in range(self._sequences)]
        self._prompt_tokens = self._completion_tokens = 0
        self._clock = SystemClock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._meter.request() as metered:
            try:
                await while_connected(receive, self._answer(scope, receive, send, metered))
            except ClientLeft:
                metered.outcome = "client_left"

    async def _answer(self, scope: Scope, receive: Receive, send: Send, metered: Metered) -> None:
        async with aclosing(self._engine.generate(self._job)) as events:
            try:
                first = await anext(events)
            except DomainError as error:
                metered.outcome = error.reason
                await refusal(error)(scope, receive, send)
                return
            metered.see(first)
            if self._stream:
                await self._send_stream(first, events, send, metered)
            else:
                await self._send_whole(first, events, scope, receive, send, metered)

    async def _send_stream(
        self, first: Event, events: AsyncGenerator[Event, None], send: Send, metered: Metered
    ) -> None:
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def part(body: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": more})

        await part(wire.sse(self._document(first)))
        try:
            async for event in events:
                metered.see(event)
                await part(wire.sse(self._document(event)))
        except DomainError as error:
            metered.outcome = error.reason
            await part(wire.sse(wire.error_document(error)), more=False)
            return
        await part(wire.sse(self._envelope([]) | {"usage": self._usage()}) + wire.SSE_DONE)
        await part(b"", more=False)

    async def _send_whole(
        self,
        first: Event,
        events: AsyncGenerator[Event, None],
        scope: Scope,
        receive: Receive,
        send: Send,
        metered: Metered,
    ) -> None:
        pieces: list[list[Piece]] = [[] for _ in range(self._sequences)]
        ends: list[Ended | None] = [None] * self._sequences
        extension = self._document(first)[wire.EXTENSION]
        try:
            async for event in events:
                metered.see(event)
                if isinstance(event, Piece):
                    pieces[event.index].append(event)
                elif isinstance(event, Ended):
                    ends[event.index] = event
                    self._completion_tokens += event.completion_tokens
        except DomainError as error:
            metered.outcome = error.reason
            await refusal(error)(scope, receive, send)
            return
        choices = []
        for index, parts in enumerate(pieces):
            joined = Piece(
                index, "".join(p.text for p in parts), tuple(t for p in parts for t in p.tokens)
            )
            end = ends[index]
            assert end is not None  # noqa: S101 (the port promises one end per sequence)
            choice = wire.choice_of(joined, self._places[index])
            choices.append(wire.end_choice(end) | _but_end(choice))
        document = self._envelope(choices) | {wire.EXTENSION: extension, "usage": self._usage()}
        await JSONResponse(document)(scope, receive, send)

    def _document(self, event: Event) -> dict[str, Any]:
        if isinstance(event, Admitted):
            self._prompt_tokens = sum(event.prompt_tokens)
            told = {"prompt_tokens": list(event.prompt_tokens)}
            return self._envelope([]) | {wire.EXTENSION: told}
        if isinstance(event, Ended):
            self._completion_tokens += event.completion_tokens
            return self._envelope([wire.end_choice(event)])
        return self._envelope([wire.piece_choice(event, self._places[event.index])])

    def _envelope(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "text_completion",
            "created": int(self._clock.now().timestamp()),
            "model": self._model,
            "choices": choices,
        }

    def _usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "total_tokens": self._prompt_tokens + self._completion_tokens,
        }


def _but_end(choice: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in choice.items() if name != "finish_reason"}

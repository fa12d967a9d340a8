"""Adapter of the port that asks another process: ours (``infer``) or any OpenAI-compatible server.

Three dialects. ``stagerelease`` keeps every promise of the port. ``vllm`` and ``openai`` speak to
servers that know nothing of ours and live in ``foreign``, which says what they cannot tell.
Closing a generator closes its connection at once: that is how work is stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from stagerelease.engine import foreign, wire
from stagerelease.engine.ports import Checkpoint, EngineState, Event, Job, Prompt, ScoredToken
from stagerelease.engine.reading import away, documents, parse, read_as, whole
from stagerelease.engine.rules import require_sound, require_texts
from stagerelease.kernel.errors import DomainError, Invalid

Dialect = Literal["stagerelease", "vllm", "openai"]
CONNECT = 5.0
"""Seconds within which the other process must take a connection."""
STATE = 3.0
"""Seconds within which it must say how it is: nothing has to be computed for that."""
SOCKET_URL = "http://inference"
"""What a question over a socket is addressed to; nobody looks it up."""
MOST_SUN_PATH = 107
"""Bytes of a Unix socket's path (sockaddr_un, less its closing NUL)."""


def is_too_long(path: Path) -> bool:
    """Tell whether the kernel's structure has no room for a path."""
    return len(str(path).encode()) > MOST_SUN_PATH


def require_short(path: Path) -> Path:
    """Return ``path`` as it can be bound to or connected to.

    Raises:
        Invalid: the kernel's structure has no room for it; says what to do.
    """
    if is_too_long(path):
        raise Invalid(
            "The path of the inference socket is too long: a Unix socket's has at most "
            f"{MOST_SUN_PATH} bytes, and this has more: {path}",
            reason="inference.socket",
            next_step="Use a shorter DATA_DIR, or set STAGERELEASE_INFERENCE_URL to "
            "unix:/a/short/path or to http://127.0.0.1:<port>.",
        )
    return path


@dataclass(frozen=True, slots=True)
class Where:
    """The other process: a base URL, and the socket instead of its host when there is one.

    ``models`` maps our repository ids to the names a foreign server knows models by. ``patience``
    is how long it may say nothing before it counts as away: a request may wait in its queue for as
    long as it may run, so this is longer than the longest.
    """

    base_url: str
    socket: Path | None = None
    secret: str | None = None
    dialect: Dialect = "stagerelease"
    models: Mapping[str, str] = field(default_factory=dict)
    patience: float = 630.0

    @classmethod
    def of(cls, url: str, **others: Any) -> Where:
        """Return the place that ``url`` (``unix:/path``, ``http://…``) names."""
        if url.startswith("unix:"):
            socket = require_short(Path(url.removeprefix("unix:")))
            return cls(SOCKET_URL, socket=socket, **others)
        if not url.startswith(("http://", "https://")):
            raise Invalid(
                f"{url!r} is no address of an inference process.",
                reason="inference.url",
                next_step="Write unix:/path, http://host:port or https://host:port.",
            )
        return cls(url.rstrip("/").removesuffix("/v1"), **others)

    def model(self, checkpoint: Checkpoint) -> str:
        """Return the name to ask for ``checkpoint`` by.

        Raises:
            Invalid: it is not among the models the foreign server is known to have.
        """
        if self.dialect == "stagerelease":
            return wire.model_id(checkpoint)
        for name in (wire.model_id(checkpoint), checkpoint.repo_id):
            if name in self.models:
                return self.models[name]
        raise Invalid(
            f"The inference server does not have {checkpoint.repo_id}.", reason="engine.model"
        )


class RemoteEngine:
    """An ``Engine`` in another process."""

    def __init__(self, where: Where) -> None:
        self.where = where
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """See the port."""
        require_sound(job)
        model = self.where.model(job.checkpoint)
        if self.where.dialect == "stagerelease":
            asked = self._generate(job, model)
        else:
            vllm = self.where.dialect == "vllm"
            asked = foreign.generate(self.ask, job, model=model, vllm=vllm)
        async with aclosing(asked) as events:
            async for event in events:
                yield event

    async def _generate(self, job: Job, model: str) -> AsyncGenerator[Event, None]:
        body = wire.completion_body(job, model=model) | wire.wider_sampling(job) | wire.salt_of(job)
        async with self.ask(body | wire.checkpoint_field(job.checkpoint)) as answer:
            if answer.status_code != 200:
                raise await _refusal(answer)
            async with aclosing(documents(answer)) as stream:
                async for document in stream:
                    if "error" in document:
                        raise wire.error_of(document, 503)
                    for event in read_as(wire.events_of, document):
                        yield event

    async def score(
        self, checkpoint: Checkpoint, texts: Sequence[Prompt], *, top: int = 0
    ) -> tuple[tuple[ScoredToken, ...], ...]:
        """See the port."""
        require_texts(texts, top)
        model = self.where.model(checkpoint)
        if self.where.dialect != "stagerelease":
            vllm = self.where.dialect == "vllm"
            return await foreign.score(self.ask, model, texts, top=top, vllm=vllm)
        given = [t if isinstance(t, str) else list(t) for t in texts]
        body = {"model": model, "texts": given, "top": top, **wire.checkpoint_field(checkpoint)}
        async with self.ask(body, path="/v1/score") as answer:
            if answer.status_code != 200:
                raise await _refusal(answer)
            document = await whole(answer)
        return read_as(wire.all_scores_of, document)

    async def state(self) -> EngineState:
        """See the port. A foreign server tells which models it has, and nothing of its queue."""
        async with self.ask(None, path="/v1/models", patience=STATE) as answer:
            if answer.status_code != 200:
                raise await _refusal(answer)
            document = await whole(answer)
        if self.where.dialect == "stagerelease":
            return read_as(wire.state_of, document)
        return read_as(foreign.state_of, document)

    async def close(self) -> None:
        """Close the connections; the other process goes on."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    @asynccontextmanager
    async def ask(
        self,
        body: Mapping[str, Any] | None,
        *,
        path: str = "/v1/completions",
        patience: float | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Send a question and give the answer's head; leaving the block drops the connection.

        ``patience``: how long the process may say nothing, if not as long as for computing.

        Raises:
            Unavailable: ``engine.away``, also when the answer breaks off within the block.
        """
        if self.where.socket is not None and is_too_long(self.where.socket):
            raise away("the path of its socket is too long for a socket")
        client = self._open_client()
        method = "GET" if body is None else "POST"
        timeout = httpx.Timeout(patience or self.where.patience, connect=CONNECT)
        request = client.build_request(method, path, json=body, timeout=timeout)
        try:
            answer = await client.send(request, stream=True)
            try:
                yield answer
            finally:
                await answer.aclose()
        except httpx.HTTPError as error:
            raise away(f"it does not answer ({type(error).__name__})") from error

    def _open_client(self) -> httpx.AsyncClient:
        # A client belongs to the loop it was first used in; a process has one, a test many.
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            where = self.where
            transport = httpx.AsyncHTTPTransport(
                uds=str(where.socket) if where.socket is not None else None,
                verify=where.base_url.startswith("https:"),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
            )
            headers = {"Authorization": f"Bearer {where.secret}"} if where.secret else {}
            self._client = httpx.AsyncClient(
                base_url=where.base_url,
                headers=headers,
                transport=transport,
                trust_env=False,
            )
            self._loop = loop
        return self._client


async def _refusal(answer: httpx.Response) -> DomainError:
    if answer.status_code in (401, 403):
        return away("it refused the secret of this process")
    return wire.error_of(parse(await answer.aread()), answer.status_code)

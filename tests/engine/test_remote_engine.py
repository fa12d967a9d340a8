"""The remote adapter keeps the port's promises: over a socket, over TCP, and to foreign servers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from conformance import EngineConformance, Subject, collect, idle, refusal
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from databases import free_port
from foreign_server import foreign_app
from small_engine import END, VOCABULARY, SmallEngine
from stagerelease.bootstrap import build_remote_engine
from stagerelease.engine import foreign
from stagerelease.engine import remote as remote_module
from stagerelease.engine.ports import Admitted, Checkpoint, Engine, Job, Piece, Sampling
from stagerelease.engine.remote import RemoteEngine, Where
from stagerelease.engine.serving import bind_socket, bind_tcp, server_of
from stagerelease.kernel.errors import DomainError, Invalid, Unavailable
from stagerelease.settings import Settings

ENDLESS = Sampling(logit_bias={END: -100.0})
A = Sampling(logit_bias={ord("a"): 1000.0})
CHECKPOINT = Checkpoint("a" * 40, "acme/small", {"config.json": "0" * 64})


@asynccontextmanager
async def served(engine: Engine, listener: Any, secret: str | None = None) -> AsyncIterator[None]:
    server = server_of(engine, secret=secret, grace=2)
    task = asyncio.ensure_future(server._serve([listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def by_socket(engine: SmallEngine) -> AsyncIterator[RemoteEngine]:
    with tempfile.TemporaryDirectory(prefix="sr-") as directory:  # short: sockets' paths are
        path = Path(directory) / "infer.sock"
        async with served(engine, bind_socket(path)):
            remote = RemoteEngine(Where.of(f"unix:{path}"))
            yield remote
            await remote.close()


class Narrow:
    """A remote engine whose ``close`` closes what it asks, as stopping the process would."""

    def __init__(self, remote: RemoteEngine, engine: SmallEngine) -> None:
        self.generate, self.score, self.state = remote.generate, remote.score, remote.state
        self.close = engine.close


@asynccontextmanager
async def narrow() -> AsyncIterator[Engine]:
    engine = SmallEngine(most_running=2, most_waiting=2, step=0.002)
    async with by_socket(engine) as remote:
        yield Narrow(remote, engine)


class TestOverASocket(EngineConformance):
    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Subject]:
        engine = SmallEngine(step=0.0005)
        async with by_socket(engine) as remote:
            yield Subject(remote, CHECKPOINT, engine.context, VOCABULARY, 0xC3, narrow)


def run(experiment: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await experiment

    asyncio.run(bounded())


# --- TCP and its secret -------------------------------------------------------------------------


@asynccontextmanager
async def by_tcp(engine: SmallEngine, *, shown: str | None) -> AsyncIterator[RemoteEngine]:
    port = free_port()
    async with served(engine, bind_tcp("127.0.0.1", port), secret="s3cret"):
        remote = RemoteEngine(Where.of(f"http://127.0.0.1:{port}", secret=shown))
        yield remote
        await remote.close()


def test_the_secret_opens_a_tcp_address() -> None:
    async def experiment() -> None:
        async with by_tcp(SmallEngine(), shown="s3cret") as remote:
            assert (await collect(remote, Job(CHECKPOINT, ("Hello",)))).texts[0]
            assert (await remote.state()).running == 0

    run(experiment())


@pytest.mark.parametrize("shown", [None, "", "s3cre", "s3cretx"])
def test_without_the_secret_nothing_is_answered(shown: str | None) -> None:
    async def experiment() -> None:
        async with by_tcp(SmallEngine(), shown=shown) as remote:
            refused = await refusal(remote, Job(CHECKPOINT, ("Hello",)))
            assert (type(refused), refused.reason) == (Unavailable, "engine.away")
            for path in ("/v1/models", "/metrics"):
                async with httpx.AsyncClient(base_url=remote.where.base_url) as client:
                    assert (await client.get(path)).status_code == 401
                    assert (await client.get("/healthz")).json() == {"status": "ok"}

    run(experiment())


# --- the socket ---------------------------------------------------------------------------------


def test_only_its_owner_may_open_the_socket(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="sr-") as directory:
        path = Path(directory) / "run" / "infer.sock"
        listener = bind_socket(path)
        listener.listen()
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        with pytest.raises(Invalid, match="Another inference process"):
            bind_socket(path)
        listener.close()
        bind_socket(path).close()  # what a dead process left is replaced


def test_a_path_too_long_for_a_socket_is_refused_with_advice(tmp_path: Path) -> None:
    long = tmp_path / ("d" * 120) / "infer.sock"
    for attempt in (lambda: bind_socket(long), lambda: Where.of(f"unix:{long}")):
        with pytest.raises(Invalid, match="at most 107") as refused:
            attempt()
        assert refused.value.next_step is not None
        assert "STAGERELEASE_INFERENCE_URL" in refused.value.next_step
    with pytest.raises(Invalid, match="no address"):
        Where.of("ftp://there")


# --- what can go wrong between processes --------------------------------------------------------


def test_nobody_there_is_away() -> None:
    async def experiment() -> None:
        remote = RemoteEngine(Where.of(f"http://127.0.0.1:{free_port()}"))
        refused = await refusal(remote, Job(CHECKPOINT, ("Hello",)))
        assert (type(refused), refused.reason) == (Unavailable, "engine.away")
        with pytest.raises(Unavailable):
            await remote.state()

    run(experiment())


def test_loading_is_told_with_when_to_come_again() -> None:
    async def experiment() -> None:
        engine = SmallEngine(load_seconds=0.4)
        async with by_socket(engine) as remote:
            refused = await refusal(remote, Job(CHECKPOINT, ("Hello",)))
            assert (type(refused), refused.reason) == (Unavailable, "engine.loading")
            assert refused.retry_after >= 1  # type: ignore[attr-defined]
            [model] = (await remote.state()).models
            assert model.state == "loading"
            assert 0 <= model.progress < 1
            await asyncio.sleep(0.5)
            assert (await collect(remote, Job(CHECKPOINT, ("Hello",)))).texts[0]

    run(experiment())


def test_closing_closes_the_connection_at_once() -> None:
    async def experiment() -> None:
        engine = SmallEngine(step=0.02)
        async with by_socket(engine) as remote:
            events = remote.generate(Job(CHECKPOINT, ("Hello",), max_tokens=400))
            async for event in events:
                if isinstance(event, Piece):
                    break
            await events.aclose()
            before = engine.steps
            await idle(engine, within=0.5)
            assert engine.steps <= before + 2  # within one token, and one under way
            assert engine.stopped_early == 1

    run(experiment())


def test_a_client_that_leaves_the_queue_frees_its_place() -> None:
    async def experiment() -> None:
        engine = SmallEngine(step=0.01, most_running=1, most_waiting=4)
        async with by_socket(engine) as remote:
            running = remote.generate(Job(CHECKPOINT, ("Hello",), max_tokens=400))
            assert isinstance(await anext(running), Admitted)
            queued = asyncio.ensure_future(collect(remote, Job(CHECKPOINT, ("Hello",))))
            while (await remote.state()).waiting == 0:
                await asyncio.sleep(0.01)
            queued.cancel()
            with suppress(asyncio.CancelledError):
                await queued
            while (await remote.state()).waiting:
                await asyncio.sleep(0.01)
            await running.aclose()

    run(experiment())


def test_a_drained_stream_ends_with_a_reason() -> None:
    async def experiment() -> None:
        engine = SmallEngine(step=0.02, grace=0.1)
        async with by_socket(engine) as remote:
            with pytest.raises(Unavailable) as ended:
                async for event in remote.generate(Job(CHECKPOINT, ("Hello",), max_tokens=400)):
                    if isinstance(event, Piece) and not engine.draining:
                        closing = asyncio.ensure_future(engine.close())
            assert ended.value.reason == "engine.draining"
            await closing

    run(experiment())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\ndata:",
        b"HTTP/1.1 200 OK\r\n\r\ndata: {not json\n\n",
        b"HTTP/1.1 200 OK\r\n\r\ndata: [1]\n\n",
        b'HTTP/1.1 200 OK\r\n\r\ndata: {"choices":[{}]}\n\n',
        b'HTTP/1.1 200 OK\r\n\r\ndata: {"choices":7}\n\n',
        b"HTTP/1.1 200 OK\r\n\r\n<html>\n\n",
        b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\nOops",
        b"HTTP/1.1 418 \r\ncontent-length: 2\r\n\r\n[]",
        b"SMTP ready\r\n",
        b"",
    ],
    ids=range(11),
)
def test_a_server_that_talks_nonsense_is_away(answer: bytes) -> None:
    async def experiment() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            writer.close()

        port = free_port()
        async with await asyncio.start_server(talk, "127.0.0.1", port):
            remote = RemoteEngine(Where.of(f"http://127.0.0.1:{port}"))
            refused = await refusal(remote, Job(CHECKPOINT, ("Hello",)))
            assert (type(refused), refused.reason) == (Unavailable, "engine.away")

    run(experiment())


def test_who_waits_in_the_queue_hears_nothing_for_as_long_as_a_request_may_run() -> None:
    async def experiment() -> None:
        engine = SmallEngine(step=0.01, most_running=1, most_waiting=4)
        job = Job(CHECKPOINT, ("Hello",), max_tokens=100, sampling=ENDLESS)
        async with by_socket(engine) as remote:
            remote.where = replace(remote.where, patience=0.5)
            both = await asyncio.gather(
                collect(remote, job), collect(remote, job), return_exceptions=True
            )
            assert [isinstance(one, Unavailable) for one in both].count(True) == 1
            settings = Settings(inference_url=f"unix:{remote.where.socket}", inference_longest=900)
            assert build_remote_engine(settings).where.patience > 900

    run(experiment())


def test_a_process_that_says_nothing_of_its_state_is_away_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote_module, "STATE", 0.2)

    async def experiment() -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            remote = RemoteEngine(Where.of(f"http://127.0.0.1:{silent.getsockname()[1]}"))
            async with asyncio.timeout(2):
                with pytest.raises(Unavailable):
                    await remote.state()
            await remote.close()

    run(experiment())


# --- our server, asked by others ----------------------------------------------------------------


def ask(body: Any, path: str = "/v1/completions", *, raw: bytes | None = None) -> httpx.Response:
    async def experiment() -> httpx.Response:
        async with by_socket(SmallEngine()) as remote:
            transport = httpx.AsyncHTTPTransport(uds=str(remote.where.socket))
            async with httpx.AsyncClient(base_url="http://infer", transport=transport) as client:
                first = Job(CHECKPOINT, ("Hello",))
                await collect(remote, first)  # so that the model is known by its name
                content = raw if raw is not None else json.dumps(body).encode()
                return await client.post(path, content=content)

    return asyncio.run(experiment())


def test_a_plain_openai_body_is_answered_whole() -> None:
    answer = ask(
        {
            "model": CHECKPOINT.commit,
            "prompt": ["Hello", "In a"],
            "n": 2,
            "seed": 1,
            "logprobs": 2,
            "max_tokens": 6,
            "user": "somebody",
        }
    )
    assert answer.status_code == 200
    document = answer.json()
    assert document["object"] == "text_completion"
    assert [c["index"] for c in document["choices"]] == [0, 1, 2, 3]
    for choice in document["choices"]:
        assert choice["finish_reason"] in ("stop", "length")
        assert len(choice["logprobs"]["tokens"]) == len(choice["logprobs"]["text_offset"])
    usage = document["usage"]
    assert usage["prompt_tokens"] == 9
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"model": "nobody/knows@this", "prompt": "x"}, 404, "model_not_found"),
        ({"model": "a" * 40, "prompt": ""}, 400, "engine.empty"),
        ({"model": "a" * 40, "prompt": []}, 400, "engine.empty"),
        ({"model": "a" * 40, "prompt": [999]}, 400, "engine.token"),
        ({"model": "a" * 40, "prompt": "x", "logit_bias": {"x": 1}}, 400, "engine.token"),
        ({"model": "a" * 40, "prompt": "x", "temperature": -1}, 400, "engine.parameter"),
        ({"model": "a" * 40, "prompt": "x", "n": True}, 400, "engine.parameter"),
        ({"model": "a" * 40, "prompt": "x" * 600}, 400, "engine.context"),
        ([], 400, "engine.parameter"),
    ],
)
def test_refusals_have_openai_shape(body: Any, status: int, code: str) -> None:
    answer = ask(body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[" * 100_000, b'{"model":NaN}', b"\xff\xfe", b" " * (17 << 20)]
)
def test_bodies_that_are_none_are_refused(raw: bytes) -> None:
    assert ask(None, raw=raw).status_code == 400


def test_metrics_tell_what_was_done() -> None:
    async def experiment() -> None:
        async with by_socket(SmallEngine()) as remote:
            await collect(remote, Job(CHECKPOINT, ("Hello",), max_tokens=8))
            await remote.score(CHECKPOINT, ["Hello"])
            async with remote.ask(None, path="/metrics") as answer:
                page = (await answer.aread()).decode()
        assert 'stagerelease_inference_requests_total{outcome="completed"} 1.0' in page
        assert 'stagerelease_inference_tokens_total{kind="prompt"} 5.0' in page
        assert 'stagerelease_inference_tokens_total{kind="scored"} 5.0' in page
        assert "stagerelease_inference_first_token_seconds_bucket" in page
        assert 'stagerelease_inference_now{what="running"} 0.0' in page
        assert 'stagerelease_inference_now{what="steps"} 8.0' in page

    run(experiment())


# --- foreign servers ----------------------------------------------------------------------------


@asynccontextmanager
async def by_foreign(engine: SmallEngine, dialect: str) -> AsyncIterator[RemoteEngine]:
    app = foreign_app(engine, CHECKPOINT, vllm=dialect == "vllm")
    async with asked_at(app, dialect) as remote:
        yield remote


@asynccontextmanager
async def asked_at(app: Starlette, dialect: str) -> AsyncIterator[RemoteEngine]:
    port = free_port()
    config = uvicorn.Config(app, lifespan="off", log_level="warning")
    server = uvicorn.Server(config)
    task = asyncio.ensure_future(server._serve([bind_tcp("127.0.0.1", port)]))
    while not server.started:
        await asyncio.sleep(0.005)
    where = Where.of(
        f"http://127.0.0.1:{port}/v1", dialect=dialect, models={"acme/small": "served-name"}
    )
    remote = RemoteEngine(where)
    yield remote
    await remote.close()
    server.should_exit = True
    await task


class Foreign(EngineConformance):
    """What can be asked of servers that are not ours."""

    dialect: str

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Subject]:
        engine = SmallEngine(step=0.0005)

        @asynccontextmanager
        async def little_room() -> AsyncIterator[Engine]:
            small = SmallEngine(step=0.002, most_running=2, most_waiting=2)
            async with by_foreign(small, cls.dialect) as remote:
                yield remote

        async with by_foreign(engine, cls.dialect) as remote:
            yield Subject(
                remote, CHECKPOINT, engine.context, VOCABULARY, 0xC3, little_room, exact=False
            )
            await idle(engine)


class TestVllm(Foreign):
    dialect = "vllm"


class TestOpenAi(Foreign):
    dialect = "openai"

    def test_logprobs_are_of_the_model_and_add_up(self, lab) -> None:  # no top_k here
        async def experiment(s: Subject) -> None:
            job = s.job(sampling=Sampling(top_k=3))
            refused = await refusal(s.engine, job)
            assert (refused.reason, "top_k" in refused.sentence) == ("engine.parameter", True)

        lab.run(experiment)


def test_vllm_tells_numbers_and_ranks() -> None:
    async def experiment() -> None:
        async with by_foreign(SmallEngine(), "vllm") as remote:
            answer = await collect(remote, Job(CHECKPOINT, ("Où",), logprobs=2, max_tokens=4))
            assert answer.admitted.prompt_tokens == (3,)
            assert all(token.id >= 0 for token in answer.tokens[0])
            [scored] = await remote.score(CHECKPOINT, ["In a shocking"], top=3)
            [ours] = await SmallEngine().score(CHECKPOINT, ["In a shocking"], top=3)
            assert [(t.id, t.logprob, t.rank) for t in scored] == [
                (t.id, t.logprob, t.rank) for t in ours
            ]

    run(experiment())


def test_what_another_server_cannot_tell_is_left_open() -> None:
    async def experiment() -> None:
        async with by_foreign(SmallEngine(), "openai") as remote:
            answer = await collect(remote, Job(CHECKPOINT, ("Où",), logprobs=2, max_tokens=4))
            assert {token.id for token in answer.tokens[0]} == {-1}
            assert answer.admitted.prompt_tokens == (3,)  # one a byte: never too few
            [scored] = await remote.score(CHECKPOINT, ["In a shocking"], top=3)
            assert all(t.rank is None or t.rank < 3 for t in scored)
            assert len(scored) == len("In a shocking")

    run(experiment())


def test_a_model_the_other_server_lacks_is_refused() -> None:
    async def experiment() -> None:
        async with by_foreign(SmallEngine(), "openai") as remote:
            other = Checkpoint("b" * 40, "acme/other", CHECKPOINT.files)
            assert (await refusal(remote, Job(other, ("x",)))).reason == "engine.model"
            with pytest.raises(Invalid):
                await remote.score(other, ["x"])

    run(experiment())


def test_what_keeps_callers_apart_is_left_out_where_it_is_not_known() -> None:
    """Every request of the house names its caller; another server computes each by itself."""

    async def experiment() -> None:
        job = Job(CHECKPOINT, ("Hello",), max_tokens=3, cache_salt="a grant")
        for dialect in ("openai", "vllm"):
            async with by_foreign(SmallEngine(), dialect) as remote:
                assert (await collect(remote, job)).ends[0].completion_tokens <= 3
        said = foreign._body(job, 0, model="m", vllm=True)
        assert said["cache_salt"] == "a grant"
        assert "cache_salt" not in foreign._body(job, 0, model="m", vllm=False)

    run(experiment())


@pytest.mark.parametrize("dialect", ["openai", "vllm"])
def test_another_server_counts_tokens_while_they_come(dialect: str) -> None:
    async def experiment() -> None:
        job = Job(CHECKPOINT, ("Hello",), max_tokens=20, sampling=ENDLESS)
        async with by_foreign(SmallEngine(), dialect) as remote:
            answer = await collect(remote, job)
            assert answer.ends[0].completion_tokens == 20
            assert 10 < answer.told(0) <= 20  # a piece stands for one where nothing is told
            held = await collect(remote, replace(job, sampling=A, stop=["a" * 30]))
            assert held.told(0) == (20 if dialect == "vllm" else 1)

    run(experiment())


@pytest.mark.parametrize(
    "chunk",
    [
        b'{"choices":[null]}',
        b'{"choices":"x"}',
        b'{"choices":[{"text":5}]}',
        b'{"choices":[{"text":"a","logprobs":3}]}',
        b'{"choices":[{"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[NaN]}}]}',
        b'{"choices":[{"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[1e999]}}]}',
        b'{"choices":[],"usage":{"completion_tokens":"many"}}',
        b'{"choices":[],"usage":7}',
        b"[" * 100_000,
    ],
    ids=range(9),
)
@pytest.mark.parametrize("dialect", ["openai", "vllm"])
def test_another_server_that_talks_nonsense_is_away(chunk: bytes, dialect: str) -> None:
    async def completions(request: Request) -> Response:
        asked = await request.json()
        if not asked.get("stream"):
            return Response(chunk)
        return Response(b"data: " + chunk + b"\n\ndata: [DONE]\n\n")

    async def tokenize(request: Request) -> Response:
        return Response(b'{"count": 5}')

    routes = [
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/tokenize", tokenize, methods=["POST"]),
    ]

    async def experiment() -> None:
        async with asked_at(Starlette(routes=routes), dialect) as remote, asyncio.timeout(5):
            with pytest.raises(Unavailable) as broken:
                await collect(remote, Job(CHECKPOINT, ("Hello",), logprobs=1))
            assert broken.value.reason == "engine.away"
            with pytest.raises(DomainError):
                await remote.score(CHECKPOINT, ["Hello"])

    run(experiment())


@pytest.mark.parametrize("count", [b"{}", b'{"count":"x"}', b'{"count":1e999}', b"[]", b"x"])
def test_another_server_that_cannot_count_is_away(count: bytes) -> None:
    async def tokenize(request: Request) -> Response:
        return Response(count)

    async def experiment() -> None:
        app = Starlette(routes=[Route("/tokenize", tokenize, methods=["POST"])])
        async with asked_at(app, "vllm") as remote:
            assert (await refusal(remote, Job(CHECKPOINT, ("Hello",)))).reason == "engine.away"

    run(experiment())


VLLM = os.environ.get("VLLM_URL")


@pytest.mark.skipif(not VLLM, reason="VLLM_URL names no running vLLM (make bench-vllm starts one)")
def test_a_real_vllm() -> None:
    """Opt-in: VLLM_URL=http://127.0.0.1:8001 VLLM_MODEL=name, with any GPT-2 behind it.

    VLLM_KEY_FILE names the file with its secret, if it asks for one.
    """

    async def experiment() -> None:
        name = os.environ.get("VLLM_MODEL", "gpt2")
        key = os.environ.get("VLLM_KEY_FILE")
        secret = Path(key).read_text() if key else None
        where = Where.of(str(VLLM), dialect="vllm", models={"acme/small": name}, secret=secret)
        remote = RemoteEngine(where)
        job = Job(CHECKPOINT, ("Hello",), n=2, max_tokens=8, logprobs=2, sampling=Sampling(seed=1))
        once, again = await collect(remote, job), await collect(remote, job)
        assert once.texts == again.texts
        assert once.ends[0].completion_tokens == 8
        [scored] = await remote.score(CHECKPOINT, ["Hello there"], top=3)
        assert scored[0].logprob is None
        assert all(t.rank is not None for t in scored[1:])
        async with aclosing(remote.generate(Job(CHECKPOINT, ("Hello",), max_tokens=500))) as events:
            async for event in events:
                if isinstance(event, Piece):
                    break
        await remote.close()

    run(experiment())

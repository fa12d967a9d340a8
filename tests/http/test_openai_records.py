"""What is recorded and counted, whoever goes meanwhile and whatever fails: over a live server."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from test_openai_gate import body, engine_of, idle, rows, settled, slow, strict

from browsing import browser
from live import World
from stagerelease.http.openai import recording, running
from stagerelease.inference import admitting
from stagerelease.inference import service as inference
from stagerelease.inference.tables import InferenceMeter
from stagerelease.kernel.errors import Unavailable

__all__ = ["strict"]  # a fixture


def counted(world: World) -> int:
    """Return the tokens that today's windows hold, of every holder together."""
    with world.box.works.begin(read_only=True) as work:
        return sum(meter.day_tokens for meter in work.session.query(InferenceMeter))


# --- the record ---------------------------------------------------------------------------------


def test_a_client_that_goes_at_the_last_token_is_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has what they want hangs up while the record is being written."""
    real = inference.finish

    def slowly(*args: Any, **more: Any) -> None:
        time.sleep(0.2)
        real(*args, **more)

    monkeypatch.setattr(inference, "finish", slowly)
    client = openai.OpenAI(
        base_url=f"{world.base_url}/v1", api_key=world.tokens["partner"], max_retries=0
    )
    for _ in range(4):
        with client.completions.create(**body(world, stream=True, max_tokens=3)) as stream:
            for chunk in stream:
                if chunk.choices[0].finish_reason:
                    break
    ended = settled(world, 4)
    assert [(row.outcome, row.completion_tokens) for row in ended] == [("completed", 3)] * 4
    assert counted(world) == 4 * (4 + 3)


def test_what_is_wrong_with_a_body_is_seen_before_anything_is_reserved(world: World) -> None:
    chat = {"model": world.repos["partner"], "messages": [{"role": "user", "content": "x"}]}
    with world.client("partner") as http:
        for path, given in (("completions", body(world)), ("chat/completions", chat)):
            answer = http.post(f"/v1/{path}", json=given | {"logit_bias": {"e": 1}})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "logit_bias")
    assert rows(world) == []


def failing(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Make the database fail as often as that when an end is to be recorded."""
    real, calls = inference.finish, []

    def sometimes(*args: Any, **more: Any) -> None:
        calls.append(1)
        if len(calls) <= times:
            raise Unavailable("The database did not answer in time.")
        real(*args, **more)

    monkeypatch.setattr(inference, "finish", sometimes)
    return calls


def test_a_record_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = failing(monkeypatch, 2)
    with world.client("partner") as http:
        answer = http.post("/v1/completions", json=body(world, max_tokens=5))
    assert answer.status_code == 200
    assert (settled(world)[0].completion_tokens, len(calls)) == (5, 3)


def test_no_result_is_lost_to_its_record(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A score that is computed is answered, also while the database is away for longer."""
    monkeypatch.setattr(recording, "PATIENCE", 0.3)
    failing(monkeypatch, 3)
    began = time.monotonic()
    with world.client("partner") as http:
        answer = http.post(
            "/v1/score", json={"model": world.repos["partner"], "texts": ["In a shocking"]}
        )
    assert answer.status_code == 200
    assert time.monotonic() - began < 2
    assert settled(world)[0].prompt_tokens == 13


# --- what is counted when nobody waits for the end ----------------------------------------------


def test_a_score_that_is_abandoned_counts_as_reserved(world: World) -> None:
    """How far an engine has come with a score it does not tell."""

    async def slowly(*args: Any, **more: Any) -> Any:
        await asyncio.sleep(30)

    engine_of(world).score = slowly  # type: ignore[method-assign]
    with world.client("partner") as http, pytest.raises(httpx.ReadTimeout):
        http.post(
            "/v1/score",
            json={"model": world.repos["partner"], "texts": ["In a shocking"] * 2},
            timeout=0.5,
        )
    [row] = settled(world)
    assert (row.outcome, row.prompt_tokens) == ("client_left", 26)
    assert counted(world) == row.reserved_tokens == 26


def test_a_score_that_is_refused_counts_nothing(world: World) -> None:
    with world.client("partner") as http:
        texts = ["x" * 600]  # more than the small engine holds
        answer = http.post("/v1/score", json={"model": world.repos["partner"], "texts": texts})
    assert answer.status_code == 400
    assert (settled(world)[0].outcome, counted(world)) == ("engine.context", 0)


def test_a_form_that_is_abandoned_counts_what_was_computed(world: World) -> None:
    engine = slow(world, 0.02)
    with browser(world, "partner") as http, pytest.raises(httpx.ReadTimeout):
        http.post(
            "/playground",
            data={"prompt": "In a", "model": world.repos["partner"], "length": "300"},
            timeout=1.0,
        )
    idle(engine)
    [row] = settled(world)
    assert (row.outcome, row.prompt_tokens) == ("client_left", 4)
    assert 0 < row.completion_tokens <= engine.steps
    assert counted(world) == 4 + row.completion_tokens


def test_tokens_behind_a_stop_text_count(world: World) -> None:
    """Text that may begin a stop is held back; it has been computed all the same."""
    engine = slow(world, 0.01)
    held = body(world, logit_bias={"97": 100}, stop="a" * 401)
    with world.client("partner") as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/completions", json=held, timeout=1.0)
    idle(engine)
    [row] = settled(world)
    assert abs(row.completion_tokens - engine.steps) <= 1 < row.completion_tokens


def test_of_who_takes_nothing_everything_counts(
    strict: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an engine computes ahead of them is not seen here; it may be all they asked for."""
    monkeypatch.setattr(running, "BEHIND", 0.2)
    asked = json.dumps(body(strict, stream=True, n=64, logprobs=20)).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        f"{strict.tokens['partner']}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(asked)}\r\n\r\n"
    )
    host = urlsplit(strict.base_url)
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect((host.hostname, host.port))
        reader.sendall(head.encode() + asked)
        [row] = settled(strict, seconds=60)
    assert row.outcome == "stalled"
    assert row.prompt_tokens + row.completion_tokens == row.reserved_tokens == counted(strict)


# --- what is told -------------------------------------------------------------------------------


def test_a_refusal_after_the_permit_says_whether_prompts_are_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admitting, "prompts_are_kept", lambda *_: True)
    model = world.repos["partner"]
    with world.client("partner") as http:
        answers = [
            http.post("/v1/completions", json=body(world, prompt="x" * 600)),
            http.post("/v1/score", json={"model": model, "texts": ["x" * 600]}),
        ]
    for answer in answers:
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert answer.headers["x-stagerelease-prompt-logging"] == "on"
        assert answer.headers["x-stagerelease-request"].startswith("inf_")


def test_many_who_go_at_once_leave_nothing_reserved(world: World) -> None:
    slow(world, 0.001)
    asked = body(world, stream=True, max_tokens=3)

    def ask_and_go() -> None:
        with (
            world.client("partner") as http,
            http.stream("POST", "/v1/completions", json=asked) as answer,
        ):
            for line in answer.iter_lines():
                if '"finish_reason":"length"' in line:
                    return

    for _ in range(3):
        threads = [threading.Thread(target=ask_and_go) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert len(settled(world, 24)) == 24

"""What ends a generation, and what is recorded of it: over a live server, with a real engine.

The small engine is slowed down, so that there is a middle of a stream to be ended in.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from sqlalchemy import select

from live import World, serve_in_thread
from small_engine import END, SmallEngine
from stagerelease.engine.remote import RemoteEngine, Where
from stagerelease.entitlements import service as entitlements
from stagerelease.identity import service as identity
from stagerelease.inference.tables import InferenceRequest
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import Unavailable
from stagerelease.ledger.tables import LogPending
from stagerelease.partners import queries as partner_queries
from stagerelease.partners import service as partners
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service

WITHIN = 2.0
"""Seconds in which a hold ends what runs."""


def engine_of(world: World) -> SmallEngine:
    engine = world.box.engine
    assert isinstance(engine, SmallEngine)
    return engine


def slow(world: World, step: float = 0.02) -> SmallEngine:
    engine = engine_of(world)
    engine.step = step
    return engine


def body(world: World, **changes: Any) -> dict[str, Any]:
    """Return a request for a text that never ends by itself."""
    given = {"model": world.repos["partner"], "prompt": "In a", "max_tokens": 400}
    return given | {"logit_bias": {str(END): -100}} | changes


def rows(world: World) -> list[InferenceRequest]:
    with world.box.works.begin(read_only=True) as work:
        found = list(work.session.execute(select(InferenceRequest)).scalars())
        work.session.expunge_all()
    return sorted(found, key=lambda row: row.id)


def settled(world: World, count: int = 1, *, seconds: float = 5) -> list[InferenceRequest]:
    """Return the records once ``count`` requests have ended."""
    deadline = time.monotonic() + seconds
    while True:
        found = [row for row in rows(world) if row.ended_at is not None]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, f"{len(found)} of {count} have ended"
        time.sleep(0.02)


def idle(engine: SmallEngine) -> None:
    deadline = time.monotonic() + 2
    while engine.running or engine.waiting:
        assert time.monotonic() < deadline, "something still runs"
        time.sleep(0.01)


def track_of(world: World, stage: str = "partner") -> str:
    with world.box.works.begin(read_only=True) as work:
        return next(t.id for t in releases.list_tracks(work) if t.repo_id == world.repos[stage])


# --- what ends it -------------------------------------------------------------------------------


def hold(world: World) -> None:
    with world.box.works.begin(world.actor("security")) as work:
        release_service.lay_hold(
            work,
            scope="track",
            scope_id=track_of(world),
            reason="Found elsewhere.",
            public_reason="A copy was found.",
        )


def suspend(world: World) -> None:
    with world.box.works.begin(world.actor("security")) as work:
        [grant] = partner_queries.list_grants(work, track_id=track_of(world))
        partners.suspend_grant(work, grant.id, reason="Looked into.")


def withdraw(world: World) -> None:
    with world.box.works.begin(world.actor("release_manager")) as work:
        entitlements.withdraw(work, track_of(world), reason="Over.")


def revoke_token(world: World) -> None:
    with world.box.works.begin(OPERATOR) as work:
        identity.revoke_token(work, str(world.actor("partner").token_id))


ENDS: list[tuple[Callable[[World], None], str]] = [
    (hold, "held"),
    (suspend, "grant.suspended"),
    (withdraw, "withdrawn"),
    (revoke_token, "invalid_api_key"),
]


@pytest.mark.parametrize(("end", "code"), ENDS, ids=[code for _, code in ENDS])
def test_a_stream_ends_within_two_seconds_and_says_why(
    world: World, end: Callable[[World], None], code: str
) -> None:
    engine = slow(world)
    documents: list[Any] = []
    with (
        world.client("partner") as http,
        http.stream("POST", "/v1/completions", json=body(world, stream=True)) as answer,
    ):
        began = 0.0
        for line in answer.iter_lines():
            if not line:
                continue
            documents.append(json.loads(line.removeprefix("data: ")))
            if len(documents) == 3:
                end(world)
                began = time.monotonic()
    assert time.monotonic() - began < WITHIN
    error = documents[-1]["error"]
    assert (error["code"], set(error) >= {"message", "type", "param"}) == (code, True)
    assert all("choices" in d for d in documents[:-1])
    idle(engine)
    [row] = settled(world)
    assert row.outcome == "cut"
    assert 0 < row.completion_tokens < 400
    with world.client("partner") as http:
        again = http.post("/v1/completions", json=body(world))
    assert again.status_code in (401, 403)


def test_the_client_sees_the_last_event_as_an_error(world: World) -> None:
    slow(world)
    client = openai.OpenAI(
        base_url=f"{world.base_url}/v1", api_key=world.tokens["partner"], max_retries=0
    )
    seen = 0
    with pytest.raises(openai.APIError, match="on hold: A copy was found"):
        for _ in client.completions.create(**body(world, stream=True)):
            seen += 1
            if seen == 3:
                hold(world)
    assert seen >= 3


def test_an_answer_that_is_not_streamed_is_refused_in_its_middle(world: World) -> None:
    engine = slow(world)
    threading.Timer(0.5, hold, [world]).start()
    with world.client("partner") as http:
        answer = http.post("/v1/completions", json=body(world))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "held")
    idle(engine)
    assert settled(world)[0].outcome == "cut"


def test_a_score_is_refused_in_its_middle(world: World) -> None:
    engine = engine_of(world)

    async def slowly(*args: Any, **options: Any) -> Any:
        import asyncio

        await asyncio.sleep(30)

    engine.score = slowly  # type: ignore[method-assign]
    threading.Timer(0.3, hold, [world]).start()
    with world.client("partner") as http:
        answer = http.post(
            "/v1/score", json={"model": world.repos["partner"], "texts": ["In a shocking"]}
        )
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "held")
    assert settled(world)[0].outcome == "cut"


def test_one_hold_ends_only_what_it_covers(world: World) -> None:
    slow(world, 0.005)
    answers: dict[str, str] = {}

    def run(who: str, stage: str) -> None:
        with world.client(who) as http:
            answer = http.post(
                "/v1/completions",
                json=body(world, model=world.repos[stage], stream=True, max_tokens=200),
            )
        answers[stage] = answer.text

    threads = [
        threading.Thread(target=run, args=pair)
        for pair in (("partner", "partner"), ("partner", "public"), ("researcher", "researcher"))
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.4)
    hold(world)
    for thread in threads:
        thread.join(20)
    assert '"held"' in answers["partner"]
    assert answers["public"].endswith("data: [DONE]\n\n")
    assert answers["researcher"].endswith("data: [DONE]\n\n")


def test_hanging_up_stops_the_work_within_a_token(world: World) -> None:
    engine = slow(world, 0.05)
    with (
        world.client("partner") as http,
        http.stream("POST", "/v1/completions", json=body(world, stream=True, n=4)) as answer,
    ):
        for _, _line in zip(range(6), answer.iter_lines(), strict=False):
            pass
    steps = engine.steps
    idle(engine)
    assert engine.steps <= steps + 2  # the one under way, and the one it takes to hear of it
    [row] = settled(world)
    assert (row.outcome, row.sequences) == ("client_left", 4)
    assert 0 < row.completion_tokens < 40


def test_hanging_up_before_a_whole_answer_stops_the_work(world: World) -> None:
    engine = slow(world, 0.05)
    with world.client("partner") as http, pytest.raises(httpx.ReadTimeout):
        http.post("/v1/completions", json=body(world), timeout=0.5)
    idle(engine)
    assert settled(world)[0].outcome == "client_left"


# --- slow readers, floods, time -----------------------------------------------------------------


@pytest.fixture
def strict(world: World, request: pytest.FixtureRequest) -> Iterator[World]:
    """The same world behind a second server with short patience and little room."""
    changes = {
        "inference_stall": 0.5,
        "inference_longest": getattr(request, "param", 100),
        "inference_sequences": 128,
        "inference_tokens_per_minute": 10**6,
    }
    settings = world.box.settings.model_copy(update=changes)
    box = type(world.box)(
        settings=settings,
        works=world.box.works,
        blobs=world.box.blobs,
        signer=world.box.signer,
        link_key=world.box.link_key,
        engine=SmallEngine(most_running=64, most_waiting=64),
    )
    live, stop = serve_in_thread(box)
    yield World(live.base_url, box, world.clock, world.repos, world.tokens)
    stop()


def test_who_reads_nothing_is_stopped_and_harms_nobody(strict: World) -> None:
    host = urlsplit(strict.base_url)
    asked = json.dumps(body(strict, stream=True, n=64, logprobs=20)).encode()
    request = (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "
        f"{strict.tokens['partner']}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(asked)}\r\n\r\n"
    ).encode() + asked
    with socket.socket() as slow_reader:
        slow_reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow_reader.connect((host.hostname, host.port))
        slow_reader.sendall(request)
        [row] = settled(strict, seconds=60)
        assert row.outcome == "stalled"
        idle(engine_of(strict))
        with strict.client("partner") as http:
            assert http.post("/v1/completions", json=body(strict, max_tokens=4)).status_code == 200


@pytest.mark.parametrize("strict", [2], indirect=True)
def test_what_takes_too_long_ends_with_a_reason(strict: World) -> None:
    slow(strict, 0.05)
    with strict.client("partner") as http:
        streamed = http.post("/v1/completions", json=body(strict, stream=True))
        whole = http.post("/v1/completions", json=body(strict))
    assert json.loads(streamed.text.strip().split("\n")[-1][6:])["error"]["code"] == "timeout"
    assert (whole.status_code, whole.json()["error"]["code"]) == (503, "timeout")
    assert {row.outcome for row in settled(strict, 2)} == {"timeout"}


def test_a_flood_is_told_when_to_come_again(strict: World) -> None:
    strict.box.engine.most_running = strict.box.engine.most_waiting = 2  # type: ignore[attr-defined]
    slow(strict, 0.005)
    answers: list[httpx.Response] = []

    def ask() -> None:
        with strict.client("partner") as http:
            answers.append(http.post("/v1/completions", json=body(strict, max_tokens=40, seed=1)))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    statuses = sorted(a.status_code for a in answers)
    assert set(statuses) == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert answer.json()["error"]["code"] == "engine.full"
            assert int(answer.headers["retry-after"]) >= 1
    texts = {a.json()["choices"][0]["text"] for a in answers if a.status_code == 200}
    assert len(texts) == 1
    used = sum(row.prompt_tokens for row in settled(strict, 12))
    assert used == 4 * statuses.count(200)  # who was refused used nothing


# --- quotas -------------------------------------------------------------------------------------


def test_a_spent_quota_says_until_when(world: World) -> None:
    client = openai.OpenAI(
        base_url=f"{world.base_url}/v1", api_key=world.tokens["partner"], max_retries=0
    )
    with world.box.works.begin(world.actor("access_officer")) as work:
        [grant] = partner_queries.list_grants(work, track_id=track_of(world))
    with world.client("access_officer") as http:
        set_ = http.put(
            f"/api/v1/grants/{grant.id}/inference-limits",
            json={"reason": "A trial.", "tokens_per_minute": 30, "max_tokens": 20},
        )
    assert set_.status_code == 200, set_.text
    client.completions.create(**body(world, max_tokens=20))
    with pytest.raises(openai.RateLimitError) as refused:
        client.completions.create(**body(world, max_tokens=20))
    assert refused.value.code == "quota.tokens-minute"
    headers = refused.value.response.headers
    assert headers["retry-after"] == "60"
    assert headers["x-ratelimit-limit-tokens"] == "30"
    assert headers["x-ratelimit-remaining-tokens"] == "6"
    with pytest.raises(openai.BadRequestError, match="your quota is 20"):
        client.completions.create(**body(world, max_tokens=21))
    world.clock.move(timedelta(minutes=1))
    client.completions.create(**body(world, max_tokens=20))


def test_who_has_an_answer_may_ask_again_at_once(world: World) -> None:
    """The quota is free before the last byte leaves, whichever way the answer is sent."""
    with world.client("partner") as http:
        for number in range(12):
            stream = number % 2 == 0
            asked = body(world, n=16, max_tokens=2, stream=stream)
            answer = http.post("/v1/completions", json=asked)
            assert answer.status_code == 200, answer.text


def test_what_is_refused_by_the_engine_costs_nothing(world: World) -> None:
    with world.client("partner") as http:
        for _ in range(3):
            assert (
                http.post("/v1/completions", json=body(world, prompt="x" * 600)).status_code == 400
            )
        fine = http.post("/v1/completions", json=body(world, max_tokens=1))
    assert int(fine.headers["x-ratelimit-remaining-tokens"]) == 40_000 - 4 - 1
    assert [row.outcome for row in settled(world, 4)].count("engine.context") == 3


# --- the other process --------------------------------------------------------------------------


def test_an_engine_that_is_away_is_said_so(world: World) -> None:
    box = type(world.box)(
        settings=world.box.settings,
        works=world.box.works,
        blobs=world.box.blobs,
        signer=world.box.signer,
        link_key=world.box.link_key,
        engine=RemoteEngine(Where.of("http://127.0.0.1:9")),
    )
    live, stop = serve_in_thread(box)
    try:
        with httpx.Client(
            base_url=live.base_url, headers={"Authorization": f"Bearer {world.tokens['partner']}"}
        ) as http:
            answer = http.post("/v1/completions", json=body(world))
            models = http.get("/v1/models").json()["data"]
    finally:
        stop()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine.away")
    assert answer.headers["retry-after"] == "5"
    assert {m["stagerelease"]["state"] for m in models} == {"away"}


@pytest.mark.parametrize(
    "broken", [Unavailable("It died.", reason="engine.away"), ValueError("bug")]
)
def test_a_stream_that_breaks_says_so_last(world: World, broken: Exception) -> None:
    engine = engine_of(world)
    real = engine._advance

    def advance(model: Any, job: Any, line: Any) -> Any:
        if len(line.ids) > line.prompt + 5:
            raise broken
        return real(model, job, line)

    engine._advance = advance  # type: ignore[method-assign]
    with world.client("partner") as http:
        answer = http.post("/v1/completions", json=body(world, stream=True))
        whole = http.post("/v1/completions", json=body(world))
    last = json.loads(answer.text.strip().split("\n")[-1][6:])
    code = "engine.away" if isinstance(broken, Unavailable) else "bug"
    assert last["error"]["code"] == code
    assert "[DONE]" not in answer.text
    assert (whole.status_code, whole.json()["error"]["code"]) == (503, code)
    settled(world, 2)
    assert "It is a secret" not in answer.text


# --- what is recorded ---------------------------------------------------------------------------


def test_nothing_of_what_was_asked_or_answered_is_kept(world: World) -> None:
    secret = "A very particular secret"
    with world.client("partner") as http:
        answer = http.post(
            "/v1/completions", json=body(world, prompt=secret, max_tokens=30, seed=5)
        )
    text = answer.json()["choices"][0]["text"]
    [row] = settled(world)
    assert (row.prompt_tokens, row.completion_tokens) == (24, 30)
    assert row.grant_id is not None
    with world.box.works.begin(read_only=True) as work:
        pending = [json.dumps(e) for e in work.session.execute(select(LogPending.event)).scalars()]
    assert any("inference.completed" in event for event in pending)
    for event in pending:
        assert secret not in event
        assert text not in event
    raw = world.box.settings.data_dir / "stagerelease.sqlite3"
    if raw.exists():
        stored = b"".join(path.read_bytes() for path in raw.parent.glob("stagerelease.sqlite3*"))
        assert secret.encode() not in stored
        assert text.encode() not in stored


def test_usage_is_told_to_those_concerned(world: World) -> None:
    with world.client("partner") as http:
        http.post("/v1/completions", json=body(world, max_tokens=5, n=2))
        http.post("/v1/completions", json=body(world, model=world.repos["public"], max_tokens=5))
    settled(world, 2)
    seen = {}
    for who in ("partner", "auditor", "outsider", "other_partner"):
        with world.client(who) as http:
            seen[who] = http.get("/api/v1/inference/usage").json()
    assert len(seen["partner"]) == len(seen["auditor"]) == 2
    assert seen["outsider"] == seen["other_partner"] == []
    assert {row["completion_tokens"] for row in seen["partner"]} == {10, 5}

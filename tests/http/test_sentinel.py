"""What watches over bodies in flight, when the database or the process is in trouble."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from test_openai_gate import WITHIN, body, hold, settled, slow

from live import World
from stagerelease.db.engine import make_engine
from stagerelease.db.work import Works
from stagerelease.http.openai import routes
from stagerelease.http.sentinel import BLIND_LIMIT, InFlight, Sentinel
from stagerelease.inference import service as inference
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import Unavailable

Answer = tuple[bool, datetime | None]


def move(works: Works) -> None:
    """Let something change that access depends on."""
    with works.begin(OPERATOR):
        pass


async def ends(
    works: Works, rechecks: list[Callable[[], Answer]], *, within: float
) -> list[float | None]:
    """Return after how many seconds each flight is cut once the epoch moves, None if it is not."""
    sentinel = Sentinel(works)
    async with sentinel.running():
        while sentinel.fresh_epoch is None:
            await asyncio.sleep(0.01)
        flights = [
            InFlight(ask, None, sentinel.fresh_epoch, asyncio.get_running_loop())
            for ask in rechecks
        ]
        for flight in flights:
            sentinel.admit(flight)
        move(works)
        began, cut = time.monotonic(), dict[InFlight, float]()
        while time.monotonic() - began < within:
            await asyncio.sleep(0.02)
            for flight in flights:
                if flight.cut.is_set():
                    cut.setdefault(flight, time.monotonic() - began)
    return [cut.get(flight) for flight in flights]


def may() -> Answer:
    return True, None


def may_not() -> Answer:
    return False, None


def break_() -> Answer:
    raise ValueError("a fault of ours")


def test_one_that_breaks_is_cut_and_leaves_the_others_their_turn(works: Works) -> None:
    # A set has no order: each of the many is behind the broken ones in some of the runs.
    found = asyncio.run(ends(works, [break_, break_, may, *[may_not] * 6], within=1.5))
    assert found[2] is None
    assert all(at is not None and at < 1 for at in [*found[:2], *found[3:]])


def test_what_cannot_be_checked_for_a_moment_goes_on(works: Works) -> None:
    tries = iter([Unavailable("The database did not answer in time."), None])

    def at_second_try() -> Answer:
        if (error := next(tries, None)) is not None:
            raise error
        return True, None

    assert asyncio.run(ends(works, [at_second_try], within=1.5)) == [None]


def test_what_cannot_be_checked_is_cut_though_the_watch_waits(works: Works) -> None:
    """An answer that does not come holds up the watch; the guard counts on."""
    let_go = threading.Event()

    def never() -> Answer:
        let_go.wait(20)
        return True, None

    threading.Timer(BLIND_LIMIT + 2.5, let_go.set).start()
    [at] = asyncio.run(ends(works, [never], within=BLIND_LIMIT + 2))
    assert at is not None


def test_what_is_known_to_be_allowed_is_not_cut(works: Works) -> None:
    assert asyncio.run(ends(works, [may] * 3, within=BLIND_LIMIT + 1)) == [None] * 3


def test_a_hold_ends_a_stream_though_every_connection_is_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that wait within their transactions have all the connections there are for them."""
    slow(world)
    real, gate, waiting = inference.list_models, threading.Event(), []

    def blocked(*given: Any) -> Any:
        waiting.append(1)
        gate.wait(20)
        return real(*given)

    monkeypatch.setattr(routes.inference, "list_models", blocked)
    url = world.box.settings.resolved_database_url
    elsewhere = Works(make_engine(url, pool_size=1), world.clock)
    held = type(world)(**{**vars(world), "box": type("Box", (), {"works": elsewhere})})
    seen: dict[str, Any] = {"text": ""}

    def stream() -> None:
        with (
            world.client("partner") as http,
            http.stream("POST", "/v1/completions", json=body(world, stream=True)) as answer,
        ):
            for line in answer.iter_lines():
                seen["text"], seen["heard"] = line or seen["text"], time.monotonic()

    def ask() -> None:
        with world.client("partner") as http:
            http.get("/v1/models", timeout=30)

    threads = [threading.Thread(target=stream)]
    threads += [threading.Thread(target=ask) for _ in range(world.box.settings.threads)]
    threads[0].start()
    time.sleep(0.3)
    for thread in threads[1:]:
        thread.start()
    while len(waiting) < world.box.settings.threads:
        time.sleep(0.01)
    hold(held)
    began = time.monotonic()
    threads[0].join(20)
    gate.set()
    for thread in threads:
        thread.join(20)
    elsewhere.engine.dispose()
    assert '"held"' in seen["text"]
    assert seen["heard"] - began < WITHIN
    settled(world)

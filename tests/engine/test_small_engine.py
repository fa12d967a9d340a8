"""The small engine that tests of the face run on keeps the port's promises itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from conformance import EngineConformance, Subject

from small_engine import VOCABULARY, SmallEngine
from stagerelease.engine.ports import Checkpoint, Engine

CHECKPOINT = Checkpoint("a" * 40, "acme/small", {"config.json": "0" * 64})


@asynccontextmanager
async def narrow() -> AsyncIterator[Engine]:
    yield SmallEngine(most_running=2, most_waiting=2, step=0.002)


class TestSmallEngine(EngineConformance):
    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Subject]:
        engine = SmallEngine(step=0.0005)
        yield Subject(engine, CHECKPOINT, engine.context, VOCABULARY, 0xC3, narrow)

"""The local engine, and the remote one in front of it, keep the port's promises on a miniature."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from conformance import EngineConformance, Lab, Subject, collect

from stagerelease.demo.world import CHECKPOINTS
from stagerelease.engine.batching import CHUNK
from stagerelease.engine.local import LocalEngine, Options
from stagerelease.engine.ports import Checkpoint, Engine
from stagerelease.engine.remote import RemoteEngine, Where
from stagerelease.engine.serving import bind_socket, server_of
from stagerelease.storage.local import LocalBlobStore

DIRECTORY = CHECKPOINTS / "gpt2-mini-124M"


def stored(blobs: LocalBlobStore) -> Checkpoint:
    files = {}
    for path in sorted(DIRECTORY.iterdir()):
        with blobs.writer() as writer:
            writer.write(path.read_bytes())
            files[path.name] = writer.commit().sha256
    return Checkpoint("b" * 40, "demo/gpt2-mini-124M", files)


def subject(engine: Engine, blobs: LocalBlobStore, checkpoint: Checkpoint) -> Subject:
    config = json.loads((DIRECTORY / "config.json").read_text())
    names = json.loads((DIRECTORY / "vocab.json").read_text())

    @asynccontextmanager
    async def narrow() -> AsyncIterator[Engine]:
        small = LocalEngine(blobs, Options(dtype="fp32", threads=1, sequences=2, queue=2))
        try:
            yield small
        finally:
            await small.close()

    return Subject(
        engine, checkpoint, config["n_positions"], config["vocab_size"], names["Ã"], narrow
    )


class Stores(EngineConformance):
    """What only engines promise that keep the beginnings they have computed."""

    def test_what_was_in_store_is_told_once_a_prompt(self, lab: Lab) -> None:
        async def experiment(s: Subject) -> None:
            job = s.job(tuple(range(5, 5 + 2 * CHUNK + 3)), max_tokens=2, n=3, cache_salt="told")
            first = await collect(s.engine, job)
            again = await collect(s.engine, job)
            assert [end.reused for end in first.ends.values()] == [0, 0, 0]
            assert {index: end.reused for index, end in again.ends.items()} == {
                0: 2 * CHUNK, 1: 0, 2: 0,
            }  # fmt: skip

        lab.run(experiment)


class TestLocalEngine(Stores):
    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Subject]:
        with tempfile.TemporaryDirectory() as room:
            blobs = LocalBlobStore(Path(room))
            engine = LocalEngine(blobs, Options(dtype="fp32", threads=1, grace=2))
            yield subject(engine, blobs, stored(blobs))
            await engine.close()


class TestLocalEngineOverASocket(Stores):
    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Subject]:
        with tempfile.TemporaryDirectory(prefix="sr-") as room:
            blobs = LocalBlobStore(Path(room))
            engine = LocalEngine(blobs, Options(dtype="fp32", threads=1, grace=2))
            server = server_of(engine, secret=None, grace=2)
            path = Path(room) / "infer.sock"
            task = asyncio.ensure_future(server._serve([bind_socket(path)]))
            while not server.started:
                await asyncio.sleep(0.005)
            remote = RemoteEngine(Where.of(f"unix:{path}"))
            yield subject(remote, blobs, stored(blobs))
            await remote.close()
            server.should_exit = True
            await task

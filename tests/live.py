"""A live server for tests: a real uvicorn on a loopback port, over the test's own database.

Import its fixtures in a conftest: ``from live import box, server, world, …``.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from databases import START, PostgresServer, copy_database, execute, free_port, once
from small_engine import SmallEngine
from stagerelease.bootstrap import Box
from stagerelease.catalog import queries as catalog
from stagerelease.catalog.tables import Blob, RevisionFile
from stagerelease.db.engine import make_engine
from stagerelease.db.migrate import upgrade
from stagerelease.db.work import Works
from stagerelease.demo import world as demo
from stagerelease.http.app import create_app
from stagerelease.identity.links import load_or_create_link_key
from stagerelease.kernel.clock import SetClock
from stagerelease.ledger.signer import load_or_create_signer
from stagerelease.settings import Settings
from stagerelease.storage.local import LocalBlobStore

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Spares each client of a plain server the reading of every root certificate (20 ms)."""


@dataclass
class LiveServer:
    """A real uvicorn on a loopback port, over the same database as ``works``."""

    base_url: str
    box: Box


class Quick(uvicorn.Server):
    """A server that notices within a hundredth of a second that it shall end."""

    async def main_loop(self) -> None:
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            await asyncio.sleep(0.01)


def serve_in_thread(box: Box) -> tuple[LiveServer, Callable[[], None]]:
    port = free_port()
    config = uvicorn.Config(
        create_app(box),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="stagerelease.http.protocol:LinkedProtocol",
        log_level="warning",
        lifespan="on",
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = Quick(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.01)

    def stop() -> None:
        server.should_exit = True
        thread.join(20)

    return LiveServer(f"http://127.0.0.1:{port}", box), stop


def make_box(data: Path, url: str, clock: SetClock) -> Box:
    engine = make_engine(url)
    return Box(
        settings=Settings(data_dir=data, database_url=url, design_page=True),
        works=Works(engine, clock),
        blobs=LocalBlobStore(data / "blobs"),
        signer=load_or_create_signer(data / "keys" / "log.key", "test.example/log"),
        link_key=load_or_create_link_key(data / "keys" / "links.key"),
        engine=SmallEngine(),
    )


@pytest.fixture
def box(works: Works, tmp_path: Path, database_url: str, clock: SetClock) -> Iterator[Box]:
    """Wired ports over the test's database and blob store."""
    made = make_box(tmp_path / "data", database_url, clock)
    yield made
    made.works.engine.dispose()


@pytest.fixture
def server(box: Box) -> Iterator[LiveServer]:
    """A live server over ``box``."""
    live, stop = serve_in_thread(box)
    yield live
    stop()


# --- the demo world, laid down once and copied --------------------------------------------------


@dataclass
class WorldTemplate:
    """The demo world as laid down once in this test session."""

    data: Path
    url: str
    document: dict[str, Any]


@pytest.fixture(scope="session")
def world_template(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> WorldTemplate:
    """The demo world, laid down once in a session through the real use cases."""
    return once(request, "world", lambda: _lay_down_once(request, tmp_path_factory))


def _lay_down_once(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> WorldTemplate:
    data = tmp_path_factory.mktemp("world") / "data"
    data.mkdir()
    if request.config.getoption("--db") == "sqlite":
        url = f"sqlite:///{data / 'stagerelease.sqlite3'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_template")
        admin = make_engine(server.database("postgres"), pool_size=1)
        copy_database(admin, "template_world", "template_sr")
        admin.dispose()
        url = server.database("template_world")
    made = make_box(data, url, SetClock(START))
    upgrade(made.works.engine)
    document = demo.lay_down(
        made.works, made.blobs, made.settings, base_url="http://unset", say=lambda _: None
    )
    made.works.engine.dispose()
    return WorldTemplate(data, url, document)


@dataclass
class World:
    """A private copy of the demo world behind a live server."""

    base_url: str
    box: Box
    clock: SetClock
    repos: dict[str, str]
    tokens: dict[str, str]

    def client(self, who: str | None = None, **options: Any) -> httpx.Client:
        """Return an HTTP client that acts as ``who``."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}
        options = {"timeout": 30, "verify": NO_TLS} | options
        return httpx.Client(base_url=self.base_url, headers=headers, **options)

    def actor(self, who: str):
        """Return ``who`` as services know them."""
        from stagerelease.identity.service import authenticate

        with self.box.works.begin(read_only=True) as work:
            return authenticate(work, self.tokens[who])

    def file(self, stage: str, path: str = "model.safetensors", rev: str = "main") -> str:
        """Return the address of a file of the repository at ``stage``."""
        return f"/{self.repos[stage]}/resolve/{rev}/{path}"


@pytest.fixture
def world_box(
    request: pytest.FixtureRequest, world_template: WorldTemplate, tmp_path: Path, clock: SetClock
) -> Iterator[Box]:
    """Wired ports over a private copy of the demo world."""
    data = tmp_path / "world"
    shutil.copytree(world_template.data, data, copy_function=shutil.copy)
    admin = None
    if request.config.getoption("--db") == "sqlite":
        url = f"sqlite:///{data / 'stagerelease.sqlite3'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_template")
        name = f"w{time.time_ns()}"
        admin = make_engine(server.database("postgres"), pool_size=1)
        copy_database(admin, name, "template_world")
        url = server.database(name)
    made = make_box(data, url, clock)
    yield made
    made.works.engine.dispose()
    if admin is not None:
        execute(admin, f"DROP DATABASE {name} WITH (FORCE)")
        admin.dispose()


@pytest.fixture
def world(world_box: Box, world_template: WorldTemplate, clock: SetClock) -> Iterator[World]:
    """A private copy of the demo world behind a live server."""
    live, stop = serve_in_thread(world_box)
    document = world_template.document
    yield World(live.base_url, world_box, clock, document["repos"], document["tokens"])
    stop()


@dataclass
class BigFile:
    """A file of the partner repository that takes a while to deliver."""

    url: str
    size: int
    sha256: str


@pytest.fixture
def big_file(world: World) -> BigFile:
    """Put 256 MiB beside the partner repository's files and return where they are."""
    size = 256 << 20
    with world.box.blobs.writer() as writer:
        block = bytes(range(256)) * 4096
        for _ in range(size // len(block)):
            writer.write(block)
        stored = writer.commit()
    with world.box.works.begin() as work:
        variant = catalog.load_variant(work, world.repos["partner"])
        commit = catalog.find_ref(work, variant.id, "main")
        work.session.add(Blob(sha256=stored.sha256, size=size, created_at=work.now))
        work.session.flush()
        work.session.add(
            RevisionFile(
                revision_id=commit,
                path="big.safetensors",
                size=size,
                sha256=stored.sha256,
                git_oid="0" * 40,
                lfs=True,
                kind="weights",
            )
        )
    url = world.file("partner", "big.safetensors", rev=str(commit))
    return BigFile(url, size, stored.sha256)

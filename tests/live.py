"""A live server for tests: a real uvicorn on a loopback port, over the test's own database.

Import its fixtures in a conftest: ``from live import box, server``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from conftest import free_port

from stagerelease.bootstrap import Box
from stagerelease.db.work import Works
from stagerelease.http.app import create_app
from stagerelease.ledger.signer import load_or_create_signer
from stagerelease.settings import Settings
from stagerelease.storage.local import LocalBlobStore


@dataclass
class LiveServer:
    """A real uvicorn on a loopback port, over the same database as ``works``."""

    base_url: str
    box: Box


def serve_in_thread(box: Box) -> tuple[LiveServer, Callable[[], None]]:
    port = free_port()
    config = uvicorn.Config(
        create_app(box),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        lifespan="on",
        access_log=False,
    )
    server = uvicorn.Server(config)
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


@pytest.fixture
def box(works: Works, blobs: LocalBlobStore, tmp_path: Path, database_url: str) -> Box:
    """Wired ports over the test's database and blob store."""
    data = tmp_path / "data"
    return Box(
        settings=Settings(data_dir=data, database_url=database_url),
        works=works,
        blobs=blobs,
        signer=load_or_create_signer(data / "keys" / "log.key", "test.example/log"),
    )


@pytest.fixture
def server(box: Box) -> Iterator[LiveServer]:
    """A live server over ``box``."""
    live, stop = serve_in_thread(box)
    yield live
    stop()

"""Behind nginx: an answer that nobody will read leaves nothing that would be cut later."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import func, select

from live import serve_in_thread
from stagerelease.downloads import edge
from stagerelease.downloads.tables import EdgePassage

WAIT = 10


@pytest.fixture
def behind_nginx(world_box, world):
    """The world as a web process of deploy/ serves it."""
    settings = world_box.settings.model_copy(update={"delivery": "accel"})
    live, stop = serve_in_thread(replace(world_box, settings=settings))
    yield live
    stop()


def passages(world) -> int:
    with world.box.works.begin(read_only=True) as work:
        return work.session.execute(select(func.count()).select_from(EdgePassage)).scalar_one()


def commit_of(world, stage: str) -> str:
    with world.client("owner") as client:
        return client.head(world.file(stage)).headers["location"]


def test_a_client_that_leaves_before_the_answer_leaves_no_passage(behind_nginx, world, monkeypatch):
    """nginx hangs up here when its client hangs up there, and then logs no line for a passage."""
    real, going, gone, done = edge.prepare, threading.Event(), threading.Event(), threading.Event()
    forget = edge.abandon

    def slow(*args, **options):
        ticket = real(*args, **options)
        going.set()
        assert gone.wait(WAIT)
        return ticket

    def forgotten(works, passage_id):
        forget(works, passage_id)
        done.set()

    monkeypatch.setattr(edge, "prepare", slow)
    monkeypatch.setattr(edge, "abandon", forgotten)
    parts = urlsplit(behind_nginx.base_url)
    address = commit_of(world, "public")
    with socket.create_connection((parts.hostname, parts.port)) as plain:
        plain.sendall(f"GET {address} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert going.wait(WAIT)
    threading.Timer(0.2, gone.set).start()  # once the server has seen it
    assert done.wait(WAIT)
    assert passages(world) == 0


def test_a_client_that_waits_gets_its_answer_and_its_passage(behind_nginx, world):
    with httpx.Client(base_url=behind_nginx.base_url) as client:
        got = client.get(commit_of(world, "public"))
    assert got.headers["x-accel-redirect"].startswith("/_weights/")
    assert got.headers["x-stagerelease-download"].startswith("psg_")
    assert passages(world) == 1


def test_bytes_that_are_missing_leave_no_passage(behind_nginx, world):
    address = commit_of(world, "public")
    with httpx.Client(base_url=behind_nginx.base_url) as client:
        sha256 = client.head(address).headers["etag"].strip('"')
        world.box.blobs.delete(sha256)
        assert client.get(address).status_code == 503
    assert passages(world) == 0

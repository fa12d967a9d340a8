"""Who connects and says nothing is hung up on; who is slow, idle or being answered is not."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

import pytest

from stagerelease.http import protocol

LIMIT = 0.4


@pytest.fixture
def impatient(monkeypatch, world):
    monkeypatch.setattr(protocol, "HEAD_LIMIT", LIMIT)
    monkeypatch.setattr(protocol, "BODY_IDLE", LIMIT)
    return world


def connect(world) -> socket.socket:
    url = urlsplit(world.base_url)
    return socket.create_connection((url.hostname, url.port), timeout=10)


def assert_hung_up(wire: socket.socket) -> None:
    began = time.monotonic()
    while wire.recv(65536):
        pass
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: a",
        b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: same-origin\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\na",
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /li",
    ],
    ids=["nothing", "half a line", "half a head", "half a body", "half of the next"],
)
def test_who_does_not_finish_a_request_is_hung_up_on(impatient, said):
    with connect(impatient) as wire:
        wire.sendall(said)
        assert_hung_up(wire)


def test_a_head_that_drips_has_no_more_time_than_one_that_stops(impatient):
    with connect(impatient) as wire, pytest.raises((BrokenPipeError, ConnectionResetError)):
        wire.sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(50):
            time.sleep(0.1)
            wire.sendall(b"a")


def test_a_body_that_comes_slowly_and_an_idle_connection_are_waited_for(impatient):
    with connect(impatient) as wire:
        wire.sendall(
            b"POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 8\r\n\r\n"
        )
        for _ in range(8):
            time.sleep(LIMIT / 2)
            wire.sendall(b" ")
        assert wire.recv(65536).startswith(b"HTTP/1.1 4")
    with connect(impatient) as wire:
        for _ in range(2):
            wire.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            got = wire.recv(65536)
            assert got.startswith(b"HTTP/1.1 200")
            time.sleep(3 * LIMIT)


def test_a_client_that_waits_for_our_word_is_waited_for(impatient):
    """curl sends Expect: 100-continue; what takes us long is not its silence."""
    with connect(impatient) as wire:
        wire.sendall(
            b"POST /api/v1/tokens HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert b"100 Continue" in wire.recv(65536)
        wire.sendall(b"{}")
        assert wire.recv(65536).startswith(b"HTTP/1.1 4")

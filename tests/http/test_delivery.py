"""Bytes over a live uvicorn: ranges, honest lengths, cuts, lost clients, flat memory."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.requests import Request

from databases import free_port
from stagerelease.http.delivery import ByteDelivery, accel_response
from stagerelease.http.protocol import LinkedProtocol
from stagerelease.storage.ports import LocalBlob
from stagerelease.supervisor.devca import make_dev_tls

DATA = os.urandom((5 << 20) + 7)
ETAG = '"0123456789abcdef"'
HEADERS = {"ETag": ETAG, "Cache-Control": "private, no-transform", "X-Repo-Commit": "c" * 40}


@dataclass
class Stage:
    """One server, the files it sends, and what it was told about how each delivery ended."""

    root: Path
    base_url: str = ""
    verify: ssl.SSLContext | bool = True
    loop: asyncio.AbstractEventLoop | None = None
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    ends: list[tuple[int, int, str]] = field(default_factory=list)
    size: int | None = None  # what the catalog says, when that is not what the disk says

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.loop = asyncio.get_running_loop()
        request = Request(scope, receive)
        path = self.root / request.url.path.strip("/")
        blob = LocalBlob(path, self.size or path.stat().st_size)

        async def finish(first: int, sent: int, outcome: str) -> None:
            await asyncio.sleep(0)
            self.ends.append((first, sent, outcome))

        if request.headers.get("x-mode") == "accel":
            answer = accel_response(request, blob, HEADERS, root=self.root, prefix="/_weights/")
        else:
            answer = ByteDelivery(request, blob, HEADERS, cut=self.cut, finish=finish)
        await answer(scope, receive, send)

    def set_cut(self) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.cut.set)

    def wait_for_end(self, seconds: float = 2.0) -> tuple[int, int, str]:
        deadline = time.monotonic() + seconds
        while not self.ends:
            assert time.monotonic() < deadline, "the delivery did not end"
            time.sleep(0.01)
        time.sleep(0.05)  # a second call would come right after the first
        assert len(self.ends) == 1
        return self.ends.pop()

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.base_url, verify=self.verify, timeout=10)

    def begin(self, path: str, *, buffer: int = 1 << 16) -> socket.socket:
        """Send a GET by hand and read nothing yet; the client's buffer is small."""
        url = httpx.URL(self.base_url)
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        plain.settimeout(10)
        plain.connect((url.host, url.port))
        client = plain
        if isinstance(self.verify, ssl.SSLContext):
            client = self.verify.wrap_socket(plain, server_hostname=url.host)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return client


def serve(stage: Stage, **options: Any) -> Callable[[], None]:
    port = free_port()
    config = uvicorn.Config(
        stage.app,
        interface="asgi3",
        port=port,
        lifespan="off",
        log_level="critical",
        access_log=False,
        **options,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    scheme = "https" if "ssl_certfile" in options else "http"
    stage.base_url = f"{scheme}://127.0.0.1:{port}"

    def stop() -> None:
        server.should_exit = server.force_exit = True
        thread.join(20)

    return stop


KINDS = ("linked", "tls", "plain", "asyncio")


@pytest.fixture(scope="module", params=KINDS)
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The product's protocol, the same under TLS, and servers that know nothing of ours."""
    stage = Stage(tmp_path_factory.mktemp("files"))
    (stage.root / "data").write_bytes(DATA)
    (stage.root / "empty").touch()
    options: dict[str, Any] = {
        "linked": {"http": LinkedProtocol, "loop": "uvloop"},
        "plain": {"http": "httptools", "loop": "uvloop"},
        "asyncio": {"http": LinkedProtocol, "loop": "asyncio"},
    }.get(request.param, {})
    if request.param == "tls":
        tls = make_dev_tls(tmp_path_factory.mktemp("tls"))
        options = {"http": LinkedProtocol, "loop": "uvloop"}
        options |= {"ssl_certfile": str(tls.cert), "ssl_keyfile": str(tls.key)}
        stage.verify = ssl.create_default_context(cafile=str(tls.ca))
    stop = serve(stage, **options)
    yield stage
    stop()


@pytest.fixture
def stage(running: Stage) -> Stage:
    """A running server that remembers nothing of the test before."""
    running.cut.clear()
    running.size = None
    time.sleep(0.02)
    running.ends.clear()
    return running


def big(stage: Stage, megabytes: int) -> int:
    with (stage.root / "big").open("wb") as file:
        for number in range(megabytes):
            file.write(number.to_bytes(4, "big") * (1 << 18))
    return megabytes << 20


def head_of(client: socket.socket) -> tuple[int, int, int]:
    """Read up to the end of the headers: status, Content-Length, body bytes already read."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(1 << 16)
    head, _, rest = data.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    assert length is not None
    return int(head.split()[1]), int(length[1]), len(rest)


def drain(client: socket.socket, received: int) -> int:
    """Read until the server ends; a reset or a TLS end without goodbye are ends, too."""
    try:
        while chunk := client.recv(1 << 20):
            received += len(chunk)
    except (ConnectionResetError, ssl.SSLEOFError):
        pass
    return received


def test_the_whole_file(stage):
    with stage.client() as client:
        answer = client.get("/data")
        assert answer.status_code == 200
        assert answer.content == DATA
        assert answer.headers["content-length"] == str(len(DATA))
        assert answer.headers["accept-ranges"] == "bytes"
        assert "content-range" not in answer.headers
        assert "content-encoding" not in answer.headers
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert stage.wait_for_end() == (0, len(DATA), "whole")
        assert client.get("/data").content == DATA  # the connection can be used again
        assert stage.wait_for_end() == (0, len(DATA), "whole")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=1-2097152", 1, 2097152),
        ("bytes=2097151-4194305", 2097151, 4194305),
        ("bytes=5000000-", 5000000, len(DATA) - 1),
        ("bytes=-9", len(DATA) - 9, len(DATA) - 1),
        ("bytes=5242880-99999999", 5242880, len(DATA) - 1),
    ],
)
def test_one_range(stage, asked, first, last):
    with stage.client() as client:
        answer = client.get("/data", headers={"Range": asked, "If-Range": ETAG})
    assert answer.status_code == 206
    assert answer.content == DATA[first : last + 1]
    assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(DATA)}"
    assert answer.headers["content-length"] == str(last + 1 - first)
    assert answer.headers["etag"] == ETAG
    assert stage.wait_for_end() == (first, last + 1 - first, "whole")


def test_a_range_of_another_version_gets_the_whole(stage):
    with stage.client() as client:
        answer = client.get("/data", headers={"Range": "bytes=5-9", "If-Range": '"other"'})
    assert (answer.status_code, answer.content) == (200, DATA)


def test_a_range_past_the_end(stage):
    with stage.client() as client:
        answer = client.get("/data", headers={"Range": f"bytes={len(DATA)}-"})
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"
    assert answer.headers["content-length"] == "0"
    assert stage.wait_for_end() == (0, 0, "failed")


def test_head_tells_the_true_length_and_heeds_no_range(stage):
    with stage.client() as client:
        for headers in ({}, {"Range": "bytes=0-1"}):
            answer = client.head("/data", headers=headers)
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["content-length"] == str(len(DATA))
            assert answer.headers["accept-ranges"] == "bytes"
            assert stage.wait_for_end() == (0, 0, "whole")


def test_an_empty_file(stage):
    with stage.client() as client:
        answer = client.get("/empty")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-length"] == "0"
        assert stage.wait_for_end() == (0, 0, "whole")
        assert client.get("/empty", headers={"Range": "bytes=0-"}).status_code == 416


def test_a_cut_ends_a_stalled_download_and_the_client_sees_a_short_read(stage):
    size = big(stage, 48)
    with stage.begin("/big") as client:
        status, length, rest = head_of(client)
        assert (status, length) == (200, size)
        time.sleep(0.3)  # the client reads nothing: the server is stuck in a full socket
        assert stage.ends == []
        began = time.monotonic()
        stage.set_cut()
        first, sent, outcome = stage.wait_for_end(2)
        assert time.monotonic() - began < 2
        assert (first, outcome) == (0, "cut")
        assert 0 <= sent < size
        received = drain(client, rest)
        assert sent - (1 << 20) <= received < size
    with stage.client() as client:
        stage.cut.clear()
        assert client.get("/data").content == DATA  # the server is well


def test_a_cut_that_came_before_the_first_byte_sends_none_to_speak_of(stage):
    size = big(stage, 48)
    stage.cut.set()
    with stage.begin("/big") as client:
        received = drain(client, 0)
    assert received < size
    assert stage.wait_for_end()[2] == "cut"


def test_a_client_that_leaves(stage):
    size = big(stage, 48)
    client = stage.begin("/big")
    _, _, rest = head_of(client)
    received = rest
    while received < 4 << 20:
        received += len(client.recv(1 << 16))
    client.close()
    first, sent, outcome = stage.wait_for_end()
    assert (first, outcome) == (0, "client_left")
    assert sent < size


def test_a_file_truncated_under_way_is_a_short_read_and_kills_nobody(stage):
    size = big(stage, 48)
    with stage.begin("/big") as client:
        _, _, rest = head_of(client)
        time.sleep(0.2)
        os.truncate(stage.root / "big", 9 << 20)
        assert drain(client, rest) < size
    assert stage.wait_for_end()[2] in ("failed", "client_left")
    with stage.client() as client:
        assert client.get("/data").content == DATA


def test_a_file_shorter_than_the_catalog_says_is_not_begun(stage):
    stage.size = len(DATA) + 1
    with stage.client() as client:
        answer = client.get("/data")
    assert answer.status_code == 500
    assert stage.wait_for_end() == (0, 0, "failed")


def test_a_slow_client_gets_every_byte(stage):
    size = big(stage, 12)
    expected = (stage.root / "big").read_bytes()
    with stage.begin("/big") as client:
        _, _, rest = head_of(client)
        left = size - rest
        tail = b""
        while left:
            time.sleep(0.002)
            tail = client.recv(min(left, 1 << 17))
            left -= len(tail)
        assert expected.endswith(tail)
    assert stage.wait_for_end() == (0, size, "whole")


SERVER = """
import asyncio, sys
from pathlib import Path
import uvicorn
from starlette.requests import Request
from stagerelease.http.delivery import ByteDelivery
from stagerelease.http.protocol import LinkedProtocol
from stagerelease.storage.ports import LocalBlob
blob = LocalBlob(Path(sys.argv[2]), Path(sys.argv[2]).stat().st_size)
async def finish(first, sent, outcome): pass
async def app(scope, receive, send):
    request = Request(scope, receive)
    await ByteDelivery(request, blob, {}, cut=asyncio.Event(), finish=finish)(scope, receive, send)
uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http=LinkedProtocol, lifespan="off",
            log_level="warning")
"""


@contextmanager
def process(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends."""
    server = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield server
    finally:
        server.terminate()
        server.wait(20)


def peak_memory(pid: int) -> int:
    line = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert line is not None
    return int(line[1]) << 10


def test_memory_stays_flat_while_much_flows_and_many_stall(tmp_path):
    """A quarter GiB sent whole to four clients, thirty more stuck at different places."""
    path = tmp_path / "big"
    size = 256 << 20
    with path.open("wb") as file:
        for _ in range(size >> 22):
            file.write(os.urandom(1 << 22))
    port = free_port()
    with process([sys.executable, "-c", SERVER, str(port), str(path)], port) as server:
        stalled = []
        for number in range(30):
            client = socket.create_connection(("127.0.0.1", port))
            start = number * (size // 31)
            request = f"GET / HTTP/1.1\r\nHost: x\r\nRange: bytes={start}-\r\n\r\n"
            client.sendall(request.encode())
            stalled.append(client)
        for _ in range(4):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert drain(client, 0) > size
        peak = peak_memory(server.pid)
        detail = Path(f"/proc/{server.pid}/status").read_text()
        for client in stalled:
            client.close()
        assert peak < 150 << 20, detail


NGINX = """
daemon off; worker_processes 1; pid {work}/pid; error_log {work}/log; {user}
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on;
  client_body_temp_path {work}/1; proxy_temp_path {work}/2; fastcgi_temp_path {work}/3;
  uwsgi_temp_path {work}/4; scgi_temp_path {work}/5;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {behind}; proxy_set_header X-Mode accel; }}
    location /_weights/ {{
      internal; alias {root}/; etag off;
      add_header ETag $upstream_http_etag;
      add_header X-Repo-Commit $upstream_http_x_repo_commit;
    }}
  }}
}}
"""


@pytest.mark.parametrize("running", ["linked"], indirect=True)
def test_nginx_sends_what_the_accel_answer_names(stage, tmp_path):
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("nginx: make system-packages")
    (stage.root / "ab").mkdir()
    (stage.root / "ab" / "data").write_bytes(DATA)
    port = free_port()
    config = tmp_path / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    config.write_text(
        NGINX.format(work=tmp_path, port=port, behind=stage.base_url, root=stage.root, user=user)
    )
    with (
        process([program, "-c", str(config), "-p", str(tmp_path)], port),
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        whole = client.get("/ab/data")
        assert (whole.status_code, whole.content) == (200, DATA)
        assert {name: whole.headers.get(name) for name in HEADERS} == HEADERS
        assert "x-accel-redirect" not in whole.headers
        part = client.get("/ab/data", headers={"Range": "bytes=7-9", "If-Range": ETAG})
        assert (part.status_code, part.content) == (206, DATA[7:10])
        other = client.get("/ab/data", headers={"Range": "bytes=7-9", "If-Range": '"other"'})
        assert (other.status_code, other.content) == (200, DATA)
        head = client.head("/ab/data")
        assert head.headers["content-length"] == str(len(DATA))
        assert head.headers["etag"] == ETAG
        assert client.get("/ab/data", headers={"Range": "bytes=99999999-"}).status_code == 416
        assert client.get("/_weights/ab/data").status_code == 404

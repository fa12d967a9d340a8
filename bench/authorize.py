"""Authorised HEADs per second, as a share of the same server's empty route.

Both sides run in one run, interleaved, against one web process over the demo world: HEAD of a gated
file with a partner's token, and GET of a route that does nothing. ``--database-url`` runs it on
PostgreSQL. Goals: 0.4 on SQLite, 0.2 on PostgreSQL.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from stagerelease.bootstrap import build
from stagerelease.demo import world
from stagerelease.settings import Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def hammer(port: int, request: bytes, seconds: float, clients: int) -> float:
    """Return answers per second over ``clients`` keep-alive connections."""
    counts = [0] * clients
    stop = time.monotonic() + seconds

    def one(i: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while time.monotonic() < stop:
                connection.sendall(request)
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += connection.recv(65536)
                if not request.startswith(b"HEAD"):
                    head, _, body = answer.partition(b"\r\n\r\n")
                    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
                    while len(body) < length:
                        body += connection.recv(65536)
                if b" 200 " not in answer[:16]:
                    raise RuntimeError(answer[:400].decode("latin-1"))
                counts[i] += 1

    threads = [threading.Thread(target=one, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


def run(database_url: str, rounds: int, seconds: float, clients: int) -> float:
    """Measure, print and return the median ratio."""
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(data_dir=Path(directory), database_url=database_url)
        box = build(settings, migrate=True)
        document = world.lay_down(
            box.works, box.blobs, settings, base_url="http://127.0.0.1", say=lambda _: None
        )
        box.works.engine.dispose()
        port = free_port()
        environ = {
            **os.environ,
            "DATA_DIR": directory,
            "PORT": str(port),
            "STAGERELEASE_DATABASE_URL": database_url,
        }
        server = subprocess.Popen([sys.executable, "-m", "stagerelease", "serve"], env=environ)
        try:
            _wait(port)
            return _measure(port, document, rounds, seconds, clients)
        finally:
            server.terminate()
            server.wait(30)


def _wait(port: int) -> None:
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("the server did not start")


def _measure(port: int, document: dict, rounds: int, seconds: float, clients: int) -> float:
    import httpx

    token, repo = document["tokens"]["partner"], document["repos"]["partner"]
    base = f"http://127.0.0.1:{port}"
    headers = {"Authorization": f"Bearer {token}"}
    pinned = httpx.head(f"{base}/{repo}/resolve/main/model.safetensors", headers=headers)
    path = pinned.headers["location"]
    head = (
        f"HEAD {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()
    empty = b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    ratios = []
    for i in range(rounds):
        nothing = hammer(port, empty, seconds, clients)
        gated = hammer(port, head, seconds, clients)
        ratios.append(gated / nothing)
        print(
            f"round {i + 1}: empty route {nothing:8.0f}/s   authorised HEAD {gated:8.0f}/s   "
            f"ratio {gated / nothing:.2f}"
        )
    median = statistics.median(ratios)
    print(f"median ratio {median:.2f}")
    return median


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database-url", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.seconds = 2, 1.0
    run(given.database_url, given.rounds, given.seconds, given.clients)


if __name__ == "__main__":
    main()

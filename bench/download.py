"""How fast a file leaves, against nginx on the same file in the same minutes.

Runs a generated nginx (static, sendfile), one uvicorn worker sending through the product's own
``ByteDelivery``, and nginx with X-Accel-Redirect in front of that worker; interleaves them round
by round and prints medians of the ratios to nginx. ``--base-url``, ``--path`` and ``--token`` put
a running installation in the place of the minimal worker.

    python bench/download.py            # about two minutes
    python bench/download.py --quick    # half a minute, rougher
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MB = 1_000_000
MIB = 1 << 20
Range = tuple[int, int]
GOALS = {("ours", "1 client"): 1.2, ("ours", "8 clients"): 1.0, ("ours", "4 ranges"): 1.0}
GOALS |= {("accel", load): 0.95 for load in ("1 client", "8 clients", "4 ranges")}
HEAD_GOAL_MS = 25.0
QUIET = 0.1

NGINX = """
{user}
worker_processes 1; daemon off; pid {work}/{name}.pid; error_log {work}/{name}.err;
events {{ worker_connections 256; }}
http {{
  access_log off; sendfile on; tcp_nopush on; etag on; keepalive_requests 1000000;
  client_body_temp_path {work}/t1; proxy_temp_path {work}/t2; fastcgi_temp_path {work}/t3;
  uwsgi_temp_path {work}/t4; scgi_temp_path {work}/t5;
  server {{
    listen 127.0.0.1:{port};
    location / {{ {location} }}
    location /_weights/ {{
      internal; alias {root}/; etag off;
      add_header ETag $upstream_http_etag;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Target:
    """One server under test, and the processes whose CPU time it costs."""

    name: str
    origin: str
    path: str
    pids: tuple[int, ...]
    token: str | None = None

    def connect(self) -> socket.socket:
        parts = urlsplit(self.origin)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        plain = socket.create_connection((parts.hostname or "", port), timeout=60)
        if parts.scheme != "https":
            return plain
        return ssl.create_default_context().wrap_socket(plain, server_hostname=parts.hostname)

    def request(self, method: str, wanted: Range | None = None, *, close: bool = False) -> bytes:
        lines = [f"{method} {self.path} HTTP/1.1", f"Host: {urlsplit(self.origin).netloc}"]
        if self.token:
            lines.append(f"Authorization: Bearer {self.token}")
        if wanted is not None:
            lines.append(f"Range: bytes={wanted[0]}-{wanted[1]}")
        if close:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode()


# --- servers -----------------------------------------------------------------------------------


def serve(port: int, root: Path, digest: str, *, accel: bool) -> None:
    """Run the minimal application over the product's delivery, in this process."""
    import uvicorn
    from starlette.requests import Request

    from stagerelease.http.delivery import ByteDelivery, accel_response
    from stagerelease.http.protocol import LinkedProtocol
    from stagerelease.storage.local import LocalBlobStore

    store = LocalBlobStore(root)
    headers = {"ETag": f'"{digest}"', "Cache-Control": "private, no-transform"}

    async def finish(first: int, sent: int, outcome: str) -> None:
        del first, sent, outcome

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        blob = store.locate(digest)
        if accel:
            answer = accel_response(request, blob, headers, root=root, prefix="/_weights/")
        else:
            answer = ByteDelivery(request, blob, headers, cut=asyncio.Event(), finish=finish)
        await answer(scope, receive, send)

    uvicorn.run(
        app,
        port=port,
        loop="uvloop",
        http=LinkedProtocol,
        lifespan="off",
        log_level="warning",
        access_log=False,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """Run ``command`` until the block ends; yields its pid once ``port`` answers."""
    process = subprocess.Popen(
        command, stderr=subprocess.DEVNULL if "nginx" in command[0] else None
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError(f"{command[0]} did not start") from None
                time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@contextmanager
def nginx(work: Path, root: Path, name: str, location: str) -> Iterator[tuple[str, int]]:
    """Run an nginx of our own with one location; yields its origin and pid."""
    port = free_port()
    config = work / f"{name}.conf"
    config.write_text(
        NGINX.format(
            user="user root;" if os.geteuid() == 0 else "",  # or it may not read the blobs
            work=work,
            name=name,
            port=port,
            root=root,
            location=location,
        )
    )
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    with running([program, "-c", str(config), "-p", str(work)], port) as pid:
        yield f"http://127.0.0.1:{port}", pid


@contextmanager
def worker(root: Path, digest: str, *, accel: bool) -> Iterator[tuple[str, int]]:
    """Run the minimal application in a process of its own; yields its origin and pid."""
    port = free_port()
    command = [sys.executable, __file__, "--serve", str(port), "--root", str(root)]
    command += ["--digest", digest] + (["--accel"] if accel else [])
    with running(command, port) as pid:
        yield f"http://127.0.0.1:{port}", pid


# --- clients -----------------------------------------------------------------------------------


def read_head(connection: socket.socket) -> tuple[int, int, bytes]:
    """Return status, Content-Length and the first body bytes of an answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(4096)
        if not more:
            raise RuntimeError("the server closed before answering")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    return int(head.split(b" ", 2)[1]), int(fields[b"content-length"]), rest


def fetch(target: Target, wanted: Range | None, go: Any, done: Any, mb_per_s: float | None) -> None:
    """Download into one buffer that is overwritten, and report the bytes received."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    buffer = memoryview(bytearray(MIB))
    with target.connect() as connection:
        go.wait()
        connection.sendall(target.request("GET", wanted, close=True))
        status, length, rest = read_head(connection)
        expected = 206 if wanted is not None else 200
        received = len(rest)
        began = time.perf_counter()
        while received < length and status == expected:
            count = connection.recv_into(buffer)
            if not count:
                break
            received += count
            if mb_per_s is not None:
                early = received / (mb_per_s * MB) - (time.perf_counter() - began)
                if early > 0:
                    time.sleep(early)
        done.put((received, length if status == expected else -status))


@contextmanager
def downloads(
    target: Target, parts: list[Range | None], mb_per_s: float | None = None
) -> Iterator[tuple[Any, Any, list[Any]]]:
    """Have one process per part connected and waiting for ``go``."""
    context = multiprocessing.get_context("fork")
    go, done = context.Event(), context.Queue()
    clients = [
        context.Process(target=fetch, args=(target, part, go, done, mb_per_s)) for part in parts
    ]
    for client in clients:
        client.start()
    time.sleep(0.15)
    try:
        yield go, done, clients
    finally:
        for client in clients:
            client.terminate()
            client.join()


def throughput(target: Target, parts: list[Range | None]) -> tuple[float, float]:
    """Return MB/s over all parts, and the server's CPU seconds per GB."""
    spent = cpu_seconds(target.pids)
    with downloads(target, parts) as (go, done, clients):
        began = time.perf_counter()
        go.set()
        results = [done.get(timeout=120) for _ in clients]
        seconds = time.perf_counter() - began
    for received, length in results:
        if received != length:
            raise RuntimeError(f"{target.name}: {received} of {length} bytes arrived")
    total = sum(received for received, _ in results)
    return total / seconds / MB, (cpu_seconds(target.pids) - spent) / (total / 1e9)


def head_latencies(target: Target, parts: list[Range | None], pace: float | None) -> list[float]:
    """Return the milliseconds of HEADs on one connection while ``parts`` download."""
    found = []
    with downloads(target, parts, pace) as (go, done, clients), target.connect() as connection:
        go.set()
        time.sleep(0.3)
        until = time.monotonic() + 4
        # Only while they all run: afterwards there is nothing left to wait behind.
        while time.monotonic() < until and done.empty() and all(c.is_alive() for c in clients):
            began = time.perf_counter()
            connection.sendall(target.request("HEAD"))
            status, length, _ = read_head(connection)
            found.append((time.perf_counter() - began) * 1e3)
            if status != 200 or length == 0:
                raise RuntimeError(f"{target.name}: HEAD answered {status}, length {length}")
            time.sleep(0.003)
    return found


def cpu_seconds(pids: tuple[int, ...]) -> float:
    """Return user and system time of ``pids`` and their children so far."""
    ticks = 0
    for pid in pids:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in [str(pid), *children]:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def core_seconds() -> tuple[float, float]:
    """Return busy and total seconds of all cores together since boot (stolen time is busy)."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    ticks = os.sysconf("SC_CLK_TCK")
    return (sum(fields) - fields[3] - fields[4]) / ticks, sum(fields) / ticks


def own_seconds(target: Target) -> float:
    """Return CPU seconds of this program, its finished clients and the server."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages) + cpu_seconds(target.pids)


def peak_rss(pid: int) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return f"{int(line.split()[1]) // 1024} MB"
    return "?"


# --- the run -----------------------------------------------------------------------------------


def make_blob(root: Path, megabytes: int) -> tuple[str, Path]:
    """Store a blob of random megabytes through the product's own writer."""
    from stagerelease.storage.local import LocalBlobStore

    block = os.urandom(MIB)
    store = LocalBlobStore(root)
    with store.writer() as writer:
        for number in range(megabytes):
            writer.write(number.to_bytes(8, "big") + block[8:])
        stored = writer.commit()
    return stored.sha256, store.locate(stored.sha256).path


def warm(path: Path) -> None:
    """Read the file once, so that what was reclaimed meanwhile is in the page cache again."""
    buffer = bytearray(MIB)
    with path.open("rb", buffering=0) as reader:
        while reader.readinto(buffer):
            pass


def chill(path: Path) -> None:
    """Drop the file from the page cache."""
    with path.open("rb") as reader:
        os.fsync(reader.fileno())
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def split(size: int, parts: int) -> list[Range | None]:
    step = size // parts
    return [(n * step, size - 1 if n == parts - 1 else (n + 1) * step - 1) for n in range(parts)]


def measure(targets: list[Target], path: Path, rounds: int) -> bool:
    """Print the throughput table; returns whether every goal was met."""
    size = path.stat().st_size
    loads: dict[str, list[Range | None]] = {
        "1 client": [None],
        "8 clients": [(0, size // 4 - 1)] * 8,
        "4 ranges": split(size, 4),
    }
    seen: dict[tuple[str, str], list[tuple[float, float]]] = {}
    others: list[float] = []
    for number in range(rounds + 1):  # the first round is thrown away
        for load, parts in loads.items():
            for target in targets:
                warm(path)
                busy, total = core_seconds()
                own = own_seconds(target)
                result = throughput(target, parts)
                own, (busy_after, total_after) = own_seconds(target) - own, core_seconds()
                others.append((busy_after - busy - own) / (total_after - total))
                if number:
                    seen.setdefault((target.name, load), []).append(result)
    disturbed = statistics.median(others)
    print(f"\nOther programs took {max(disturbed, 0):.0%} of the cores (median of all measures).")
    if disturbed > QUIET:
        print(f"Above {QUIET:.0%} the ratios below say more about them than about us.")
    base = targets[0].name
    met = True
    print(f"\n{'server':8} {'load':10} {'MB/s':>6}  {'ratio to nginx':>24}  CPU-s/GB")
    for (name, load), results in seen.items():
        ratios = sorted(a[0] / b[0] for a, b in zip(results, seen[base, load], strict=True))
        ratio = statistics.median(ratios)
        goal = GOALS.get((name, load))
        verdict = (
            "" if goal is None else f"  goal {goal:.2f} {'met' if ratio >= goal else 'MISSED'}"
        )
        met = met and (goal is None or ratio >= goal)
        print(
            f"{name:8} {load:10} {statistics.median(r[0] for r in results):6.0f}"
            f"  {ratio:8.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            f"  {statistics.median(r[1] for r in results):8.2f}{verdict}"
        )
    return met


def measure_heads(targets: list[Target], path: Path, repeat: int) -> bool:
    """Print HEAD latency during eight downloads; returns whether the goal was met."""
    parts = split(path.stat().st_size, 8)
    met = True
    print(f"\n{'server':8} {'HEAD while 8 download':28} {'p50 ms':>7} {'p99 ms':>7} {'n':>5}")
    for label, pace, cold in (
        ("warm, 8 x 50 MB/s", 50.0, False),
        ("cold, 8 x 50 MB/s", 50.0, True),
        ("warm, as fast as they can", None, False),
    ):
        for target in targets:
            found: list[float] = []
            for _ in range(repeat if pace is not None else 1):
                (chill if cold else warm)(path)
                found += head_latencies(target, parts, pace)
            if len(found) < 2:
                print(f"{target.name:8} {label:28} too short to measure: use a larger --size-mb")
                continue
            p99 = statistics.quantiles(found, n=100, method="inclusive")[98]
            late = target.name == "ours" and pace is not None and p99 > HEAD_GOAL_MS
            met = met and not late
            print(
                f"{target.name:8} {label:28} {statistics.median(found):7.2f} {p99:7.2f}"
                f" {len(found):5}{'  goal MISSED' if late else ''}"
            )
    return met


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size-mb", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="512 MB, two rounds")
    parser.add_argument("--base-url", help="measure this installation instead of the worker")
    parser.add_argument("--path", help="path of a file at --base-url, of --size-mb")
    parser.add_argument("--token", help="bearer token for --base-url")
    parser.add_argument("--pid", type=int, action="append", default=[], help="its processes")
    parser.add_argument("--file", type=Path, help="the blob file behind --path, for nginx to send")
    parser.add_argument("--skip-heads", action="store_true")
    for hidden in ("--root", "--digest"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--accel", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.size_mb, options.rounds = 512, 2
    options.rounds = max(1, options.rounds)
    return options


def start_targets(
    stack: ExitStack, work: Path, options: argparse.Namespace
) -> tuple[list[Target], Path]:
    """Start every server; nginx is first, the others are compared with it."""
    root = work / "blobs"
    if options.file:
        file, digest = options.file.resolve(), options.file.name
        root = file.parents[2]  # root/sha256/ab/abcd…
    else:
        digest, file = make_blob(root, options.size_mb)
    place = f"/sha256/{digest[:2]}/{digest}"
    origin, pid = stack.enter_context(nginx(work, root, "static", f"root {root};"))
    targets = [Target("nginx", origin, place, (pid,))]
    if options.base_url:
        one = Target("ours", options.base_url, options.path, tuple(options.pid), options.token)
        return [*targets, one], file
    origin, pid = stack.enter_context(worker(root, digest, accel=False))
    targets.append(Target("ours", origin, "/file", (pid,)))
    behind, inner = stack.enter_context(worker(root, digest, accel=True))
    origin, pid = stack.enter_context(nginx(work, root, "accel", f"proxy_pass {behind};"))
    return [*targets, Target("accel", origin, "/file", (pid, inner))], file


def main() -> int:
    options = arguments()
    if options.serve:
        serve(options.serve, Path(options.root), options.digest, accel=options.accel)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # `timeout` must not orphan servers
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        work = Path(name)
        work.chmod(0o755)  # nginx's worker may run as another user
        targets, file = start_targets(stack, work, options)
        met = measure(targets, file, options.rounds)
        if not options.skip_heads:
            met = measure_heads(targets, file, 1 if options.quick else 2) and met
        for target in targets:
            if target.pids:
                print(f"peak resident memory of {target.name}: {peak_rss(target.pids[-1])}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

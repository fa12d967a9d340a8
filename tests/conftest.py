"""Real databases for every test: a fresh SQLite file, or PostgreSQL with --db=postgres."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from databases import START, PostgresServer, copy_database, execute, free_port, postgres_bin
from stagerelease.db.engine import make_engine
from stagerelease.db.migrate import upgrade
from stagerelease.db.work import Works
from stagerelease.kernel.clock import SetClock

hypothesis_settings.register_profile(
    "default", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# A submission is judged by its change, not by luck: CI draws the same examples every time.
hypothesis_settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
hypothesis_settings.register_profile(
    "deep",
    deadline=None,
    max_examples=500,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
hypothesis_settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", default="", help="folder for a picture of every look")
    parser.addoption("--db", choices=("sqlite", "postgres"), default="sqlite")


MEMORY = Path("/dev/shm")
ROOM = 8 << 30  # bytes that have to be free there, and in the machine


def in_memory() -> Path | None:
    """Return where files may lie in memory, or None: thousands of commits, and none needs a disk.

    What is about disks and true sizes is e2e, and stays on one.
    """
    try:
        told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(told["MemAvailable"].split()[0]) << 10
        return MEMORY if min(available, shutil.disk_usage(MEMORY).free) > ROOM else None
    except (OSError, KeyError):
        return None  # not this kind of machine


def pytest_configure(config: pytest.Config) -> None:
    place = in_memory()
    if place is not None and config.getoption("markexpr") != "e2e":
        tempfile.tempdir = str(place)


# --- databases ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file; copying it is 6,000 times faster than making it."""
    path = tmp_path_factory.mktemp("template") / "template.sqlite3"
    engine = make_engine(f"sqlite:///{path}")
    upgrade(engine)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
    engine.dispose()
    return path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start a private PostgreSQL and stop it at the end."""
    binaries = postgres_bin()
    # Not under pytest's own directory: each session that starts closes that to other users.
    root = Path(tempfile.mkdtemp(prefix="stagerelease-postgres-", dir=in_memory()))
    data, port = root / "data", free_port()
    prefix: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(root, "postgres")
        prefix = ["runuser", "-u", "postgres", "--"]
    initdb = [*prefix, str(binaries / "initdb"), "-D", str(data), "-U", "sr", "-A", "trust"]
    subprocess.run([*initdb, "-E", "UTF8", "--locale=C"], check=True, capture_output=True)
    server = subprocess.Popen(
        [
            *prefix,
            str(binaries / "postgres"),
            *("-D", str(data), "-p", str(port), "-k", str(root)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"),
            # Nobody cuts the power here: what survives is asked of our processes, not of the disk.
            *("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            pytest.fail("PostgreSQL did not start")
        yield PostgresServer(f"postgresql+psycopg://sr@127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(root)


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> PostgresServer:
    """The server, with a migrated database called ``template_sr``."""
    admin = make_engine(postgres_server.database("postgres"), pool_size=1)
    execute(admin, "CREATE DATABASE template_sr")
    engine = make_engine(postgres_server.database("template_sr"), pool_size=1)
    upgrade(engine)
    engine.dispose()
    admin.dispose()
    return postgres_server


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh, migrated database of the kind --db asks for."""
    if request.config.getoption("--db") == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        target = tmp_path / "data" / "stagerelease.sqlite3"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(template, target)
        yield f"sqlite:///{target}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_template")
    name = f"t{time.time_ns()}"
    admin = make_engine(server.database("postgres"), pool_size=1)
    copy_database(admin, name, "template_sr")
    try:
        yield server.database(name)
    finally:
        execute(admin, f"DROP DATABASE {name} WITH (FORCE)")
        admin.dispose()


@pytest.fixture
def clock() -> SetClock:
    """A clock that stands still until a test moves it."""
    return SetClock(START)


@pytest.fixture
def works(database_url: str, clock: SetClock) -> Iterator[Works]:
    """The door to a fresh database, under the test's clock."""
    engine = make_engine(database_url)
    yield Works(engine, clock)
    engine.dispose()


@pytest.fixture
def blobs(tmp_path: Path):
    """An empty blob store."""
    from stagerelease.storage.local import LocalBlobStore

    return LocalBlobStore(tmp_path / "data" / "blobs")

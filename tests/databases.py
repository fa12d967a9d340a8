"""What tests share about databases and ports."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres_bin() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.fail("PostgreSQL is not installed. Debian: make system-packages")
    return found[-1].parent


@dataclass(frozen=True)
class PostgresServer:
    """A server of our own on a free port, as a URL without a database name."""

    url: str

    def database(self, name: str) -> str:
        return f"{self.url}/{name}"


def execute(engine: Engine, sql: str) -> None:
    """Run one statement outside any transaction."""
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(sql)


def copy_database(admin: Engine, name: str, template: str) -> None:
    """Make a database of the files of another one, which nobody is connected to."""
    with admin.connect() as connection:
        # Page by page through the log is what PostgreSQL does since 15, and twice as slow here.
        how = " STRATEGY FILE_COPY" if connection.dialect.server_version_info >= (15,) else ""
    execute(admin, f"CREATE DATABASE {name} TEMPLATE {template}{how}")


_MADE: pytest.StashKey[dict[str, Any]] = pytest.StashKey()


def once(request: pytest.FixtureRequest, name: str, make: Callable[[], Any]) -> Any:
    """Return what ``make`` made the first time in this session.

    A fixture that modules import is another one to pytest in each of them, and would be made anew.
    """
    made = request.config.stash.setdefault(_MADE, {})
    if name not in made:
        made[name] = make()
    return made[name]

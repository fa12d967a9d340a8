"""Makes engines. SQLite is treated as a real database: WAL, full sync, the write lock at BEGIN."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.pool import QueuePool

WRITES = "stagerelease_writes"  # connection option: this transaction takes the write lock at BEGIN


def make_engine(url: str, *, pool_size: int = 16, password: str | None = None) -> Engine:
    """Return an engine for ``url`` (``sqlite:///…`` or ``postgresql+psycopg://…``).

    The pool never overflows: as many connections as request threads, so none waits for long.
    """
    parsed = make_url(url)
    if password is not None:
        parsed = parsed.set(password=password)
    common: dict[str, Any] = {
        "poolclass": QueuePool,
        "pool_size": pool_size,
        "max_overflow": 4,
        "pool_timeout": 10,
    }
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(
            parsed, connect_args={"timeout": 15, "check_same_thread": False}, **common
        )
        _make_sqlite_honest(engine)
        return engine
    return create_engine(parsed, pool_pre_ping=True, isolation_level="READ COMMITTED", **common)


def _make_sqlite_honest(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(dbapi: Any, _record: Any) -> None:
        # The driver's own BEGIN starts after the first read and forks a log under load; off.
        dbapi.isolation_level = None
        cursor = dbapi.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "busy_timeout=15000",
            "temp_store=MEMORY",
            "cache_size=-16000",
            "mmap_size=0",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Any) -> None:
        writes = connection.get_execution_options().get(WRITES, True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

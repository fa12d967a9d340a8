"""Migrations on both databases: to the head and back, and what they do with rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from databases import execute
from stagerelease.db.base import Base
from stagerelease.db.engine import make_engine
from stagerelease.db.migrate import downgrade, upgrade

BEGAN = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty database of the kind --db asks for, without any table."""
    if request.config.getoption("--db") == "sqlite":
        made = make_engine(f"sqlite:///{tmp_path / 'empty.sqlite3'}")
        yield made
        made.dispose()
        return
    server = request.getfixturevalue("postgres_server")
    admin = make_engine(server.database("postgres"), pool_size=1)
    execute(admin, "CREATE DATABASE migrating")
    made = make_engine(server.database("migrating"))
    yield made
    made.dispose()
    execute(admin, "DROP DATABASE migrating")
    admin.dispose()


def differences(engine: Engine) -> list[object]:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Base.metadata))


def test_the_head_is_what_the_program_means_and_each_step_goes_back(engine):
    upgrade(engine)
    assert differences(engine) == []
    for revision in ("0002", "0001"):
        downgrade(engine, revision)
        upgrade(engine)
        assert differences(engine) == [], revision


def test_days_are_counted_of_the_downloads_there_are(engine):
    upgrade(engine, "0002")
    rows = [
        ("dl_1", "a", 10, timedelta(0), True),
        ("dl_2", "a", 20, timedelta(minutes=1), False),
        ("dl_3", "b", 30, timedelta(minutes=29, seconds=59), True),
        ("dl_4", "b", 40, timedelta(minutes=30), True),  # the next day
    ]
    quiet = engine.dialect.name == "sqlite"
    with engine.begin() as connection:
        if not quiet:
            connection.execute(text("SET session_replication_role = replica"))
        else:
            connection.execute(text("PRAGMA defer_foreign_keys = ON"))
        for name, path, size, later, whole in rows:
            at = BEGAN + later
            connection.execute(
                text(
                    "INSERT INTO download (id, track_id, revision_id, path, sha256, size,"
                    " started_at, bytes_sent, completed_at) VALUES"
                    " (:id, 'trk_1', 'rev', :path, 'aa', :size, :at, :size, :done)"
                ),
                {
                    "id": name,
                    "path": path,
                    "size": size,
                    "at": at.replace(tzinfo=None) if quiet else at,
                    "done": at.replace(tzinfo=None) if whole and quiet else at if whole else None,
                },
            )
        _upgrade_within(connection)
        told = connection.execute(
            text(
                "SELECT id, day, deliveries, completed, files, bytes, tokens FROM download_day"
                " ORDER BY day"
            )
        ).all()
        waits = connection.execute(text("SELECT id FROM download WHERE counted_at IS NULL")).all()
        assert [(r[0], date.fromisoformat(str(r[1])), *r[2:]) for r in told] == [
            ("2026-03-01|trk_1|", date(2026, 3, 1), 3, 2, 2, 60, 0),
            ("2026-03-02|trk_1|", date(2026, 3, 2), 1, 1, 1, 40, 0),
        ]
        assert waits == []
        connection.rollback()


def _upgrade_within(connection) -> None:
    """Go to the head inside a transaction whose rows rest on nothing, and that is thrown away."""
    from alembic import command

    from stagerelease.db.migrate import _config

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

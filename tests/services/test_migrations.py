"""Migrations on both databases: to the head and back, and what they do with rows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from make_partners import REPO, database_url, partnered, world
from sqlalchemy import Engine, inspect, text

from databases import execute
from stagerelease.db.base import Base
from stagerelease.db.engine import make_engine
from stagerelease.db.migrate import downgrade, upgrade
from stagerelease.downloads import service as downloads
from stagerelease.downloads.tables import Download
from stagerelease.identity import service as identity

__all__ = ["database_url", "partnered", "world"]  # fixtures

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


def counts(engine: Engine) -> dict[str, int]:
    """How many rows each table has."""
    with engine.connect() as connection:
        return {
            name: connection.execute(text(f"SELECT count(*) FROM {name}")).scalar_one()
            for name in sorted(Base.metadata.tables)
        }


def test_a_used_database_goes_back_and_forth_with_every_row(world):
    """SQLite makes a table anew to change a column, while others refer to it."""
    world.granted()
    with world.begin("ann", quiet=True) as work:
        ticket = downloads.prepare(
            work, repo_id=REPO, rev="main", path="model.safetensors", record=True
        )
    downloads.finish(world.works, ticket.download_id, first=0, sent=4, outcome="client_left")
    with world.begin("ann") as work:
        identity.create_token(work, person="ann", name="made by a token")
    engine = world.works.engine
    before = counts(engine)
    assert min(before[name] for name in ("download", "transfer", "api_token", "log_leaf")) > 0
    for revision in ("0007", "0006", "0004"):
        downgrade(engine, revision)
        upgrade(engine)
        assert counts(engine) == before, revision
        assert differences(engine) == []
    with world.begin("ann", quiet=True) as work:  # and it is used on
        again = downloads.prepare(
            work, repo_id=REPO, rev="main", path="model.safetensors", record=True
        )
    assert again.download_id == ticket.download_id
    downloads.finish(world.works, ticket.download_id, first=4, sent=5, outcome="whole")
    with world.works.begin(read_only=True) as work:
        assert work.session.get_one(Download, ticket.download_id).completed_at is not None


def test_a_row_that_refers_to_none_stops_a_migration(engine):
    if engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL never lets go of what refers")
    upgrade(engine, "0007")
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        driver.execute("PRAGMA foreign_keys=OFF")
        driver.execute(
            "INSERT INTO api_token (id, person_id, name, display, sha256, scopes, created_at) "
            "VALUES ('t', 'nobody', 'n', 'd', x'00', '[]', '2026-01-01 00:00:00.000000')"
        )
        driver.execute("PRAGMA foreign_keys=ON")
    with pytest.raises(RuntimeError, match="a row of api_token refers to a row of person"):
        upgrade(engine)
    assert "made_by" not in {c["name"] for c in inspect(engine).get_columns("api_token")}


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

"""Brings a database to the schema of this version, and tells whether it is there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from stagerelease.kernel.errors import Unavailable

_PACKAGED = Path(__file__).resolve().parent.parent / "_migrations"
_IN_TREE = Path(__file__).resolve().parents[3] / "migrations"


def _config() -> Config:
    config = Config()
    where = _PACKAGED if _PACKAGED.is_dir() else _IN_TREE
    config.set_main_option("script_location", str(where))
    return config


@contextmanager
def migrating(engine: Engine) -> Iterator[Connection]:
    """Give a connection in a transaction that may make tables anew; it commits when all is well.

    SQLite changes a column by making its table anew, which other tables refer to all the while. So
    it does not watch over that meanwhile (it cannot be told to within a transaction), and is asked
    at the end whether every row still refers to one that is there.

    Raises:
        RuntimeError: one does not; nothing is changed.
    """
    with engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        sqlite = engine.dialect.name == "sqlite"
        if sqlite:
            driver.execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                yield connection
                lost = (
                    connection.exec_driver_sql("PRAGMA foreign_key_check").first()
                    if sqlite
                    else None
                )
                if lost is not None:
                    raise RuntimeError(
                        f"a row of {lost[0]} refers to a row of {lost[2]} that is gone"
                    )
        finally:
            if sqlite:
                driver.execute("PRAGMA foreign_keys=ON")


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Run every migration that is missing, in one transaction on each database."""
    config = _config()
    with migrating(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Go back to ``revision`` (tests of migrations; an operator restores a backup instead)."""
    config = _config()
    with migrating(engine) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def check_schema(engine: Engine) -> None:
    """Return only if the database is at this version's schema.

    Raises:
        Unavailable: it is not; says which revision is there and which is needed.
    """
    head = ScriptDirectory.from_config(_config()).get_current_head()
    with engine.connect() as connection:
        here = MigrationContext.configure(connection).get_current_revision()
    if here != head:
        raise Unavailable(
            f"The database is at schema {here or '(none)'}, and this version needs {head}. "
            "Run 'stagerelease migrate'.",
            reason="schema",
        )

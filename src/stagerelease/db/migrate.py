"""Brings a database to the schema of this version, and tells whether it is there."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from stagerelease.kernel.errors import Unavailable

_PACKAGED = Path(__file__).resolve().parent.parent / "_migrations"
_IN_TREE = Path(__file__).resolve().parents[3] / "migrations"


def _config() -> Config:
    config = Config()
    where = _PACKAGED if _PACKAGED.is_dir() else _IN_TREE
    config.set_main_option("script_location", str(where))
    return config


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Run every migration that is missing, in one transaction on each database."""
    config = _config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Go back to ``revision`` (tests of migrations; an operator restores a backup instead)."""
    config = _config()
    with engine.begin() as connection:
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

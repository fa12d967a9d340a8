"""Runs migrations on the connection it is given, or on STAGERELEASE_DATABASE_URL."""

import importlib
import os
import pkgutil

from alembic import context

import stagerelease
from stagerelease.db.base import Base
from stagerelease.db.engine import make_engine
from stagerelease.db.migrate import migrating
from stagerelease.settings import read_settings

for module in pkgutil.walk_packages(stagerelease.__path__, "stagerelease."):
    if module.name.rsplit(".", 1)[-1] in ("tables", "epoch"):
        importlib.import_module(module.name)

ADVISORY_LOCK = 7_305_811_946  # one migrator at a time on PostgreSQL


def run(connection):
    """Run in the caller's transaction."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})")
        connection.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
        connection.exec_driver_sql("SET LOCAL statement_timeout = '60s'")
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    settings = read_settings(os.environ)
    with migrating(make_engine(settings.resolved_database_url)) as connection:
        run(connection)

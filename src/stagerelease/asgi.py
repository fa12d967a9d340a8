"""One factory per process role, for the ASGI server to call."""

from __future__ import annotations

import os

from fastapi import FastAPI

from stagerelease.bootstrap import build
from stagerelease.db.migrate import check_schema
from stagerelease.http.app import create_app
from stagerelease.logs import configure_logs
from stagerelease.settings import read_settings


def web() -> FastAPI:
    """Return the web application of this process.

    Raises:
        Unavailable: the database is away or not at this version's schema.
    """
    settings = read_settings(os.environ)
    configure_logs(settings.log_level)
    box = build(settings)
    check_schema(box.works.engine)
    return create_app(box)

"""One factory per process role, for the ASGI server to call."""

from __future__ import annotations

import gc
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
    app = create_app(box)
    calm_collector()
    return app


def calm_collector() -> None:
    """Keep the garbage collector from walking all that was loaded at start, again and again.

    What lives as long as the process is set aside once, and the young are collected less often: a
    page that makes many short-lived rows is not stopped for a tenth of a second in its midst.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)

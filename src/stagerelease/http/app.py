"""Builds the web application: guard, error shapes, faces. The factory takes wired ports."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI
from starlette.middleware import Middleware

from stagerelease import __version__
from stagerelease.downloads.edge import EdgeWatch
from stagerelease.http.api import ROUTERS as API_ROUTERS
from stagerelease.http.guard import Guard
from stagerelease.http.hub import FILES
from stagerelease.http.hub import ROUTERS as HUB_ROUTERS
from stagerelease.http.hub.decisions import Decisions
from stagerelease.http.hub.strangers import Strangers
from stagerelease.http.needs import Described
from stagerelease.http.openai import ROUTERS as OPENAI_ROUTERS
from stagerelease.http.openai.continuing import Continuing
from stagerelease.http.pages import LAST as LAST_PAGES
from stagerelease.http.pages import ROUTERS as PAGE_ROUTERS
from stagerelease.http.pages.demo import read_demo
from stagerelease.http.pages.failing import problem_page
from stagerelease.http.pages.slowly import install_slow
from stagerelease.http.ports import Ports
from stagerelease.http.problems import install_problems
from stagerelease.http.sentinel import Sentinel
from stagerelease.inference.service import Contexts

# The routes that stream their own bodies and enforce their own limits: method and whole path, so
# that no other route (``/{ns}/{name}/ask-access`` has any two words) is spared with them.
UNLIMITED = re.compile(
    r"PUT /api/uploads/[^/]+/[^/]+"
    r"|POST /api/models/[^/]+/[^/]+/(commit|preupload)/.+"
    r"|POST /(api/v1|me)/evidence/[^/]+/attachments",
    re.DOTALL,
)


def create_app(ports: Ports) -> FastAPI:
    """Return the application over ``ports``: JSON face, Hub face, ledger, health."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = ports.settings.threads
        sentinel: Sentinel = app.state.sentinel
        async with sentinel.running():
            yield
        await ports.engine.close()

    app = Described(
        title="stagerelease",
        version=__version__,
        summary="Staged release of model weights: evidence, decision, grant, delivered bytes.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        strict_content_type=True,
        middleware=[Middleware(Guard, max_body=ports.settings.max_json_bytes, unlimited=UNLIMITED)],
    )
    app.state.settings = ports.settings
    app.state.works = ports.works
    app.state.blobs = ports.blobs
    app.state.signer = ports.signer
    app.state.link_key = ports.link_key
    app.state.problem_page = problem_page
    app.state.continuing = Continuing()
    app.state.demo = read_demo(ports.settings)
    app.state.sentinel = Sentinel(ports.works)
    app.state.decisions = Decisions(app.state.sentinel, ports.works.clock.now)
    app.state.strangers = Strangers()
    app.state.edge_watch = EdgeWatch(ports.works)
    app.state.engine = ports.engine
    app.state.contexts = Contexts(ports.blobs)
    install_problems(app)
    install_slow(app)
    # Routes are tried in order: the hottest one, a file by ``resolve``, comes first.
    app.take(FILES, *OPENAI_ROUTERS, *API_ROUTERS, *PAGE_ROUTERS, *HUB_ROUTERS, LAST_PAGES)
    return app

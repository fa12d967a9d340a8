"""The inference process: binds its address, serves an engine there, drains when told to stop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path

import structlog
import uvicorn

from stagerelease.engine.ports import Engine
from stagerelease.engine.remote import require_short
from stagerelease.engine.server import inference_app
from stagerelease.kernel.errors import Invalid

log = structlog.get_logger(__name__)


def bind_socket(path: Path) -> socket.socket:
    """Return a Unix socket at ``path`` that its owner alone may open.

    A socket that a dead process left is replaced.

    Raises:
        Invalid: the path is too long, or a living process listens there.
    """
    require_short(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.is_socket():
        if _answers(path):
            raise Invalid(
                f"Another inference process listens on {path}.",
                reason="inference.socket",
                next_step="Stop it first; one installation has one.",
            )
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mode must be right from the first instant, so it is set by what is masked out.
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise _cannot_listen(str(path), error) from error
    finally:
        os.umask(before)
    return listener


def bind_tcp(host: str, port: int) -> socket.socket:
    """Return a TCP socket bound to ``host`` and ``port``.

    Raises:
        Invalid: it cannot be bound; says why.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _cannot_listen(f"{host}:{port}", error) from error
    return listener


def _cannot_listen(where: str, error: OSError) -> Invalid:
    return Invalid(
        f"The inference process cannot listen on {where}: {error.strerror or error}.",
        reason="inference.socket",
        next_step="Choose another address with STAGERELEASE_INFERENCE_LISTEN.",
    )


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(str(path)) not in (errno.ECONNREFUSED, errno.ENOENT)


class _Draining(uvicorn.Server):
    """Lets the engine finish, and say so in every stream it could not, before connections end."""

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self._engine = engine

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        closing = asyncio.ensure_future(self._engine.close())
        await super().shutdown(sockets)
        await closing


def server_of(engine: Engine, *, secret: str | None, grace: float) -> uvicorn.Server:
    """Return a server of ``engine`` that stops ``grace`` seconds after it was told to, at most."""
    config = uvicorn.Config(
        inference_app(engine, secret=secret),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(grace) + 2,  # the engine's own grace ends before it
    )
    return _Draining(config, engine)


def serve(engine: Engine, listener: socket.socket, *, secret: str | None, grace: float) -> None:
    """Serve until SIGTERM or SIGINT, then let what runs finish within ``grace`` seconds."""
    log.info("inference started", listens=str(listener.getsockname()))
    server_of(engine, secret=secret, grace=grace).run(sockets=[listener])
    log.info("inference stopped")

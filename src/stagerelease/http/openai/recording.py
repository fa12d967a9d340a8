"""Writes down how a request ended and what it used: once, and even if it takes a while.

What a record waits for (a thread, the database) must neither be lost with a client that hangs up
meanwhile nor stand in the way of what has been computed.
"""

from __future__ import annotations

import asyncio
import time

import structlog
from starlette.concurrency import run_in_threadpool

from stagerelease.db.work import Works
from stagerelease.http.openai.wire import Usage
from stagerelease.inference import service as inference

log = structlog.get_logger(__name__)
PAUSES = (0.1, 0.5, 2.0, 10.0, 30.0)
"""Seconds before each further attempt to write, when the database did not answer."""
PATIENCE = 3.0
"""Seconds an answer waits for its record; then the record follows it."""

_under_way: set[asyncio.Future[None]] = set()
"""Records being written. A loop knows its tasks weakly: one that nobody holds may vanish."""


class Record:
    """The record of one request, from its permit on; ``usage`` is filled in as it becomes known."""

    def __init__(self, works: Works, request_id: str) -> None:
        self.usage = Usage()
        self._works, self._request_id = works, request_id
        self._began = time.monotonic()
        self._writing: asyncio.Future[None] | None = None

    async def end(self, outcome: str, *, patience: float | None = None) -> None:
        """Record the end; the first outcome stays. Never fails, whatever the database does."""
        if self._writing is None:
            self._writing = asyncio.ensure_future(self._write(outcome))
            _under_way.add(self._writing)
            self._writing.add_done_callback(_under_way.discard)
        await asyncio.wait({self._writing}, timeout=PATIENCE if patience is None else patience)

    async def _write(self, outcome: str) -> None:
        prompt_tokens, completion_tokens = self.usage.prompt_tokens, self.usage.completion_tokens
        milliseconds = int((time.monotonic() - self._began) * 1000)
        for pause in (*PAUSES, None):
            try:
                await run_in_threadpool(
                    inference.finish,
                    self._works,
                    self._request_id,
                    prompt_tokens=prompt_tokens,
                    completion_tokens=completion_tokens,
                    milliseconds=milliseconds,
                    outcome=outcome,
                )
            except Exception as error:  # noqa: BLE001 (whatever it is, the reservation hangs on it)
                why = type(error).__name__
                if pause is None:  # the reservation expires by itself
                    log.error("use was not recorded", request=self._request_id, error=why)
                    return
                log.warning("use is not recorded yet", request=self._request_id, error=why)
                await asyncio.sleep(pause)
            else:
                return

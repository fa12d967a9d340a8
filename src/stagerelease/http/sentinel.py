"""Makes revocation reach every web process: refusals within 1 s, cuts within 5 s.

One thread per process reads the access epoch five times a second. While the value it last read is
fresh, decisions taken under it may be reused; when it moves, every download in flight is asked
again and cut if it would be refused now. When the database cannot be asked, nothing is reused, and
after ``BLIND_LIMIT`` everything in flight is cut: what cannot be checked is not delivered.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from stagerelease.db.engine import WRITES
from stagerelease.db.epoch import read_epoch
from stagerelease.db.work import Works

log = structlog.get_logger(__name__)

POLL = 0.2
FRESH = 0.7
BLIND_LIMIT = 3.0


@dataclass(eq=False, slots=True)
class InFlight:
    """One body on its way: how to ask again whether it may go on, and how to stop it."""

    recheck: Callable[[], tuple[bool, datetime | None]]
    until: datetime | None
    epoch: int  # the access epoch its decision was taken under
    loop: asyncio.AbstractEventLoop
    cut: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self) -> None:
        """Cut this download; callable from any thread."""
        self.loop.call_soon_threadsafe(self.cut.set)


class Sentinel:
    """Watches the access epoch for one web process."""

    def __init__(self, works: Works) -> None:
        self._works = works
        self._epoch = -1
        self._read_at = 0.0
        self._flights: set[InFlight] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @property
    def fresh_epoch(self) -> int | None:
        """Return the epoch if it was read less than ``FRESH`` seconds ago, else None."""
        return self._epoch if time.monotonic() - self._read_at < FRESH else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the watch while the application serves."""
        thread = threading.Thread(target=self._watch, name="sentinel", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            await asyncio.to_thread(thread.join, 5)

    def admit(self, flight: InFlight) -> None:
        """Watch over ``flight`` until ``release``."""
        with self._lock:
            self._flights.add(flight)

    def release(self, flight: InFlight) -> None:
        """Forget ``flight``; its body has ended."""
        with self._lock:
            self._flights.discard(flight)

    def _watch(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                epoch = self._read()
                self._epoch, self._read_at = epoch, began
                self._recheck(epoch)
            except Exception as error:  # noqa: BLE001 (the watch must outlive any database error)
                log.warning("the access epoch could not be read", error=type(error).__name__)
                if began - self._read_at > BLIND_LIMIT:
                    self._cut_all()
            self._stop.wait(POLL)

    def _read(self) -> int:
        with self._works.engine.connect() as bare:
            return read_epoch(bare.execution_options(**{WRITES: False}))

    def _recheck(self, epoch: int) -> None:
        now = self._works.clock.now()
        with self._lock:
            flights = list(self._flights)
        for flight in flights:
            due = flight.until is not None and flight.until <= now
            if due or flight.epoch != epoch:
                allowed, flight.until = flight.recheck()
                flight.epoch = epoch
                if not allowed:
                    flight.stop()

    def _cut_all(self) -> None:
        with self._lock:
            flights = list(self._flights)
        for flight in flights:
            flight.stop()

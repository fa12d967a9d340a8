"""Makes revocation reach every web process: refusals within 1 s, cuts within 5 s.

One thread per process reads the access epoch five times a second. While the value it last read is
fresh, decisions taken under it may be reused; when it moves, everything in flight is asked about
again and cut if it would be refused now. When the database cannot be asked, nothing is reused. A
second thread cuts whatever was not known to be allowed for ``BLIND_LIMIT`` seconds, also while the
first one waits for an answer: what cannot be checked is not delivered.

Both speak to the database over connections of their own: those of the request threads may all be
taken just when it matters.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from sqlalchemy.exc import SQLAlchemyError

from stagerelease.db.engine import WRITES, make_engine
from stagerelease.db.epoch import read_epoch
from stagerelease.db.work import Works
from stagerelease.kernel.errors import DomainError

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
    sure_at: float = 0.0  # when it was last known that it may, by the sentinel's time

    def stop(self) -> None:
        """Cut this body; callable from any thread."""
        with suppress(RuntimeError):  # its loop is closed, and it with that
            self.loop.call_soon_threadsafe(self.cut.set)


class Sentinel:
    """Watches the access epoch for one web process. ``works`` is the door for rechecks."""

    def __init__(self, works: Works) -> None:
        url = works.engine.url.render_as_string(hide_password=False)
        self.works = Works(make_engine(url, pool_size=1), works.clock)
        self._epoch = -1
        self._read_at = 0.0
        self._awake = 0.0
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
        threads = [
            threading.Thread(target=self._watch, name="sentinel", daemon=True),
            threading.Thread(target=self._guard, name="sentinel-guard", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                await asyncio.to_thread(thread.join, 5)
            self.works.engine.dispose()

    def admit(self, flight: InFlight) -> None:
        """Watch over ``flight`` until ``release``."""
        with self._lock:
            flight.sure_at = self._awake
            self._flights.add(flight)

    def release(self, flight: InFlight) -> None:
        """Forget ``flight``; its body has ended."""
        with self._lock:
            self._flights.discard(flight)

    def _watched(self) -> list[InFlight]:
        with self._lock:
            return list(self._flights)

    # The first thread

    def _watch(self) -> None:
        while not self._stop.is_set():
            began, awake = time.monotonic(), self._awake
            try:
                epoch = self._read()
                self._epoch, self._read_at = epoch, began
                self._recheck(epoch, awake)
            except Exception as error:  # noqa: BLE001 (the watch must outlive any database error)
                log.warning("the access epoch could not be read", error=type(error).__name__)
            self._stop.wait(POLL)

    def _read(self) -> int:
        with self.works.engine.connect() as bare:
            return read_epoch(bare.execution_options(**{WRITES: False}))

    def _recheck(self, epoch: int, awake: float) -> None:
        """Ask about everything in flight that may have changed since ``awake``."""
        now = self.works.clock.now()
        for flight in self._watched():
            due = flight.until is not None and flight.until <= now
            if due or flight.epoch != epoch:
                self._ask(flight, epoch)
            else:
                flight.sure_at = awake

    def _ask(self, flight: InFlight, epoch: int) -> None:
        """Ask about one. Whatever is wrong with it, those behind it have their turn."""
        awake = self._awake
        try:
            allowed, flight.until = flight.recheck()
        except (DomainError, SQLAlchemyError) as error:  # asked again at the next turn
            log.warning("a body in flight could not be checked", error=type(error).__name__)
            return
        except Exception:
            log.exception("asking about a body in flight broke, so it was cut")
            flight.stop()
            return
        flight.epoch, flight.sure_at = epoch, awake
        if not allowed:
            flight.stop()

    # The second thread

    def _guard(self) -> None:
        """Cut what nobody knows to be allowed. Time is counted turn by turn: what a stopped machine
        slept through is no reason.
        """
        while not self._stop.wait(POLL):
            self._awake += POLL
            for flight in self._watched():
                if self._awake - flight.sure_at > BLIND_LIMIT:
                    flight.stop()

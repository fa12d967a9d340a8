"""Decisions of a moment ago, reused while the access epoch has not moved.

A client asks HEAD many times for the files of one snapshot. A permitted decision is kept for
``KEEP`` seconds under the exact epoch it was taken under; the sentinel reads the epoch five times a
second, and when it cannot, nothing is reused. So a revocation reaches every process in well under a
second, and refusals are never reused at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from stagerelease.downloads.service import Ticket
from stagerelease.http.sentinel import Sentinel

KEEP = 5.0
MOST = 20_000
Key = tuple[str, str, str, str]


class Decisions:
    """Permitted HEADs by (bearer, repository, revision, path), for one web process."""

    def __init__(self, sentinel: Sentinel, now: Callable[[], datetime]) -> None:
        self._sentinel = sentinel
        self._now = now
        self._kept: dict[Key, tuple[float, Ticket]] = {}

    def find(self, key: Key) -> Ticket | None:
        """Return a decision that still stands, or None."""
        epoch = self._sentinel.fresh_epoch
        held = self._kept.get(key)
        if held is None or epoch is None:
            return None
        kept_at, ticket = held
        if ticket.epoch != epoch or time.monotonic() - kept_at > KEEP:
            del self._kept[key]
            return None
        if ticket.until is not None and ticket.until <= self._now():
            return None
        return ticket

    def keep(self, key: Key, ticket: Ticket) -> None:
        """Keep a permitted decision for its short life."""
        if len(self._kept) >= MOST:
            self._kept.clear()
        self._kept[key] = (time.monotonic(), ticket)

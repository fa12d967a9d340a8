"""Which download the ranges go on with that somebody without a token asks of a public file.

Who is known is recognised by the database. Nothing there says where a stranger came from, and
nothing shall: for an hour, and until somebody asks again, this process remembers it instead, no
more exactly than the network. Without it each byte asked for by itself would be a download, and an
entry of the log, of its own. Two strangers of one network who ask for parts of one file are one to
it; whoever asks for a file whole is counted.
"""

from __future__ import annotations

import threading
import time

from fastapi import Request

from stagerelease.downloads.service import SAME_DOWNLOAD
from stagerelease.http import ranges
from stagerelease.http.begin import bearer_of
from stagerelease.kernel.networks import network_of

MOST = 20_000
Key = tuple[str, str, str, str]


def asks_for_a_part(request: Request, size: int) -> bool:
    """Tell whether a request asks for less than the whole of a file, whatever becomes of it.

    One with a condition (If-Range) may be answered with the whole.
    """
    if "if-range" in request.headers:
        return False
    return ranges.select(size, range_header=request.headers.get("range")).length < size


class Strangers:
    """The last download by (network, repository, revision, path), for one web process."""

    def __init__(self) -> None:
        self._last: dict[Key, tuple[float, str]] = {}  # the longest untouched first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._last)

    def key(self, request: Request, repo_id: str, rev: str, path: str) -> Key | None:
        """Return what to look for, or None for a caller with a token."""
        if bearer_of(request) is not None:
            return None
        return network_of(request.client.host if request.client else None), repo_id, rev, path

    def find(self, key: Key) -> str | None:
        """Return the download last begun under ``key``; whether it may go on is not said."""
        with self._lock:
            self._forget()
            found = self._last.get(key)
        return found[1] if found is not None else None

    def keep(self, key: Key, download_id: str) -> None:
        """Remember a download, the latest of all; the earliest is forgotten when there are many."""
        with self._lock:
            self._forget()
            self._last.pop(key, None)
            self._last[key] = time.monotonic(), download_id
            if len(self._last) > MOST:
                del self._last[next(iter(self._last))]

    def _forget(self) -> None:
        """Forget what nobody went on with for as long as a download lasts. Under the lock."""
        over = time.monotonic() - SAME_DOWNLOAD.total_seconds()
        while self._last:
            first = next(iter(self._last))
            if self._last[first][0] > over:
                return
            del self._last[first]

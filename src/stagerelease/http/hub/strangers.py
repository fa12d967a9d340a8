"""Which download the ranges go on with that somebody without a token asks of a public file.

Who is known is recognised by the database. Nothing there says where a stranger came from, and
nothing shall: for an hour this process remembers it instead, no more exactly than the network, and
forgets it when it stops. Without it each byte asked for by itself would be a download, and an entry
of the log, of its own. Two strangers of one network who ask for ranges of one file are one to it;
whoever asks for a file whole is always counted.
"""

from __future__ import annotations

import threading

from fastapi import Request

from stagerelease.http.begin import bearer_of
from stagerelease.kernel.networks import network_of

MOST = 20_000
Key = tuple[str, str, str, str]


class Strangers:
    """The last download by (network, repository, revision, path), for one web process."""

    def __init__(self) -> None:
        self._last: dict[Key, str] = {}
        self._lock = threading.Lock()

    def key(self, request: Request, repo_id: str, rev: str, path: str) -> Key | None:
        """Return what to look for, or None for a caller with a token."""
        if bearer_of(request) is not None:
            return None
        return network_of(request.client.host if request.client else None), repo_id, rev, path

    def find(self, key: Key) -> str | None:
        """Return the download last begun under ``key``; whether it may go on is not said."""
        return self._last.get(key)

    def keep(self, key: Key, download_id: str) -> None:
        """Remember a download, the latest of all; the earliest is forgotten for it."""
        with self._lock:
            self._last.pop(key, None)
            self._last[key] = download_id
            if len(self._last) > MOST:
                del self._last[next(iter(self._last))]

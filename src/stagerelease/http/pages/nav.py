"""What the header leads to. An entry shows itself once its page is there, to who may read it.

Whoever adds a page adds its router to ``pages.ROUTERS``; nothing else has to be told.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fastapi import APIRouter

from stagerelease.http.pages.begin import Viewer
from stagerelease.identity.rules import Permission


@dataclass(frozen=True, slots=True)
class Entry:
    """A link of the header: where it leads, its words, and who it is for."""

    path: str
    words: str
    known: bool = False
    needs: Permission | None = None

    def is_for(self, viewer: Viewer) -> bool:
        """Tell whether a visitor has any use for it."""
        if self.path not in PATHS or (self.known and not viewer.known):
            return False
        return self.needs is None or self.needs in viewer.may


MAIN = (
    Entry("/", "Timeline"),
    Entry("/models", "Models"),
    Entry("/playground", "Playground"),
    Entry("/log", "Audit log"),
    Entry("/docs", "Docs"),
    Entry("/me", "My access", known=True),
)
STAFF = (
    Entry("/staff", "Board", needs=Permission.TRACK_READ),
    Entry("/staff/requests", "Requests", needs=Permission.ACCESS_REQUEST_READ),
    Entry("/staff/incidents", "Incidents", needs=Permission.INCIDENT_READ),
    Entry("/staff/evidence", "Evidence", needs=Permission.EVIDENCE_READ),
    Entry("/staff/plans", "Plans", needs=Permission.PLAN_READ),
    Entry("/staff/holders", "Holders", needs=Permission.GRANT_READ),
    Entry("/staff/agreements", "Agreements", needs=Permission.AGREEMENT_READ),
    Entry("/staff/usage", "Usage", needs=Permission.USAGE_READ),
    Entry("/staff/people", "People", needs=Permission.PEOPLE_READ),
    Entry("/staff/webhooks", "Webhooks", needs=Permission.WEBHOOK_MANAGE),
)
PATHS: set[str] = set()
"""The addresses that pages have, without those that name something."""


def know(routers: Iterable[APIRouter]) -> None:
    """Take note of the pages there are."""
    for router in routers:
        PATHS.update(route.path for route in router.routes if hasattr(route, "path"))


def links(entries: Iterable[Entry], viewer: Viewer) -> list[Entry]:
    """Return the entries that a visitor is shown."""
    return [entry for entry in entries if entry.is_for(viewer)]


def current(entry: Entry, here: str, siblings: Iterable[Entry]) -> str:
    """Return how an entry stands to the page one is on: ``page``, ``true`` (below it) or nothing.

    Of several entries above a page the longest is meant, and none where one is the page itself.
    """
    if here == entry.path:
        return "page"
    siblings = list(siblings)
    if any(e.path == here for e in siblings):
        return ""
    above = [e.path for e in siblings if e.path != "/" and here.startswith(e.path + "/")]
    return "true" if above and entry.path == max(above, key=len) else ""


def log_address(idx: int) -> str:
    """Return where an entry of the log is shown: on its page, or as its proof alone."""
    return f"/log/{idx}" if "/log/{idx}" in PATHS else f"/log/proof/{idx}"

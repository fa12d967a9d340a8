"""The words of every notice: what happened, why it is sent to you, what to do. Pure data.

Texts hold ``{names}`` of facts; a fact that is missing reads as ``—``. Names and reasons come from
outside: they fill the text and are never read as markup, headers or links.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stagerelease.kernel.clock import said

GROUPS: Mapping[str, str] = {
    "account": "Signing in, addresses and tokens",
    "legal": "Agreements, signatures and declarations",
    "access": "Your access: grants and requests",
    "review": "Work that waits for staff",
    "release": "Releases, plans and evidence",
    "security": "Incidents, advisories and holds",
}
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
ALWAYS = frozenset({"account", "legal", "security"})
"""Groups nobody can turn off: missing one would cost access, rights or safety."""


@dataclass(frozen=True, slots=True)
class Words:
    """One event in words. ``path`` is where it is shown, with ``{names}``; "" when nowhere."""

    group: str
    title: str
    said: str
    why: str
    todo: str
    path: str = ""
    at_once: bool = False  # never waits for a digest


class _Facts(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "—"


def fill(text: str, facts: Mapping[str, Any]) -> str:
    """Return ``text`` with its ``{names}`` filled; values are shown as they are, never read again.

    Only plain names are filled: nothing of a fact's own attributes or items can be reached.
    """
    shown = {key: _plain(value) for key, value in facts.items()}
    return text.format_map(_Facts(shown)).strip()


def _plain(value: Any) -> str:
    if value is None or value == "":
        return "—"
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, str) and INSTANT.fullmatch(value):
        return said(datetime.fromisoformat(value))
    return str(value)


def one_line(text: str, limit: int = 180) -> str:
    """Return ``text`` on one line of printable characters: what may stand in a mail's header."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"

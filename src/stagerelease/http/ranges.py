"""Which bytes of a representation a request asks for (RFC 9110 §13.1.5, §14). Pure: no I/O.

One range is served as 206. What is malformed, in another unit or in several parts is answered
with the whole, which RFC 9110 §14.2 allows for any request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

_ONE_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]*)-([0-9]*)[ \t]*\Z", re.IGNORECASE | re.ASCII)
_MOST_DIGITS = 18  # longer numbers are past the end of any file; Python would not convert them all
_PAST_ANY_END = 10**_MOST_DIGITS


@dataclass(frozen=True, slots=True)
class Selection:
    """What to send: ``length`` bytes from ``start`` of ``size``, under ``status``."""

    status: Literal[200, 206, 416]
    start: int
    length: int
    size: int

    @property
    def content_range(self) -> str | None:
        """Return the Content-Range value, or None where the header has no place."""
        if self.status == 206:
            return f"bytes {self.start}-{self.start + self.length - 1}/{self.size}"
        if self.status == 416:
            return f"bytes */{self.size}"
        return None


def select(
    size: int,
    *,
    range_header: str | None,
    if_range: str | None = None,
    etag: str | None = None,
    last_modified: str | None = None,
) -> Selection:
    """Return which bytes of ``size`` a GET gets.

    ``etag`` and ``last_modified`` are the representation's own header values; ``if_range`` that
    equals neither makes the range void, and the whole is sent.
    """
    whole = Selection(200, 0, size, size)
    match = _ONE_RANGE.match(range_header) if range_header is not None else None
    if match is None:
        return whole
    if if_range is not None and not _still_the_same(if_range, etag, last_modified):
        return whole
    first, last = match.groups()
    if not first:
        return _suffix(size, last) if last else whole
    start = _number(first)
    stop = _number(last) if last else _PAST_ANY_END
    if last and _order(last) < _order(first):
        return whole  # §14.1.1: a last position below the first is an invalid range
    if start >= size:
        return Selection(416, 0, 0, size)
    return Selection(206, start, min(stop, size - 1) - start + 1, size)


def _suffix(size: int, digits: str) -> Selection:
    wanted = min(_number(digits), size)
    if _number(digits) == 0:
        return Selection(416, 0, 0, size)
    if size == 0:  # satisfiable (§14.1.2), and Content-Range cannot say "no bytes": send it whole
        return Selection(200, 0, 0, 0)
    return Selection(206, size - wanted, wanted, size)


def _order(digits: str) -> tuple[int, str]:
    """Return what orders numbers of any length, beyond those that are worth computing with."""
    plain = digits.lstrip("0")
    return len(plain), plain


def _number(digits: str) -> int:
    plain = digits.lstrip("0")
    return _PAST_ANY_END if len(plain) > _MOST_DIGITS else int(plain or "0")


def _still_the_same(if_range: str, etag: str | None, last_modified: str | None) -> bool:
    """Compare an If-Range value strongly (§13.1.5): weak tags match nothing, dates exactly."""
    value = if_range.strip(" \t")
    if value.startswith(('"', "W/", "w/")):
        return value.startswith('"') and value == etag
    if last_modified is None:
        return False
    try:
        return parsedate_to_datetime(value) == parsedate_to_datetime(last_modified)
    except (TypeError, ValueError):
        return False

"""The only place that asks what time it is. Use cases read ``work.now`` and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Something that tells the present instant as an aware UTC datetime."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the machine's time in UTC."""
        return datetime.now(UTC)


class SetClock:
    """A clock that stands still until it is moved: for replays of history and for tests."""

    def __init__(self, at: datetime) -> None:
        if at.tzinfo is None:
            raise ValueError("a clock needs an aware datetime")
        self._at = at.astimezone(UTC)

    def now(self) -> datetime:
        """Return the instant this clock is set to."""
        return self._at

    def move(self, delta: timedelta) -> datetime:
        """Move by ``delta`` and return the new instant."""
        self._at += delta
        return self._at

    def set(self, at: datetime) -> None:
        """Jump to ``at``."""
        self._at = at.astimezone(UTC)


FIRST_YEAR, LAST_YEAR = 1900, 2200
"""Years that an instant handed in may be of: at the calendar's own ends arithmetic fails."""
OUT_OF_RANGE = f"An instant is from a year between {FIRST_YEAR} and {LAST_YEAR}, in UTC."


def in_range(at: datetime) -> datetime:
    """Return an aware instant in UTC, as everything here keeps it.

    Raises:
        ValueError: its year in UTC is none that is kept; says so in words.
    """
    try:
        at = at.astimezone(UTC)
    except OverflowError as error:  # the last day of 9999 ends in no year west of Greenwich
        raise ValueError(OUT_OF_RANGE) from error
    if not FIRST_YEAR <= at.year <= LAST_YEAR:
        raise ValueError(OUT_OF_RANGE)
    return at


def iso(at: datetime) -> str:
    """Return ``YYYY-MM-DDTHH:MM:SS.mmmZ``, the one spelling of an instant on every wire."""
    at = at.astimezone(UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def said(at: datetime) -> str:
    """Return an instant as sentences for people say it: ``7 March 2027, 09:30 UTC``."""
    at = at.astimezone(UTC)
    return f"{at.day} {at:%B %Y, %H:%M} UTC"

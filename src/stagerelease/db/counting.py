"""Counts hour by hour in the database: one count for every process, for limits that must hold.

Shorter windows are counted in the same rows, whose time is then the start of the window.

What is refused rolls back with its Work, so that only what was done counts. Which limits there are,
and in which words one is refused, is each slice's own.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from stagerelease.db.tables import HourlyCount
from stagerelease.db.work import Work

HOUR = timedelta(hours=1)
KEPT = timedelta(hours=2)
"""How long a count outlives its hour."""


def hour_of(at: datetime) -> datetime:
    """Return the full hour that an instant lies in."""
    return at.replace(minute=0, second=0, microsecond=0)


def seconds_left(now: datetime) -> int:
    """Return how many seconds, rounded up, until the next hour begins."""
    return math.ceil((hour_of(now) + HOUR - now).total_seconds())


def insert_into(work: Work, table: Any) -> Any:
    """Return an insert that can say ON CONFLICT, which each database has in its own dialect."""
    return (postgresql.insert if work.is_postgres else sqlite.insert)(table)


def window_of(at: datetime, window: timedelta) -> datetime:
    """Return when the window (a whole part of an hour) that an instant lies in began."""
    hour = hour_of(at)
    return hour + (at - hour) // window * window


def count_this_hour(work: Work, key: str) -> int:
    """Add one to a count of this hour and return it; concurrent callers come one by one."""
    return count_in(work, key, HOUR)


def count_in(work: Work, key: str, window: timedelta) -> int:
    """Add one to a count of the present window and return it, as ``count_this_hour``."""
    start = window_of(work.now, window)
    statement = insert_into(work, HourlyCount).values(key=key, hour=start, count=1)
    statement = statement.on_conflict_do_update(
        index_elements=[HourlyCount.key, HourlyCount.hour], set_={"count": HourlyCount.count + 1}
    ).returning(HourlyCount.count)
    return int(work.session.execute(statement).scalar_one())


def forget_count(work: Work, key: str) -> None:
    """Begin a count anew, in whatever window."""
    work.session.execute(delete(HourlyCount).where(HourlyCount.key == key))


def old_counts_due(work: Work) -> bool:
    """Tell whether there are counts of hours long gone; takes no lock."""
    old = select(HourlyCount.key).where(HourlyCount.hour < hour_of(work.now) - KEPT)
    return work.session.execute(old.limit(1)).first() is not None


def forget_old_counts(work: Work) -> None:
    """Delete counts of hours long gone."""
    work.session.execute(delete(HourlyCount).where(HourlyCount.hour < hour_of(work.now) - KEPT))

"""Counts reports hour by hour in the database: one count for every process.

Where a report came from is kept as a digest salted for the hour; salt and counts are deleted soon
after it, and nothing tells the network any more. A refused attempt rolls back with its Work, so
only what was taken counts.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from stagerelease.db.work import Work
from stagerelease.incidents.rules import THROTTLE_KEPT
from stagerelease.incidents.tables import IncidentThrottle, IncidentThrottleSalt
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import TooMany
from stagerelease.kernel.ids import new_salt

HOUR = timedelta(hours=1)


def hour_of(at: datetime) -> datetime:
    """Return the full hour that an instant lies in."""
    return at.replace(minute=0, second=0, microsecond=0)


def spend(work: Work, what: str, source: str, *, limit: int, sentence: str) -> None:
    """Count one ``what`` from ``source`` in this hour; an empty source is everybody's count.

    Raises:
        TooMany: ``limit`` is reached (reason ``incident.too-many``); ``sentence`` says whose it
            is, and the error when the next hour begins.
    """
    key = f"{what}:{sha256_hex(_salt(work) + source.encode())}" if source else what
    if _count(work, key) <= limit:
        return
    wait = hour_of(work.now) + HOUR - work.now
    seconds = max(1, -(-int(wait.total_seconds() * 1000) // 1000))
    raise TooMany(
        f"{sentence} Nothing was kept of this one: send it again after the full hour, or write to "
        "the people who run this service.",
        retry_after=seconds,
        reason="incident.too-many",
    )


def _insert(work: Work, table: Any) -> Any:
    return (postgresql.insert if work.is_postgres else sqlite.insert)(table)


def _salt(work: Work) -> bytes:
    """Return this hour's salt; the first to come makes it and clears away what is old."""
    hour = hour_of(work.now)
    read = select(IncidentThrottleSalt.salt).where(IncidentThrottleSalt.hour == hour)
    salt = work.session.execute(read).scalar_one_or_none()
    if salt is None:
        forget_old(work)
        row = _insert(work, IncidentThrottleSalt).values(hour=hour, salt=new_salt())
        work.session.execute(row.on_conflict_do_nothing())
        salt = work.session.execute(read).scalar_one()
    return salt


def _count(work: Work, key: str) -> int:
    """Add one to a count of this hour and return it; concurrent callers come one by one."""
    counts = IncidentThrottle
    statement = _insert(work, counts).values(hour=hour_of(work.now), key=key, count=1)
    statement = statement.on_conflict_do_update(
        index_elements=[counts.hour, counts.key], set_={"count": counts.count + 1}
    ).returning(counts.count)
    return int(work.session.execute(statement).scalar_one())


def forget_old(work: Work) -> None:
    """Delete counts and salts of hours long gone."""
    gone = hour_of(work.now) - THROTTLE_KEPT
    for table in (IncidentThrottle, IncidentThrottleSalt):
        work.session.execute(delete(table).where(table.hour < gone))

"""Refuses reports that come too often in one hour.

Where a report came from is kept as a digest salted for the hour; salt and counts are deleted soon
after it, and nothing tells the network any more.
"""

from __future__ import annotations

from sqlalchemy import delete, select

from stagerelease.db.counting import (
    KEPT,
    count_this_hour,
    forget_old_counts,
    hour_of,
    insert_into,
    seconds_left,
)
from stagerelease.db.work import Work
from stagerelease.incidents.tables import IncidentThrottleSalt
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import TooMany
from stagerelease.kernel.ids import new_salt


def spend(work: Work, what: str, source: str, *, limit: int, sentence: str) -> None:
    """Count one ``what`` from ``source`` in this hour; an empty source is everybody's count.

    Raises:
        TooMany: ``limit`` is reached (reason ``incident.too-many``); ``sentence`` says whose it
            is, and the error when the next hour begins.
    """
    key = f"{what}:{sha256_hex(_salt(work) + source.encode())}" if source else what
    if count_this_hour(work, f"incident.{key}") <= limit:
        return
    raise TooMany(
        f"{sentence} Nothing was kept of this one: send it again after the full hour, or write to "
        "the people who run this service.",
        retry_after=seconds_left(work.now),
        reason="incident.too-many",
    )


def _salt(work: Work) -> bytes:
    """Return this hour's salt; the first to come makes it and clears away what is old."""
    hour = hour_of(work.now)
    read = select(IncidentThrottleSalt.salt).where(IncidentThrottleSalt.hour == hour)
    salt = work.session.execute(read).scalar_one_or_none()
    if salt is None:
        forget_old(work)
        row = insert_into(work, IncidentThrottleSalt).values(hour=hour, salt=new_salt())
        work.session.execute(row.on_conflict_do_nothing())
        salt = work.session.execute(read).scalar_one()
    return salt


def forget_old(work: Work) -> None:
    """Delete counts and salts of hours long gone."""
    forget_old_counts(work)
    gone = hour_of(work.now) - KEPT
    work.session.execute(delete(IncidentThrottleSalt).where(IncidentThrottleSalt.hour < gone))

"""Counts what visitors do, hour by hour, in the database: one count for every process.

A refused attempt rolls back with its Work, so that only what was done counts.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite

from stagerelease.access.abuse import EXCUSES, LIMITS, THROTTLE_KEPT, Limited, Visitor
from stagerelease.access.tables import AccessThrottle
from stagerelease.db.work import Work
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import TooMany

HOUR = timedelta(hours=1)


def hour_of(at: datetime) -> datetime:
    """Return the full hour that an instant lies in."""
    return at.replace(minute=0, second=0, microsecond=0)


def spend(work: Work, what: Limited, *, visitor: Visitor, address: str | None = None) -> None:
    """Count one ``what`` for the visitor's network, the address if any, and everybody.

    Raises:
        TooMany: one of the limits of this hour is reached; says when the next hour begins.
    """
    limits = LIMITS[what]
    counted = [("network", visitor.network, limits.network), ("everybody", "", limits.everybody)]
    if address is not None:
        digest = sha256_hex(address.casefold().encode())
        counted.insert(0, ("address", digest, limits.address))
    for kind, value, limit in counted:
        if limit is not None and _count(work, f"{what}:{kind[0]}:{value}") > limit:
            raise _refusal(work, what, kind)


def _count(work: Work, key: str) -> int:
    """Add one to a count of this hour and return it; concurrent callers come one by one."""
    insert: Any = postgresql.insert if work.is_postgres else sqlite.insert
    counts = AccessThrottle
    statement = insert(counts).values(key=key, hour=hour_of(work.now), count=1)
    statement = statement.on_conflict_do_update(
        index_elements=[counts.key, counts.hour], set_={"count": counts.count + 1}
    ).returning(counts.count)
    return int(work.session.execute(statement).scalar_one())


def _refusal(work: Work, what: Limited, kind: str) -> TooMany:
    wait = hour_of(work.now) + HOUR - work.now
    seconds = max(1, int(wait.total_seconds()))
    whose = {
        "address": "for this address",
        "network": "from your network",
        "everybody": "by everybody together",
    }[kind]
    minutes = -(-seconds // 60)
    return TooMany(
        f"{EXCUSES[what]} {whose} this hour. What you saved is kept; try again in {minutes} "
        f"minute{'s' if minutes != 1 else ''}.",
        retry_after=seconds,
        reason=f"access.too-many-{kind}",
    )


def forget_old(work: Work) -> int:
    """Delete counts of hours long gone and return how many."""
    over = delete(AccessThrottle).where(AccessThrottle.hour < hour_of(work.now) - THROTTLE_KEPT)
    gone = work.session.execute(over.returning(AccessThrottle.key)).all()
    return len(gone)

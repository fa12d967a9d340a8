"""How much partners and researchers may hand in within one hour. Staff are not counted.

A piece that is refused rolls back with its Work and does not count. A file is counted before its
first byte, since it is the bytes that cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from sqlalchemy import select

from stagerelease.db.counting import count_this_hour, hour_of, seconds_left
from stagerelease.db.tables import HourlyCount
from stagerelease.db.work import Work
from stagerelease.identity.rules import is_staff
from stagerelease.kernel.errors import TooMany


class Written(StrEnum):
    """What is counted."""

    PIECE = "piece"  # written down or edited
    FILE = "file"  # attached, or sent to be
    IMPORT = "import"  # sent, whatever became of it


LIMITS = {Written.PIECE: 2_500, Written.FILE: 200, Written.IMPORT: 60}
"""How many an hour for one person: an import of the largest size, and some more."""
ORGANISATION_FACTOR = 4
_WORDS = {
    Written.PIECE: "pieces of evidence were written or edited",
    Written.FILE: "files were attached",
    Written.IMPORT: "files of evidence were sent",
}


def spend(work: Work, what: Written) -> None:
    """Count one ``what`` for the caller and their organisations.

    Raises:
        TooMany: a limit of this hour is reached; says when the next hour begins.
    """
    for key, limit, whose in _counts(work, what):
        if count_this_hour(work, key) > limit:
            raise _refusal(work, what, limit, whose)


def check_room(work: Work, what: Written) -> None:
    """Return only if one more ``what`` may come now; counts nothing.

    Raises:
        TooMany: see ``spend``.
    """
    for key, limit, whose in _counts(work, what):
        count = work.session.execute(
            select(HourlyCount.count).where(
                HourlyCount.key == key, HourlyCount.hour == hour_of(work.now)
            )
        ).scalar_one_or_none()
        if (count or 0) >= limit:
            raise _refusal(work, what, limit, whose)


def _counts(work: Work, what: Written) -> Iterator[tuple[str, int, str]]:
    if is_staff(work.actor):
        return
    limit = LIMITS[what]
    yield f"evidence.{what}:{work.actor.id}", limit, "by you"
    for organisation in sorted(work.actor.organisations):
        yield (
            f"evidence.{what}:{organisation}",
            limit * ORGANISATION_FACTOR,
            "by your organisation",
        )


def _refusal(work: Work, what: Written, limit: int, whose: str) -> TooMany:
    seconds = seconds_left(work.now)
    return TooMany(
        f"{limit:,} {_WORDS[what]} {whose} this hour, which is the most. Nothing was kept of this "
        "one: send it after the full hour, or ask the release managers to import it.",
        retry_after=seconds,
        reason="evidence.too-many",
    )

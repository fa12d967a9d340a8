"""Figures of downloads by UTC day, track and grant, without counting every download each time.

A download that began or sent bytes since its day was counted says so (``counted_at`` is None). The
worker makes the figures of such days anew; a reader makes them itself for the few that still wait.
So figures are exact at every instant, and no download waits for a row that others write, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    String,
    and_,
    distinct,
    func,
    literal_column,
    or_,
    select,
    type_coerce,
    union,
    update,
)

from stagerelease.db.counting import insert_into
from stagerelease.db.work import Work, Works
from stagerelease.downloads.tables import Download, DownloadDay
from stagerelease.kernel.actor import SYSTEM

DAY = timedelta(days=1)
MOST_AT_ONCE = 500
BATCH = 2000  # downloads whose days are made anew in one transaction
OF_TRACK: ColumnElement[str] = type_coerce(Download.track_id, String)
"""The track of a download that waits to be counted: what is of none never waits."""


@dataclass(frozen=True, slots=True)
class Place:
    """One UTC day of one grant on one track; ``grant_id`` is None for what needs no grant."""

    day: date
    track_id: str
    grant_id: str | None

    @property
    def key(self) -> str:
        """Return the name of its row."""
        return f"{self.day}|{self.track_id}|{self.grant_id or ''}"

    @property
    def order(self) -> tuple[int, str, str]:
        """Return what lists are ordered by: the newest day first, then track, then grant."""
        return -self.day.toordinal(), self.track_id, self.grant_id or ""


@dataclass(frozen=True, slots=True)
class DayFigures:
    """What was delivered at one place."""

    place: Place
    deliveries: int
    completed: int
    files: int
    bytes: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Span:
    """Which days are asked for: from ``first`` to ``last``, of these tracks, of this grant.

    ``after`` is the place behind which a list goes on. ``active_since`` leaves out what needs no
    grant, and grants under which nothing was delivered on that day or later.
    """

    first: date
    last: date
    track_ids: Collection[str] | None = None
    grant_id: str | None = None
    active_since: date | None = None
    after: Place | None = None
    limit: int | None = None


def _begins(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _day(work: Work) -> ColumnElement[str]:
    """Return the UTC day a delivery began, as ``YYYY-MM-DD``, in either database's words."""
    began: Any = Download.started_at
    if work.is_postgres:
        # Written out: as parameters, PostgreSQL would not see that two of them are the same.
        zone: ColumnElement[str] = literal_column("'UTC'")
        form: ColumnElement[str] = literal_column("'YYYY-MM-DD'")
        return type_coerce(func.to_char(func.timezone(zone, began), form), String)
    return type_coerce(func.date(began), String)


def _count(work: Work, places: Collection[Place]) -> Iterator[DayFigures]:
    """Count the downloads of some places, from the first to the last; of none, nothing."""
    if not places:
        return
    wanted = {place.key for place in places}
    grants = sorted({p.grant_id for p in places if p.grant_id is not None})
    tracks = sorted({p.track_id for p in places if p.grant_id is None})
    whose: list[ColumnElement[bool]] = [
        *(Download.grant_id.in_(some) for some in _parts(grants)),
        *(
            and_(Download.track_id.in_(some), Download.grant_id.is_(None))
            for some in _parts(tracks)
        ),
    ]
    for mine in whose:
        rows = work.session.execute(
            select(
                _day(work),
                OF_TRACK,
                Download.grant_id,
                func.count(),
                func.count(Download.completed_at),
                func.count(distinct(Download.path)),
                func.coalesce(func.sum(Download.bytes_sent), 0),
                func.count(distinct(Download.token_id)),
            )
            .where(
                mine,
                Download.started_at >= _begins(min(p.day for p in places)),
                Download.started_at < _begins(max(p.day for p in places)) + DAY,
            )
            .group_by(_day(work), Download.track_id, Download.grant_id)
        )
        for day, track_id, grant_id, *counts in rows:
            place = Place(date.fromisoformat(day), track_id, grant_id)
            if place.key in wanted:
                yield DayFigures(place, *(int(n) for n in counts))


def _parts(names: Sequence[str]) -> list[Sequence[str]]:
    """Return names in parts small enough for one statement: both databases limit them."""
    return [names[at : at + MOST_AT_ONCE] for at in range(0, len(names), MOST_AT_ONCE)]


# --- what the worker does ------------------------------------------------------------------------


def count_days(works: Works) -> int:
    """Make the figures of every day anew that has to be; return of how many downloads."""
    total = 0
    while True:
        with works.begin(SYSTEM, read_only=True) as work:
            waits = select(Download.id).where(Download.counted_at.is_(None)).limit(1)
            if work.session.execute(waits).first() is None:
                return total  # nothing to do takes no write lock
        with works.begin(SYSTEM, quiet=True) as work:
            done = _count_some(work)
        if not done:
            return total  # another worker has them
        total += done


def _count_some(work: Work) -> int:
    """Count the places of some downloads that wait; what they do meanwhile is counted next time."""
    ids = work.session.scalars(
        select(Download.id)
        .where(Download.counted_at.is_(None))
        .order_by(Download.started_at, Download.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)  # never waits, so that nobody waits in a circle
    ).all()
    places: dict[str, Place] = {}
    for part in _parts(ids):
        marked = work.session.execute(
            update(Download)
            .where(Download.id.in_(part))
            .values(counted_at=work.now)
            .returning(Download.started_at, OF_TRACK, Download.grant_id)
            .execution_options(synchronize_session=False)
        )
        for began, track_id, grant_id in marked:
            place = Place(began.astimezone(UTC).date(), track_id, grant_id)
            places[place.key] = place
    for keys in _parts(sorted(places)):  # one order for all
        _write(work, {key: places[key] for key in keys})
    return len(ids)


def _write(work: Work, places: Mapping[str, Place]) -> None:
    """Write the figures of places, counted only once their rows are held: the last count stands."""
    nothing = dict.fromkeys(("deliveries", "completed", "files", "bytes", "tokens"), 0)
    rows = [
        {"id": key, "day": p.day, "track_id": p.track_id, "grant_id": p.grant_id, **nothing}
        for key, p in places.items()
    ]
    work.session.execute(insert_into(work, DownloadDay).on_conflict_do_nothing(), rows)
    mine = select(DownloadDay).where(DownloadDay.id.in_(list(places)))
    held = work.session.scalars(mine.order_by(DownloadDay.id).with_for_update())
    by_key = {row.id: row for row in held}
    for new in _count(work, places.values()):
        row = by_key[new.place.key]
        for name in nothing:
            setattr(row, name, getattr(new, name))


# --- what is read --------------------------------------------------------------------------------


def list_days(work: Work, span: Span) -> list[DayFigures]:
    """Return figures of the days of a span: the newest day first, then by track and grant."""
    rows = {row.place.key: row for row in _counted(work, span)}
    rows |= {row.place.key: row for row in _count(work, list(_waiting(work, span)))}
    return sorted(rows.values(), key=lambda row: row.place.order)[: span.limit]


def _counted(work: Work, span: Span) -> Iterable[DayFigures]:
    table = DownloadDay
    grant = func.coalesce(table.grant_id, "")
    statement = select(
        *(table.day, table.track_id, table.grant_id),
        *(table.deliveries, table.completed, table.files, table.bytes, table.tokens),
    ).where(table.day >= span.first, table.day <= span.last)
    if span.track_ids is not None:
        statement = statement.where(table.track_id.in_(sorted(span.track_ids)))
    if span.grant_id is not None:
        statement = statement.where(table.grant_id == span.grant_id)
    if span.active_since is not None:
        counted = select(table.grant_id).where(table.day >= span.active_since)
        waiting = select(Download.grant_id).where(Download.counted_at.is_(None))
        active = union(counted, waiting).subquery()
        statement = statement.where(table.grant_id.in_(select(active)))
    if span.after is not None:
        day, track, after = span.after.day, span.after.track_id, span.after.grant_id or ""
        behind = or_(table.track_id > track, and_(table.track_id == track, grant > after))
        # Spelled so that both databases bound the scan of the index by the day.
        statement = statement.where(table.day <= day, or_(table.day < day, behind))
    if span.limit is not None:
        statement = statement.order_by(table.day.desc(), table.track_id, grant).limit(span.limit)
    for day, track_id, grant_id, *counts in work.session.execute(statement):
        yield DayFigures(Place(day, track_id, grant_id), *counts)


def _waiting(work: Work, span: Span) -> Iterable[Place]:
    """Return the places of a span whose figures have to be made anew."""
    statement = select(_day(work), OF_TRACK, Download.grant_id).where(
        Download.counted_at.is_(None),
        Download.started_at >= _begins(span.first),
        Download.started_at < _begins(span.last) + DAY,
    )
    if span.track_ids is not None:
        statement = statement.where(Download.track_id.in_(sorted(span.track_ids)))
    if span.grant_id is not None:
        statement = statement.where(Download.grant_id == span.grant_id)
    if span.active_since is not None:
        statement = statement.where(Download.grant_id.is_not(None))
    for day, track_id, grant_id in work.session.execute(statement.distinct()):
        place = Place(date.fromisoformat(day), track_id, grant_id)
        if span.after is None or place.order > span.after.order:
            yield place


def last_days(work: Work, grant_ids: Collection[str], *, before: date) -> dict[str, date]:
    """Return, by grant, the last day before ``before`` on which a delivery began."""
    found: dict[str, date] = {}
    for some in _parts(sorted(grant_ids)):
        counted = (
            select(DownloadDay.grant_id, func.max(DownloadDay.day))
            .where(DownloadDay.grant_id.in_(some), DownloadDay.day < before)
            .group_by(DownloadDay.grant_id)
        )
        found |= {str(named): day for named, day in work.session.execute(counted)}
        waiting = (
            select(Download.grant_id, func.max(Download.started_at))
            .where(Download.counted_at.is_(None), Download.grant_id.in_(some))
            .where(Download.started_at < _begins(before))
            .group_by(Download.grant_id)
        )
        for named, began in work.session.execute(waiting):
            day = began.astimezone(UTC).date()
            found[str(named)] = max(day, found.get(str(named), day))
    return found

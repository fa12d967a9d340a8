"""Use cases of watching: who was delivered how much, what stands out, and evidence drafted of it.

Figures come from the deliveries this service recorded, by the UTC day each began, and from the
requests its models answered. What is not recorded is not guessed: no networks are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from sqlalchemy import func, select

from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.downloads.days import Place, Span, last_days, list_days
from stagerelease.downloads.tables import Download
from stagerelease.evidence import service as evidence
from stagerelease.evidence.queries import EvidenceRow
from stagerelease.identity.rules import Permission, require
from stagerelease.incidents.anomalies import (
    DAY,
    HISTORY_DAYS,
    RECENT_DAYS,
    Anomaly,
    DayUse,
    GrantUse,
    find_anomalies,
)
from stagerelease.incidents.queries import covering_since
from stagerelease.inference.queries import asked_of_track
from stagerelease.kernel.clock import said
from stagerelease.kernel.errors import FieldError, Invalid
from stagerelease.partners.tables import Grant
from stagerelease.releases import queries as releases
from stagerelease.releases.queries import TrackRow, storable

LONGEST = timedelta(days=366)
FIRST_YEAR, LAST_YEAR = 1970, 9000
Metric = Literal["anomalies", "downloads", "incidents", "inference_requests"]


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One UTC day of one grant on one track; ``grant_id`` is None for what needs no grant.

    ``deliveries`` began that day, ``completed`` of them in full; ``files`` counts different paths,
    ``tokens`` different API tokens.
    """

    day: date
    track_id: str
    grant_id: str | None
    deliveries: int
    completed: int
    files: int
    bytes: int
    tokens: int

    @property
    def key(self) -> str:
        """Return the place of this row in the list."""
        return self.place.key

    @property
    def place(self) -> Place:
        """Return the day, the track and the grant."""
        return Place(self.day, self.track_id, self.grant_id)

    def plus(self, other: UsageRow) -> UsageRow:
        """Return this row with what another source counted at the same place."""
        counts = (f.name for f in fields(self) if f.name not in ("day", "track_id", "grant_id"))
        return replace(self, **{n: getattr(self, n) + getattr(other, n) for n in counts})


Source = Callable[[Work, Span], list[UsageRow]]


def _downloads(work: Work, span: Span) -> list[UsageRow]:
    return [
        UsageRow(
            *(row.place.day, row.place.track_id, row.place.grant_id),
            *(row.deliveries, row.completed, row.files, row.bytes, row.tokens),
        )
        for row in list_days(work, span)
    ]


SOURCES: tuple[Source, ...] = (_downloads,)
"""Where figures of use come from. Each returns the rows of a span in its order, at most its limit,
with zero in what it does not count; rows of one day, track and grant are added up."""


def _read(work: Work, span: Span) -> list[UsageRow]:
    rows: dict[str, UsageRow] = {}
    for source in SOURCES:
        for row in source(work, span):
            other = rows.get(row.key)
            rows[row.key] = row if other is None else other.plus(row)
    if len(SOURCES) == 1:
        return list(rows.values())  # in order, and as many as asked for
    return sorted(rows.values(), key=lambda row: row.place.order)[: span.limit]


def check_window(
    work: Work, since: datetime | None, until: datetime | None
) -> tuple[datetime, datetime]:
    """Return the window asked for; the last 28 days when nothing is said.

    Raises:
        Invalid: without a zone, the wrong way round, or longer than a year.
    """
    until = until or work.now
    since = since or until - timedelta(days=28)
    if since.tzinfo is None or until.tzinfo is None:
        sentence = "Say in which zone since and until are."
    elif since.year < FIRST_YEAR or until.year > LAST_YEAR:
        sentence = f"Years are {FIRST_YEAR} to {LAST_YEAR}."
    elif not since < until:
        sentence = "The window ends before it begins."
    elif until - since > LONGEST:
        sentence = f"A window has at most {LONGEST.days} days."
    else:
        return since, until
    raise Invalid(sentence, reason="usage.window", fields=[FieldError("since", sentence)])


def usage(
    work: Work,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    track_id: str | None = None,
    grant_id: str | None = None,
    limit: int | None = None,
    after: str | None = None,
) -> list[UsageRow]:
    """Return deliveries by day, track and grant, newest day first; ``after`` is a row's ``key``.

    Days are whole UTC days: from the one ``since`` lies in to the one that ``until`` ends.

    Raises:
        Invalid: an unusable window.
        NotFound: there is no such track.
    """
    require(work.actor, Permission.USAGE_READ)
    since, until = check_window(work, since, until)
    if grant_id is not None and not storable(grant_id):
        return []
    track = releases.load_track(work, track_id).id if track_id is not None else None
    return _read(
        work,
        Span(
            first=since.astimezone(UTC).date(),
            last=_last_day(until),
            track_ids=None if track is None else [track],
            grant_id=grant_id,
            after=None if after is None else _place(after),
            limit=limit,
        ),
    )


def _last_day(until: datetime) -> date:
    """Return the day of the last instant before ``until``."""
    return (until.astimezone(UTC) - timedelta(microseconds=1)).date()


def _place(after: str) -> Place:
    day, _, rest = after.partition("|")
    track_id, _, grant_id = rest.partition("|")
    try:
        found = Place(date.fromisoformat(day), track_id, grant_id or None)
    except ValueError as error:
        raise Invalid("after is the key of a row.", reason="page.after") from error
    if not storable(rest):
        raise Invalid("after is the key of a row.", reason="page.after")
    return found


def list_anomalies(
    work: Work,
    *,
    days: int = RECENT_DAYS,
    track_id: str | None = None,
    limit: int | None = None,
) -> list[Anomaly]:
    """Return what stands out in the last ``days`` days, newest first.

    Raises:
        Invalid: a number of days out of range.
        NotFound: there is no such track.
    """
    require(work.actor, Permission.USAGE_READ)
    if not 1 <= days <= LONGEST.days:
        sentence = f"Between 1 and {LONGEST.days} days can be looked at."
        raise Invalid(sentence, reason="usage.window", fields=[FieldError("days", sentence)])
    tracks = [releases.load_track(work, track_id).id] if track_id else None
    return _anomalies(work, tracks, since=work.now - timedelta(days=days), until=work.now)[:limit]


def _anomalies(
    work: Work, track_ids: Collection[str] | None, *, since: datetime, until: datetime
) -> list[Anomaly]:
    start = since.astimezone(UTC).date()
    first = start - HISTORY_DAYS * DAY
    span = Span(first=first, last=_last_day(until), track_ids=track_ids, active_since=start)
    by_grant: dict[str, list[UsageRow]] = {}
    for row in reversed(_read(work, span)):
        by_grant.setdefault(str(row.grant_id), []).append(row)
    recent = {g: r for g, r in by_grant.items() if r[-1].day >= start}
    # Only whose first day here may be reported can have been silent before it.
    new = [grant_id for grant_id, rows in recent.items() if rows[0].day >= start]
    before = last_days(work, new, before=start)
    found: list[Anomaly] = []
    for grant_id, begins, ends in _terms(work, recent):
        days = [
            DayUse(r.day, r.deliveries, r.completed, r.files, r.bytes, r.tokens)
            for r in recent[grant_id]
        ]
        use = GrantUse(
            grant_id=grant_id,
            track_id=recent[grant_id][0].track_id,
            valid_from=begins.date(),
            valid_until=ends.date(),
            days=days,
            before=before.get(grant_id),
        )
        found += find_anomalies(use, since=since.date())
    found.sort(key=lambda a: (a.day, a.grant_id, a.rule), reverse=True)
    return found


MOST_AT_ONCE = 500  # names in one statement: both databases limit them


def _parts(names: Collection[str]) -> list[list[str]]:
    ordered = sorted(names)
    return [ordered[i : i + MOST_AT_ONCE] for i in range(0, len(ordered), MOST_AT_ONCE)]


def _terms(work: Work, grants: Collection[str]) -> list[tuple[str, datetime, datetime]]:
    found: list[tuple[str, datetime, datetime]] = []
    for part in _parts(grants):
        rows = work.session.execute(
            select(Grant.id, Grant.valid_from, Grant.valid_until).where(Grant.id.in_(part))
        )
        found += [(grant_id, begins, ends) for grant_id, begins, ends in rows]
    return found


def draft_monitoring(
    work: Work,
    *,
    track_id: str,
    metric: Metric = "anomalies",
    since: datetime | None = None,
    until: datetime | None = None,
) -> EvidenceRow:
    """Draft ``misuse_monitoring`` evidence on a track from its figures over a window.

    It is a draft of the caller's: they read it, add what figures cannot say, and submit it.

    Raises:
        Invalid: an unusable window, or one that has not ended.
        NotFound: there is no such track.
    """
    require(work.actor, Permission.USAGE_READ)
    since, until = check_window(work, since, until)
    if until > work.now:
        raise Invalid("That window has not ended yet.", reason="usage.window")
    track = releases.load_track(work, track_id)
    watched = _watched(work, track, since, until)
    return evidence.draft(
        work,
        evidence.NewEvidence(
            type="misuse_monitoring",
            metric=metric,
            title=f"Use of {track.repo_id} ({track.kind}), {since:%Y-%m-%d} to {until:%Y-%m-%d}",
            subject_sha256=catalog.load_revision(work, track.revision_id).manifest_sha256,
            source="Deliveries, requests and incidents recorded here, "
            f"{said(since)} to {said(until)}, track {track.id}.",
            fact_status="computed",
            measured_at=until,
            value=float(getattr(watched, metric)),
            unit="count",
            conditions={
                "window_days": round((until - since) / DAY, 3),
                "counted_from": "deliveries and requests recorded here, by the day they began",
                "method": "rules: spike, after_silence, end_of_term, many_tokens",
            },
            caveat=watched.caveat,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Watched:
    """The figures of one track over a window. The first four are what evidence may be about."""

    anomalies: int  # grants that stood out
    downloads: int
    incidents: int
    inference_requests: int
    findings: int
    bytes: int
    tokens: int
    askers: int

    @property
    def caveat(self) -> str:
        """Return every figure in words, and what none of them can tell."""
        return (
            f"In this window: {self.downloads} completed downloads, {self.bytes:,} bytes sent, "
            f"{self.findings} findings on {self.anomalies} grants, {self.incidents} incidents "
            f"confirmed, {self.inference_requests:,} requests answered with {self.tokens:,} tokens "
            f"under {self.askers} grants. Copies passed on outside this service are not seen here."
        )


def _watched(work: Work, track: TrackRow, since: datetime, until: datetime) -> _Watched:
    found = _anomalies(work, [track.id], since=since, until=until)
    completed, sent = work.session.execute(
        select(func.count(Download.completed_at), func.coalesce(func.sum(Download.bytes_sent), 0))
        .where(Download.track_id == track.id)
        .where(Download.started_at >= since, Download.started_at < until)
    ).one()
    requests, written, askers = asked_of_track(work, track.id, since, until)
    return _Watched(
        anomalies=len({one.grant_id for one in found}),
        downloads=int(completed),
        incidents=covering_since(work, track, since=since, until=until),
        inference_requests=requests,
        findings=len(found),
        bytes=int(sent),
        tokens=written,
        askers=askers,
    )

"""Use cases of watching: who was delivered how much, what stands out, and evidence drafted of it.

Figures come from the deliveries this service recorded, by the UTC day each began. What is not
recorded is not guessed: no networks are, and inference is not counted here.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

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
)

from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
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
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import FieldError, Invalid
from stagerelease.partners.tables import Grant
from stagerelease.releases import queries as releases
from stagerelease.releases.queries import storable

LONGEST = timedelta(days=366)
Metric = Literal["anomalies", "downloads", "incidents"]


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
        return f"{self.day}|{self.track_id}|{self.grant_id or ''}"


def _day(work: Work) -> ColumnElement[str]:
    """Return the UTC day a delivery began, as ``YYYY-MM-DD``, in either database's words."""
    began: Any = Download.started_at
    if work.is_postgres:
        # Written out: as parameters, PostgreSQL would not see that two of them are the same.
        zone: ColumnElement[str] = literal_column("'UTC'")
        form: ColumnElement[str] = literal_column("'YYYY-MM-DD'")
        return type_coerce(func.to_char(func.timezone(zone, began), form), String)
    return type_coerce(func.date(began), String)


def _figures(work: Work) -> Any:
    return select(
        _day(work),
        Download.track_id,
        Download.grant_id,
        func.count(),
        func.count(Download.completed_at),
        func.count(distinct(Download.path)),
        func.coalesce(func.sum(Download.bytes_sent), 0),
        func.count(distinct(Download.token_id)),
    ).group_by(_day(work), Download.track_id, Download.grant_id)


def _row(values: Any) -> UsageRow:
    day, track_id, grant_id, *counts = values
    return UsageRow(date.fromisoformat(day), track_id, grant_id, *(int(n) for n in counts))


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

    Raises:
        Invalid: an unusable window.
        NotFound: there is no such track.
    """
    require(work.actor, Permission.USAGE_READ)
    since, until = check_window(work, since, until)
    statement = _figures(work).where(Download.started_at >= since, Download.started_at < until)
    if track_id is not None:
        statement = statement.where(Download.track_id == releases.load_track(work, track_id).id)
    if grant_id is not None:
        if not storable(grant_id):
            return []
        statement = statement.where(Download.grant_id == grant_id)
    elif track_id is None:
        statement = statement.where(Download.track_id.in_(_all_tracks(work)))
    if after is not None:
        statement = statement.where(_behind(after))
    grant = func.coalesce(Download.grant_id, "")
    statement = statement.order_by(_day(work).desc(), Download.track_id, grant)
    return [_row(values) for values in work.session.execute(statement.limit(limit))]


def _behind(after: str) -> ColumnElement[bool]:
    day, _, rest = after.partition("|")
    track_id, _, grant_id = rest.partition("|")
    try:
        midnight = datetime.fromisoformat(day).replace(tzinfo=UTC)
        ends = midnight + DAY
    except (ValueError, OverflowError) as error:
        raise Invalid("after is the key of a row.", reason="page.after") from error
    if not storable(rest):
        raise Invalid("after is the key of a row.", reason="page.after")
    grant = func.coalesce(Download.grant_id, "")
    same_day = and_(Download.started_at >= midnight, Download.started_at < ends)
    behind = or_(
        Download.track_id > track_id, and_(Download.track_id == track_id, grant > grant_id)
    )
    return or_(Download.started_at < midnight, and_(same_day, behind))


def _all_tracks(work: Work) -> list[str]:
    """Return every track: the index on downloads is by track first, and there are not many."""
    return [track.id for track in releases.list_tracks(work)]


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
    tracks = [releases.load_track(work, track_id).id] if track_id else _all_tracks(work)
    return _anomalies(work, tracks, since=work.now - timedelta(days=days), until=work.now)[:limit]


def _anomalies(
    work: Work, track_ids: Collection[str], *, since: datetime, until: datetime
) -> list[Anomaly]:
    first = (since - HISTORY_DAYS * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
    rows = work.session.execute(
        _figures(work)
        .where(
            Download.track_id.in_(sorted(track_ids)),
            Download.started_at >= first,
            Download.started_at < until,
            Download.grant_id.is_not(None),
        )
        .order_by(_day(work))
    )
    by_grant: dict[str, list[UsageRow]] = {}
    for values in rows:
        row = _row(values)
        by_grant.setdefault(str(row.grant_id), []).append(row)
    recent = {g: r for g, r in by_grant.items() if r[-1].day >= since.date()}
    before = _last_before(work, recent, first)
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


def _last_before(work: Work, grants: Collection[str], first: datetime) -> dict[str, date]:
    found: dict[str, date] = {}
    for part in _parts(grants):
        rows = work.session.execute(
            select(Download.grant_id, func.max(Download.started_at))
            .where(Download.grant_id.in_(part), Download.started_at < first)
            .group_by(Download.grant_id)
        )
        found |= {str(grant_id): at.date() for grant_id, at in rows}
    return found


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
    anomalies = _anomalies(work, [track.id], since=since, until=until)
    completed, sent = work.session.execute(
        select(func.count(Download.completed_at), func.coalesce(func.sum(Download.bytes_sent), 0))
        .where(Download.track_id == track.id)
        .where(Download.started_at >= since, Download.started_at < until)
    ).one()
    incidents = covering_since(work, track, since=since, until=until)
    standing_out = {anomaly.grant_id for anomaly in anomalies}
    values = {
        "anomalies": len(standing_out),
        "downloads": int(completed),
        "incidents": incidents,
    }
    window = f"{iso(since)} to {iso(until)}"
    return evidence.draft(
        work,
        evidence.NewEvidence(
            type="misuse_monitoring",
            metric=metric,
            title=f"Use of {track.repo_id} ({track.kind}), {since:%Y-%m-%d} to {until:%Y-%m-%d}",
            subject_sha256=catalog.load_revision(work, track.revision_id).manifest_sha256,
            source=f"Deliveries and incidents recorded here, {window}, on track {track.id}.",
            fact_status="computed",
            measured_at=until,
            value=float(values[metric]),
            unit="count",
            conditions={
                "window_days": round((until - since) / DAY, 3),
                "counted_from": "deliveries recorded by this service, by the UTC day they began",
                "method": "rules: spike, after_silence, end_of_term, many_tokens",
            },
            caveat=(
                f"In this window: {completed} completed downloads, {int(sent):,} bytes sent, "
                f"{len(anomalies)} findings on {len(standing_out)} grants, {incidents} incidents "
                "confirmed. Copies passed on outside this service and inference are not seen here."
            ),
        ),
    )

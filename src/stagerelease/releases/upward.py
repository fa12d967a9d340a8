"""What release decisions must know of the floors above: read as plain SQL, never imported.

Grants, downloads and incidents live above this slice. Needed from there: when a stage's audience
could fetch, whether it did, and whether a blocking incident is open. This module must never
write.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Integer,
    Select,
    String,
    and_,
    cast,
    column,
    exists,
    func,
    literal,
    or_,
    select,
    table,
)

from stagerelease.catalog.tables import RevisionFile
from stagerelease.db.types import UtcDateTime
from stagerelease.db.work import Work
from stagerelease.releases.gates import GapFact, IncidentFact
from stagerelease.releases.queries import TrackRow
from stagerelease.releases.tables import Track

_GRANT = table(
    "access_grant",
    column("id", String),
    column("track_id", String),
    column("audience", String),
    column("permissions", JSON),
    column("signature_id", String),
    column("valid_from", UtcDateTime()),
    column("valid_until", UtcDateTime()),
)
_EVENT = table(
    "grant_event",
    column("id", String),
    column("grant_id", String),
    column("from_state", String),
    column("to_state", String),
    column("at", UtcDateTime()),
    column("leaf_idx", BigInteger),
)
_SIGNATURE = table(
    "signature",
    column("id", String),
    column("valid_until", UtcDateTime()),
    column("reconsent_until", UtcDateTime()),
)
_DOWNLOAD = table(
    "download",
    column("grant_id", String),
    column("revision_id", String),
    column("path", String),
    column("completed_at", UtcDateTime()),
)
_INCIDENT = table(
    "incident",
    column("id", Integer),
    column("state", String),
    column("severity", String),
    column("blocking", Boolean),
    column("scope", String),
)
_INCIDENT_TRACK = table(
    "incident_track", column("incident_id", Integer), column("track_id", String)
)
_INCIDENT_FAMILY = table(
    "incident_family", column("incident_id", Integer), column("family_id", String)
)
BLOCKING_STATES = ("confirmed", "mitigated")
"""States in which a blocking incident blocks: no longer a rumour, not yet closed."""


@dataclass(frozen=True, slots=True)
class Served:
    """When an audience could fetch: since when, and the times after that when none of it could."""

    since: datetime
    gaps: tuple[GapFact, ...] = ()


def served_time(work: Work, track_id: str, audience: str) -> Served | None:
    """Return when grants of ``audience`` (a stage's name) let somebody fetch from this track.

    None while none did. A grant counts while it was active and gave downloads: not while it waited,
    was suspended or had ended, and never for ``infer`` alone. Spans of all grants are laid over
    each other by the database, so that a track with ten thousand of them is one short answer.
    """
    span = _active_spans(work, track_id, audience).subquery("span")
    reached = func.max(span.c.until, type_=UtcDateTime())
    before = reached.over(order_by=span.c.since, rows=(None, -1))
    laid = select(span.c.since, before.label("before"), reached.over().label("last")).subquery(
        "laid"
    )
    rows = work.session.execute(
        select(laid.c.since, laid.c.before, laid.c.last)
        .where(or_(laid.c.before.is_(None), laid.c.before < laid.c.since))
        .order_by(laid.c.since)
    ).all()
    if not rows:
        return None
    gaps = [GapFact(row.before, row.since) for row in rows[1:]]
    if rows[0].last < work.now:
        gaps.append(GapFact(rows[0].last, None))
    return Served(rows[0].since, tuple(gaps))


def _active_spans(work: Work, track_id: str, audience: str) -> Select[tuple[datetime, datetime]]:
    """Select from when to when each grant that gives downloads was active, by its own events.

    The clock ends a span as it ends a grant (invariants 8 and 9): what the sweep says comes later.
    """
    now = literal(work.now, UtcDateTime())
    earliest: Any = func.least if work.is_postgres else func.min
    latest: Any = func.greatest if work.is_postgres else func.max
    in_order = (_EVENT.c.leaf_idx, _EVENT.c.at, _EVENT.c.from_state.is_not(None), _EVENT.c.id)
    follows = func.lead(_EVENT.c.at).over(partition_by=_EVENT.c.grant_id, order_by=in_order)
    ends = (follows, _GRANT.c.valid_until, _SIGNATURE.c.valid_until, _SIGNATURE.c.reconsent_until)
    each = (
        select(
            _EVENT.c.to_state,
            latest(_EVENT.c.at, _GRANT.c.valid_from, type_=UtcDateTime()).label("since"),
            earliest(*(func.coalesce(end, now) for end in ends), now, type_=UtcDateTime()).label(
                "until"
            ),
        )
        .join(_GRANT, _GRANT.c.id == _EVENT.c.grant_id)
        .outerjoin(_SIGNATURE, _SIGNATURE.c.id == _GRANT.c.signature_id)
        .where(
            _GRANT.c.track_id == track_id,
            _GRANT.c.audience == audience,
            cast(_GRANT.c.permissions, String).like('%"download"%'),  # a JSON list of words
        )
        .subquery("each")
    )
    return select(each.c.since, each.c.until).where(
        each.c.to_state == "active", each.c.since <= each.c.until
    )


def completed_downloads(work: Work, track_id: str, audience: str, *, at_most: int) -> int:
    """Return how many downloads by grants of ``audience`` on this track were completed.

    Files of another kind in the same repository say nothing of it: its README is open to all.
    Counts to ``at_most`` and no further: a gate asks for one, and there may be a million.
    """
    done = (
        select(_DOWNLOAD.c.grant_id)
        .join(_GRANT, _GRANT.c.id == _DOWNLOAD.c.grant_id)
        .join(Track, Track.id == _GRANT.c.track_id)
        .join(
            RevisionFile,
            and_(
                RevisionFile.revision_id == _DOWNLOAD.c.revision_id,
                RevisionFile.path == _DOWNLOAD.c.path,
                RevisionFile.kind == Track.kind,
            ),
        )
        .where(
            _GRANT.c.track_id == track_id,
            _GRANT.c.audience == audience,
            _DOWNLOAD.c.completed_at <= work.now,
        )
        .limit(at_most)
        .subquery()
    )
    return int(work.session.execute(select(func.count()).select_from(done)).scalar_one())


def blocking_incidents(work: Work, track: TrackRow) -> tuple[IncidentFact, ...]:
    """Return the blocking incidents that are open and cover the track, its family or everything."""
    touches_track = exists().where(
        _INCIDENT_TRACK.c.incident_id == _INCIDENT.c.id, _INCIDENT_TRACK.c.track_id == track.id
    )
    touches_family = exists().where(
        _INCIDENT_FAMILY.c.incident_id == _INCIDENT.c.id,
        _INCIDENT_FAMILY.c.family_id == track.family_id,
    )
    rows = work.session.execute(
        select(_INCIDENT.c.id, _INCIDENT.c.severity)
        .where(
            and_(_INCIDENT.c.blocking, _INCIDENT.c.state.in_(BLOCKING_STATES)),
            or_(_INCIDENT.c.scope == "everything", touches_track, touches_family),
        )
        .order_by(_INCIDENT.c.id)
    )
    return tuple(IncidentFact(number, str(severity)) for number, severity in rows)

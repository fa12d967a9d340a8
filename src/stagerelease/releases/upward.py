"""What release decisions must know of the floors above: read as plain SQL, never imported.

Grants, downloads and incidents live above this slice. Needed from there: when a stage's audience
could first fetch, whether it did, and whether a blocking incident is open. This module must never
write.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Boolean, Integer, String, and_, column, exists, func, or_, select, table

from stagerelease.db.types import UtcDateTime
from stagerelease.db.work import Work
from stagerelease.releases.gates import IncidentFact
from stagerelease.releases.queries import TrackRow

_GRANT = table(
    "access_grant",
    column("id", String),
    column("track_id", String),
    column("audience", String),
    column("state", String),
    column("valid_from", UtcDateTime()),
)
_DOWNLOAD = table(
    "download",
    column("grant_id", String),
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


def first_grant(work: Work, track_id: str, audience: str) -> datetime | None:
    """Return when the earliest grant of ``audience`` (a stage's name) on this track began.

    A grant that was never activated let nobody in; one that begins later has let nobody in yet.
    """
    first: datetime | None = work.session.execute(
        select(func.min(_GRANT.c.valid_from, type_=UtcDateTime())).where(
            _GRANT.c.track_id == track_id,
            _GRANT.c.audience == audience,
            _GRANT.c.state != "pending",
            _GRANT.c.valid_from <= work.now,
        )
    ).scalar_one()
    return first


def completed_downloads(work: Work, track_id: str, audience: str, *, at_most: int) -> int:
    """Return how many downloads by grants of ``audience`` on this track were completed.

    Counts to ``at_most`` and no further: a gate asks for one, and there may be a million.
    """
    done = (
        select(_DOWNLOAD.c.grant_id)
        .join(_GRANT, _GRANT.c.id == _DOWNLOAD.c.grant_id)
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

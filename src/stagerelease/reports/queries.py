"""Reads that only reports make: holders counted in the database, openings of log commitments."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import exists, func, or_, select

from stagerelease.catalog.tables import Family
from stagerelease.db.work import Work
from stagerelease.identity.tables import Organisation, Person
from stagerelease.incidents.tables import Incident, IncidentFamily, IncidentTrack
from stagerelease.ledger.tables import LogCommitment
from stagerelease.partners.tables import Grant
from stagerelease.releases.queries import TrackRow
from stagerelease.releases.tables import PlanVersion, Promotion


@dataclass(frozen=True, slots=True)
class HolderRow:
    """An active grant and whose it is."""

    name: str
    audience: str
    permissions: tuple[str, ...]
    purpose: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """An incident that covers the track."""

    id: int
    state: str
    severity: str | None
    blocking: bool
    title: str
    public_summary: str
    outcome: str
    public_outcome: str
    reported_at: datetime
    confirmed_at: datetime | None
    closed_at: datetime | None


def family_name(work: Work, family_id: str) -> str:
    """Return what a family is called."""
    name = work.session.execute(select(Family.name).where(Family.id == family_id)).scalar()
    return name or family_id


def plan_row(work: Work, plan_version_id: str) -> tuple[str, int, str, datetime, int]:
    """Return slug, version, digest, instant and leaf of a registered plan version."""
    row = work.session.execute(
        select(
            PlanVersion.slug,
            PlanVersion.version,
            PlanVersion.sha256,
            PlanVersion.created_at,
            PlanVersion.leaf_idx,
        ).where(PlanVersion.id == plan_version_id)
    ).one()
    return row[0], row[1], row[2], row[3], row[4]


def ended_otherwise(work: Work, track_id: str) -> dict[str, int]:
    """Return how many requests of a track ended without being applied, by how."""
    rows = work.session.execute(
        select(Promotion.state, func.count())
        .where(
            Promotion.track_id == track_id,
            Promotion.state.in_(("rejected", "cancelled", "expired", "superseded")),
        )
        .group_by(Promotion.state)
        .order_by(Promotion.state)
    )
    return {str(row[0]): int(row[1]) for row in rows}


def _active(work: Work, track_id: str) -> tuple[object, ...]:
    return (
        Grant.track_id == track_id,
        Grant.state == "active",
        Grant.valid_from <= work.now,
        Grant.valid_until > work.now,
    )


def count_holders(work: Work, track_id: str) -> tuple[int, int, tuple[tuple[str, int], ...]]:
    """Return how many organisations and people hold a grant now, and how many grants per stage."""
    active = _active(work, track_id)
    organisations, people = work.session.execute(
        select(
            func.count(Grant.organisation_id.distinct()), func.count(Grant.person_id.distinct())
        ).where(*active)  # type: ignore[arg-type]
    ).one()
    rows = work.session.execute(
        select(Grant.audience, func.count())
        .where(*active)  # type: ignore[arg-type]
        .group_by(Grant.audience)
        .order_by(Grant.audience)
    )
    return organisations, people, tuple((stage, count) for stage, count in rows)


def list_holders(work: Work, track_id: str, *, limit: int) -> list[HolderRow]:
    """Return who holds a grant now, oldest grant first, at most ``limit``."""
    rows = work.session.execute(
        select(
            Organisation.name,
            Person.handle,
            Grant.audience,
            Grant.permissions,
            Grant.purpose,
            Grant.valid_from,
            Grant.valid_until,
        )
        .outerjoin(Organisation, Organisation.id == Grant.organisation_id)
        .outerjoin(Person, Person.id == Grant.person_id)
        .where(*_active(work, track_id))  # type: ignore[arg-type]
        .order_by(Grant.id)
        .limit(limit)
    )
    return [
        HolderRow(
            name=row[0] or row[1] or "",
            audience=row[2],
            permissions=tuple(sorted(row[3])),
            purpose=row[4],
            since=row[5],
            until=row[6],
        )
        for row in rows
    ]


def incidents_over(work: Work, track: TrackRow, *, confirmed: bool) -> list[IncidentRow]:
    """Return incidents that cover a track, oldest first; ``confirmed``: only ever confirmed ones.

    At most 200, the newest.
    """
    statement = select(
        *(getattr(Incident, name) for name in IncidentRow.__dataclass_fields__)
    ).where(
        or_(
            Incident.scope == "everything",
            exists().where(
                IncidentTrack.incident_id == Incident.id, IncidentTrack.track_id == track.id
            ),
            exists().where(
                IncidentFamily.incident_id == Incident.id,
                IncidentFamily.family_id == track.family_id,
            ),
        )
    )
    if confirmed:
        statement = statement.where(Incident.confirmed_at.is_not(None))
    rows = work.session.execute(statement.order_by(Incident.id.desc()).limit(200))
    return [IncidentRow(*row) for row in rows][::-1]


def salts(work: Work, commitments: Collection[str]) -> dict[str, tuple[bytes, str]]:
    """Return salt and value of commitments that were not erased, by commitment."""
    found: dict[str, tuple[bytes, str]] = {}
    wanted = sorted(commitments)
    for start in range(0, len(wanted), 500):
        rows = work.session.execute(
            select(LogCommitment.commitment, LogCommitment.salt, LogCommitment.value).where(
                LogCommitment.commitment.in_(wanted[start : start + 500])
            )
        )
        found.update({row[0]: (bytes(row[1]), row[2]) for row in rows})
    return found

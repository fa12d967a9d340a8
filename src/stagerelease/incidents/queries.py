"""Reads of incidents, as frozen rows. Nothing here decides who may see what."""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, func, or_, select, union_all

from stagerelease.db.work import Work
from stagerelease.incidents.rows import (
    CloseConsentRow,
    EventRow,
    IncidentRow,
    ReportRow,
    UpdateRow,
)
from stagerelease.incidents.tables import (
    Incident,
    IncidentCloseConsent,
    IncidentEvent,
    IncidentEvidence,
    IncidentFamily,
    IncidentGrant,
    IncidentHold,
    IncidentReport,
    IncidentTrack,
    IncidentUpdate,
)
from stagerelease.kernel.errors import NotFound
from stagerelease.releases import queries as releases
from stagerelease.releases.queries import MAX_ID, HoldRow
from stagerelease.releases.tables import Hold

_INCIDENT: Select[*tuple[Any, ...]] = select(
    *(getattr(Incident, column.name) for column in fields(IncidentRow))
)


def find_incident(work: Work, incident_id: int) -> IncidentRow | None:
    """Return the incident of that number, or None."""
    if not 0 < incident_id <= MAX_ID:
        return None
    row = work.session.execute(_INCIDENT.where(Incident.id == incident_id)).one_or_none()
    return IncidentRow(*row) if row else None


def unknown(incident_id: int) -> NotFound:
    """Return the one answer for an incident that is not there."""
    return NotFound(f"There is no incident {incident_id}.", reason="incident.unknown")


def load_incident(work: Work, incident_id: int) -> IncidentRow:
    """Return the incident of that number.

    Raises:
        NotFound: there is none.
    """
    row = find_incident(work, incident_id)
    if row is None:
        raise unknown(incident_id)
    return row


def list_incidents(
    work: Work,
    *,
    states: Collection[str] = (),
    severity: str | None = None,
    limit: int | None = None,
    after: int | None = None,
) -> list[IncidentRow]:
    """Return incidents, newest first, at most ``limit``, those behind the number ``after``."""
    statement = _INCIDENT.order_by(Incident.id.desc())
    if states:
        statement = statement.where(Incident.state.in_(sorted(states)))
    if severity is not None:
        statement = statement.where(Incident.severity == severity)
    if after is not None:
        statement = statement.where(Incident.id < after)
    if limit is not None:
        statement = statement.limit(limit)
    return [IncidentRow(*row) for row in work.session.execute(statement)]


def confirmed(
    work: Work,
    *,
    limit: int | None = None,
    after: int | None = None,
    numbers: Collection[int] | None = None,
) -> list[IncidentRow]:
    """Return incidents that were ever confirmed, newest first; those of ``numbers``, or all."""
    statement = _INCIDENT.where(Incident.confirmed_at.is_not(None))
    statement = statement.order_by(Incident.confirmed_at.desc(), Incident.id.desc())
    if numbers is not None:
        statement = statement.where(Incident.id.in_(sorted(numbers)))
    if after is not None:
        at = work.session.execute(
            select(Incident.confirmed_at).where(Incident.id == after)
        ).scalar_one_or_none()
        if at is None:
            return []
        # Spelled so that both databases bound the scan of the index by the instant.
        behind = or_(Incident.confirmed_at < at, Incident.id < after)
        statement = statement.where(and_(Incident.confirmed_at <= at, behind))
    if limit is not None:
        statement = statement.limit(limit)
    return [IncidentRow(*row) for row in work.session.execute(statement)]


def public_moments(
    work: Work, *, before: datetime | None
) -> Generator[tuple[datetime, int], None, None]:
    """Yield when something public was said of an incident, and of which, newest first.

    ``before`` leaves out what came later; the same instant is there.
    """
    words = (
        select(IncidentUpdate.at.label("at"), IncidentUpdate.incident_id.label("id"))
        .join(Incident, Incident.id == IncidentUpdate.incident_id)
        .where(IncidentUpdate.visibility == "public", Incident.confirmed_at.is_not(None))
    )
    steps = [
        select(at.label("at"), Incident.id.label("id")).where(
            at.is_not(None), Incident.confirmed_at.is_not(None)
        )
        for at in (Incident.confirmed_at, Incident.closed_at)
    ]
    moments = union_all(words, *steps).subquery()
    statement = select(moments.c.at, moments.c.id).order_by(moments.c.at.desc())
    if before is not None:
        statement = statement.where(moments.c.at <= before)
    with work.session.execute(statement.execution_options(yield_per=200)) as rows:
        for at, incident_id in rows:
            yield at, int(incident_id)


def report_of(work: Work, incident_id: int, *, with_contact: bool) -> ReportRow:
    """Return what was reported."""
    report = work.session.execute(
        select(
            IncidentReport.text,
            IncidentReport.about,
            IncidentReport.contact,
            IncidentReport.reporter_id,
            IncidentReport.erased_at,
        ).where(IncidentReport.incident_id == incident_id)
    ).one()
    return ReportRow(
        text=report.text,
        about=report.about,
        contact=report.contact if with_contact else None,
        has_contact=report.contact is not None,
        reporter_id=report.reporter_id,
        erased_at=report.erased_at,
    )


def _linked(work: Work, linked: Any, own: Any, incident_id: int) -> tuple[Any, ...]:
    statement = select(linked).where(own == incident_id).order_by(linked)
    return tuple(work.session.execute(statement).scalars())


def _linked_by(
    work: Work, linked: Any, own: Any, incident_ids: Collection[int]
) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    statement = select(own, linked).where(own.in_(sorted(incident_ids))).order_by(linked)
    for incident_id, value in work.session.execute(statement):
        found.setdefault(incident_id, []).append(value)
    return found


def tracks_of(work: Work, incident_id: int) -> tuple[str, ...]:
    """Return the ids of the tracks listed with an incident."""
    return _linked(work, IncidentTrack.track_id, IncidentTrack.incident_id, incident_id)


def families_of(work: Work, incident_id: int) -> tuple[str, ...]:
    """Return the ids of the families listed with an incident."""
    return _linked(work, IncidentFamily.family_id, IncidentFamily.incident_id, incident_id)


def grants_of(work: Work, incident_id: int) -> tuple[str, ...]:
    """Return the ids of the grants that an incident has to do with."""
    return _linked(work, IncidentGrant.grant_id, IncidentGrant.incident_id, incident_id)


def evidence_of(work: Work, incident_id: int) -> tuple[str, ...]:
    """Return the ids of the evidence that an incident rests on."""
    return _linked(work, IncidentEvidence.evidence_id, IncidentEvidence.incident_id, incident_id)


def holds_of(work: Work, incident_id: int, *, active: bool = False) -> tuple[HoldRow, ...]:
    """Return the holds laid for an incident, oldest first; ``active`` leaves out lifted ones."""
    statement = (
        select(*(getattr(Hold, column.name) for column in fields(HoldRow)))
        .join(IncidentHold, IncidentHold.hold_id == Hold.id)
        .where(IncidentHold.incident_id == incident_id)
        .order_by(Hold.id)
    )
    if active:
        statement = statement.where(Hold.lifted_at.is_(None))
    return tuple(HoldRow(*row) for row in work.session.execute(statement))


def active_holds_by(work: Work, incident_ids: Collection[int]) -> dict[int, int]:
    """Return, by incident, how many of the holds laid for it are active; none is left out."""
    rows = work.session.execute(
        select(IncidentHold.incident_id, func.count())
        .join(Hold, Hold.id == IncidentHold.hold_id)
        .where(IncidentHold.incident_id.in_(sorted(incident_ids)), Hold.lifted_at.is_(None))
        .group_by(IncidentHold.incident_id)
    )
    return {int(incident_id): int(count) for incident_id, count in rows}


def events_of(work: Work, incident_id: int) -> tuple[EventRow, ...]:
    """Return the steps of an incident, oldest first."""
    rows = work.session.execute(
        select(*(getattr(IncidentEvent, column.name) for column in fields(EventRow)))
        .where(IncidentEvent.incident_id == incident_id)
        .order_by(IncidentEvent.leaf_idx)
    )
    return tuple(EventRow(*row) for row in rows)


def updates_of(
    work: Work, incident_id: int, *, visibilities: Collection[str] = ()
) -> tuple[UpdateRow, ...]:
    """Return the words on an incident, oldest first; those of some visibilities, or all."""
    statement = select(
        *(getattr(IncidentUpdate, column.name) for column in fields(UpdateRow))
    ).where(IncidentUpdate.incident_id == incident_id)
    if visibilities:
        statement = statement.where(IncidentUpdate.visibility.in_(sorted(visibilities)))
    rows = work.session.execute(statement.order_by(IncidentUpdate.leaf_idx))
    return tuple(UpdateRow(*row) for row in rows)


def public_updates_by(work: Work, incident_ids: Collection[int]) -> dict[int, list[UpdateRow]]:
    """Return, by incident, the words meant for everybody, oldest first."""
    found: dict[int, list[UpdateRow]] = {}
    rows = work.session.execute(
        select(*(getattr(IncidentUpdate, column.name) for column in fields(UpdateRow)))
        .where(
            IncidentUpdate.incident_id.in_(sorted(incident_ids)),
            IncidentUpdate.visibility == "public",
        )
        .order_by(IncidentUpdate.leaf_idx)
    )
    for row in rows:
        found.setdefault(row.incident_id, []).append(UpdateRow(*row))
    return found


def last_event(work: Work, incident_id: int) -> str | None:
    """Return the last step of an incident: consents to close it are counted from there."""
    return work.session.execute(
        select(IncidentEvent.id)
        .where(IncidentEvent.incident_id == incident_id)
        .order_by(IncidentEvent.leaf_idx.desc())
        .limit(1)
    ).scalar_one_or_none()


def update_row(update: IncidentUpdate) -> UpdateRow:
    """Return a word as a row."""
    return UpdateRow(*(getattr(update, column.name) for column in fields(UpdateRow)))


def consents_of(work: Work, incident_id: int, round_: str | None) -> tuple[CloseConsentRow, ...]:
    """Return the consents to close given since the event ``round_``, oldest first."""
    rows = work.session.execute(
        select(*(getattr(IncidentCloseConsent, column.name) for column in fields(CloseConsentRow)))
        .where(
            IncidentCloseConsent.incident_id == incident_id, IncidentCloseConsent.round == round_
        )
        .order_by(IncidentCloseConsent.leaf_idx)
    )
    return tuple(CloseConsentRow(*row) for row in rows)


def covered_by(
    work: Work, incidents: Collection[IncidentRow]
) -> dict[int, list[releases.TrackRow]]:
    """Return, by incident, every track it covers now: listed, of its families, or every one."""
    tracks = releases.list_tracks(work)
    ids = [incident.id for incident in incidents]
    listed = _linked_by(work, IncidentTrack.track_id, IncidentTrack.incident_id, ids)
    families = _linked_by(work, IncidentFamily.family_id, IncidentFamily.incident_id, ids)
    return {
        one.id: [
            track
            for track in tracks
            if one.scope == "everything"
            or track.id in listed.get(one.id, ())
            or track.family_id in families.get(one.id, ())
        ]
        for one in incidents
    }


def covered_tracks(work: Work, incident: IncidentRow) -> list[releases.TrackRow]:
    """Return every track that an incident covers now."""
    return covered_by(work, [incident])[incident.id]


def covering_since(
    work: Work, track: releases.TrackRow, *, since: datetime, until: datetime
) -> int:
    """Return how many incidents that cover a track were confirmed in a window."""
    listed = select(IncidentTrack.incident_id).where(IncidentTrack.track_id == track.id)
    by_family = select(IncidentFamily.incident_id).where(
        IncidentFamily.family_id == track.family_id
    )
    return work.session.execute(
        select(func.count())
        .select_from(Incident)
        .where(
            Incident.confirmed_at >= since,
            Incident.confirmed_at < until,
            or_(
                Incident.scope == "everything",
                Incident.id.in_(listed),
                Incident.id.in_(by_family),
            ),
        )
    ).scalar_one()

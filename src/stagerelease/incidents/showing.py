"""Reads of incidents: everything to staff, and to everybody what invariant 16 lets them know.

The public view has no names of people or partners, and no words that were not written for it.
"""

from __future__ import annotations

from collections.abc import Collection

from stagerelease.db.work import Work
from stagerelease.entitlements.known import public_ones
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.incidents import queries, receipts
from stagerelease.incidents.rows import (
    IncidentPage,
    IncidentRow,
    PublicIncident,
    PublicUpdate,
)
from stagerelease.incidents.rules import OPEN, Severity, State
from stagerelease.kernel.errors import FieldError, Invalid
from stagerelease.releases import queries as releases

MOST_REPOS = 50
"""Repositories that one public entry names; the count of tracks is always whole."""


def list_incidents(
    work: Work,
    *,
    state: str | None = None,
    severity: str | None = None,
    limit: int | None = None,
    after: int | None = None,
) -> list[IncidentRow]:
    """Return incidents to staff, newest first; ``state`` is one of the states or ``open``.

    Raises:
        Invalid: no such state or severity.
    """
    require(work.actor, Permission.INCIDENT_READ)
    states = {"open": OPEN}.get(state or "", frozenset())
    if state is not None and not states:
        if state not in set(State):
            sentence = f"A state is open, {', '.join(State)}."
            raise Invalid(sentence, reason="incident.state", fields=[FieldError("state", sentence)])
        states = frozenset({State(state)})
    if severity is not None and severity not in set(Severity):
        sentence = f"A severity is {', '.join(Severity)}."
        raise Invalid(
            sentence, reason="incident.severity", fields=[FieldError("severity", sentence)]
        )
    return queries.list_incidents(work, states=states, severity=severity, limit=limit, after=after)


def show_incident(work: Work, incident_id: int) -> IncidentPage:
    """Return everything known of an incident to staff; contact only to who handles incidents.

    Raises:
        NotFound: there is no such incident.
    """
    require(work.actor, Permission.INCIDENT_READ)
    return page_of(work, incident_id)


def page_of(work: Work, incident_id: int) -> IncidentPage:
    """Return everything known of an incident; the caller has decided that they may know it."""
    incident = queries.load_incident(work, incident_id)
    handles = authorize(work.actor, Permission.INCIDENT_MANAGE).allowed
    return IncidentPage(
        incident=incident,
        report=queries.report_of(work, incident_id, with_contact=handles),
        tracks=queries.tracks_of(work, incident_id),
        families=queries.families_of(work, incident_id),
        grants=queries.grants_of(work, incident_id),
        evidence=queries.evidence_of(work, incident_id),
        holds=queries.holds_of(work, incident_id),
        events=queries.events_of(work, incident_id),
        updates=queries.updates_of(work, incident_id),
        advisories=receipts.advisories_of(work, incident_id),
        consents=queries.consents_of(work, incident_id, queries.last_event(work, incident_id)),
    )


def public_incidents(
    work: Work, *, limit: int | None = None, after: int | None = None
) -> list[PublicIncident]:
    """Return every incident that was ever confirmed, to anybody, newest first."""
    return _public(work, queries.confirmed(work, limit=limit, after=after))


def public_incidents_of(work: Work, numbers: Collection[int]) -> list[PublicIncident]:
    """Return those of ``numbers`` that were ever confirmed, to anybody, newest first."""
    return _public(work, queries.confirmed(work, numbers=numbers))


def public_incident(work: Work, incident_id: int) -> PublicIncident:
    """Return one confirmed incident to anybody.

    Raises:
        NotFound: none of that number was ever confirmed.
    """
    rows = queries.confirmed(work, numbers=[incident_id]) if incident_id <= releases.MAX_ID else []
    if not rows:
        raise queries.unknown(incident_id)
    return _public(work, rows)[0]


def _public(work: Work, rows: list[IncidentRow]) -> list[PublicIncident]:
    """Return incidents as everybody may read them; as many statements however many there are."""
    if not rows:
        return []
    ids = [row.id for row in rows]
    covered = queries.covered_by(work, rows)
    holds = queries.active_holds_by(work, ids)
    told = receipts.last_advisories_by(work, ids)
    words = queries.public_updates_by(work, ids)
    every = {track.id: track for tracks in covered.values() for track in tracks}
    known = {track.id for track in public_ones(work, list(every.values()))}
    found = []
    for row in rows:
        # What is internal is not even counted: its number is nobody's business.
        tracks = [track for track in covered[row.id] if track.id in known]
        holders, acknowledged = told.get(row.id, (0, 0))
        one = PublicIncident(
            id=row.id,
            state=row.state,
            severity=row.severity or "",
            blocking=row.blocking,
            everything=row.scope == "everything",
            tracks=len(tracks),
            families=len({track.family_id for track in tracks}),
            repos=tuple(sorted({track.repo_id for track in tracks})[:MOST_REPOS]),
            holds_active=holds.get(row.id, 0),
            holders_told=holders,
            holders_acknowledged=acknowledged,
            summary=row.public_summary,
            outcome=row.public_outcome if row.closed_at is not None else "",
            confirmed_at=row.confirmed_at or row.state_since,
            state_since=row.state_since,
            closed_at=row.closed_at,
            updates=tuple(PublicUpdate(w.text, w.at) for w in words.get(row.id, ())),
        )
        found.append(one)
    return found

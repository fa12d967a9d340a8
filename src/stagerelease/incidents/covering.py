"""What an incident covers and rests on, and the holds that stop it.

A hold laid here is lifted where every hold is: by two people, in ``releases``. Nothing in this
slice lifts one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert

from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.evidence import queries as evidence_queries
from stagerelease.incidents import queries
from stagerelease.incidents.rules import Scope
from stagerelease.incidents.tables import (
    Incident,
    IncidentEvidence,
    IncidentFamily,
    IncidentGrant,
    IncidentHold,
    IncidentTrack,
)
from stagerelease.kernel.errors import FieldError, Invalid, NotFound
from stagerelease.partners import queries as partner_queries
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service
from stagerelease.releases.moving import lock_tracks

MOST_LINKS = 200
"""Tracks, families, grants or pieces of evidence that one incident names, each."""


@dataclass(frozen=True, slots=True)
class Links:
    """What an incident names: what it covers, whose grants it is about, what it rests on."""

    everything: bool = False
    tracks: Collection[str] = ()
    families: Collection[str] = ()
    grants: Collection[str] = ()
    evidence: Collection[str] = ()

    @property
    def covers(self) -> bool:
        """Tell whether anything at all is covered."""
        return self.everything or bool(self.tracks) or bool(self.families)


def check_links(work: Work, links: Links) -> None:
    """Return only if everything named is there.

    Raises:
        NotFound: something is not; says what.
        Invalid: too many names.
    """
    for field in ("tracks", "families", "grants", "evidence"):
        if len(getattr(links, field)) > MOST_LINKS:
            sentence = f"An incident names at most {MOST_LINKS} {field}; cover a family instead."
            raise Invalid(sentence, reason="incident.links", fields=[FieldError(field, sentence)])
    for track_id in links.tracks:
        releases.load_track(work, track_id)
    if links.families:
        known = {family.id for family in catalog.list_families(work)}
        for family_id in links.families:
            if family_id not in known:
                raise NotFound(f"There is no family {family_id!r}.", reason="family.unknown")
    for grant_id in links.grants:
        partner_queries.load_grant(work, grant_id)
    for evidence_id in links.evidence:
        evidence_queries.load_evidence(work, evidence_id)


def present_links(work: Work, incident: Incident) -> Links:
    """Return what an incident names now."""
    return Links(
        everything=incident.scope == Scope.EVERYTHING,
        tracks=queries.tracks_of(work, incident.id),
        families=queries.families_of(work, incident.id),
        grants=queries.grants_of(work, incident.id),
        evidence=queries.evidence_of(work, incident.id),
    )


def set_links(work: Work, incident: Incident, links: Links) -> None:
    """Make a locked incident name exactly these."""
    incident.scope = (Scope.EVERYTHING if links.everything else Scope.LISTED).value
    tables: tuple[tuple[Any, str, Collection[str]], ...] = (
        (IncidentTrack, "track_id", links.tracks),
        (IncidentFamily, "family_id", links.families),
        (IncidentGrant, "grant_id", links.grants),
        (IncidentEvidence, "evidence_id", links.evidence),
    )
    for table, column, wanted in tables:
        work.session.execute(delete(table).where(table.incident_id == incident.id))
        rows = [{"incident_id": incident.id, column: value} for value in sorted(set(wanted))]
        if rows:
            work.session.execute(insert(table), rows)


def together(before: Links, added: Links) -> Links:
    """Return what both name."""
    return Links(
        everything=before.everything or added.everything,
        tracks=sorted({*before.tracks, *added.tracks}),
        families=sorted({*before.families, *added.families}),
        grants=sorted({*before.grants, *added.grants}),
        evidence=sorted({*before.evidence, *added.evidence}),
    )


def lock_covered(work: Work, incident_id: int) -> list[str]:
    """Lock every track an incident covers, in the one order, and return their ids.

    Before the first log entry of this Work: a promotion being applied is over first.
    """
    row = queries.load_incident(work, incident_id)
    track_ids = [track.id for track in queries.covered_tracks(work, row)]
    lock_tracks(work, track_ids)
    return track_ids


def lay_holds(work: Work, incident: Incident) -> tuple[int, ...]:
    """Lay a hold over each thing a locked incident covers that its own holds do not stop already.

    Returns the numbers of the holds laid now. The caller has locked what is covered.
    """
    standing = {
        (hold.scope, hold.scope_id) for hold in queries.holds_of(work, incident.id, active=True)
    }
    links = present_links(work, incident)
    wanted: list[tuple[str, str | None]] = [("everything", None)] if links.everything else []
    wanted += [("family", family_id) for family_id in links.families]
    wanted += [("track", track_id) for track_id in links.tracks]
    public = f"Stopped because of incident {incident.id}."
    if incident.public_summary:
        public = f"{public} {incident.public_summary}"
    laid = []
    for scope, scope_id in wanted:
        if (scope, scope_id) in standing:
            continue
        hold = release_service.lay_hold(
            work,
            scope=scope,
            scope_id=scope_id,
            reason=f"Incident {incident.id}: {incident.title or 'blocking'}",
            public_reason=public[:500],
        )
        work.session.add(IncidentHold(incident_id=incident.id, hold_id=hold.id))
        laid.append(hold.id)
    work.session.flush()
    return tuple(laid)

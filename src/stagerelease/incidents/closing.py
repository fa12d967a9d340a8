"""Closing an incident: one person's word, and for a blocking one a second person's consent.

It never lifts a hold: whoever closes is told which ones stay, and two people lift each of those.
"""

from __future__ import annotations

from collections.abc import Collection

from stagerelease.db.work import Work
from stagerelease.identity.rules import ROLE_PERMISSIONS, Permission, Role, require
from stagerelease.incidents import queries
from stagerelease.incidents.moving import lock_incident, move, record
from stagerelease.incidents.rows import CloseConsentRow, IncidentPage
from stagerelease.incidents.rules import (
    MAX_PUBLIC,
    Step,
    check_words,
    consents_to_close,
    next_state,
)
from stagerelease.incidents.showing import page_of
from stagerelease.incidents.tables import Incident, IncidentCloseConsent
from stagerelease.kernel.canonical import canonical_sha256
from stagerelease.kernel.errors import Conflict
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.releases.humans import accountable
from stagerelease.releases.people import standing

_MAY_CLOSE = frozenset(r for r in Role if Permission.INCIDENT_MANAGE in ROLE_PERMISSIONS[r])


def close(work: Work, incident_id: int, *, outcome: str, public_outcome: str = "") -> IncidentPage:
    """Close a mitigated incident with its outcome; a blocking one once two people say the same.

    Until the second person consents to the same words, the incident stays mitigated. A hold that
    was laid for it stays active; the answer says which.

    Raises:
        Conflict: it is not mitigated, or this person consented to these words already.
        Forbidden: a blocking one, and the caller is not a person's own account.
    """
    require(work.actor, Permission.INCIDENT_MANAGE)
    outcome = check_words(outcome, "outcome", field="outcome")
    public_outcome = check_words(
        public_outcome, "public outcome", field="public_outcome", required=False, limit=MAX_PUBLIC
    )
    incident = lock_incident(work, incident_id)
    next_state(incident.state, Step.CLOSE, incident.id)
    needed = consents_to_close(blocking=incident.blocking)
    people: list[str] = []
    if needed > 1:
        people = _consent(work, incident, outcome, public_outcome, needed)
        if len(people) < needed:
            return page_of(work, incident.id)
    before = move(work, incident, Step.CLOSE)
    incident.outcome, incident.public_outcome = outcome, public_outcome
    incident.closed_at = work.now
    stay = [hold.id for hold in queries.holds_of(work, incident.id, active=True)]
    record(
        work,
        incident,
        Step.CLOSE,
        before=before,
        reason=outcome,
        detail={"holds_active": stay, "consents": len(people), "public_outcome": public_outcome},
        facts={"holds_active": stay, "public_outcome": public_outcome},
    )
    return page_of(work, incident.id)


def _consent(
    work: Work, incident: Incident, outcome: str, public_outcome: str, needed: int
) -> list[str]:
    """Record the caller's consent to these words; return everybody whose consent to them counts."""
    me = accountable(work, "consent to close a blocking incident")
    digest = canonical_sha256({"outcome": outcome, "public_outcome": public_outcome})
    now = queries.last_event(work, incident.id)
    given = [c for c in queries.consents_of(work, incident.id, now) if c.outcome_sha256 == digest]
    if any(consent.person_id == me for consent in given):
        raise Conflict(
            "You have consented to close it with these words; somebody else has to as well.",
            reason="incident.consented",
            next_step="Ask another person who handles incidents.",
        )
    counted = [*_still_count(work, given), me]
    leaf = ledger.append(
        work,
        type="incident.close_consented",
        subject=f"incident:{incident.id}",
        prev_state=incident.state,
        new_state=incident.state,
        detail={"person": me, "outcome_sha256": digest, "consents": len(counted), "of": needed},
    )
    work.session.add(
        IncidentCloseConsent(
            id=new_id("icc"),
            incident_id=incident.id,
            round=str(now),
            outcome=outcome,
            public_outcome=public_outcome,
            outcome_sha256=digest,
            person_id=me,
            at=work.now,
            leaf_idx=leaf,
        )
    )
    work.session.flush()
    return counted


def _still_count(work: Work, given: Collection[CloseConsentRow]) -> list[str]:
    """Return the givers who may still handle incidents, kept so until this Work ends."""
    who = standing(work, sorted({consent.person_id for consent in given}), lock=True)
    return [
        person_id
        for person_id, (_, human, disabled, roles) in who.items()
        if human and not disabled and roles & _MAY_CLOSE
    ]

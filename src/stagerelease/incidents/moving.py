"""The one way an incident changes state, and the one way a word is put on its thread.

Lock order: the incident, the tracks it covers, its receipts, and the ledger last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.incidents import queries
from stagerelease.incidents.rows import UpdateRow
from stagerelease.incidents.rules import Step, Visibility, next_state
from stagerelease.incidents.tables import Incident, IncidentEvent, IncidentUpdate
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.releases.queries import MAX_ID

WATCHERS = ("owner", "release_manager", "security")
"""Staff roles that hear of every step of an incident."""
KNOWN_STEPS = frozenset({Step.CONFIRM, Step.MITIGATE, Step.CLOSE})
"""Steps that everybody may know of, since the public list tells them."""


def lock_incident(work: Work, incident_id: int) -> Incident:
    """Return an incident, locked until this Work ends.

    Raises:
        NotFound: there is none.
    """
    found = None
    if 0 < incident_id <= MAX_ID:
        found = work.session.execute(
            select(Incident)
            .where(Incident.id == incident_id)
            .with_for_update(key_share=True)
            .execution_options(populate_existing=True)
        ).scalar_one_or_none()
    if found is None:
        raise queries.unknown(incident_id)
    return found


def move(work: Work, incident: Incident, step: Step) -> str:
    """Move a locked incident by ``step`` and return where it stood before; ``record`` follows.

    Raises:
        Conflict: it cannot be done from there.
    """
    to = next_state(incident.state, step, incident.id)
    before = incident.state
    if to != before:
        incident.state_since = work.now
    incident.state = to.value
    return before


def record(
    work: Work,
    incident: Incident,
    step: Step | None,
    *,
    before: str | None,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> IncidentEvent:
    """Write a step to history and log and tell those who watch; ``step`` None is the report.

    No words of the reporter are in the log or in what is told.
    """
    work.session.flush()  # a lost race over the row shows here, before the log is locked
    name = step.value if step is not None else "reported"
    if step is not Step.REASSESS:
        _tell(work, incident, name, {**({"reason": reason} if reason else {}), **(facts or {})})
    leaf = ledger.append(
        work,
        type=f"incident.{name}",
        subject=f"incident:{incident.id}",
        prev_state=before,
        new_state=incident.state,
        detail={
            "severity": incident.severity,
            "blocking": incident.blocking,
            "actor_tier": incident.actor_tier,
            "scope": incident.scope,
            **({"reason": reason} if reason else {}),
            **(detail or {}),
        },
        private=step not in KNOWN_STEPS,
    )
    event = IncidentEvent(
        id=new_id("ine"),
        incident_id=incident.id,
        from_state=before,
        to_state=incident.state,
        reason=reason,
        actor_id=work.actor.id,
        at=work.now,
        leaf_idx=leaf,
    )
    work.session.add(event)
    work.session.flush()
    return event


def _tell(work: Work, incident: Incident, name: str, facts: Mapping[str, Any]) -> None:
    emit(
        work,
        f"incident.{name}",
        subject=f"incident:{incident.id}",
        roles=WATCHERS,
        facts={
            "incident_id": incident.id,
            "state": incident.state,
            "severity": incident.severity,
            "blocking": incident.blocking,
            "title": incident.title,
            "public_summary": incident.public_summary,
            "scope": incident.scope,
            **facts,
        },
    )


def add_update(
    work: Work, incident_id: int, text: str, *, visibility: Visibility, by: str = "staff"
) -> UpdateRow:
    """Put a checked word on an incident's thread; the log gets its digest, not the word."""
    leaf = ledger.append(
        work,
        type="incident.updated",
        subject=f"incident:{incident_id}",
        detail={
            "visibility": visibility.value,
            "by": by,
            "text_sha256": sha256_hex(text.encode()),
        },
    )
    update = IncidentUpdate(
        id=new_id("inu"),
        incident_id=incident_id,
        visibility=visibility.value,
        written_by=by,
        author_id=work.actor.id,
        text=text,
        at=work.now,
        leaf_idx=leaf,
    )
    work.session.add(update)
    work.session.flush()
    return queries.update_row(update)

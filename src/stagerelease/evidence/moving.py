"""The one way evidence changes state: under a lock, with an event and a log entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.evidence import queries
from stagerelease.evidence.queries import EvidenceRow
from stagerelease.evidence.rules import State, check_move
from stagerelease.evidence.tables import Evidence, EvidenceEvent
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.errors import NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger

DECIDERS = ("release_manager", "reviewer", "security")
"""Roles that hear of evidence to be decided on."""
_TELLS_DECIDERS = frozenset({"submitted", "disputed", "retracted"})
_TELLS_AUTHORS = frozenset(
    {"accepted", "rejected", "disputed", "resolved", "retracted", "superseded"}
)


def lock(work: Work, evidence_id: str) -> Evidence:
    """Return the row of a piece of evidence, locked until this Work ends.

    Raises:
        NotFound: there is none.
    """
    evidence = None
    if queries.storable(evidence_id):
        evidence = work.session.execute(
            select(Evidence).where(Evidence.id == evidence_id).with_for_update()
        ).scalar_one_or_none()
        work.refresh_now()
    if evidence is None:
        raise NotFound(f"There is no evidence {evidence_id!r}.", reason="evidence.unknown")
    return evidence


def move(evidence: Evidence, to: State, *, reason: str) -> None:
    """Move a locked piece of evidence to ``to``; call ``record`` when the use case is done.

    Raises:
        Conflict: it may not move there.
    """
    check_move(evidence.state, to, evidence.id)
    evidence.state = to
    evidence.state_reason = reason


def record(
    work: Work,
    evidence: Evidence,
    event: str,
    *,
    before: str | None,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> EvidenceRow:
    """Write what happened to history and log, tell those concerned, and return the row."""
    work.session.flush()
    row = queries.load_evidence(work, evidence.id)
    if event in _TELLS_AUTHORS | _TELLS_DECIDERS:
        _tell(work, row, event, reason)
    leaf = ledger.append(
        work,
        type=f"evidence.{event}",
        subject=f"evidence:{row.id}",
        prev_state=before,
        new_state=row.state,
        detail={"reason": reason, **(detail or {})},
    )
    work.session.add(
        EvidenceEvent(
            id=new_id("eve"),
            evidence_id=row.id,
            from_state=before,
            to_state=row.state,
            reason=reason,
            actor_id=work.actor.id,
            at=work.now,
            leaf_idx=leaf,
        )
    )
    work.session.flush()
    return row


def _tell(work: Work, row: EvidenceRow, event: str, reason: str) -> None:
    authors = queries.authors_of(work, [row.id])[row.id]
    emit(
        work,
        f"evidence.{event}",
        subject=f"evidence:{row.id}",
        people=authors if event in _TELLS_AUTHORS else (),
        roles=DECIDERS if event in _TELLS_DECIDERS else (),
        facts={
            "evidence": row.id,
            "type": row.type,
            "title": row.title,
            "metric": row.metric,
            "state": row.state,
            "subject_sha256": row.subject_sha256,
            "reason": reason,
        },
    )

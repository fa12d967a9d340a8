"""Whether a refused caller has asked already: read as plain SQL from the floor above.

Access requests live above this slice. Their state changes no decision, only the words of a
refusal: somebody who waits is not told to ask. This module must never write.
"""

from __future__ import annotations

from sqlalchemy import String, column, select, table

from stagerelease.db.work import Work

_REQUEST = table(
    "access_request",
    column("id", String),
    column("variant_id", String),
    column("applicant_id", String),
    column("state", String),
    column("reason", String),
)
WAITING = frozenset({"submitted", "in_review", "returned"})


def standing(work: Work, *, variant_id: str, person_id: str) -> tuple[bool, str | None]:
    """Return whether the newest request waits, and the reason if it was rejected."""
    row = work.session.execute(
        select(_REQUEST.c.state, _REQUEST.c.reason)
        .where(_REQUEST.c.variant_id == variant_id, _REQUEST.c.applicant_id == person_id)
        .order_by(_REQUEST.c.id.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return False, None
    return row.state in WAITING, (
        row.reason or "no reason given"
    ) if row.state == "rejected" else None

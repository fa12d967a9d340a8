"""Enqueue in this transaction: the effect happens if, and only if, the change commits."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from stagerelease.db.work import Work
from stagerelease.jobs.tables import Job
from stagerelease.kernel.clock import iso
from stagerelease.kernel.ids import new_id


def enqueue(
    work: Work,
    kind: str,
    payload: Mapping[str, Any],
    *,
    run_at: datetime | None = None,
    max_attempts: int = 8,
) -> str:
    """Add a job to run at ``run_at`` (now when None) and return its id."""
    job = Job(
        id=new_id("job"),
        kind=kind,
        payload=dict(payload),
        state="queued",
        run_at=run_at or work.now,
        attempts=0,
        max_attempts=max_attempts,
        created_at=work.now,
    )
    work.session.add(job)
    return job.id


def emit(
    work: Work,
    event: str,
    *,
    subject: str,
    people: Collection[str] = (),
    organisations: Collection[str] = (),
    roles: Collection[str] = (),
    facts: Mapping[str, Any] | None = None,
    run_at: datetime | None = None,
) -> str:
    """Tell somebody later that ``event`` (``grant.expiring``) happened to ``subject``.

    ``people`` and ``organisations`` are ids, ``roles`` names of staff roles; whom it reaches, by
    what way and in which words is decided where notices are sent. ``facts`` fill those words:
    plain JSON values, and never a secret.
    """
    return enqueue(
        work,
        "notices.deliver",
        {
            "id": new_id("evt"),
            "event": event,
            "subject": subject,
            "at": iso(work.now),
            "actor": work.actor.id,
            "people": sorted(people),
            "organisations": sorted(organisations),
            "roles": sorted(roles),
            "facts": dict(facts or {}),
        },
        run_at=run_at,
    )

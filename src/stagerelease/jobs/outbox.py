"""Enqueue in this transaction: the effect happens if, and only if, the change commits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from stagerelease.db.work import Work
from stagerelease.jobs.tables import Job
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

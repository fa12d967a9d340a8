"""Claims due jobs under a lease and runs them; a worker that dies loses its lease, not the job.

At least once: a handler must be able to run again. Failures back off and are given up after
``max_attempts``, where they stay visible as ``failed``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import and_, or_, select

from stagerelease.db.work import Work, Works
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import SYSTEM

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=60)
BACKOFF = (5, 30, 120, 600, 1800, 7200, 14400, 28800)
"""Seconds before the 2nd, 3rd, … attempt."""

Handler = Callable[[Works, Mapping[str, Any]], None]
GivenUp = Callable[[Work, Mapping[str, Any], str], None]
"""What is noted, in the transaction that gives a job up: its payload and its last error."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job this worker holds the lease of."""

    id: str
    kind: str
    payload: Mapping[str, Any]
    attempts: int
    max_attempts: int


def claim(work: Work, worker: str) -> Claimed | None:
    """Take the lease of the oldest due job, or return None when nothing is due."""
    due = or_(
        and_(Job.state == "queued", Job.run_at <= work.now),
        and_(Job.state == "running", Job.lease_until <= work.now),
    )
    job = work.session.execute(
        select(Job)
        .where(due)
        .order_by(Job.run_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).scalar_one_or_none()
    if job is None:
        return None
    job.state = "running"
    job.attempts += 1
    job.lease_until = work.now + LEASE
    job.leased_by = worker
    return Claimed(job.id, job.kind, dict(job.payload), job.attempts, job.max_attempts)


def _finish(
    works: Works, claimed: Claimed, worker: str, error: str | None, given_up: GivenUp | None
) -> None:
    with works.begin(SYSTEM, quiet=True) as work:
        job = work.session.get_one(Job, claimed.id, with_for_update=True)
        if job.leased_by != worker or job.state != "running":
            return  # the lease was lost to another worker, whose result counts
        job.lease_until = None
        if error is None:
            job.state, job.finished_at, job.last_error = "done", work.now, None
            return
        job.last_error = error[:2000]
        if claimed.attempts >= claimed.max_attempts:
            job.state, job.finished_at = "failed", work.now
            if given_up is not None:
                given_up(work, claimed.payload, error)
            return
        wait = BACKOFF[min(claimed.attempts, len(BACKOFF)) - 1]
        job.state, job.run_at = "queued", work.now + timedelta(seconds=wait)


def run_one(
    works: Works,
    handlers: Mapping[str, Handler],
    worker: str,
    *,
    given_up: Mapping[str, GivenUp] | None = None,
) -> bool:
    """Run one due job; return False when there was none.

    A handler's exception is recorded on the job and does not leave this function. ``given_up``
    says, by kind, what else is noted when the last attempt failed.
    """
    with works.begin(SYSTEM, read_only=True) as work:
        waiting = work.session.execute(
            select(Job.id)
            .where(
                or_(
                    and_(Job.state == "queued", Job.run_at <= work.now),
                    and_(Job.state == "running", Job.lease_until <= work.now),
                )
            )
            .limit(1)
        ).first()
    if waiting is None:  # an idle worker never takes the write lock
        return False
    with works.begin(SYSTEM, quiet=True) as work:
        claimed = claim(work, worker)
    if claimed is None:
        return False
    handler = handlers.get(claimed.kind)
    error: str | None = None
    if handler is None:
        error = f"no handler for jobs of kind {claimed.kind!r}"
    else:
        try:
            handler(works, claimed.payload)
        except Exception as caught:  # noqa: BLE001 (any failure of a handler is a recorded failure)
            error = f"{type(caught).__name__}: {caught}"
    if error is not None:
        log.warning("job failed", job=claimed.id, kind=claimed.kind, error=error)
    _finish(works, claimed, worker, error, (given_up or {}).get(claimed.kind))
    return True

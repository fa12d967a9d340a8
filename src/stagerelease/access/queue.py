"""What reviewers look at: the queue, a page at a time; and how long answers take."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement

from stagerelease.access import queries
from stagerelease.access.moving import variant_id_of
from stagerelease.access.queries import RequestRow
from stagerelease.access.rules import (
    DECISION_WINDOW,
    OPEN,
    DecisionTimes,
    State,
    decision_times_of,
)
from stagerelease.db.work import Work
from stagerelease.identity import queries as people
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.errors import Invalid, NotFound
from stagerelease.partners.moving import require_known
from stagerelease.releases.queries import storable

NOBODY, ME = "nobody", "me"
MOST = 200


@dataclass(frozen=True, slots=True)
class Queued:
    """A request in the queue, with how long it has waited for us since it was submitted."""

    request: RequestRow
    age_seconds: int


@dataclass(frozen=True, slots=True)
class QueuePage:
    """One page of the queue, oldest first; ``next`` is the ``after`` of the page behind it.

    ``waiting`` counts requests in each open state, whatever the filters say.
    """

    rows: tuple[Queued, ...]
    next: str | None
    waiting: dict[str, int]
    times: DecisionTimes


def queue(
    work: Work,
    *,
    states: Collection[str] = (),
    repo_id: str | None = None,
    assignee: str | None = None,
    older_than: timedelta | None = None,
    limit: int = 50,
    after: str | None = None,
) -> QueuePage:
    """Return requests for reviewers, oldest first: the open ones, or those in ``states``.

    ``assignee`` is a handle, ``me`` or ``nobody``. Paged by key: ``after`` is the id of the last
    request seen, so that requests which come or go meanwhile shift nothing.

    Raises:
        Unauthenticated, Forbidden: the caller reads no access requests.
        Invalid: there is no such state, or ``limit`` is not 1 to 200.
        NotFound: there is no such repository or person.
    """
    require_known(work.actor)
    require(work.actor, Permission.ACCESS_REQUEST_READ)
    if not 1 <= limit <= MOST:
        raise Invalid(f"A page has 1 to {MOST} requests.", reason="access.limit")
    unknown = sorted(set(states) - set(State))
    if unknown:
        raise Invalid(f"A request is {', '.join(State)}.", reason="access.state")
    conditions = [queries.in_states([State(s) for s in states] or OPEN)]
    if assignee is not None:
        conditions.append(_assignee(work, assignee))
    if older_than is not None:
        conditions.append(queries.submitted_before(work.now - older_than))
    rows = queries.list_requests(
        work,
        conditions=conditions,
        variant_id=None if repo_id is None else variant_id_of(work, repo_id),
        limit=limit + 1,
        after=after,
        newest_first=False,
    )
    shown = rows[:limit]
    return QueuePage(
        rows=tuple(Queued(row, _age(row, work.now)) for row in shown),
        next=shown[-1].id if len(rows) > limit else None,
        waiting=queries.requests_waiting(work),
        times=decision_times(work),
    )


def _age(row: RequestRow, now: datetime) -> int:
    return int(((row.decided_at or now) - row.submitted_at).total_seconds())


def _assignee(work: Work, name: str) -> ColumnElement[bool]:
    if name == NOBODY:
        return queries.assigned_to(None)
    if name == ME:
        return queries.assigned_to(work.actor.id)
    if not storable(name):
        raise NotFound("There is no person of that name.", reason="person.unknown")
    return queries.assigned_to(people.load_person(work, name).id)


def decision_times(work: Work) -> DecisionTimes:
    """Return how long decisions of the last 90 days took: median, 90th percentile, how many.

    Anybody may ask: applicants are told before they begin. Admissions that nobody asked for do
    not count. Reads one index.
    """
    return decision_times_of(queries.decision_seconds(work, since=work.now - DECISION_WINDOW))

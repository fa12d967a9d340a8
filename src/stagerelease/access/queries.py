"""Reads of access requests, their events, notes and conflicts, as frozen rows.

Lists are paged in SQL on ``(submitted_at, id)``; ``after`` is the id of the last row seen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import aliased

from stagerelease.access.answers import Answer
from stagerelease.access.rules import OPEN, Origin, State, Status, status_of
from stagerelease.access.tables import (
    AccessConflict,
    AccessNote,
    AccessRequest,
    AccessRequestEvent,
)
from stagerelease.catalog.tables import Variant
from stagerelease.db.work import Work
from stagerelease.identity.tables import Person
from stagerelease.partners.rules import LIVE
from stagerelease.partners.tables import Grant
from stagerelease.releases.queries import storable


@dataclass(frozen=True, slots=True)
class RequestRow:
    """An access request, with who asked for what, who looks at it, and what it led to."""

    id: str
    variant_id: str
    repo_id: str
    applicant_id: str
    handle: str
    display_name: str
    email: str | None
    state: str
    answers: Mapping[str, Answer]
    submitted_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    reason: str | None
    may_reapply_after: datetime | None
    grant_id: str | None
    version: int
    grant_state: str | None
    form_id: str | None
    origin: str
    assignee_id: str | None
    assignee: str | None
    state_since: datetime | None
    expires_at: datetime | None

    @property
    def status(self) -> Status:
        """Return how the request is shown."""
        return status_of(self.state, self.grant_state)


@dataclass(frozen=True, slots=True)
class RequestEventRow:
    """One step of a request; ``by`` is ``applicant``, ``staff`` or ``system``."""

    id: str
    request_id: str
    from_state: str | None
    to_state: str
    actor_id: str
    comment: str
    at: datetime
    leaf_idx: int
    kind: str
    by: str


@dataclass(frozen=True, slots=True)
class NoteRow:
    """A private note of a reviewer."""

    id: str
    author_id: str
    author: str
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ConflictRow:
    """A conflict of interest of one reviewer: declared by them, or computed from rosters."""

    person_id: str
    handle: str
    reason: str
    declared: bool
    at: datetime | None


_ASSIGNEE = aliased(Person)
_REQUEST: Select[*tuple[Any, ...]] = (
    select(
        AccessRequest.id,
        AccessRequest.variant_id,
        Variant.repo_id,
        AccessRequest.applicant_id,
        Person.handle,
        Person.display_name,
        Person.email,
        AccessRequest.state,
        AccessRequest.answers,
        AccessRequest.submitted_at,
        AccessRequest.decided_at,
        AccessRequest.decided_by,
        AccessRequest.reason,
        AccessRequest.may_reapply_after,
        AccessRequest.grant_id,
        AccessRequest.version,
        Grant.state,
        AccessRequest.form_id,
        AccessRequest.origin,
        AccessRequest.assignee_id,
        _ASSIGNEE.handle,
        AccessRequest.state_since,
        AccessRequest.expires_at,
    )
    .join(Variant, Variant.id == AccessRequest.variant_id)
    .join(Person, Person.id == AccessRequest.applicant_id)
    .outerjoin(Grant, Grant.id == AccessRequest.grant_id)
    .outerjoin(_ASSIGNEE, _ASSIGNEE.id == AccessRequest.assignee_id)
)
_NEWEST = (AccessRequest.submitted_at.desc(), AccessRequest.id.desc())
_OLDEST = (AccessRequest.submitted_at, AccessRequest.id)
_CONDITIONS: dict[Status, Any] = {
    Status.PENDING: AccessRequest.state.in_(sorted(OPEN)),
    Status.ACCEPTED: and_(AccessRequest.state == State.APPROVED, Grant.state.in_(sorted(LIVE))),
    Status.REJECTED: AccessRequest.state == State.REJECTED,
    Status.WITHDRAWN: AccessRequest.state.in_(sorted({State.WITHDRAWN, State.EXPIRED})),
    Status.ENDED: and_(
        AccessRequest.state == State.APPROVED,
        or_(Grant.state.is_(None), Grant.state.not_in(sorted(LIVE))),
    ),
}


def find_request(work: Work, request_id: str) -> RequestRow | None:
    """Return a request by its id, or None."""
    if not storable(request_id):
        return None
    row = work.session.execute(_REQUEST.where(AccessRequest.id == request_id)).one_or_none()
    return RequestRow(*row) if row else None


def find_latest(work: Work, *, variant_id: str, applicant_id: str) -> RequestRow | None:
    """Return a person's newest request for a variant that is not withdrawn or expired, or None."""
    row = work.session.execute(
        _REQUEST.where(
            AccessRequest.variant_id == variant_id,
            AccessRequest.applicant_id == applicant_id,
            AccessRequest.state.not_in([State.WITHDRAWN, State.EXPIRED]),
        )
        .order_by(*_NEWEST)
        .limit(1)
    ).one_or_none()
    return RequestRow(*row) if row else None


def _beyond(work: Work, after: str, *, newest_first: bool) -> ColumnElement[bool] | None:
    """Return what holds of the rows behind ``after``; None when there is no such row."""
    at = None
    if storable(after):
        at = work.session.execute(
            select(AccessRequest.submitted_at).where(AccessRequest.id == after)
        ).scalar_one_or_none()
    if at is None:
        return None
    when, own = AccessRequest.submitted_at, AccessRequest.id
    # Spelled so that both databases bound the scan of the index by the instant.
    if newest_first:
        return and_(when <= at, or_(when < at, own < after))
    return and_(when >= at, or_(when > at, own > after))


def list_requests(
    work: Work,
    *,
    conditions: Collection[ColumnElement[bool]] = (),
    variant_id: str | None = None,
    status: Status | None = None,
    applicant_id: str | None = None,
    limit: int | None = None,
    after: str | None = None,
    newest_first: bool = True,
) -> list[RequestRow]:
    """Return requests narrowed by what is given, at most ``limit``, those behind ``after``."""
    statement = _REQUEST.order_by(*(_NEWEST if newest_first else _OLDEST))
    for condition in conditions:
        statement = statement.where(condition)
    if variant_id is not None:
        statement = statement.where(AccessRequest.variant_id == variant_id)
    if applicant_id is not None:
        statement = statement.where(AccessRequest.applicant_id == applicant_id)
    if status is not None:
        statement = statement.where(_CONDITIONS[status])
    if after is not None:
        beyond = _beyond(work, after, newest_first=newest_first)
        if beyond is None:
            return []
        statement = statement.where(beyond)
    if limit is not None:
        statement = statement.limit(limit)
    return [RequestRow(*row) for row in work.session.execute(statement)]


def request_events(work: Work, request: RequestRow) -> list[RequestEventRow]:
    """Return every step of a request, oldest first."""
    rows = work.session.execute(
        select(
            AccessRequestEvent.id,
            AccessRequestEvent.request_id,
            AccessRequestEvent.from_state,
            AccessRequestEvent.to_state,
            AccessRequestEvent.actor_id,
            AccessRequestEvent.comment,
            AccessRequestEvent.at,
            AccessRequestEvent.leaf_idx,
            AccessRequestEvent.kind,
        )
        .where(AccessRequestEvent.request_id == request.id)
        .order_by(AccessRequestEvent.leaf_idx, AccessRequestEvent.id)
    )
    return [
        RequestEventRow(
            *row[:8],
            kind=row.kind or row.to_state,
            by="applicant"
            if row.actor_id == request.applicant_id
            else "system"
            if row.actor_id == "system"
            else "staff",
        )
        for row in rows
    ]


def count_events(work: Work, request_id: str) -> int:
    """Return how many steps a request has."""
    return work.session.execute(
        select(func.count())
        .select_from(AccessRequestEvent)
        .where(AccessRequestEvent.request_id == request_id)
    ).scalar_one()


def list_notes(work: Work, request_id: str) -> list[NoteRow]:
    """Return the private notes on a request, oldest first."""
    rows = work.session.execute(
        select(AccessNote.id, AccessNote.author_id, Person.handle, AccessNote.text, AccessNote.at)
        .outerjoin(Person, Person.id == AccessNote.author_id)
        .where(AccessNote.request_id == request_id)
        .order_by(AccessNote.at, AccessNote.id)
    )
    return [NoteRow(i, who, handle or who, text, at) for i, who, handle, text, at in rows]


def declared_conflicts(work: Work, request_id: str) -> list[ConflictRow]:
    """Return the conflicts of interest that reviewers declared in a request, oldest first."""
    rows = work.session.execute(
        select(AccessConflict.person_id, Person.handle, AccessConflict.reason, AccessConflict.at)
        .join(Person, Person.id == AccessConflict.person_id)
        .where(AccessConflict.request_id == request_id)
        .order_by(AccessConflict.at, AccessConflict.id)
    )
    return [ConflictRow(who, handle, reason, True, at) for who, handle, reason, at in rows]


def decision_seconds(work: Work, *, since: datetime) -> list[int]:
    """Return how long each decision since then took, shortest first; from one index."""
    rows = work.session.execute(
        select(AccessRequest.decision_seconds)
        .where(AccessRequest.decided_at >= since, AccessRequest.decision_seconds.is_not(None))
        .order_by(AccessRequest.decision_seconds)
    )
    return [seconds for (seconds,) in rows if seconds is not None]


def requests_waiting(work: Work) -> dict[str, int]:
    """Return how many requests are in each open state."""
    rows = work.session.execute(
        select(AccessRequest.state, func.count())
        .where(AccessRequest.state.in_(sorted(OPEN)))
        .group_by(AccessRequest.state)
    )
    return {row[0]: row[1] for row in rows}


def in_states(states: Collection[State]) -> ColumnElement[bool]:
    """Return the condition that a request is in one of ``states``."""
    return AccessRequest.state.in_(sorted(states))


def assigned_to(person_id: str | None) -> ColumnElement[bool]:
    """Return the condition that a request has this assignee; None: nobody."""
    if person_id is None:
        return AccessRequest.assignee_id.is_(None)
    return AccessRequest.assignee_id == person_id


def submitted_before(at: datetime) -> ColumnElement[bool]:
    """Return the condition that a request was submitted before an instant."""
    return AccessRequest.submitted_at < at


MEASURED = frozenset({Origin.FORM, Origin.API, Origin.HUB})
"""Requests that somebody waited for; those admitted unasked say nothing about waiting."""

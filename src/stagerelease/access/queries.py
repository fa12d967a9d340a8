"""Reads of access requests and their events, as frozen rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, or_, select

from stagerelease.access.rules import OPEN, State, Status, status_of
from stagerelease.access.tables import AccessRequest, AccessRequestEvent
from stagerelease.catalog.tables import Variant
from stagerelease.db.work import Work
from stagerelease.identity.tables import Person
from stagerelease.partners.rules import LIVE
from stagerelease.partners.tables import Grant
from stagerelease.releases.queries import storable


@dataclass(frozen=True, slots=True)
class RequestRow:
    """An access request, with who asked for what and what it led to."""

    id: str
    variant_id: str
    repo_id: str
    applicant_id: str
    handle: str
    display_name: str
    email: str | None
    state: str
    answers: Mapping[str, str]
    submitted_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    reason: str | None
    may_reapply_after: datetime | None
    grant_id: str | None
    version: int
    grant_state: str | None

    @property
    def status(self) -> Status:
        """Return how the request is shown."""
        return status_of(self.state, self.grant_state)


@dataclass(frozen=True, slots=True)
class RequestEventRow:
    """One step of a request."""

    id: str
    request_id: str
    from_state: str | None
    to_state: str
    actor_id: str
    comment: str
    at: datetime
    leaf_idx: int


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
    )
    .join(Variant, Variant.id == AccessRequest.variant_id)
    .join(Person, Person.id == AccessRequest.applicant_id)
    .outerjoin(Grant, Grant.id == AccessRequest.grant_id)
)
_NEWEST = (AccessRequest.submitted_at.desc(), AccessRequest.id.desc())
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
    """Return a person's newest request for a variant that they have not withdrawn, or None."""
    row = work.session.execute(
        _REQUEST.where(
            AccessRequest.variant_id == variant_id,
            AccessRequest.applicant_id == applicant_id,
            AccessRequest.state != State.WITHDRAWN,
        )
        .order_by(*_NEWEST)
        .limit(1)
    ).one_or_none()
    return RequestRow(*row) if row else None


def list_requests(
    work: Work,
    *,
    variant_id: str | None = None,
    status: Status | None = None,
    applicant_id: str | None = None,
) -> list[RequestRow]:
    """Return requests, newest first, narrowed by what is given."""
    statement = _REQUEST.order_by(*_NEWEST)
    if variant_id is not None:
        statement = statement.where(AccessRequest.variant_id == variant_id)
    if applicant_id is not None:
        statement = statement.where(AccessRequest.applicant_id == applicant_id)
    if status is not None:
        statement = statement.where(_CONDITIONS[status])
    return [RequestRow(*row) for row in work.session.execute(statement)]


def request_events(work: Work, request_id: str) -> list[RequestEventRow]:
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
        )
        .where(AccessRequestEvent.request_id == request_id)
        .order_by(AccessRequestEvent.leaf_idx, AccessRequestEvent.id)
    )
    return [RequestEventRow(*row) for row in rows]

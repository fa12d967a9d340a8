"""Who holds what, now and at any past instant: read from the events of grants, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, func, or_, select

from stagerelease.catalog.tables import Variant
from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.identity.tables import Organisation, Person
from stagerelease.kernel.errors import Invalid
from stagerelease.partners.rules import GrantState
from stagerelease.partners.tables import Grant, GrantEvent
from stagerelease.releases.queries import storable
from stagerelease.releases.tables import Track

MAX_PAGE = 500


@dataclass(frozen=True, slots=True)
class HolderRow:
    """One grant as it stood at the instant asked: who, what, in which state, until when."""

    grant_id: str
    holder: str
    holder_kind: str  # organisation | person
    holder_id: str
    repo_id: str
    artifact: str
    track_id: str
    audience: str
    permissions: tuple[str, ...]
    purpose: str
    state: str
    valid_from: datetime
    valid_until: datetime


def holders_report(
    work: Work,
    *,
    at: datetime | None = None,
    track_id: str | None = None,
    organisation: str | None = None,
    state: str | None = None,
    limit: int = 100,
    after: str | None = None,
) -> list[HolderRow]:
    """Return who held what ``at`` (now when None), by grant id, to somebody who may read grants.

    A state is the one of that instant: a grant suspended then and active now is shown suspended. A
    date that had passed then makes it ``expired``, whether or not that was announced yet.

    Raises:
        Invalid: ``at`` is in the future, or ``state`` is none.
    """
    require(work.actor, Permission.GRANT_READ)
    at = at or work.now
    if at > work.now:
        raise Invalid("Nobody knows yet who will hold what.", reason="holders.future")
    if state is not None and state not in set(GrantState):
        raise Invalid(f"A grant is {', '.join(GrantState)}.", reason="grant.state")
    for named in (track_id, organisation, after):
        if named is not None and not storable(named):
            return []
    statement = _held(at)
    if track_id is not None:
        statement = statement.where(Grant.track_id == track_id)
    if organisation is not None:
        statement = statement.where(
            or_(Organisation.slug == organisation, Organisation.id == organisation)
        )
    if after is not None:
        statement = statement.where(Grant.id > after)
    if state is not None:
        statement = statement.where(_is_in(state, at))
    rows = work.session.execute(statement.limit(min(limit, MAX_PAGE)))
    return [_row(values, at) for values in rows]


def _held(at: datetime) -> Select[*tuple[Any, ...]]:
    """Return the statement of every grant there was ``at``, by id, with its state of that time."""
    return (
        select(
            Grant.id,
            func.coalesce(Organisation.name, Person.display_name),
            Grant.organisation_id,
            Grant.person_id,
            Variant.repo_id,
            Track.kind,
            Grant.track_id,
            Grant.audience,
            Grant.permissions,
            Grant.purpose,
            _state_at(at),
            Grant.valid_from,
            Grant.valid_until,
        )
        .join(Track, Track.id == Grant.track_id)
        .join(Variant, Variant.id == Track.variant_id)
        .outerjoin(Organisation, Organisation.id == Grant.organisation_id)
        .outerjoin(Person, Person.id == Grant.person_id)
        .where(Grant.created_at <= at)
        .order_by(Grant.id)
    )


def _state_at(at: datetime) -> ScalarSelect[str]:
    """Return the state that the last event up to ``at`` left a grant in."""
    return (
        select(GrantEvent.to_state)
        .where(GrantEvent.grant_id == Grant.id, GrantEvent.at <= at)
        # The two steps of one issue share a leaf and an instant; the first has no state before it.
        .order_by(GrantEvent.at.desc(), GrantEvent.leaf_idx.desc(), GrantEvent.from_state.is_(None))
        .limit(1)
        .correlate(Grant)
        .scalar_subquery()
    )


def _is_in(state: str, at: datetime) -> ColumnElement[bool]:
    stored = _state_at(at)
    over = and_(stored.in_([GrantState.ACTIVE, GrantState.SUSPENDED]), Grant.valid_until <= at)
    if state == GrantState.EXPIRED:
        return or_(stored == state, over)
    if state in (GrantState.ACTIVE, GrantState.SUSPENDED):
        return and_(stored == state, Grant.valid_until > at)
    return stored == state


def _row(values: Sequence[Any], at: datetime) -> HolderRow:
    (grant_id, holder, organisation_id, person_id, repo_id, kind, track_id, audience) = values[:8]
    permissions, purpose, state, valid_from, valid_until = values[8:]
    if state in (GrantState.ACTIVE, GrantState.SUSPENDED) and valid_until <= at:
        state = GrantState.EXPIRED.value
    return HolderRow(
        grant_id=grant_id,
        holder=holder,
        holder_kind="organisation" if organisation_id else "person",
        holder_id=organisation_id or person_id,
        repo_id=repo_id,
        artifact=kind,
        track_id=track_id,
        audience=audience,
        permissions=tuple(sorted(permissions)),
        purpose=purpose,
        state=state,
        valid_from=valid_from,
        valid_until=valid_until,
    )

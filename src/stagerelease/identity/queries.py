"""Reads of people, organisations, rosters and tokens, as frozen rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, or_, select

from stagerelease.db.work import Work
from stagerelease.identity.tables import (
    ApiToken,
    Membership,
    Organisation,
    Person,
    RoleAssignment,
)
from stagerelease.kernel.errors import NotFound


@dataclass(frozen=True, slots=True)
class PersonRow:
    """A person as others may see them."""

    id: str
    handle: str
    kind: str
    display_name: str
    email: str | None
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True)
class OrganisationRow:
    """An organisation."""

    id: str
    slug: str
    name: str


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token as listed: never the token itself."""

    id: str
    person_id: str
    person: str
    name: str
    display: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


_PERSON = select(
    Person.id,
    Person.handle,
    Person.kind,
    Person.display_name,
    Person.email,
    Person.disabled_at,
)


def find_person(work: Work, handle_or_id: str) -> PersonRow | None:
    """Return the person of that handle or id, or None."""
    row = work.session.execute(
        _PERSON.where(or_(Person.handle == handle_or_id, Person.id == handle_or_id))
    ).one_or_none()
    return PersonRow(*row) if row else None


def load_person(work: Work, handle_or_id: str) -> PersonRow:
    """Return the person of that handle or id.

    Raises:
        NotFound: there is none.
    """
    row = find_person(work, handle_or_id)
    if row is None:
        raise NotFound(f"There is no person called {handle_or_id!r}.", reason="person.unknown")
    return row


def list_people(work: Work) -> list[PersonRow]:
    """Return everybody, by handle."""
    return [PersonRow(*row) for row in work.session.execute(_PERSON.order_by(Person.handle))]


def list_holders(work: Work, role: str) -> list[PersonRow]:
    """Return who holds a role of this service now and can sign in, by handle."""
    statement = (
        _PERSON.join(RoleAssignment, RoleAssignment.person_id == Person.id)
        .where(
            RoleAssignment.role == role,
            RoleAssignment.starts_at <= work.now,
            or_(RoleAssignment.ends_at.is_(None), RoleAssignment.ends_at > work.now),
            Person.disabled_at.is_(None),
        )
        .order_by(Person.handle)
    )
    return [PersonRow(*row) for row in work.session.execute(statement)]


_ORGANISATION = select(Organisation.id, Organisation.slug, Organisation.name)


def find_organisation(work: Work, slug_or_id: str) -> OrganisationRow | None:
    """Return the organisation of that slug or id, or None."""
    row = work.session.execute(
        _ORGANISATION.where(or_(Organisation.slug == slug_or_id, Organisation.id == slug_or_id))
    ).one_or_none()
    return OrganisationRow(*row) if row else None


def load_organisation(work: Work, slug_or_id: str) -> OrganisationRow:
    """Return the organisation of that slug or id.

    Raises:
        NotFound: there is none.
    """
    row = find_organisation(work, slug_or_id)
    if row is None:
        raise NotFound(
            f"There is no organisation called {slug_or_id!r}.", reason="organisation.unknown"
        )
    return row


def list_organisations(work: Work) -> list[OrganisationRow]:
    """Return every organisation, by slug."""
    rows = work.session.execute(_ORGANISATION.order_by(Organisation.slug))
    return [OrganisationRow(*row) for row in rows]


def roles_now(work: Work, person_id: str) -> dict[str, datetime | None]:
    """Return the roles a person holds at ``work.now`` with the end of each (None: open-ended)."""
    rows = work.session.execute(
        select(RoleAssignment.role, RoleAssignment.ends_at).where(
            RoleAssignment.person_id == person_id,
            RoleAssignment.starts_at <= work.now,
            or_(RoleAssignment.ends_at.is_(None), RoleAssignment.ends_at > work.now),
        )
    )
    return {row.role: row.ends_at for row in rows}


def memberships_now(work: Work, person_id: str) -> list[tuple[str, str, datetime | None]]:
    """Return ``(organisation id, role, end)`` for each roster line in force at ``work.now``."""
    rows = work.session.execute(
        select(Membership.organisation_id, Membership.role, Membership.ends_at).where(
            Membership.person_id == person_id,
            Membership.starts_at <= work.now,
            or_(Membership.ends_at.is_(None), Membership.ends_at > work.now),
        )
    )
    return [(organisation, role, ends) for organisation, role, ends in rows]


def list_tokens(work: Work, *, person_id: str | None = None) -> list[TokenRow]:
    """Return tokens, newest first; all people's when ``person_id`` is None."""
    statement = (
        select(
            ApiToken.id,
            ApiToken.person_id,
            Person.handle,
            ApiToken.name,
            ApiToken.display,
            ApiToken.scopes,
            ApiToken.created_at,
            ApiToken.expires_at,
            ApiToken.last_used_at,
            ApiToken.revoked_at,
        )
        .join(Person, Person.id == ApiToken.person_id)
        .order_by(ApiToken.created_at.desc(), ApiToken.id)
    )
    if person_id is not None:
        statement = statement.where(ApiToken.person_id == person_id)
    return [
        TokenRow(
            id=row.id,
            person_id=row.person_id,
            person=row.handle,
            name=row.name,
            display=row.display,
            scopes=tuple(row.scopes),
            created_at=row.created_at,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
            revoked_at=row.revoked_at,
        )
        for row in work.session.execute(statement)
    ]


@dataclass(frozen=True, slots=True)
class Caller:
    """A token as presented, its person, and the roles and roster entries in force."""

    token_id: str
    expires_at: datetime | None
    revoked_at: datetime | None
    scopes: frozenset[str]
    last_used_at: datetime | None
    person_id: str
    handle: str
    disabled_at: datetime | None
    roles: Mapping[str, datetime | None]
    rosters: Mapping[tuple[str, str], datetime | None]


def find_caller(work: Work, token_sha256: bytes) -> Caller | None:
    """Return who presents this token, in one trip, or None when it is unknown."""
    roles = and_(
        RoleAssignment.person_id == Person.id,
        RoleAssignment.starts_at <= work.now,
        or_(RoleAssignment.ends_at.is_(None), RoleAssignment.ends_at > work.now),
    )
    member = and_(
        Membership.person_id == Person.id,
        Membership.starts_at <= work.now,
        or_(Membership.ends_at.is_(None), Membership.ends_at > work.now),
    )
    statement = (
        select(
            ApiToken.id,
            ApiToken.expires_at,
            ApiToken.revoked_at,
            ApiToken.scopes,
            ApiToken.last_used_at,
            Person.id,
            Person.handle,
            Person.disabled_at,
            RoleAssignment.role,
            RoleAssignment.ends_at,
            Membership.organisation_id,
            Membership.role,
            Membership.ends_at,
        )
        .join(Person, Person.id == ApiToken.person_id)
        .outerjoin(RoleAssignment, roles)
        .outerjoin(Membership, member)
        .where(ApiToken.sha256 == token_sha256)
    )
    rows = work.session.execute(statement).all()
    if not rows:
        return None
    first = rows[0]
    return Caller(
        token_id=first[0],
        expires_at=first[1],
        revoked_at=first[2],
        scopes=frozenset(first[3]),
        last_used_at=first[4],
        person_id=first[5],
        handle=first[6],
        disabled_at=first[7],
        roles={row[8]: row[9] for row in rows if row[8] is not None},
        rosters={(row[10], row[11]): row[12] for row in rows if row[10] is not None},
    )

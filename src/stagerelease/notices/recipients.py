"""Turns what an event names (people, organisations, roles, a link) into who is told. Reads only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, or_, select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Role
from stagerelease.identity.tables import MailLink, Membership, Person, RoleAssignment
from stagerelease.kernel.digests import sha256_hex


@dataclass(frozen=True, slots=True)
class Recipient:
    """Somebody to tell: an account, or an address alone that a link was made for."""

    key: str
    person_id: str | None
    address: str | None


def recipients_of(work: Work, payload: Mapping[str, Any]) -> list[Recipient]:
    """Return everybody an event concerns now, each once; closed accounts are left out.

    An organisation is told through its administrators, a role through those who hold it now.
    """
    link_id = payload["facts"].get("link")
    if link_id is not None and not payload["people"]:
        found = work.session.get(MailLink, link_id)
        if found is not None and found.person_id is None and found.address is not None:
            digest = sha256_hex(found.address.encode())
            return [Recipient(digest[:64], None, found.address)]
        people = {found.person_id} if found is not None and found.person_id else set()
    else:
        people = set(payload["people"])
    people |= _administrators(work, payload["organisations"])
    people |= _holders(work, payload["roles"])
    if not people:
        return []
    rows = work.session.execute(
        select(Person.id, Person.email)
        .where(Person.id.in_(sorted(people)), Person.disabled_at.is_(None), Person.kind == "human")
        .order_by(Person.id)
    )
    return [Recipient(person_id, person_id, email) for person_id, email in rows]


def _now(
    work: Work, table: type[Membership] | type[RoleAssignment]
) -> tuple[ColumnElement[bool], ...]:
    ends = or_(table.ends_at.is_(None), table.ends_at > work.now)
    return (table.starts_at <= work.now, ends)


def _administrators(work: Work, organisations: Collection[str]) -> set[str]:
    if not organisations:
        return set()
    return set(
        work.session.scalars(
            select(Membership.person_id).where(
                Membership.organisation_id.in_(sorted(organisations)),
                Membership.role == Role.PARTNER_ADMIN,
                *_now(work, Membership),
            )
        )
    )


def _holders(work: Work, roles: Collection[str]) -> set[str]:
    if not roles:
        return set()
    return set(
        work.session.scalars(
            select(RoleAssignment.person_id).where(
                RoleAssignment.role.in_(sorted(roles)), *_now(work, RoleAssignment)
            )
        )
    )

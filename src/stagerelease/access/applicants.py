"""The person behind an address: found, or made, when the address was confirmed and not before.

Whoever reads the mail of an address is taken for its person. Nothing here answers to somebody who
merely typed it.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from sqlalchemy import func, select

from stagerelease.db.work import Work
from stagerelease.identity import queries as people
from stagerelease.identity import service as identity
from stagerelease.identity.queries import PersonRow
from stagerelease.identity.rules import Role
from stagerelease.identity.tables import Person
from stagerelease.kernel.actor import SYSTEM, Actor, ActorKind
from stagerelease.kernel.errors import Forbidden
from stagerelease.kernel.ids import new_id

LONGEST_NAME = 200
LONGEST_HANDLE_STEM = 24


def as_system(work: Work) -> Work:
    """Return the same transaction under the service's own name.

    For the few acts that a confirmed address or a reviewer's decision entails, and that neither
    an applicant nor an access officer may do at will: making an account, giving a role.
    """
    return replace(work, actor=SYSTEM)


def as_person(work: Work, person: PersonRow) -> Work:
    """Return the same transaction under a person's name, with the roles they hold now."""
    roles = people.roles_now(work, person.id)
    rosters = people.memberships_now(work, person.id)
    actor = Actor(
        kind=ActorKind.PERSON,
        id=person.id,
        name=person.handle,
        roles=frozenset(roles) | {role for _, role, _ in rosters},
        organisations=frozenset(organisation for organisation, _, _ in rosters),
        administers=frozenset(o for o, role, _ in rosters if role == Role.PARTNER_ADMIN),
        membership_ends=tuple((o, ends) for o, _, ends in rosters),
    )
    return replace(work, actor=actor)


def find_by_address(work: Work, address: str) -> PersonRow | None:
    """Return the person of an e-mail address, whatever its case: the oldest account that is on.

    A disabled account is returned only when there is no other.
    """
    ids = work.session.execute(
        select(Person.id)
        .where(func.lower(Person.email) == address.lower(), Person.kind == "human")
        .order_by(Person.disabled_at.is_not(None), Person.created_at, Person.id)
        .limit(1)
    ).scalar_one_or_none()
    return people.load_person(work, ids) if ids is not None else None


def person_of(work: Work, address: str, *, name: str) -> tuple[PersonRow, bool]:
    """Return the person of a confirmed address, and whether the account was made just now.

    Raises:
        Forbidden: the account is disabled.
    """
    found = find_by_address(work, address)
    if found is not None:
        if found.disabled_at is not None:
            raise Forbidden(
                "The account of this address is disabled.",
                reason="account.disabled",
                next_step="Write to the people who run this service.",
            )
        return found, False
    shown = name.strip()[:LONGEST_NAME] or address.partition("@")[0]
    made = identity.create_person(
        as_system(work), handle=_handle(shown), display_name=shown, email=address
    )
    return people.load_person(work, made.id), True


def _handle(name: str) -> str:
    """Return a new handle that begins like a name; its tail keeps it from telling who else is."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    stem = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:LONGEST_HANDLE_STEM].strip("-")
    return f"{stem or 'person'}-{new_id('h')[-6:]}"


def make_researcher(work: Work, person_id: str) -> None:
    """Give a person the role that lets them sign for themselves, if they lack it."""
    if Role.RESEARCHER not in people.roles_now(work, person_id):
        identity.assign_role(as_system(work), person=person_id, role=Role.RESEARCHER)

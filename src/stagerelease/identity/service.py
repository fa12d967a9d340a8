"""Use cases on people, organisations and roles; the one way a token becomes an Actor."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update

from stagerelease.db.work import Work
from stagerelease.identity import queries
from stagerelease.identity.rosters import RosterRow as RosterRow
from stagerelease.identity.rosters import end_membership as end_membership
from stagerelease.identity.rosters import list_roster as list_roster
from stagerelease.identity.rules import (
    HUMAN_ACTS,
    ROLE_PERMISSIONS,
    Permission,
    Role,
    check_text,
    is_token_shaped,
    require,
)
from stagerelease.identity.tables import (
    ApiToken,
    Membership,
    Organisation,
    Person,
    RoleAssignment,
)
from stagerelease.identity.tokens import create_token as create_token
from stagerelease.identity.tokens import end_tokens, tokens_made_by
from stagerelease.identity.tokens import revoke_token as revoke_token
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.actor import Actor, ActorKind
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger

_HANDLE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_ROSTER_ROLES = frozenset({Role.PARTNER_ADMIN, Role.PARTNER_MEMBER})
GRAVE = (HUMAN_ACTS - {Permission.AGREEMENT_SIGN}) | {Permission.PEOPLE_MANAGE}
"""What a quorum, a plan or a waiver rests on, and giving such roles."""
WATCHERS = (Role.OWNER, Role.REVIEWER, Role.AUDITOR)
"""Who is told when somebody is given a role that decides: a quorum is made of such people."""
LAST_USED_EVERY = timedelta(minutes=10)
"""A token's ``last_used_at`` is written at most this often: reads must stay reads."""


def _check_handle(text: str, what: str) -> None:
    if not _HANDLE.match(text):
        raise Invalid(
            f"{text!r} cannot be a {what}: use 1-63 of a-z, 0-9, '.', '_', '-', "
            "beginning with a letter or digit.",
            reason=f"{what}.malformed",
        )


def create_person(
    work: Work, *, handle: str, display_name: str, kind: str = "human", email: str | None = None
) -> Person:
    """Add a person or service account."""
    require(work.actor, Permission.PEOPLE_MANAGE)
    _check_handle(handle, "handle")
    if kind not in ("human", "service"):
        raise Invalid(f"{kind!r} is not a kind of account: human or service.", reason="kind")
    if queries.find_person(work, handle):
        raise Conflict(f"There is a person called {handle!r} already.", reason="person.exists")
    person = Person(
        id=new_id("per"),
        handle=handle,
        kind=kind,
        display_name=check_text(display_name, "name"),
        email=email,
        created_at=work.now,
    )
    work.session.add(person)
    work.session.flush()  # rows that follow refer to it
    ledger.append(work, type="person.created", subject=f"person:{person.id}", detail={"kind": kind})
    return person


def disable_person(work: Work, handle: str) -> None:
    """Stop an account: every token of it stops authenticating at once. Once is enough.

    What its tokens made for others, such as service accounts, ends as well.
    """
    require(work.actor, Permission.PEOPLE_MANAGE)
    row = queries.load_person(work, handle)
    stopped = work.session.execute(  # since when it is stopped never changes
        update(Person)
        .where(Person.id == row.id, Person.disabled_at.is_(None))
        .values(disabled_at=work.now)
        .returning(Person.id)
    ).all()
    if not stopped:
        return
    end_tokens(work, tokens_made_by(work, row.id))
    ledger.append(work, type="person.disabled", subject=f"person:{row.id}", detail={})


def create_organisation(work: Work, *, slug: str, name: str) -> Organisation:
    """Add an organisation."""
    require(work.actor, Permission.PEOPLE_MANAGE)
    _check_handle(slug, "slug")
    if queries.find_organisation(work, slug):
        raise Conflict(
            f"There is an organisation called {slug!r} already.", reason="organisation.exists"
        )
    organisation = Organisation(
        id=new_id("org"), slug=slug, name=check_text(name, "name"), created_at=work.now
    )
    work.session.add(organisation)
    work.session.flush()
    ledger.append(
        work,
        type="organisation.created",
        subject=f"organisation:{organisation.id}",
        detail={"slug": slug},
    )
    return organisation


def add_member(
    work: Work,
    *,
    organisation: str,
    person: str,
    role: str,
    starts_at: datetime | None = None,
    ends_at: datetime | None = None,
) -> Membership:
    """Put a person on an organisation's roster as ``partner_admin`` or ``partner_member``.

    Raises:
        Invalid: no such role, or it would begin in the past (who was on a roster when is a record
            and is not rewritten), or end before it begins.
    """
    require(work.actor, Permission.PEOPLE_MANAGE)
    if role not in _ROSTER_ROLES:
        raise Invalid(
            f"{role!r} is not a roster role: partner_admin or partner_member.", reason="role"
        )
    starts = starts_at or work.now
    if starts < work.now:
        raise Invalid("A membership begins now or later.", reason="membership.dates")
    if ends_at is not None and ends_at <= starts:
        raise Invalid("A membership must end after it starts.", reason="membership.dates")
    organisation_row = queries.load_organisation(work, organisation)
    person_row = queries.load_person(work, person)
    membership = Membership(
        id=new_id("mem"),
        person_id=person_row.id,
        organisation_id=organisation_row.id,
        role=role,
        starts_at=starts,
        ends_at=ends_at,
    )
    work.session.add(membership)
    ledger.append(
        work,
        type="membership.added",
        subject=f"membership:{membership.id}",
        detail={"organisation": organisation_row.id, "person": person_row.id, "role": role},
    )
    return membership


def assign_role(
    work: Work, *, person: str, role: str, ends_at: datetime | None = None
) -> RoleAssignment:
    """Give a person a role of this service; one that decides is told to all who watch over it.

    Raises:
        Forbidden: it is for oneself.
    """
    require(work.actor, Permission.PEOPLE_MANAGE)
    if role not in set(Role) - _ROSTER_ROLES:
        raise Invalid(f"{role!r} is not a role of this service.", reason="role")
    row = queries.load_person(work, person)
    if work.actor.is_human and work.actor.id == row.id:
        raise Forbidden(
            "Nobody gives themselves a role.",
            reason="role.self",
            next_step="Another owner gives it, or the operator with `stagerelease person "
            "give-role` on the host.",
        )
    if role in queries.roles_now(work, row.id):
        raise Conflict(f"{row.handle} holds the role {role} already.", reason="role.held")
    assignment = RoleAssignment(
        id=new_id("rol"),
        person_id=row.id,
        role=role,
        given_by=work.actor.id if work.actor.is_human else None,
        starts_at=work.now,
        ends_at=ends_at,
    )
    work.session.add(assignment)
    if ROLE_PERMISSIONS[Role(role)] & GRAVE:
        emit(
            work,
            "role.given",
            subject=f"role:{assignment.id}",
            roles=WATCHERS,
            facts={"person": row.handle, "role": role, "by": work.actor.name},
        )
    ledger.append(
        work,
        type="role.assigned",
        subject=f"role:{assignment.id}",
        detail={"person": row.id, "role": role},
    )
    return assignment


def end_role(work: Work, *, person: str, role: str) -> None:
    """Take a role from a person now."""
    require(work.actor, Permission.PEOPLE_MANAGE)
    row = queries.load_person(work, person)
    changed = work.session.execute(
        update(RoleAssignment)
        .where(
            RoleAssignment.person_id == row.id,
            RoleAssignment.role == role,
            or_(RoleAssignment.ends_at.is_(None), RoleAssignment.ends_at > work.now),
        )
        .values(ends_at=work.now, end_announced_at=work.now)
        .returning(RoleAssignment.id)
    ).all()
    if not changed:
        raise NotFound(f"{row.handle} does not hold the role {role}.", reason="role.unknown")
    ledger.append(
        work,
        type="role.ended",
        subject=f"role:{changed[0].id}",
        detail={"person": row.id, "role": role},
    )


def _earliest(*ends: datetime | None) -> datetime | None:
    known = [end for end in ends if end is not None]
    return min(known) if known else None


BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 (hub-protocol wording)


def authenticate(work: Work, bearer: str) -> Actor:
    """Return who holds this token now.

    Raises:
        Unauthenticated: malformed, unknown, expired or revoked token, or a disabled account. The
            sentence is the one Hub clients know; ``reason`` says which.
    """
    if not is_token_shaped(bearer):
        raise Unauthenticated(BAD_TOKEN, reason="token.malformed")
    return _holder(work, hashlib.sha256(bearer.encode()).digest())


def actor_of_token(work: Work, token_id: str) -> Actor:
    """Return who holds the token of that id now, for asking again without the token itself.

    Raises:
        Unauthenticated: as ``authenticate``.
    """
    digest = work.session.execute(
        select(ApiToken.sha256).where(ApiToken.id == token_id)
    ).scalar_one_or_none()
    if digest is None:
        raise Unauthenticated(BAD_TOKEN, reason="token.unknown")
    return _holder(work, digest)


def _holder(work: Work, token_sha256: bytes) -> Actor:
    caller = queries.find_caller(work, token_sha256)
    if caller is None:
        raise Unauthenticated(BAD_TOKEN, reason="token.unknown")
    _check_caller(work, caller)
    last = caller.last_used_at
    if not work.read_only and (last is None or work.now - last >= LAST_USED_EVERY):
        work.session.execute(
            update(ApiToken).where(ApiToken.id == caller.token_id).values(last_used_at=work.now)
        )
    return _actor(caller)


def _check_caller(work: Work, caller: queries.Caller) -> None:
    if caller.revoked_at is not None:
        raise Unauthenticated(BAD_TOKEN, reason="token.revoked")
    if caller.expires_at is not None and caller.expires_at <= work.now:
        raise Unauthenticated(BAD_TOKEN, reason="token.expired")
    if caller.disabled_at is not None:
        raise Unauthenticated(BAD_TOKEN, reason="account.disabled")


def _actor(caller: queries.Caller) -> Actor:
    rosters = caller.rosters
    return Actor(
        kind=ActorKind.PERSON,
        id=caller.person_id,
        name=caller.handle,
        roles=frozenset(caller.roles) | {role for _, role in rosters},
        organisations=frozenset(organisation for organisation, _ in rosters),
        administers=frozenset(o for o, role in rosters if role == Role.PARTNER_ADMIN),
        token_id=caller.token_id,
        scopes=None if "all" in caller.scopes else caller.scopes,
        until=_earliest(caller.expires_at, *caller.roles.values()),
        membership_ends=tuple((o, end) for (o, _), end in rosters.items()),
    )

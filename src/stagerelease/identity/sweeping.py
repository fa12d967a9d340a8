"""Announces tokens and roles whose date has passed. Nothing waits for this: use asks the clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.identity.tables import (
    ApiToken,
    Membership,
    Organisation,
    Person,
    RoleAssignment,
)
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.clock import iso
from stagerelease.ledger import service as ledger

BATCH = 200
"""Ends announced in one Work, so that a sweep never holds the log for long."""


def _tokens_over(work: Work) -> Any:
    return (
        ApiToken.expires_at <= work.now,
        ApiToken.end_announced_at.is_(None),
        ApiToken.revoked_at.is_(None),
    )


def _roles_over(work: Work) -> Any:
    return (RoleAssignment.ends_at <= work.now, RoleAssignment.end_announced_at.is_(None))


def _memberships_over(work: Work) -> Any:
    return (Membership.ends_at <= work.now, Membership.end_announced_at.is_(None))


def ends_due(work: Work) -> bool:
    """Tell whether the end of a token, a role or a membership has passed unannounced; no lock."""
    asked = (
        select(ApiToken.id).where(*_tokens_over(work)),
        select(RoleAssignment.id).where(*_roles_over(work)),
        select(Membership.id).where(*_memberships_over(work)),
    )
    return any(work.session.execute(s.limit(1)).first() is not None for s in asked)


def announce_ends(work: Work) -> int:
    """Say once, in the log and to whom it concerns, that a token, role or membership has ended.

    Returns how many were announced, at most ``BATCH`` of each kind.
    """
    require(work.actor, Permission.PEOPLE_MANAGE)
    tokens = work.session.scalars(
        select(ApiToken)
        .where(*_tokens_over(work))
        .order_by(ApiToken.expires_at, ApiToken.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    roles = work.session.scalars(
        select(RoleAssignment)
        .where(*_roles_over(work))
        .order_by(RoleAssignment.ends_at, RoleAssignment.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    for token in tokens:
        token.end_announced_at = work.now
        emit(
            work,
            "token.expired",
            subject=f"token:{token.id}",
            people=[token.person_id],
            facts={"name": token.name, "display": token.display, "at": _said(token.expires_at)},
        )
    for role in roles:
        role.end_announced_at = work.now
        emit(
            work,
            "role.ended",
            subject=f"role:{role.id}",
            people=[role.person_id],
            facts={"role": role.role, "at": _said(role.ends_at)},
        )
    members = _end_memberships(work)
    work.session.flush()  # every row is written before the log is locked
    for token in tokens:
        ledger.append(
            work,
            type="token.expired",
            subject=f"token:{token.id}",
            detail={"at": _said(token.expires_at)},
        )
    for role in roles:
        ledger.append(
            work,
            type="role.ended",
            subject=f"role:{role.id}",
            detail={"person": role.person_id, "role": role.role, "at": _said(role.ends_at)},
        )
    for member in members:
        ledger.append(
            work,
            type="membership.ended",
            subject=f"membership:{member.id}",
            detail={
                "organisation": member.organisation_id,
                "person": member.person_id,
                "at": _said(member.ends_at),
            },
        )
    return len(tokens) + len(roles) + len(members)


def _end_memberships(work: Work) -> Sequence[Membership]:
    """Mark memberships that ended as announced, and have both sides told."""
    members = work.session.scalars(
        select(Membership)
        .where(*_memberships_over(work))
        .order_by(Membership.ends_at, Membership.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    for member in members:
        member.end_announced_at = work.now
        tell_of_end(work, member)
    return members


def tell_of_end(work: Work, member: Membership) -> None:
    """Have the person and the organisation told that a place on a roster has ended."""
    emit(
        work,
        "membership.ended",
        subject=f"membership:{member.id}",
        people=[member.person_id],
        organisations=[member.organisation_id],
        facts={
            "organisation": work.session.get_one(Organisation, member.organisation_id).name,
            "person": work.session.get_one(Person, member.person_id).display_name,
            "at": _said(member.ends_at),
        },
    )


def _said(at: Any) -> str:
    return iso(at)

"""Announces tokens and roles whose date has passed. Nothing waits for this: use asks the clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

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


Ended = ApiToken | RoleAssignment | Membership


def _tokens(work: Work) -> Select[ApiToken]:
    return select(ApiToken).where(
        ApiToken.expires_at <= work.now,
        ApiToken.end_announced_at.is_(None),
        ApiToken.revoked_at.is_(None),
    )


def _roles(work: Work) -> Select[RoleAssignment]:
    return select(RoleAssignment).where(
        RoleAssignment.ends_at <= work.now, RoleAssignment.end_announced_at.is_(None)
    )


def _memberships(work: Work) -> Select[Membership]:
    return select(Membership).where(
        Membership.ends_at <= work.now, Membership.end_announced_at.is_(None)
    )


def _over(work: Work) -> tuple[Select[Any], ...]:
    """Return what has ended and was not announced, one statement for each kind."""
    return (_tokens(work), _roles(work), _memberships(work))


def ends_due(work: Work) -> bool:
    """Tell whether the end of a token, a role or a membership has passed unannounced; no lock."""
    return any(work.session.execute(s.limit(1)).first() is not None for s in _over(work))


def announce_ends(work: Work) -> int:
    """Say once, in the log and to whom it concerns, that a token, role or membership has ended.

    Returns how many were announced, at most ``BATCH`` of each kind.
    """
    require(work.actor, Permission.PEOPLE_MANAGE)
    ended: list[Ended] = []
    for statement in _over(work):
        rows = statement.limit(BATCH).with_for_update(skip_locked=True)
        ended += work.session.scalars(rows)
    for row in ended:
        row.end_announced_at = work.now
        _tell(work, row)
    work.session.flush()  # every row is written before the log is locked
    for row in ended:
        type_, subject, detail = _entry(row)
        ledger.append(work, type=type_, subject=subject, detail=detail)
    return len(ended)


def _entry(row: Ended) -> tuple[str, str, dict[str, Any]]:
    """Return the type, subject and detail of the log entry on an end."""
    if isinstance(row, ApiToken):
        return "token.expired", f"token:{row.id}", {"at": _said(row.expires_at)}
    told = {"person": row.person_id, "at": _said(row.ends_at)}
    if isinstance(row, RoleAssignment):
        return "role.ended", f"role:{row.id}", {**told, "role": row.role}
    subject = f"membership:{row.id}"
    return "membership.ended", subject, {**told, "organisation": row.organisation_id}


def _tell(work: Work, row: Ended) -> None:
    if isinstance(row, Membership):
        tell_of_end(work, row)
    elif isinstance(row, ApiToken):
        facts = {"name": row.name, "display": row.display, "at": _said(row.expires_at)}
        subject = f"token:{row.id}"
        emit(work, "token.expired", subject=subject, people=[row.person_id], facts=facts)
    else:
        facts = {"role": row.role, "at": _said(row.ends_at)}
        emit(work, "role.ended", subject=f"role:{row.id}", people=[row.person_id], facts=facts)


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

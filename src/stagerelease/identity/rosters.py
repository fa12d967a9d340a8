"""Who is, was and will be on an organisation's roster; and taking somebody off it.

A line is never deleted: it ends. So the roster at any past instant can be shown, and whoever
fetched a file then can be named.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, or_, select

from stagerelease.db.work import Work
from stagerelease.identity import queries
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.identity.sweeping import tell_of_end
from stagerelease.identity.tables import Membership, Person
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Invalid, NotFound
from stagerelease.ledger import service as ledger


@dataclass(frozen=True, slots=True)
class RosterRow:
    """A line of a roster. ``current`` tells whether it counts at the instant asked about."""

    id: str
    person_id: str
    handle: str
    display_name: str
    role: str
    starts_at: datetime
    ends_at: datetime | None
    current: bool


_LINE: Select[*tuple[Any, ...]] = select(
    Membership.id,
    Membership.person_id,
    Person.handle,
    Person.display_name,
    Membership.role,
    Membership.starts_at,
    Membership.ends_at,
).join(Person, Person.id == Membership.person_id)


def _load_visible(work: Work, organisation: str) -> queries.OrganisationRow:
    """Return an organisation to staff and to those on its roster now.

    Raises:
        Unauthenticated: nobody is known.
        NotFound: there is none, or the caller may not know of it.
    """
    if not work.actor.known:
        require(work.actor, Permission.PEOPLE_READ)
    row = queries.find_organisation(work, organisation) if organisation.isprintable() else None
    staff = authorize(work.actor, Permission.PEOPLE_READ).allowed
    own = work.actor.is_human and row is not None and row.id in work.actor.organisations
    if row is None or not (staff or own):
        raise NotFound(
            f"There is no organisation called {organisation!r}.", reason="organisation.unknown"
        )
    return row


def list_roster(
    work: Work, organisation: str, *, at: datetime | None = None, everything: bool = False
) -> list[RosterRow]:
    """Return the roster at ``at`` (now when None), or every line there ever was, by handle.

    Staff may read every roster; those on it, their own.

    Raises:
        Unauthenticated: nobody is known.
        NotFound: there is none, or the caller may not know of it.
        Invalid: ``at`` names no zone.
    """
    if at is not None and at.tzinfo is None:
        raise Invalid("Say in which zone the instant is.", reason="roster.instant")
    instant = at or work.now
    row = _load_visible(work, organisation)
    statement = _LINE.where(Membership.organisation_id == row.id)
    if not everything:
        statement = statement.where(
            Membership.starts_at <= instant,
            or_(Membership.ends_at.is_(None), Membership.ends_at > instant),
        )
    found = work.session.execute(statement.order_by(Person.handle, Membership.starts_at))
    return [_row(line, instant) for line in found]


def _row(line: Any, instant: datetime) -> RosterRow:
    _, _, _, _, _, starts, ends = line
    current = starts <= instant and (ends is None or instant < ends)
    return RosterRow(*(*line, current))


def end_membership(
    work: Work, *, organisation: str, person: str, at: datetime | None = None
) -> list[RosterRow]:
    """Take a person off a roster now, or at a later instant; return the lines that end.

    Who manages people does this, and an administrator of that organisation for its own roster. A
    line that has not begun by then never counts. An end now is told at once; a later one when it
    comes (``sweeping.announce_ends``).

    Raises:
        NotFound: there is none, they are not on it, or the caller may not know of it.
        Forbidden: the caller may neither manage people nor administers the organisation.
        Invalid: ``at`` is past or names no zone.
    """
    visible = _load_visible(work, organisation)
    own = work.actor.is_human and visible.id in work.actor.administers
    require(work.actor, Permission.AGREEMENT_SIGN if own else Permission.PEOPLE_MANAGE)
    if at is not None and (at.tzinfo is None or at < work.now):
        raise Invalid("A membership ends now or later, in a named zone.", reason="membership.dates")
    instant = at or work.now
    who = queries.find_person(work, person) if person.isprintable() else None
    lines = _lock_lines(work, visible.id, who.id, instant) if who is not None else []
    if not lines:
        raise NotFound("They are not on that roster now.", reason="membership.unknown")
    for line in lines:
        line.ends_at = instant
        if instant <= work.now:
            line.end_announced_at = work.now
            tell_of_end(work, line)
    work.session.flush()  # every row is written before the log is locked
    for line in lines:
        ledger.append(
            work,
            type="membership.ended" if line.end_announced_at else "membership.end_set",
            subject=f"membership:{line.id}",
            detail={
                "organisation": visible.id,
                "person": line.person_id,
                "at": iso(instant),
            },
        )
    ended = {line.id for line in lines}
    rows = work.session.execute(_LINE.where(Membership.id.in_(ended)).order_by(Membership.id))
    return [_row(row, work.now) for row in rows]


def _lock_lines(
    work: Work, organisation_id: str, person_id: str, instant: datetime
) -> list[Membership]:
    """Return the lines of a person on a roster that would last beyond ``instant``, locked."""
    found = work.session.scalars(
        select(Membership)
        .where(
            Membership.organisation_id == organisation_id,
            Membership.person_id == person_id,
            or_(Membership.ends_at.is_(None), Membership.ends_at > instant),
        )
        .order_by(Membership.id)
        .with_for_update(key_share=True)
    )
    return list(found)

"""One's own notices and choices, and what staff see of mail that did not arrive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.errors import Invalid
from stagerelease.notices.rules import Mode, State, check_choice
from stagerelease.notices.tables import Notice, NoticeChoice
from stagerelease.notices.words import ALWAYS, GROUPS


@dataclass(frozen=True, slots=True)
class NoticeRow:
    """One notice, as its recipient or staff may read it; links of mails are never in it."""

    id: str
    event: str
    subject: str
    person_id: str | None
    title: str
    said: str
    why: str
    todo: str
    path: str
    state: str
    created_at: datetime
    sent_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class ChoiceRow:
    """How a person wants a group; ``always`` groups cannot be put off."""

    group: str
    title: str
    mode: str
    always: bool


def _rows(work: Work, statement: Select[Notice]) -> list[NoticeRow]:
    found = work.session.scalars(statement)
    return [
        NoticeRow(
            n.id,
            n.event,
            n.subject,
            n.person_id,
            n.title,
            n.said,
            n.why,
            n.todo,
            "" if n.link_id else n.path,
            n.state,
            n.created_at,
            n.sent_at,
            n.error,
        )
        for n in found
    ]


def my_notices(work: Work, *, limit: int = 50, after: str | None = None) -> list[NoticeRow]:
    """Return the caller's notices, newest first.

    Raises:
        Unauthenticated: nobody is known.
    """
    require(work.actor, Permission.TOKEN_MANAGE_OWN)
    statement = select(Notice).where(Notice.person_id == work.actor.id)
    if after is not None:
        statement = statement.where(Notice.id < after)
    return _rows(work, statement.order_by(Notice.id.desc()).limit(limit))


def list_notices(
    work: Work, *, state: str | None = None, limit: int = 50, after: str | None = None
) -> list[NoticeRow]:
    """Return notices to anybody, newest first, to somebody who may read people.

    Raises:
        Invalid: there is no such state.
    """
    require(work.actor, Permission.PEOPLE_READ)
    if state is not None and state not in set(State):
        raise Invalid(f"A notice is {', '.join(State)}.", reason="notice.state")
    statement = select(Notice)
    if state is not None:
        statement = statement.where(Notice.state == state)
    if after is not None:
        statement = statement.where(Notice.id < after)
    return _rows(work, statement.order_by(Notice.id.desc()).limit(limit))


def my_choices(work: Work) -> list[ChoiceRow]:
    """Return how the caller wants each group of notices."""
    require(work.actor, Permission.TOKEN_MANAGE_OWN)
    rows = work.session.execute(
        select(NoticeChoice.group, NoticeChoice.mode).where(NoticeChoice.person_id == work.actor.id)
    )
    chosen = {row.group: row.mode for row in rows}
    return [
        ChoiceRow(
            group,
            title,
            Mode.AT_ONCE if group in ALWAYS else chosen.get(group, Mode.AT_ONCE),
            group in ALWAYS,
        )
        for group, title in GROUPS.items()
    ]


def choose(work: Work, group: str, mode: str) -> list[ChoiceRow]:
    """Set how the caller wants a group of notices.

    Raises:
        Invalid: no such group or mode.
        Conflict: a group that cannot be put off.
    """
    require(work.actor, Permission.TOKEN_MANAGE_OWN)
    wanted = check_choice(group, mode)
    work.session.merge(
        NoticeChoice(person_id=work.actor.id, group=group, mode=wanted, chosen_at=work.now)
    )
    work.session.flush()
    return my_choices(work)

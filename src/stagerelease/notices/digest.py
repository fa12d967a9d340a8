"""The daily mail of those who want one: everything that waited, in one message."""

from __future__ import annotations

from sqlalchemy import func, select

from stagerelease.db.work import Work, Works
from stagerelease.identity.tables import Person
from stagerelease.kernel.actor import SYSTEM
from stagerelease.kernel.ids import new_id
from stagerelease.notices.mailing import Letter, MailServer, hand_over, url_of
from stagerelease.notices.rules import DIGEST_AFTER, State
from stagerelease.notices.tables import Notice

MOST = 200
"""Notices in one digest; what is beyond waits for the next."""


def due(work: Work) -> list[str]:
    """Return whose oldest waiting notice has waited a day."""
    oldest = func.min(Notice.created_at)
    return list(
        work.session.scalars(
            select(Notice.person_id)
            .where(Notice.state == State.DIGEST, Notice.person_id.is_not(None))
            .group_by(Notice.person_id)
            .having(oldest <= work.now - DIGEST_AFTER)
        )
    )


def send_digest(works: Works, person_id: str, *, server: MailServer) -> int:
    """Send a person what waits for them; return how many notices it told.

    Raises:
        OSError, smtplib.SMTPException: the server did not take it; everything waits on.
    """
    with works.begin(SYSTEM, read_only=True) as work:
        person = work.session.get(Person, person_id)
        waiting = work.session.scalars(
            select(Notice)
            .where(Notice.person_id == person_id, Notice.state == State.DIGEST)
            .order_by(Notice.id)
            .limit(MOST)
        ).all()
        if person is None or person.email is None or person.disabled_at is not None or not waiting:
            return 0
        told = [notice.id for notice in waiting]
        letter = Letter(
            message_id=new_id("dig"),
            address=person.email,
            title=f"{len(waiting)} notices of today",
            at=work.now,
            items=tuple(
                {
                    "title": notice.title,
                    "said": notice.said,
                    "why": notice.why,
                    "todo": notice.todo,
                    "url": url_of(server, notice.path, notice.link_id),
                }
                for notice in waiting
            ),
            optional=True,
        )
    hand_over(server, letter)
    with works.begin(SYSTEM, quiet=True) as work:
        for notice_id in told:
            row = work.session.get_one(Notice, notice_id, with_for_update=True)
            row.state, row.sent_at = State.DIGESTED, work.now
    return len(told)

"""Mail that failed, sent again by hand: one notice, or all that failed since a time."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import or_, select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.identity.tables import MailLink
from stagerelease.jobs.outbox import enqueue
from stagerelease.kernel.errors import Conflict, Invalid, NotFound
from stagerelease.ledger import service as ledger
from stagerelease.notices.delivering import MAIL_ATTEMPTS
from stagerelease.notices.rules import State
from stagerelease.notices.tables import Notice


def send_again(work: Work, *, notice_id: str | None = None, since: datetime | None = None) -> int:
    """Queue failed notices again, one or all of a time; return how many.

    Each goes out under its first Message-ID. A mail whose link has ended or was used is left out:
    whoever wants one asks for a new one.

    Raises:
        Invalid: neither a notice nor a beginning is named.
        NotFound: there is no such notice.
        Conflict: that notice has not failed, or its link opens nothing any more.
    """
    require(work.actor, Permission.PEOPLE_MANAGE)
    if notice_id is None and since is None:
        raise Invalid("Name a notice, or since when.", reason="notice.again")
    statement = select(Notice).order_by(Notice.id).with_for_update()
    if notice_id is not None:
        statement = statement.where(Notice.id == notice_id)
    else:
        opens = select(MailLink.id).where(
            MailLink.expires_at > work.now, MailLink.used_at.is_(None)
        )
        statement = statement.where(
            Notice.state == State.FAILED,
            Notice.created_at >= since,
            or_(Notice.link_id.is_(None), Notice.link_id.in_(opens)),
        )
    found = list(work.session.scalars(statement))
    if notice_id is not None:
        _check_one(work, found)
    for notice in found:
        notice.state, notice.error = State.QUEUED, None
        enqueue(work, "notices.mail", {"notice": notice.id}, max_attempts=MAIL_ATTEMPTS)
    if found:
        work.session.flush()
        ledger.append(
            work,
            type="notice.queued_again",
            subject=f"notice:{notice_id or 'failed'}",
            detail={"notices": len(found)},
        )
    return len(found)


def _check_one(work: Work, found: list[Notice]) -> None:
    if not found:
        raise NotFound("There is no such notice.", reason="notice.unknown")
    (notice,) = found
    if notice.state != State.FAILED:
        raise Conflict(f"That notice is {notice.state}, not failed.", reason="notice.state")
    link = work.session.get(MailLink, notice.link_id) if notice.link_id else None
    if link is not None and (link.expires_at <= work.now or link.used_at is not None):
        raise Conflict(
            "The link in that mail opens nothing any more.",
            reason="notice.link",
            next_step="Whom it was for asks for a new one.",
        )

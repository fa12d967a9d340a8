"""The job behind every event: one row for each recipient and webhook, in one transaction.

Mails and posts are jobs of their own, so that one refused recipient holds up nobody. A job that
runs again finds its rows and adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select

from stagerelease.db.work import Work, Works
from stagerelease.jobs.outbox import enqueue
from stagerelease.kernel.actor import SYSTEM
from stagerelease.kernel.ids import new_id
from stagerelease.notices import hooks
from stagerelease.notices.catalogue import WORDS
from stagerelease.notices.recipients import Recipient, recipients_of
from stagerelease.notices.rules import Mode, State, mode_of
from stagerelease.notices.tables import Notice, NoticeChoice
from stagerelease.notices.words import Words, fill, one_line

MAIL_ATTEMPTS = 9


def deliver(works: Works, payload: Mapping[str, Any], *, has_mail: bool) -> None:
    """Write the notices and webhook deliveries of one event.

    ``has_mail``: a mail server is set; without one notices are kept to be read here.

    Raises:
        KeyError: there are no words for the event, which a test of the source forbids.
    """
    words = WORDS[payload["event"]]
    with works.begin(SYSTEM, quiet=True) as work:
        told = set(
            work.session.scalars(select(Notice.recipient).where(Notice.event_id == payload["id"]))
        )
        for recipient in recipients_of(work, payload):
            if recipient.key not in told:
                _notice(work, payload, words, recipient, has_mail=has_mail)
        if words.group != "account":  # whose sign-in it was concerns no other system
            hooks.queue_event(work, payload)


def _notice(
    work: Work, payload: Mapping[str, Any], words: Words, recipient: Recipient, *, has_mail: bool
) -> None:
    facts = payload["facts"]
    notice = Notice(
        id=new_id("ntc"),
        event_id=payload["id"],
        event=payload["event"],
        subject=payload["subject"][:128],
        recipient=recipient.key,
        person_id=recipient.person_id,
        title=one_line(fill(words.title, facts)),
        said=fill(words.said, facts),
        why=words.why,
        todo=fill(words.todo, facts),
        path=str(facts.get("link_path") or fill(words.path, facts))[:200],
        link_id=facts.get("link"),
        state=_state(work, words, recipient, has_mail=has_mail),
        created_at=work.now,
    )
    work.session.add(notice)
    work.session.flush()  # the job below names it
    if notice.state == State.QUEUED:
        enqueue(work, "notices.mail", {"notice": notice.id}, max_attempts=MAIL_ATTEMPTS)


def _state(work: Work, words: Words, recipient: Recipient, *, has_mail: bool) -> State:
    chosen: dict[str, str] = {}
    if recipient.person_id is not None:
        rows = work.session.execute(
            select(NoticeChoice.group, NoticeChoice.mode).where(
                NoticeChoice.person_id == recipient.person_id
            )
        )
        chosen = {row.group: row.mode for row in rows}
    mode = mode_of(words, chosen)
    if mode is Mode.OFF:
        return State.OFF
    if not has_mail or recipient.address is None:
        return State.KEPT
    return State.DIGEST if mode is Mode.DIGEST else State.QUEUED

"""Use cases of whoever reports: tell, follow up by a secret reference, add words, be forgotten.

Nobody needs an account. Contact and words are personal: they are kept in the report's own row,
never in the log, and can be erased. Who reported is in that row alone: history, thread and log say
``reporter``, so that erasing the row's names leaves nobody named.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import func, select, update

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.incidents import queries, throttle
from stagerelease.incidents.moving import add_update, lock_incident, record
from stagerelease.incidents.rows import FollowRow, FollowUpdate, IncidentRow, Reported
from stagerelease.incidents.rules import (
    IN_ALL,
    MAX_ABOUT,
    MAX_CONTACT,
    PER_NETWORK,
    PER_PERSON,
    WORDS_PER_REPORT,
    Scope,
    State,
    Visibility,
    check_line,
    check_words,
)
from stagerelease.incidents.tables import (
    Incident,
    IncidentEvent,
    IncidentReport,
    IncidentUpdate,
)
from stagerelease.kernel.actor import Actor, ActorKind
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import Conflict, NotFound
from stagerelease.kernel.ids import new_salt
from stagerelease.ledger import service as ledger

MOST_WORDS = 100
"""Words a reporter may add to one report, ever."""
ERASED = "[erased]"
REPORTER = Actor(ActorKind.ANONYMOUS, "reporter", "reporter")
"""Who did what a reporter did, as everything but the report's own row says it."""


def _unnamed(work: Work) -> Work:
    return replace(work, actor=REPORTER)


def report(
    work: Work, *, text: str, about: str = "", contact: str | None = None, network: str = "unknown"
) -> Reported:
    """Take a report from anybody and return the reference that opens it, shown this once.

    ``about`` names a repository or track as the reporter knows it; whether there is one is not
    said. ``network`` stands for where they come from (``kernel.networks.network_of``, or a digest).

    Raises:
        Invalid: no text, or what cannot be kept; names the field.
        TooMany: too many reports this hour; says when to try again. Nothing is kept.
    """
    text = check_words(text, "report", field="text")
    about = check_line(
        about, "name of what it is about", field="about", required=False, limit=MAX_ABOUT
    )
    contact = (
        check_line(contact or "", "contact", field="contact", required=False, limit=MAX_CONTACT)
        or None
    )
    _spend(work, network)
    incident = Incident(
        state=State.REPORTED.value,
        scope=Scope.LISTED.value,
        reported_at=work.now,
        state_since=work.now,
    )
    work.session.add(incident)
    work.session.flush()  # its number is given by the database
    secret = new_salt(20)
    reference = base64.b32encode(secret).decode().lower()
    work.session.add(
        IncidentReport(
            incident_id=incident.id,
            text=text,
            about=about,
            contact=contact,
            reporter_id=work.actor.id if work.actor.is_human else None,
            secret_sha256=_digest(reference),
        )
    )
    detail = {"text_sha256": sha256_hex(text.encode()), "has_contact": contact is not None}
    record(_unnamed(work), incident, None, before=None, detail=detail)
    return Reported(incident.id, reference, work.now)


def _spend(work: Work, network: str) -> None:
    if work.actor.is_human:
        mine = "You have sent as many reports as are taken from one person in an hour."
        throttle.spend(work, "person", work.actor.id, limit=PER_PERSON, sentence=mine)
    elif not work.actor.known:
        near = "Too many reports came from your network this hour."
        throttle.spend(work, "network", network, limit=PER_NETWORK, sentence=near)
        all_ = "Too many reports came in from everywhere together this hour."
        throttle.spend(work, "everybody", "", limit=IN_ALL, sentence=all_)


def _digest(reference: str) -> bytes:
    return bytes.fromhex(sha256_hex(f"incident.reference\n{reference}".encode()))


def _find(work: Work, reference: str) -> IncidentReport:
    """Return the report that a reference opens.

    Raises:
        NotFound: none, whatever is wrong with it.
    """
    text = "".join(reference.split()).lower()
    found = None
    if len(text) == 32 and text.isascii():
        found = work.session.execute(
            select(IncidentReport)
            .where(IncidentReport.secret_sha256 == _digest(text))
            .execution_options(populate_existing=True)
        ).scalar_one_or_none()
    if found is None:
        raise NotFound(
            "No report opens with this reference.",
            reason="incident.reference",
            next_step="Copy the whole reference, 32 letters and digits. It was shown only once.",
        )
    return found


def follow(work: Work, reference: str) -> FollowRow:
    """Return how the report that ``reference`` opens stands, with the words meant for its reporter.

    Raises:
        NotFound: no report opens with it.
    """
    found = _find(work, reference)
    incident = queries.load_incident(work, found.incident_id)
    seen = {Visibility.REPORTER.value, Visibility.PUBLIC.value}
    words = queries.updates_of(work, incident.id)
    return FollowRow(
        incident_id=incident.id,
        state=incident.state,
        reported_at=incident.reported_at,
        state_since=incident.state_since,
        public_summary=incident.public_summary if incident.confirmed_at else "",
        public_outcome=incident.public_outcome if incident.confirmed_at else "",
        text=found.text,
        has_contact=found.contact is not None,
        updates=tuple(
            FollowUpdate("you" if one.written_by == "reporter" else "staff", one.text, one.at)
            for one in words
            if one.written_by == "reporter" or one.visibility in seen
        ),
    )


def add_words(work: Work, reference: str, *, text: str) -> FollowRow:
    """Add the reporter's words to their report, for staff to read; return how it stands.

    Raises:
        NotFound: no report opens with the reference.
        Invalid: no words, or what cannot be kept.
        Conflict: it is closed or dismissed, or holds as many words as are kept.
        TooMany: too many this hour.
    """
    found = _find(work, reference)
    text = check_words(text, "words", field="text")
    incident = lock_incident(work, found.incident_id)
    if incident.state in (State.CLOSED, State.DISMISSED):
        raise Conflict(
            f"This report is {incident.state}; nothing can be added to it.",
            reason="incident.ended",
            next_step=f"Send a new report, and name incident {incident.id} in it.",
        )
    sentence = "As many words were added to this report as are taken in an hour."
    throttle.spend(work, "words", str(incident.id), limit=WORDS_PER_REPORT, sentence=sentence)
    already = work.session.execute(
        select(func.count())
        .select_from(IncidentUpdate)
        .where(IncidentUpdate.incident_id == incident.id, IncidentUpdate.written_by == "reporter")
    ).scalar_one()
    if already >= MOST_WORDS:
        raise Conflict(
            f"This report holds {MOST_WORDS} words of its reporter; no more are kept.",
            reason="incident.full",
            next_step=f"Send a new report, and name incident {incident.id} in it.",
        )
    add_update(_unnamed(work), incident.id, text, visibility=Visibility.REPORTER, by="reporter")
    return follow(work, reference)


def forget_me(work: Work, reference: str) -> FollowRow:
    """Erase who reported and the contact, as the reporter asks; the words stay.

    Raises:
        NotFound: no report opens with the reference.
    """
    found = _find(work, reference)
    lock_incident(work, found.incident_id)
    _erase(_unnamed(work), found.incident_id, words=False)
    return follow(work, reference)


def erase_report(work: Work, incident_id: int, *, reason: str, words: bool = False) -> IncidentRow:
    """Erase who reported and the contact, and with ``words`` all they wrote; the incident stays.

    Raises:
        NotFound: there is no such incident.
    """
    require(work.actor, Permission.INCIDENT_MANAGE)
    reason = check_words(reason, "reason", field="reason")
    incident = lock_incident(work, incident_id)
    _erase(work, incident.id, words=words, reason=reason)
    return queries.load_incident(work, incident.id)


def _erase(work: Work, incident_id: int, *, words: bool, reason: str = "") -> None:
    gone: dict[str, object] = {"contact": None, "reporter_id": None, "erased_at": work.now}
    if words:
        gone |= {"text": ERASED, "about": ""}
        work.session.execute(
            update(IncidentUpdate)
            .where(
                IncidentUpdate.incident_id == incident_id, IncidentUpdate.written_by == "reporter"
            )
            .values(text=ERASED)
        )
    work.session.execute(
        update(IncidentReport).where(IncidentReport.incident_id == incident_id).values(**gone)
    )
    ledger.forget_actors(work, _unname(work, incident_id))
    ledger.append(
        work,
        type="incident.report_erased",
        subject=f"incident:{incident_id}",
        detail={"words": words, **({"reason": reason} if reason else {})},
    )


def _unname(work: Work, incident_id: int) -> Collection[int]:
    """Take the reporter's id out of history and thread; return the log's entries of those steps.

    Reports taken by earlier versions have it there.
    """
    events = (
        update(IncidentEvent)
        .where(IncidentEvent.incident_id == incident_id, IncidentEvent.from_state.is_(None))
        .values(actor_id=REPORTER.id)
        .returning(IncidentEvent.leaf_idx)
    )
    words = (
        update(IncidentUpdate)
        .where(IncidentUpdate.incident_id == incident_id, IncidentUpdate.written_by == "reporter")
        .values(author_id=REPORTER.id)
        .returning(IncidentUpdate.leaf_idx)
    )
    return [*work.session.scalars(events), *work.session.scalars(words)]

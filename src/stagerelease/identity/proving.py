"""Links that show who somebody is: mailed for an act that counts, or printed for a first sign-in.

A mailed one is good for the one session it was asked for in. A printed one comes from a shell on
the host, opens a session by itself, and lets in the first owner, or whoever lost every key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select

from stagerelease.db.work import Work
from stagerelease.identity import queries
from stagerelease.identity.links import make_link, open_link, use_link
from stagerelease.identity.queries import PersonRow
from stagerelease.identity.rules import Permission, require
from stagerelease.identity.sessions import open_session, prove_session, session_id
from stagerelease.identity.tables import MailLink
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, Forbidden, TooMany, Unauthenticated
from stagerelease.ledger import service as ledger

PROVE, ENROL = "account.prove", "account.enrol"
PROVE_PATH, ENROL_PATH = "/step-up/confirm", "/enrol"
PROVE_LIFETIME, ENROL_LIFETIME = timedelta(minutes=15), timedelta(hours=24)
WINDOW, PER_PERSON = timedelta(hours=1), 10
"""Links mailed to one person within an hour."""


def ask_to_prove(work: Work, cookie: str) -> str:
    """Mail the caller a link that shows, once followed in this session, that it is them.

    Returns the address it goes to.

    Raises:
        Conflict: their account has no address.
        TooMany: too many were asked for this hour.
    """
    person, session = queries.load_person(work, work.actor.id), session_id(work, cookie)
    if session is None:
        raise Unauthenticated("You are not signed in.", reason="session.unknown")
    if person.email is None:
        raise Conflict(
            "Your account has no e-mail address to write to.",
            reason="proof.no-address",
            next_step="Ask the people who run this service to print you a link.",
        )
    asked = work.session.execute(
        select(func.count())
        .select_from(MailLink)
        .where(
            MailLink.person_id == person.id,
            MailLink.purpose == PROVE,
            MailLink.created_at > work.now - WINDOW,
        )
    ).scalar_one()
    if asked >= PER_PERSON:
        raise TooMany(
            "Too many links were mailed to you within an hour.",
            retry_after=int(WINDOW.total_seconds()),
            reason="proof.too-many",
        )
    link = make_link(
        work,
        purpose=PROVE,
        subject=f"session:{session}",
        person_id=person.id,
        address=person.email,
        lifetime=PROVE_LIFETIME,
    )
    facts = {
        "link": link,
        "link_path": PROVE_PATH,
        "until": iso(work.now + PROVE_LIFETIME),
        "title": "Show that it is you",
    }
    emit(work, "account.prove", subject=f"person:{person.id}", people=[person.id], facts=facts)
    return person.email


def prove_by_link(work: Work, key: bytes, token: str, *, cookie: str) -> None:
    """Use a mailed link up in the session it was asked for in.

    Raises:
        Invalid, Conflict: the link does not work (see ``links.open_link``).
        Forbidden: it was asked for in another browser, or their way is a stronger one.
    """
    link = use_link(work, key, token, purpose=PROVE)
    if link.subject != f"session:{session_id(work, cookie)}":
        raise Forbidden(
            "This link was asked for in another browser.",
            reason="proof.other-session",
            next_step="Open it in the browser in which you were asked.",
        )
    prove_session(work, cookie, method="link")


# --- printed links ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A printed link: whom it lets in, and until when."""

    link: str
    person: PersonRow
    until: datetime


def make_enrolment(work: Work, handle: str) -> Enrolment:
    """Make a link to be printed that signs a person in once, so that they enrol a passkey.

    Raises:
        Forbidden: the caller is not a shell on the host: whoever has the link is that person.
    """
    require(work.actor, Permission.PEOPLE_MANAGE)
    if work.actor.is_human:
        raise Forbidden(
            "Only a shell on the host prints such a link: whoever follows it is that person.",
            reason="enrol.not-operator",
            next_step="Ask the operator for `stagerelease person enrol`.",
        )
    person = queries.load_person(work, handle)
    if person.kind != "human" or person.disabled_at is not None:
        raise Conflict(
            f"Nobody can sign in as {person.handle}: it is "
            f"{'disabled' if person.disabled_at else 'a service account'}.",
            reason="enrol.account",
        )
    link = make_link(
        work,
        purpose=ENROL,
        subject=f"person:{person.id}",
        person_id=person.id,
        address=None,
        lifetime=ENROL_LIFETIME,
    )
    subject = f"person:{person.id}"
    ledger.append(work, type="person.enrolment", subject=subject, detail={"link": link})
    return Enrolment(link, person, work.now + ENROL_LIFETIME)


def show_enrolment(work: Work, key: bytes, token: str) -> PersonRow:
    """Return whom a printed link lets in; changes nothing.

    Raises:
        Invalid, Conflict: it does not work.
    """
    return queries.load_person(work, str(open_link(work, key, token, purpose=ENROL).person_id))


def enter(work: Work, key: bytes, token: str, *, replaces: str | None) -> str:
    """Use a printed link up and return the cookie of a session that may add a passkey at once.

    Raises:
        Invalid, Conflict: it does not work.
    """
    person_id = str(use_link(work, key, token, purpose=ENROL).person_id)
    return open_session(work, person_id, replaces=replaces, method="printed", proved=True)

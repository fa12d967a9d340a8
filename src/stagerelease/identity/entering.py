"""Signing in by a link that is mailed: asked for by address, answered alike whoever asks.

The request writes the same rows whether or not the address has an account; only the worker, later,
looks whether there is anybody to write to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select

from stagerelease.db.work import Work, Works
from stagerelease.identity import queries
from stagerelease.identity.links import make_link, open_link, use_link
from stagerelease.identity.queries import PersonRow
from stagerelease.identity.sessions import open_session
from stagerelease.identity.tables import MailLink, Person
from stagerelease.jobs.outbox import emit, enqueue
from stagerelease.kernel.actor import SYSTEM
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, FieldError, Invalid, TooMany

PURPOSE = "account.sign_in"
PATH = "/sign-in/confirm"
JOB = "identity.mail_sign_in"
LIFETIME = timedelta(minutes=15)
WINDOW = timedelta(hours=1)
PER_ADDRESS, PER_NETWORK, ALTOGETHER = 5, 30, 1_000
"""Mails in one hour: to one address, asked for from one network, and together."""
LONGEST_ADDRESS = 254  # RFC 5321 section 4.5.3.1.3, less the brackets


@dataclass(frozen=True, slots=True)
class SignIn:
    """What following a link would do: sign this person in."""

    person: PersonRow
    next: str


def ask_to_sign_in(work: Work, address: str, *, network: str, next_path: str = "") -> None:
    """Have a link mailed to an address if it has an account; says nothing about whether it has.

    ``network`` is a keyed digest of where the request comes from; ``next_path`` is a path of ours
    to go to afterwards.

    Raises:
        Invalid: that is no e-mail address.
        TooMany: too many links this hour, for this address, this network or everybody.
    """
    address = address.strip().lower()
    local, _, domain = address.rpartition("@")
    fine = address.isprintable() and len(address) <= LONGEST_ADDRESS and " " not in address
    if not (fine and local and "." in domain):
        sentence = "Give an e-mail address, such as name@example.org."
        raise Invalid(sentence, reason="address", fields=[FieldError("address", sentence)])
    _check_limits(work, address, network)
    link = make_link(
        work,
        purpose=PURPOSE,
        subject=f"path:{next_path}"[:100],
        person_id=None,
        address=address,
        lifetime=LIFETIME,
        network=network,
    )
    enqueue(work, JOB, {"link": link}, max_attempts=3)


def _check_limits(work: Work, address: str, network: str) -> None:
    counted = (
        ("address", MailLink.address == address, PER_ADDRESS, "for this address"),
        ("network", MailLink.network == network, PER_NETWORK, "from your network"),
        ("everybody", MailLink.purpose == PURPOSE, ALTOGETHER, "by everybody together"),
    )
    for kind, condition, limit, whose in counted:
        count = work.session.execute(
            select(func.count())
            .select_from(MailLink)
            .where(condition, MailLink.purpose == PURPOSE, MailLink.created_at > work.now - WINDOW)
        ).scalar_one()
        if count >= limit:
            raise TooMany(
                f"Too many sign-in links were asked for {whose} within an hour.",
                retry_after=int(WINDOW.total_seconds()),
                reason=f"sign-in.too-many-{kind}",
            )


def find_by_address(work: Work, address: str) -> PersonRow | None:
    """Return the human of an e-mail address whose account is on, whatever its case: the oldest."""
    person_id = work.session.execute(
        select(Person.id)
        .where(
            func.lower(Person.email) == address.lower(),
            Person.kind == "human",
            Person.disabled_at.is_(None),
        )
        .order_by(Person.created_at, Person.id)
        .limit(1)
    ).scalar_one_or_none()
    return None if person_id is None else queries.load_person(work, person_id)


def mail_sign_in(works: Works, payload: Mapping[str, Any]) -> None:
    """Handle ``identity.mail_sign_in``: have the link mailed if its address has an account."""
    with works.begin(SYSTEM, quiet=True) as work:
        link = work.session.get(MailLink, str(payload["link"]))
        if link is None or link.address is None or link.expires_at <= work.now:
            return
        person = find_by_address(work, link.address)
        if person is None:
            return
        emit(
            work,
            "account.sign_in",
            subject=f"person:{person.id}",
            people=[person.id],
            facts={
                "link": link.id,
                "link_path": PATH,
                "until": iso(link.expires_at),
                "handle": person.handle,
                "title": "Sign in",
            },
        )


def show_sign_in(work: Work, key: bytes, token: str) -> SignIn:
    """Return whom a link would sign in; changes nothing.

    Raises:
        Invalid, Conflict: the link does not work (see ``links.open_link``), or has no account.
    """
    link = open_link(work, key, token, purpose=PURPOSE)
    return SignIn(_person(work, link.address), link.subject.removeprefix("path:"))


def sign_in(work: Work, key: bytes, token: str, *, replaces: str | None) -> tuple[SignIn, str]:
    """Use a link up and return whom it signed in, and the cookie of the new session.

    Raises:
        Invalid, Conflict: as ``show_sign_in``.
    """
    link = use_link(work, key, token, purpose=PURPOSE)
    person = _person(work, link.address)
    cookie = open_session(work, person.id, replaces=replaces)
    return SignIn(person, link.subject.removeprefix("path:")), cookie


def _person(work: Work, address: str | None) -> PersonRow:
    person = find_by_address(work, address or "")
    if person is None:
        raise Conflict(
            "There is no account of this address any more.",
            reason="sign-in.no-account",
            next_step="Ask for access to a model: that makes an account.",
        )
    return person

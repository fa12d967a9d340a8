"""What names a person in each slice, and how it is let go of. Rows stay; names in them do not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from sqlalchemy import String, cast, delete, func, or_, select, update

from stagerelease.access.drafting import empty
from stagerelease.access.rules import DraftState
from stagerelease.access.tables import AccessDraft, AccessRequest, AccessRequestEvent
from stagerelease.db.work import Work
from stagerelease.identity.queries import PersonRow
from stagerelease.identity.tables import (
    ApiToken,
    Ceremony,
    MailLink,
    Membership,
    Passkey,
    Password,
    Person,
    RoleAssignment,
    SignInSession,
)
from stagerelease.inference.tables import InferencePrompt, InferenceRequest
from stagerelease.jobs.tables import Job
from stagerelease.kernel.digests import sha256_hex
from stagerelease.ledger import service as ledger
from stagerelease.notices.tables import MailBounce, Notice, NoticeChoice
from stagerelease.partners.tables import DestructionAttestation, Signature

ERASED = "[erased]"


def names_of(work: Work, person: PersonRow) -> tuple[str, ...]:
    """Return what a person is called here and signed as, longest first."""
    known = {person.handle, person.display_name, person.email or ""}
    known.update(
        work.session.scalars(select(Signature.typed_name).where(Signature.person_id == person.id))
    )
    attested = select(DestructionAttestation.typed_name)
    found = work.session.scalars(attested.where(DestructionAttestation.attested_by == person.id))
    known.update(name for name in found if name)
    return tuple(sorted((name for name in known if name.strip()), key=len, reverse=True))


def says(text: str, name: str) -> bool:
    """Tell whether a text holds a name as words of their own, in any case."""
    return _word(name).search(text) is not None


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)


def end_account(work: Work, person: PersonRow, pseudonym: str) -> dict[str, Any]:
    """End every way in, every role and place on a roster; return what ended, by id."""
    mine, now = {"person_id": person.id}, work.now
    work.session.execute(
        update(Person)
        .where(Person.id == person.id)
        .values(
            handle=pseudonym,
            display_name=pseudonym,
            email=None,
            disabled_at=func.coalesce(Person.disabled_at, now, type_=Person.disabled_at.type),
        )
    )
    tokens = update(ApiToken).where(ApiToken.revoked_at.is_(None))
    ended = {
        "tokens": _end(work, tokens.values(revoked_at=now, end_announced_at=now), ApiToken, mine),
        "roles": _end(work, _over(RoleAssignment, work), RoleAssignment, mine),
        "memberships": _end(work, _over(Membership, work), Membership, mine),
    }
    work.session.execute(update(ApiToken).filter_by(**mine).values(name=ERASED))
    open_sessions = update(SignInSession).where(SignInSession.revoked_at.is_(None))
    work.session.execute(open_sessions.filter_by(**mine).values(revoked_at=now))
    removed = func.coalesce(Passkey.removed_at, now, type_=Passkey.removed_at.type)
    work.session.execute(update(Passkey).filter_by(**mine).values(name=ERASED, removed_at=removed))
    for table in (Password, Ceremony, NoticeChoice, MailBounce):
        work.session.execute(delete(table).filter_by(**mine))
    asked = select(InferenceRequest.id).filter_by(**mine)
    work.session.execute(delete(InferencePrompt).where(InferencePrompt.request_id.in_(asked)))
    return ended


def _over(table: type[RoleAssignment | Membership], work: Work) -> Any:
    lasting = or_(table.ends_at.is_(None), table.ends_at > work.now)
    return update(table).where(lasting).values(ends_at=work.now, end_announced_at=work.now)


def _end(work: Work, statement: Any, table: Any, mine: dict[str, str]) -> list[str]:
    found = work.session.scalars(statement.filter_by(**mine).returning(table.id))
    return sorted(found)


def unname_signatures(work: Work, person_id: str, pseudonym: str) -> int:
    """Put the pseudonym where they typed their name, and drop the log's details that hold it."""
    signed = work.session.scalars(
        update(Signature)
        .where(Signature.person_id == person_id)
        .values(typed_name=pseudonym, typed_title=ERASED, client_address=None, user_agent=None)
        .returning(Signature.leaf_idx)
    ).all()
    attested = work.session.scalars(
        update(DestructionAttestation)
        .where(
            DestructionAttestation.attested_by == person_id,
            DestructionAttestation.leaf_idx.is_not(None),
        )
        .values(typed_name=pseudonym)
        .returning(DestructionAttestation.leaf_idx)
    ).all()
    ledger.forget_details(work, [idx for idx in (*signed, *attested) if idx is not None])
    return len(signed)


def empty_requests(work: Work, person: PersonRow) -> None:
    """Empty what they wrote to be let in: drafts, answers and remarks on their own requests."""
    theirs = [AccessDraft.person_id == person.id]
    if person.email:
        theirs.append(func.lower(AccessDraft.address) == person.email.lower())
    for draft in work.session.scalars(select(AccessDraft).where(or_(*theirs))):
        done = draft.state not in (DraftState.OPEN, DraftState.UNCONFIRMED)
        empty(draft, DraftState(draft.state) if done else DraftState.DISCARDED)
    work.session.flush()
    requests = select(AccessRequest.id).where(AccessRequest.applicant_id == person.id)
    work.session.execute(
        update(AccessRequestEvent)
        .where(
            AccessRequestEvent.request_id.in_(requests),
            AccessRequestEvent.actor_id == person.id,
            AccessRequestEvent.comment != "",
        )
        .values(comment=ERASED)
    )
    work.session.execute(
        update(AccessRequest).where(AccessRequest.applicant_id == person.id).values(answers={})
    )


def empty_mail(work: Work, person: PersonRow, words: Iterable[str], pseudonym: str) -> None:
    """Drop what was written to them, and put ``pseudonym`` for ``words`` in what others got."""
    address = (person.email or "").lower()
    to_them = {sha256_hex(form.encode()) for form in (address, person.email or "") if form}
    work.session.execute(
        delete(Notice).where(or_(Notice.person_id == person.id, Notice.recipient.in_(to_them)))
    )
    work.session.execute(
        update(MailLink)
        .where(
            or_(
                MailLink.person_id == person.id,
                func.lower(MailLink.address) == address if address else MailLink.id.is_(None),
            )
        )
        .values(
            address=None,
            network=None,
            used_at=func.coalesce(MailLink.used_at, work.now, type_=MailLink.used_at.type),
        )
    )
    for notice in work.session.scalars(select(Notice).where(_mentions(Notice, words, _SAID))):
        for column in _SAID:
            setattr(notice, column, _instead(getattr(notice, column), words, pseudonym))
    for job in work.session.scalars(select(Job).where(_mentions(Job, words, _QUEUED))):
        facts = job.payload.get("facts", {})  # all else of it are ids and names of events
        if facts:
            job.payload = {**job.payload, "facts": _unnamed(facts, words, pseudonym)}
        job.last_error = _instead(job.last_error, words, pseudonym)
    work.session.flush()


_SAID = ("title", "said", "why", "todo", "error")
_QUEUED = ("payload", "last_error")


def _mentions(table: Any, words: Iterable[str], columns: Iterable[str]) -> Any:
    """Narrow rows to those that may hold one of ``words``, plain or as JSON spells it."""
    texts = [cast(getattr(table, column), String) for column in columns]
    forms = {form for word in words for form in (word, json.dumps(word)[1:-1])}
    # Some databases know upper and lower case of ASCII alone, so each is looked for as it is too.
    exact = [text.contains(form, autoescape=True) for text in texts for form in forms]
    any_case = [
        func.lower(t).contains(form.lower(), autoescape=True) for t in texts for form in forms
    ]
    return or_(*exact, *any_case)


def _unnamed(value: Any, words: Iterable[str], pseudonym: str) -> Any:
    if isinstance(value, str):
        return _instead(value, words, pseudonym)
    if isinstance(value, list):
        return [_unnamed(one, words, pseudonym) for one in value]
    if isinstance(value, dict):
        return {key: _unnamed(one, words, pseudonym) for key, one in value.items()}
    return value


def _instead(text: str | None, words: Iterable[str], pseudonym: str) -> str | None:
    for word in words if text else ():
        text = _word(word).sub(pseudonym, text or "")
    return text

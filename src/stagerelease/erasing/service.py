"""Erasing a person: the account ends, names become a pseudonym, and what they decided stands.

Invariant 12: signatures, decisions, approvals and entries of the log are never deleted. They name
an id; what says who that was is let go of, here and in the log's side tables, which are made for
it: the entries and every hash stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select

from stagerelease.access import service as access
from stagerelease.access.applicants import as_person
from stagerelease.access.rules import OPEN
from stagerelease.access.tables import AccessRequest
from stagerelease.db.work import Work
from stagerelease.erasing import traces
from stagerelease.identity import queries as people
from stagerelease.identity.queries import PersonRow
from stagerelease.identity.rules import Permission, Role, require
from stagerelease.identity.tokens import end_tokens, tokens_made_by
from stagerelease.incidents import service as incidents
from stagerelease.incidents.tables import IncidentReport
from stagerelease.kernel.errors import Conflict, FieldError, Invalid
from stagerelease.ledger import service as ledger
from stagerelease.partners import service as partners
from stagerelease.partners.rules import LIVE
from stagerelease.partners.tables import Grant
from stagerelease.releases.rules import check_text

MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Erased:
    """What a person was made: the pseudonym, and what ended and was emptied with it."""

    id: str
    pseudonym: str
    grants_revoked: int
    requests_withdrawn: int
    signatures_kept: int


def pseudonym_of(person_id: str) -> str:
    """Return what stands for an erased person: it says nothing that the id does not."""
    return f"erased-{person_id[-10:]}"


def is_erased(person: PersonRow) -> bool:
    """Tell whether a person was erased already."""
    return person.handle == pseudonym_of(person.id)


def erase_person(work: Work, handle: str, *, reason: str) -> Erased:
    """End an account and let go of everything that says whose it was. It cannot be undone.

    Raises:
        Forbidden: the caller does not manage people.
        NotFound: there is no such person.
        Conflict: it is the caller's own account, the last owner's, or erased already.
        Invalid: no reason, or one that names the person.
    """
    require(work.actor, Permission.PEOPLE_MANAGE)
    person = people.load_person(work, handle)
    reason = check_text(reason, "reason", limit=MAX_REASON)
    names = traces.names_of(work, person)
    _check(work, person, names, reason)
    pseudonym = pseudonym_of(person.id)
    end_tokens(work, tokens_made_by(work, person.id))
    ended = traces.end_account(work, person, pseudonym)
    kept = traces.unname_signatures(work, person.id, pseudonym)
    traces.empty_requests(work, person)
    traces.empty_mail(work, person, names, pseudonym)
    # What follows is told to others and logged: by now under the pseudonym.
    withdrawn = _withdraw_requests(work, people.load_person(work, person.id))
    revoked = _revoke_grants(work, person.id)
    _forget_reports(work, person.id)
    while ledger.sequence_pending(work):  # what waits for its place commits to who did it, too
        pass
    ledger.append(
        work,
        type="person.erased",
        subject=f"person:{pseudonym}",
        detail={"pseudonym": pseudonym, "reason": reason, **ended},
    )
    ledger.forget(work, values=(person.id, f"person:{person.id}"))
    return Erased(person.id, pseudonym, revoked, withdrawn, kept)


def _check(work: Work, person: PersonRow, names: Iterable[str], reason: str) -> None:
    if work.actor.is_human and work.actor.id == person.id:
        raise Conflict(
            "Nobody erases themselves: the log says who did it.",
            reason="erase.self",
            next_step="Another owner does it, or the operator on the host.",
        )
    if is_erased(person):
        raise Conflict(f"{person.handle} is erased already.", reason="erase.again")
    if [one.id for one in people.list_holders(work, Role.OWNER)] == [person.id]:
        raise Conflict(
            "This is the last owner; without one nobody can add people or give roles.",
            reason="erase.last-owner",
            next_step="Make somebody else an owner first.",
        )
    if any(traces.says(reason, name) for name in names):
        sentence = "The reason is kept for good: say why without naming the person."
        raise Invalid(sentence, reason="erase.reason", fields=[FieldError("reason", sentence)])


def _withdraw_requests(work: Work, person: PersonRow) -> int:
    """Take back what they still ask for, as only an applicant does."""
    waiting = work.session.scalars(
        select(AccessRequest.id)
        .where(AccessRequest.applicant_id == person.id, AccessRequest.state.in_(sorted(OPEN)))
        .order_by(AccessRequest.id)
    ).all()
    for request_id in waiting:
        access.withdraw(as_person(work, person), request_id)
    return len(waiting)


def _revoke_grants(work: Work, person_id: str) -> int:
    live = work.session.scalars(
        select(Grant.id).where(Grant.person_id == person_id, Grant.state.in_(sorted(LIVE)))
    ).all()
    for grant_id in sorted(live):
        partners.revoke_grant(work, grant_id, reason="Its holder's account was erased.")
    return len(live)


def _forget_reports(work: Work, person_id: str) -> None:
    numbers = work.session.scalars(
        select(IncidentReport.incident_id).where(IncidentReport.reporter_id == person_id)
    ).all()
    for number in sorted(numbers):
        incidents.erase_report(work, number, reason="The reporter's account was erased.")

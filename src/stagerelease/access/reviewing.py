"""Use cases of reviewers before a decision: take up, ask, note, declare a conflict of interest."""

from __future__ import annotations

from stagerelease.access import queries
from stagerelease.access.interests import check_reviewer, reviewing
from stagerelease.access.moving import (
    check_room,
    digest_of,
    enter,
    load_for,
    lock_request,
    log,
    note,
    read_back,
    tell,
)
from stagerelease.access.queries import ConflictRow, NoteRow, RequestRow
from stagerelease.access.rules import (
    INTERESTS,
    MAX_MESSAGE,
    OPEN,
    State,
    check_move,
    interest,
)
from stagerelease.access.tables import AccessConflict, AccessNote, AccessRequest
from stagerelease.db.work import Work
from stagerelease.identity import queries as people
from stagerelease.identity.queries import PersonRow
from stagerelease.identity.rules import ROLE_PERMISSIONS, Permission, Role
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.releases.humans import accountable
from stagerelease.releases.queries import storable
from stagerelease.releases.rules import check_text

DECIDE = Permission.ACCESS_REQUEST_DECIDE


def assign(
    work: Work, request_id: str, *, assignee: str | None = None, seen: int | None = None
) -> RequestRow:
    """Give an open request to a reviewer by handle, to the caller when None; it is in review then.

    Giving it to whom it has been given changes nothing.

    Raises:
        NotFound: no such request or person, as far as the caller may know.
        Forbidden: the caller decides no requests, or the reviewer has an interest in this one.
        Invalid: the named person decides no requests.
        Conflict: it does not wait for us.
        Stale: ``seen`` is an older version of it.
    """
    row = load_for(work, request_id, DECIDE)
    person = _reviewer(work, assignee)
    row, request = lock_request(work, row.id, seen=seen)
    code = interest(reviewing(work, row.id, row.applicant_id, person.id))
    if code is not None:
        raise Forbidden(
            f"{person.handle} cannot review this: {INTERESTS[code][0]}",
            reason=f"access.{code}",
            next_step="Give it to another access officer.",
        )
    if row.assignee_id == person.id and row.state in OPEN:
        return row
    if row.state not in OPEN:
        check_move(row.state, State.IN_REVIEW, status=row.status)
    take_up(work, row, request, person)
    return read_back(work, request)


def _reviewer(work: Work, handle: str | None) -> PersonRow:
    """Return the person of a handle, or the caller, if they may decide requests."""
    if handle is None:
        return people.load_person(work, accountable(work, "review a request"))
    if not storable(handle):
        raise NotFound("There is no person of that name.", reason="person.unknown")
    person = people.load_person(work, handle)
    roles = people.roles_now(work, person.id)
    decides = any(DECIDE in ROLE_PERMISSIONS[Role(role)] for role in roles)
    if not decides or person.kind != "human" or person.disabled_at is not None:
        raise Invalid(
            f"{person.handle} decides no access requests.",
            reason="access.assignee",
            next_step="Name somebody who holds the role access_officer.",
        )
    return person


def take_up(work: Work, row: RequestRow, request: AccessRequest, person: PersonRow) -> None:
    """Assign a locked open request, and put it into review if it was only submitted."""
    request.assignee_id = person.id
    if row.state == State.SUBMITTED:
        enter(work, request, State.IN_REVIEW)
    tell(work, "assigned", row, people=[person.id], assignee=person.handle)
    note(work, request, event="assigned", before=row.state, detail={"assignee": person.id})


def ask(work: Work, request_id: str, *, question: str, seen: int | None = None) -> RequestRow:
    """Return a request to its applicant with a question; it waits for their answer.

    Whoever asks takes up a request that nobody has.

    Raises:
        NotFound, Forbidden: no such request, or the caller may not review it.
        Conflict: it does not wait for us, or its thread is full.
        Invalid: the question is empty or too long.
        Stale: ``seen`` is an older version of it.
    """
    row = load_for(work, request_id, DECIDE)
    question = check_text(question, "question", limit=MAX_MESSAGE)
    row, request = lock_request(work, row.id, seen=seen)
    check_reviewer(work, row)
    check_room(work, row.id)
    if row.state == State.SUBMITTED and work.actor.is_human:
        take_up(work, row, request, people.load_person(work, work.actor.id))
    elif row.state == State.SUBMITTED:
        enter(work, request, State.IN_REVIEW)
    check_move(request.state, State.RETURNED, status=row.status)
    before = request.state
    enter(work, request, State.RETURNED)
    until = iso(request.expires_at) if request.expires_at else None
    tell(work, "question", row, applicant=True, question=question, until=until)
    note(work, request, event="returned", kind="question", before=before, comment=question)
    return read_back(work, request)


def add_note(work: Work, request_id: str, *, text: str) -> NoteRow:
    """Leave a note on a request for other staff; its applicant never reads it.

    Raises:
        NotFound, Forbidden: no such request, it is the caller's own, or they decide none.
        Invalid: the note is empty or too long.
    """
    row = load_for(work, request_id, DECIDE)
    if row.applicant_id == work.actor.id:
        raise Forbidden(INTERESTS["own"][0], reason="access.own")
    text = check_text(text, "note", limit=MAX_MESSAGE)
    kept = AccessNote(
        id=new_id("anb"), request_id=row.id, author_id=work.actor.id, text=text, at=work.now
    )
    work.session.add(kept)
    _, request = _locked(work, row.id)
    log(work, request, event="noted", before=row.state, detail=digest_of(text))
    return NoteRow(kept.id, kept.author_id, work.actor.name, text, kept.at)


def _locked(work: Work, request_id: str) -> tuple[RequestRow, AccessRequest]:
    request = work.session.get_one(AccessRequest, request_id)
    return read_back(work, request), request


def declare_conflict(work: Work, request_id: str, *, reason: str) -> ConflictRow:
    """Declare the caller's own conflict of interest in a request: from now on others decide it.

    A request assigned to them is assigned to nobody. A declaration is never taken back; declaring
    again changes nothing.

    Raises:
        NotFound, Forbidden: no such request, it is their own, or they decide none.
        Conflict: the request is decided.
        Invalid: the reason is empty or too long.
    """
    row = load_for(work, request_id, DECIDE)
    me = accountable(work, "declare a conflict of interest")
    reason = check_text(reason, "reason", limit=MAX_MESSAGE)
    row, request = lock_request(work, row.id)
    before = next((c for c in queries.declared_conflicts(work, row.id) if c.person_id == me), None)
    if before is not None:
        return before
    if row.state not in OPEN:
        raise Conflict(
            f"The request is {row.status}: a conflict is declared before a decision.",
            reason="access.decided",
            next_step="Tell an owner, who can have it looked at again.",
        )
    if request.assignee_id == me:
        request.assignee_id = None
    leaf = log(
        work,
        request,
        event="conflict_declared",
        before=row.state,
        detail={"reviewer": me, **digest_of(reason)},
    )
    declared = AccessConflict(
        id=new_id("acf"), request_id=row.id, person_id=me, reason=reason, at=work.now, leaf_idx=leaf
    )
    work.session.add(declared)
    return ConflictRow(me, work.actor.name, reason, True, work.now)

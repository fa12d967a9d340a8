"""Use cases of reviewers: approve, reject, put back, and let somebody in who has not asked.

``approve`` is the whole walk: the grant is issued at once and, where nothing is signed yet, waits
for the signature that the applicant is asked for. ``accept`` lets in only who has signed.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from stagerelease.access import queries
from stagerelease.access.admission import Admitted, admit
from stagerelease.access.interests import check_reviewer, reviewing
from stagerelease.access.moving import (
    enter,
    load_for,
    lock_applicant,
    lock_request,
    new_request,
    note,
    read_back,
    tell,
    variant_id_of,
)
from stagerelease.access.queries import RequestRow
from stagerelease.access.rules import (
    DEFAULT_TERM,
    MAX_REASON,
    OPEN,
    REAPPLY_AFTER,
    Origin,
    State,
    Status,
    check_interest,
    check_move,
    check_until,
    purpose_of,
)
from stagerelease.access.tables import AccessRequest
from stagerelease.db.work import Work
from stagerelease.identity import queries as people
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, FieldError, Invalid, NotFound
from stagerelease.partners import service as partners
from stagerelease.partners.rules import LIVE, GrantState
from stagerelease.releases.queries import storable
from stagerelease.releases.rules import check_text

LONGEST_WAIT = timedelta(days=366)


def find_for(
    work: Work, *, repo_id: str, handle: str | None = None, request_id: str | None = None
) -> RequestRow:
    """Return the request that a reviewer names: by its id, or a person's newest for a repository.

    Raises:
        Forbidden: the caller decides no requests.
        Invalid: not exactly one of the two is given.
        NotFound: no such repository, person, or request about this repository.
    """
    require(work.actor, Permission.ACCESS_REQUEST_DECIDE)
    if (handle is None) == (request_id is None):
        raise Invalid("Name the applicant or the request, not both.", reason="access.which")
    variant_id = variant_id_of(work, repo_id)
    row = None
    if request_id is not None:
        row = queries.find_request(work, request_id)
    elif handle is not None:
        person = _person(work, handle)
        row = queries.find_latest(work, variant_id=variant_id, applicant_id=person.id)
    if row is None or row.variant_id != variant_id or row.state == State.WITHDRAWN:
        raise NotFound(f"There is no such access request for {repo_id}.", reason="access.unknown")
    return row


def _person(work: Work, handle: str) -> people.PersonRow:
    if not storable(handle):
        raise NotFound("There is no person of that name.", reason="person.unknown")
    return people.load_person(work, handle)


def _begin_decision(
    work: Work, request_id: str, to: State, *, seen: int | None = None
) -> tuple[RequestRow, AccessRequest]:
    """Return a request that the caller may move to ``to``, locked.

    Raises:
        NotFound, Forbidden, Conflict: no such request, not theirs to decide, or no such move.
        Stale: ``seen`` is an older version of it.
    """
    row = load_for(work, request_id, Permission.ACCESS_REQUEST_DECIDE)
    row, request = lock_request(work, row.id, seen=seen)
    check_reviewer(work, row)
    check_move(row.state, to, status=row.status)
    return row, request


def approve(
    work: Work,
    request_id: str,
    *,
    until: datetime | None = None,
    permissions: Collection[str] = ("download",),
    comment: str = "",
    seen: int | None = None,
) -> RequestRow:
    """Let the applicant in until a date (a year when None), in one walk.

    Where the stage's agreement is signed, by the applicant or by an organisation whose roster they
    are on, the grant is active at once. Where it is not, the applicant is given what signing needs
    (the role researcher), the grant is issued ``pending`` and becomes active with the signature;
    the notice that tells them says where to sign.

    Raises:
        NotFound, Forbidden: no such request, or not the caller's to decide: their own, one they
            declared a conflict in, or one of somebody on the roster of their organisation.
        Conflict: decided already, withdrawn, returned to its applicant, over, or no stage that the
            release has reached lets anybody like them in.
        Blocked: the grant cannot be issued now; says every reason.
        Invalid: ``until`` is not in the future or beyond policy, or the comment is too long.
        Stale: ``seen`` is an older version of it.
    """
    end = check_until(until or work.now + DEFAULT_TERM, work.now)
    comment = check_text(comment, "comment", required=False)
    row, request = _begin_decision(work, request_id, State.APPROVED, seen=seen)
    _approve(
        work,
        row,
        request,
        valid_until=end,
        permissions=permissions,
        comment=comment,
        await_signature=True,
    )
    return read_back(work, request)


def accept(
    work: Work,
    request_id: str,
    *,
    valid_until: datetime | None = None,
    permissions: Collection[str] = ("download",),
) -> RequestRow:
    """Let an applicant in who has signed: issue a grant (a year, unless ``valid_until``).

    The grant rests on the applicant's own signature in force, or on that of an organisation whose
    roster they are on; then the grant is the organisation's.

    Raises:
        NotFound, Forbidden: no such request, or not the caller's to decide.
        Conflict: accepted already, withdrawn, or nothing is signed (``access.no-signature``).
        Blocked: the grant cannot be issued now; says every reason.
    """
    row, request = _begin_decision(work, request_id, State.APPROVED)
    _approve(work, row, request, valid_until=valid_until, permissions=permissions)
    return read_back(work, request)


def _approve(
    work: Work,
    row: RequestRow,
    request: AccessRequest,
    *,
    valid_until: datetime | None,
    permissions: Collection[str],
    comment: str = "",
    await_signature: bool = False,
) -> None:
    admitted = admit(
        work,
        variant_id=row.variant_id,
        applicant=people.load_person(work, row.applicant_id),
        permissions=permissions,
        purpose=purpose_of(row.id, row.answers),
        valid_until=valid_until or work.now + DEFAULT_TERM,
        await_signature=await_signature,
    )
    grant = admitted.grant
    request.grant_id = grant.id
    _decide(work, request, State.APPROVED)
    words, path = _next_step(row.id, admitted)
    tell(
        work,
        "approved",
        row,
        applicant=True,
        grant=grant.id,
        until=iso(grant.valid_until),
        stage=grant.audience,
        must_sign=admitted.unsigned is not None,
        agreement=admitted.unsigned,
        next=words,
        link_path=path,
    )
    note(
        work,
        request,
        event="accepted",
        kind="approved",
        before=row.state,
        comment=comment,
        detail={"grant": grant.id, "awaits_signature": admitted.unsigned is not None},
    )


def _next_step(request_id: str, admitted: Admitted) -> tuple[str, str]:
    """Return what an approved applicant does next, in words, and the path where."""
    here = f"/requests/{request_id}"
    if admitted.unsigned is not None and admitted.grant.person_id is None:
        return "It begins when an administrator of your organisation has signed.", here
    if admitted.unsigned is not None:
        path = f"/agreements/{admitted.unsigned}/sign"
        return "It begins when you have read and signed the agreement.", path
    if admitted.grant.state == GrantState.PENDING:
        return "It begins when a second person has consented.", here
    return "Your grant is active.", here


def _decide(
    work: Work,
    request: AccessRequest,
    to: State,
    *,
    reason: str | None = None,
    may_reapply_after: datetime | None = None,
) -> None:
    decided = to is not State.SUBMITTED
    measured = decided and request.origin != Origin.ADMITTED
    enter(work, request, to)
    request.decided_at = work.now if decided else None
    request.decided_by = work.actor.id if decided and work.actor.is_human else None
    request.decision_seconds = (
        int((work.now - request.submitted_at).total_seconds()) if measured else None
    )
    request.reason = reason
    request.may_reapply_after = may_reapply_after


def _take_back(work: Work, row: RequestRow, *, reason: str) -> None:
    """Revoke the grant that a request led to, if it has not ended."""
    if row.grant_id is not None and row.grant_state in LIVE:
        partners.revoke_grant(work, row.grant_id, reason=reason)


def reject(
    work: Work,
    request_id: str,
    *,
    reason: str,
    reapply_after: timedelta = REAPPLY_AFTER,
    may_reapply_after: datetime | None = None,
    seen: int | None = None,
) -> RequestRow:
    """Refuse a request with a reason that the applicant sees; access given before is revoked.

    They may ask again after ``may_reapply_after``, or ``reapply_after`` from now when it is None.

    Raises:
        NotFound, Forbidden: no such request, or not the caller's to decide.
        Conflict: rejected already, withdrawn, or over.
        Invalid: there is no reason or it is longer than 200 characters, or the wait is negative or
            over a year.
        Stale: ``seen`` is an older version of it.
    """
    reason = check_text(reason, "reason", required=False, limit=MAX_REASON)
    if not reason:
        sentence = "Say why it is rejected: the applicant reads it."
        raise Invalid(sentence, reason="access.reason", fields=[FieldError("reason", sentence)])
    if may_reapply_after is not None:
        reapply_after = may_reapply_after - work.now
    if not timedelta(0) <= reapply_after <= LONGEST_WAIT:
        raise Invalid(
            "The wait before asking again is between none and a year.", reason="access.reapply"
        )
    row, request = _begin_decision(work, request_id, State.REJECTED, seen=seen)
    _take_back(work, row, reason=f"The access request {row.id} was rejected.")
    again = work.now + reapply_after
    _decide(work, request, State.REJECTED, reason=reason, may_reapply_after=again)
    tell(
        work,
        "rejected",
        row,
        applicant=True,
        reason=reason,
        may_reapply_after=iso(again),
    )
    note(work, request, event="rejected", before=row.state, comment=reason)
    return read_back(work, request)


def reopen(work: Work, request_id: str) -> RequestRow:
    """Put a decided request back to waiting; access given by it is revoked.

    Raises:
        NotFound, Forbidden: no such request, or not the caller's to decide.
        Conflict: it waits already, or was withdrawn.
    """
    row, request = _begin_decision(work, request_id, State.SUBMITTED)
    if row.state in OPEN:  # only its applicant sends a returned request in again
        raise Conflict("The request is pending already.", reason="access.already-pending")
    _take_back(work, row, reason="The access request is being looked at again.")
    request.grant_id = None
    _decide(work, request, State.SUBMITTED)
    tell(work, "reopened", row, applicant=True, staff=True)
    note(work, request, event="reopened", before=row.state)
    return read_back(work, request)


def decide(
    work: Work,
    request_id: str,
    *,
    status: Status,
    reason: str = "",
) -> RequestRow:
    """Accept, reject or put back, as the Hub's one call does.

    Raises:
        Invalid: ``status`` is none of the three.
        NotFound, Forbidden, Conflict, Blocked: see ``approve``, ``reject``, ``reopen``.
    """
    if status is Status.ACCEPTED:
        return approve(work, request_id)
    if status is Status.REJECTED:
        return reject(work, request_id, reason=reason)
    if status is Status.PENDING:
        return reopen(work, request_id)
    raise Invalid("A request is accepted, rejected or put back to pending.", reason="access.status")


def grant(
    work: Work,
    *,
    repo_id: str,
    handle: str,
    valid_until: datetime | None = None,
    permissions: Collection[str] = ("download",),
) -> RequestRow:
    """Let a person in who has not asked; a request of theirs that waits is accepted instead.

    Raises:
        NotFound: no such repository or person.
        Forbidden: the caller decides no requests, or it is about themselves.
        Conflict: they have access already, or nothing is signed.
        Blocked: the grant cannot be issued now; says every reason.
    """
    require(work.actor, Permission.ACCESS_REQUEST_DECIDE)
    variant_id = variant_id_of(work, repo_id)
    person = _person(work, handle)
    if work.actor.is_human:
        check_interest(reviewing(work, None, person.id, work.actor.id))
    lock_applicant(work, person.id)
    latest = queries.find_latest(work, variant_id=variant_id, applicant_id=person.id)
    if latest is not None and latest.status in (Status.PENDING, Status.REJECTED):
        return accept(work, latest.id, valid_until=valid_until, permissions=permissions)
    request = new_request(work, variant_id, person.id, {}, origin=Origin.ADMITTED)
    row = read_back(work, request)
    _approve(
        work,
        row,
        request,
        valid_until=valid_until,
        permissions=permissions,
        comment="Admitted without a request.",
    )
    return read_back(work, request)

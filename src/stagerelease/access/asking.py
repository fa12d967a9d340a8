"""Use cases of applicants: ask for access, take the request back; and looking at requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stagerelease.access import queries
from stagerelease.access.moving import (
    load_for,
    lock_applicant,
    lock_request,
    new_request,
    note,
    read_back,
    variant_id_of,
)
from stagerelease.access.queries import RequestEventRow, RequestRow
from stagerelease.access.rules import (
    State,
    Status,
    check_answers,
    check_may_reapply,
    check_move,
)
from stagerelease.db.work import Work
from stagerelease.entitlements import service as entitlements
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.kernel.canonical import canonical_sha256
from stagerelease.kernel.errors import Conflict, Forbidden
from stagerelease.partners.moving import require_known
from stagerelease.releases.humans import accountable
from stagerelease.releases.queries import storable


@dataclass(frozen=True, slots=True)
class RequestPage:
    """A request and every step it took."""

    request: RequestRow
    events: tuple[RequestEventRow, ...]


def submit(work: Work, *, repo_id: str, answers: Mapping[str, str]) -> RequestRow:
    """Ask for access to a repository's current release; while one waits, that one is returned.

    Raises:
        NotFound: there is no such repository, or the caller may not know of it.
        Forbidden: not a human.
        Conflict: it is open to everyone (``access.not-gated``), the caller has access
            (``access.granted``), it was withdrawn (``access.withdrawn``), or a rejection says when
            they may ask again (``access.rejected``).
        Invalid: the answers are too many or too long.
    """
    require(work.actor, Permission.ACCESS_REQUEST_SUBMIT)
    if work.actor.is_human:
        lock_applicant(work, work.actor.id)
    me = accountable(work, "ask for access")
    variant_id = _askable(work, repo_id)
    latest = queries.find_latest(work, variant_id=variant_id, applicant_id=me)
    if latest is not None:
        if latest.status is Status.PENDING:
            return latest
        if latest.status is Status.ACCEPTED:
            raise Conflict(
                f"Your request was accepted; your grant is {latest.grant_state}.",
                reason="access.granted",
                next_step=f"Look at the grant: {latest.grant_id}.",
            )
        if latest.status is Status.REJECTED:
            check_may_reapply(
                work.now, reason=latest.reason, may_reapply_after=latest.may_reapply_after
            )
    kept = check_answers(answers)
    request = new_request(work, variant_id, me, kept)
    note(
        work,
        request,
        event="submitted",
        before=None,
        detail={"answers_sha256": canonical_sha256(kept), "variant": variant_id},
    )
    return read_back(work, request)


def _askable(work: Work, repo_id: str) -> str:
    """Return the variant of a gated repository that the caller may know of and not have.

    Raises:
        NotFound, Conflict: see ``submit``.
    """
    if not storable(repo_id):
        raise entitlements.hidden(repo_id)
    try:
        entitled = entitlements.see(work, work.actor, repo_id)
    except entitlements.Moved as moved:
        entitled = entitlements.see(work, work.actor, moved.repo_id)
    decision = entitled.decision
    if not entitled.gated:
        raise Conflict(
            f"{entitled.variant.repo_id} is open to everyone: there is nothing to ask for.",
            reason="access.not-gated",
        )
    if decision.allowed:
        raise Conflict(
            f"You have access to {entitled.variant.repo_id} already.", reason="access.granted"
        )
    if decision.reason == "withdrawn":
        raise Conflict(decision.sentence, reason="access.withdrawn", next_step=decision.next_step)
    return entitled.variant.id


def withdraw(work: Work, request_id: str) -> RequestRow:
    """Take back one's own request that still waits.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Forbidden: it is somebody else's.
        Conflict: it does not wait any more.
    """
    row = load_for(work, request_id, Permission.ACCESS_REQUEST_SUBMIT)
    if row.applicant_id != work.actor.id:
        raise Forbidden(
            "Only the applicant withdraws a request.",
            reason="access.not-applicant",
            next_step="Reject it instead.",
        )
    row, request = lock_request(work, row.id)
    check_move(row.state, State.WITHDRAWN, status=row.status)
    request.state = State.WITHDRAWN
    note(work, request, event="withdrawn", before=row.state)
    return read_back(work, request)


def show_request(work: Work, request_id: str) -> RequestPage:
    """Return a request and its steps to its applicant and to staff.

    Raises:
        NotFound: there is none, or the caller may not know of it.
    """
    row = load_for(work, request_id, None)
    return RequestPage(row, tuple(queries.request_events(work, row.id)))


def list_requests(
    work: Work, *, repo_id: str | None = None, status: Status | None = None
) -> list[RequestRow]:
    """Return requests, newest first: all to staff, to others their own.

    Raises:
        Unauthenticated: nobody is known.
        NotFound: a repository is named that staff do not have.
    """
    require_known(work.actor)
    if not authorize(work.actor, Permission.ACCESS_REQUEST_READ).allowed:
        rows = queries.list_requests(work, status=status, applicant_id=work.actor.id)
        return [row for row in rows if repo_id in (None, row.repo_id)]
    variant_id = None if repo_id is None else variant_id_of(work, repo_id)
    return queries.list_requests(work, variant_id=variant_id, status=status)

"""What every step of an access request shares: who may touch it, its lock, its event and log entry.

Lock order: the applicant or the request, then what ``partners`` locks, then the ledger. The log
holds no word that an applicant or a reviewer wrote: texts go in by digest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from stagerelease.access import queries
from stagerelease.access.queries import RequestEventRow, RequestRow
from stagerelease.access.rules import (
    MAX_EVENTS,
    Origin,
    State,
    check_not_over,
    expiry_of,
)
from stagerelease.access.tables import AccessRequest, AccessRequestEvent
from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.entitlements import service as entitlements
from stagerelease.identity.rules import Permission, Role, authorize, require
from stagerelease.identity.tables import Person
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import Conflict, NotFound, Stale
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.partners.moving import require_known
from stagerelease.releases.queries import storable

OFFICERS = (Role.ACCESS_OFFICER.value,)


def unknown(request_id: str) -> NotFound:
    """Return the one answer for a request that is not there or may not be known."""
    return NotFound(f"There is no access request {request_id!r}.", reason="access.unknown")


def reads_all(work: Work) -> bool:
    """Tell whether the caller reads every request, as staff do."""
    return authorize(work.actor, Permission.ACCESS_REQUEST_READ).allowed


def as_seen(work: Work, row: RequestRow) -> RequestRow:
    """Return a request as the caller may see it: who reviews it is for staff."""
    if reads_all(work):
        return row
    return replace(row, assignee=None, assignee_id=None, decided_by=None)


def event_as_seen(work: Work, event: RequestEventRow) -> RequestEventRow:
    """Return a step as the caller may see it: which reviewer took it is for staff."""
    if event.by != "staff" or reads_all(work):
        return event
    return replace(event, actor_id="staff")


def load_for(work: Work, request_id: str, permission: Permission | None) -> RequestRow:
    """Return a request to somebody who may know of it and, if named, holds ``permission``."""
    require_known(work.actor)
    row = queries.find_request(work, request_id)
    if row is None or not (reads_all(work) or row.applicant_id == work.actor.id):
        raise unknown(request_id)
    if permission is not None:
        require(work.actor, permission)
    return row


def lock_request(
    work: Work, request_id: str, *, seen: int | None = None
) -> tuple[RequestRow, AccessRequest]:
    """Return a request that is known to exist, locked, and its row as it is under the lock.

    Raises:
        Stale: ``seen`` is a version that the request is no longer at.
        Conflict: it waited too long and is over, though no sweep has said so yet.
    """
    request = work.session.execute(
        select(AccessRequest)
        .where(AccessRequest.id == request_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).scalar_one()
    if seen is not None and request.version != seen:
        raise Stale(
            f"The request is at version {request.version}, and you decided on version {seen}.",
            reason="access.stale",
            next_step="Look at it again: its newest events say what happened.",
        )
    check_not_over(request.state, request.expires_at, work.now)
    return read_back(work, request), request


def variant_id_of(work: Work, repo_id: str) -> str:
    """Return the variant of a repository id or alias.

    Raises:
        NotFound: there is none.
    """
    if not storable(repo_id):
        raise entitlements.hidden(repo_id)
    return catalog.load_variant(work, repo_id).id


def lock_applicant(work: Work, person_id: str) -> None:
    """Make the requests of one person come one after the other."""
    work.session.execute(
        select(Person.id).where(Person.id == person_id).with_for_update(key_share=True)
    )


def new_request(
    work: Work,
    variant_id: str,
    applicant_id: str,
    answers: Mapping[str, Any],
    *,
    origin: Origin,
    form_id: str | None = None,
) -> AccessRequest:
    """Write a request that waits from now on; the caller logs it."""
    request = AccessRequest(
        id=new_id("arq"),
        variant_id=variant_id,
        applicant_id=applicant_id,
        answers=dict(answers),
        submitted_at=work.now,
        form_id=form_id,
        origin=origin,
    )
    enter(work, request, State.SUBMITTED)
    work.session.add(request)
    work.session.flush()  # its events refer to it
    return request


def enter(work: Work, request: AccessRequest, to: State) -> None:
    """Put a request into a state, from now on, with the end that state has."""
    request.state = to
    request.state_since = work.now
    request.expires_at = expiry_of(to, work.now)


def note(
    work: Work,
    request: AccessRequest,
    *,
    event: str,
    before: str | None,
    kind: str | None = None,
    comment: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    """Log a step of a request and write the event its applicant reads.

    Raises:
        Conflict: the request has had as many steps as a request can have.
    """
    work.session.flush()  # a lost race over the row shows here, before the log is locked
    leaf = log(
        work, request, event=event, before=before, detail={**digest_of(comment), **(detail or {})}
    )
    work.session.add(
        AccessRequestEvent(
            id=new_id("are"),
            request_id=request.id,
            from_state=before,
            to_state=request.state,
            actor_id=work.actor.id,
            comment=comment,
            at=work.now,
            leaf_idx=leaf,
            kind=kind or event,
        )
    )


def log(
    work: Work,
    request: AccessRequest,
    *,
    event: str,
    before: str | None,
    detail: Mapping[str, object] | None = None,
) -> int:
    """Append what happened to a request to the log and return the leaf's index."""
    return ledger.append(
        work,
        type=f"access_request.{event}",
        subject=f"access_request:{request.id}",
        prev_state=before,
        new_state=request.state,
        detail={"applicant": request.applicant_id, **(detail or {})},
    )


def digest_of(text: str) -> dict[str, str]:
    """Return what the log says of a text: its digest, or nothing of no text."""
    return {"comment_sha256": sha256_hex(text.encode())} if text else {}


def tell(
    work: Work,
    event: str,
    row: RequestRow,
    *,
    applicant: bool = False,
    staff: bool = False,
    people: Collection[str] = (),
    **facts: object,
) -> None:
    """Emit ``request.<event>`` to the applicant, to the access officers, or to both."""
    emit(
        work,
        f"request.{event}",
        subject=f"access_request:{row.id}",
        people={*people, *([row.applicant_id] if applicant else [])},
        roles=OFFICERS if staff else (),
        facts={
            "id": row.id,
            "repo_id": row.repo_id,
            "variant_id": row.variant_id,
            "title": row.repo_id,
            "applicant": row.handle,
            **facts,
        },
    )


def check_room(work: Work, request_id: str) -> None:
    """Return only if a request may have one more message.

    Raises:
        Conflict: its thread is as long as a thread may be.
    """
    if queries.count_events(work, request_id) >= MAX_EVENTS:
        raise Conflict(
            f"This request has had {MAX_EVENTS} steps; no more messages are taken.",
            reason="access.thread-full",
            next_step="Decide it, or withdraw it and send a new one.",
        )


def read_back(work: Work, request: AccessRequest) -> RequestRow:
    """Return a request as the database has it after what this Work wrote."""
    work.session.flush()
    row = queries.find_request(work, request.id)
    if row is None:
        raise unknown(request.id)
    return row

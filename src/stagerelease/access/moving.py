"""What every step of an access request shares: who may touch it, its lock, its event and log entry.

Lock order: the applicant or the request, then what ``partners`` locks, then the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select

from stagerelease.access import queries
from stagerelease.access.queries import RequestRow
from stagerelease.access.rules import State
from stagerelease.access.tables import AccessRequest, AccessRequestEvent
from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.entitlements import service as entitlements
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.identity.tables import Person
from stagerelease.kernel.errors import NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.partners.moving import require_known
from stagerelease.releases.queries import storable


def unknown(request_id: str) -> NotFound:
    """Return the one answer for a request that is not there or may not be known."""
    return NotFound(f"There is no access request {request_id!r}.", reason="access.unknown")


def load_for(work: Work, request_id: str, permission: Permission | None) -> RequestRow:
    """Return a request to somebody who may know of it and, if named, holds ``permission``."""
    require_known(work.actor)
    row = queries.find_request(work, request_id)
    reads = authorize(work.actor, Permission.ACCESS_REQUEST_READ).allowed
    if row is None or not (reads or row.applicant_id == work.actor.id):
        raise unknown(request_id)
    if permission is not None:
        require(work.actor, permission)
    return row


def lock_request(work: Work, request_id: str) -> tuple[RequestRow, AccessRequest]:
    """Return a request that is known to exist, locked, and its row as it is under the lock."""
    request = work.session.execute(
        select(AccessRequest)
        .where(AccessRequest.id == request_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).scalar_one()
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
    work: Work, variant_id: str, applicant_id: str, answers: dict[str, str]
) -> AccessRequest:
    """Write a request that waits from now on; the caller logs it."""
    request = AccessRequest(
        id=new_id("arq"),
        variant_id=variant_id,
        applicant_id=applicant_id,
        state=State.SUBMITTED,
        answers=dict(answers),
        submitted_at=work.now,
    )
    work.session.add(request)
    work.session.flush()  # its events refer to it
    return request


def note(
    work: Work,
    request: AccessRequest,
    *,
    event: str,
    before: str | None,
    comment: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    """Log a step of a request and write the event its applicant reads."""
    work.session.flush()  # a lost race over the row shows here, before the log is locked
    leaf = ledger.append(
        work,
        type=f"access_request.{event}",
        subject=f"access_request:{request.id}",
        prev_state=before,
        new_state=request.state,
        detail={"applicant": request.applicant_id, "comment": comment, **(detail or {})},
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
        )
    )


def read_back(work: Work, request: AccessRequest) -> RequestRow:
    """Return a request as the database has it after what this Work wrote."""
    work.session.flush()
    row = queries.find_request(work, request.id)
    if row is None:
        raise unknown(request.id)
    return row

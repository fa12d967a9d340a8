"""Conflicts of interest in a request: what a reviewer declared, and what rosters say."""

from __future__ import annotations

from sqlalchemy import select

from stagerelease.access import queries
from stagerelease.access.queries import ConflictRow, RequestRow
from stagerelease.access.rules import INTERESTS, Reviewing, check_interest, interest
from stagerelease.access.tables import AccessConflict
from stagerelease.db.work import Work
from stagerelease.identity import queries as people


def _organisations(work: Work, person_id: str) -> frozenset[str]:
    return frozenset(o for o, _, _ in people.memberships_now(work, person_id))


def reviewing(work: Work, request_id: str | None, applicant_id: str, reviewer_id: str) -> Reviewing:
    """Return what decides whether a person may decide on an applicant; None: nobody asked."""
    declared = None
    if request_id is not None:
        declared = work.session.execute(
            select(AccessConflict.id).where(
                AccessConflict.request_id == request_id, AccessConflict.person_id == reviewer_id
            )
        ).first()
    return Reviewing(
        reviewer=reviewer_id,
        applicant=applicant_id,
        reviewer_organisations=_organisations(work, reviewer_id),
        applicant_organisations=_organisations(work, applicant_id),
        declared=declared is not None,
    )


def check_reviewer(work: Work, row: RequestRow) -> None:
    """Return only if nothing keeps the caller from deciding a request.

    The local operator is nobody's colleague; what a shell decides, the log says a shell did.

    Raises:
        Forbidden: it is their own, they declared a conflict, or they share an organisation.
    """
    if work.actor.is_human:
        check_interest(reviewing(work, row.id, row.applicant_id, work.actor.id))


def conflicts_of(work: Work, row: RequestRow) -> tuple[ConflictRow, ...]:
    """Return every declared conflict, and those computed for the caller and the assignee."""
    found = queries.declared_conflicts(work, row.id)
    declared = {conflict.person_id for conflict in found}
    looked_at = [row.assignee_id, work.actor.id if work.actor.is_human else None]
    for person_id in dict.fromkeys(looked_at):
        if person_id is None or person_id in declared:
            continue
        code = interest(reviewing(work, row.id, row.applicant_id, person_id))
        if code is not None:
            handle = people.load_person(work, person_id).handle
            found.append(ConflictRow(person_id, handle, INTERESTS[code][0], False, None))
    return tuple(found)

"""Announces that drafts and requests are over. Nothing waits for this: every use asks the clock.

One event for each end, however many workers sweep; at most ``BATCH`` of each in one Work.
"""

from __future__ import annotations

from sqlalchemy import select

from stagerelease.access.drafting import EDITABLE, empty
from stagerelease.access.moving import enter, note, read_back, tell
from stagerelease.access.rules import DraftState, State
from stagerelease.access.tables import AccessDraft, AccessRequest
from stagerelease.db.counting import forget_old_counts, old_counts_due
from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.jobs.outbox import emit
from stagerelease.ledger import service as ledger

BATCH = 200
_WAITING = AccessRequest.state.in_([State.SUBMITTED, State.RETURNED])
_WHY = {
    State.SUBMITTED: "Nobody could look at it in time.",
    State.RETURNED: "The question to its applicant was not answered in time.",
}


def sweep_due(work: Work) -> bool:
    """Tell whether anything is over unannounced; asks without taking a lock."""
    over = (
        select(AccessRequest.id).where(AccessRequest.expires_at <= work.now, _WAITING),
        select(AccessDraft.id).where(
            AccessDraft.state.in_(sorted(EDITABLE)), AccessDraft.expires_at <= work.now
        ),
    )
    ended = any(work.session.execute(s.limit(1)).first() is not None for s in over)
    return ended or old_counts_due(work)


def sweep_over(work: Work) -> int:
    """End drafts and requests whose time has passed, with an event each; return how many.

    What was typed into a draft is forgotten with it.
    """
    require(work.actor, Permission.ACCESS_REQUEST_DECIDE)
    forget_old_counts(work)
    requests = list(
        work.session.execute(
            select(AccessRequest)
            .where(AccessRequest.expires_at <= work.now, _WAITING)
            .order_by(AccessRequest.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True, key_share=True)
        ).scalars()
    )
    drafts = list(
        work.session.execute(
            select(AccessDraft)
            .where(AccessDraft.state.in_(sorted(EDITABLE)), AccessDraft.expires_at <= work.now)
            .order_by(AccessDraft.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True, key_share=True)
        ).scalars()
    )
    unconfirmed = [draft.id for draft in drafts if draft.state == DraftState.UNCONFIRMED]
    for draft in drafts:
        empty(draft, DraftState.EXPIRED)
    for request in requests:
        _expire(work, request)
    for draft_id in unconfirmed:  # one that was never sent is nobody's business but its author's
        _announce(work, draft_id)
    return len(requests) + len(drafts)


def _expire(work: Work, request: AccessRequest) -> None:
    before = State(request.state)
    enter(work, request, State.EXPIRED)
    row = read_back(work, request)
    tell(work, "expired", row, applicant=True, staff=True, reason=_WHY[before], was=before.value)
    note(work, request, event="expired", before=before, comment=_WHY[before])


def _announce(work: Work, draft_id: str) -> None:
    subject = f"access_draft:{draft_id}"
    emit(
        work,
        "request.expired",
        subject=subject,
        facts={"id": draft_id, "reason": "The address was never confirmed.", "was": "draft"},
    )
    ledger.append(
        work,
        type="access_request.expired",
        subject=subject,
        prev_state=State.DRAFT,
        new_state=State.EXPIRED,
        detail={"reason": "unconfirmed"},
    )

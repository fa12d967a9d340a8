"""What waits for somebody: requests to decide, to apply, to mend. A read."""

from __future__ import annotations

from dataclasses import dataclass

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.releases import queries, requests
from stagerelease.releases.requests import PromotionRow
from stagerelease.releases.rules import REVIEWABLE, State

MENDED_BY_ME = frozenset({State.DRAFT, State.CHANGES_REQUESTED})


@dataclass(frozen=True, slots=True)
class Waiting:
    """Open requests that wait for the caller, oldest first."""

    to_decide: tuple[PromotionRow, ...]
    to_apply: tuple[PromotionRow, ...]
    to_mend: tuple[PromotionRow, ...]


def waiting_for_me(work: Work) -> Waiting:
    """Return which open requests wait for the caller, as far as roles and verdicts tell.

    Whether an approval would count in the end is for the page of facts to say: authors of evidence
    are not looked up here.
    """
    require(work.actor, Permission.PROMOTION_READ)
    rows = requests.open_promotions(work)
    me, roles = work.actor.id, work.actor.roles
    reviewable = [
        row
        for row in rows
        if State(row.state) in REVIEWABLE
        and row.requester_id != me
        and roles & set(_quorum_roles(work, row))
    ]
    given = requests.approvals_given(work, [row.id for row in reviewable])
    decides = authorize(work.actor, Permission.PROMOTION_DECIDE).allowed
    applies = authorize(work.actor, Permission.PROMOTION_APPLY).allowed
    return Waiting(
        to_decide=tuple(
            row
            for row in reviewable
            if decides and all(one.person_id != me for one in given.get(row.id, ()))
        ),
        to_apply=tuple(row for row in rows if applies and row.state == State.APPROVED),
        to_mend=tuple(
            row for row in rows if row.requester_id == me and State(row.state) in MENDED_BY_ME
        ),
    )


def _quorum_roles(work: Work, row: PromotionRow) -> tuple[str, ...]:
    return queries.plan_of(work, row.plan_version_id).stage(row.to_stage).quorum.roles

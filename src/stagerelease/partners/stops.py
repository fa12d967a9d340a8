"""Whether a grantee was stopped before, so that no one person undoes that by another grant."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, func, or_, select

from stagerelease.db.work import Work
from stagerelease.partners.rules import TAKES_TWO, GrantState
from stagerelease.partners.tables import Grant, GrantEvent

_BEGAN = and_(GrantEvent.from_state == GrantState.PENDING, GrantEvent.to_state == GrantState.ACTIVE)
# What a grant was suspended for stays with it when its date passes, and goes when it is resumed.
_STOPPED = or_(
    GrantEvent.to_state == GrantState.REVOKED,
    and_(GrantEvent.to_state == GrantState.SUSPENDED, Grant.suspended_for.in_(TAKES_TWO)),
)


def stopped_before(
    work: Work, *, track_id: str, person_id: str | None, organisation_id: str | None
) -> bool:
    """Tell whether this grantee was stopped on this track and no grant of theirs began since.

    Stopped: a grant was revoked, or suspended so that two people have to resume it, which its date
    does not undo. A later grant that only waited let nobody in, and hides nothing (invariant 14).
    """
    of_grantee = _of_grantee(track_id, person_id, organisation_id)
    stop = _last(work, of_grantee, _STOPPED)
    return stop is not None and (_last(work, of_grantee, _BEGAN) or -1) < stop


def stopped_since(work: Work, grant: Grant) -> bool:
    """Tell whether a waiting grant's grantee was stopped after its last step: nobody knew then."""
    of_grantee = _of_grantee(grant.track_id, grant.person_id, grant.organisation_id)
    stop = _last(work, of_grantee, _STOPPED)
    return stop is not None and (_last(work, Grant.id == grant.id) or -1) < stop


def _of_grantee(
    track_id: str, person_id: str | None, organisation_id: str | None
) -> ColumnElement[bool]:
    theirs = (
        Grant.organisation_id == organisation_id
        if organisation_id is not None
        else Grant.person_id == person_id
    )
    return and_(Grant.track_id == track_id, theirs)


def _last(work: Work, *conditions: ColumnElement[bool]) -> int | None:
    """Return the log's index of the last event like this: several may share an instant."""
    return work.session.execute(
        select(func.max(GrantEvent.leaf_idx))
        .join(Grant, Grant.id == GrantEvent.grant_id)
        .where(*conditions)
    ).scalar_one()

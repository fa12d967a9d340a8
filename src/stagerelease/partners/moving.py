"""The one way a grant changes state, and the locks taken first.

Lock order: track, agreement version, signature, grants (by id), people and roles, then the ledger.
Every row a use case will change is locked before the first log entry is written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.actor import Actor
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Forbidden, NotFound, Stale
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.partners import queries
from stagerelease.partners.queries import EffectiveGrant, GrantRow
from stagerelease.partners.rules import (
    LIVE,
    GrantStanding,
    GrantState,
    Standing,
    Suspension,
    check_grant_move,
    is_active,
)
from stagerelease.partners.tables import Grant, GrantEvent
from stagerelease.releases import queries as releases
from stagerelease.releases.ladder import WITHDRAWN


def require_known(actor: Actor) -> None:
    """Return only if somebody is known behind ``actor``; what they may see is decided per row.

    Raises:
        Unauthenticated: nobody is.
    """
    if not actor.known:
        require(actor, Permission.GRANT_READ)


def may_see(actor: Actor, grant: GrantRow) -> bool:
    """Tell whether ``actor`` may know of a grant: staff of all, others of their own."""
    if authorize(actor, Permission.GRANT_READ).allowed:
        return True
    return actor.is_human and (
        grant.person_id == actor.id or grant.organisation_id in actor.organisations
    )


def load_for(work: Work, grant_id: str, permission: Permission | None) -> GrantRow:
    """Return a grant to somebody who may know of it and, if named, holds ``permission``.

    Raises:
        Unauthenticated: nobody is known.
        NotFound: there is none, or the caller may not know of it.
        Forbidden: they know of it and may not do this.
    """
    require_known(work.actor)
    grant = queries.find_grant(work, grant_id)
    if grant is None or not may_see(work.actor, grant):
        raise NotFound(f"There is no grant {grant_id!r}.", reason="grant.unknown")
    if permission is not None:
        require(work.actor, permission)
    return grant


def require_own_name(actor: Actor) -> None:
    """Return only if ``actor`` may declare something in their own name: no narrow token may.

    Raises:
        Forbidden: the token was made for something else.
    """
    if actor.scopes is not None and "all" not in actor.scopes:
        raise Forbidden(
            "This token was not made for acting in your name.",
            reason="token.scope",
            next_step="Use a token with the scope 'all'.",
        )


def lock_grants(
    work: Work, condition: ColumnElement[bool], *, limit: int | None = None
) -> list[Grant]:
    """Return the grants that meet ``condition``, locked in the one order."""
    rows = work.session.execute(
        select(Grant)
        .where(condition)
        .order_by(Grant.id)
        .limit(limit)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return list(rows.scalars())


def lock_grant(work: Work, grant_id: str, *, seen: int | None = None) -> Grant:
    """Return a grant that is known to exist, locked.

    Raises:
        Stale: ``seen`` is a version that the grant is no longer at.
    """
    grant = lock_grants(work, Grant.id == grant_id)[0]
    if seen is not None and grant.version != seen:
        raise Stale(
            f"The grant is at version {grant.version}, and you decided on version {seen}.",
            reason="grant.stale",
            next_step="Look at it again.",
        )
    return grant


def lock_with_renewals(
    work: Work, row: GrantRow, *, seen: int | None = None
) -> tuple[Grant, list[Grant]]:
    """Return a grant, and its grantee's other live grants on the track, all locked.

    A grantee holds several at once only where one renews another, and stopping one stops all; what
    is over by its date is stopped alone.

    Raises:
        Stale: ``seen`` is a version that the grant is no longer at.
    """
    of_grantee = (
        Grant.organisation_id == row.organisation_id
        if row.organisation_id is not None
        else Grant.person_id == row.person_id
    )
    live = Grant.state.in_(sorted(LIVE)) & (Grant.valid_until > work.now)
    condition = (Grant.id == row.id) | ((Grant.track_id == row.track_id) & of_grantee & live)
    lock_grants(work, condition)
    # A renewal issued while these were waited for is seen now; none comes after, for it locks them.
    beside = [grant for grant in lock_grants(work, condition) if grant.id != row.id]
    over = row.valid_until <= work.now
    return lock_grant(work, row.id, seen=seen), [] if over else beside


def note(
    work: Work, grant: Grant, *, event: str, before: str | None, reason: str, detail: Any = None
) -> int:
    """Log what happened to a grant, write the event its holder reads, return the leaf's index."""
    work.session.flush()  # a lost race over the row shows here, before the log is locked
    leaf = ledger.append(
        work,
        type=f"grant.{event}",
        subject=f"grant:{grant.id}",
        prev_state=before,
        new_state=grant.state,
        detail={"track": grant.track_id, "reason": reason, **(detail or {})},
    )
    event_row = GrantEvent(
        id=new_id("gev"),
        grant_id=grant.id,
        from_state=before,
        to_state=grant.state,
        reason=reason,
        actor_id=work.actor.id,
        at=work.now,
        leaf_idx=leaf,
    )
    work.session.add(event_row)
    return leaf


def move(
    work: Work,
    grant: Grant,
    to: GrantState,
    *,
    event: str,
    reason: str,
    suspended_for: Suspension | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Move a locked grant to ``to``, with its event and log entry.

    Raises:
        Conflict: the grant's state does not lead there.
    """
    check_grant_move(grant.state, to)
    before = grant.state
    grant.state = to
    if to is not GrantState.EXPIRED:  # a date lifts no decision: who comes after has to see it
        grant.suspended_for = suspended_for
    if to not in LIVE:
        grant.ended_at = work.now
    tell(work, grant, event, reason=reason)
    note(work, grant, event=event, before=before, reason=reason, detail=detail)


def tell(
    work: Work, grant: Grant, event: str, *, roles: Collection[str] = (), **facts: Any
) -> None:
    """Have the holder of a grant, or instead of them these roles, told what happened to it."""
    track = releases.load_track(work, grant.track_id)
    emit(
        work,
        f"grant.{event}",
        subject=f"grant:{grant.id}",
        people=[grant.person_id] if grant.person_id and not roles else (),
        organisations=[grant.organisation_id] if grant.organisation_id and not roles else (),
        roles=roles,
        facts={
            "grant": grant.id,
            "repo_id": track.repo_id,
            "stage": grant.audience,
            "until": iso(grant.valid_until),
            **facts,
        },
    )


def suspend_all(
    work: Work, condition: ColumnElement[bool], *, why: Suspension, reason: str
) -> list[str]:
    """Suspend every active grant that meets ``condition`` and return their ids.

    One that only waits for a new text to be signed is among them when ``why`` is anything else:
    signing lifts that and nothing more. Live grants in other states are locked too, so that one
    being resumed right now is found.
    """
    live = lock_grants(work, condition & Grant.state.in_(sorted(LIVE)))
    stopped = [grant for grant in live if grant.state == GrantState.ACTIVE]
    if why is not Suspension.RECONSENT:
        stopped += [grant for grant in live if grant.suspended_for == Suspension.RECONSENT]
    for grant in stopped:
        suspend(work, grant, why=why, reason=reason)
    return [grant.id for grant in stopped]


def suspend(
    work: Work,
    grant: Grant,
    *,
    why: Suspension,
    reason: str,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Suspend a locked grant, or give a suspended one the graver cause ``why``.

    Raises:
        Conflict: the grant's state does not lead there, or ``why`` is its cause already.
    """
    said = {"for": why.value, **(detail or {})}
    if grant.state == GrantState.SUSPENDED and grant.suspended_for != why:
        grant.suspended_for = why
        tell(work, grant, "suspended", reason=reason)
        note(work, grant, event="suspended", before=grant.state, reason=reason, detail=said)
        return
    move(
        work,
        grant,
        GrantState.SUSPENDED,
        event="suspended",
        reason=reason,
        suspended_for=why,
        detail=said,
    )


def suspend_for_terms(work: Work, *, signature_ids: Collection[str], reason: str) -> Sequence[str]:
    """Suspend every grant that rests on one of these signatures, which no longer count."""
    return suspend_all(
        work,
        Grant.signature_id.in_(sorted(signature_ids)),
        why=Suspension.TERMS,
        reason=reason,
    )


def standing_of(
    work: Work, effective: EffectiveGrant, *, state: str | None = None
) -> GrantStanding:
    """Return what a grant's worth depends on now, roster and token left aside.

    ``state`` asks about another state than the present one ("would it count if it were active?").
    """
    grant = effective.grant
    track = releases.load_track(work, grant.track_id)
    plan = releases.plan_of(work, track.plan_version_id)
    return GrantStanding(
        at=work.now,
        state=state or grant.state,
        suspended_for=grant.suspended_for,
        valid_from=grant.valid_from,
        valid_until=grant.valid_until,
        signature_state=effective.signature_state,
        signature_until=effective.signature_until,
        reconsent_until=effective.reconsent_until,
        agreement_version_state=effective.agreement_version_state,
        audience_rank=plan.rank(grant.audience) if plan.find(grant.audience) else None,
        stage_rank=-1 if track.stage == WITHDRAWN else plan.rank(track.stage),
        withdrawn=track.stage == WITHDRAWN,
    )


def standing_if_active(work: Work, grant_id: str) -> Standing:
    """Return what a grant would be worth now if it were active, as far as this Work has come.

    Raises:
        NotFound: there is none.
    """
    work.session.flush()  # the rows it rests on are read back
    effective = queries.find_effective(work, grant_id)
    if effective is None:
        raise NotFound(f"There is no grant {grant_id!r}.", reason="grant.unknown")
    return is_active(standing_of(work, effective, state=GrantState.ACTIVE))

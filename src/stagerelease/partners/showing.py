"""Use cases of those who look at grants: staff at all, holders at their own."""

from __future__ import annotations

from dataclasses import dataclass

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, authorize
from stagerelease.kernel.errors import Invalid, NotFound
from stagerelease.partners import queries
from stagerelease.partners.moving import load_for, require_known, standing_of
from stagerelease.partners.queries import AttestationRow, DeliveryRow, GrantEventRow, GrantRow
from stagerelease.partners.rules import GrantState, Standing, is_active


@dataclass(frozen=True, slots=True)
class GrantPage:
    """A grant with its history, whether it counts now, and what it left to attest."""

    grant: GrantRow
    standing: Standing
    events: tuple[GrantEventRow, ...]
    attestation: AttestationRow | None


def list_grants(
    work: Work,
    *,
    track_id: str | None = None,
    state: str | None = None,
    limit: int | None = None,
    after: str | None = None,
) -> list[GrantRow]:
    """Return grants, newest first: all to staff, to others theirs and their organisations'.

    At most ``limit``, older than the grant ``after``.

    Raises:
        Unauthenticated: nobody is known.
        Invalid: ``state`` is no state of a grant.
    """
    require_known(work.actor)
    if state is not None and state not in set(GrantState):
        raise Invalid(f"A grant is {', '.join(GrantState)}.", reason="grant.state")
    if authorize(work.actor, Permission.GRANT_READ).allowed:
        return queries.list_grants(work, track_id=track_id, state=state, limit=limit, after=after)
    return queries.list_grants(
        work,
        track_id=track_id,
        state=state,
        limit=limit,
        after=after,
        person_id=work.actor.id,
        organisation_ids=work.actor.organisations,
    )


def show_grant(work: Work, grant_id: str) -> GrantPage:
    """Return a grant with its history to staff and to those who hold it.

    Raises:
        Unauthenticated: nobody is known.
        NotFound: there is none, or the caller may not know of it.
    """
    grant = load_for(work, grant_id, None)
    effective = queries.find_effective(work, grant.id)
    if effective is None:
        raise NotFound(f"There is no grant {grant_id!r}.", reason="grant.unknown")
    return GrantPage(
        grant,
        is_active(standing_of(work, effective)),
        tuple(queries.grant_events(work, grant.id)),
        queries.find_attestation(work, grant.id),
    )


def list_deliveries(work: Work, grant_id: str) -> list[DeliveryRow]:
    """Return what was delivered under a grant, oldest first.

    Staff and the organisation's administrators see every delivery; its members their own.

    Raises:
        Unauthenticated: nobody is known.
        NotFound: there is no such grant, or the caller may not know of it.
    """
    grant = load_for(work, grant_id, None)
    rows = queries.deliveries(work, grant.id)
    actor = work.actor
    if (
        authorize(actor, Permission.GRANT_READ).allowed
        or grant.organisation_id in actor.administers
    ):
        return rows
    return [row for row in rows if row.person_id == actor.id]

"""What one grant may ask instead of what everybody may; and what was used, to those concerned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.inference import queries
from stagerelease.inference.admitting import limits_of
from stagerelease.inference.queries import LimitsRow, UseRow
from stagerelease.inference.rules import Limits, check_limits
from stagerelease.inference.tables import InferenceLimits
from stagerelease.kernel.errors import Invalid, Unauthenticated
from stagerelease.ledger import service as ledger
from stagerelease.partners import queries as partner_queries
from stagerelease.partners import service as partners

LONGEST = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class GrantLimits:
    """What a grant may ask, and its own limits if it has any."""

    grant_id: str
    limits: Limits
    own: LimitsRow | None


def show_limits(work: Work, grant_id: str, common: Limits) -> GrantLimits:
    """Return what a grant may ask, to staff and to those who hold it.

    Raises:
        NotFound: there is no such grant, or the caller may not know of it.
    """
    grant = partners.show_grant(work, grant_id).grant
    return GrantLimits(
        grant.id, limits_of(work, common, grant.id), queries.find_limits(work, grant.id)
    )


def set_limits(
    work: Work, grant_id: str, given: Mapping[str, Any], *, reason: str, common: Limits
) -> GrantLimits:
    """Give a grant limits of its own; none given takes them away again.

    What is running is not touched; what is asked next is held to them.

    Raises:
        Invalid: a limit is unknown or no whole number.
        NotFound: there is no such grant, or the caller may not know of it.
    """
    grant = partners.show_grant(work, grant_id).grant
    require(work.actor, Permission.GRANT_ISSUE)
    limits = check_limits(given)
    row = work.session.get(InferenceLimits, grant.id, with_for_update=True)
    if row is None:
        row = InferenceLimits(grant_id=grant.id)
        work.session.add(row)
    # An empty set of its own is kept: it also ends what a renewed grant would pass on.
    row.limits, row.reason, row.set_by, row.set_at = limits, reason, work.actor.id, work.now
    work.session.flush()
    ledger.append(
        work,
        type="grant.inference_limits",
        subject=f"grant:{grant.id}",
        detail={"grant": grant.id, "limits": limits, "reason": reason},
    )
    return show_limits(work, grant.id, common)


def usage(
    work: Work,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    grant_id: str | None = None,
) -> list[UseRow]:
    """Return use by day, grant and revision; the last 28 days when nothing is said.

    Those who may read usage see all of it, everybody else their own grants and requests.

    Raises:
        Unauthenticated: nobody is known.
        Invalid: an unusable window.
    """
    actor = work.actor
    if not actor.known:
        raise Unauthenticated("Usage is shown to those concerned.", reason="token.missing")
    until = until or work.now + timedelta(seconds=1)  # what began just now is in it
    since = since or until - timedelta(days=28)
    if since.tzinfo is None or until.tzinfo is None or not since < until <= since + LONGEST:
        raise Invalid(
            f"A window of usage ends after it begins, within {LONGEST.days} days, both in a zone.",
            reason="usage.window",
        )
    if authorize(actor, Permission.USAGE_READ).allowed:
        return queries.usage_by_day(work, since, until, grant_ids=[grant_id] if grant_id else None)
    mine = partner_queries.list_grants(
        work, person_id=actor.id, organisation_ids=actor.organisations
    )
    ids = {grant.id for grant in mine if grant_id in (None, grant.id)}
    return queries.usage_by_day(
        work, since, until, grant_ids=ids, person_id=actor.id if grant_id is None else None
    )

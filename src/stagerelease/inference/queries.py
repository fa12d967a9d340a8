"""Reads of use, limits and kept prompts, as frozen rows. Nothing here decides who may see them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement, String, func, literal_column, select, type_coerce

from stagerelease.db.work import Work
from stagerelease.inference.tables import InferenceLimits, InferencePrompt, InferenceRequest
from stagerelease.partners import queries as partners
from stagerelease.releases.queries import storable

MOST_RENEWALS = 20
"""How far back along renewals a grant's own limits are looked for."""


@dataclass(frozen=True, slots=True)
class UseRow:
    """What was asked of one revision under one grant (or without one) on one UTC day.

    ``cut`` requests were ended by a hold, a revocation or the like; ``persons`` counts people.
    """

    day: date
    grant_id: str | None
    track_id: str | None
    revision_id: str
    requests: int
    sequences: int
    prompt_tokens: int
    completion_tokens: int
    milliseconds: int
    cut: int
    persons: int

    @property
    def key(self) -> str:
        """Return the place of this row in the list."""
        return f"{self.day}|{self.grant_id or ''}|{self.revision_id}"


@dataclass(frozen=True, slots=True)
class GrantUse:
    """What was asked under one grant in a window of time."""

    grant_id: str
    requests: int
    sequences: int
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class LimitsRow:
    """A grant's own limits. ``grant_id`` may be of the grant that it renews."""

    grant_id: str
    limits: dict[str, int]
    reason: str
    set_by: str
    set_at: datetime


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A kept prompt, and whose request it was of."""

    request_id: str
    grant_id: str | None
    person_id: str | None
    revision_id: str
    prompt: str
    kept_at: datetime
    erase_at: datetime


def _day(work: Work) -> ColumnElement[str]:
    """Return the UTC day a request began, as ``YYYY-MM-DD``, in either database's words."""
    began: Any = InferenceRequest.started_at
    if work.is_postgres:
        # Written out: as parameters, PostgreSQL would not see that two of them are the same.
        zone: ColumnElement[str] = literal_column("'UTC'")
        form: ColumnElement[str] = literal_column("'YYYY-MM-DD'")
        return type_coerce(func.to_char(func.timezone(zone, began), form), String)
    return type_coerce(func.date(began), String)


def usage_by_day(
    work: Work,
    since: datetime,
    until: datetime,
    *,
    grant_ids: Collection[str] | None = None,
    person_id: str | None = None,
) -> list[UseRow]:
    """Return use by day, grant and revision, newest day first.

    ``grant_ids`` narrows to these grants, ``person_id`` to what one person asked with no grant;
    given together, to either.
    """
    request = InferenceRequest
    groups = (_day(work), request.grant_id, request.track_id, request.revision_id)
    statement: Any = select(
        *groups,
        func.count(),
        func.sum(request.sequences),
        func.sum(request.prompt_tokens),
        func.sum(request.completion_tokens),
        func.sum(request.milliseconds),
        func.count().filter(request.outcome == "cut"),
        func.count(request.person_id.distinct()),
    )
    statement = statement.where(request.started_at >= since, request.started_at < until)
    if grant_ids is not None:
        own: ColumnElement[bool] = request.grant_id.in_(sorted(grant_ids))
        if person_id is not None:
            own = own | (request.grant_id.is_(None) & (request.person_id == person_id))
        statement = statement.where(own)
    rows = work.session.execute(statement.group_by(*groups))
    found = [UseRow(date.fromisoformat(r[0]), r[1], r[2], r[3], *map(int, r[4:])) for r in rows]
    return sorted(found, key=lambda row: (-row.day.toordinal(), row.key))


def usage_by_grant(work: Work, since: datetime, until: datetime) -> dict[str, GrantUse]:
    """Return what was asked under each grant between two instants, by grant; for watchers above."""
    request = InferenceRequest
    rows = work.session.execute(
        select(
            request.grant_id,
            func.count(),
            func.sum(request.sequences),
            func.sum(request.prompt_tokens),
            func.sum(request.completion_tokens),
        )
        .where(
            request.grant_id.is_not(None), request.started_at >= since, request.started_at < until
        )
        .group_by(request.grant_id)
    )
    return {str(r[0]): GrantUse(str(r[0]), *map(int, r[1:])) for r in rows}


def asked_of_track(
    work: Work, track_id: str, since: datetime, until: datetime
) -> tuple[int, int, int]:
    """Return how much a track was asked between two instants: requests, tokens written, and under
    how many grants; for watchers above.
    """
    request = InferenceRequest
    row = work.session.execute(
        select(
            func.count(),
            func.coalesce(func.sum(request.completion_tokens), 0),
            func.count(request.grant_id.distinct()),
        ).where(
            request.track_id == track_id,
            request.started_at >= since,
            request.started_at < until,
            request.outcome.is_not(None),
        )
    ).one()
    return int(row[0]), int(row[1]), int(row[2])


def find_limits(work: Work, grant_id: str) -> LimitsRow | None:
    """Return a grant's own limits or those of the grant it renews, or None."""
    seen = 0
    current: str | None = grant_id
    while current is not None and seen < MOST_RENEWALS:
        row = work.session.execute(
            select(
                InferenceLimits.grant_id,
                InferenceLimits.limits,
                InferenceLimits.reason,
                InferenceLimits.set_by,
                InferenceLimits.set_at,
            ).where(InferenceLimits.grant_id == current)
        ).one_or_none()
        if row is not None:
            return LimitsRow(*row)
        grant = partners.find_grant(work, current)
        current, seen = (grant.renewed_from_id if grant is not None else None), seen + 1
    return None


def running(work: Work, holder: str) -> int:
    """Return how many sequences of a holder are under way."""
    total = work.session.execute(
        select(func.coalesce(func.sum(InferenceRequest.sequences), 0)).where(
            InferenceRequest.holder == holder,
            InferenceRequest.ended_at.is_(None),
            InferenceRequest.expires_at > work.now,
        )
    ).scalar_one()
    return int(total)


def list_prompts(
    work: Work, *, grant_id: str | None = None, limit: int, after: str | None = None
) -> list[PromptRow]:
    """Return kept prompts, newest first; ``after`` is the id of the last request seen."""
    request, kept = InferenceRequest, InferencePrompt
    statement = (
        select(
            request.id,
            request.grant_id,
            request.person_id,
            request.revision_id,
            kept.prompt,
            kept.kept_at,
            kept.erase_at,
        )
        .join(request, request.id == kept.request_id)
        .where(kept.erase_at > work.now)
        .order_by(request.id.desc())
        .limit(limit)
    )
    for name in (grant_id, after):
        if name is not None and not storable(name):
            return []
    if grant_id is not None:
        statement = statement.where(request.grant_id == grant_id)
    if after is not None:
        statement = statement.where(request.id < after)
    return [PromptRow(*row) for row in work.session.execute(statement)]

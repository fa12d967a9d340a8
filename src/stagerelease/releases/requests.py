"""Reads of promotion requests, the verdicts on them and the answers to their gates, as rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select

from stagerelease.catalog.tables import Variant
from stagerelease.db.work import Work
from stagerelease.identity.tables import Person
from stagerelease.kernel.errors import NotFound
from stagerelease.releases import queries
from stagerelease.releases.rules import OPEN, State
from stagerelease.releases.tables import Approval, Judgement, Promotion, Track


@dataclass(frozen=True, slots=True)
class PromotionRow:
    """A promotion request."""

    id: int
    track_id: str
    repo_id: str
    kind: str
    from_stage: str
    to_stage: str
    state: str
    requester_id: str
    requester: str
    rationale: str
    manifest_sha256: str
    plan_version_id: str
    evidence_ids: tuple[str, ...]
    edition: int
    request_hash: str
    scheduled_for: datetime | None
    created_at: datetime
    submitted_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    version: int


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """One reviewer's verdict; ``current`` tells whether it is on the request as it stands."""

    id: str
    person_id: str
    person: str
    roles: tuple[str, ...]
    request_hash: str
    verdict: str
    comment: str
    at: datetime
    leaf_idx: int
    current: bool


@dataclass(frozen=True, slots=True)
class JudgementRow:
    """One recorded answer to a manual gate."""

    id: str
    gate: str
    passed: bool
    person_id: str
    person: str
    request_hash: str
    reason: str
    at: datetime
    leaf_idx: int
    current: bool


_PROMOTION = (
    select(
        Promotion.id,
        Promotion.track_id,
        Variant.repo_id,
        Track.kind,
        Promotion.from_stage,
        Promotion.to_stage,
        Promotion.state,
        Promotion.requester_id,
        Person.handle.label("requester"),
        Promotion.rationale,
        Promotion.manifest_sha256,
        Promotion.plan_version_id,
        Promotion.evidence_ids,
        Promotion.edition,
        Promotion.request_hash,
        Promotion.scheduled_for,
        Promotion.created_at,
        Promotion.submitted_at,
        Promotion.expires_at,
        Promotion.ended_at,
        Promotion.end_reason,
        Promotion.version,
    )
    .join(Track, Track.id == Promotion.track_id)
    .join(Variant, Variant.id == Track.variant_id)
    .join(Person, Person.id == Promotion.requester_id)
)


def _promotions(work: Work, statement: Select[*tuple[Any, ...]]) -> list[PromotionRow]:
    rows = [dict(row._mapping) for row in work.session.execute(statement)]
    return [PromotionRow(**{**row, "evidence_ids": tuple(row["evidence_ids"])}) for row in rows]


def find_promotion(work: Work, promotion_id: int) -> PromotionRow | None:
    """Return the promotion request of that number, or None."""
    if not 0 < promotion_id <= queries.MAX_ID:
        return None
    rows = _promotions(work, _PROMOTION.where(Promotion.id == promotion_id))
    return rows[0] if rows else None


def load_promotion(work: Work, promotion_id: int) -> PromotionRow:
    """Return the promotion request of that number.

    Raises:
        NotFound: there is none.
    """
    row = find_promotion(work, promotion_id)
    if row is None:
        raise NotFound(f"There is no promotion request {promotion_id}.", reason="promotion.unknown")
    return row


def list_promotions(
    work: Work,
    *,
    track_id: str | None = None,
    state: str | None = None,
    after: int | None = None,
    limit: int | None = None,
) -> list[PromotionRow]:
    """Return promotion requests, oldest first: at most ``limit``, with numbers above ``after``.

    ``state`` may be ``open``: every one that has not ended.
    """
    statement = _PROMOTION.order_by(Promotion.id)
    if track_id is not None:
        statement = statement.where(Promotion.track_id == track_id)
    if state is not None:
        states = sorted(OPEN) if state == "open" else [state]
        statement = statement.where(Promotion.state.in_(states))
    if after is not None:
        statement = statement.where(Promotion.id > after)
    if limit is not None:
        statement = statement.limit(limit)
    return _promotions(work, statement)


def due_promotions(work: Work) -> list[tuple[int, str]]:
    """Return ``(number, track id)`` of the scheduled requests whose time has come."""
    rows = work.session.execute(
        select(Promotion.id, Promotion.track_id)
        .where(Promotion.state == State.SCHEDULED.value, Promotion.scheduled_for <= work.now)
        .order_by(Promotion.id)
    )
    return [(number, track) for number, track in rows]


_APPROVAL = select(
    Approval.id,
    Approval.person_id,
    Person.handle.label("person"),
    Approval.roles,
    Approval.request_hash,
    Approval.verdict,
    Approval.comment,
    Approval.at,
    Approval.leaf_idx,
).join(Person, Person.id == Approval.person_id)


def open_promotions(work: Work) -> list[PromotionRow]:
    """Return every request that has not ended, oldest first."""
    return _promotions(
        work, _PROMOTION.where(Promotion.state.in_(sorted(OPEN))).order_by(Promotion.id)
    )


def approvals_given(work: Work, promotion_ids: Collection[int]) -> dict[int, list[ApprovalRow]]:
    """Return the verdicts on each of these requests as they stand, in one statement."""
    found: dict[int, list[ApprovalRow]] = {}
    if not promotion_ids:
        return found
    rows = work.session.execute(
        _APPROVAL.add_columns(Approval.promotion_id)
        .join(Promotion, Promotion.id == Approval.promotion_id)
        .where(
            Approval.promotion_id.in_(promotion_ids),
            Approval.request_hash == Promotion.request_hash,
        )
        .order_by(Approval.leaf_idx)
    )
    for row in rows:
        values = dict(row._mapping)
        promotion_id = values.pop("promotion_id")
        values["roles"] = tuple(values["roles"])  # stored as a JSON list
        found.setdefault(promotion_id, []).append(ApprovalRow(**values, current=True))
    return found


def approvals_of(work: Work, promotion: PromotionRow) -> tuple[ApprovalRow, ...]:
    """Return every verdict ever given on a request, oldest first."""
    rows = work.session.execute(
        _APPROVAL.where(Approval.promotion_id == promotion.id).order_by(Approval.leaf_idx)
    )
    return tuple(
        ApprovalRow(
            **{**row._mapping, "roles": tuple(row.roles)},
            current=row.request_hash == promotion.request_hash,
        )
        for row in rows
    )


def judgements_of(work: Work, promotion: PromotionRow) -> tuple[JudgementRow, ...]:
    """Return every answer to a manual gate of a request, oldest first."""
    rows = work.session.execute(
        select(
            Judgement.id,
            Judgement.gate,
            Judgement.passed,
            Judgement.person_id,
            Person.handle,
            Judgement.request_hash,
            Judgement.reason,
            Judgement.at,
            Judgement.leaf_idx,
        )
        .join(Person, Person.id == Judgement.person_id)
        .where(Judgement.promotion_id == promotion.id)
        .order_by(Judgement.leaf_idx)
    )
    return tuple(
        JudgementRow(*row, current=row.request_hash == promotion.request_hash) for row in rows
    )

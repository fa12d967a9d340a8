"""Reads of promotion requests, and the facts a decision on one rests on, at one instant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, or_, select

from stagerelease.catalog.tables import Variant
from stagerelease.db.work import Work
from stagerelease.identity.tables import Person, RoleAssignment
from stagerelease.kernel.errors import Blocker, NotFound
from stagerelease.releases import queries
from stagerelease.releases.audience import first_grant
from stagerelease.releases.gates import (
    ApprovalFact,
    Facts,
    GateResult,
    HoldFact,
    JudgementFact,
)
from stagerelease.releases.queries import HoldRow, TrackRow
from stagerelease.releases.rules import State
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


@dataclass(frozen=True, slots=True)
class FactsPage:
    """Everything about one request: its gates, what blocks it, and who said what."""

    promotion: PromotionRow
    track: TrackRow
    gates: tuple[GateResult, ...]
    blockers: tuple[Blocker, ...]
    approvals: tuple[ApprovalRow, ...]
    judgements: tuple[JudgementRow, ...]
    holds: tuple[HoldRow, ...]

    @property
    def track_stage(self) -> str:
        """Return the stage the track is at now."""
        return self.track.stage


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
    work: Work, *, track_id: str | None = None, state: str | None = None
) -> list[PromotionRow]:
    """Return promotion requests, oldest first."""
    statement = _PROMOTION.order_by(Promotion.id)
    if track_id is not None:
        statement = statement.where(Promotion.track_id == track_id)
    if state is not None:
        statement = statement.where(Promotion.state == state)
    return _promotions(work, statement)


def due_promotions(work: Work) -> list[tuple[int, str]]:
    """Return ``(number, track id)`` of the scheduled requests whose time has come."""
    rows = work.session.execute(
        select(Promotion.id, Promotion.track_id)
        .where(Promotion.state == State.SCHEDULED.value, Promotion.scheduled_for <= work.now)
        .order_by(Promotion.id)
    )
    return [(number, track) for number, track in rows]


def approvals_of(work: Work, promotion: PromotionRow) -> tuple[ApprovalRow, ...]:
    """Return every verdict ever given on a request, oldest first."""
    rows = work.session.execute(
        select(
            Approval.id,
            Approval.person_id,
            Person.handle.label("person"),
            Approval.roles,
            Approval.request_hash,
            Approval.verdict,
            Approval.comment,
            Approval.at,
            Approval.leaf_idx,
        )
        .join(Person, Person.id == Approval.person_id)
        .where(Approval.promotion_id == promotion.id)
        .order_by(Approval.leaf_idx)
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


# --- facts ---------------------------------------------------------------------------------------


def standing(
    work: Work, person_ids: list[str], *, lock: bool = False
) -> dict[str, tuple[str, bool, bool, frozenset[str]]]:
    """Return ``(handle, human, disabled, roles at work.now)`` of people.

    ``lock`` keeps their accounts and roles as they are until this Work ends, so that a role cannot
    end between being read here and the decision that rests on it.
    """
    people = select(Person.id, Person.handle, Person.kind, Person.disabled_at).where(
        Person.id.in_(person_ids)
    )
    roles = select(RoleAssignment.person_id, RoleAssignment.role).where(
        RoleAssignment.person_id.in_(person_ids),
        RoleAssignment.starts_at <= work.now,
        or_(RoleAssignment.ends_at.is_(None), RoleAssignment.ends_at > work.now),
    )
    if lock:
        people = people.order_by(Person.id).with_for_update(read=True)
        roles = roles.order_by(RoleAssignment.id).with_for_update(read=True)
    accounts = work.session.execute(people).all()
    held: dict[str, set[str]] = {}
    for person_id, role in work.session.execute(roles):
        held.setdefault(person_id, set()).add(role)
    return {
        p.id: (
            p.handle,
            p.kind == "human",
            p.disabled_at is not None,
            frozenset(held.get(p.id, ())),
        )
        for p in accounts
    }


def _approval_facts(work: Work, promotion_id: int, *, lock: bool) -> tuple[ApprovalFact, ...]:
    given = work.session.execute(
        select(Approval.person_id, Approval.request_hash).where(
            Approval.promotion_id == promotion_id, Approval.verdict == "approve"
        )
    ).all()
    if not given:
        return ()
    who = standing(work, sorted({person for person, _ in given}), lock=lock)
    return tuple(
        ApprovalFact(
            person_id=person,
            name=who[person][0],
            request_hash=digest,
            human=who[person][1],
            disabled=who[person][2],
            roles=who[person][3],
        )
        for person, digest in given
    )


def _first_served(work: Work, track: TrackRow) -> datetime | None:
    plan = queries.plan_of(work, track.plan_version_id)
    stage = plan.find(track.stage)
    if stage is None or stage.audience in ("staff", "everyone"):
        return track.entered_at  # nobody has to be let in one by one
    return first_grant(work, track.id, stage.name)


def imagine(work: Work, track: TrackRow, to: str) -> Facts:
    """Return the facts of a request for ``to`` that nobody has opened yet.

    Raises:
        KeyError: the track's plan has no such stage.
    """
    return Facts(
        at=work.now,
        track_stage=track.stage,
        from_stage=track.stage,
        target=queries.plan_of(work, track.plan_version_id).stage(to),
        state=State.SUBMITTED.value,
        requester="",
        request_hash="",
        entered_at=track.entered_at,
        first_served_at=_first_served(work, track),
        holds=tuple(
            HoldFact(h.id, h.reason, h.laid_at, h.lifted_at)
            for h in queries.holds_over(work, track, lifted=True)
        ),
    )


def gather(work: Work, promotion_id: int, *, lock: bool = False) -> Facts:
    """Return everything a decision on this request may look at, as it is now.

    ``lock`` keeps what approvers are until this Work ends; the caller holds the rows of the track
    and the request already.
    """
    row = load_promotion(work, promotion_id)
    track = queries.load_track(work, row.track_id)
    return Facts(
        at=work.now,
        track_stage=track.stage,
        from_stage=row.from_stage,
        target=queries.plan_of(work, row.plan_version_id).stage(row.to_stage),
        state=row.state,
        requester=row.requester_id,
        request_hash=row.request_hash,
        entered_at=track.entered_at,
        first_served_at=_first_served(work, track),
        approvals=_approval_facts(work, promotion_id, lock=lock),
        judgements=tuple(
            JudgementFact(j.gate, j.request_hash, j.person_id, j.passed, j.reason)
            for j in judgements_of(work, row)
        ),
        holds=tuple(
            HoldFact(h.id, h.reason, h.laid_at, h.lifted_at)
            for h in queries.holds_over(work, track, lifted=True)
        ),
        scheduled_for=row.scheduled_for,
        expires_at=row.expires_at,
    )

"""What was decided, and on what: read from the log, where the deciding transaction wrote it.

The rule's words come from the plan, which never changes; what was measured then comes from the
entry of the decision itself, never from asking the gate again today.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stagerelease.db.work import Work
from stagerelease.evidence import queries as evidence_queries
from stagerelease.ledger import queries as ledger
from stagerelease.releases import facts
from stagerelease.releases.gates import evaluate, rules_of
from stagerelease.releases.ladder import Plan, Stage
from stagerelease.releases.queries import StageEventRow, TrackRow, plan_of
from stagerelease.reports.evidence import is_public
from stagerelease.reports.model import ApprovalLine, GateLine, Move

LOOK_BACK = 60
"""Entries before a move among which its decision is looked for: requests it superseded come in
between, and few of them are ever open at once."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Every move of a track, and the ids of all evidence that applied requests rest on."""

    moves: tuple[Move, ...]
    evidence_ids: tuple[str, ...]


def decided_moves(
    work: Work, track: TrackRow, plan: Plan, events: Sequence[StageEventRow], *, full: bool
) -> Decided:
    """Return the moves of a track, oldest first, with gates and approvals as they were decided."""
    moves, used = [], []
    for event in events:
        if event.promotion_id is None:
            moves.append(_bare(event))
            continue
        promotion = facts.load_promotion(work, event.promotion_id)
        decision = _decision(work, event)
        recorded = list(decision.get("gates", ()))
        used += [id for gate in recorded for id in gate.get("evidence", ())]
        used += promotion.evidence_ids
        target = plan.find(event.to_stage)
        moves.append(
            Move(
                from_stage=event.from_stage,
                to_stage=event.to_stage,
                at=event.at,
                reason=event.reason,
                leaf_idx=event.leaf_idx,
                promotion_id=event.promotion_id,
                rationale=promotion.rationale if full else "",
                requested_by=promotion.requester if full else "",
                approvals=_approvals(work, promotion, decision, target, full=full),
                quorum=_quorum(target),
                gates=_gates(work, track, promotion, recorded, full=full),
                waived=event.waived,
            )
        )
    return Decided(tuple(moves), tuple(dict.fromkeys(used)))


def _bare(event: StageEventRow) -> Move:
    return Move(event.from_stage, event.to_stage, event.at, event.reason, event.leaf_idx)


def _quorum(target: Stage | None) -> str:
    if target is None:
        return ""
    roles = " or ".join(role.replace("_", " ") for role in target.quorum.roles)
    return f"{target.quorum.count} by {roles}"


def _decision(work: Work, event: StageEventRow) -> Mapping[str, Any]:
    """Return what the decision's log entry says of it; nothing when that was erased."""
    start = max(event.leaf_idx - LOOK_BACK, 0)
    rows = ledger.entries(work, start=start, limit=event.leaf_idx - start)
    for row in reversed(rows):
        if row.leaf["type"] != "promotion.applied":
            continue
        if ledger.reveal(work, row.leaf["subject"]) == f"promotion:{event.promotion_id}":
            return ledger.detail(work, row.leaf["detail_sha256"]) or {}
    return {}


def _gates(
    work: Work,
    track: TrackRow,
    promotion: facts.PromotionRow,
    recorded: Sequence[Mapping[str, Any]],
    *,
    full: bool,
) -> tuple[GateLine, ...]:
    rules = rules_of(
        plan_of(work, promotion.plan_version_id).stage(promotion.to_stage),
        from_stage=promotion.from_stage,
        kind=track.kind,
        at=work.now,
        scheduled_for=promotion.scheduled_for,
    )
    ids = {id for gate in recorded for id in gate.get("evidence", ())}
    known = {fact.id for fact in evidence_queries.facts_of(work, ids) if full or is_public(fact)}
    return tuple(_gate(gate, rules, known) for gate in recorded)


def _gate(gate: Mapping[str, Any], rules: Mapping[str, str], known: Collection[str]) -> GateLine:
    used = tuple(gate.get("evidence", ()))
    withheld = sum(1 for id in used if id not in known)
    return GateLine(
        key=gate["key"],
        kind=gate["kind"],
        rule=rules.get(gate["key"], ""),
        # A figure measured on evidence that is not public would give that evidence away.
        measured="not public" if withheld else gate["measured"],
        threshold=gate["threshold"],
        outcome=gate["outcome"],
        evidence=tuple(id for id in used if id in known),
        withheld=withheld,
    )


def _approvals(
    work: Work,
    promotion: facts.PromotionRow,
    decision: Mapping[str, Any],
    target: Stage | None,
    *,
    full: bool,
) -> tuple[ApprovalLine, ...]:
    """Return the approvals that counted when the decision was taken."""
    counted = set(decision.get("approved_by", ()))
    roles = set(target.quorum.roles) if target else set()
    lines = []
    for row in facts.approvals_of(work, promotion):
        held = sorted(roles & set(row.roles)) or sorted(row.roles)
        if row.verdict != "approve" or not row.current or row.person_id not in counted:
            continue
        lines.append(
            ApprovalLine(
                role=" or ".join(role.replace("_", " ") for role in held),
                at=row.at,
                leaf_idx=row.leaf_idx,
                name=row.person if full else "",
                comment=row.comment if full else "",
            )
        )
    return tuple(lines)


def gates_ahead(work: Work, track: TrackRow, target: Stage) -> tuple[GateLine, ...]:
    """Return how the gates into the next stage stand now, were a request opened with all evidence.

    For staff: what is open is not the public's.
    """
    return tuple(
        GateLine(
            key=result.key,
            kind=result.kind,
            rule=result.rule,
            measured=result.measured,
            threshold=result.threshold,
            outcome=result.verdict,
            evidence=tuple(use.id for use in result.evidence if use.counted),
        )
        for result in evaluate(facts.imagine(work, track, target.name))
    )

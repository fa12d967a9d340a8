"""Promotion requests over JSON: open, review, decide, apply."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from stagerelease.http.api.holds import HoldOut
from stagerelease.http.api.waivers import WaiverOut
from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, Out, Paging, keyset
from stagerelease.releases import service
from stagerelease.releases.queries import MAX_ID
from stagerelease.releases.rules import MAX_EVIDENCE

router = APIRouter(prefix="/api/v1/promotions", tags=["promotions"])
PromotionId = Annotated[int, Path(ge=1, le=MAX_ID)]
RequestHash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Words = Annotated[str, Field(min_length=1, max_length=4000)]


EvidenceIds = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=MAX_EVIDENCE)
]


class PromotionIn(In):
    """A request to move a track one stage up. ``draft`` keeps it from being submitted.

    ``evidence_ids`` is what it rests on; all accepted evidence about the track when left out.
    """

    track_id: Annotated[str, Field(min_length=1, max_length=64)]
    to: Annotated[str, Field(min_length=1, max_length=32)]
    rationale: Words
    scheduled_for: Instant | None = None
    evidence_ids: EvidenceIds | None = None
    draft: bool = False


class EditIn(In):
    """What to change in a request. ``request_hash`` is the one that was looked at."""

    request_hash: RequestHash
    rationale: Words | None = None
    scheduled_for: Instant | None = None
    unschedule: bool = False
    evidence_ids: EvidenceIds | None = None


class ApproveIn(In):
    """An approval of exactly the request with this hash."""

    request_hash: RequestHash
    comment: Annotated[str, Field(max_length=4000)] = ""


class ReasonedIn(In):
    """A rejection, or a wish for changes, with its reasons."""

    request_hash: RequestHash
    comment: Words


class JudgeIn(In):
    """An answer to a manual or an inconclusive gate."""

    request_hash: RequestHash
    gate: Annotated[str, Field(min_length=1, max_length=64)]
    passed: bool
    reason: Words


class CancelIn(In):
    """Why a request is cancelled."""

    reason: Annotated[str, Field(max_length=4000)] = ""


class PromotionOut(Out):
    """A promotion request."""

    id: int
    track_id: str
    repo_id: str
    kind: str
    from_stage: str
    to_stage: str
    state: str
    requester: str
    rationale: str
    manifest_sha256: str
    plan_version_id: str
    evidence_ids: list[str]
    request_hash: str
    scheduled_for: Instant | None
    created_at: Instant
    submitted_at: Instant | None
    expires_at: Instant | None
    ended_at: Instant | None
    end_reason: str | None
    version: int


class EvidenceUseOut(Out):
    """A piece of evidence a gate looked at: how old it is, and whether it counted."""

    id: str
    title: str
    metric: str
    value: float
    unit: str
    verdict: str | None
    fact_status: str
    measured_at: Instant
    valid_until: Instant | None
    age: str
    counted: bool
    why: str


class SignerOut(Out):
    """A signer of a waiver, as they stand now."""

    name: str
    entitled: bool


class GateWaiverOut(Out):
    """The waiver that lets a gate through."""

    id: str
    reason: str
    since: Instant
    until: Instant
    signers: list[SignerOut]


class GateOut(Out):
    """A gate's answer: passed, waived, failed, inconclusive, error or pending, and why.

    ``verdict`` is the word to show: ``stale`` where only age is wrong. ``found`` is what the gate
    said before any judgement or waiver; ``due`` is when time alone passes it, where that is known.
    """

    key: str
    kind: str
    rule: str
    measured: str
    threshold: str
    outcome: str
    verdict: str
    found: str | None
    stale: bool
    waivable: bool
    due: Instant | None
    sentence: str
    evidence: list[EvidenceUseOut]
    waiver: GateWaiverOut | None


class BlockerOut(Out):
    """One reason why a request cannot be applied now."""

    code: str
    sentence: str


class ApprovalOut(Out):
    """A reviewer's verdict; ``current`` when it is on the request as it stands."""

    person: str
    roles: list[str]
    verdict: str
    comment: str
    request_hash: str
    at: Instant
    leaf_idx: int
    current: bool


class JudgementOut(Out):
    """A recorded answer to a manual or an inconclusive gate."""

    gate: str
    passed: bool
    person: str
    reason: str
    request_hash: str
    at: Instant
    leaf_idx: int
    current: bool


class NamedEvidenceOut(Out):
    """Evidence about the track; ``named`` when the request rests on it."""

    id: str
    type: str
    title: str
    metric: str
    value: float
    unit: str
    verdict: str | None
    fact_status: str
    state: str
    measured_at: Instant
    valid_until: Instant | None
    age: str
    named: bool
    counts: bool
    why: str


class DeciderOut(Out):
    """Somebody who holds a role of the quorum: whether they may still approve, and why.

    `since` is when they were given the latest of these roles, and `given_by` who gave it; null
    where it was given on the host.
    """

    person: str
    roles: list[str]
    since: Instant
    given_by: str | None
    may: bool
    why: str


class PromotionPageOut(Out):
    """A request with every gate, everything that blocks it, and who said and may say what."""

    promotion: PromotionOut
    track_stage: str
    gates: list[GateOut]
    blockers: list[BlockerOut]
    approvals: list[ApprovalOut]
    judgements: list[JudgementOut]
    holds: list[HoldOut]
    waivers: list[WaiverOut]
    evidence: list[NamedEvidenceOut]
    deciders: list[DeciderOut]


def _number(after: str | None) -> int | None:
    """Return the number of the last request seen; what is no number comes after everything."""
    if after is None:
        return None
    return int(after) if after.isascii() and after.isdigit() and len(after) <= 10 else MAX_ID


@router.get("")
def list_promotions(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    track_id: Annotated[str | None, Query(max_length=64)] = None,
    state: Annotated[str | None, Query(max_length=24)] = None,
) -> list[PromotionOut]:
    """List promotion requests, oldest first; ``state`` may be ``open``."""
    with begin(read_only=True) as work:
        rows = service.list_promotions(
            work,
            track_id=track_id,
            state=state,
            after=_number(page.after),
            limit=page.limit + 1,
        )
    part = keyset(request, response, rows, page, lambda row: row.id)
    return [PromotionOut.model_validate(row) for row in part]


@router.post("", status_code=201)
def open_promotion(body: PromotionIn, begin: Begin, dry_run: bool = False) -> PromotionOut:
    """Open a request and submit it."""
    with begin(dry_run=dry_run) as work:
        row = service.open_promotion(
            work,
            track_id=body.track_id,
            to=body.to,
            rationale=body.rationale,
            scheduled_for=body.scheduled_for,
            evidence_ids=body.evidence_ids,
            draft=body.draft,
        )
        return PromotionOut.model_validate(row)


@router.get("/{promotion_id}")
def show_promotion(promotion_id: PromotionId, begin: Begin) -> PromotionPageOut:
    """Show a request with every gate and what blocks it now."""
    with begin(read_only=True) as work:
        return PromotionPageOut.model_validate(service.facts_page(work, promotion_id))


@router.post("/{promotion_id}/approve")
def approve(
    promotion_id: PromotionId, body: ApproveIn, begin: Begin, dry_run: bool = False
) -> PromotionOut:
    """Approve the request you saw. 412 when it was edited since."""
    with begin(dry_run=dry_run) as work:
        row = service.approve(
            work, promotion_id, request_hash=body.request_hash, comment=body.comment
        )
        return PromotionOut.model_validate(row)


@router.post("/{promotion_id}/reject")
def reject(
    promotion_id: PromotionId, body: ReasonedIn, begin: Begin, dry_run: bool = False
) -> PromotionOut:
    """End the request you saw, with reasons."""
    with begin(dry_run=dry_run) as work:
        row = service.reject(
            work, promotion_id, request_hash=body.request_hash, comment=body.comment
        )
        return PromotionOut.model_validate(row)


@router.post("/{promotion_id}/request-changes")
def request_changes(
    promotion_id: PromotionId, body: ReasonedIn, begin: Begin, dry_run: bool = False
) -> PromotionOut:
    """Send the request you saw back to its requester."""
    with begin(dry_run=dry_run) as work:
        row = service.request_changes(
            work, promotion_id, request_hash=body.request_hash, comment=body.comment
        )
        return PromotionOut.model_validate(row)


@router.post("/{promotion_id}/judge")
def judge(
    promotion_id: PromotionId, body: JudgeIn, begin: Begin, dry_run: bool = False
) -> PromotionOut:
    """Answer a manual or an inconclusive gate of the request you saw, once."""
    with begin(dry_run=dry_run) as work:
        row = service.judge(
            work,
            promotion_id,
            gate=body.gate,
            passed=body.passed,
            reason=body.reason,
            request_hash=body.request_hash,
        )
        return PromotionOut.model_validate(row)


@router.post("/{promotion_id}/edit")
def edit(
    promotion_id: PromotionId, body: EditIn, begin: Begin, dry_run: bool = False
) -> PromotionOut:
    """Change your request; it becomes a draft, and approvals of it are void."""
    with begin(dry_run=dry_run) as work:
        row = service.edit_promotion(
            work,
            promotion_id,
            rationale=body.rationale,
            scheduled_for=body.scheduled_for,
            unschedule=body.unschedule,
            evidence_ids=body.evidence_ids,
            request_hash=body.request_hash,
        )
        return PromotionOut.model_validate(row)


@router.post("/{promotion_id}/resubmit")
def resubmit(promotion_id: PromotionId, begin: Begin, dry_run: bool = False) -> PromotionOut:
    """Submit your draft."""
    with begin(dry_run=dry_run) as work:
        return PromotionOut.model_validate(service.resubmit(work, promotion_id))


@router.post("/{promotion_id}/cancel")
def cancel(
    promotion_id: PromotionId, body: CancelIn, begin: Begin, dry_run: bool = False
) -> PromotionOut:
    """End an unapplied request."""
    with begin(dry_run=dry_run) as work:
        return PromotionOut.model_validate(service.cancel(work, promotion_id, reason=body.reason))


@router.post("/{promotion_id}/apply")
def apply(promotion_id: PromotionId, begin: Begin, dry_run: bool = False) -> PromotionOut:
    """Apply the request. 409 lists every blocker; ``dry_run`` tells without doing it."""
    with begin(dry_run=dry_run) as work:
        return PromotionOut.model_validate(service.apply(work, promotion_id))

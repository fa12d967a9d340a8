"""Release plans over JSON: versions, proposals and consents, lint, differences, simulation."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, StringConstraints

from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, InstantIn, Out, Paging, paged
from stagerelease.releases import service
from stagerelease.releases.queries import MAX_ID, PlanRow

router = APIRouter(prefix="/api/v1/plans", tags=["plans"])
Slug = Annotated[str, Path(max_length=64)]


class PlanIn(In):
    """A plan as YAML text (JSON is YAML)."""

    # Not trimmed, unlike other texts: the digest on record is that of the file as it was sent.
    source: Annotated[
        str, StringConstraints(strip_whitespace=False, min_length=1, max_length=65_536)
    ]


class PlanOut(Out):
    """A version of a plan, as applied."""

    id: str
    slug: str
    version: int
    sha256: str
    created_by: str
    created_at: Instant
    leaf_idx: int


class PlanPageOut(PlanOut):
    """A version of a plan with its source, and the document that was read from it."""

    source: str
    document: dict[str, Any]


class ProposalIn(PlanIn):
    """A plan to propose, and why."""

    rationale: Annotated[str, Field(min_length=1, max_length=4000)]


class ConsentIn(In):
    """Consent to the source whose SHA-256 this is."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    comment: Annotated[str, Field(max_length=4000)] = ""


class CancelIn(In):
    """Why a proposal ends."""

    reason: Annotated[str, Field(min_length=1, max_length=4000)]


class ChangeOut(Out):
    """One difference between two plans: ``effect`` is loosens, tightens, neutral or unclear."""

    where: str
    before: Any
    after: Any
    effect: str
    sentence: str


class ConsentOut(Out):
    """One person's consent."""

    person_id: str
    person: str
    comment: str
    at: Instant
    leaf_idx: int


class ProposalOut(Out):
    """A proposed plan; ``missing`` more people have to consent."""

    id: int
    slug: str
    base_version: int | None
    sha256: str
    source: str
    rationale: str
    proposed_by: str
    state: str
    created_at: Instant
    expires_at: Instant
    ended_at: Instant | None
    plan_version_id: str | None
    leaf_idx: int
    changes: list[ChangeOut]
    consents: list[ConsentOut]
    missing: int


class FindingOut(Out):
    """Something to say of a line of a plan; an error stops it from being used."""

    line: int
    field: str
    severity: str
    sentence: str


class SimulateIn(In):
    """A move to try: ``at`` a date (now when left out), under another plan when one is given."""

    to: Annotated[str, Field(min_length=1, max_length=32)]
    at: InstantIn | None = None
    source: Annotated[str, StringConstraints(max_length=65_536, strip_whitespace=False)] | None = (
        None
    )


class SimulatedGateOut(Out):
    """One gate as it would stand."""

    key: str
    kind: str
    rule: str
    measured: str
    threshold: str
    outcome: str
    sentence: str


class SimulationOut(Out):
    """What would be met ``at``; ``first_at`` supposes that the gates ``asked`` of people pass."""

    track_id: str
    to: str
    at: Instant
    gates: list[SimulatedGateOut]
    first_at: Instant | None
    asked: list[str]
    never: list[str]


def _key(row: PlanRow) -> str:
    return f"{row.slug}:{row.version}"


@router.get("")
def list_plans(request: Request, response: Response, begin: Begin, page: Paging) -> list[PlanOut]:
    """List every version of every plan, newest first within a plan."""
    with begin(read_only=True) as work:
        rows = service.list_plans(work)
    return [PlanOut.model_validate(row) for row in paged(request, response, rows, page, _key)]


@router.post("", status_code=201)
def propose_plan(body: ProposalIn, begin: Begin, dry_run: bool = False) -> ProposalOut:
    """Propose a source as the next version of its plan; a second person's consent makes it so."""
    with begin(dry_run=dry_run) as work:
        row = service.propose_plan(work, body.source, rationale=body.rationale)
        return ProposalOut.model_validate(row)


@router.post("/lint")
def lint_plan(body: PlanIn, begin: Begin) -> list[FindingOut]:
    """Say everything there is to say of a source, by line; an empty list means it is good."""
    with begin(read_only=True) as work:
        return [FindingOut.model_validate(f) for f in service.lint(work, body.source)]


@router.get(
    "/schema.json",
    response_class=Response,
    responses={200: {"content": {"application/schema+json": {"schema": {"type": "object"}}}}},
)
def plan_schema() -> Response:
    """Return the JSON Schema of plans: ``# yaml-language-server: $schema=<this URL>``."""
    return Response(service.shipped_schema(), media_type="application/schema+json")


@router.get("/{slug}")
def show_plan(
    slug: Slug,
    begin: Begin,
    version: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
) -> PlanPageOut:
    """Show a version of a plan, the newest unless one is asked for."""
    with begin(read_only=True) as work:
        return PlanPageOut.model_validate(service.show_plan(work, slug, version))


@router.get("/{slug}/diff")
def diff_plan(
    slug: Slug,
    begin: Begin,
    a: Annotated[int, Query(ge=1, le=MAX_ID)],
    b: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
) -> list[ChangeOut]:
    """Say what changes from version ``a`` to version ``b`` (the newest when left out)."""
    with begin(read_only=True) as work:
        return [ChangeOut.model_validate(c) for c in service.diff_versions(work, slug, a, b)]


proposals = APIRouter(prefix="/api/v1/plan-proposals", tags=["plans"])
ProposalId = Annotated[int, Path(ge=1, le=MAX_ID)]


@proposals.get("")
def list_proposals(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    state: Annotated[str | None, Query(max_length=16)] = None,
) -> list[ProposalOut]:
    """List proposals, newest first."""
    with begin(read_only=True) as work:
        rows = service.list_proposals(work, state=state)
    part = paged(request, response, rows, page, lambda row: row.id)
    return [ProposalOut.model_validate(row) for row in part]


@proposals.get("/{proposal_id}")
def show_proposal(proposal_id: ProposalId, begin: Begin) -> ProposalOut:
    """Show a proposal, what it changes and who stands behind it."""
    with begin(read_only=True) as work:
        return ProposalOut.model_validate(service.show_proposal(work, proposal_id))


@proposals.post("/{proposal_id}/consent")
def consent_to_plan(
    proposal_id: ProposalId, body: ConsentIn, begin: Begin, dry_run: bool = False
) -> ProposalOut:
    """Consent to a proposed source; enough people behind it make it the next version at once."""
    with begin(dry_run=dry_run) as work:
        row = service.consent_to_plan(work, proposal_id, sha256=body.sha256, comment=body.comment)
        return ProposalOut.model_validate(row)


@proposals.post("/{proposal_id}/cancel")
def cancel_proposal(
    proposal_id: ProposalId, body: CancelIn, begin: Begin, dry_run: bool = False
) -> ProposalOut:
    """End a pending proposal."""
    with begin(dry_run=dry_run) as work:
        return ProposalOut.model_validate(
            service.cancel_proposal(work, proposal_id, reason=body.reason)
        )


simulations = APIRouter(prefix="/api/v1/tracks", tags=["plans"])


@simulations.post("/{track_id}/simulate")
def simulate(
    track_id: Annotated[str, Path(max_length=64)], body: SimulateIn, begin: Begin
) -> SimulationOut:
    """Say what a move of this track would meet at a date, and when it could first go through."""
    with begin(read_only=True) as work:
        row = service.simulate(work, track_id, body.to, at=body.at, source=body.source)
        return SimulationOut.model_validate(row)

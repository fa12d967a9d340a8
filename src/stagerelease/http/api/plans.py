"""Release plans over JSON: list and show versions, apply a source, check one without applying."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import StringConstraints

from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, Out, Paging, paged
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


def _key(row: PlanRow) -> str:
    return f"{row.slug}:{row.version}"


@router.get("")
def list_plans(request: Request, response: Response, begin: Begin, page: Paging) -> list[PlanOut]:
    """List every version of every plan, newest first within a plan."""
    with begin(read_only=True) as work:
        rows = service.list_plans(work)
    return [PlanOut.model_validate(row) for row in paged(request, response, rows, page, _key)]


@router.get("/{slug}")
def show_plan(
    slug: Slug,
    begin: Begin,
    version: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None,
) -> PlanPageOut:
    """Show a version of a plan, the newest unless one is asked for."""
    with begin(read_only=True) as work:
        return PlanPageOut.model_validate(service.show_plan(work, slug, version))


@router.post("", status_code=201)
def apply_plan(body: PlanIn, begin: Begin, dry_run: bool = False) -> PlanOut:
    """Apply a source as the next version of the plan it names. ``dry_run`` only checks it."""
    with begin(dry_run=dry_run) as work:
        return PlanOut.model_validate(service.apply_plan(work, body.source))

"""Holds over JSON: one person lays one, two lift it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field

from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, Out, Paging, paged
from stagerelease.releases import service
from stagerelease.releases.queries import MAX_ID

router = APIRouter(prefix="/api/v1/holds", tags=["holds"])
HoldId = Annotated[int, Path(ge=1, le=MAX_ID)]


class HoldIn(In):
    """A hold to lay. ``public_reason`` is what refused callers read."""

    scope: Literal["track", "family", "everything"]
    scope_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    reason: Annotated[str, Field(min_length=1, max_length=4000)]
    public_reason: Annotated[str, Field(max_length=500)] = ""


class LiftIn(In):
    """One person's consent to lift a hold."""

    reason: Annotated[str, Field(min_length=1, max_length=4000)]


class HoldOut(Out):
    """A hold; it is active while ``lifted_at`` is null."""

    id: int
    scope: str
    scope_id: str | None
    reason: str
    public_reason: str
    laid_by: str
    laid_at: Instant
    lifted_at: Instant | None
    leaf_idx: int


class ConsentOut(Out):
    """A consent to lift a hold."""

    person_id: str
    reason: str
    at: Instant
    leaf_idx: int


class HoldPageOut(HoldOut):
    """A hold with the consents to lift it."""

    consents: list[ConsentOut]


@router.get("")
def list_holds(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    active: bool | None = None,
) -> list[HoldOut]:
    """List holds, oldest first: active, lifted, or all."""
    with begin(read_only=True) as work:
        rows = service.list_holds(work, active=active)
    part = paged(request, response, rows, page, lambda row: row.id)
    return [HoldOut.model_validate(row) for row in part]


@router.get("/{hold_id}")
def show_hold(hold_id: HoldId, begin: Begin) -> HoldPageOut:
    """Show a hold and who consents to lift it."""
    with begin(read_only=True) as work:
        return HoldPageOut.model_validate(service.show_hold(work, hold_id))


@router.post("", status_code=201)
def lay_hold(body: HoldIn, begin: Begin, dry_run: bool = False) -> HoldOut:
    """Lay a hold: nothing it covers is promoted or delivered from now on."""
    with begin(dry_run=dry_run) as work:
        row = service.lay_hold(
            work,
            scope=body.scope,
            scope_id=body.scope_id,
            reason=body.reason,
            public_reason=body.public_reason,
        )
        return HoldOut.model_validate(row)


@router.post("/{hold_id}/lift")
def lift_hold(hold_id: HoldId, body: LiftIn, begin: Begin, dry_run: bool = False) -> HoldOut:
    """Consent to lift a hold; the second person's consent lifts it."""
    with begin(dry_run=dry_run) as work:
        return HoldOut.model_validate(service.lift_hold(work, hold_id, reason=body.reason))

"""Use of models over JSON: what was used, what a grant may ask, and kept prompts."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, InstantIn, Out, Paging, keyset, paged
from stagerelease.inference import service

router = APIRouter(prefix="/api/v1", tags=["inference"])

Id = Annotated[str, Path(max_length=64)]
Limit = Annotated[int, Field(ge=1, le=10**12)]


class UseOut(Out):
    """What was asked of one revision under one grant (or without one) on one UTC day."""

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


class LimitsIn(In):
    """Limits of a grant's own; what is left out is as for everybody."""

    reason: Annotated[str, Field(min_length=1, max_length=1000)]
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    tokens_per_day: Limit | None = None
    sequences: Limit | None = None
    max_tokens: Limit | None = None


class LimitsOut(Out):
    """What may be asked."""

    requests_per_minute: int
    tokens_per_minute: int
    tokens_per_day: int
    sequences: int
    max_tokens: int


class OwnLimitsOut(Out):
    """Limits of a grant's own, who set them, and why; perhaps on the grant that this one renews."""

    grant_id: str
    limits: dict[str, int]
    reason: str
    set_by: str
    set_at: Instant


class GrantLimitsOut(Out):
    """What a grant may ask of models."""

    grant_id: str
    limits: LimitsOut
    own: OwnLimitsOut | None


class PromptsIn(In):
    """Why kept prompts are read; it goes on record."""

    reason: Annotated[str, Field(min_length=1, max_length=1000)]
    grant_id: Annotated[str, Field(max_length=64)] | None = None


class PromptOut(Out):
    """A kept prompt."""

    request_id: str
    grant_id: str | None
    person_id: str | None
    revision_id: str
    prompt: str
    kept_at: Instant
    erase_at: Instant


@router.get("/inference/usage")
def list_usage(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    since: InstantIn | None = None,
    until: InstantIn | None = None,
    grant: Annotated[str | None, Query(max_length=64)] = None,
) -> list[UseOut]:
    """List use by day, grant and revision: one's own, to those who watch all."""
    with begin(read_only=True) as work:
        rows = service.usage(work, since=since, until=until, grant_id=grant)
    part = paged(request, response, rows, page, lambda row: row.key)
    return [UseOut.model_validate(row) for row in part]


@router.get("/grants/{grant_id}/inference-limits")
def show_limits(request: Request, grant_id: Id, begin: Begin) -> GrantLimitsOut:
    """Show what a grant may ask of models."""
    common = service.house_of(request.app.state.settings).limits
    with begin(read_only=True) as work:
        return GrantLimitsOut.model_validate(service.show_limits(work, grant_id, common))


@router.put("/grants/{grant_id}/inference-limits")
def set_limits(request: Request, grant_id: Id, body: LimitsIn, begin: Begin) -> GrantLimitsOut:
    """Give a grant limits of its own; none given takes them away again."""
    common = service.house_of(request.app.state.settings).limits
    given = body.model_dump(exclude={"reason"}, exclude_none=True)
    with begin(quiet=True) as work:
        row = service.set_limits(work, grant_id, given, reason=body.reason, common=common)
        return GrantLimitsOut.model_validate(row)


@router.post("/inference/prompts")
def read_prompts(
    request: Request, response: Response, body: PromptsIn, begin: Begin, page: Paging
) -> list[PromptOut]:
    """Read kept prompts, newest first. That they were read, by whom and why, is on record."""
    with begin(quiet=True) as work:
        rows = service.read_prompts(
            work,
            reason=body.reason,
            grant_id=body.grant_id,
            limit=page.limit + 1,
            after=page.after,
        )
    part = keyset(request, response, rows, page, lambda row: row.request_id)
    return [PromptOut.model_validate(row) for row in part]

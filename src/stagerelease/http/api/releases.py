"""Tracks and the board over JSON. Promotion requests are in the module beside this one."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from stagerelease.entitlements import service as entitlements
from stagerelease.http.api.holds import HoldOut
from stagerelease.http.api.promotions import GateOut, PromotionOut
from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, Out, Paging, paged
from stagerelease.releases import service

router = APIRouter(tags=["releases"])
TrackId = Annotated[str, Path(max_length=64)]


class TrackIn(In):
    """A track to start. ``revision`` is a branch, tag or commit; ``main`` when left out."""

    repo_id: Annotated[str, Field(min_length=1, max_length=140)]
    kind: Annotated[str, Field(max_length=32)] = "weights"
    revision: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    plan: Annotated[str, Field(min_length=1, max_length=64)] = "default"


class WithdrawIn(In):
    """Why a release is withdrawn."""

    reason: Annotated[str, Field(min_length=1, max_length=4000)]


class TrackOut(Out):
    """What is promoted, and the stage it is at."""

    id: str
    repo_id: str
    family_id: str
    kind: str
    revision_id: str
    plan_version_id: str
    stage: str
    entered_at: Instant
    created_at: Instant
    version: int


class StageEventOut(Out):
    """A move of a track, as applied."""

    from_stage: str | None
    to_stage: str
    at: Instant
    promotion_id: int | None
    reason: str
    leaf_idx: int
    waived: list[dict[str, str]]


class TrackPageOut(Out):
    """A track with its history, the holds over it and the requests about it."""

    track: TrackOut
    events: list[StageEventOut]
    holds: list[HoldOut]
    promotions: list[PromotionOut]


class CellOut(Out):
    """A track at a stage, as a mark and words."""

    stage: str
    mark: str
    words: str
    since: Instant | None
    promotion_id: int | None


class BoardRowOut(Out):
    """One track across the stages."""

    track_id: str
    repo_id: str
    kind: str
    revision_id: str
    stage: str
    held: bool
    cells: list[CellOut]


class BoardOut(Out):
    """Every track against every stage."""

    stages: list[str]
    rows: list[BoardRowOut]


@router.get("/api/v1/tracks")
def list_tracks(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    stage: Annotated[str | None, Query(max_length=32)] = None,
) -> list[TrackOut]:
    """List tracks, by variant."""
    with begin(read_only=True) as work:
        rows = service.list_tracks(work, stage=stage)
    part = paged(request, response, rows, page, lambda row: row.id)
    return [TrackOut.model_validate(row) for row in part]


@router.post("/api/v1/tracks", status_code=201)
def create_track(body: TrackIn, begin: Begin, dry_run: bool = False) -> TrackOut:
    """Start a track at the lowest stage of its plan."""
    with begin(dry_run=dry_run) as work:
        row = service.create_track(
            work, repo_id=body.repo_id, kind=body.kind, revision=body.revision, plan=body.plan
        )
        return TrackOut.model_validate(row)


@router.get("/api/v1/tracks/{track_id}")
def show_track(track_id: TrackId, begin: Begin) -> TrackPageOut:
    """Show a track with its history and holds."""
    with begin(read_only=True) as work:
        return TrackPageOut.model_validate(service.show_track(work, track_id))


@router.get("/api/v1/tracks/{track_id}/gates")
def what_blocks(
    track_id: TrackId, to: Annotated[str, Query(max_length=32)], begin: Begin
) -> list[GateOut]:
    """Show every gate that a request of ``to`` would meet now."""
    with begin(read_only=True) as work:
        rows = service.what_blocks(work, track_id, to)
        return [GateOut.model_validate(row) for row in rows]


@router.post("/api/v1/tracks/{track_id}/withdraw")
def withdraw(
    track_id: TrackId, body: WithdrawIn, begin: Begin, dry_run: bool = False
) -> TrackPageOut:
    """Withdraw a release: its grants are suspended and nothing more is delivered."""
    with begin(dry_run=dry_run) as work:
        entitlements.withdraw(work, track_id, reason=body.reason)
        return TrackPageOut.model_validate(service.show_track(work, track_id))


@router.get("/api/v1/board")
def board(begin: Begin) -> BoardOut:
    """Show every track against every stage."""
    with begin(read_only=True) as work:
        return BoardOut.model_validate(service.board(work))

"""Waivers over JSON: two people let a gate pass until a date; ended ones stay on show."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, Out, Paging, keyset
from stagerelease.releases import service

router = APIRouter(prefix="/api/v1/waivers", tags=["waivers"])
WaiverId = Annotated[str, Path(max_length=64)]
Words = Annotated[str, Field(min_length=1, max_length=4000)]


class WaiverIn(In):
    """A waiver of one gate into one stage of a track. Everyone may read ``reason`` for ever."""

    track_id: Annotated[str, Field(min_length=1, max_length=64)]
    stage: Annotated[str, Field(min_length=1, max_length=32)]
    gate: Annotated[str, Field(min_length=1, max_length=64)]
    reason: Words
    ends_at: Instant


class EndIn(In):
    """Why a waiver ends before its time."""

    reason: Words


class WaiverSignatureOut(Out):
    """One person's signature under a waiver."""

    person: str
    roles: list[str]
    at: Instant
    leaf_idx: int


class WaiverOut(Out):
    """A waiver: ``pending`` until two signed it, then ``in_force``, then ``ended``."""

    id: str
    track_id: str
    stage: str
    gate: str
    reason: str
    state: str
    created_at: Instant
    signed_at: Instant | None
    ends_at: Instant
    ended_at: Instant | None
    end_reason: str | None
    version: int
    leaf_idx: int
    signatures: list[WaiverSignatureOut]


@router.get("")
def list_waivers(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    track_id: Annotated[str | None, Query(max_length=64)] = None,
) -> list[WaiverOut]:
    """List waivers, oldest first; ended ones too."""
    with begin(read_only=True) as work:
        rows = service.list_waivers(work, track_id=track_id, after=page.after, limit=page.limit + 1)
    part = keyset(request, response, rows, page, lambda row: row.id)
    return [WaiverOut.model_validate(row) for row in part]


@router.post("", status_code=201)
def propose_waiver(body: WaiverIn, begin: Begin, dry_run: bool = False) -> WaiverOut:
    """Write a waiver and sign it as the first of two."""
    with begin(dry_run=dry_run) as work:
        row = service.propose_waiver(
            work,
            track_id=body.track_id,
            stage=body.stage,
            gate=body.gate,
            reason=body.reason,
            ends_at=body.ends_at,
        )
        return WaiverOut.model_validate(row)


@router.get("/{waiver_id}")
def show_waiver(waiver_id: WaiverId, begin: Begin) -> WaiverOut:
    """Show a waiver and who signed it."""
    with begin(read_only=True) as work:
        return WaiverOut.model_validate(service.show_waiver(work, waiver_id))


@router.post("/{waiver_id}/sign")
def sign_waiver(waiver_id: WaiverId, begin: Begin, dry_run: bool = False) -> WaiverOut:
    """Sign a waiver as the second of two, which puts it in force."""
    with begin(dry_run=dry_run) as work:
        return WaiverOut.model_validate(service.sign_waiver(work, waiver_id))


@router.post("/{waiver_id}/end")
def end_waiver(waiver_id: WaiverId, body: EndIn, begin: Begin, dry_run: bool = False) -> WaiverOut:
    """End a waiver before its time."""
    with begin(dry_run=dry_run) as work:
        return WaiverOut.model_validate(service.end_waiver(work, waiver_id, reason=body.reason))

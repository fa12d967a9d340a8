"""Watching over JSON: figures of use by day, track and grant; what stands out; evidence of it."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, InstantIn, Out, Paging, keyset
from stagerelease.incidents import service

router = APIRouter(prefix="/api/v1/usage", tags=["usage"])

Name = Annotated[str | None, Query(max_length=64)]
At = Annotated[InstantIn | None, Query()]


class UsageOut(Out):
    """One UTC day of one grant on one track; ``grant_id`` is null for what needs no grant."""

    key: str
    day: date
    track_id: str
    grant_id: str | None
    deliveries: int
    completed: int
    files: int
    bytes: int
    tokens: int


class AnomalyOut(Out):
    """Something that stands out: its rule in words, and the figures it was found by."""

    rule: str
    rule_words: str
    grant_id: str
    track_id: str
    day: date
    sentence: str
    figures: dict[str, int | float | str]


class MonitoringIn(In):
    """Which figures of which window become a draft of evidence."""

    track_id: Annotated[str, Field(min_length=1, max_length=64)]
    metric: Literal["anomalies", "downloads", "incidents", "inference_requests"] = "anomalies"
    since: InstantIn | None = None
    until: InstantIn | None = None


class DraftOut(Out):
    """The draft: read it, add what figures cannot say, and submit it."""

    id: str
    state: str
    type: str
    title: str
    metric: str
    value: float | None
    unit: str
    caveat: str
    subject_sha256: str
    measured_at: Instant


@router.get("")
def usage(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    track_id: Name = None,
    grant_id: Name = None,
    since: At = None,
    until: At = None,
) -> list[UsageOut]:
    """List deliveries by day, track and grant, newest day first; the last 28 days by default."""
    with begin(read_only=True) as work:
        rows = service.usage(
            work,
            since=since,
            until=until,
            track_id=track_id,
            grant_id=grant_id,
            limit=page.limit + 1,
            after=page.after,
        )
    part = keyset(request, response, rows, page, lambda row: row.key)
    return [UsageOut.model_validate(row) for row in part]


@router.get("/anomalies")
def anomalies(
    begin: Begin,
    days: Annotated[int, Query(ge=1, le=366)] = 7,
    track_id: Name = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> list[AnomalyOut]:
    """List what stands out in the last ``days`` days, newest first: reasons to look."""
    with begin(read_only=True) as work:
        rows = service.list_anomalies(work, days=days, track_id=track_id, limit=limit)
    return [AnomalyOut.model_validate(row) for row in rows]


@router.post("/evidence", status_code=201)
def draft_monitoring(body: MonitoringIn, begin: Begin, dry_run: bool = False) -> DraftOut:
    """Draft monitoring evidence on a track from its figures; nothing is submitted."""
    with begin(dry_run=dry_run) as work:
        row = service.draft_monitoring(
            work,
            track_id=body.track_id,
            metric=body.metric,
            since=body.since,
            until=body.until,
        )
        return DraftOut.model_validate(row)

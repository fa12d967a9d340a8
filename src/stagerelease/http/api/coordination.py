"""Coordination records over JSON: who else built such a model, and what talks have come to."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, StrictInt

from stagerelease.evidence import service
from stagerelease.evidence.coordinating import write_day
from stagerelease.evidence.queries import CoordinationRow
from stagerelease.http.api.evidence import DryRun, next_page
from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, InstantIn, Out, Paging

router = APIRouter(prefix="/api/v1/coordination", tags=["coordination"])

Id = Annotated[str, Path(max_length=64)]
Day = Annotated[str, Field(max_length=64)]
Status = Literal["noted", "contacted", "talking", "agreed", "declined", "published", "closed"]
FactStatus = Literal["verified", "reported", "computed", "recalled"]


class RecordIn(In):
    """What another developer did or was told. It may have happened in a month or year: ``2019-05``.

    A contact has a day: a coordination window counts from it.
    """

    family_id: Annotated[str, Field(max_length=64)]
    developer: Annotated[str, Field(min_length=1, max_length=200)]
    claim: Annotated[str, Field(min_length=1, max_length=4000)]
    kind: Literal["replication", "contact", "similar_release", "disclosure"]
    happened_on: Day
    source: Annotated[str, Field(min_length=1, max_length=2000)]
    fact_status: FactStatus
    status: Status = "noted"
    size_parameters: Annotated[StrictInt, Field(ge=1, le=10**15)] | None = None
    contacted_on: Day | None = None
    window_ends_at: InstantIn | None = None
    note: Annotated[str, Field(max_length=4000)] = ""


class ChangeIn(In):
    """What talks have come to; what is left out stays as it is. A window may only become longer."""

    status: Status | None = None
    contacted_on: Day | None = None
    window_ends_at: InstantIn | None = None
    source: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    fact_status: FactStatus | None = None
    note: Annotated[str, Field(max_length=4000)] = ""


class RecordOut(Out):
    """A coordination record; ``happened_on`` is as exact as its source."""

    id: str
    family_id: str
    developer: str
    claim: str
    kind: str
    size_parameters: int | None
    status: str
    happened_on: str
    contacted_on: str | None
    window_ends_at: Instant | None
    source: str
    fact_status: str
    created_at: Instant


class EventOut(Out):
    """A change of a record."""

    from_status: str | None
    to_status: str
    note: str
    actor_id: str
    at: Instant
    leaf_idx: int


class RecordPageOut(RecordOut):
    """A coordination record with its history."""

    events: list[EventOut]


def _out(row: CoordinationRow) -> RecordOut:
    return RecordOut(
        id=row.id,
        family_id=row.family_id,
        developer=row.developer,
        claim=row.claim,
        kind=row.kind,
        size_parameters=row.size_parameters,
        status=row.status,
        happened_on=write_day(row.happened_on, row.happened_precision),
        contacted_on=write_day(row.contacted_on, "day") if row.contacted_on else None,
        window_ends_at=row.window_ends_at,
        source=row.source,
        fact_status=row.fact_status,
        created_at=row.created_at,
    )


@router.get("")
def list_records(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    family: Annotated[str | None, Query(max_length=64)] = None,
) -> list[RecordOut]:
    """List coordination records, newest first."""
    with begin(read_only=True) as work:
        rows = service.list_records(work, family_id=family, limit=page.limit + 1, after=page.after)
    if len(rows) > page.limit:
        next_page(request, response, page, rows[page.limit - 1].id)
    return [_out(row) for row in rows[: page.limit]]


@router.post("", status_code=201)
def add_record(body: RecordIn, begin: Begin, dry_run: DryRun = False) -> RecordOut:
    """Record what another developer did or was told."""
    with begin(dry_run=dry_run) as work:
        return _out(service.add_coordination(work, **body.model_dump()))


@router.get("/{record_id}")
def show_record(record_id: Id, begin: Begin) -> RecordPageOut:
    """Show a record and its history."""
    with begin(read_only=True) as work:
        page = service.show_record(work, record_id)
    return RecordPageOut(
        **_out(page.record).model_dump(),
        events=[EventOut.model_validate(one) for one in page.events],
    )


@router.post("/{record_id}/update")
def update_record(
    record_id: Id, body: ChangeIn, begin: Begin, dry_run: DryRun = False
) -> RecordOut:
    """Record what talks have come to."""
    with begin(dry_run=dry_run) as work:
        return _out(service.update_coordination(work, record_id, **body.model_dump()))

"""Incidents over JSON: anybody reports and reads the public list; security handles them.

A reference opens a report, so it travels in bodies only: addresses end up in logs.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from stagerelease.http.api.incident_shapes import (
    AdvisoryIn,
    AdvisoryOut,
    CloseIn,
    ConfirmIn,
    DismissIn,
    EraseIn,
    FollowIn,
    FollowOut,
    IncidentOut,
    IncidentPageOut,
    PublicIncidentOut,
    ReasonIn,
    ReassessIn,
    ReceiptOut,
    ReportedOut,
    ReportIn,
    TriageIn,
    UpdateIn,
    WordsIn,
)
from stagerelease.http.begin import Begin, BeginPublic
from stagerelease.http.wire import Page, Paging, keyset
from stagerelease.incidents import service
from stagerelease.kernel.errors import Invalid
from stagerelease.kernel.networks import network_of
from stagerelease.releases.queries import MAX_ID

reports = APIRouter(prefix="/api/v1/incident-reports", tags=["incidents"])
public = APIRouter(prefix="/api/v1/public/incidents", tags=["incidents"])
router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])
advisories = APIRouter(prefix="/api/v1/advisories", tags=["incidents"])

Number = Annotated[int, Path(ge=1, le=MAX_ID)]
Id = Annotated[str, Path(max_length=64)]
DryRun = Annotated[bool, Query(description="Do everything, then undo it.")]
Choice = Annotated[str | None, Query(max_length=16)]


def _number(page: Page) -> int | None:
    """Return the number that a list of incidents goes on behind.

    Raises:
        Invalid: it is no number.
    """
    if page.after is None:
        return None
    if not page.after.isascii() or not page.after.isdecimal() or len(page.after) > 10:
        raise Invalid("after is the number of an incident.", reason="page.after")
    return min(int(page.after), MAX_ID)


# --- anybody -------------------------------------------------------------------------------------


@reports.post("", status_code=201)
def report(body: ReportIn, request: Request, begin: BeginPublic) -> ReportedOut:
    """Report something that should not be. The reference in the answer is shown only now."""
    network = network_of(request.client.host if request.client else None)
    with begin(quiet=True) as work:  # access depends on nothing of it, so nobody is asked again
        row = service.report(
            work, text=body.text, about=body.about, contact=body.contact, network=network
        )
        return ReportedOut.model_validate(row)


@reports.post("/follow")
def follow_report(body: FollowIn, begin: BeginPublic) -> FollowOut:
    """Say how one's report stands."""
    with begin(read_only=True) as work:
        return FollowOut.model_validate(service.follow(work, body.reference))


@reports.post("/words")
def add_words(body: WordsIn, begin: BeginPublic) -> FollowOut:
    """Add words to one's report."""
    with begin(quiet=True) as work:
        return FollowOut.model_validate(service.add_words(work, body.reference, text=body.text))


@reports.post("/forget-me")
def forget_me(body: FollowIn, begin: BeginPublic) -> FollowOut:
    """Erase the contact that came with one's report."""
    with begin(quiet=True) as work:
        return FollowOut.model_validate(service.forget_me(work, body.reference))


@public.get("")
def public_incidents(
    request: Request, response: Response, begin: BeginPublic, page: Paging
) -> list[PublicIncidentOut]:
    """List every incident that was ever confirmed, newest first, as everybody may read it."""
    response.headers["Cache-Control"] = "no-cache"  # what is stopped is known at once
    with begin(read_only=True) as work:
        rows = service.public_incidents(work, limit=page.limit + 1, after=_number(page))
    part = keyset(request, response, rows, page, lambda row: row.id)
    return [PublicIncidentOut.model_validate(row) for row in part]


@public.get("/{incident_id}")
def public_incident(
    incident_id: Number, response: Response, begin: BeginPublic
) -> PublicIncidentOut:
    """Show one confirmed incident as everybody may read it."""
    response.headers["Cache-Control"] = "no-cache"
    with begin(read_only=True) as work:
        return PublicIncidentOut.model_validate(service.public_incident(work, incident_id))


# --- staff ---------------------------------------------------------------------------------------


@router.get("")
def list_incidents(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    state: Choice = None,
    severity: Choice = None,
) -> list[IncidentOut]:
    """List incidents, newest first; ``state`` may be ``open``."""
    with begin(read_only=True) as work:
        rows = service.list_incidents(
            work, state=state, severity=severity, limit=page.limit + 1, after=_number(page)
        )
    part = keyset(request, response, rows, page, lambda row: row.id)
    return [IncidentOut.model_validate(row) for row in part]


@router.get("/{incident_id}")
def show_incident(incident_id: Number, begin: Begin) -> IncidentPageOut:
    """Show everything known of an incident."""
    with begin(read_only=True) as work:
        return IncidentPageOut.model_validate(service.show_incident(work, incident_id))


@router.post("/{incident_id}/triage")
def triage(
    incident_id: Number, body: TriageIn, begin: Begin, dry_run: DryRun = False
) -> IncidentOut:
    """Say how severe it is, whether it must stop releases, and what it is about."""
    with begin(dry_run=dry_run) as work:
        row = service.triage(
            work,
            incident_id,
            severity=body.severity,
            blocking=body.blocking,
            actor_tier=body.actor_tier,
            title=body.title,
            public_summary=body.public_summary,
            links=body.links(),
            reason=body.reason,
        )
        return IncidentOut.model_validate(row)


@router.post("/{incident_id}/reassess")
def reassess(
    incident_id: Number, body: ReassessIn, begin: Begin, dry_run: DryRun = False
) -> IncidentPageOut:
    """Say more about a confirmed incident; what a blocking one covers besides stops at once."""
    with begin(dry_run=dry_run) as work:
        row = service.reassess(
            work,
            incident_id,
            reason=body.reason,
            severity=body.severity,
            blocking=body.blocking,
            actor_tier=body.actor_tier,
            title=body.title,
            public_summary=body.public_summary,
            links=body.links(),
            advisory=body.advisory,
        )
        return IncidentPageOut.model_validate(row)


@router.post("/{incident_id}/confirm")
def confirm(
    incident_id: Number, body: ConfirmIn, begin: Begin, dry_run: DryRun = False
) -> IncidentPageOut:
    """Confirm it; a blocking one lays its holds and tells every holder in this transaction."""
    with begin(dry_run=dry_run) as work:
        row = service.confirm(
            work,
            incident_id,
            reason=body.reason,
            advisory=body.advisory,
            acknowledge_within=timedelta(days=body.acknowledge_within_days),
        )
        return IncidentPageOut.model_validate(row)


@router.post("/{incident_id}/dismiss")
def dismiss(
    incident_id: Number, body: DismissIn, begin: Begin, dry_run: DryRun = False
) -> IncidentOut:
    """Dismiss a triaged report."""
    with begin(dry_run=dry_run) as work:
        row = service.dismiss(work, incident_id, reason=body.reason, reply=body.reply)
        return IncidentOut.model_validate(row)


@router.post("/{incident_id}/mitigate")
def mitigate(
    incident_id: Number, body: ReasonIn, begin: Begin, dry_run: DryRun = False
) -> IncidentOut:
    """Say that its harm is contained; what it stops stays stopped."""
    with begin(dry_run=dry_run) as work:
        return IncidentOut.model_validate(service.mitigate(work, incident_id, reason=body.reason))


@router.post("/{incident_id}/close")
def close(
    incident_id: Number, body: CloseIn, begin: Begin, dry_run: DryRun = False
) -> IncidentPageOut:
    """Close it, or consent to; ``holds_active`` are those that stay until two people lift them."""
    with begin(dry_run=dry_run) as work:
        row = service.close(
            work, incident_id, outcome=body.outcome, public_outcome=body.public_outcome
        )
        return IncidentPageOut.model_validate(row)


@router.post("/{incident_id}/reopen")
def reopen(
    incident_id: Number, body: ReasonIn, begin: Begin, dry_run: DryRun = False
) -> IncidentPageOut:
    """Re-open it; a blocking one stops again what it covers."""
    with begin(dry_run=dry_run) as work:
        row = service.reopen(work, incident_id, reason=body.reason)
        return IncidentPageOut.model_validate(row)


@router.post("/{incident_id}/updates", status_code=201)
def add_update(
    incident_id: Number, body: UpdateIn, begin: Begin, dry_run: DryRun = False
) -> IncidentPageOut:
    """Put a word on its thread, private unless said otherwise."""
    with begin(dry_run=dry_run) as work:
        row = service.add_note(work, incident_id, text=body.text, visibility=body.visibility)
        return IncidentPageOut.model_validate(row)


@router.post("/{incident_id}/advisories", status_code=201)
def send_advisory(
    incident_id: Number, body: AdvisoryIn, begin: Begin, dry_run: DryRun = False
) -> AdvisoryOut:
    """Tell every holder of what it covers."""
    with begin(dry_run=dry_run) as work:
        within = timedelta(days=body.acknowledge_within_days)
        row = service.send_advisory(work, incident_id, text=body.text, within=within)
        return AdvisoryOut.model_validate(row)


@router.post("/{incident_id}/erase-report")
def erase_report(
    incident_id: Number, body: EraseIn, begin: Begin, dry_run: DryRun = False
) -> IncidentOut:
    """Erase the reporter's contact, and their words if asked."""
    with begin(dry_run=dry_run) as work:
        row = service.erase_report(work, incident_id, reason=body.reason, words=body.words)
        return IncidentOut.model_validate(row)


# --- holders -------------------------------------------------------------------------------------


@advisories.get("")
def my_advisories(
    request: Request, response: Response, begin: Begin, page: Paging
) -> list[ReceiptOut]:
    """List the advisories sent to the caller or their organisations, newest first."""
    with begin(read_only=True) as work:
        rows = service.my_advisories(work, limit=page.limit + 1, after=page.after)
    part = keyset(request, response, rows, page, lambda row: row.id)
    return [ReceiptOut.model_validate(row) for row in part]


@advisories.get("/overdue")
def overdue_advisories(
    request: Request, response: Response, begin: Begin, page: Paging
) -> list[ReceiptOut]:
    """List what holders have not acknowledged in time, longest overdue first."""
    with begin(read_only=True) as work:
        rows = service.overdue_advisories(work, limit=page.limit + 1, after=page.after)
    part = keyset(request, response, rows, page, lambda row: row.id)
    return [ReceiptOut.model_validate(row) for row in part]


@advisories.get("/{advisory_id}/receipts")
def advisory_receipts(
    advisory_id: Id, request: Request, response: Response, begin: Begin, page: Paging
) -> list[ReceiptOut]:
    """List whom an advisory went to and who acknowledged it."""
    with begin(read_only=True) as work:
        rows = service.advisory_receipts(work, advisory_id, limit=page.limit + 1, after=page.after)
    part = keyset(request, response, rows, page, lambda row: row.id)
    return [ReceiptOut.model_validate(row) for row in part]


@advisories.post("/{receipt_id}/acknowledge")
def acknowledge(receipt_id: Id, begin: Begin) -> ReceiptOut:
    """Acknowledge an advisory that was sent to the caller or their organisation."""
    with begin() as work:
        return ReceiptOut.model_validate(service.acknowledge(work, receipt_id))

"""How the service stands, and what happened in each confirmed incident, for everybody."""

from __future__ import annotations

from types import SimpleNamespace

from fastapi import APIRouter, Depends, Request, Response

from stagerelease import __version__
from stagerelease.http.pages.begin import BeginVisitor
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.frame import page
from stagerelease.incidents import service as incidents
from stagerelease.incidents.rows import PublicIncident

router = APIRouter(include_in_schema=False, dependencies=[Depends(speak_page)])
RECENT = 20


@router.get("/status")
def status(request: Request, begin: BeginVisitor) -> Response:
    """Tell what is on hold, what happened lately, and how the log stands."""
    with begin(read_only=True) as work:
        found = incidents.public_incidents(work, limit=RECENT)
    return page(
        request,
        "service_status.html",
        open_ones=[one for one in found if one.closed_at is None],
        closed=[one for one in found if one.closed_at is not None],
        version=__version__,
    )


@router.get("/incidents/{number}")
def incident(request: Request, begin: BeginVisitor, number: int) -> Response:
    """Show the public thread of an incident."""
    with begin(read_only=True) as work:
        found = incidents.public_incident(work, number)
    return page(request, "incident.html", incident=found, events=_thread(found))


def _thread(found: PublicIncident) -> list[SimpleNamespace]:
    """Return what was said of an incident in public, oldest first."""
    what = found.summary or f"An incident of {found.severity} severity was confirmed."
    events = [_event("Confirmed", found.confirmed_at, what, "bad")]
    events += [_event("Update", update.at, update.text, "") for update in found.updates]
    if found.closed_at is not None:
        events.append(_event("Closed", found.closed_at, found.outcome or "It is over.", "good"))
    return sorted(events, key=lambda event: event.at)


def _event(title: str, at: object, said: str, kind: str) -> SimpleNamespace:
    return SimpleNamespace(title=title, at=at, by="", said=said, kind=kind, leaf_idx=None)

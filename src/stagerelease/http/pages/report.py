"""Reporting misuse or a leak: anybody may, with or without saying who they are."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from stagerelease.http.pages.begin import BeginVisitor
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent
from stagerelease.http.pages.frame import by_field, page
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.http.problems import headers_of, status_of
from stagerelease.incidents import service as incidents
from stagerelease.kernel.errors import FieldError, Invalid, NotFound, TooMany
from stagerelease.kernel.networks import network_of

router = APIRouter(
    prefix="/report",
    include_in_schema=False,
    dependencies=[Depends(speak_page), Depends(refuse_forgery)],
)
FIELDS = ("text", "about", "contact")


@router.get("")
def report_form(request: Request, begin: BeginVisitor, about: str = "") -> Response:
    """Show the form."""
    with begin(read_only=True):
        pass
    values = {"text": "", "about": about[:200], "contact": ""}
    return page(request, "report.html", values=values, refusal=None)


@router.post("")
def report(request: Request, begin: BeginVisitor, sent: Sent) -> Response:
    """Take a report and show the reference that opens it, this once."""
    values = sent.values(*FIELDS)
    network = network_of(request.client.host if request.client else None)
    try:
        with begin(quiet=True) as work:
            kept = incidents.report(
                work,
                text=sent.raw("text"),
                about=sent.get("about"),
                contact=sent.get("contact") or None,
                network=network,
            )
    except (Invalid, TooMany) as error:
        wrong = error.fields
        if isinstance(error, Invalid) and not wrong:
            wrong = (FieldError("text", error.sentence),)
        return page(
            request,
            "report.html",
            status=status_of(error),
            headers=headers_of(error),
            values=values,
            refusal=error,
            errors=by_field(wrong),
        )
    return page(request, "reported.html", status=201, kept=kept)


@router.get("/follow")
def follow_form(request: Request, begin: BeginVisitor) -> Response:
    """Ask for the reference of a report."""
    with begin(read_only=True):
        pass
    return page(request, "follow.html", found=None, reference="")


@router.post("/follow")
def follow(request: Request, begin: BeginVisitor, sent: Sent) -> Response:
    """Show how a report stands. The reference travels in the body: addresses end up in logs."""
    reference = sent.get("reference")
    try:
        with begin(read_only=True) as work:
            found = incidents.follow(work, reference)
    except NotFound as error:
        errors = {"reference": f"{error.sentence} {error.next_step or ''}".strip()}
        return page(
            request, "follow.html", status=404, found=None, reference=reference, errors=errors
        )
    return page(request, "follow.html", found=found, reference=reference)

"""Evidence from those who hold a model: write it down, attach files, hand it in."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.evidence import service as evidence
from stagerelease.evidence.kinds import TYPES
from stagerelease.evidence.rules import FactStatus
from stagerelease.http.pages.begin import BeginPage, BeginWork
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent, Typed, end_of_day
from stagerelease.http.pages.frame import by_field, page, to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.identity.rules import Permission, authorize
from stagerelease.kernel.errors import FieldError, Invalid, TooLarge
from stagerelease.partners import service as partners
from stagerelease.releases import queries as releases
from stagerelease.storage.ports import BlobStore

router = APIRouter(
    prefix="/me/evidence",
    include_in_schema=False,
    dependencies=[Depends(speak_page), Depends(refuse_forgery)],
)
MOST = 50
PIECE = 1 << 20
ROOM = 1 << 16
"""Bytes of a form beside the file in it."""
FIELDS = (
    *("title", "metric", "unit", "verdict", "finding", "caveat", "source", "author_name"),
    *("type", "subject_sha256", "fact_status", "value", "n", "interval_low", "interval_high"),
    *("interval_level", "conditions", "measured_on", "valid_until"),
)
STATUS_WORDS = {
    FactStatus.VERIFIED: "Read in a primary source, or measured by us",
    FactStatus.REPORTED: "Read in somebody's account of it",
    FactStatus.COMPUTED: "Computed from other figures",
    FactStatus.RECALLED: "From memory; not re-checked",
}


def _subjects(work: Work) -> list[tuple[str, str]]:
    """Return what the caller may write about: the manifests of the tracks they hold."""
    found: dict[str, str] = {}
    for row in partners.list_grants(work, state="active", limit=MOST):
        if row.person_id == work.actor.id or row.organisation_id in work.actor.organisations:
            track = releases.load_track(work, row.track_id)
            digest = catalog.load_revision(work, track.revision_id).manifest_sha256
            found[digest] = f"{track.repo_id} ({track.kind}, as released)"
    return list(found.items())


def _show(request: Request, begin: BeginPage, **more: Any) -> Response:
    error: Invalid | None = more.pop("refusal", None)
    sent: Typed | None = more.pop("sent", None)
    with begin(read_only=True) as work:
        may = authorize(work.actor, Permission.EVIDENCE_SUBMIT).allowed
        subjects = _subjects(work) if may else []
        mine = [e for e in evidence.list_evidence(work, limit=MOST) if _is_mine(work, e)]
    values = sent.values(*FIELDS) if sent else dict.fromkeys(FIELDS, "")
    errors = by_field(error.fields) if error else {}
    if error and not errors:
        errors = {"title": error.sentence}
    return page(
        request,
        "my_evidence.html",
        status=422 if error else 200,
        errors=errors,
        may=may,
        subjects=subjects,
        mine=mine,
        values=values,
        public=bool(sent and sent.ticked("public")),
        types=[(key, key.replace("_", " ").capitalize()) for key in TYPES],
        kinds=TYPES,
        statuses=[(key.value, words) for key, words in STATUS_WORDS.items()],
        **more,
    )


def _is_mine(work: Work, row: Any) -> bool:
    return row.created_by == work.actor.id or row.organisation_id in work.actor.organisations


def _figure(sent: Typed, key: str, wrong: list[FieldError]) -> float | None:
    text = sent.get(key)
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        wrong.append(FieldError(key, "Give a number, such as 91.2, with a point and no unit."))
        return None


def _conditions(text: str, wrong: list[FieldError]) -> dict[str, str | float]:
    """Read one condition a line: ``detector = RoBERTa-large``."""
    found: dict[str, str | float] = {}
    for line in filter(None, (line.strip() for line in text.split("\n"))):
        name, sign, value = (part.strip() for part in line.partition("="))
        if not sign or not name or not value:
            wrong.append(FieldError("conditions", f"Write “name = value”, not {line!r:.60}."))
            break
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = value
    return found


def _new(sent: Typed) -> evidence.NewEvidence:
    """Return what was typed as the service takes it.

    Raises:
        Invalid: with what cannot be read; what breaks a rule is the service's to say.
    """
    wrong: list[FieldError] = []
    low, high = _figure(sent, "interval_low", wrong), _figure(sent, "interval_high", wrong)
    measured = end_of_day(sent.get("measured_on"), "measured_on")
    if measured is None:
        wrong.append(FieldError("measured_on", "Say on which day it was measured."))
    value, level = _figure(sent, "value", wrong), _figure(sent, "interval_level", wrong)
    conditions, count = _conditions(sent.raw("conditions"), wrong), sent.number("n")
    if wrong or measured is None:
        raise Invalid("The evidence is not complete yet.", reason="evidence", fields=wrong)
    return evidence.NewEvidence(
        type=sent.get("type"),
        metric=sent.get("metric"),
        title=sent.get("title"),
        unit=sent.get("unit"),
        verdict=sent.get("verdict") or None,
        finding=sent.get("finding") or None,
        caveat=sent.get("caveat"),
        source=sent.get("source"),
        author_name=sent.get("author_name"),
        subject_sha256=sent.get("subject_sha256"),
        fact_status=sent.get("fact_status"),
        measured_at=measured.replace(hour=0, minute=0, second=0),
        value=value,
        n=count,
        interval=evidence.read_interval(low, high),
        interval_level=level,
        conditions=conditions,
        valid_until=end_of_day(sent.get("valid_until"), "valid_until"),
        public=sent.ticked("public"),
    )


@router.get("")
def my_evidence(request: Request, begin: BeginPage) -> Response:
    """Show the evidence of the person and their organisation, and the form for more."""
    return _show(request, begin)


@router.post("")
def write(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Keep evidence as a draft, to attach files to and hand in."""
    try:
        with begin() as work:
            row = evidence.draft(work, _new(sent))
    except Invalid as error:
        return _show(request, begin, refusal=error, sent=sent)
    return to(f"/me/evidence/{row.id}")


@router.get("/{evidence_id}")
def show(request: Request, begin: BeginPage, evidence_id: str, done: str = "") -> Response:
    """Show one piece of evidence with its files and its history."""
    with begin(read_only=True) as work:
        shown = evidence.show_evidence(work, evidence_id)
        own = shown.evidence.created_by == work.actor.id or work.actor.id in shown.authors
    limit: int = request.app.state.settings.max_attachment_bytes
    return page(request, "evidence_mine.html", shown=shown, own=own, done=done, limit=limit)


@router.post("/{evidence_id}/submit")
def submit(begin: BeginPage, evidence_id: str) -> Response:
    """Hand a draft in."""
    with begin() as work:
        evidence.submit(work, evidence_id)
    return to(f"/me/evidence/{evidence_id}?done=submitted#done")


@router.post("/{evidence_id}/attachments")
async def attach(request: Request, begin: BeginPage, evidence_id: str) -> Response:
    """Attach the file of a form; it is kept by its digest and never shown as a page."""
    limit: int = request.app.state.settings.max_attachment_bytes
    await run_in_threadpool(_may_attach, begin, evidence_id, "file")
    _check_length(request, limit)
    async with request.form(max_files=1, max_fields=5) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile) or not file.filename:
            raise Invalid("No file was chosen.", reason="attachment.none", next_step="Choose one.")
        await run_in_threadpool(_may_attach, begin, evidence_id, file.filename)
        blobs: BlobStore = request.app.state.blobs
        with evidence.Receiver(blobs, limit=limit) as receiver:
            while piece := await file.read(PIECE):
                await run_in_threadpool(receiver.write, piece)
            stored = await run_in_threadpool(receiver.finish, None)
        name = file.filename
    await run_in_threadpool(_attached, begin, blobs, evidence_id, name, stored)
    return to(f"/me/evidence/{evidence_id}?done=attached#done")


def _check_length(request: Request, limit: int) -> None:
    """Return only if the body says how long it is, and is no longer than a file may be."""
    said = request.headers.get("content-length", "")
    if not said.isdecimal():
        raise Invalid("The form does not say how long it is.", reason="attachment.length")
    if int(said) > limit + ROOM:
        raise TooLarge(
            f"An attachment has at most {limit:,} bytes.",
            reason="attachment.size",
            next_step="Publish the file elsewhere and name it in the source, with its digest.",
        )


def _may_attach(begin: BeginWork, evidence_id: str, filename: str) -> None:
    with begin(read_only=True) as work:
        evidence.check_may_attach(work, evidence_id, filename=filename, sha256=None)


def _attached(
    begin: BeginWork, blobs: BlobStore, evidence_id: str, filename: str, stored: Any
) -> None:
    with begin() as work:
        evidence.note_attached(work, blobs, evidence_id, filename=filename, stored=stored)

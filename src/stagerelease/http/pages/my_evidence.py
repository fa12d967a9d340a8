"""Evidence from those who hold a model: write it down, attach files, hand it in."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.evidence import service as evidence
from stagerelease.evidence.queries import EvidenceRow
from stagerelease.evidence.rules import FactStatus, State
from stagerelease.http.pages.begin import BeginPage, BeginWork
from stagerelease.http.pages.desk.steps import names_of, status_after, take
from stagerelease.http.pages.evidence_form import (
    KINDS,
    NAMED,
    Kind,
    carried,
    errors_of,
    placed,
    read,
    values_of,
)
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.files import pass_file_on
from stagerelease.http.pages.forms import Sent, Typed
from stagerelease.http.pages.frame import page, to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.identity import queries as people
from stagerelease.identity.rules import Permission, authorize, is_staff, require
from stagerelease.kernel.errors import DomainError, Invalid, TooLarge
from stagerelease.partners import service as partners
from stagerelease.releases import queries as releases
from stagerelease.releases.queries import TrackRow
from stagerelease.storage.ports import BlobStore

router = APIRouter(
    prefix="/me/evidence",
    include_in_schema=False,
    dependencies=[Depends(speak_page), Depends(refuse_forgery)],
)
MOST = 50
ROOM = 1 << 16
"""Bytes of a form beside the file in it."""
STATUS_WORDS = {
    FactStatus.VERIFIED: "Read in a primary source, or measured by us",
    FactStatus.REPORTED: "Read in somebody's account of it",
    FactStatus.COMPUTED: "Computed from other figures",
    FactStatus.RECALLED: "From memory; not re-checked",
}
CHOOSE = ("", "Choose one")
Pairs = list[tuple[str, str]]


def _tracks(work: Work) -> list[TrackRow]:
    """Return what the caller may write about: staff what moved last, others what they hold."""
    if is_staff(work.actor):
        return releases.lately_moved(work, limit=MOST)
    rows = partners.list_grants(work, state="active", limit=MOST)
    return releases.find_tracks(work, {row.track_id for row in rows})


def _subjects(work: Work) -> Pairs:
    """Return the manifests of these tracks, by which one writes about them as a whole."""
    found = [
        (
            catalog.load_revision(work, track.revision_id).manifest_sha256,
            f"{track.repo_id} ({track.kind}, as released)",
        )
        for track in _tracks(work)
    ]
    return found if len(found) == 1 else [CHOOSE, *found]  # nobody means the first by accident


def _organisations(work: Work) -> Pairs:
    """Return whose the evidence may be, where there is a choice."""
    if is_staff(work.actor):
        return [("", "Ours"), *((row.id, row.name) for row in people.list_organisations(work))]
    found = [people.load_organisation(work, one) for one in sorted(work.actor.organisations)]
    return [("", "Nobody’s but mine"), *((r.id, r.name) for r in found)] if len(found) > 1 else []


def _superseded(work: Work, kind: Kind) -> Pairs:
    """Return the evidence of this type that the caller may put something newer in place of."""
    rows = evidence.list_evidence(work, evidence.Wanted(type=kind.type), limit=MOST)
    ours = is_staff(work.actor)
    stands = (State.ACCEPTED, State.DISPUTED)
    found = [e for e in rows if e.state in stands and (ours or _is_mine(work, e))]
    return [("", "Nothing"), *((e.id, f"{e.title} ({e.id})") for e in found)]


def _is_mine(work: Work, row: EvidenceRow) -> bool:
    return row.created_by == work.actor.id or row.organisation_id in work.actor.organisations


def _list(request: Request, begin: BeginPage, errors: dict[str, str] | None = None) -> Response:
    with begin(read_only=True) as work:
        may = authorize(work.actor, Permission.EVIDENCE_SUBMIT).allowed
        holds = may and bool(_tracks(work))
        mine = [e for e in evidence.list_evidence(work, limit=MOST) if _is_mine(work, e)]
    return page(
        request,
        "my_evidence.html",
        status=422 if errors else 200,
        errors=errors or {},
        may=may,
        holds=holds,
        mine=mine,
        kinds=NAMED,
    )


def _form(
    request: Request,
    begin: BeginPage,
    kind: Kind | None,
    evidence_id: str = "",
    *,
    sent: Typed | None = None,
    refusal: DomainError | None = None,
) -> Response:
    """Show the form of a draft, or of a new piece: the fields of its kind, what is in them kept."""
    with begin(read_only=True) as work:
        require(work.actor, Permission.EVIDENCE_SUBMIT)
        row = evidence.open_draft(work, evidence_id) if evidence_id else None
        kind = kind or KINDS[f"{row.type}.{row.metric}" if row else NAMED[0][0]]
        values = sent.everything() if sent else _written(work, row) if row else {}
        lists = {
            "subject_sha256": _subjects(work),
            "organisation": _organisations(work),
            "supersedes": _superseded(work, kind),
        }
    for key, choices in lists.items():  # what was said before can be said again
        said = values.get(key)
        if said and choices and said not in dict(choices):
            choices.append((said, f"As before: {said}"))
    errors = errors_of(refusal.fields, sent) if refusal and sent else {}
    return page(
        request,
        "evidence_form.html",
        status=status_after(refusal),
        kind=kind,
        kinds=NAMED,
        row=row,
        seen=evidence.content_sha256(row) if row else "",
        values=values,
        carried=carried(kind, values),
        lists=lists,
        statuses=[CHOOSE, *((key.value, words) for key, words in STATUS_WORDS.items())],
        refusal=refusal,
        errors=errors,
        more=any(
            values.get(one.key) or one.key in errors for one in kind.conditions if not one.required
        ),
    )


def _written(work: Work, row: EvidenceRow) -> dict[str, str]:
    """Return a draft as its form holds it, with the handles of its other authors."""
    authors = evidence.show_evidence(work, row.id).authors
    others = names_of(work, (one for one in authors if one != work.actor.id))
    return {**values_of(row), "authors": ", ".join(sorted(others.values()))}


def _asked_kind(sent: Typed) -> Kind | None:
    """Return the kind whose fields are asked for; None when the form was sent to be kept."""
    return KINDS.get(sent.get("other")) if sent.get("show") else None


@router.get("")
def my_evidence(request: Request, begin: BeginPage) -> Response:
    """Show the evidence of the person and their organisation, and the way to write more."""
    return _list(request, begin)


@router.get("/new")
def new(request: Request, begin: BeginPage, what: str = "") -> Response:
    """Show the form of one kind of evidence."""
    if what not in KINDS:
        return _list(request, begin, {"what": "Choose what it says."})
    return _form(request, begin, KINDS[what])


@router.post("")
def write(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Keep evidence as a draft, to attach files to and hand in; or show the fields of its kind."""
    if sent.get("what") not in KINDS:
        return _list(request, begin, {"what": "Choose what it says."})
    kind = KINDS[sent.get("what")]
    if other := _asked_kind(sent):
        return _form(request, begin, other, sent=sent)

    def act(work: Work) -> EvidenceRow:
        return evidence.draft(work, read(sent, kind, work.now), **placed(sent))

    return take(
        begin,
        Permission.EVIDENCE_SUBMIT,
        act,
        then=lambda row: f"/me/evidence/{row.id}",
        again=lambda refusal: _form(request, begin, kind, sent=sent, refusal=refusal),
    )


@router.get("/{evidence_id}/edit")
def draft_form(request: Request, begin: BeginPage, evidence_id: str) -> Response:
    """Show the form with what a draft says."""
    return _form(request, begin, None, evidence_id)


@router.post("/{evidence_id}/edit")
def change(request: Request, begin: BeginPage, sent: Sent, evidence_id: str) -> Response:
    """Replace what a draft says; or show the fields of another kind."""
    kind = KINDS.get(sent.get("what"))
    if other := _asked_kind(sent):
        return _form(request, begin, other, evidence_id, sent=sent)

    def act(work: Work) -> EvidenceRow:
        row = evidence.open_draft(work, evidence_id)
        now = kind or KINDS[f"{row.type}.{row.metric}"]
        new, seen = read(sent, now, work.now, row), sent.get("seen") or None
        return evidence.edit(work, evidence_id, new, **placed(sent), seen=seen)

    return take(
        begin,
        Permission.EVIDENCE_SUBMIT,
        act,
        then=f"/me/evidence/{evidence_id}?done=saved#done",
        again=lambda refusal: _form(request, begin, kind, evidence_id, sent=sent, refusal=refusal),
    )


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
    blobs: BlobStore = request.app.state.blobs
    await run_in_threadpool(_may_attach, begin, evidence_id)
    _check_length(request, limit)
    with evidence.Receiver(blobs, limit=limit) as receiver:

        async def write(piece: bytes) -> None:
            await run_in_threadpool(receiver.write, piece)

        async def named(filename: str) -> None:
            await run_in_threadpool(_begin_attaching, begin, evidence_id, filename)

        name = await pass_file_on(request, named, write)
        if not name:
            raise Invalid("No file was chosen.", reason="attachment.none", next_step="Choose one.")
        await run_in_threadpool(_may_keep, begin, evidence_id, name, receiver.sha256)
        stored = await run_in_threadpool(receiver.finish, None)
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


def _may_attach(begin: BeginWork, evidence_id: str) -> None:
    with begin(read_only=True) as work:
        evidence.check_may_attach(work, evidence_id)


def _begin_attaching(begin: BeginWork, evidence_id: str, filename: str) -> None:
    with begin(quiet=True) as work:
        evidence.begin_attaching(work, evidence_id, filename=filename, sha256=None)


def _may_keep(begin: BeginWork, evidence_id: str, filename: str, sha256: str) -> None:
    with begin(read_only=True) as work:
        evidence.check_may_keep(work, evidence_id, filename=filename, sha256=sha256)


def _attached(
    begin: BeginWork, blobs: BlobStore, evidence_id: str, filename: str, stored: Any
) -> None:
    with begin() as work:
        evidence.note_attached(work, blobs, evidence_id, filename=filename, stored=stored)

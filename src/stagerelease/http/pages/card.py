"""A model's own page: what it is, what is known of it, how far it is out, who may have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from markupsafe import Markup

from stagerelease.access import service as access
from stagerelease.catalog import queries as catalog
from stagerelease.catalog.attested import CARD
from stagerelease.catalog.bundles import MEDIA_TYPE
from stagerelease.catalog.queries import FileRow
from stagerelease.db.work import Work
from stagerelease.downloads.service import OPEN_FILES, is_open
from stagerelease.entitlements import service as entitlements
from stagerelease.entitlements.known import is_public
from stagerelease.entitlements.service import Entitled
from stagerelease.http.pages.asking import waiting_for
from stagerelease.http.pages.begin import BeginVisitor
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.frame import HEADERS, page, to
from stagerelease.http.pages.markdown import render_text, split_front, without_title
from stagerelease.http.pages.models import canonical, model_page, show_model
from stagerelease.http.wire import origin_of
from stagerelease.partners import queries as papers
from stagerelease.releases import queries as releases
from stagerelease.reports import attestations
from stagerelease.reports import service as reports
from stagerelease.reports.model import Report
from stagerelease.storage.ports import BlobStore

router = APIRouter(include_in_schema=False, dependencies=[Depends(speak_page)])
names = APIRouter(include_in_schema=False, dependencies=[Depends(speak_page)])
"""Tried after every other route: two words in a path are a model only if nothing else has them."""

LARGEST_CARD = 150_000
"""Bytes of a card that are read; what is longer is shown up to there."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The files that a caller may know of, and how many there are in all."""

    files: tuple[FileRow, ...]
    count: int
    total: int
    open_paths: frozenset[str]


@names.get("/{org}/{name}")
def short_address(begin: BeginVisitor, org: str, name: str) -> Response:
    """Lead from a repository's own address, which refusals and feeds name, to its page."""
    with begin(read_only=True) as work:
        real = canonical(work, f"{org}/{name}")
        show_model(work, real)  # whoever may not know of it is not led on
    return to(f"/models/{real}")


@router.get("/models/{org}/{name}")
def model(request: Request, begin: BeginVisitor, org: str, name: str) -> Response:
    """Show a model to one caller."""
    repo_id = f"{org}/{name}"
    with begin(read_only=True) as work:
        real = canonical(work, repo_id)
        if real != repo_id:
            return to(f"/models/{real}")
        entitled = entitlements.see(work, work.actor, repo_id)
        context = _context(work, entitled)
        card = catalog.find_file(work, entitled.revision.id, CARD)
    front, text = _read_card(request.app.state.blobs, card)
    return page(request, "model.html", front=front, text=text, origin=origin_of(request), **context)


@router.get("/models/{org}/{name}/signatures/{signature_id}")
def signature(
    request: Request, begin: BeginVisitor, org: str, name: str, signature_id: str
) -> Response:
    """Hand out a signature over the manifest, as it was handed in, to who may have the files."""
    blobs: BlobStore = request.app.state.blobs
    with begin(read_only=True) as work:
        body = attestations.bundle_of(work, blobs, f"{org}/{name}", signature_id)
    file = f"{name}-{signature_id}.sigstore.json"
    headers = {**HEADERS, "Content-Disposition": f'attachment; filename="{file}"'}
    return Response(body, media_type=MEDIA_TYPE, headers=headers)


def _context(work: Work, entitled: Entitled) -> dict[str, Any]:
    report = _report(work, entitled)
    return {
        "model": model_page(work, entitled),
        "revision": entitled.revision,
        "until": _until(work, entitled.decision.grant_id),
        "refusal": entitled.decision,
        "listing": _listing(work, entitled),
        "report": report,
        "waiting": waiting_for(work, entitled.variant.repo_id),
        "times": access.decision_times(work),
        "aliases": catalog.list_aliases(work, entitled.variant.id),
    }


def _until(work: Work, grant_id: str | None) -> datetime | None:
    """Return when a grant ends for good: by itself, or with the signature it rests on."""
    found = papers.find_effective(work, grant_id) if grant_id else None
    if found is None:
        return None
    return min(end for end in (found.grant.valid_until, found.signature_until) if end)


def _report(work: Work, entitled: Entitled) -> Report | None:
    """Return what the public release report says, where there is one for this caller."""
    track = entitled.track
    if track is None:
        return None
    known = releases.find_track(work, track.id)
    if known is None or not is_public(work, known):
        return None
    return reports.build(work, track.id, proofs=False)


def _listing(work: Work, entitled: Entitled) -> Listing:
    """Return the files: all to who may have them, else those that are open to everybody."""
    files = catalog.files(work, entitled.revision.id)
    allowed = entitled.decision.allowed
    shown = [file for file in files if allowed or file.path in OPEN_FILES]
    total = sum(file.size for file in files)
    public = allowed and not entitled.gated
    open_paths = frozenset(f.path for f in files if public or is_open(entitled.decision, f.path))
    return Listing(tuple(shown), len(files), total, open_paths)


def _read_card(blobs: BlobStore, file: FileRow | None) -> tuple[Mapping[str, str], Markup | None]:
    """Return what the card's metadata says, and its text as HTML; it is open to who may know."""
    if file is None:
        return {}, None
    with blobs.open(file.sha256) as reader:
        text = reader.read(LARGEST_CARD).decode("utf-8", "replace")
    return _card(text)


@lru_cache(maxsize=32)
def _card(text: str) -> tuple[Mapping[str, str], Markup]:
    """Return a card's metadata and its text as HTML; one is read much oftener than it changes."""
    front, rest = split_front(text)
    wanted: tuple[str, ...] = ("license", "pipeline_tag", "tags")
    said = {key: words for key in wanted if (words := _words(front.get(key)))}
    return said, render_text(without_title(rest), rewrite=_outward)


def _outward(href: str) -> str:
    """Keep links to other places; what is relative to a repository leads nowhere here."""
    return href if href.startswith(("https://", "http://", "#")) else ""


def _words(value: object) -> str:
    """Return a plain value as text, a list of them one by one, and nothing for what is neither."""
    if isinstance(value, list):
        return ", ".join(filter(None, (_word(one)[:60] for one in value[:20])))
    return _word(value)[:200]


def _word(value: object) -> str:
    return str(value) if isinstance(value, str | int | float) else ""

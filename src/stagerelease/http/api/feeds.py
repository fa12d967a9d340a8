"""The public timeline for programs: JSON, Atom (RFC 4287) and JSON Feed 1.1."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from stagerelease.http.begin import BeginPublic
from stagerelease.http.wire import Instant, InstantIn, Out, origin_of
from stagerelease.kernel.clock import iso
from stagerelease.notices import service
from stagerelease.notices.service import Entry

router = APIRouter(tags=["timeline"])
ATOM = "http://www.w3.org/2005/Atom"
BORN = "2019-02-14T00:00:00.000Z"
"""What an empty feed was last updated at: RFC 4287 asks for an instant."""

Before = Annotated[InstantIn | None, Query(description="Only what is older than this.")]
BeforeId = Annotated[
    str | None,
    Query(max_length=80, description="Of that instant, only what is behind this entry."),
]
Limit = Annotated[int, Query(ge=1, le=200)]


class EntryOut(Out):
    """One thing that happened, in public words."""

    id: str
    at: Instant
    kind: str
    title: str
    said: str
    repo_id: str | None
    leaf_idx: int | None


@dataclass(frozen=True, slots=True)
class Asked:
    """Which part of the timeline: entries behind an instant, or behind an entry of it."""

    before: datetime | None
    before_id: str | None
    limit: int

    def read(self, begin: Any) -> list[Entry]:
        """Return the entries, and one more when there is one: it tells that a page follows."""
        with begin(read_only=True) as work:
            return service.timeline(
                work, before=self.before, before_id=self.before_id, limit=self.limit + 1
            )

    def older(self, request: Request, entries: Sequence[Entry]) -> str | None:
        """Return where what is behind these entries is, or None when nothing is."""
        if len(entries) <= self.limit:
            return None
        last = entries[self.limit - 1]
        at = last.at.astimezone(UTC).isoformat().replace("+00:00", "Z")  # to the microsecond
        query = urlencode({"limit": self.limit, "before": at, "before_id": last.id})
        return f"{origin_of(request)}{request.url.path}?{query}"


def asked(before: Before = None, before_id: BeforeId = None, limit: Limit = 50) -> Asked:
    """Read which part of the timeline is asked for."""
    return Asked(before, before_id, limit)


Part = Annotated[Asked, Depends(asked)]


@router.get("/api/v1/timeline")
def timeline(
    request: Request, response: Response, begin: BeginPublic, part: Part
) -> list[EntryOut]:
    """List what was released, stopped and said, newest first."""
    entries = part.read(begin)
    older = part.older(request, entries)
    if older:
        response.headers["Link"] = f'<{older}>; rel="next"'
    return [EntryOut.model_validate(entry) for entry in entries[: part.limit]]


def _unchanged(request: Request, etag: str) -> bool:
    asked = request.headers.get("if-none-match", "")
    return etag in {tag.strip().removeprefix("W/") for tag in asked.split(",")}


def _answer(request: Request, entries: Sequence[Entry], body: bytes, media_type: str) -> Response:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "public, max-age=5"}
    if entries:
        headers["Last-Modified"] = entries[0].at.strftime("%a, %d %b %Y %H:%M:%S GMT")
    if _unchanged(request, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def _tag(request: Request, entry: Entry) -> str:
    """Return a name that stays the same wherever the feed is read (RFC 4151)."""
    host = urlsplit(origin_of(request)).hostname or "localhost"
    return f"tag:{host},2019:{entry.id}"


def _link(origin: str, entry: Entry) -> str:
    return f"{origin}/{entry.repo_id}" if entry.repo_id else f"{origin}/"


@router.get("/feed.atom", response_class=Response)
def atom(request: Request, begin: BeginPublic, part: Part) -> Response:
    """Return the timeline as an Atom feed."""
    entries = part.read(begin)
    older = part.older(request, entries)
    entries = entries[: part.limit]
    origin = origin_of(request)
    ElementTree.register_namespace("", ATOM)

    def add(parent: ElementTree.Element, name: str, text: str = "", **attributes: str) -> None:
        ElementTree.SubElement(parent, f"{{{ATOM}}}{name}", attributes).text = text or None

    feed = ElementTree.Element(f"{{{ATOM}}}feed")
    add(feed, "title", "Release timeline")
    add(feed, "id", f"{origin}/feed.atom")
    add(feed, "updated", iso(entries[0].at) if entries else BORN)
    add(feed, "link", rel="self", href=f"{origin}/feed.atom", type="application/atom+xml")
    add(feed, "link", rel="alternate", href=f"{origin}/", type="text/html")
    if older:
        add(feed, "link", rel="next", href=older)
    author = ElementTree.SubElement(feed, f"{{{ATOM}}}author")
    add(author, "name", urlsplit(origin).hostname or "stagerelease")
    for entry in entries:
        node = ElementTree.SubElement(feed, f"{{{ATOM}}}entry")
        add(node, "title", _xml(entry.title), type="text")
        add(node, "id", _tag(request, entry))
        add(node, "updated", iso(entry.at))
        add(node, "published", iso(entry.at))
        add(node, "link", rel="alternate", href=_link(origin, entry), type="text/html")
        add(node, "category", term=entry.kind)
        add(node, "content", _xml(entry.said), type="text")
    body = ElementTree.tostring(feed, encoding="utf-8", xml_declaration=True)
    return _answer(request, entries, body, "application/atom+xml")


def _xml(text: str) -> str:
    """Return ``text`` without the characters XML 1.0 cannot hold."""
    return "".join(c for c in text if c in "\t\n" or (c >= " " and c not in "\ufffe\uffff"))


@router.get("/feed.json", response_class=Response)
def json_feed(request: Request, begin: BeginPublic, part: Part) -> Response:
    """Return the timeline as a JSON Feed 1.1."""
    entries = part.read(begin)
    older = part.older(request, entries)
    entries = entries[: part.limit]
    origin = origin_of(request)
    feed: dict[str, Any] = {
        "version": "https://jsonfeed.org/version/1.1",
        "title": "Release timeline",
        "home_page_url": f"{origin}/",
        "feed_url": f"{origin}/feed.json",
        "items": [
            {
                "id": _tag(request, entry),
                "url": _link(origin, entry),
                "title": entry.title,
                "content_text": entry.said,
                "date_published": iso(entry.at),
                "tags": [entry.kind],
            }
            for entry in entries
        ],
    }
    if older:
        feed["next_url"] = older
    body = JSONResponse(feed).body
    return _answer(request, entries, bytes(body), "application/feed+json")

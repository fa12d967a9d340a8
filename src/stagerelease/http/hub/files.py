"""Files by ``resolve``: HEAD and GET, pinned, ranged, recorded, and cut when access ends."""

from __future__ import annotations

import mimetypes
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from stagerelease.downloads import edge
from stagerelease.downloads import service as downloads
from stagerelease.downloads.service import Ticket
from stagerelease.entitlements import service as entitlements
from stagerelease.http.begin import BeginPublic, BeginWork, bearer_of
from stagerelease.http.delivery import accel_response
from stagerelease.http.hub.decisions import Decisions
from stagerelease.http.hub.strangers import Strangers, asks_for_a_part
from stagerelease.http.hub.wire import speak_hub, split_after
from stagerelease.http.watched import watched
from stagerelease.kernel.digests import is_commit
from stagerelease.kernel.errors import NotFound, Unavailable
from stagerelease.storage.ports import BlobStore, LocalBlob, RemoteBlob

log = structlog.get_logger(__name__)
router = APIRouter(tags=["hub"], dependencies=[Depends(speak_hub)], include_in_schema=False)


def _headers(ticket: Ticket) -> dict[str, str]:
    name = ticket.path.rpartition("/")[2]
    return {
        "ETag": f'"{ticket.copy.etag}"',
        "X-Repo-Commit": ticket.commit,
        "X-Linked-Size": str(ticket.copy.size),
        "X-Linked-ETag": f'"{ticket.copy.etag}"',
        "Cache-Control": "private, no-transform",
        "Vary": "Authorization",
        "Content-Type": mimetypes.guess_type(name)[0] or "application/octet-stream",
        # Hostile text stays text: a file is never rendered as a page of this origin.
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Accept-Ranges": "bytes",
    }


def _decide(begin: BeginWork, repo_id: str, rev: str, path: str) -> Ticket:
    with begin(read_only=True, quiet=True) as work:
        return downloads.prepare(work, repo_id=repo_id, rev=rev, path=path, record=False)


def _record(
    request: Request, begin: BeginWork, repo_id: str, rev: str, path: str, *, at_edge: bool
) -> Ticket:
    """Decide, and write that a delivery begins, or that a stranger's earlier one goes on."""
    strangers: Strangers = request.app.state.strangers
    key = strangers.key(request, repo_id, rev, path)

    def again(size: int) -> str | None:
        return strangers.find(key) if key and asks_for_a_part(request, size) else None

    prepare = edge.prepare if at_edge else downloads.prepare
    with begin(quiet=True) as work:
        ticket = prepare(work, repo_id=repo_id, rev=rev, path=path, record=True, again=again)
    if key and ticket.download_id is not None:
        strangers.keep(key, ticket.download_id)
    return ticket


async def _head(request: Request, begin: BeginWork, repo_id: str, rev: str, path: str) -> Ticket:
    decisions: Decisions = request.app.state.decisions
    key = (bearer_of(request) or "", repo_id, rev, path)
    ticket = decisions.find(key)
    if ticket is None:
        ticket = await run_in_threadpool(_decide, begin, repo_id, rev, path)
        decisions.keep(key, ticket)
    return ticket


@router.head("/{ns}/{name}/resolve/{rest:path}", response_model=None)
async def head_file(request: Request, begin: BeginPublic, ns: str, name: str) -> Response:
    """Answer a file's metadata; at a branch or tag, send the client on to the exact commit.

    The redirect pins the GET that follows: without it a push in between would store new bytes
    under the old ETag.
    """
    rev, path = split_after(request, "/resolve/")
    ticket = await _head(request, begin, f"{ns}/{name}", rev, path)
    headers = _headers(ticket)
    if not is_commit(rev):
        raw = request.scope["raw_path"].decode("latin-1").partition("?")[0]
        before, _, rest = raw.partition("/resolve/")
        target = f"{before}/resolve/{ticket.commit}/{rest.partition('/')[2]}"
        del headers["Content-Type"]
        return RedirectResponse(target, status_code=307, headers=headers)
    return Response(status_code=200, headers=headers | {"Content-Length": str(ticket.copy.size)})


@router.get("/{ns}/{name}/resolve/{rest:path}", response_model=None)
async def get_file(request: Request, begin: BeginPublic, ns: str, name: str) -> Response:
    """Deliver a file, whole or one range of it. Nothing is held but the file while bytes flow."""
    rev, path = split_after(request, "/resolve/")
    at_edge = request.app.state.settings.delivery == "accel"
    ticket, located = await run_in_threadpool(
        _prepare_bytes, request, begin, f"{ns}/{name}", rev, path, at_edge=at_edge
    )
    return deliver(request, ticket, located)


def _prepare_bytes(
    request: Request, begin: BeginWork, repo_id: str, rev: str, path: str, *, at_edge: bool
) -> tuple[Ticket, LocalBlob | RemoteBlob]:
    """Return the ticket and where its bytes lie.

    Raises:
        Unavailable: the store does not have bytes that the catalog says it has.
    """
    blobs: BlobStore = request.app.state.blobs
    ticket = _record(request, begin, repo_id, rev, path, at_edge=at_edge)
    try:
        located = blobs.locate(ticket.copy.sha256)
    except NotFound as error:
        _abandon(request, ticket)
        log.error("blob missing", sha256=ticket.copy.sha256, path=path)
        raise Unavailable(
            "The store is missing this file's bytes; the operators were told.",
            retry_after=300,
            reason="blob.missing",
        ) from error
    if not isinstance(located, LocalBlob):
        _abandon(request, ticket)  # somebody else sends them
    return ticket, located


def _abandon(request: Request, ticket: Ticket) -> None:
    """Forget the passage of an answer that makes the edge send nothing."""
    if ticket.passage_id is not None:
        edge.abandon(request.app.state.works, ticket.passage_id)


def deliver(request: Request, ticket: Ticket, located: LocalBlob | RemoteBlob) -> Response:
    """Turn a ticket into the response that carries its bytes."""
    state = request.app.state
    headers = _headers(ticket)
    if not isinstance(located, LocalBlob):
        return RedirectResponse(located.url, status_code=302, headers=headers)
    if state.settings.delivery == "accel":

        async def unread() -> None:
            await run_in_threadpool(_abandon, request, ticket)

        return accel_response(
            request,
            located,
            headers,
            root=state.settings.blobs_dir,
            prefix=state.settings.accel_prefix,
            download_id=ticket.passage_id,
            unread=unread,
        )
    return _watched(request, ticket, located, headers)


def _watched(
    request: Request, ticket: Ticket, located: LocalBlob, headers: dict[str, str]
) -> Response:
    works, sentinel = request.app.state.works, request.app.state.sentinel

    def done(first: int, sent: int, outcome: str) -> None:
        if ticket.download_id is not None:
            downloads.finish(works, ticket.download_id, first=first, sent=sent, outcome=outcome)

    return watched(
        request,
        located,
        headers,
        recheck=lambda: downloads.recheck(sentinel.works, ticket),
        epoch=ticket.epoch,
        until=ticket.until,
        done=done,
    )


@router.get("/{alias}/resolve/{rest:path}", response_model=None)
@router.head("/{alias}/resolve/{rest:path}", response_model=None)
def alias_file(begin: BeginPublic, alias: str) -> None:
    """Send a name without a namespace to its repository, when the caller may know it."""
    with begin(read_only=True) as work:
        entitlements.see(work, work.actor, alias)

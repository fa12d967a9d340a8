"""Files attached to evidence: taken as a stream, handed out as downloads and never inline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from stagerelease.db.epoch import read_epoch
from stagerelease.evidence import service
from stagerelease.evidence.queries import AttachmentRow
from stagerelease.http.begin import Begin, BeginPublic, BeginWork, begin_over
from stagerelease.http.watched import watched
from stagerelease.http.wire import Instant, Out
from stagerelease.kernel.errors import DomainError
from stagerelease.storage.ports import BlobStore, LocalBlob, StoredBlob

router = APIRouter(tags=["evidence"])

Id = Annotated[str, Path(max_length=64)]
PIECE = 1 << 20
BINARY = "application/octet-stream"
_BYTES = {"type": "string", "format": "binary"}


class AttachmentOut(Out):
    """A file attached to it."""

    id: str
    filename: str
    sha256: str
    size: int
    added_by: str
    added_at: Instant


@router.post(
    "/api/v1/evidence/{evidence_id}/attachments",
    status_code=201,
    openapi_extra={"requestBody": {"required": True, "content": {BINARY: {"schema": _BYTES}}}},
)
async def attach(
    request: Request,
    evidence_id: Id,
    begin: Begin,
    filename: Annotated[str, Query(min_length=1, max_length=400)],
    sha256: Annotated[str | None, Query(max_length=128)] = None,
) -> AttachmentOut:
    """Attach a file: the body is its bytes, whatever its type; ``sha256`` has them checked."""
    blobs: BlobStore = request.app.state.blobs
    limit: int = request.app.state.settings.max_attachment_bytes
    await run_in_threadpool(_begin_attaching, begin, evidence_id, filename, sha256)
    with service.Receiver(blobs, limit=limit) as receiver:
        async for piece in _pieces(request):
            await run_in_threadpool(receiver.write, piece)
        await run_in_threadpool(_may_keep, begin, evidence_id, filename, receiver.sha256)
        stored = await run_in_threadpool(receiver.finish, sha256)
    row = await run_in_threadpool(_attached, begin, blobs, evidence_id, filename, stored)
    return AttachmentOut.model_validate(row)


def _begin_attaching(begin: BeginWork, evidence_id: str, filename: str, sha256: str | None) -> None:
    with begin(read_only=True) as work:  # who may not makes nobody wait for a writer
        service.check_may_attach(work, evidence_id)
    with begin(quiet=True) as work:
        service.begin_attaching(work, evidence_id, filename=filename, sha256=sha256)


def _may_keep(begin: BeginWork, evidence_id: str, filename: str, sha256: str) -> None:
    with begin(read_only=True) as work:
        service.check_may_keep(work, evidence_id, filename=filename, sha256=sha256)


def _attached(
    begin: BeginWork, blobs: BlobStore, evidence_id: str, filename: str, stored: StoredBlob
) -> AttachmentRow:
    with begin() as work:
        return service.note_attached(work, blobs, evidence_id, filename=filename, stored=stored)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    piece = bytearray()
    async for chunk in request.stream():
        piece += chunk
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


@router.get(
    "/api/v1/evidence/{evidence_id}/attachments/{attachment_id}",
    response_class=Response,
    response_model=None,
    responses={200: {"content": {BINARY: {"schema": _BYTES}}, "description": "The bytes."}},
)
async def download_attachment(
    request: Request, evidence_id: Id, attachment_id: Id, begin: BeginPublic
) -> Response:
    """Download an attached file; it is never shown as a page, whatever it holds.

    Bytes in flight are cut, as those of weights are, when the caller may not have them any more.
    """
    blobs: BlobStore = request.app.state.blobs
    opened = await run_in_threadpool(_open, begin, evidence_id, attachment_id)
    row = opened.row
    headers = {
        "Content-Type": BINARY,
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(row.filename, safe='')}",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, no-store",
        "Vary": "Authorization",
        "ETag": f'"{row.sha256}"',
    }
    located = await run_in_threadpool(blobs.locate, row.sha256)
    if isinstance(located, LocalBlob):
        # A crowd of requests must not keep the question waiting whether bytes may go on.
        again = begin_over(request.app.state.sentinel.works, request)
        return watched(
            request,
            located,
            headers,
            recheck=lambda: _still(again, row),
            epoch=opened.epoch,
            until=opened.until,
        )
    # Bytes elsewhere pass through here: another origin would not send these headers.
    headers["Content-Length"] = str(row.size)
    return StreamingResponse(_read(blobs.open(row.sha256)), headers=headers)


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file that may be downloaded: until when at the latest, decided under which epoch."""

    row: AttachmentRow
    epoch: int
    until: datetime | None


def _open(begin: BeginWork, evidence_id: str, attachment_id: str) -> _Opened:
    with begin(read_only=True) as work:
        epoch = read_epoch(work.session.connection())
        row = service.open_attachment(work, evidence_id, attachment_id)
        return _Opened(row, epoch, work.actor.until)


def _still(begin: BeginWork, row: AttachmentRow) -> tuple[bool, datetime | None]:
    try:
        again = _open(begin, row.evidence_id, row.id)
    except DomainError:
        return False, None
    return again.row.sha256 == row.sha256, again.until


def _read(reader: BinaryIO) -> Iterator[bytes]:
    with reader:
        while piece := reader.read(PIECE):
            yield piece

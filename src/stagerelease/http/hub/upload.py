"""What Hub clients call to upload: create, preupload, LFS batch and PUT, verify, commit, refs.

The two routes that carry many bytes (PUT and commit) take them as a stream, hand each piece to a
thread and keep no more than one piece in memory. No Work is open while bytes flow.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from stagerelease.catalog import commits, uploads
from stagerelease.catalog.queries import RevisionRow
from stagerelease.catalog.uploads import Announced
from stagerelease.http.begin import Begin, BeginPublic, BeginWork
from stagerelease.http.hub.wire import speak_hub
from stagerelease.http.wire import origin_of
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.errors import Invalid, TooLarge
from stagerelease.storage.ports import BlobStore

router = APIRouter(tags=["hub"], dependencies=[Depends(speak_hub)], include_in_schema=False)

PREUPLOAD_LIMIT = 4_000_000
COMMIT_LIMIT = 1_000_000_000
PIECE = 4 << 20
LFS_JSON = "application/vnd.git-lfs+json"


class HubIn(BaseModel):
    """A body of a Hub client: unknown fields are left alone, since clients add some."""

    model_config = ConfigDict(extra="ignore", str_max_length=2_000_000)


class RepoIn(HubIn):
    """A repository to create."""

    name: str
    organization: str | None = None
    type: str | None = None


class YamlIn(HubIn):
    """A README whose metadata is to be checked."""

    content: str


class AnnouncedIn(HubIn):
    """A file about to be uploaded."""

    path: str
    size: Annotated[int, Field(ge=0)]
    sample: str = ""


class PreuploadIn(HubIn):
    """Files about to be uploaded."""

    files: Annotated[list[AnnouncedIn], Field(max_length=10_000)]


class ObjectIn(HubIn):
    """An LFS object."""

    oid: str
    size: Annotated[int, Field(ge=0)]


class BatchIn(HubIn):
    """An LFS batch request."""

    operation: str
    objects: list[ObjectIn]


class BranchIn(HubIn):
    """Where a new branch starts."""

    startingPoint: str | None = None  # noqa: N815 (the protocol's spelling)


class TagIn(HubIn):
    """A tag to make."""

    tag: str


@router.post("/api/repos/create", response_model=None)
def create_repo(request: Request, begin: Begin, body: RepoIn) -> JSONResponse:
    """Make a repository; 409 with its address when it is there already."""
    if body.type not in (None, "model"):
        raise Invalid(f"{body.type!r} repositories are not kept here, only models.", reason="type")
    with begin() as work:
        row, made = uploads.create_repo(work, namespace=body.organization, name=body.name)
    answer: dict[str, Any] = {"url": f"{origin_of(request)}/{row.repo_id}", "name": row.repo_id}
    if made:
        return JSONResponse(answer)
    return JSONResponse(answer | {"error": f"{row.repo_id} exists already"}, status_code=409)


@router.post("/api/validate-yaml")
def validate_yaml(begin: Begin, body: YamlIn) -> dict[str, list[dict[str, str]]]:
    """Check the metadata block of a README."""
    with begin(read_only=True) as work:
        require(work.actor, Permission.CATALOG_WRITE)
    return {"errors": [{"message": m} for m in uploads.card_errors(body.content)], "warnings": []}


@router.post("/api/models/{ns}/{name}/preupload/{rev:path}")
async def preupload(
    request: Request, begin: Begin, ns: str, name: str, rev: str
) -> dict[str, list[dict[str, Any]]]:
    """Say for each file whether to send it as LFS object or in the commit."""
    await run_in_threadpool(_may_write, begin, f"{ns}/{name}")
    body = await _body(request, PREUPLOAD_LIMIT)
    try:
        announced = PreuploadIn.model_validate_json(body)
        files = [
            Announced(f.path, f.size, base64.b64decode(f.sample, validate=True))
            for f in announced.files
        ]
    except (ValueError, binascii.Error) as error:
        raise Invalid("The list of files cannot be read.", reason="upload.preupload") from error
    advice = await run_in_threadpool(_preupload, begin, f"{ns}/{name}", rev, files)
    return {
        "files": [
            {
                "path": a.path,
                "uploadMode": "lfs" if a.lfs else "regular",
                "shouldIgnore": a.ignored,
                "oid": a.oid,
            }
            for a in advice
        ]
    }


def _preupload(
    begin: BeginWork, repo_id: str, rev: str, files: list[Announced]
) -> list[uploads.Advice]:
    with begin(read_only=True) as work:
        return uploads.preupload(work, repo_id=repo_id, rev=rev, files=files)


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"This call takes at most {limit:,} bytes.", reason="too-large.body")
    return bytes(body)


@router.post("/{ns}/{name}.git/info/lfs/objects/batch")
def lfs_batch(request: Request, begin: Begin, ns: str, name: str, body: BatchIn) -> JSONResponse:
    """Hand out an address for each object that is not stored (git-lfs batch API)."""
    if body.operation != "upload":
        raise Invalid("Only uploads go this way; download by resolve.", reason="lfs.operation")
    blobs: BlobStore = request.app.state.blobs
    with begin() as work:
        wanted = uploads.lfs_batch(
            work, blobs, repo_id=f"{ns}/{name}", objects=[(o.oid, o.size) for o in body.objects]
        )
    origin = origin_of(request)
    verify = {"href": f"{origin}/{ns}/{name}.git/info/lfs/verify"}
    objects: list[dict[str, Any]] = []
    for one in wanted:
        entry: dict[str, Any] = {"oid": one.sha256, "size": one.size, "authenticated": True}
        if one.ticket is not None:
            href = f"{origin}/api/uploads/{one.ticket}/{one.secret}"
            entry["actions"] = {"upload": {"href": href}, "verify": verify}
        objects.append(entry)
    answer = {"transfer": "basic", "objects": objects, "hash_algo": "sha256"}
    return JSONResponse(answer, media_type=LFS_JSON)


@router.post("/{ns}/{name}.git/info/lfs/verify")
def lfs_verify(
    request: Request, begin: Begin, ns: str, name: str, body: ObjectIn
) -> dict[str, str]:
    """Tell whether an object arrived whole."""
    blobs: BlobStore = request.app.state.blobs
    with begin(read_only=True) as work:
        uploads.verify(work, blobs, repo_id=f"{ns}/{name}", sha256=body.oid, size=body.size)
    return {"message": "stored"}


@router.put("/api/uploads/{ticket_id}/{secret}", response_model=None)
async def put_object(
    request: Request, begin: BeginPublic, ticket_id: str, secret: str
) -> JSONResponse:
    """Take one object. The address itself is the permission: clients send no token here."""
    ticket = await run_in_threadpool(_present, begin, ticket_id, secret)
    blobs: BlobStore = request.app.state.blobs
    with uploads.Receiver(blobs, ticket) as receiver:
        async for piece in _pieces(request):
            await run_in_threadpool(receiver.write, piece)
        await run_in_threadpool(receiver.finish)
    await run_in_threadpool(_received, begin, blobs, ticket)
    return JSONResponse({"message": "stored"}, headers={"ETag": f'"{ticket.sha256}"'})


def _present(begin: BeginWork, ticket_id: str, secret: str) -> uploads.Ticket:
    with begin(read_only=True) as work:
        return uploads.present_ticket(work, ticket_id, secret)


def _received(begin: BeginWork, blobs: BlobStore, ticket: uploads.Ticket) -> None:
    with begin(quiet=True) as work:
        uploads.note_received(work, blobs, ticket)


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    """Gather the body into pieces large enough to be worth a trip to a thread."""
    piece = bytearray()
    async for chunk in request.stream():
        piece += chunk
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


@router.post("/api/models/{ns}/{name}/commit/{rev:path}")
async def commit(request: Request, begin: Begin, ns: str, name: str, rev: str) -> dict[str, Any]:
    """Record a revision from newline-delimited JSON: a header, then one operation a line."""
    repo_id = f"{ns}/{name}"
    await run_in_threadpool(_may_write, begin, repo_id)
    blobs: BlobStore = request.app.state.blobs
    draft = commits.Draft(blobs)
    async for line in _lines(request):
        await run_in_threadpool(draft.add_line, line)
    row: RevisionRow = await run_in_threadpool(
        commits.commit, begin, blobs, repo_id=repo_id, branch=rev, draft=draft
    )
    return {
        "success": True,
        "commitOid": row.id,
        "commitUrl": f"{origin_of(request)}/{repo_id}/commit/{row.id}",
        "hookOutput": "",
    }


def _may_write(begin: BeginWork, repo_id: str) -> None:
    with begin(read_only=True) as work:
        uploads.load_writable(work, repo_id)


async def _lines(request: Request) -> AsyncIterator[bytes]:
    rest, seen = bytearray(), 0
    async for chunk in request.stream():
        seen += len(chunk)
        if seen > COMMIT_LIMIT:
            raise TooLarge(f"A commit has at most {COMMIT_LIMIT:,} bytes.", reason="upload.size")
        *lines, last = chunk.split(b"\n")
        for line in lines:
            yield bytes(rest + line)
            rest.clear()
        rest += last
        if len(rest) > commits.LONGEST_LINE:
            raise TooLarge(
                "A file in a commit is larger than 10 MB.",
                reason="upload.size",
                next_step="Send it as an LFS object.",
            )
    if rest:
        yield bytes(rest)


@router.post("/api/models/{ns}/{name}/branch/{branch:path}")
def create_branch(begin: Begin, ns: str, name: str, branch: str, body: BranchIn) -> dict[str, str]:
    """Make a branch; 409 when it is there."""
    with begin() as work:
        ref = uploads.create_branch(
            work, repo_id=f"{ns}/{name}", branch=branch, start=body.startingPoint
        )
    return {"name": ref.name, "targetCommit": ref.revision_id}


@router.delete("/api/models/{ns}/{name}/branch/{branch:path}")
def delete_branch(begin: Begin, ns: str, name: str, branch: str) -> dict[str, str]:
    """Remove a branch; its revisions stay."""
    with begin() as work:
        uploads.delete_ref(work, repo_id=f"{ns}/{name}", name=branch, kind="branch")
    return {}


@router.post("/api/models/{ns}/{name}/tag/{rev:path}")
def create_tag(begin: Begin, ns: str, name: str, rev: str, body: TagIn) -> dict[str, str]:
    """Make a tag; 409 when it is there."""
    with begin() as work:
        ref = uploads.create_tag(work, repo_id=f"{ns}/{name}", tag=body.tag, rev=rev)
    return {"name": ref.name, "targetCommit": ref.revision_id}


@router.delete("/api/models/{ns}/{name}/tag/{tag:path}")
def delete_tag(begin: Begin, ns: str, name: str, tag: str) -> dict[str, str]:
    """Remove a tag."""
    with begin() as work:
        uploads.delete_ref(work, repo_id=f"{ns}/{name}", name=tag, kind="tag")
    return {}

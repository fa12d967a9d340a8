"""How Hub clients want things spelled: error codes in headers, dates, JSON shapes.

Clients classify an error by ``X-Error-Code`` alone and show ``X-Error-Message`` to the user.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from fastapi import Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from stagerelease.catalog.queries import FileRow, RevisionRow
from stagerelease.downloads.service import FileMissing
from stagerelease.entitlements.service import Entitled, Moved
from stagerelease.http.problems import headers_of, status_of
from stagerelease.http.wire import origin_of
from stagerelease.kernel.clock import iso
from stagerelease.kernel.digests import lfs_pointer
from stagerelease.kernel.errors import DomainError, Gated, Invalid, NotFound, Unauthenticated

_LINE = re.compile(r"[^\x20-\x7e\xa0-\xff]+")


def header_text(text: str) -> str:
    """Return ``text`` as one line of Latin-1, which is all a header value may hold."""
    return _LINE.sub(" ", text).strip()[:900]


def _code(error: DomainError, *, anonymous: bool) -> tuple[int, str | None]:
    """Return status and ``X-Error-Code`` (hub-protocol table of situations)."""
    if isinstance(error, Gated):
        return (401 if error.anonymous else 403), "GatedRepo"
    if isinstance(error, FileMissing):
        return 404, "EntryNotFound"
    if isinstance(error, NotFound) and error.reason == "repo":
        return (401 if anonymous else 404), "RepoNotFound"
    if isinstance(error, NotFound) and error.reason == "revision":
        return 404, "RevisionNotFound"
    if isinstance(error, Invalid):
        return 400, None
    return status_of(error), None


def _redirect(request: Request, alias: str, repo_id: str) -> Response:
    """Return a 307 to the same address under the canonical repository id, on the same origin."""
    raw = request.scope["raw_path"].decode("latin-1").partition("?")[0]
    target = raw.replace(f"/{alias}", f"/{repo_id}", 1)
    query = request.scope["query_string"].decode("latin-1")
    return RedirectResponse(f"{target}?{query}" if query else target, status_code=307)


def hub_error(error: DomainError, request: Request) -> Response:
    """Return ``error`` in the shape that Hub clients classify and show."""
    if isinstance(error, Moved):
        return _redirect(request, error.alias, error.repo_id)
    anonymous = "authorization" not in request.headers
    status, code = _code(error, anonymous=anonymous)
    message = error.sentence
    if not isinstance(error, Unauthenticated) and error.next_step:
        message = f"{message} {error.next_step}"
    if isinstance(error, Gated):
        repo = "/".join(request.path_params.get(k, "") for k in ("ns", "name"))
        message = f"{message} See {origin_of(request)}/{repo} ({error.reason})."
    headers = headers_of(error)
    headers["X-Error-Message"] = header_text(message)
    if isinstance(error, Gated):
        # `hf download` replaces the message of a gated error by its own; a warning it prints whole.
        headers["X-HF-Warning"] = header_text(f"gate {error.reason}; {message}")
    if code is not None:
        headers["X-Error-Code"] = code
    if isinstance(error, FileMissing):
        headers["X-Repo-Commit"] = error.commit
    body = {"error": message, "reason": error.reason}
    return JSONResponse(body, status, headers)


async def speak_hub(request: Request) -> None:
    """Mark a request as one whose errors leave in the Hub's shape."""
    request.state.respond_error = hub_error


def split_after(request: Request, marker: str) -> tuple[str, str]:
    """Return the revision and the path that follow ``marker`` in the raw address.

    A revision may hold ``/`` percent-encoded; a path keeps its slashes. Only the raw address can
    tell them apart, so it is split before it is decoded.
    """
    raw = request.scope["raw_path"].decode("latin-1").partition("?")[0]
    _, _, rest = raw.partition(marker)
    revision, _, path = rest.partition("/")
    return unquote(revision), unquote(path)


def lfs_of(file: FileRow, *, oid_key: str) -> dict[str, Any]:
    """Return the ``lfs`` object of a file; siblings spell its digest ``sha256``, trees ``oid``."""
    pointer = len(lfs_pointer(file.sha256, file.size))
    return {oid_key: file.sha256, "size": file.size, "pointerSize": pointer}


def sibling(file: FileRow, *, blobs: bool) -> dict[str, Any]:
    """Return one entry of ``siblings``."""
    entry: dict[str, Any] = {"rfilename": file.path}
    if blobs:
        entry |= {"size": file.size, "blobId": file.git_oid}
        if file.lfs:
            entry["lfs"] = lfs_of(file, oid_key="sha256")
    return entry


def tree_entry(file: FileRow, revision: RevisionRow, *, expand: bool) -> dict[str, Any]:
    """Return one file of a tree listing."""
    entry: dict[str, Any] = {
        "type": "file",
        "path": file.path,
        "size": file.size,
        "oid": file.git_oid,
    }
    if file.lfs:
        entry["lfs"] = lfs_of(file, oid_key="oid")
    if expand:
        entry["lastCommit"] = last_commit(revision)
    return entry


def last_commit(revision: RevisionRow) -> dict[str, str]:
    """Return the ``lastCommit`` of a tree entry."""
    title = revision.message.partition("\n")[0]
    return {"id": revision.id, "title": title, "date": iso(revision.created_at)}


def model_object(
    entitled: Entitled, files: Sequence[FileRow], *, blobs: bool = False
) -> dict[str, Any]:
    """Return a repository as ``model_info`` and ``list_models`` give it.

    ``files`` holds what the caller may know of; the stage and the caller's own standing are ours.
    """
    revision = entitled.revision
    return {
        "_id": entitled.variant.id,
        "id": entitled.variant.repo_id,
        "modelId": entitled.variant.repo_id,
        "author": entitled.variant.repo_id.partition("/")[0],
        "sha": revision.id,
        "private": entitled.stage in (None, "internal") or not entitled.decision.visible,
        "gated": "manual" if entitled.gated else False,
        "disabled": False,  # a hold is told by the gate, whose message clients show
        "lastModified": iso(revision.created_at),
        "createdAt": iso(revision.created_at),
        "tags": ["safetensors", "text-generation", f"stage:{entitled.stage or 'unreleased'}"],
        "pipeline_tag": "text-generation",
        "library_name": "transformers",
        "downloads": 0,
        "likes": 0,
        "siblings": [sibling(file, blobs=blobs) for file in files],
        "stagerelease": {
            "stage": entitled.stage,
            "allowed": entitled.decision.allowed,
            "reason": entitled.decision.reason,
        },
    }

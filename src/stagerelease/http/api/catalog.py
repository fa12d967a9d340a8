"""The catalog over JSON, for staff: families, repositories, revisions with their files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from stagerelease.catalog import views
from stagerelease.http.begin import Begin
from stagerelease.http.wire import Instant, Out, Paging, paged

router = APIRouter(prefix="/api/v1/catalog", tags=["catalog"])
Part = Annotated[str, Path(max_length=96)]


class FamilyOut(Out):
    """A family of models."""

    id: str
    name: str
    description: str


class RefOut(Out):
    """A branch or tag."""

    name: str
    kind: str
    revision_id: str


class RepoOut(Out):
    """A repository: a variant, its other names, and where its refs stand."""

    id: str
    family_id: str
    label: str
    repo_id: str
    parameters: int | None
    aliases: list[str]
    refs: list[RefOut]


class FileOut(Out):
    """A file of a revision."""

    path: str
    size: int
    sha256: str
    git_oid: str
    lfs: bool
    kind: str


class RevisionOut(Out):
    """A revision with its files."""

    id: str
    parent_id: str | None
    message: str
    manifest_sha256: str
    parameters: int | None
    total_bytes: int
    created_at: Instant
    files: list[FileOut]


@router.get("/families")
def list_families(
    request: Request, response: Response, begin: Begin, page: Paging
) -> list[FamilyOut]:
    """List families, by id."""
    with begin(read_only=True) as work:
        rows = views.list_families(work)
        part = paged(request, response, rows, page, key=lambda r: r.id)
        return [FamilyOut.model_validate(row) for row in part]


@router.get("/repos")
def list_repos(request: Request, response: Response, begin: Begin, page: Paging) -> list[RepoOut]:
    """List every repository, released or not."""
    with begin(read_only=True) as work:
        rows = views.list_repos(work)
        part = paged(request, response, rows, page, key=lambda r: r.repo_id)
        return [RepoOut.model_validate(row) for row in part]


@router.get("/repos/{ns}/{name}/revisions")
def list_revisions(
    request: Request, response: Response, begin: Begin, ns: Part, name: Part, page: Paging
) -> list[RevisionOut]:
    """List the revisions of a repository, newest first, with their files."""
    with begin(read_only=True) as work:
        rows = views.list_revisions(work, f"{ns}/{name}")
        part = paged(request, response, rows, page, key=lambda r: r.id)
        return [RevisionOut.model_validate(views.with_files(work, row)) for row in part]

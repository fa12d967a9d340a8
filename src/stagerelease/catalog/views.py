"""The catalog as staff see it: everything, released or not. Reads only, after one permission."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stagerelease.catalog import queries
from stagerelease.catalog.queries import FamilyRow, FileRow, RefRow, RevisionRow
from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.errors import NotFound


@dataclass(frozen=True, slots=True)
class RepoView:
    """A variant with its other names and its refs."""

    id: str
    family_id: str
    label: str
    repo_id: str
    parameters: int | None
    aliases: list[str]
    refs: list[RefRow]


@dataclass(frozen=True, slots=True)
class RevisionView:
    """A revision with its files."""

    id: str
    parent_id: str | None
    message: str
    manifest_sha256: str
    parameters: int | None
    total_bytes: int
    created_at: datetime
    files: list[FileRow]


def list_families(work: Work) -> list[FamilyRow]:
    """Return every family."""
    require(work.actor, Permission.CATALOG_READ_INTERNAL)
    return queries.list_families(work)


def list_repos(work: Work) -> list[RepoView]:
    """Return every repository, by family and size."""
    require(work.actor, Permission.CATALOG_READ_INTERNAL)
    return [
        RepoView(
            id=variant.id,
            family_id=variant.family_id,
            label=variant.label,
            repo_id=variant.repo_id,
            parameters=variant.parameters,
            aliases=queries.list_aliases(work, variant.id),
            refs=queries.list_refs(work, variant.id),
        )
        for variant in queries.list_variants(work)
    ]


def list_revisions(work: Work, repo_id: str) -> list[RevisionRow]:
    """Return the revisions of a repository, newest first.

    Raises:
        NotFound: there is no such repository.
    """
    require(work.actor, Permission.CATALOG_READ_INTERNAL)
    return queries.list_revisions(work, queries.load_variant(work, repo_id).id)


def with_files(work: Work, row: RevisionRow) -> RevisionView:
    """Return a revision together with its files."""
    require(work.actor, Permission.CATALOG_READ_INTERNAL)
    return RevisionView(
        id=row.id,
        parent_id=row.parent_id,
        message=row.message,
        manifest_sha256=row.manifest_sha256,
        parameters=row.parameters,
        total_bytes=row.total_bytes,
        created_at=row.created_at,
        files=queries.files(work, row.id),
    )


def load_view(work: Work, repo_id: str, rev: str = "main") -> RevisionView:
    """Return the revision that ``rev`` means in a repository, with its files.

    Raises:
        NotFound: there is no such repository or revision.
    """
    require(work.actor, Permission.CATALOG_READ_INTERNAL)
    variant = queries.load_variant(work, repo_id)
    found = queries.resolve_rev(work, variant.id, rev)
    if found is None:
        raise NotFound(f"{variant.repo_id} has no revision {rev!r}.", reason="revision")
    return with_files(work, queries.load_revision(work, found))


def load_architecture(work: Work, repo_id: str) -> dict[str, Any]:
    """Return the figures that a variant's config must state.

    Raises:
        NotFound: there is no such repository, or no architecture was stated for it.
    """
    require(work.actor, Permission.CATALOG_READ_INTERNAL)
    variant = queries.load_variant(work, repo_id)
    architecture = queries.architecture_of(work, variant.id)
    if architecture is None:
        raise NotFound(f"{variant.repo_id} has no stated architecture.", reason="architecture")
    return architecture

"""Reads of families, variants, refs, revisions and their files, as frozen rows.

Nothing here decides who may see what; ``entitlements`` does, from these rows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import literal, select

from stagerelease.catalog.attested import card_lock as card_lock
from stagerelease.catalog.attested import manifest_signatures as manifest_signatures
from stagerelease.catalog.rules import kind_of as kind_of
from stagerelease.catalog.tables import (
    Blob,
    Family,
    Ref,
    RepoAlias,
    Revision,
    RevisionFile,
    Variant,
)
from stagerelease.db.work import Work
from stagerelease.kernel.digests import is_commit
from stagerelease.kernel.errors import NotFound

_SHORT = re.compile(r"[0-9a-f]{7,39}\Z")


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """A family of models."""

    id: str
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class VariantRow:
    """A variant of a family. ``parameters`` is the exact count, None until it is known."""

    id: str
    family_id: str
    label: str
    repo_id: str
    parameters: int | None


@dataclass(frozen=True, slots=True)
class RevisionRow:
    """A revision. ``parameters`` is counted from its weight files' headers."""

    id: str
    variant_id: str
    parent_id: str | None
    message: str
    manifest_sha256: str
    parameters: int | None
    total_bytes: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file of a revision."""

    revision_id: str
    path: str
    size: int
    sha256: str
    git_oid: str
    lfs: bool
    kind: str


@dataclass(frozen=True, slots=True)
class RefRow:
    """A branch or tag."""

    name: str
    kind: str
    revision_id: str


@dataclass(frozen=True, slots=True)
class BlobRow:
    """Bytes known to be in the store; ``corrupt_at`` is when they last failed to verify."""

    sha256: str
    size: int
    created_at: datetime
    verified_at: datetime | None
    corrupt_at: datetime | None


_VARIANT = select(Variant.id, Variant.family_id, Variant.label, Variant.repo_id, Variant.parameters)
_REVISION = select(
    Revision.id,
    Revision.variant_id,
    Revision.parent_id,
    Revision.message,
    Revision.manifest_sha256,
    Revision.parameters,
    Revision.total_bytes,
    Revision.created_at,
)
_FILE = select(
    RevisionFile.revision_id,
    RevisionFile.path,
    RevisionFile.size,
    RevisionFile.sha256,
    RevisionFile.git_oid,
    RevisionFile.lfs,
    RevisionFile.kind,
)


def list_families(work: Work) -> list[FamilyRow]:
    """Return every family, by id."""
    rows = work.session.execute(
        select(Family.id, Family.name, Family.description).order_by(Family.id)
    )
    return [FamilyRow(*row) for row in rows]


def find_variant(work: Work, repo_id: str) -> tuple[VariantRow, bool] | None:
    """Return the variant of a repository id and whether that id is an alias of it, or None."""
    row = work.session.execute(_VARIANT.where(Variant.repo_id == repo_id)).one_or_none()
    if row is not None:
        return VariantRow(*row), False
    row = work.session.execute(
        _VARIANT.join(RepoAlias, RepoAlias.variant_id == Variant.id).where(
            RepoAlias.alias == repo_id
        )
    ).one_or_none()
    return (VariantRow(*row), True) if row is not None else None


def load_variant(work: Work, repo_id: str) -> VariantRow:
    """Return the variant of a repository id or alias.

    Raises:
        NotFound: there is none.
    """
    found = find_variant(work, repo_id)
    if found is None:
        raise NotFound(f"There is no repository {repo_id!r} here.", reason="repo")
    return found[0]


def architecture_of(work: Work, variant_id: str) -> dict[str, Any] | None:
    """Return the architecture a variant must have, or None when it was not stated."""
    return work.session.execute(
        select(Variant.architecture).where(Variant.id == variant_id)
    ).scalar_one_or_none()


def list_variants(work: Work) -> list[VariantRow]:
    """Return every variant, by family and size."""
    rows = work.session.execute(
        _VARIANT.order_by(Variant.family_id, Variant.position, Variant.repo_id)
    )
    return [VariantRow(*row) for row in rows]


def page_variants(work: Work, *, after: str | None, limit: int) -> list[VariantRow]:
    """Return at most ``limit`` variants by repository id, from the one after ``after`` on."""
    statement = _VARIANT.order_by(Variant.repo_id).limit(limit)
    if after is not None:
        statement = statement.where(Variant.repo_id > after)
    return [VariantRow(*row) for row in work.session.execute(statement)]


def find_variants(work: Work, ids: Collection[str]) -> dict[str, VariantRow]:
    """Return the variants of these ids, at most 500, by id; unknown ids are left out."""
    if not ids:
        return {}
    rows = work.session.execute(_VARIANT.where(Variant.id.in_(sorted(ids)[:500])))
    return {row[0]: VariantRow(*row) for row in rows}


def list_aliases(work: Work, variant_id: str) -> list[str]:
    """Return the other names of a variant, in order."""
    rows = work.session.execute(
        select(RepoAlias.alias).where(RepoAlias.variant_id == variant_id).order_by(RepoAlias.alias)
    )
    return list(rows.scalars())


def _ref(work: Work, variant_id: str, name: str) -> RefRow | None:
    row = work.session.execute(
        select(Ref.name, Ref.kind, Ref.revision_id).where(
            Ref.variant_id == variant_id, Ref.name == name
        )
    ).one_or_none()
    return RefRow(*row) if row else None


def find_ref(work: Work, variant_id: str, name: str) -> str | None:
    """Return the revision a branch or tag points at, or None."""
    ref = _ref(work, variant_id, name)
    return ref.revision_id if ref else None


def is_branch(work: Work, variant_id: str, rev: str) -> bool:
    """Tell whether ``rev`` names a branch (``main`` or ``refs/heads/main``)."""
    ref = _ref(work, variant_id, rev.removeprefix("refs/heads/"))
    return ref is not None and ref.kind == "branch"


def list_refs(work: Work, variant_id: str) -> list[RefRow]:
    """Return branches and tags, by name."""
    rows = work.session.execute(
        select(Ref.name, Ref.kind, Ref.revision_id)
        .where(Ref.variant_id == variant_id)
        .order_by(Ref.name)
    )
    return [RefRow(*row) for row in rows]


def resolve_rev(work: Work, variant_id: str, rev: str) -> str | None:
    """Return the revision id that ``rev`` means in a variant, or None.

    ``rev`` is a branch, a tag (either also spelled in full, ``refs/heads/main``), a 40-hex id, or
    at least 7 hex digits that begin exactly one id.
    """
    name = rev.removeprefix("refs/heads/").removeprefix("refs/tags/")
    named = find_ref(work, variant_id, name)
    if named is not None:
        return named
    mine = select(Revision.id).where(Revision.variant_id == variant_id)
    if is_commit(rev):
        return work.session.execute(mine.where(Revision.id == rev)).scalar_one_or_none()
    if _SHORT.match(rev):
        found = work.session.execute(mine.where(Revision.id.startswith(rev)).limit(2)).scalars()
        ids = list(found)
        return ids[0] if len(ids) == 1 else None
    return None


def revision(work: Work, revision_id: str) -> RevisionRow | None:
    """Return a revision by its 40-hex id, or None."""
    row = work.session.execute(_REVISION.where(Revision.id == revision_id)).one_or_none()
    return RevisionRow(*row) if row else None


def load_revision(work: Work, revision_id: str) -> RevisionRow:
    """Return a revision by its 40-hex id.

    Raises:
        NotFound: there is none.
    """
    row = revision(work, revision_id)
    if row is None:
        raise NotFound(f"There is no revision {revision_id!r}.", reason="revision")
    return row


def find_revisions(work: Work, ids: Collection[str]) -> dict[str, RevisionRow]:
    """Return the revisions of these ids, at most 500, by id; unknown ids are left out."""
    if not ids:
        return {}
    rows = work.session.execute(_REVISION.where(Revision.id.in_(sorted(ids)[:500])))
    return {row[0]: RevisionRow(*row) for row in rows}


def lineage(
    work: Work, revision_id: str, limit: int = 100, *, only: Collection[str] | None = None
) -> list[RevisionRow]:
    """Return a revision and its ancestors, newest first, ``limit`` at most; of these, ``only``."""
    line = (
        select(Revision.id, Revision.parent_id, literal(1).label("depth"))
        .where(Revision.id == revision_id)
        .cte("line", recursive=True)
    )
    line = line.union_all(
        select(Revision.id, Revision.parent_id, line.c.depth + 1)
        .join(line, Revision.id == line.c.parent_id)
        .where(line.c.depth < limit)
    )
    statement = _REVISION.join(line, line.c.id == Revision.id).order_by(line.c.depth)
    if only is not None:
        statement = statement.where(Revision.id.in_(sorted(only)))
    rows = work.session.execute(statement)
    return [RevisionRow(*row) for row in rows]


def list_revisions(work: Work, variant_id: str) -> list[RevisionRow]:
    """Return every revision of a variant, newest first."""
    rows = work.session.execute(
        _REVISION.where(Revision.variant_id == variant_id).order_by(
            Revision.created_at.desc(), Revision.id
        )
    )
    return [RevisionRow(*row) for row in rows]


def files(work: Work, revision_id: str) -> list[FileRow]:
    """Return the files of a revision, by path."""
    rows = work.session.execute(
        _FILE.where(RevisionFile.revision_id == revision_id).order_by(RevisionFile.path)
    )
    return [FileRow(*row) for row in rows]


def find_file(work: Work, revision_id: str, path: str) -> FileRow | None:
    """Return one file of a revision, or None."""
    row = work.session.execute(
        _FILE.where(RevisionFile.revision_id == revision_id, RevisionFile.path == path)
    ).one_or_none()
    return FileRow(*row) if row else None


def kinds(work: Work, revision_id: str) -> frozenset[str]:
    """Return the artifact kinds among the files of a revision."""
    rows = work.session.execute(
        select(RevisionFile.kind).where(RevisionFile.revision_id == revision_id).distinct()
    )
    return frozenset(rows.scalars())


def find_blob(work: Work, sha256: str) -> BlobRow | None:
    """Return what is known of some bytes, or None."""
    found = find_blobs(work, [sha256])
    return found.get(sha256)


def find_blobs(work: Work, digests: Sequence[str]) -> dict[str, BlobRow]:
    """Return what is known of each of ``digests`` that is known, by digest."""
    found: dict[str, BlobRow] = {}
    for start in range(0, len(digests), 500):  # stay below every driver's parameter limit
        rows = work.session.execute(
            select(
                Blob.sha256, Blob.size, Blob.created_at, Blob.verified_at, Blob.corrupt_at
            ).where(Blob.sha256.in_(digests[start : start + 500]))
        )
        found.update({row[0]: BlobRow(*row) for row in rows})
    return found

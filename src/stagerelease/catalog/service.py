"""Use cases on the catalog: families, variants, revisions and refs.

A revision is recorded only after its bytes are durable in the store, and in one transaction with
its files, the branch that moves to it, and the log entry. Nothing here reads bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select

from stagerelease.catalog import queries
from stagerelease.catalog.queries import FamilyRow, RefRow, RevisionRow, VariantRow
from stagerelease.catalog.rules import (
    NewFile,
    check_kind,
    check_message,
    check_name,
    check_paths,
    check_ref,
    check_repo_id,
    manifest_sha256,
    revision_id,
)
from stagerelease.catalog.seed import FamilySeed, shipped
from stagerelease.catalog.stored import check_present, note_blobs
from stagerelease.catalog.tables import (
    Family,
    Ref,
    RepoAlias,
    Revision,
    RevisionFile,
    Variant,
)
from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.errors import Conflict, Invalid, NotFound, Stale
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.storage.ports import BlobStore


def ensure_family(work: Work, *, family_id: str, name: str, description: str = "") -> FamilyRow:
    """Return the family ``family_id``, adding it when it is not there."""
    require(work.actor, Permission.CATALOG_WRITE)
    family = work.session.get(Family, family_id)
    if family is None:
        check_repo_id(f"family/{family_id}")  # one alphabet for every name in an address
        family = Family(id=family_id, name=name, description=description)
        work.session.add(family)
        work.session.flush()  # variants refer to it
        ledger.append(
            work,
            type="catalog.family-added",
            subject=f"family:{family_id}",
            detail={"name": name},
        )
    return FamilyRow(family.id, family.name, family.description)


def ensure_variant(
    work: Work,
    *,
    family_id: str,
    label: str,
    repo_id: str,
    parameters: int | None = None,
    architecture: Mapping[str, Any] | None = None,
    aliases: Sequence[str] = (),
    position: int = 0,
) -> VariantRow:
    """Return the variant whose canonical repository is ``repo_id``, adding it and its aliases.

    Raises:
        Conflict: the id or an alias already names another variant.
        NotFound: there is no such family.
    """
    require(work.actor, Permission.CATALOG_WRITE)
    check_repo_id(repo_id)
    if work.session.get(Family, family_id) is None:
        raise NotFound(f"There is no family {family_id!r}.", reason="family.unknown")
    found = queries.find_variant(work, repo_id)
    if found is not None and found[1]:
        raise _taken(repo_id, found[0].repo_id)
    if found is None:
        variant = Variant(
            id=new_id("var"),
            family_id=family_id,
            label=label,
            repo_id=repo_id,
            parameters=parameters,
            architecture=dict(architecture) if architecture is not None else None,
            position=position,
            created_at=work.now,
        )
        work.session.add(variant)
        work.session.flush()  # aliases refer to it
        ledger.append(
            work,
            type="catalog.variant-added",
            subject=f"variant:{variant.id}",
            detail={"repo": repo_id, "parameters": parameters},
        )
    row = queries.load_variant(work, repo_id)
    for alias in aliases:
        held = queries.find_variant(work, alias)
        if held is None:
            check_repo_id(alias if "/" in alias else f"alias/{alias}")
            work.session.add(RepoAlias(alias=alias, variant_id=row.id))
        elif held[0].id != row.id:
            raise _taken(alias, held[0].repo_id)
    work.session.flush()  # a later lookup in this Work must find the aliases
    return row


def _taken(name: str, repo_id: str) -> Conflict:
    return Conflict(f"{name!r} already names {repo_id}.", reason="repo.taken")


def seed_family(work: Work, seed: FamilySeed) -> list[VariantRow]:
    """Add a family with its variants and aliases; what is there already stays as it is."""
    ensure_family(work, family_id=seed.id, name=seed.name, description=seed.description)
    return [
        ensure_variant(
            work,
            family_id=seed.id,
            label=variant.label,
            repo_id=variant.repo_id,
            parameters=variant.parameters,
            architecture=variant.architecture,
            aliases=variant.aliases,
            position=position,
        )
        for position, variant in enumerate(seed.variants)
    ]


def seed_gpt2(work: Work) -> list[VariantRow]:
    """Add the GPT-2 family as published in 2019; doing it again changes nothing."""
    return seed_family(work, shipped("gpt-2"))


def _lock_variant(work: Work, variant_id: str) -> Variant:
    variant = work.session.execute(
        select(Variant).where(Variant.id == variant_id).with_for_update()
    ).scalar_one_or_none()
    if variant is None:
        raise NotFound("There is no such variant.", reason="repo")
    return variant


def _lock_ref(work: Work, variant_id: str, name: str) -> Ref | None:
    return work.session.execute(
        select(Ref).where(Ref.variant_id == variant_id, Ref.name == name).with_for_update()
    ).scalar_one_or_none()


def record_revision(
    work: Work,
    *,
    variant_id: str,
    files: Sequence[NewFile],
    message: str,
    parent_id: str | None,
    ref: str = "main",
    parameters: int | None,
    blobs: BlobStore | None = None,
) -> RevisionRow:
    """Record a revision on top of ``parent_id`` and move the branch ``ref`` to it.

    The bytes are durable in the store already; with ``blobs``, that is looked at once more inside
    this transaction.

    Raises:
        Stale: the branch does not stand at ``parent_id``.
        Invalid: a path, name, kind or the message cannot be published.
        Unavailable: bytes are missing from the store.
    """
    require(work.actor, Permission.CATALOG_WRITE)
    message = check_message(message)
    check_paths(f.path for f in files)
    for file in files:
        check_name(file.path)
        check_kind(file.kind)
    variant = _lock_variant(work, variant_id)
    branch = _lock_ref(work, variant_id, check_ref(ref))
    _check_parent(work, variant, branch, ref, parent_id)
    manifest = manifest_sha256(files)
    revision = Revision(
        id=revision_id(
            variant_id=variant_id,
            parent_id=parent_id,
            message=message,
            created_at=work.now,
            manifest=manifest,
        ),
        variant_id=variant_id,
        parent_id=parent_id,
        message=message,
        author_id=work.actor.id if work.actor.is_human else None,
        manifest_sha256=manifest,
        parameters=parameters,
        total_bytes=sum(f.size for f in files),
        created_at=work.now,
    )
    work.session.add(revision)
    work.session.flush()  # files refer to it
    _write_files(work, revision.id, files, blobs)
    _move_branch(work, branch, revision, ref)
    work.session.flush()  # a lost race over the branch shows here, before the log is touched
    row = queries.load_revision(work, revision.id)
    _log_revision(work, variant, row, ref, len(files))
    return row


def _move_branch(work: Work, branch: Ref | None, revision: Revision, name: str) -> None:
    if branch is not None:
        branch.revision_id = revision.id
        return
    work.session.add(
        Ref(
            id=new_id("ref"),
            variant_id=revision.variant_id,
            name=name,
            kind="branch",
            revision_id=revision.id,
        )
    )


def _no_revision(revision_id: str, variant: Variant) -> NotFound:
    return NotFound(f"{revision_id[:8]} is no revision of {variant.repo_id}.", reason="revision")


def _check_parent(
    work: Work, variant: Variant, branch: Ref | None, ref: str, parent_id: str | None
) -> None:
    if branch is not None and branch.kind != "branch":
        raise Conflict(f"{ref!r} is a tag, and tags do not move.", reason="ref.tag")
    if branch is not None and branch.revision_id != parent_id:
        raise Stale(
            f"{ref} of {variant.repo_id} stands at {branch.revision_id[:8]}, not at "
            f"{parent_id[:8] if parent_id else 'nothing'}.",
            reason="ref.moved",
            next_step="Look at its present revision and try again.",
        )
    if branch is None and parent_id is not None:
        parent = queries.revision(work, parent_id)
        if parent is None or parent.variant_id != variant.id:
            raise _no_revision(parent_id, variant)


def _write_files(
    work: Work, revision: str, files: Sequence[NewFile], blobs: BlobStore | None
) -> None:
    note_blobs(work, {f.sha256: f.size for f in files})
    rows = [
        {
            "revision_id": revision,
            "path": f.path,
            "size": f.size,
            "sha256": f.sha256,
            "git_oid": f.git_oid,
            "lfs": f.lfs,
            "kind": f.kind,
        }
        for f in sorted(files, key=lambda f: f.path)
    ]
    work.session.execute(insert(RevisionFile), rows)
    # Only now, with rows that hold the blobs, is the look at the store one that stays true.
    if blobs is not None:
        check_present(blobs, {f.sha256: f.size for f in files})


def _log_revision(work: Work, variant: Variant, row: RevisionRow, ref: str, count: int) -> None:
    ledger.append(
        work,
        type="catalog.revision-imported",
        subject=f"revision:{row.id}",
        prev_state=row.parent_id,
        new_state=row.id,
        detail={
            "repo": variant.repo_id,
            "ref": ref,
            "manifest_sha256": row.manifest_sha256,
            "files": count,
            "bytes": row.total_bytes,
            "parameters": row.parameters,
            "message": row.message,
        },
    )


def create_ref(
    work: Work, *, variant_id: str, name: str, revision_id: str, kind: str = "tag"
) -> RefRow:
    """Add a branch or tag that points at a revision.

    Raises:
        Conflict: there is a branch or tag of that name.
        NotFound: the revision is not one of this variant.
    """
    require(work.actor, Permission.CATALOG_WRITE)
    check_ref(name)
    if kind not in ("branch", "tag"):
        raise Invalid(f"{kind!r} is neither branch nor tag.", reason="ref.kind")
    variant = _lock_variant(work, variant_id)
    target = queries.revision(work, revision_id)
    if target is None or target.variant_id != variant_id:
        raise _no_revision(revision_id, variant)
    if _lock_ref(work, variant_id, name) is not None:
        raise Conflict(f"{variant.repo_id} has a ref {name!r} already.", reason="ref.exists")
    work.session.add(
        Ref(id=new_id("ref"), variant_id=variant_id, name=name, kind=kind, revision_id=revision_id)
    )
    work.session.flush()
    ledger.append(
        work,
        type=f"catalog.{kind}-created",
        subject=f"variant:{variant_id}",
        new_state=revision_id,
        detail={"repo": variant.repo_id, "ref": name},
    )
    return RefRow(name, kind, revision_id)


def move_ref(
    work: Work, *, variant_id: str, name: str, revision_id: str, seen: str | None
) -> RefRow:
    """Point a branch or tag elsewhere; ``seen`` is the revision the caller believes it names.

    Raises:
        Stale: it names another one. NotFound: there is no such ref or revision.
    """
    require(work.actor, Permission.CATALOG_WRITE)
    variant = _lock_variant(work, variant_id)
    ref = _lock_ref(work, variant_id, name)
    target = queries.revision(work, revision_id)
    if ref is None or target is None or target.variant_id != variant_id:
        raise NotFound(f"{variant.repo_id} has no such ref or revision.", reason="revision")
    if ref.revision_id != seen:
        raise Stale(
            f"{name} of {variant.repo_id} stands at {ref.revision_id[:8]}.", reason="ref.moved"
        )
    previous, ref.revision_id = ref.revision_id, revision_id
    work.session.flush()
    ledger.append(
        work,
        type="catalog.ref-moved",
        subject=f"variant:{variant_id}",
        prev_state=previous,
        new_state=revision_id,
        detail={"repo": variant.repo_id, "ref": name},
    )
    return RefRow(name, ref.kind, revision_id)


def delete_ref(work: Work, *, variant_id: str, name: str, kind: str) -> None:
    """Remove a branch (never ``main``) or tag; its revisions stay.

    Raises:
        NotFound: there is none of that name and kind. Conflict: it is ``main``.
    """
    require(work.actor, Permission.CATALOG_WRITE)
    variant = _lock_variant(work, variant_id)
    ref = _lock_ref(work, variant_id, name)
    if ref is None or ref.kind != kind:
        raise NotFound(f"{variant.repo_id} has no {kind} {name!r}.", reason="revision")
    if name == "main":
        raise Conflict("The branch main cannot be removed.", reason="ref.main")
    work.session.delete(ref)
    work.session.flush()
    ledger.append(
        work,
        type=f"catalog.{kind}-deleted",
        subject=f"variant:{variant_id}",
        prev_state=ref.revision_id,
        detail={"repo": variant.repo_id, "ref": name},
    )

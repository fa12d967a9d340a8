"""Locks model cards: says of exactly these bytes that they are final. There is no unlocking."""

from __future__ import annotations

from stagerelease.catalog import queries
from stagerelease.catalog.attested import CARD, CardLockRow, card_lock
from stagerelease.catalog.tables import ModelCardLock
from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.errors import Conflict, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger


def lock_card(work: Work, repo_id: str, *, rev: str = "main") -> CardLockRow:
    """Lock the model card (README.md) that a revision holds, by its digest, for ever.

    Raises:
        NotFound: there is no such repository or revision, or it holds no model card.
        Conflict: this card is locked already.
    """
    require(work.actor, Permission.CARD_LOCK)
    variant = queries.load_variant(work, repo_id)
    revision_id = queries.resolve_rev(work, variant.id, rev)
    if revision_id is None:
        raise NotFound(f"{variant.repo_id} has no revision {rev!r}.", reason="revision")
    file = queries.find_file(work, revision_id, CARD)
    if file is None:
        raise NotFound(
            f"Revision {revision_id[:8]} of {variant.repo_id} holds no {CARD}, so there is no "
            "model card to lock.",
            reason="card.missing",
            next_step="Import a revision with a model card.",
        )
    if card_lock(work, revision_id) is not None:
        raise Conflict(
            f"The model card of {variant.repo_id} at {revision_id[:8]} is locked already.",
            reason="card.locked",
        )
    row = ModelCardLock(
        id=new_id("mcl"),
        variant_id=variant.id,
        revision_id=revision_id,
        path=CARD,
        sha256=file.sha256,
        locked_by=work.actor.id,
        at=work.now,
        leaf_idx=-1,
    )
    work.session.add(row)
    work.session.flush()  # a lost race shows here, before the log is touched
    row.leaf_idx = ledger.append(
        work,
        type="card.locked",
        subject=f"revision:{revision_id}",
        new_state="locked",
        detail={"repo": variant.repo_id, "path": CARD, "sha256": file.sha256},
    )
    work.session.flush()
    locked = card_lock(work, revision_id)
    if locked is None:
        raise RuntimeError("a lock that was just written is not there")
    return locked


def find_lock(work: Work, repo_id: str, *, rev: str = "main") -> CardLockRow:
    """Return the lock of the card that a revision holds.

    Raises:
        NotFound: there is no such revision, or its card is not locked.
    """
    require(work.actor, Permission.CATALOG_READ_INTERNAL)
    variant = queries.load_variant(work, repo_id)
    revision_id = queries.resolve_rev(work, variant.id, rev)
    if revision_id is None:
        raise NotFound(f"{variant.repo_id} has no revision {rev!r}.", reason="revision")
    row = card_lock(work, revision_id)
    if row is None:
        raise NotFound(
            f"The model card of {variant.repo_id} at {revision_id[:8]} is not locked.",
            reason="card.unlocked",
        )
    return row

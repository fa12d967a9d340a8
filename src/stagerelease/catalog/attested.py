"""Reads of what people attested about revisions: locked model cards, keys, manifest signatures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from stagerelease.catalog.tables import (
    ManifestSignature,
    ModelCardLock,
    Revision,
    RevisionFile,
    SigningKey,
)
from stagerelease.db.work import Work
from stagerelease.kernel.errors import NotFound

CARD = "README.md"
"""The file of a revision that is its model card."""


@dataclass(frozen=True, slots=True)
class CardLockRow:
    """A lock on a model card: these bytes are final for this variant."""

    id: str
    variant_id: str
    revision_id: str
    path: str
    sha256: str
    locked_by: str
    at: datetime
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class SigningKeyRow:
    """A public key whose signatures count; a retired one signs nothing more."""

    id: str
    pem: str
    pem_sha256: str
    curve: str
    added_by: str
    added_at: datetime
    retired_at: datetime | None
    compromised: bool
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class ManifestSignatureRow:
    """A verified signature over the manifest of a revision.

    ``counts`` is false once its key is known to be compromised; the signature stays on record.
    """

    id: str
    revision_id: str
    manifest_sha256: str
    key_id: str
    bundle_sha256: str
    bundle_size: int
    signed_by: str
    at: datetime
    leaf_idx: int
    counts: bool


_LOCK = select(
    ModelCardLock.id,
    ModelCardLock.variant_id,
    ModelCardLock.revision_id,
    ModelCardLock.path,
    ModelCardLock.sha256,
    ModelCardLock.locked_by,
    ModelCardLock.at,
    ModelCardLock.leaf_idx,
)
_KEY = select(
    SigningKey.id,
    SigningKey.pem,
    SigningKey.pem_sha256,
    SigningKey.curve,
    SigningKey.added_by,
    SigningKey.added_at,
    SigningKey.retired_at,
    SigningKey.compromised,
    SigningKey.leaf_idx,
)
_SIGNATURE = select(
    ManifestSignature.id,
    ManifestSignature.revision_id,
    ManifestSignature.manifest_sha256,
    ManifestSignature.key_id,
    ManifestSignature.bundle_sha256,
    ManifestSignature.bundle_size,
    ManifestSignature.signed_by,
    ManifestSignature.at,
    ManifestSignature.leaf_idx,
    (~SigningKey.compromised).label("counts"),
).join(SigningKey, SigningKey.id == ManifestSignature.key_id)


def card_lock(work: Work, revision_id: str) -> CardLockRow | None:
    """Return the lock of exactly the model card that this revision holds, or None.

    A later revision of the same variant with the same card, byte for byte, is locked as well.
    """
    statement = (
        _LOCK.join(Revision, Revision.variant_id == ModelCardLock.variant_id)
        .join(
            RevisionFile,
            (RevisionFile.revision_id == Revision.id)
            & (RevisionFile.path == ModelCardLock.path)
            & (RevisionFile.sha256 == ModelCardLock.sha256),
        )
        .where(Revision.id == revision_id)
    )
    row = work.session.execute(statement).one_or_none()
    return CardLockRow(*row) if row else None


def manifest_signatures(work: Work, revision_id: str) -> list[ManifestSignatureRow]:
    """Return the signatures over this revision that count, oldest first."""
    return [row for row in all_signatures(work, revision_id) if row.counts]


def all_signatures(work: Work, revision_id: str) -> list[ManifestSignatureRow]:
    """Return every signature ever recorded over this revision, oldest first."""
    rows = work.session.execute(
        _SIGNATURE.where(ManifestSignature.revision_id == revision_id).order_by(
            ManifestSignature.at, ManifestSignature.id
        )
    )
    return [ManifestSignatureRow(**row._mapping) for row in rows]


def load_signature(work: Work, signature_id: str) -> ManifestSignatureRow:
    """Return a signature over a manifest.

    Raises:
        NotFound: there is none.
    """
    row = work.session.execute(_SIGNATURE.where(ManifestSignature.id == signature_id)).one_or_none()
    if row is None:
        raise NotFound("There is no such signature over a manifest.", reason="manifest-signature")
    return ManifestSignatureRow(**row._mapping)


def signing_keys(work: Work) -> list[SigningKeyRow]:
    """Return every key that ever counted, by id; there are few."""
    return [SigningKeyRow(*row) for row in work.session.execute(_KEY.order_by(SigningKey.id))]


def find_key(work: Work, key_id: str) -> SigningKeyRow | None:
    """Return a key by its id, or None."""
    row = work.session.execute(_KEY.where(SigningKey.id == key_id)).one_or_none()
    return SigningKeyRow(*row) if row else None

"""Families, variants, aliases, revisions, files, refs and blobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from stagerelease.db.base import Base
from stagerelease.identity import tables as identity_tables  # noqa: F401 (authors are people)


class Family(Base):
    """A family of models, such as ``gpt-2``."""

    __tablename__ = "family"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text, default="")


class Variant(Base):
    """A size of a family. ``label`` is what its publishers called it; the count is exact."""

    __tablename__ = "variant"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    family_id: Mapped[str] = mapped_column(ForeignKey("family.id"))
    label: Mapped[str] = mapped_column(String(64))
    repo_id: Mapped[str] = mapped_column(String(140), unique=True)
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    architecture: Mapped[dict[str, Any] | None]
    position: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]


class RepoAlias(Base):
    """Another name of a variant's repository; requests under it are redirected."""

    __tablename__ = "repo_alias"

    alias: Mapped[str] = mapped_column(String(140), primary_key=True)
    variant_id: Mapped[str] = mapped_column(ForeignKey("variant.id"))


class Blob(Base):
    """Bytes known to be in the store. The row is written after the bytes are durable."""

    __tablename__ = "blob"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    verified_at: Mapped[datetime | None]
    corrupt_at: Mapped[datetime | None]  # when fsck last found other bytes than these in the store


class BlobReference(Base):
    """Why a blob stays although no revision holds it: whose it is (``evidence:<id>``, …).

    Written by the slices above, in the transaction that names the blob; see ``stored.refer``.
    """

    __tablename__ = "blob_reference"

    sha256: Mapped[str] = mapped_column(ForeignKey("blob.sha256"), primary_key=True)
    owner: Mapped[str] = mapped_column(String(120), primary_key=True)
    created_at: Mapped[datetime]


class Revision(Base):
    """An immutable set of files; ``id``: 40 hex digits over manifest, parent, message and time."""

    __tablename__ = "revision"
    __table_args__ = (
        Index("ix_revision_variant_id", "variant_id", "created_at"),
        Index("ix_revision_manifest_sha256", "manifest_sha256"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    variant_id: Mapped[str] = mapped_column(ForeignKey("variant.id"))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("revision.id"))
    message: Mapped[str] = mapped_column(Text)
    author_id: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    total_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


class RevisionFile(Base):
    """One file of a revision. ``git_oid`` is the git blob id (of the LFS pointer for LFS files)."""

    __tablename__ = "revision_file"

    revision_id: Mapped[str] = mapped_column(ForeignKey("revision.id"), primary_key=True)
    path: Mapped[str] = mapped_column(String(400), primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(ForeignKey("blob.sha256"), index=True)
    git_oid: Mapped[str] = mapped_column(String(40))
    lfs: Mapped[bool]
    kind: Mapped[str] = mapped_column(String(32))  # artifact kind that governs it


class Ref(Base):
    """A branch or tag that points at a revision."""

    __tablename__ = "ref"
    __table_args__ = (UniqueConstraint("variant_id", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    variant_id: Mapped[str] = mapped_column(ForeignKey("variant.id"))
    name: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(16))  # branch | tag
    revision_id: Mapped[str] = mapped_column(ForeignKey("revision.id"))
    version: Mapped[int] = mapped_column(default=1)

    __mapper_args__ = {"version_id_col": version}


class UploadTicket(Base):
    """Permission to PUT one LFS object to a signed URL, until ``expires_at``."""

    __tablename__ = "upload_ticket"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    variant_id: Mapped[str] = mapped_column(ForeignKey("variant.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    secret_sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    expires_at: Mapped[datetime]
    stored_at: Mapped[datetime | None]


class ModelCardLock(Base):
    """A model card, by digest, that is final. Never changed, never removed."""

    __tablename__ = "model_card_lock"
    __table_args__ = (UniqueConstraint("variant_id", "path", "sha256"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    variant_id: Mapped[str] = mapped_column(ForeignKey("variant.id"))
    revision_id: Mapped[str] = mapped_column(ForeignKey("revision.id"))
    path: Mapped[str] = mapped_column(String(400))
    sha256: Mapped[str] = mapped_column(ForeignKey("blob.sha256"))
    locked_by: Mapped[str] = mapped_column(String(40))
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class SigningKey(Base):
    """A public key whose signatures over manifests count here; its private half is elsewhere."""

    __tablename__ = "signing_key"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    pem: Mapped[str] = mapped_column(Text)
    pem_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    curve: Mapped[str] = mapped_column(String(16))
    added_by: Mapped[str] = mapped_column(String(40))
    added_at: Mapped[datetime]
    retired_at: Mapped[datetime | None]
    compromised: Mapped[bool] = mapped_column(default=False)
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class ManifestSignature(Base):
    """A verified signature over exactly the files of a revision; the bundle is kept as a blob."""

    __tablename__ = "manifest_signature"
    __table_args__ = (UniqueConstraint("revision_id", "key_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    revision_id: Mapped[str] = mapped_column(ForeignKey("revision.id"))
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    key_id: Mapped[str] = mapped_column(ForeignKey("signing_key.id"))
    bundle_sha256: Mapped[str] = mapped_column(ForeignKey("blob.sha256"))
    bundle_size: Mapped[int] = mapped_column(BigInteger)
    signed_by: Mapped[str] = mapped_column(String(40))
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)

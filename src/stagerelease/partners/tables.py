"""Agreements and their versions, signatures, grants, and what a stopped grant leaves to attest."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import Mapped, mapped_column

from stagerelease.db.base import Base


class Agreement(Base):
    """A named agreement, whose text lives in its versions."""

    __tablename__ = "agreement"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    slug: Mapped[str] = mapped_column(String(64), unique=True)
    title: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime]


class AgreementVersion(Base):
    """One text, named by its SHA-256. ``draft → in_force → superseded → retired``."""

    __tablename__ = "agreement_version"
    __table_args__ = (UniqueConstraint("agreement_id", "version"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    agreement_id: Mapped[str] = mapped_column(ForeignKey("agreement.id"))
    version: Mapped[int]
    text: Mapped[str] = mapped_column(Text)
    text_sha256: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    material: Mapped[bool] = mapped_column(default=True)
    duo_codes: Mapped[list[str]]
    effective_from: Mapped[datetime | None]
    reconsent_until: Mapped[datetime | None]  # older signatures are to be renewed by then
    # Whether a signature on it counts only once the publisher has signed too.
    needs_countersignature: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[datetime]
    leaf_idx: Mapped[int | None] = mapped_column(BigInteger)


class Signature(Base):
    """Who signed which text, for whom, with what authority, when and how."""

    __tablename__ = "signature"
    __table_args__ = (
        Index("ix_signature_organisation_id", "organisation_id"),
        Index("ix_signature_person_id", "person_id"),
        Index("ix_signature_reconsent_until", "reconsent_until"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    agreement_version_id: Mapped[str] = mapped_column(ForeignKey("agreement_version.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    organisation_id: Mapped[str | None] = mapped_column(ForeignKey("organisation.id"))
    typed_name: Mapped[str] = mapped_column(String(200))
    typed_title: Mapped[str] = mapped_column(String(200))
    authorised_to_bind: Mapped[bool]
    consents_electronically: Mapped[bool]
    text_sha256: Mapped[str] = mapped_column(String(64))
    method: Mapped[str] = mapped_column(String(32))  # how the signer was authenticated
    state: Mapped[str] = mapped_column(String(16))
    signed_at: Mapped[datetime]
    valid_until: Mapped[datetime | None]
    countersigned_by: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    countersigned_at: Mapped[datetime | None]
    countersign_leaf_idx: Mapped[int | None] = mapped_column(BigInteger)
    ended_at: Mapped[datetime | None]
    reconsent_until: Mapped[datetime | None]  # a later, material version is to be signed by then
    reconsent_warned: Mapped[int | None]  # the last warning of it: 30, 7 or 1 days ahead
    client_address: Mapped[str | None] = mapped_column(String(64))  # private: never in the log
    user_agent: Mapped[str | None] = mapped_column(String(300))  # private: never in the log
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class Grant(Base):
    """A grantee's permission on one track, resting on one signature, with dates."""

    __tablename__ = "access_grant"  # GRANT is a reserved word
    __table_args__ = (
        CheckConstraint(
            "(organisation_id IS NULL) <> (person_id IS NULL)", name="exactly_one_grantee"
        ),
        CheckConstraint("signature_id IS NOT NULL OR state <> 'active'", name="active_is_signed"),
        Index("ix_access_grant_track_id", "track_id"),
        Index("ix_access_grant_organisation_id", "organisation_id", "track_id"),
        Index("ix_access_grant_person_id", "person_id", "track_id"),
        Index("ix_access_grant_ends", "state", "valid_until"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    organisation_id: Mapped[str | None] = mapped_column(ForeignKey("organisation.id"))
    person_id: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    track_id: Mapped[str] = mapped_column(ForeignKey("track.id"))
    audience: Mapped[str] = mapped_column(String(32))  # the stage this grantee is admitted at
    permissions: Mapped[list[str]]  # download, infer
    purpose: Mapped[str] = mapped_column(Text)
    signature_id: Mapped[str | None] = mapped_column(ForeignKey("signature.id"))
    awaits_agreement: Mapped[str | None] = mapped_column(String(64))  # to be signed first
    awaits_consent: Mapped[bool] = mapped_column(default=False, server_default=false())
    state: Mapped[str] = mapped_column(String(16))
    suspended_for: Mapped[str | None] = mapped_column(String(32))  # see rules.Suspension
    valid_from: Mapped[datetime]
    valid_until: Mapped[datetime]
    renewed_from_id: Mapped[str | None] = mapped_column(ForeignKey("access_grant.id"))
    created_by: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    warned_days: Mapped[int | None]  # the last warning sent: 30, 7 or 1 days before the end
    version: Mapped[int] = mapped_column(default=1)

    __mapper_args__ = {"version_id_col": version}


class GrantEvent(Base):
    """Something that happened to a grant, readable by its holder."""

    __tablename__ = "grant_event"
    __table_args__ = (Index("ix_grant_event_grant_id", "grant_id", "at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    grant_id: Mapped[str] = mapped_column(ForeignKey("access_grant.id"))
    from_state: Mapped[str | None] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    actor_id: Mapped[str] = mapped_column(String(40))
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class GrantResume(Base):
    """One person's consent to resume a suspended grant; two are needed."""

    __tablename__ = "grant_resume"
    __table_args__ = (UniqueConstraint("grant_id", "person_id", "suspension"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    grant_id: Mapped[str] = mapped_column(ForeignKey("access_grant.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    suspension: Mapped[str] = mapped_column(String(40))  # the grant_event that suspended it
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class DestructionAttestation(Base):
    """What the holder of a revoked grant is asked to declare destroyed."""

    __tablename__ = "destruction_attestation"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    grant_id: Mapped[str] = mapped_column(ForeignKey("access_grant.id"), unique=True)
    delivered: Mapped[list[Any]]  # [{path, sha256, bytes, completed, at}]
    opened_at: Mapped[datetime]
    attested_at: Mapped[datetime | None]
    attested_by: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    typed_name: Mapped[str | None] = mapped_column(String(200))
    leaf_idx: Mapped[int | None] = mapped_column(BigInteger)

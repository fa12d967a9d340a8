"""Evidence, who wrote it, what became of it and what is attached; and coordination records."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from stagerelease.catalog import tables as catalog_tables  # noqa: F401 (attachments are blobs)
from stagerelease.db.base import Base


class Evidence(Base):
    """One measurement or finding about a file or a revision. Its words never change once submitted.

    ``value`` is null for a finding, which has a verdict on its type's scale instead.
    """

    __tablename__ = "evidence"
    __table_args__ = (
        Index("ix_evidence_state", "state", "id"),
        Index("ix_evidence_type", "type", "id"),
        Index("ix_evidence_subject_sha256", "subject_sha256", "id"),
        Index("ix_evidence_organisation_id", "organisation_id", "id"),
        Index("ix_evidence_public", "public", "state", "id"),
        Index("ix_evidence_supersedes_id", "supersedes_id"),
        Index("ix_evidence_created_by", "created_by"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    type: Mapped[str] = mapped_column(String(32))
    title: Mapped[str] = mapped_column(String(200))
    metric: Mapped[str] = mapped_column(String(64))
    value: Mapped[float | None]
    unit: Mapped[str] = mapped_column(String(32))
    n: Mapped[int | None] = mapped_column(BigInteger)
    interval_low: Mapped[float | None]
    interval_high: Mapped[float | None]
    interval_level: Mapped[float | None]  # percent
    conditions: Mapped[dict[str, Any]]
    companions: Mapped[dict[str, Any]]  # values of the same measurement, such as specificity
    verdict: Mapped[str | None] = mapped_column(String(40))
    finding: Mapped[str | None] = mapped_column(Text)
    caveat: Mapped[str] = mapped_column(Text, default="")
    subject_sha256: Mapped[str] = mapped_column(String(64))
    subject_kind: Mapped[str] = mapped_column(String(16))  # file | manifest
    fact_status: Mapped[str] = mapped_column(String(16))
    source: Mapped[str] = mapped_column(Text)
    measured_at: Mapped[datetime]
    valid_until: Mapped[datetime | None]
    organisation_id: Mapped[str | None] = mapped_column(ForeignKey("organisation.id"))
    author_name: Mapped[str] = mapped_column(String(200), default="")  # as the source prints it
    public: Mapped[bool] = mapped_column(default=False)  # its author lets it be shown to all
    public_approved_by: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    public_approved_at: Mapped[datetime | None]
    supersedes_id: Mapped[str | None] = mapped_column(ForeignKey("evidence.id"))
    state: Mapped[str] = mapped_column(String(16))
    state_reason: Mapped[str] = mapped_column(Text, default="")
    created_by: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]
    submitted_at: Mapped[datetime | None]
    accepted_at: Mapped[datetime | None]
    accepted_by: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    version: Mapped[int] = mapped_column(default=1)

    __mapper_args__ = {"version_id_col": version}


class EvidenceAuthor(Base):
    """A person who wrote a piece of evidence, and so counts for no quorum that uses it."""

    __tablename__ = "evidence_author"
    __table_args__ = (Index("ix_evidence_author_person_id", "person_id", "evidence_id"),)

    evidence_id: Mapped[str] = mapped_column(ForeignKey("evidence.id"), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"), primary_key=True)


class EvidenceEvent(Base):
    """Something that happened to a piece of evidence. Never deleted."""

    __tablename__ = "evidence_event"
    __table_args__ = (Index("ix_evidence_event_evidence_id", "evidence_id", "leaf_idx"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    evidence_id: Mapped[str] = mapped_column(ForeignKey("evidence.id"))
    from_state: Mapped[str | None] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    actor_id: Mapped[str] = mapped_column(String(40))
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class EvidenceAttachment(Base):
    """A file attached to evidence, kept as a blob and served as a download only."""

    __tablename__ = "evidence_attachment"
    __table_args__ = (Index("ix_evidence_attachment_evidence_id", "evidence_id", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    evidence_id: Mapped[str] = mapped_column(ForeignKey("evidence.id"))
    filename: Mapped[str] = mapped_column(String(200))
    sha256: Mapped[str] = mapped_column(ForeignKey("blob.sha256"))
    size: Mapped[int] = mapped_column(BigInteger)
    added_by: Mapped[str] = mapped_column(String(40))
    added_at: Mapped[datetime]


class CoordinationRecord(Base):
    """Another developer's replication, contact, similar release or disclosure."""

    __tablename__ = "coordination_record"
    __table_args__ = (Index("ix_coordination_record_family_id", "family_id", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    family_id: Mapped[str] = mapped_column(ForeignKey("family.id"))
    developer: Mapped[str] = mapped_column(String(200))
    claim: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(16))
    size_parameters: Mapped[int | None] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(16))
    happened_on: Mapped[datetime]  # midnight UTC of the first day it may have been
    happened_precision: Mapped[str] = mapped_column(String(8), default="day")  # day | month | year
    contacted_on: Mapped[datetime | None]
    window_ends_at: Mapped[datetime | None]
    source: Mapped[str] = mapped_column(Text)
    fact_status: Mapped[str] = mapped_column(String(16))
    created_by: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)

    __mapper_args__ = {"version_id_col": version}


class CoordinationEvent(Base):
    """A change of a coordination record: its status, its dates, and why. Never deleted."""

    __tablename__ = "coordination_event"
    __table_args__ = (Index("ix_coordination_event_record_id", "record_id", "leaf_idx"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    record_id: Mapped[str] = mapped_column(ForeignKey("coordination_record.id"))
    from_status: Mapped[str | None] = mapped_column(String(16))
    to_status: Mapped[str] = mapped_column(String(16))
    note: Mapped[str] = mapped_column(Text, default="")
    actor_id: Mapped[str] = mapped_column(String(40))
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)

"""Access requests and their events; forms, drafts, reviewers' notes and conflicts of interest."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from stagerelease.db.base import Base


class AccessForm(Base):
    """One immutable version of a form."""

    __tablename__ = "access_form"
    __table_args__ = (UniqueConstraint("slug", "version"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    slug: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    document: Mapped[dict[str, Any]]
    sha256: Mapped[str] = mapped_column(String(64))
    created_by: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]


class AccessFormUse(Base):
    """Which form is asked where, since when; a null scope means everywhere."""

    __tablename__ = "access_form_use"
    __table_args__ = (Index("ix_access_form_use_variant_id", "variant_id", "stage", "until_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    form_id: Mapped[str] = mapped_column(ForeignKey("access_form.id"))
    variant_id: Mapped[str | None] = mapped_column(ForeignKey("variant.id"))
    stage: Mapped[str | None] = mapped_column(String(64))
    from_at: Mapped[datetime]
    until_at: Mapped[datetime | None]
    applied_by: Mapped[str] = mapped_column(String(40))
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class AccessDraft(Base):
    """What an applicant has typed and not sent, and the request it became.

    ``secret_sha256`` opens an anonymous visitor's draft; it is emptied with the answers and the
    address when the draft is over.
    """

    __tablename__ = "access_draft"
    __table_args__ = (
        Index("ix_access_draft_state", "state", "expires_at"),
        Index("ix_access_draft_person_id", "person_id", "variant_id", "state"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    secret_sha256: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    person_id: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    variant_id: Mapped[str] = mapped_column(ForeignKey("variant.id"))
    form_id: Mapped[str] = mapped_column(ForeignKey("access_form.id"))
    answers: Mapped[dict[str, Any]]
    address: Mapped[str | None] = mapped_column(String(320))
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    mailed_at: Mapped[datetime | None]
    request_id: Mapped[str | None] = mapped_column(ForeignKey("access_request.id"))
    version: Mapped[int] = mapped_column(default=1)

    __mapper_args__ = {"version_id_col": version}


class AccessRequest(Base):
    """A person's request to be admitted to a variant's current release."""

    __tablename__ = "access_request"
    __table_args__ = (
        Index("ix_access_request_variant_id", "variant_id", "state"),
        Index("ix_access_request_applicant_id", "applicant_id"),
        Index("ix_access_request_queue", "state", "submitted_at", "id"),
        Index("ix_access_request_newest", "submitted_at", "id"),
        Index("ix_access_request_assignee_id", "assignee_id", "state", "submitted_at", "id"),
        Index("ix_access_request_expires_at", "state", "expires_at"),
        Index("ix_access_request_decided_at", "decided_at", "decision_seconds"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    variant_id: Mapped[str] = mapped_column(ForeignKey("variant.id"))
    applicant_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    state: Mapped[str] = mapped_column(String(16))
    answers: Mapped[dict[str, Any]]
    submitted_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    reason: Mapped[str | None] = mapped_column(Text)
    may_reapply_after: Mapped[datetime | None]
    grant_id: Mapped[str | None] = mapped_column(ForeignKey("access_grant.id"))
    version: Mapped[int] = mapped_column(default=1)
    form_id: Mapped[str | None] = mapped_column(ForeignKey("access_form.id"))
    origin: Mapped[str] = mapped_column(String(16), default="api", server_default="api")
    assignee_id: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    state_since: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    decision_seconds: Mapped[int | None] = mapped_column(BigInteger)

    __mapper_args__ = {"version_id_col": version}


class AccessRequestEvent(Base):
    """One step of a request; the applicant can read each."""

    __tablename__ = "access_request_event"
    __table_args__ = (Index("ix_access_request_event_request_id", "request_id", "at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    request_id: Mapped[str] = mapped_column(ForeignKey("access_request.id"))
    from_state: Mapped[str | None] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    actor_id: Mapped[str] = mapped_column(String(40))
    comment: Mapped[str] = mapped_column(Text, default="")
    at: Mapped[datetime]
    leaf_idx: Mapped[int]
    kind: Mapped[str | None] = mapped_column(String(24))


class AccessNote(Base):
    """What reviewers tell each other about a request; the applicant never reads it."""

    __tablename__ = "access_note"
    __table_args__ = (Index("ix_access_note_request_id", "request_id", "at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    request_id: Mapped[str] = mapped_column(ForeignKey("access_request.id"))
    author_id: Mapped[str] = mapped_column(String(40))
    text: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]


class AccessConflict(Base):
    """A reviewer's declared conflict of interest in one request; it is never taken back."""

    __tablename__ = "access_conflict"
    __table_args__ = (UniqueConstraint("request_id", "person_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    request_id: Mapped[str] = mapped_column(ForeignKey("access_request.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)

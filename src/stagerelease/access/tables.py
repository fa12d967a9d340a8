"""Access requests and their events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from stagerelease.db.base import Base


class AccessRequest(Base):
    """A person's request to be admitted to a variant's current release."""

    __tablename__ = "access_request"
    __table_args__ = (
        Index("ix_access_request_variant_id", "variant_id", "state"),
        Index("ix_access_request_applicant_id", "applicant_id"),
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

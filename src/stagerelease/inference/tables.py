"""Who asked models for how much; what a grant may ask; and prompts, where a plan keeps them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from stagerelease.db.base import Base


class InferenceMeter(Base):
    """What one holder has used in the present minute and day; see ``rules.Meter``.

    ``holder`` is ``grant:<id>``, or ``person:<id>`` for those who need no grant.
    """

    __tablename__ = "inference_meter"

    holder: Mapped[str] = mapped_column(String(64), primary_key=True)
    minute: Mapped[datetime]
    minute_requests: Mapped[int] = mapped_column(BigInteger)
    minute_tokens: Mapped[int] = mapped_column(BigInteger)
    day: Mapped[datetime]
    day_tokens: Mapped[int] = mapped_column(BigInteger)


class InferenceRequest(Base):
    """One request that was let through: a reservation until it has ended, then a record of use.

    Neither what was asked nor what was answered is in it. ``reserved_tokens`` counts from
    ``started_at`` until ``ended_at``; after ``expires_at`` the process that ran it is dead.
    """

    __tablename__ = "inference_request"
    __table_args__ = (
        Index("ix_inference_request_running", "holder", "ended_at", "expires_at"),
        Index("ix_inference_request_grant_id", "grant_id", "started_at"),
        Index("ix_inference_request_lost", "ended_at", "expires_at"),
        Index("ix_inference_request_started_at", "started_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    grant_id: Mapped[str | None] = mapped_column(ForeignKey("access_grant.id"))
    person_id: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    token_id: Mapped[str | None] = mapped_column(ForeignKey("api_token.id"))
    track_id: Mapped[str | None] = mapped_column(ForeignKey("track.id"))
    revision_id: Mapped[str] = mapped_column(ForeignKey("revision.id"))
    kind: Mapped[str] = mapped_column(String(16))  # completion | chat | score
    sequences: Mapped[int]
    reserved_tokens: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(32))
    prompt_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    completion_tokens: Mapped[int] = mapped_column(BigInteger, default=0)
    milliseconds: Mapped[int] = mapped_column(BigInteger, default=0)


class InferenceLimits(Base):
    """What one grant may ask instead of what everyone may; its renewals keep it."""

    __tablename__ = "inference_limits"

    grant_id: Mapped[str] = mapped_column(ForeignKey("access_grant.id"), primary_key=True)
    limits: Mapped[dict[str, Any]]
    reason: Mapped[str] = mapped_column(Text)
    set_by: Mapped[str] = mapped_column(String(40))
    set_at: Mapped[datetime]


class InferencePrompt(Base):
    """What was asked, where the plan says that it is kept and the caller was told so."""

    __tablename__ = "inference_prompt"
    __table_args__ = (Index("ix_inference_prompt_erase_at", "erase_at"),)

    request_id: Mapped[str] = mapped_column(ForeignKey("inference_request.id"), primary_key=True)
    prompt: Mapped[str] = mapped_column(Text)
    kept_at: Mapped[datetime]
    erase_at: Mapped[datetime]

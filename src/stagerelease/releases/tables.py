"""Release plans, tracks, promotion requests with their approvals and judgements, and holds."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from stagerelease.db.base import Base


class PlanVersion(Base):
    """One immutable version of a release plan, as applied."""

    __tablename__ = "plan_version"
    __table_args__ = (UniqueConstraint("slug", "version"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    slug: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]
    source: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    document: Mapped[dict[str, Any]]
    created_by: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class PlanProposal(Base):
    """A plan source that somebody proposes; ``pending`` until a second person consents to it."""

    __tablename__ = "plan_proposal"
    __table_args__ = (Index("ix_plan_proposal_state", "state", "expires_at"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    slug: Mapped[str] = mapped_column(String(64))
    base_version: Mapped[int | None]  # the newest version when it was proposed
    source: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))
    rationale: Mapped[str] = mapped_column(Text)
    proposed_by: Mapped[str] = mapped_column(String(40))
    state: Mapped[str] = mapped_column(String(16))  # pending | applied | cancelled | expired
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    plan_version_id: Mapped[str | None] = mapped_column(ForeignKey("plan_version.id"))
    version: Mapped[int] = mapped_column(default=1)
    leaf_idx: Mapped[int] = mapped_column(BigInteger)

    __mapper_args__ = {"version_id_col": version}


class PlanConsent(Base):
    """One person's consent to exactly one proposed source."""

    __tablename__ = "plan_consent"
    __table_args__ = (UniqueConstraint("proposal_id", "person_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    proposal_id: Mapped[int] = mapped_column(ForeignKey("plan_proposal.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    sha256: Mapped[str] = mapped_column(String(64))
    comment: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class Track(Base):
    """What is promoted: one artifact kind of one revision under one plan, at one stage."""

    __tablename__ = "track"
    __table_args__ = (
        UniqueConstraint("revision_id", "kind"),
        Index("ix_track_variant_id", "variant_id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    variant_id: Mapped[str] = mapped_column(ForeignKey("variant.id"))
    kind: Mapped[str] = mapped_column(String(32))
    revision_id: Mapped[str] = mapped_column(ForeignKey("revision.id"))
    plan_version_id: Mapped[str] = mapped_column(ForeignKey("plan_version.id"))
    stage: Mapped[str] = mapped_column(String(32))
    entered_at: Mapped[datetime]
    created_at: Mapped[datetime]
    version: Mapped[int] = mapped_column(default=1)

    __mapper_args__ = {"version_id_col": version}


class StageEvent(Base):
    """A move of a track, as applied. Public pages read these and nothing else of the process."""

    __tablename__ = "stage_event"
    __table_args__ = (
        Index("ix_stage_event_track_id", "track_id", "at"),
        Index("ix_stage_event_at", "at", "id"),  # the timeline reads the newest first
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    track_id: Mapped[str] = mapped_column(ForeignKey("track.id"))
    from_stage: Mapped[str | None] = mapped_column(String(32))
    to_stage: Mapped[str] = mapped_column(String(32))
    at: Mapped[datetime]
    promotion_id: Mapped[int | None] = mapped_column(ForeignKey("promotion.id"))
    reason: Mapped[str] = mapped_column(Text, default="")
    leaf_idx: Mapped[int] = mapped_column(BigInteger)
    waived: Mapped[list[Any] | None]  # [{gate, rule, reason, until, waiver}], shown for ever


class Promotion(Base):
    """A promotion request. ``request_hash`` is over everything an approval vouches for."""

    __tablename__ = "promotion"
    __table_args__ = (
        Index("ix_promotion_track_id", "track_id"),
        Index("ix_promotion_state", "state", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    track_id: Mapped[str] = mapped_column(ForeignKey("track.id"))
    from_stage: Mapped[str] = mapped_column(String(32))
    to_stage: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(24))
    requester_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    rationale: Mapped[str] = mapped_column(Text)
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    plan_version_id: Mapped[str] = mapped_column(ForeignKey("plan_version.id"))
    evidence_ids: Mapped[list[str]]
    edition: Mapped[int] = mapped_column(default=1)  # counts edits, so that no hash comes back
    request_hash: Mapped[str] = mapped_column(String(64))
    scheduled_for: Mapped[datetime | None]
    created_at: Mapped[datetime]
    submitted_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[str | None] = mapped_column(Text)
    version: Mapped[int] = mapped_column(default=1)

    __mapper_args__ = {"version_id_col": version}


class Approval(Base):
    """One reviewer's verdict on exactly one ``request_hash``. Never deleted; voided by an edit."""

    __tablename__ = "approval"
    __table_args__ = (
        # With the verdict: who approved may still reject the same request before it is applied.
        UniqueConstraint("promotion_id", "person_id", "request_hash", "verdict"),
        Index("ix_approval_promotion_id", "promotion_id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    promotion_id: Mapped[int] = mapped_column(ForeignKey("promotion.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    roles: Mapped[list[str]]
    request_hash: Mapped[str] = mapped_column(String(64))
    verdict: Mapped[str] = mapped_column(String(24))  # approve | reject | request_changes
    comment: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class Judgement(Base):
    """A recorded human answer to a manual or inconclusive gate."""

    __tablename__ = "judgement"
    __table_args__ = (UniqueConstraint("promotion_id", "gate", "request_hash"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    promotion_id: Mapped[int] = mapped_column(ForeignKey("promotion.id"))
    gate: Mapped[str] = mapped_column(String(64))
    passed: Mapped[bool]
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    request_hash: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class Waiver(Base):
    """A gate into one stage of one track that need not pass until a date. Never deleted.

    In force from ``signed_at``, when its second signer signed, until ``ends_at`` or ``ended_at``.
    """

    __tablename__ = "waiver"
    __table_args__ = (Index("ix_waiver_track_id", "track_id", "stage"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    track_id: Mapped[str] = mapped_column(ForeignKey("track.id"))
    stage: Mapped[str] = mapped_column(String(32))
    gate: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    signed_at: Mapped[datetime | None]
    ends_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]  # before its time
    end_reason: Mapped[str | None] = mapped_column(Text)
    version: Mapped[int] = mapped_column(default=1)
    leaf_idx: Mapped[int] = mapped_column(BigInteger)

    __mapper_args__ = {"version_id_col": version}


class WaiverSignature(Base):
    """One person's signature under a waiver, with the roles they held."""

    __tablename__ = "waiver_signature"
    __table_args__ = (UniqueConstraint("waiver_id", "person_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    waiver_id: Mapped[str] = mapped_column(ForeignKey("waiver.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    roles: Mapped[list[str]]
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class Hold(Base):
    """A stop laid over a track, a family or everything. One person lays it; two lift it."""

    __tablename__ = "hold"
    __table_args__ = (Index("ix_hold_scope", "scope", "scope_id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    scope: Mapped[str] = mapped_column(String(16))  # track | family | everything
    scope_id: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(Text)
    public_reason: Mapped[str] = mapped_column(Text, default="")
    laid_by: Mapped[str] = mapped_column(String(40))
    laid_at: Mapped[datetime]
    lifted_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(default=1)
    leaf_idx: Mapped[int] = mapped_column(BigInteger)

    __mapper_args__ = {"version_id_col": version}


class HoldLift(Base):
    """One person's consent to lift a hold."""

    __tablename__ = "hold_lift"
    __table_args__ = (UniqueConstraint("hold_id", "person_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    hold_id: Mapped[int] = mapped_column(ForeignKey("hold.id"))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)

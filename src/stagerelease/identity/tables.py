"""People, organisations, rosters, roles and API tokens."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from stagerelease.db.base import Base


class Person(Base):
    """A human, or a service account (``kind``). Never deleted; erasure pseudonymises."""

    __tablename__ = "person"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    handle: Mapped[str] = mapped_column(String(64), unique=True)
    kind: Mapped[str] = mapped_column(String(16))  # human | service
    display_name: Mapped[str] = mapped_column(String(200))
    email: Mapped[str | None] = mapped_column(String(320))
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]


class Organisation(Base):
    """A partner organisation, or the one that runs this service."""

    __tablename__ = "organisation"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    slug: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime]


class Membership(Base):
    """A line of an organisation's roster, with dates."""

    __tablename__ = "membership"
    __table_args__ = (
        UniqueConstraint("person_id", "organisation_id", "starts_at"),
        Index("ix_membership_organisation_id", "organisation_id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"))
    role: Mapped[str] = mapped_column(String(32))  # partner_admin | partner_member
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime | None]


class RoleAssignment(Base):
    """A role a person holds in this service, with dates."""

    __tablename__ = "role_assignment"
    __table_args__ = (Index("ix_role_assignment_person_id", "person_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    role: Mapped[str] = mapped_column(String(32))
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime | None]


class ApiToken(Base):
    """A token as stored: its SHA-256, and enough to recognise it by. It is shown once."""

    __tablename__ = "api_token"
    __table_args__ = (Index("ix_api_token_person_id", "person_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    name: Mapped[str] = mapped_column(String(100))
    display: Mapped[str] = mapped_column(String(16))  # first characters, for recognition only
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

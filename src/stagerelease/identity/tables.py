"""People, organisations, rosters, roles, API tokens, links by mail, sessions and keys."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, UniqueConstraint
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
        Index("ix_membership_ends_at", "ends_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisation.id"))
    role: Mapped[str] = mapped_column(String(32))  # partner_admin | partner_member
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime | None]
    end_announced_at: Mapped[datetime | None]


class RoleAssignment(Base):
    """A role a person holds in this service, with dates."""

    __tablename__ = "role_assignment"
    __table_args__ = (
        Index("ix_role_assignment_person_id", "person_id"),
        Index("ix_role_assignment_ends_at", "ends_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    role: Mapped[str] = mapped_column(String(32))
    given_by: Mapped[str | None] = mapped_column(ForeignKey("person.id"))  # None: on the host
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime | None]
    end_announced_at: Mapped[datetime | None]


class ApiToken(Base):
    """A token as stored: its SHA-256, and enough to recognise it by. It is shown once."""

    __tablename__ = "api_token"
    __table_args__ = (
        Index("ix_api_token_person_id", "person_id"),
        Index("ix_api_token_expires_at", "expires_at"),
        Index("ix_api_token_made_by", "made_by"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    made_by: Mapped[str | None] = mapped_column(ForeignKey("api_token.id"))  # a token, if by one
    name: Mapped[str] = mapped_column(String(100))
    display: Mapped[str] = mapped_column(String(16))  # first characters, for recognition only
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    end_announced_at: Mapped[datetime | None]


class MailLink(Base):
    """A link that was, or will be, mailed: what it is for, and that it works once.

    The row holds no secret; the link is this id with a signature by a key outside the database.
    ``network`` is a keyed digest of where it was asked for.
    """

    __tablename__ = "mail_link"
    __table_args__ = (
        Index("ix_mail_link_expires_at", "expires_at"),
        Index("ix_mail_link_address", "address", "purpose", "created_at"),
        Index("ix_mail_link_network", "network", "purpose", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(100))
    person_id: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    address: Mapped[str | None] = mapped_column(String(320))
    network: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class SignInSession(Base):
    """A browser that is signed in: the SHA-256 of its cookie, how its person came in, its end.

    ``method``: link | passkey | password | sso | demo.
    """

    __tablename__ = "session"
    __table_args__ = (
        Index("ix_session_person_id", "person_id"),
        Index("ix_session_expires_at", "expires_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    sha256: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    method: Mapped[str] = mapped_column(String(16), server_default="link")
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    step_up_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Passkey(Base):
    """A key of a person's own (WebAuthn): its public half, and the last count it showed.

    ``suspended_at``: it showed a count that cannot be its own, so there is a copy of it somewhere.
    """

    __tablename__ = "passkey"
    __table_args__ = (Index("ix_passkey_person_id", "person_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    credential_id: Mapped[bytes] = mapped_column(LargeBinary(1023), unique=True)
    public_key: Mapped[bytes] = mapped_column(LargeBinary(4096))
    sign_count: Mapped[int] = mapped_column(BigInteger)  # 32 bits without a sign
    name: Mapped[str] = mapped_column(String(100))
    transports: Mapped[list[str]]
    synced: Mapped[bool]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    suspended_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]


class Password(Base):
    """A person's password as stored: its Argon2id hash."""

    __tablename__ = "password"

    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"), primary_key=True)
    hash: Mapped[str] = mapped_column(String(200))
    set_at: Mapped[datetime]


class Ceremony(Base):
    """A challenge that a browser was given for one use of a passkey, and for what."""

    __tablename__ = "ceremony"
    __table_args__ = (Index("ix_ceremony_expires_at", "expires_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    purpose: Mapped[str] = mapped_column(String(16))  # enrol | sign_in | step_up
    challenge: Mapped[bytes] = mapped_column(LargeBinary(64))
    person_id: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]

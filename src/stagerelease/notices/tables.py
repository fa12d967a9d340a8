"""Notices to each recipient, what people want to be told, and webhooks with their deliveries."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from stagerelease.db.base import Base


class Notice(Base):
    """One event, told to one recipient by mail or kept for them to read here."""

    __tablename__ = "notice"
    __table_args__ = (
        UniqueConstraint("event_id", "recipient"),
        Index("ix_notice_person_id", "person_id", "id"),
        Index("ix_notice_state", "state", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    event_id: Mapped[str] = mapped_column(String(40))
    event: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(128))
    recipient: Mapped[str] = mapped_column(String(64))  # a person's id, or a digest of an address
    person_id: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    title: Mapped[str] = mapped_column(String(200))
    said: Mapped[str] = mapped_column(Text)
    why: Mapped[str] = mapped_column(Text)
    todo: Mapped[str] = mapped_column(Text)
    path: Mapped[str] = mapped_column(String(200))
    link_id: Mapped[str | None] = mapped_column(ForeignKey("mail_link.id"))
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)


class NoticeChoice(Base):
    """How a person wants a group of notices; no row means at once."""

    __tablename__ = "notice_choice"

    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"), primary_key=True)
    group: Mapped[str] = mapped_column("notice_group", String(32), primary_key=True)
    mode: Mapped[str] = mapped_column(String(16))
    chosen_at: Mapped[datetime]


class MailBounce(Base):
    """An address that its server refuses for good, until the person has another."""

    __tablename__ = "mail_bounce"

    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"), primary_key=True)
    address_sha256: Mapped[str] = mapped_column(String(64))
    answer: Mapped[str] = mapped_column(String(300))
    at: Mapped[datetime]


class Webhook(Base):
    """A place events are posted to, signed. Its secrets are kept encrypted and shown once."""

    __tablename__ = "webhook"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    url: Mapped[str] = mapped_column(String(500))
    events: Mapped[list[str]]  # names or "group.*"; empty means all
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    old_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    old_until: Mapped[datetime | None]
    created_by: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime]
    failing_since: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_for: Mapped[str | None] = mapped_column(String(300))


class WebhookDelivery(Base):
    """One event for one webhook: tried until it is taken, or the webhook is disabled."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (
        UniqueConstraint("webhook_id", "event_id"),
        Index("ix_webhook_delivery_webhook_id", "webhook_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhook.id"))
    event_id: Mapped[str] = mapped_column(String(40))
    event: Mapped[str] = mapped_column(String(64))
    body: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))  # queued | delivered | given_up
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    tried_at: Mapped[datetime | None]
    status: Mapped[int | None]
    milliseconds: Mapped[int | None]
    answer: Mapped[str | None] = mapped_column(Text)  # at most 1 KB

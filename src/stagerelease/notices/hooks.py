"""Webhooks: who registered which, what is queued for them, rotation, replay.

Secrets are encrypted at rest under a key derived from the one that signs links, shown once, and
never listed. Bodies carry ids, states and dates, and no name or address of anybody.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from cryptography.fernet import Fernet
from sqlalchemy import delete, select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.jobs.outbox import enqueue
from stagerelease.kernel.errors import Conflict, Invalid, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.notices.catalogue import WORDS
from stagerelease.notices.rules import SECRET_OVERLAP
from stagerelease.notices.tables import Webhook, WebhookDelivery

MAX_WEBHOOKS = 50
PUBLIC_FACTS = frozenset(
    {
        *("promotion_id", "track_id", "repo_id", "kind", "from_stage", "stage", "request_hash"),
        *("grant", "until", "days", "evidence", "type", "metric", "state", "incident_id"),
        *("severity", "blocking", "scope", "scope_id", "waiver_id", "gate", "slug", "version"),
        *("sha256", "advisory_id", "due_at", "hold_id", "agreement", "signature", "id", "files"),
    }
)
"""Facts that may leave by webhook: ids, states and dates, never what somebody wrote."""


@dataclass(frozen=True, slots=True)
class WebhookRow:
    """A webhook without its secrets; ``secret`` only in the answer that makes or rotates one."""

    id: str
    url: str
    events: tuple[str, ...]
    created_by: str
    created_at: datetime
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_for: str | None
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """One event for one webhook, and how the last attempt went."""

    id: str
    event_id: str
    event: str
    state: str
    attempts: int
    created_at: datetime
    tried_at: datetime | None
    status: int | None
    milliseconds: int | None
    answer: str | None


def locker(link_key: bytes) -> Fernet:
    """Return what encrypts webhook secrets (AES-128-CBC with HMAC-SHA-256)."""
    key = hashlib.sha256(b"stagerelease.webhook-secrets" + link_key).digest()
    return Fernet(base64.urlsafe_b64encode(key))


def check_url(url: str, *, loopback: bool) -> str:
    """Return ``url`` if a webhook may be posted to it, as far as its text tells.

    Where its name leads is asked again at every attempt. ``loopback`` also allows plain HTTP to
    this machine, for tests and development.

    Raises:
        Invalid: not an https URL without credentials and fragment.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    plain = parts.scheme == "http" and loopback
    if (
        (parts.scheme != "https" and not plain)
        or not parts.hostname
        or parts.username is not None
        or parts.fragment
        or port == 0
        or len(url) > 500
        or not url.isascii()
        or not url.isprintable()
        or " " in url
    ):
        raise Invalid(
            "A webhook is an https:// URL, without credentials or fragment.", reason="webhook.url"
        )
    return url


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def _row(webhook: Webhook, secret: str | None = None) -> WebhookRow:
    return WebhookRow(
        webhook.id,
        webhook.url,
        tuple(webhook.events),
        webhook.created_by,
        webhook.created_at,
        webhook.failing_since,
        webhook.disabled_at,
        webhook.disabled_for,
        secret,
    )


def _check_events(events: list[str]) -> list[str]:
    groups = {name.partition(".")[0] + ".*" for name in WORDS}
    unknown = sorted(set(events) - set(WORDS) - groups)
    if unknown:
        raise Invalid(
            f"There are no events {', '.join(unknown)}.",
            reason="webhook.events",
            next_step="Name events such as promotion.applied, or incident.* for all of a kind.",
        )
    return sorted(set(events))


def create_webhook(
    work: Work, *, url: str, events: list[str], link_key: bytes, loopback: bool = False
) -> WebhookRow:
    """Register a webhook and return it with its secret, which is never shown again.

    Raises:
        Invalid: the URL or an event is not one.
        Conflict: there are ``MAX_WEBHOOKS`` already.
    """
    require(work.actor, Permission.WEBHOOK_MANAGE)
    url, events = check_url(url, loopback=loopback), _check_events(events)
    if len(work.session.scalars(select(Webhook.id).limit(MAX_WEBHOOKS)).all()) >= MAX_WEBHOOKS:
        raise Conflict(f"There are {MAX_WEBHOOKS} webhooks already.", reason="webhook.many")
    secret = _new_secret()
    webhook = Webhook(
        id=new_id("whk"),
        url=url,
        events=events,
        secret=locker(link_key).encrypt(secret.encode()),
        created_by=work.actor.id,
        created_at=work.now,
    )
    work.session.add(webhook)
    _log(work, webhook, "created", {"url": url, "events": events})
    return _row(webhook, secret)


def _log(work: Work, webhook: Webhook, event: str, detail: Mapping[str, Any]) -> None:
    work.session.flush()
    ledger.append(work, type=f"webhook.{event}", subject=f"webhook:{webhook.id}", detail=detail)


def _lock(work: Work, webhook_id: str) -> Webhook:
    require(work.actor, Permission.WEBHOOK_MANAGE)
    found = work.session.get(Webhook, webhook_id, with_for_update=True)
    if found is None:
        raise NotFound(f"There is no webhook {webhook_id!r}.", reason="webhook.unknown")
    return found


def rotate_secret(work: Work, webhook_id: str, *, link_key: bytes) -> WebhookRow:
    """Make a new secret; the old one signs beside it for a day, so that nothing is refused."""
    webhook = _lock(work, webhook_id)
    secret = _new_secret()
    webhook.old_secret, webhook.old_until = webhook.secret, work.now + SECRET_OVERLAP
    webhook.secret = locker(link_key).encrypt(secret.encode())
    _log(work, webhook, "rotated", {})
    return _row(webhook, secret)


def disable_webhook(work: Work, webhook_id: str, *, reason: str = "By hand.") -> WebhookRow:
    """Stop posting to a webhook; what happens meanwhile is kept for a replay."""
    webhook = _lock(work, webhook_id)
    webhook.disabled_at, webhook.disabled_for = work.now, reason[:300]
    _log(work, webhook, "disabled", {"reason": reason[:300]})
    return _row(webhook)


def enable_webhook(work: Work, webhook_id: str) -> WebhookRow:
    """Post to a webhook again; ``replay`` sends what it missed."""
    webhook = _lock(work, webhook_id)
    webhook.disabled_at = webhook.disabled_for = webhook.failing_since = None
    _log(work, webhook, "enabled", {})
    return _row(webhook)


def delete_webhook(work: Work, webhook_id: str) -> None:
    """Forget a webhook and what was posted to it; the log keeps that it was there.

    Raises:
        Conflict: it is not stopped.
    """
    webhook = _lock(work, webhook_id)
    if webhook.disabled_at is None:
        raise Conflict(
            "Events are still posted there.",
            reason="webhook.posting",
            next_step="Stop it first, then delete it.",
        )
    _log(work, webhook, "deleted", {"url": webhook.url})
    work.session.execute(delete(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook.id))
    work.session.delete(webhook)


def list_webhooks(work: Work) -> list[WebhookRow]:
    """Return every webhook, oldest first, without secrets."""
    require(work.actor, Permission.WEBHOOK_MANAGE)
    return [_row(w) for w in work.session.scalars(select(Webhook).order_by(Webhook.id))]


def list_deliveries(
    work: Work, webhook_id: str, *, limit: int = 50, after: str | None = None
) -> list[DeliveryRow]:
    """Return what was queued for a webhook, newest first."""
    _lock(work, webhook_id)
    statement = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if after is not None:
        statement = statement.where(WebhookDelivery.id < after)
    rows = work.session.scalars(statement.order_by(WebhookDelivery.id.desc()).limit(limit))
    return [
        DeliveryRow(
            d.id,
            d.event_id,
            d.event,
            d.state,
            d.attempts,
            d.created_at,
            d.tried_at,
            d.status,
            d.milliseconds,
            d.answer,
        )
        for d in rows
    ]


def replay(
    work: Work,
    webhook_id: str,
    *,
    delivery_id: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> int:
    """Queue deliveries again, one or all of a time; return how many.

    Each goes out under its first ``webhook-id``, so that a receiver which has it ignores it.

    Raises:
        Invalid: neither a delivery nor a beginning is named.
        Conflict: the webhook is disabled.
    """
    webhook = _lock(work, webhook_id)
    if webhook.disabled_at is not None:
        raise Conflict("The webhook is disabled; enable it first.", reason="webhook.disabled")
    if delivery_id is None and since is None:
        raise Invalid("Name a delivery, or since when.", reason="webhook.replay")
    statement = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if delivery_id is not None:
        statement = statement.where(WebhookDelivery.id == delivery_id)
    if since is not None:
        statement = statement.where(WebhookDelivery.created_at >= since)
    if until is not None:
        statement = statement.where(WebhookDelivery.created_at < until)
    rows = work.session.scalars(statement.order_by(WebhookDelivery.id).limit(1000)).all()
    for delivery in rows:
        delivery.state, delivery.attempts = "queued", 0
        enqueue(work, "notices.webhook", {"delivery": delivery.id}, max_attempts=3)
    _log(work, webhook, "replayed", {"deliveries": len(rows)})
    return len(rows)


def wants(events: list[str], event: str) -> bool:
    """Tell whether a webhook that named ``events`` wants ``event``; naming none wants all."""
    return not events or event in events or event.partition(".")[0] + ".*" in events


def queue_event(work: Work, payload: Mapping[str, Any]) -> None:
    """Queue an event for every webhook that wants it; again changes nothing."""
    for webhook in work.session.scalars(select(Webhook).order_by(Webhook.id)):
        if not wants(webhook.events, payload["event"]):
            continue
        seen = select(WebhookDelivery.id).where(
            WebhookDelivery.webhook_id == webhook.id, WebhookDelivery.event_id == payload["id"]
        )
        if work.session.execute(seen).first() is not None:
            continue
        facts = {k: v for k, v in payload["facts"].items() if k in PUBLIC_FACTS}
        delivery = WebhookDelivery(
            id=new_id("whd"),
            webhook_id=webhook.id,
            event_id=payload["id"],
            event=payload["event"],
            body={
                "type": payload["event"],
                "timestamp": payload["at"],
                "data": {"subject": payload["subject"], **facts},
            },
            state="queued",
            attempts=0,
            created_at=work.now,
        )
        work.session.add(delivery)
        work.session.flush()
        if webhook.disabled_at is None:
            enqueue(work, "notices.webhook", {"delivery": delivery.id}, max_attempts=3)

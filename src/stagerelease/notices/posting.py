"""Posts one webhook delivery: signed, to a public address that was looked up just now.

The name is resolved here and the connection goes to that very address, so that an answer of the
name service which changes between the check and the connection leads nowhere else (SSRF). No
redirect is followed. Standard Webhooks: ``webhook-id`` is the event's id, whatever the attempt.
"""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import structlog
from cryptography.fernet import InvalidToken
from standardwebhooks import Webhook as Signer

from stagerelease.db.work import Work, Works
from stagerelease.jobs.outbox import emit, enqueue
from stagerelease.kernel.actor import SYSTEM
from stagerelease.kernel.clock import SystemClock
from stagerelease.kernel.errors import Unavailable
from stagerelease.ledger import service as ledger
from stagerelease.notices.hooks import locker
from stagerelease.notices.rules import WEBHOOK_PATIENCE, is_public, next_attempt
from stagerelease.notices.tables import Webhook, WebhookDelivery

log = structlog.get_logger(__name__)
TIMEOUT = httpx.Timeout(10.0, connect=5.0)
LONGEST_ANSWER = 1024
LONGEST_WAIT = 15.0  # for the whole exchange, however slowly it drips


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt went; ``status`` is None when nobody answered."""

    status: int | None
    milliseconds: int
    answer: str

    @property
    def taken(self) -> bool:
        """Tell whether the receiver took it: any 2xx."""
        return self.status is not None and 200 <= self.status < 300


def address_of(host: str, port: int, *, loopback: bool) -> str:
    """Return one address of ``host`` that may be posted to.

    Raises:
        Unavailable: the name leads nowhere, or to an address that is not public: one such among
            several refuses all of them.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable("The name leads nowhere.", reason="webhook.name") from error
    addresses = [str(entry[4][0]) for entry in found]
    if loopback and all(a in ("127.0.0.1", "::1") for a in addresses):
        return addresses[0]
    if not addresses or not all(is_public(address) for address in addresses):
        raise Unavailable("The name leads to an address that is not public.", reason="webhook.ssrf")
    return addresses[0]


def post(
    url: str, event_id: str, body: Mapping[str, Any], signers: list[str], *, loopback: bool
) -> Attempt:
    """Post ``body`` once, signed by each of ``signers``, and return how it went."""
    began = time.monotonic()

    def took() -> int:
        return int((time.monotonic() - began) * 1000)

    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    at = SystemClock().now()  # the receiver compares it with its own clock
    try:
        address = address_of(host, port, loopback=loopback)
        named = f"[{address}]" if ":" in address else address
        target = parts._replace(netloc=f"{named}:{port}").geturl()
        headers = {
            "Host": parts.netloc,
            "Content-Type": "application/json",
            "User-Agent": "stagerelease",
            "Accept-Encoding": "identity",  # what is packed could unpack to gigabytes
            "webhook-id": event_id,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(Signer(s).sign(event_id, at, text) for s in signers),
        }
        with (
            _Deadline(LONGEST_WAIT) as deadline,
            httpx.Client(timeout=TIMEOUT, follow_redirects=False, trust_env=False) as client,
            client.stream(
                "POST",
                target,
                content=text.encode(),
                headers=headers,
                extensions={
                    "sni_hostname": host,  # the certificate must be of the name
                    "trace": deadline.watch,
                },
            ) as answer,
        ):
            shown = _beginning(answer).decode("utf-8", "replace")
            return Attempt(answer.status_code, took(), shown)
    except Unavailable as refused:
        return Attempt(None, took(), f"{refused.reason}: {refused.sentence}")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as failed:
        late = time.monotonic() - began >= LONGEST_WAIT
        return Attempt(None, took(), "TooSlow" if late else type(failed).__name__)


def _beginning(answer: httpx.Response) -> bytes:
    """Return the first bytes of a body, as they came: it was taken or not whatever they say."""
    got = b""
    try:
        for chunk in answer.iter_raw(256):
            got += chunk
            if len(got) >= LONGEST_ANSWER:
                break
    except httpx.HTTPError:  # it broke, or its time was over
        pass
    return got[:LONGEST_ANSWER]


class _Deadline:
    """Ends an exchange when its time is over, whatever part of it drips: a timeout starts anew
    with each byte, and this does not."""

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._hang_up)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self._over = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            if self._line is not None:
                self._line.close()
                self._line = None

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of the connection when it is there (a trace function of httpcore's)."""
        if event != "connection.connect_tcp.complete":
            return
        with self._lock:
            # A descriptor of our own: TLS takes the first over before it has shaken hands.
            self._line = info["return_value"].get_extra_info("socket").dup()
        if self._over:
            self._hang_up()

    def _hang_up(self) -> None:
        with self._lock:
            self._over = True
            if self._line is not None:
                with suppress(OSError):  # the other end was quicker
                    self._line.shutdown(socket.SHUT_RDWR)


def deliver(
    works: Works, payload: Mapping[str, Any], *, link_key: bytes, loopback: bool = False
) -> None:
    """Try one delivery, and queue the next attempt if it was not taken."""
    with works.begin(SYSTEM, read_only=True) as work:
        delivery = work.session.get(WebhookDelivery, payload["delivery"])
        webhook = work.session.get(Webhook, delivery.webhook_id) if delivery else None
        if delivery is None or webhook is None or delivery.state != "queued":
            return
        if webhook.disabled_at is not None:
            return  # kept for a replay
        signers = _secrets(work, webhook, link_key)
        url, event_id, body = webhook.url, delivery.event_id, dict(delivery.body)
    attempt = post(url, event_id, body, signers, loopback=loopback)
    with works.begin(SYSTEM, quiet=True) as work:
        _record(work, payload["delivery"], attempt)


def _secrets(work: Work, webhook: Webhook, link_key: bytes) -> list[str]:
    box = locker(link_key)
    held = [webhook.secret]
    if webhook.old_secret is not None and webhook.old_until and webhook.old_until > work.now:
        held.append(webhook.old_secret)
    try:
        return [box.decrypt(secret).decode() for secret in held]
    except InvalidToken as error:
        raise Unavailable(
            "The webhook's secret was encrypted under another key: links.key was replaced.",
            reason="webhook.key",
        ) from error


def _record(work: Work, delivery_id: str, attempt: Attempt) -> None:
    delivery = work.session.get(WebhookDelivery, delivery_id, with_for_update=True)
    if delivery is None:
        return  # the webhook was deleted while it answered
    webhook = work.session.get_one(Webhook, delivery.webhook_id, with_for_update=True)
    delivery.attempts += 1
    delivery.tried_at = work.now
    delivery.status = attempt.status
    delivery.milliseconds = attempt.milliseconds
    delivery.answer = attempt.answer
    if attempt.taken:
        delivery.state, webhook.failing_since = "delivered", None
        return
    webhook.failing_since = webhook.failing_since or work.now
    gone = attempt.status == 410
    if gone or work.now - webhook.failing_since >= WEBHOOK_PATIENCE:
        _disable(work, webhook, "It answered 410 Gone." if gone else "It failed for five days.")
        return
    due = next_attempt(work.now, delivery.attempts, random.random())  # noqa: S311 (jitter)
    enqueue(work, "notices.webhook", {"delivery": delivery.id}, run_at=due, max_attempts=3)


def _disable(work: Work, webhook: Webhook, reason: str) -> None:
    if webhook.disabled_at is not None:
        return
    webhook.disabled_at, webhook.disabled_for = work.now, reason
    log.warning("webhook disabled", webhook=webhook.id, reason=reason)
    emit(
        work,
        "webhook.disabled",
        subject=f"webhook:{webhook.id}",
        roles=("owner", "release_manager"),
        facts={"webhook_id": webhook.id, "reason": reason},
    )
    work.session.flush()
    ledger.append(
        work,
        type="webhook.disabled",
        subject=f"webhook:{webhook.id}",
        detail={"reason": reason},
    )

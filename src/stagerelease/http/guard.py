"""The outermost ASGI layer: request id, security headers, no token in the clear, size of bodies.

Plain ASGI, because a wrapping middleware class that copies bodies would slow every download.
"""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HSTS = b"max-age=31536000; includeSubDomains"  # RFC 6797
_ID = re.compile(r"[A-Za-z0-9-]{8,64}\Z")


def _header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` (an address, or a test's socket name) never leaves this machine."""
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class BodyTooLarge(Exception):
    """The body outgrew its limit while it was being read."""


class Guard:
    """Wraps the application; refuses before any route runs what no route should ever see."""

    def __init__(self, app: ASGIApp, *, max_body: int, unlimited: re.Pattern[str]) -> None:
        self.app = app
        self.max_body = max_body
        self.unlimited = unlimited  # paths whose route enforces its own limit while streaming

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection scope."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent_id = _header(scope, b"x-request-id") or _header(scope, b"x-amzn-trace-id") or b""
        text = sent_id.decode("latin-1")
        request_id = text if _ID.match(text) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        secure = scope["scheme"] == "https"
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = list(message.get("headers", []))
                headers += [
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
                if secure:
                    headers.append((b"strict-transport-security", HSTS))
                message["headers"] = headers
            await send(message)

        async def refuse(status: int, code: str, sentence: str, next_step: str) -> None:
            body = json.dumps(
                {
                    "type": f"/problems/{code.partition('.')[0]}",
                    "title": "The request was refused",
                    "status": status,
                    "detail": sentence,
                    "code": code.partition(".")[0],
                    "reason": code,
                    "next_step": next_step,
                    "error": sentence,
                    "request_id": request_id,
                }
            ).encode()
            headers = [
                (b"content-type", b"application/problem+json"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                (b"x-error-message", sentence.encode("latin-1", "replace")),
                (b"connection", b"close"),
            ]
            start = {"type": "http.response.start", "status": status, "headers": headers}
            await send_with_headers(start)
            await send_with_headers({"type": "http.response.body", "body": body})

        client = scope.get("client")
        if (
            not secure
            and client is not None
            and not is_loopback(client[0])
            and _header(scope, b"authorization") is not None
        ):
            await refuse(
                403,
                "forbidden.plain-http",
                "A token was sent over plain HTTP from another machine; it was not looked at, "
                "and must now be considered seen by others.",
                "Revoke that token, and use the https:// address of this service.",
            )
            return
        # A NUL in a path or query can never name anything, and PostgreSQL refuses it as text.
        if "\x00" in unquote(scope["raw_path"].decode("latin-1")) or "\x00" in unquote(
            scope["query_string"].decode("latin-1")
        ):
            await refuse(400, "invalid.nul", "The address holds a NUL character.", "Remove it.")
            return
        if self.unlimited.match(scope["path"]):
            await self.app(scope, receive, send_with_headers)
            return
        length = _header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length) > self.max_body:
            await refuse(
                413,
                "too-large.body",
                f"The body has {int(length):,} bytes; this call takes at most {self.max_body:,}.",
                "Send less at once.",
            )
            return
        seen = 0

        async def receive_counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self.max_body:
                    raise BodyTooLarge
            return message

        try:
            await self.app(scope, receive_counted, send_with_headers)
        except BodyTooLarge:
            if started:
                raise
            await refuse(
                413,
                "too-large.body",
                f"The body is larger than the {self.max_body:,} bytes this call takes.",
                "Send less at once.",
            )

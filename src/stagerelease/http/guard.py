"""The outermost ASGI layer: request id, security headers, no token in the clear, size of bodies.

Plain ASGI, because a wrapping middleware class that copies bodies would slow every download.
"""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stagerelease.http.openai_shape import error_body, speaks_openai

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


@dataclass(slots=True)
class Exchange:
    """One request and the way back to its client, with the headers every answer carries."""

    scope: Scope
    raw_send: Send
    request_id: str

    async def send(self, message: Message) -> None:
        """Send a message, adding our headers to the first."""
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            if not any(name == b"referrer-policy" for name, _ in headers):  # pages have their own
                headers.append((b"referrer-policy", b"no-referrer"))
            headers += [
                (b"x-request-id", self.request_id.encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
            if self.scope["scheme"] == "https":
                headers.append((b"strict-transport-security", HSTS))
            message["headers"] = headers
        await self.raw_send(message)

    async def refuse(self, status: int, reason: str, sentence: str, next_step: str) -> None:
        """Answer with a problem document that Hub clients can show as well."""
        code = reason.partition(".")[0]
        document: dict[str, object] = {
            "type": f"/problems/{code}",
            "title": "The request was refused",
            "status": status,
            "detail": sentence,
            "code": code,
            "reason": reason,
            "next_step": next_step,
            "error": sentence,
            "request_id": self.request_id,
        }
        openai = speaks_openai(self.scope["path"])
        if openai:
            document = error_body(status, f"{sentence} {next_step}", code=reason)
        body = json.dumps(document).encode()
        headers = [
            (b"content-type", b"application/json" if openai else b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-error-message", sentence.encode("latin-1", "replace")),
            (b"connection", b"close"),
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def _request_id(scope: Scope) -> str:
    """Return the client's own id when it is well formed (Hub clients send one), else a new one."""
    sent = _header(scope, b"x-request-id") or _header(scope, b"x-amzn-trace-id") or b""
    text = sent.decode("latin-1")
    return text if _ID.match(text) else uuid.uuid4().hex


def _sends_token_in_the_clear(scope: Scope) -> bool:
    client = scope.get("client")
    return (
        scope["scheme"] != "https"
        and client is not None
        and not is_loopback(client[0])
        and _header(scope, b"authorization") is not None
    )


def _holds_nul(scope: Scope) -> bool:
    """Tell whether the address holds a NUL, which names nothing and PostgreSQL refuses as text."""
    return any(
        "\x00" in unquote(scope[part].decode("latin-1")) for part in ("raw_path", "query_string")
    )


DRAINED = 4 << 20
"""Largest refused body, in bytes, that is read to its end before it is answered."""


class Guard:
    """Wraps the application; refuses before any route runs what no route should ever see."""

    def __init__(self, app: ASGIApp, *, max_body: int, unlimited: re.Pattern[str]) -> None:
        self.app = app
        self.max_body = max_body
        self.unlimited = unlimited  # "METHOD path" whose route enforces its own limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection scope."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, send, _request_id(scope))
        scope.setdefault("state", {})["request_id"] = exchange.request_id
        if _sends_token_in_the_clear(scope):
            await exchange.refuse(
                403,
                "forbidden.plain-http",
                "A token was sent over plain HTTP from another machine; it was not looked at, "
                "and must now be considered seen by others.",
                "Revoke that token, and use the https:// address of this service.",
            )
        elif _holds_nul(scope):
            await exchange.refuse(
                400, "invalid.nul", "The address holds a NUL character.", "Remove it."
            )
        elif self.unlimited.fullmatch(f"{scope['method']} {scope['path']}"):
            await self.app(scope, receive, exchange.send)
        else:
            await self._limited(exchange, receive)

    async def _limited(self, exchange: Exchange, receive: Receive) -> None:
        """Run the application with a body that ends, as an error, at the limit."""
        length = _header(exchange.scope, b"content-length") or b""
        if length.isdigit() and int(length) > self.max_body:
            if int(length) <= DRAINED:  # a proxy that is still sending would not hear the answer
                while (await receive()).get("more_body"):
                    pass
            await self._refuse_size(exchange)
            return
        seen, outgrown, answered = 0, False, False

        async def receive_counted() -> Message:
            nonlocal seen, outgrown
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self.max_body:
                    outgrown = True
                    raise BodyTooLarge
            return message

        async def send_unless_outgrown(message: Message) -> None:
            nonlocal answered
            if not outgrown:
                answered = True
                await exchange.send(message)

        try:
            await self.app(exchange.scope, receive_counted, send_unless_outgrown)
        except BodyTooLarge:
            if answered:
                raise
        # A framework may have made its own answer of the signal; ours says what the matter is.
        if outgrown and not answered:
            await self._refuse_size(exchange)

    async def _refuse_size(self, exchange: Exchange) -> None:
        await exchange.refuse(
            413,
            "too-large.body",
            f"The body is larger than the {self.max_body:,} bytes this call takes.",
            "Send less at once.",
        )

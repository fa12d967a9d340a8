"""Refusals as OpenAI's clients expect them: status, ``{"error": …}``, and when to try again."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from stagerelease.http.openai_shape import error_body
from stagerelease.http.problems import headers_of, status_of
from stagerelease.inference.rules import Left, QuotaSpent
from stagerelease.kernel.errors import (
    DomainError,
    Invalid,
    NotFound,
    TooMany,
    Unauthenticated,
    Unavailable,
)

CODES = {
    "engine.context": "context_length_exceeded",
    "engine.token": "invalid_token_id",
    "engine.empty": "empty_prompt",
    "engine.parameter": "invalid_value",
    "engine.model": "model_not_supported",
    "invalid": "invalid_value",
}
LONG_WAIT = 60
"""Seconds beyond which OpenAI's client would not wait as it is told; it is told not to retry."""


def code_of(error: DomainError) -> str:
    """Return the code of an error in OpenAI's words, ours where they have none."""
    if isinstance(error, Unauthenticated):
        return "invalid_api_key"
    if isinstance(error, NotFound):
        return "model_not_found"
    return CODES.get(error.reason, error.reason)


def status_for(error: DomainError) -> int:
    """Return the status of an error; what cannot be understood is 400 here, never 422."""
    return 400 if isinstance(error, Invalid) else status_of(error)


def document_of(error: DomainError, request_id: str | None = None) -> dict[str, Any]:
    """Return the document of an error, for an answer or as the last event of a stream."""
    message = f"{error.sentence} {error.next_step}" if error.next_step else error.sentence
    param = error.fields[0].field if error.fields else None
    if isinstance(error, NotFound) or error.reason == "engine.model":
        param = "model"
    elif error.reason in ("engine.context", "engine.empty", "engine.token"):
        param = param or "prompt"
    return error_body(
        status_for(error), message, code=code_of(error), param=param, request_id=request_id
    )


def error_headers(error: DomainError) -> dict[str, str]:
    """Return the headers that go with an error."""
    headers = headers_of(error)
    if isinstance(error, QuotaSpent):
        headers |= limit_headers(error.left)
    if not isinstance(error, TooMany | Unavailable) or error.retry_after > LONG_WAIT:
        headers["x-should-retry"] = "false"  # it would be refused again
    return headers


def refusal(error: DomainError, request_id: str | None = None) -> Response:
    """Return ``error`` as an answer."""
    return JSONResponse(
        document_of(error, request_id), status_for(error), headers=error_headers(error)
    )


def respond(error: DomainError, request: Request) -> Response:
    """Spell a refusal of a route below ``/v1``; after a permit, with what goes with that."""
    answer = refusal(error, getattr(request.state, "request_id", None))
    answer.headers.update(getattr(request.state, "permit_headers", {}))
    return answer


async def speak_openai(request: Request) -> None:
    """Make every refusal of a route leave in OpenAI's shape."""
    request.state.respond_error = respond


def limit_headers(left: tuple[Left, ...]) -> dict[str, str]:
    """Return what is left, in OpenAI's headers and in the IETF's (draft-ietf-httpapi-ratelimit)."""
    headers = {}
    for window in left:
        if window.window == 60:
            headers[f"x-ratelimit-limit-{window.unit}"] = str(window.limit)
            headers[f"x-ratelimit-remaining-{window.unit}"] = str(window.remaining)
            headers[f"x-ratelimit-reset-{window.unit}"] = f"{window.reset}s"
    policy = ", ".join(f'"{w.name}";q={w.limit};w={w.window}' for w in left)
    standing = ", ".join(f'"{w.name}";r={w.remaining};t={w.reset}' for w in left)
    return headers | {"RateLimit-Policy": policy, "RateLimit": standing}

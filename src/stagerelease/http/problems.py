"""Domain errors as RFC 9457 problem details. The one place that knows status codes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from stagerelease.kernel.errors import (
    Blocked,
    Conflict,
    Corrupt,
    DomainError,
    Forbidden,
    Invalid,
    NotFound,
    Stale,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
)

STATUS: dict[type[DomainError], int] = {
    Invalid: 422,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Stale: 412,
    TooLarge: 413,
    TooMany: 429,
    Unavailable: 503,
    Corrupt: 500,
    DomainError: 400,
}
MEDIA_TYPE = "application/problem+json"
Responder = Callable[[DomainError, Request], Response]
"""How a face spells a refusal; a face other than JSON puts its own in ``request.state``."""


def status_of(error: DomainError) -> int:
    """Return the HTTP status of an error: that of its nearest listed ancestor."""
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return 400


class FieldProblem(BaseModel):
    """One field that is wrong."""

    field: str
    sentence: str


class BlockerOut(BaseModel):
    """One reason a release decision is refused."""

    code: str
    sentence: str


class Problem(BaseModel):
    """RFC 9457 problem details, with what to do next."""

    model_config = ConfigDict(title="Problem")

    type: str
    title: str
    status: int
    detail: str
    code: str
    reason: str
    next_step: str | None = None
    request_id: str | None = None
    fields: list[FieldProblem] | None = None
    blockers: list[BlockerOut] | None = None


def problem_of(error: DomainError, request: Request) -> Problem:
    """Return the problem document of ``error``."""
    return Problem(
        type=f"/problems/{error.code}",
        title=error.title,
        status=status_of(error),
        detail=error.sentence,
        code=error.code,
        reason=error.reason,
        next_step=error.next_step,
        request_id=getattr(request.state, "request_id", None),
        fields=[FieldProblem(field=f.field, sentence=f.sentence) for f in error.fields] or None,
        blockers=[BlockerOut(code=b.code, sentence=b.sentence) for b in error.blockers]
        if isinstance(error, Blocked)
        else None,
    )


def headers_of(error: DomainError) -> dict[str, str]:
    """Return the headers that go with ``error``."""
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="stagerelease"'
    if isinstance(error, Unavailable | TooMany):
        headers["Retry-After"] = str(error.retry_after)
    return headers


def respond(error: DomainError, request: Request) -> JSONResponse:
    """Return ``error`` as a problem response."""
    body = problem_of(error, request).model_dump(exclude_none=True)
    return JSONResponse(body, status_of(error), headers_of(error), media_type=MEDIA_TYPE)


def _field_errors(error: RequestValidationError) -> list[dict[str, str]]:
    # The input itself is never echoed: it may hold a secret.
    return [
        {"field": ".".join(str(p) for p in e["loc"]), "sentence": str(e["msg"])}
        for e in error.errors()
    ]


def install_problems(app: FastAPI) -> None:
    """Make every error of ``app`` leave as a problem document."""

    async def on_domain(request: Request, error: Exception) -> Response:
        assert isinstance(error, DomainError)  # noqa: S101 (narrows the handler's type)
        answer: Responder = getattr(request.state, "respond_error", respond)
        return answer(error, request)

    async def on_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        invalid = Invalid("The request does not have the form this call takes.")
        body = problem_of(invalid, request).model_dump(exclude_none=True)
        body["fields"] = _field_errors(error)
        return JSONResponse(body, 422, {"Cache-Control": "no-store"}, media_type=MEDIA_TYPE)

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": str(error.detail),
            "status": error.status_code,
            "detail": f"{request.method} {request.url.path}: {error.detail}.",
            "code": "http",
            "reason": f"http.{error.status_code}",
        }
        return JSONResponse(body, error.status_code, error.headers, media_type=MEDIA_TYPE)

    app.add_exception_handler(DomainError, on_domain)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)

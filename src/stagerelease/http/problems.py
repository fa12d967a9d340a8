"""Domain errors as RFC 9457 problem details. The one place that knows status codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

from stagerelease.http.openai_shape import error_body, speaks_openai
from stagerelease.kernel.errors import (
    Blocked,
    Conflict,
    Corrupt,
    DomainError,
    Forbidden,
    Invalid,
    NotFound,
    ProofNeeded,
    Stale,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
)

STATUS: dict[type[DomainError], int] = {
    Invalid: 422,
    Unauthenticated: 401,
    ProofNeeded: 403,
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
_NO_PAGE = "There is nothing at this address. It may be mistyped, or it is not there any more."
Responder = Callable[[DomainError, Request], Response]
"""How a face spells a refusal; a face other than JSON puts its own in ``request.state``."""


def status_of(error: DomainError) -> int:
    """Return the HTTP status of an error: that of its nearest listed ancestor."""
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return 400


def all_codes() -> dict[str, type[DomainError]]:
    """Return every public error code and its class."""
    found: dict[str, type[DomainError]] = {}
    waiting: list[type[DomainError]] = [DomainError]
    while waiting:
        cls = waiting.pop()
        found[cls.code] = cls
        waiting.extend(cls.__subclasses__())
    return found


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


def _wants_page(request: Request) -> bool:
    """Tell whether a browser asks: a page's own route, or a client that names HTML first."""
    if getattr(request.state, "speaks_page", False):
        return True
    return request.headers.get("accept", "").lower().startswith("text/html")


def _answer(problem: Problem, request: Request, headers: Mapping[str, str]) -> Response:
    """Return ``problem`` as a page to a browser, as a document to everybody else."""
    if speaks_openai(request.url.path):
        return _as_openai(problem, headers)
    if _wants_page(request):
        shown: Response = request.app.state.problem_page(problem, request, dict(headers))
        return shown
    body = problem.model_dump(exclude_none=True)
    return JSONResponse(body, problem.status, headers, media_type=MEDIA_TYPE)


def _as_openai(problem: Problem, headers: Mapping[str, str]) -> Response:
    status = 400 if problem.status == 422 else problem.status
    message = f"{problem.detail} {problem.next_step or ''}".strip()
    body = error_body(status, message, code=problem.reason, request_id=problem.request_id)
    return JSONResponse(body, status, {**headers, "x-should-retry": "false"})


def _respond(error: DomainError, request: Request) -> Response:
    return _answer(problem_of(error, request), request, headers_of(error))


async def _on_domain(request: Request, error: Exception) -> Response:
    assert isinstance(error, DomainError)  # noqa: S101 (narrows the handler's type)
    answer: Responder = getattr(request.state, "respond_error", _respond)
    return answer(error, request)


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    invalid = Invalid("The request does not have the form this call takes.")
    problem = problem_of(invalid, request)
    problem.fields = [FieldProblem.model_validate(field) for field in _field_errors(error)]
    return _answer(problem, request, {"Cache-Control": "no-store"})


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    problem = Problem(
        type="about:blank",
        title=str(error.detail),
        status=error.status_code,
        detail=_NO_PAGE
        if error.status_code == 404 and _wants_page(request)
        else f"{request.method} {request.url.path}: {error.detail}.",
        code="http",
        reason=f"http.{error.status_code}",
        request_id=getattr(request.state, "request_id", None),
    )
    return _answer(problem, request, error.headers or {})


async def _on_bug(request: Request, error: Exception) -> Response:  # noqa: ARG001
    # What broke goes to the log, by the server; the visitor learns which request it was.
    problem = Problem(
        type="about:blank",
        title="Something broke on our side",
        status=500,
        detail="Something broke on our side. It is not your fault, and it is on record.",
        code="bug",
        reason="http.500",
        next_step="Try again. If it happens again, tell us the number of this request.",
        request_id=getattr(request.state, "request_id", None),
    )
    return _answer(problem, request, {"Cache-Control": "no-store"})


def install_problems(app: FastAPI) -> None:
    """Make every error of ``app`` leave as a problem document, or as a page to a browser."""
    app.add_exception_handler(DomainError, _on_domain)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)

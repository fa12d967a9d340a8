"""Refusals as pages: what happened, why, and what to do next, in plain words.

The JSON face spells the same errors as problem documents; the codes are the same.
"""

from __future__ import annotations

from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response

from stagerelease.http.pages.begin import clear_session, session_cookie
from stagerelease.http.pages.frame import page, safe_next, to
from stagerelease.http.pages.proof import ask_for_proof
from stagerelease.http.problems import Problem, headers_of, problem_of
from stagerelease.kernel.errors import DomainError, ProofNeeded, Unauthenticated

WORDS = {
    401: "You need to sign in",
    403: "You may not do this",
    404: "There is no such page",
    405: "This cannot be done here",
    409: "That is not possible as things stand",
    412: "This changed since you looked",
    413: "That is too large",
    422: "Something is not right yet",
    429: "Too many at once",
    500: "Something broke on our side",
    503: "Not available right now",
}


def problem_page(problem: Problem, request: Request, headers: dict[str, str]) -> Response:
    """Return a problem as a page."""
    kept = {k: v for k, v in headers.items() if k.lower() not in ("www-authenticate",)}
    title = WORDS.get(problem.status, problem.title)
    return page(
        request,
        "problem.html",
        status=problem.status,
        headers=kept,
        problem=problem,
        title=title,
        typed=getattr(request.state, "typed", []),
    )


def refuse(error: DomainError, request: Request) -> Response:
    """Return a refusal as a page; who has to sign in, or to show who they are, is led to that."""
    if isinstance(error, Unauthenticated):
        return _sign_in_first(error, request)
    if isinstance(error, ProofNeeded):
        return ask_for_proof(request, error)
    return problem_page(problem_of(error, request), request, headers_of(error))


def _sign_in_first(error: Unauthenticated, request: Request) -> Response:
    response: Response
    if request.method in ("GET", "HEAD"):
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        then = safe_next(path)
        response = to(f"/sign-in?next={quote(then, safe='/')}" if then else "/sign-in")
    else:
        response = problem_page(problem_of(error, request), request, headers_of(error))
    if session_cookie(request) is not None:
        clear_session(request, response)
    return response


async def speak_page(request: Request) -> None:
    """Make every refusal of a route leave as a page."""
    request.state.speaks_page = True
    request.state.respond_error = refuse

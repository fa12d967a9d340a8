"""The shape of errors that OpenAI's clients understand: of every failure below ``/v1``. Pure."""

from __future__ import annotations

from typing import Any

PREFIX = "/v1/"
TYPES = {
    401: "invalid_request_error",
    403: "permission_error",
    404: "invalid_request_error",
    429: "rate_limit_error",
}


def speaks_openai(path: str) -> bool:
    """Tell whether what is asked at ``path`` is answered in OpenAI's shape."""
    return path.startswith(PREFIX)


def type_of(status: int) -> str:
    """Return the type of an error that leaves with this status."""
    if status >= 500:
        return "server_error"
    return TYPES.get(status, "invalid_request_error")


def error_body(
    status: int, message: str, *, code: str | None, param: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return an error document; ``more`` are fields of ours, which clients look past."""
    error = {"message": message, "type": type_of(status), "param": param, "code": code}
    return {"error": error | {name: value for name, value in more.items() if value is not None}}

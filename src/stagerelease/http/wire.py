"""What every JSON body has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, TypeVar

from fastapi import Depends, Query, Request, Response
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, PlainSerializer
from pydantic_core import PydanticCustomError

from stagerelease.kernel.clock import in_range, iso

Instant = Annotated[datetime, PlainSerializer(iso, return_type=str, when_used="json")]
"""An instant on the wire: ``YYYY-MM-DDTHH:MM:SS.mmmZ``."""


def _kept(at: datetime) -> datetime:
    try:
        return in_range(at)
    except ValueError as error:
        raise PydanticCustomError("instant", "{words}", {"words": str(error)}) from error


InstantIn = Annotated[AwareDatetime, AfterValidator(_kept)]
"""An instant that comes in: with its zone, in a year that is kept; UTC from here on."""


class In(BaseModel):
    """A body that comes in: unknown fields are refused, strings are trimmed and NUL-free."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, str_max_length=200_000)


class Out(BaseModel):
    """A body that goes out, built from a frozen row."""

    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel):
    """Which part of a list: at most ``limit`` rows, after the row whose key is ``after``."""

    limit: int
    after: str | None


def page(
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Page:
    """Read the paging parameters of a list."""
    return Page(limit=limit, after=after)


Paging = Annotated[Page, Depends(page)]
Row = TypeVar("Row")


def origin_of(request: Request) -> str:
    """Return the origin clients use: the configured public URL, or what this request says."""
    public = str(request.app.state.settings.public_url).rstrip("/")
    return public or f"{request.url.scheme}://{request.url.netloc}"


def keyset(
    request: Request,
    response: Response,
    rows: Sequence[Row],
    page: Page,
    key: Callable[[Row], object],
) -> list[Row]:
    """Return the first ``page.limit`` of ``rows`` and set an absolute next link if there are more.

    For lists that SQL pages: ``rows`` begin after ``page.after``, and one more than ``page.limit``
    was asked for, to know whether another page follows.
    """
    part = list(rows[: page.limit])
    if len(rows) > page.limit:
        url = request.url.include_query_params(limit=page.limit, after=str(key(part[-1])))
        target = f"{origin_of(request)}{request.url.path}?{url.query}"
        response.headers["Link"] = f'<{target}>; rel="next"'
    return part


def paged(
    request: Request,
    response: Response,
    rows: Sequence[Row],
    page: Page,
    key: Callable[[Row], object],
) -> list[Row]:
    """Return the asked part of ``rows`` (already in key order) and set an absolute next link.

    Keyset paging: ``after`` is the key of the last row seen, so rows added meanwhile shift nothing.
    """
    start = 0
    if page.after is not None:
        keys = [str(key(row)) for row in rows]
        start = keys.index(page.after) + 1 if page.after in keys else len(rows)
    part = list(rows[start : start + page.limit])
    if part and start + page.limit < len(rows):
        url = request.url.include_query_params(limit=page.limit, after=str(key(part[-1])))
        query = f"?{url.query}"
        response.headers["Link"] = f'<{origin_of(request)}{request.url.path}{query}>; rel="next"'
    return part

"""Reads what another process answers over HTTP, trusting none of it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Never, TypeVar

import httpx

from stagerelease.engine import wire
from stagerelease.kernel.errors import Unavailable

T = TypeVar("T")


def read_as(read: Callable[[Mapping[str, Any]], T], document: Mapping[str, Any]) -> T:
    """Return what ``read`` makes of a document.

    Raises:
        Unavailable: the document is of another shape.
    """
    try:
        return read(document)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise away("its answer is of another protocol") from None


def away(why: str) -> Unavailable:
    """Return the refusal for a process that cannot be asked."""
    return Unavailable(
        f"The inference process cannot be asked now: {why}.", retry_after=5, reason="engine.away"
    )


async def documents(answer: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
    """Yield the documents of an event stream up to its ``[DONE]``.

    Raises:
        Unavailable: it breaks off before, or is no such stream.
    """
    reader = wire.SseReader()
    try:
        async for chunk in answer.aiter_bytes():
            for data in reader.feed(chunk):
                if data == b"[DONE]":
                    return
                document = json.loads(data, parse_constant=_no_constant)
                if not isinstance(document, dict):
                    raise away("its answer is of another protocol")
                yield document
    except (ValueError, RecursionError):
        raise away("its answer is of another protocol") from None
    raise away("its answer broke off")


async def whole(answer: httpx.Response) -> dict[str, Any]:
    """Return the document of an answer that is not streamed.

    Raises:
        Unavailable: it holds none.
    """
    document = parse(await answer.aread())
    if not isinstance(document, dict):
        raise away("its answer is of another protocol")
    return document


def parse(body: bytes) -> Any:
    """Return what a body of JSON says, or None when it is not JSON."""
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is no JSON")

"""The only door from a route to a Work: ``begin`` authenticates inside the transaction it opens.

A route body opens, uses and closes its Work itself. Nothing is opened in a dependency, so no
connection is held between thread-pool trips or while bytes flow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated

from fastapi import Depends, Request

from stagerelease.db.work import Work, Works
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import ANONYMOUS
from stagerelease.kernel.errors import Unauthenticated

BeginWork = Callable[..., AbstractContextManager[Work]]


def bearer_of(request: Request) -> str | None:
    """Return the bearer token of a request, or None when it sends no Authorization header.

    Raises:
        Unauthenticated: the header is there and holds nothing we can read.
    """
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    raise Unauthenticated(identity.BAD_TOKEN, reason="token.malformed")


def begin_over(works: Works, request: Request, *, must_be_known: bool = False) -> BeginWork:
    """Return the door for the caller of ``request`` over ``works``, which has its connections."""

    @contextmanager
    def begin(
        *, read_only: bool = False, quiet: bool = False, dry_run: bool = False
    ) -> Iterator[Work]:
        bearer = bearer_of(request)
        with works.begin(ANONYMOUS, read_only=read_only, quiet=quiet, dry_run=dry_run) as work:
            if bearer is not None:
                work.actor = identity.authenticate(work, bearer)
            elif must_be_known:
                raise Unauthenticated(
                    "This needs a token.",
                    reason="token.missing",
                    next_step="Send 'Authorization: Bearer <token>'.",
                )
            yield work

    return begin


async def begin_known(request: Request) -> BeginWork:
    """Give a route its door; the caller must be known."""
    return begin_over(request.app.state.works, request, must_be_known=True)


async def begin_public(request: Request) -> BeginWork:
    """Give a route its door; anonymous callers may come in."""
    return begin_over(request.app.state.works, request)


Begin = Annotated[BeginWork, Depends(begin_known)]
BeginPublic = Annotated[BeginWork, Depends(begin_public)]

"""How a step is taken on a page of staff, and what comes of a refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Path, Response

from stagerelease.db.work import Work
from stagerelease.http.pages.begin import BeginWork
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Typed
from stagerelease.http.pages.frame import by_field, to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.http.problems import status_of
from stagerelease.identity import queries as people
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.clock import in_range, iso
from stagerelease.kernel.errors import (
    Conflict,
    DomainError,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    Stale,
)
from stagerelease.releases.queries import MAX_ID

Number = Annotated[int, Path(ge=1, le=MAX_ID)]
"""The number of a promotion, a hold, a proposal, an incident or a version, in an address."""
Act = Callable[[Work], Any]
REFUSALS = (Invalid, Conflict, Stale, Forbidden, NotFound)


class Again(Protocol):
    """Shows the page of a form again, with why it was refused."""

    def __call__(self, *, refusal: DomainError) -> Response:
        """Return the page."""


def desk_router(prefix: str) -> APIRouter:
    """Return a router of pages for staff: refusals are pages, and other sites send nothing."""
    return APIRouter(
        prefix=prefix,
        include_in_schema=False,
        dependencies=[Depends(speak_page), Depends(refuse_forgery)],
    )


def take(
    begin: BeginWork,
    needs: Permission,
    act: Act,
    *,
    then: str | Callable[[Any], str],
    again: Again,
    proved: bool = False,
) -> Response:
    """Take a step in one Work and lead on; a refusal is handed to ``again``, which shows the page.

    ``needs`` is asked before any word on the form, so that who may not act learns nothing else.
    ``proved`` asks for a fresh proof of who acts; what is typed is kept until it is given.
    """
    try:
        if proved:  # who may not act at all is told so, and not asked for a proof first
            with begin(read_only=True) as work:
                require(work.actor, needs)
        with begin(proved=proved) as work:
            require(work.actor, needs)
            done = act(work)
            where = then(done) if callable(then) else then
    except REFUSALS as error:
        return again(refusal=error)
    return to(where)


def take_grave(
    begin: BeginWork,
    needs: Permission,
    act: Act,
    *,
    then: str | Callable[[Any], str],
    again: Again,
) -> Response:
    """Take a step that lets people in, stops them or ends something: approve, apply, hold, revoke.

    Every such step of a page goes through here and nothing else does, so a proof that the person
    is at their keyboard now is asked for in this one place, before the step is taken.
    """
    return take(begin, needs, act, then=then, again=again, proved=True)


def status_after(refusal: DomainError | None) -> int:
    """Return the status of a page shown again: 409 for whatever moved beneath the one who acted."""
    if refusal is None:
        return 200
    return 409 if isinstance(refusal, Stale) else status_of(refusal)


def after_refusal(
    refusal: DomainError | None, typed: Typed | None = None, *keys: str, status: int = 200
) -> dict[str, Any]:
    """Return what a page with a form shows of a refusal, if there was one.

    Its status, its words, its faults by field, and under ``values`` what was typed into the fields
    called ``keys``.
    """
    found = {
        "status": status_after(refusal) if refusal else status,
        "refusal": refusal,
        "errors": by_field(refusal.fields) if refusal else {},
    }
    if keys:
        found["values"] = typed.values(*keys) if typed else dict.fromkeys(keys, "")
    return found


def needed(sent: Typed, key: str, sentence: str) -> str:
    """Return what was typed into a field.

    Raises:
        Invalid: nothing was.
    """
    text = sent.get(key)
    if not text:
        raise wrong(key, sentence)
    return text


def wrong(key: str, sentence: str) -> Invalid:
    """Return the refusal of one field of a form."""
    return Invalid(sentence, reason="page.field", fields=[FieldError(key, sentence)])


def typed_name(sent: Typed, name: str, *, key: str = "typed") -> None:
    """Return only if the name was typed that a grave step asks for, into the field ``key``.

    Raises:
        Invalid: it was not, or another was.
    """
    if sent.get(key) != name:
        raise wrong(key, f"Type the name exactly: {name}")


def instant(text: str, key: str) -> datetime | None:
    """Return what a field for date and time holds, which is UTC; None when it is empty.

    Raises:
        Invalid: it is no date and time.
    """
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        return in_range(at.replace(tzinfo=UTC) if at.tzinfo is None else at)
    except ValueError as error:
        raise wrong(key, "Give a date and time such as 2027-03-31T09:00. It is UTC.") from error


def seen_at(sent: Typed | None, now: datetime) -> datetime:
    """Return when the page was made that a form was sent from, as the form says; else ``now``."""
    try:
        at = datetime.fromisoformat(sent.get("seen_at")) if sent is not None else now
        return in_range(at) if at.tzinfo is not None else now
    except ValueError:
        return now


def names_of(work: Work, ids: Iterable[str | None]) -> dict[str, str]:
    """Return handles by id: of people, and of what acts without being one."""
    found = {}
    for person_id in {one for one in ids if one}:
        row = people.find_person(work, person_id)
        found[person_id] = row.handle if row is not None else person_id
    return found


def stamp(work: Work) -> str:
    """Return the instant of a page, for its forms to send back."""
    return iso(work.now)

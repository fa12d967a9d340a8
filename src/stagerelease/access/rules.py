"""What may become of an access request, and when one may be sent. Pure.

A request is stored with the states of the domain; faces that speak the Hub's words see its
``Status``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, FieldError, Invalid
from stagerelease.partners.rules import LIVE

REAPPLY_AFTER = timedelta(days=30)
DEFAULT_TERM = timedelta(days=365)
"""How long a grant lasts that a request was answered with, unless its reviewer says otherwise."""

MAX_FIELDS = 20
MAX_NAME = 100
MAX_ANSWER = 2000
MAX_REASON = 200  # the Hub's own limit of a rejection reason


class State(StrEnum):
    """Where an access request is. Drafts and questions back come with the pages that need them."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    IN_REVIEW = "in_review"
    RETURNED = "returned"
    APPROVED = "approved"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"


class Status(StrEnum):
    """A request in the Hub's words; ``ended`` is approved once, with a grant that is over."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    ENDED = "ended"


S = State
OPEN = frozenset({S.SUBMITTED, S.IN_REVIEW, S.RETURNED})
MOVES: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        S.DRAFT: frozenset({S.SUBMITTED, S.WITHDRAWN}),
        S.SUBMITTED: frozenset({S.IN_REVIEW, S.APPROVED, S.REJECTED, S.WITHDRAWN, S.EXPIRED}),
        S.IN_REVIEW: frozenset({S.RETURNED, S.APPROVED, S.REJECTED, S.WITHDRAWN, S.EXPIRED}),
        S.RETURNED: frozenset({S.SUBMITTED, S.REJECTED, S.WITHDRAWN, S.EXPIRED}),
        # A reviewer may take a decision back: the request waits again, or is decided otherwise.
        S.APPROVED: frozenset({S.SUBMITTED, S.REJECTED}),
        S.REJECTED: frozenset({S.SUBMITTED, S.APPROVED}),
        S.WITHDRAWN: frozenset(),
        S.EXPIRED: frozenset(),
    }
)
GOALS: Mapping[Status, State] = MappingProxyType(
    {
        Status.ACCEPTED: S.APPROVED,
        Status.REJECTED: S.REJECTED,
        Status.PENDING: S.SUBMITTED,
    }
)
"""What a reviewer asks for, and the state that is."""


def status_of(state: str, grant_state: str | None) -> Status:
    """Return how a request is shown, given the state of the grant it led to (None: no grant)."""
    if state == S.APPROVED:
        return Status.ACCEPTED if grant_state in LIVE else Status.ENDED
    if state == S.REJECTED:
        return Status.REJECTED
    return Status.PENDING if state in OPEN else Status.WITHDRAWN


def check_move(state: str, to: State, *, status: Status) -> None:
    """Return only if a request in ``state`` may move to ``to``.

    Raises:
        Conflict: it is there already (reason ``access.already-<status>``), or it cannot.
    """
    if state == to:
        raise Conflict(f"The request is {status} already.", reason=f"access.already-{status}")
    if to not in MOVES[State(state)] or status is Status.ENDED:
        raise Conflict(
            f"The request is {status}, and that does not lead to {to}.",
            reason=f"access.{status}",
            next_step="Whoever still needs access sends a new request.",
        )


def check_answers(answers: Mapping[str, str]) -> dict[str, str]:
    """Return the applicant's answers, trimmed.

    Raises:
        Invalid: more than ``MAX_FIELDS``, or a name or answer that is too long or cannot be kept;
            ``fields`` names each.
    """
    if len(answers) > MAX_FIELDS:
        raise Invalid(
            f"A request has at most {MAX_FIELDS} fields; this one has {len(answers)}.",
            reason="access.fields",
        )
    wrong: list[FieldError] = []
    kept: dict[str, str] = {}
    for number, (name, answer) in enumerate(answers.items()):
        name, answer = name.strip(), answer.replace("\r\n", "\n").strip()
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            wrong.append(
                FieldError(f"fields.{number}", f"A name is 1 to {MAX_NAME} printable characters.")
            )
        elif len(answer) > MAX_ANSWER or not all(c.isprintable() or c in "\n\t" for c in answer):
            wrong.append(
                FieldError(name, f"An answer is at most {MAX_ANSWER:,} printable characters.")
            )
        else:
            kept[name] = answer
    if wrong:
        raise Invalid("Some fields are not as they must be.", reason="access.fields", fields=wrong)
    return kept


def check_may_reapply(
    now: datetime, *, reason: str | None, may_reapply_after: datetime | None
) -> None:
    """Return only if an applicant whose last request was rejected may ask again ``now``.

    Raises:
        Conflict: not yet; says why it was rejected and from when on.
    """
    if may_reapply_after is not None and now < may_reapply_after:
        because = f": {reason}" if reason else "."
        raise Conflict(
            f"Your request was rejected{because}",
            reason="access.rejected",
            next_step=f"You may ask again after {iso(may_reapply_after)}.",
        )


def purpose_of(request_id: str, answers: Mapping[str, str]) -> str:
    """Return the purpose written into a grant: what the applicant said, else where to read it."""
    for name in ("purpose", "Purpose", "intended_use", "Intended use"):
        if answers.get(name):
            return answers[name]
    return f"As stated in access request {request_id}."

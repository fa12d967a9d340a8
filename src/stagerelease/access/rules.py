"""What may become of an access request, and when one may be sent. Pure.

A request is stored with the states of the domain; faces that speak the Hub's words see its
``Status``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from stagerelease.kernel.clock import said
from stagerelease.kernel.errors import Conflict, FieldError, Forbidden, Invalid
from stagerelease.partners.rules import LIVE, LONGEST_GRANT, MAX_PURPOSE

REAPPLY_AFTER = timedelta(days=30)
DEFAULT_TERM = timedelta(days=365)
"""How long a grant lasts that a request was answered with, unless its reviewer says otherwise."""

MAX_FIELDS = 20
MAX_NAME = 100
MAX_ANSWER = 2000
MAX_REASON = 200  # the Hub's own limit of a rejection reason
MAX_MESSAGE = 4000
MAX_EVENTS = 200
"""Steps one request can have: a thread that is longer is no review any more."""

DRAFT_KEPT = timedelta(days=30)
"""How long a draft is kept after it was last saved."""
CONFIRM_WITHIN = timedelta(days=7)
"""How long a visitor has to confirm the address under which they asked."""
MAIL_AGAIN_AFTER = timedelta(minutes=2)
"""A second click, or an impatient one, sends no second mail before this."""
SUBMITTED_FOR = timedelta(days=90)
RETURNED_FOR = timedelta(days=30)
LONGEST_TERM = LONGEST_GRANT
"""The furthest end a reviewer may give: what any grant may last."""
DECISION_WINDOW = timedelta(days=90)
"""Decisions of this long back tell an applicant how long an answer takes."""


class State(StrEnum):
    """Where an access request is. A draft is kept apart from requests until it is submitted."""

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


class DraftState(StrEnum):
    """Where a draft is: written, waiting for its address to be confirmed, sent, or over."""

    OPEN = "open"
    UNCONFIRMED = "unconfirmed"
    SUBMITTED = "submitted"
    DISCARDED = "discarded"
    EXPIRED = "expired"


class Origin(StrEnum):
    """How a request came in. ``admitted`` ones were decided before they were asked."""

    FORM = "form"
    API = "api"
    HUB = "hub"
    ADMITTED = "admitted"


S = State
OPEN = frozenset({S.SUBMITTED, S.IN_REVIEW, S.RETURNED})
MOVES: Mapping[State, frozenset[State]] = MappingProxyType(
    {
        S.DRAFT: frozenset({S.SUBMITTED, S.WITHDRAWN}),
        # A reviewer who decides at once, as the Hub's one call does, has taken it up by deciding.
        S.SUBMITTED: frozenset({S.IN_REVIEW, S.APPROVED, S.REJECTED, S.WITHDRAWN, S.EXPIRED}),
        S.IN_REVIEW: frozenset({S.RETURNED, S.APPROVED, S.REJECTED, S.WITHDRAWN}),
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


def expiry_of(state: State, now: datetime) -> datetime | None:
    """Return when a request that enters ``state`` now is over if nobody does anything."""
    wait = {S.SUBMITTED: SUBMITTED_FOR, S.RETURNED: RETURNED_FOR}.get(state)
    return None if wait is None else now + wait


def is_over(state: str, expires_at: datetime | None, now: datetime) -> bool:
    """Tell whether an open request has waited too long, whether or not a sweep has said so."""
    return state in OPEN and expires_at is not None and expires_at <= now


def check_not_over(state: str, expires_at: datetime | None, now: datetime) -> None:
    """Return only if a request has not waited too long.

    Raises:
        Conflict: it has; says since when it is over.
    """
    if is_over(state, expires_at, now) and expires_at is not None:
        raise Conflict(
            f"The request waited too long and was over at {said(expires_at)}.",
            reason="access.expired",
            next_step="Whoever still needs access sends a new request.",
        )


def check_until(until: datetime, now: datetime) -> datetime:
    """Return the end of access a reviewer gives, if policy allows it.

    Raises:
        Invalid: without a zone, not in the future, or further away than ``LONGEST_TERM``.
    """
    if until.tzinfo is None:
        raise Invalid("An end of access needs a time zone.", reason="access.until")
    if not now < until <= now + LONGEST_TERM:
        raise Invalid(
            f"Access ends after now and within {LONGEST_TERM.days} days, by "
            f"{said(now + LONGEST_TERM)}.",
            reason="access.until",
            fields=[FieldError("until", "Give a date in the future and within policy.")],
        )
    return until


# --- conflicts of interest ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reviewing:
    """What decides whether one reviewer may decide one request. Ids, and what was declared."""

    reviewer: str
    applicant: str
    reviewer_organisations: frozenset[str] = frozenset()
    applicant_organisations: frozenset[str] = frozenset()
    declared: bool = False


def interest(facts: Reviewing) -> str | None:
    """Return the code of what keeps a reviewer from a request; None when nothing does."""
    if facts.reviewer == facts.applicant:
        return "own"
    if facts.declared:
        return "conflict-declared"
    if facts.reviewer_organisations & facts.applicant_organisations:
        return "same-organisation"
    return None


INTERESTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "own": ("Nobody decides their own access.", "Ask another access officer."),
        "conflict-declared": (
            "You declared a conflict of interest in this request.",
            "Another access officer decides it.",
        ),
        "same-organisation": (
            "You and the applicant are on the roster of the same organisation.",
            "An access officer from elsewhere decides it.",
        ),
    }
)
"""What each code of ``interest`` means, and what to do."""


def check_interest(facts: Reviewing) -> None:
    """Return only if nothing keeps a reviewer from a request.

    Raises:
        Forbidden: something does (reason ``access.<code of interest>``).
    """
    code = interest(facts)
    if code is not None:
        sentence, next_step = INTERESTS[code]
        raise Forbidden(sentence, reason=f"access.{code}", next_step=next_step)


# --- how long an answer takes -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DecisionTimes:
    """How long decisions of the last ``days`` days took, from submission to decision.

    ``sentence`` says it to applicants. Nothing is claimed of no decisions.
    """

    days: int
    count: int
    median_seconds: int | None
    p90_seconds: int | None
    sentence: str


def decision_times_of(seconds: Sequence[int]) -> DecisionTimes:
    """Return the figures of decisions that took ``seconds``, given in ascending order.

    The median of an even number is the mean of the middle two; the 90th percentile is the
    smallest value that at least 90 % of them do not exceed.
    """
    days, n = DECISION_WINDOW.days, len(seconds)
    if n == 0:
        return DecisionTimes(days, 0, None, None, f"No decision yet in the last {days} days.")
    median = (seconds[(n - 1) // 2] + seconds[n // 2]) // 2
    p90 = seconds[-(-n * 9 // 10) - 1]
    of = f"of {n} in the last {days} days"
    sentence = f"Median answer {span_words(median)}, nine in ten within {span_words(p90)} ({of})."
    if n < FEW:
        of = f"{n} decision{'s' if n > 1 else ''} in the last {days} days"
        sentence = f"Median answer {span_words(median)} (only {of})."
    return DecisionTimes(days, n, median, p90, sentence)


FEW = 5
"""Of fewer decisions than this a percentile would pretend to know."""


def span_words(seconds: int) -> str:
    """Return a span as applicants read it, rounded up: ``3 days``, ``5 hours``, ``1 hour``."""
    hours = max(1, -(-seconds // 3600))
    count, unit = (-(-hours // 24), "day") if hours > 48 else (hours, "hour")
    return f"{count} {unit}{'s' if count != 1 else ''}"


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
            next_step=f"You may ask again after {said(may_reapply_after)}.",
        )


def purpose_of(request_id: str, answers: Mapping[str, object]) -> str:
    """Return the purpose written into a grant: what the applicant said, else where to read it.

    A text that a grant cannot hold is cut, and characters it cannot hold become spaces: what an
    applicant wrote must not keep a reviewer from deciding.
    """
    whole = f"As stated in access request {request_id}."
    for name in ("purpose", "Purpose", "intended_use", "Intended use"):
        said = answers.get(name)
        if not isinstance(said, str):
            continue
        text = "".join(c if c.isprintable() or c in "\n\t" else " " for c in said).strip()
        if len(text) > MAX_PURPOSE:
            text = f"{text[: MAX_PURPOSE - len(whole) - 5]} … ({whole})"
        if text:
            return text
    return whole

"""What a piece of evidence may become, by whom, and what its figures mean. Pure.

Which metrics and conditions each type has is data in ``kinds``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from stagerelease.kernel.clock import said
from stagerelease.kernel.errors import Conflict, FieldError, Invalid

MAX_TITLE = 200
MAX_TEXT = 4000
MAX_SOURCE = 2000
FIRST_YEAR, LAST_YEAR = 1900, 2200
"""Of dates anybody means; beyond them a zone can push an instant out of the calendar."""


class State(StrEnum):
    """Where a piece of evidence stands. Only ``accepted`` counts for a gate."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DISPUTED = "disputed"
    SUPERSEDED = "superseded"
    RETRACTED = "retracted"


MOVES: Mapping[State, frozenset[State]] = {
    State.DRAFT: frozenset({State.SUBMITTED, State.RETRACTED}),
    State.SUBMITTED: frozenset({State.ACCEPTED, State.REJECTED, State.RETRACTED}),
    State.ACCEPTED: frozenset({State.DISPUTED, State.SUPERSEDED, State.RETRACTED}),
    State.DISPUTED: frozenset({State.ACCEPTED, State.SUPERSEDED, State.RETRACTED}),
    State.REJECTED: frozenset(),
    State.SUPERSEDED: frozenset(),
    State.RETRACTED: frozenset(),
}
"""What may follow what; three states end it."""

STANDING = frozenset({State.ACCEPTED, State.DISPUTED})
"""States of evidence that somebody accepted and nobody has ended: what may be superseded."""


class FactStatus(StrEnum):
    """How well a fact is established, as its record says."""

    VERIFIED = "verified"  # read in a primary source
    REPORTED = "reported"  # read in somebody's account of it
    COMPUTED = "computed"  # arithmetic
    RECALLED = "recalled"  # not re-checked: never shown as established, never accepted


ESTABLISHED = frozenset({FactStatus.VERIFIED, FactStatus.COMPUTED})
"""What may be stated as a fact; ``reported`` is stated as reported, ``recalled`` not at all."""


def check_move(now: str, to: State, evidence_id: str) -> None:
    """Return only if evidence in state ``now`` may move to ``to``.

    Raises:
        Conflict: it may not; the sentence says where it stands and what could follow.
    """
    if to in MOVES[State(now)]:
        return
    follow = ", ".join(sorted(MOVES[State(now)]))
    raise Conflict(
        f"{evidence_id} is {now} and cannot become {to}.",
        reason="evidence.state",
        next_step=f"From {now} it can become {follow}." if follow else "Nothing follows that.",
    )


def check_text(
    text: str, what: str, *, field: str, required: bool = True, limit: int = MAX_TEXT
) -> str:
    """Return ``text`` trimmed, if it is 1..``limit`` characters that every database can keep.

    Raises:
        Invalid: empty (when ``required``), too long, or with control characters; names ``field``.
    """
    text = text.strip()
    if (required and not text) or len(text) > limit:
        sentence = f"The {what} must have {1 if required else 0} to {limit} characters."
    elif not all(c.isprintable() or c in "\n\t" for c in text):
        sentence = f"The {what} holds control characters, which are not kept."
    else:
        return text
    raise Invalid(sentence, reason="evidence.text", fields=[FieldError(field, sentence)])


def check_dates(measured_at: datetime, valid_until: datetime | None, now: datetime) -> None:
    """Return only if the dates can be true at ``now``.

    Raises:
        Invalid: no zone, measured in the future, or an end that is not after the measurement.
    """
    wrong = [
        FieldError(name, f"{name} lies between the years {FIRST_YEAR} and {LAST_YEAR}.")
        for name, at in (("measured_at", measured_at), ("valid_until", valid_until))
        if at is not None and not FIRST_YEAR <= at.year <= LAST_YEAR
    ]
    if wrong:
        raise Invalid(wrong[0].sentence, reason="evidence.dates", fields=wrong)
    if measured_at.tzinfo is None:
        wrong.append(FieldError("measured_at", "Say in which zone measured_at is."))
    elif measured_at > now:
        wrong.append(
            FieldError(
                "measured_at",
                f"Measured at {said(measured_at)}, which has not come (it is {said(now)}).",
            )
        )
    elif valid_until is not None and valid_until.tzinfo is None:
        wrong.append(FieldError("valid_until", "Say in which zone valid_until is."))
    elif valid_until is not None and valid_until <= measured_at:
        wrong.append(
            FieldError(
                "valid_until",
                f"Valid until {said(valid_until)}, which is not after {said(measured_at)}, "
                "when it was measured.",
            )
        )
    if wrong:
        raise Invalid(wrong[0].sentence, reason="evidence.dates", fields=wrong)


# --- precision at a base rate --------------------------------------------------------------------

REFERENCE_BASE_RATE = 0.01
"""Shown beside every detector's claim: what it would mean where one text in a hundred is made."""


@dataclass(frozen=True, slots=True)
class Precision:
    """What a detector's alarm is worth where ``base_rate`` of the texts are machine-made."""

    base_rate: float
    percent: float
    stated: bool  # the evidence states this base rate; else it is the reference
    basis: str  # what sensitivity and specificity were taken to be


def precision_at(*, sensitivity: float, specificity: float, base_rate: float) -> float:
    """Return the share of alarms that are right: ``sp·b / (sp·b + (1−sq)(1−b))``; all in 0..1.

    A detector that never alarms has no precision: NaN.

    >>> round(precision_at(sensitivity=0.95, specificity=0.95, base_rate=0.01), 3)
    0.161
    """
    right = sensitivity * base_rate
    wrong = (1 - specificity) * (1 - base_rate)
    return right / (right + wrong) if right + wrong > 0 else math.nan


def precisions(
    metric: str, value: float | None, companions: Mapping[str, float], base_rate: object
) -> tuple[Precision, ...]:
    """Return precision at the stated base rate, and at the reference one when that differs.

    ``value`` and ``companions`` are in percent. Nothing comes of figures that do not say it: a
    sensitivity with no specificity, an AUROC, a finding.
    """
    read = _rates(metric, value, companions)
    if read is None or not isinstance(base_rate, int | float):
        return ()
    sensitivity, specificity, basis = read
    asked = [(float(base_rate), True)]
    if float(base_rate) != REFERENCE_BASE_RATE:
        asked.append((REFERENCE_BASE_RATE, False))
    found = []
    for rate, stated in asked:
        share = precision_at(
            sensitivity=sensitivity / 100, specificity=specificity / 100, base_rate=rate
        )
        if math.isfinite(share):
            found.append(Precision(rate, round(share * 100, 4), stated, basis))
    return tuple(found)


def _rates(
    metric: str, value: float | None, companions: Mapping[str, float]
) -> tuple[float, float, str] | None:
    known = dict(companions)
    if value is not None:
        known[metric] = value
    if "sensitivity" in known and "specificity" in known:
        return known["sensitivity"], known["specificity"], "stated sensitivity and specificity"
    if metric == "accuracy" and value is not None:
        return value, value, "the accuracy taken as both sensitivity and specificity"
    return None


def describe_precision(one: Precision) -> str:
    """Return the sentence that stands beside a detector's claim."""
    rate = f"{one.base_rate * 100:.10g} %"
    at = f"At the stated base rate of {rate}" if one.stated else f"At a base rate of {rate}"
    return f"{at}, {one.percent:.1f} % of alarms would be right (from {one.basis})."

"""How much may be asked of models: windows, reservations, limits. Pure.

A request is counted before it runs, with the most it can use, and set right when it has ended. So
limits hold whatever runs at once, in however many processes. Windows are the minutes and days of
the clock (UTC): one starts at nought for everybody, and its end is told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any

from stagerelease.engine.ports import Prompt
from stagerelease.kernel.errors import FieldError, Invalid, TooMany

MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
MOST = 10**12
"""No limit is larger; what has none is given this."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one holder (a grant, or a person who needs none) may ask for.

    ``sequences`` is how many may run at once; ``max_tokens`` the most new tokens one request may
    ask for per sequence.
    """

    requests_per_minute: int
    tokens_per_minute: int
    tokens_per_day: int
    sequences: int
    max_tokens: int


NAMES = tuple(field.name for field in fields(Limits))


def check_limits(given: Mapping[str, Any]) -> dict[str, int]:
    """Return ``given`` if it overrides limits by their names with whole numbers from 1.

    Raises:
        Invalid: it does not; ``fields`` says where.
    """
    wrong = [FieldError(name, f"There is no limit {name!r}.") for name in set(given) - set(NAMES)]
    for name in NAMES:
        value = given.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= MOST):
            wrong.append(FieldError(name, f"{name} is a whole number from 1."))
    if wrong:
        raise Invalid(
            wrong[0].sentence,
            reason="inference.limits",
            next_step=f"There are: {', '.join(NAMES)}.",
            fields=wrong,
        )
    return {name: int(value) for name, value in given.items() if value is not None}


def overridden(limits: Limits, by: Mapping[str, int]) -> Limits:
    """Return ``limits`` with those in ``by`` put in their place."""
    return replace(limits, **{name: by[name] for name in NAMES if name in by})


@dataclass(frozen=True, slots=True)
class Meter:
    """What one holder has used in the present minute and day, reservations included."""

    minute: datetime
    minute_requests: int
    minute_tokens: int
    day: datetime
    day_tokens: int

    def at(self, now: datetime) -> Meter:
        """Return the meter as it stands at ``now``: a window that is over begins at nought.

        A clock that steps back (another process's) begins no window again.
        """
        meter = self
        if minute_of(now) > meter.minute:
            meter = replace(meter, minute=minute_of(now), minute_requests=0, minute_tokens=0)
        if day_of(now) > meter.day:
            meter = replace(meter, day=day_of(now), day_tokens=0)
        return meter


def minute_of(at: datetime) -> datetime:
    """Return the full minute that an instant lies in."""
    return at.replace(second=0, microsecond=0)


def day_of(at: datetime) -> datetime:
    """Return the UTC day that an instant lies in."""
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def fresh(now: datetime) -> Meter:
    """Return the meter of somebody who has asked nothing yet."""
    return Meter(minute_of(now), 0, 0, day_of(now), 0)


@dataclass(frozen=True, slots=True)
class Left:
    """One window: its limit, what is left of it, and in how many seconds it begins anew."""

    name: str
    unit: str
    limit: int
    remaining: int
    reset: int
    window: int


def left_of(meter: Meter, limits: Limits, now: datetime) -> tuple[Left, ...]:
    """Return what is left of each window."""
    meter = meter.at(now)
    minute, day = _until(meter.minute + MINUTE, now), _until(meter.day + DAY, now)

    def left(name: str, unit: str, limit: int, used: int, reset: int, window: int) -> Left:
        return Left(name, unit, limit, max(0, limit - used), reset, window)

    per_minute = limits.requests_per_minute
    return (
        left("requests-minute", "requests", per_minute, meter.minute_requests, minute, 60),
        left("tokens-minute", "tokens", limits.tokens_per_minute, meter.minute_tokens, minute, 60),
        left("tokens-day", "tokens", limits.tokens_per_day, meter.day_tokens, day, 86_400),
    )


def _until(end: datetime, now: datetime) -> int:
    return max(1, math.ceil((end - now).total_seconds()))


class QuotaSpent(TooMany):
    """What this grant or person may ask of models is used up for now."""

    code = "quota"
    title = "The quota is used up for now"

    def __init__(
        self, sentence: str, *, retry_after: int, reason: str, left: Sequence[Left]
    ) -> None:
        super().__init__(sentence, retry_after=retry_after, reason=reason)
        self.left = tuple(left)


def reserve(
    meter: Meter, limits: Limits, now: datetime, *, tokens: int, sequences: int, running: int
) -> Meter:
    """Return the meter with one more request of at most ``tokens``, if the limits allow it.

    ``running`` sequences of this holder are under way.

    Raises:
        Invalid: it could never be allowed; says which limit.
        QuotaSpent: not now; says when.
    """
    _require_possible(limits, tokens=tokens, sequences=sequences)
    meter = meter.at(now)
    used = (meter.minute_requests + 1, meter.minute_tokens + tokens, meter.day_tokens + tokens)
    left = left_of(meter, limits, now)
    for window, amount in zip(left, used, strict=True):
        if amount > window.limit:
            raise QuotaSpent(
                f"Your quota is {window.limit:,} {window.unit} per "
                f"{'day' if window.window > 60 else 'minute'}; {window.remaining:,} are left, and "
                f"this needs up to {amount - (window.limit - window.remaining):,}.",
                retry_after=window.reset,
                reason=f"quota.{window.name}",
                left=left,
            )
    if running + sequences > limits.sequences:
        raise QuotaSpent(
            f"{running} of your {limits.sequences} sequences are running, and this asks for "
            f"{sequences} more.",
            retry_after=2,
            reason="quota.sequences",
            left=left,
        )
    return replace(meter, minute_requests=used[0], minute_tokens=used[1], day_tokens=used[2])


def _require_possible(limits: Limits, *, tokens: int, sequences: int) -> None:
    if sequences > limits.sequences:
        sentence = f"At most {limits.sequences} sequences (prompts × n) run at once for you."
    elif tokens > limits.tokens_per_minute:
        sentence = (
            f"This may use {tokens:,} tokens, and your quota is {limits.tokens_per_minute:,} "
            "per minute."
        )
    elif tokens > limits.tokens_per_day:
        sentence = (
            f"This may use {tokens:,} tokens, and your quota is {limits.tokens_per_day:,} per day."
        )
    else:
        return
    raise Invalid(
        sentence,
        reason="quota.request",
        next_step="Ask for less at once: fewer prompts, n or max_tokens.",
    )


def settle(
    meter: Meter, now: datetime, *, reserved_at: datetime, reserved: int, used: int
) -> Meter:
    """Return the meter with what was used in a reservation's place, in windows that run."""
    meter = meter.at(now)
    back = reserved - used
    if minute_of(reserved_at) == meter.minute:
        meter = replace(meter, minute_tokens=max(0, meter.minute_tokens - back))
    if day_of(reserved_at) == meter.day:
        meter = replace(meter, day_tokens=max(0, meter.day_tokens - back))
    return meter


def bound_of(prompt: Prompt) -> int:
    """Return the most tokens a prompt can have: a byte-level vocabulary needs one per byte."""
    return len(prompt.encode()) if isinstance(prompt, str) else len(prompt)


def most_tokens(bounds: Sequence[int], *, n: int, max_tokens: int, context: int | None) -> int:
    """Return the most tokens a request can use.

    ``bounds`` is the most tokens each prompt can have (its bytes, when it is text); ``context`` is
    what the model can hold, beyond which it is refused.
    """
    hold = context if context is not None else MOST
    return sum(min(bound, hold) + n * min(max_tokens, hold) for bound in bounds)

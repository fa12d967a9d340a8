"""What in a grant's use stands out, by four plain rules. Pure: figures in, findings out.

A finding is a reason to look, never a verdict: each carries its rule in words and its figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

DAY = timedelta(days=1)
SPIKE_FACTOR = 5
SPIKE_DAYS = 28
SPIKE_LEAST_DAYS = 3
SILENCE_DAYS = 60
TERM_END_DAYS = 7
TERM_LEAST_DAYS = 28
MANY_TOKENS = 5
RECENT_DAYS = 7
"""How many days back findings are looked for unless asked otherwise."""
HISTORY_DAYS = SPIKE_DAYS + 1

RULES: Mapping[str, str] = {
    "spike": (
        f"Bytes of one day above {SPIKE_FACTOR} times the median of the grant's own days with "
        f"deliveries in the {SPIKE_DAYS} days before, when there were at least "
        f"{SPIKE_LEAST_DAYS} such days."
    ),
    "after_silence": (
        f"The first delivery after {SILENCE_DAYS} days or more without one, or the first at all "
        f"{SILENCE_DAYS} days or more after the grant began."
    ),
    "end_of_term": (
        f"A completed delivery in the last {TERM_END_DAYS} days of a grant that lasts at least "
        f"{TERM_LEAST_DAYS} days."
    ),
    "many_tokens": f"{MANY_TOKENS} or more different tokens used under one grant on one day.",
}


@dataclass(frozen=True, slots=True)
class DayUse:
    """What was delivered under one grant on one UTC day, counted by when deliveries began."""

    day: date
    deliveries: int
    completed: int
    files: int  # different paths
    bytes: int
    tokens: int  # different tokens


@dataclass(frozen=True, slots=True)
class GrantUse:
    """A grant's days with deliveries, oldest first, and its term.

    ``before`` is the last day with a delivery before the first of ``days``, or None.
    """

    grant_id: str
    track_id: str
    valid_from: date
    valid_until: date
    days: Sequence[DayUse]
    before: date | None


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Something that stands out: which rule, its words, the figures it was found by."""

    rule: str
    rule_words: str
    grant_id: str
    track_id: str
    day: date
    sentence: str
    figures: Mapping[str, int | float | str]


def find_anomalies(use: GrantUse, *, since: date) -> list[Anomaly]:
    """Return what stands out on the days from ``since`` on, by day, then rule."""
    found: list[Anomaly] = []
    for index, day in enumerate(use.days):
        if day.day < since:
            continue
        earlier = use.days[:index]
        found += _spike(use, day, earlier)
        found += _after_silence(use, day, earlier[-1].day if earlier else use.before)
        found += _end_of_term(use, day)
        found += _many_tokens(use, day)
    return found


def _anomaly(
    rule: str, use: GrantUse, day: DayUse, sentence: str, **figures: int | float | str
) -> list[Anomaly]:
    return [Anomaly(rule, RULES[rule], use.grant_id, use.track_id, day.day, sentence, figures)]


def _spike(use: GrantUse, day: DayUse, earlier: Sequence[DayUse]) -> list[Anomaly]:
    first = day.day - SPIKE_DAYS * DAY
    before = [d.bytes for d in earlier if d.day >= first and d.bytes > 0]
    if len(before) < SPIKE_LEAST_DAYS:
        return []
    usual = median(before)
    if day.bytes <= SPIKE_FACTOR * usual:
        return []
    return _anomaly(
        "spike",
        use,
        day,
        f"{day.bytes:,} bytes on {day.day}, {day.bytes / usual:.1f} times the median of "
        f"{usual:,.0f} bytes of {len(before)} days with deliveries before.",
        bytes=day.bytes,
        median_bytes=usual,
        days_compared=len(before),
    )


def _after_silence(use: GrantUse, day: DayUse, last: date | None) -> list[Anomaly]:
    quiet = (day.day - (last or use.valid_from)).days
    if quiet < SILENCE_DAYS:
        return []
    since = f"since {last}" if last else f"since the grant began on {use.valid_from}"
    return _anomaly(
        "after_silence",
        use,
        day,
        f"The first delivery on {day.day} after {quiet} days without one, {since}.",
        days_without=quiet,
        bytes=day.bytes,
        last_before=str(last or ""),
    )


def _end_of_term(use: GrantUse, day: DayUse) -> list[Anomaly]:
    term = (use.valid_until - use.valid_from).days
    left = (use.valid_until - day.day).days
    if term < TERM_LEAST_DAYS or not 0 <= left < TERM_END_DAYS or day.completed == 0:
        return []
    return _anomaly(
        "end_of_term",
        use,
        day,
        f"{day.completed} completed on {day.day}, {left} days before the grant's last day "
        f"{use.valid_until}.",
        completed=day.completed,
        bytes=day.bytes,
        days_left=left,
    )


def _many_tokens(use: GrantUse, day: DayUse) -> list[Anomaly]:
    if day.tokens < MANY_TOKENS:
        return []
    return _anomaly(
        "many_tokens",
        use,
        day,
        f"{day.tokens} different tokens on {day.day}.",
        tokens=day.tokens,
        deliveries=day.deliveries,
    )

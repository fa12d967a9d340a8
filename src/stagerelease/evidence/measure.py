"""Reads what somebody says they measured, against the data in ``kinds``. Pure.

Every field that is wrong is named at once, so that nobody has to find their mistakes one by one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from stagerelease.evidence.kinds import (
    CONDITIONS,
    FINDING,
    TYPES,
    VERDICT,
    Condition,
    Metric,
    allowed_conditions,
    needed_conditions,
    ranks,
)
from stagerelease.evidence.rules import (
    MAX_SOURCE,
    MAX_TEXT,
    MAX_TITLE,
    FactStatus,
    check_dates,
    check_text,
)
from stagerelease.kernel.digests import is_sha256
from stagerelease.kernel.errors import FieldError, Invalid

MAX_CONDITION = 200
MAX_N = 2**53
_AMOUNT = r"[ =:]*([0-9]{1,9}(?:\.[0-9]{1,9})?)"
_SAMPLERS = {
    "temperature": re.compile(rf"(?:temperature|temp|t){_AMOUNT}"),
    "top-k": re.compile(rf"(?:top[-_ ]?)?k{_AMOUNT}"),
    "top-p": re.compile(rf"(?:(?:top[-_ ]?)?p|nucleus){_AMOUNT}"),
    "typical": re.compile(rf"typical(?:[-_ ]p)?{_AMOUNT}"),
    "min-p": re.compile(rf"min[-_ ]p{_AMOUNT}"),
    "beam": re.compile(rf"beams?{_AMOUNT}"),
}
_PLAIN_SAMPLERS = ("greedy", "mixed")


@dataclass(frozen=True, slots=True)
class NewEvidence:
    """What somebody says: a measurement with its conditions, or a finding with its verdict."""

    type: str
    metric: str
    title: str
    subject_sha256: str
    source: str
    fact_status: str
    measured_at: datetime
    value: float | None = None
    unit: str = ""
    n: int | None = None
    interval: tuple[float, float] | None = None
    interval_level: float | None = None  # percent
    conditions: Mapping[str, Any] = field(default_factory=dict)
    companions: Mapping[str, Any] = field(default_factory=dict)
    verdict: str | None = None
    finding: str | None = None
    caveat: str = ""
    valid_until: datetime | None = None
    author_name: str = ""
    public: bool = False


def read_interval(low: float | None, high: float | None) -> tuple[float, float] | None:
    """Return the interval with these ends; None when neither is given.

    Raises:
        Invalid: only one is.
    """
    if low is None and high is None:
        return None
    if low is None or high is None:
        name = "interval_low" if low is None else "interval_high"
        sentence = f"An interval has both ends; {name} is missing."
        raise Invalid(sentence, reason="evidence.form", fields=[FieldError(name, sentence)])
    return low, high


class _Faults(list[FieldError]):
    def add(self, name: str, sentence: str) -> None:
        """Add a wrong field."""
        self.append(FieldError(name, sentence))


def check(new: NewEvidence, now: datetime) -> NewEvidence:
    """Return ``new`` with its figures in the unit of its metric and its words trimmed.

    Raises:
        Invalid: with every field that is wrong, and for each what is wrong in words.
    """
    faults = _Faults()
    words = _words(new, faults)
    if new.type not in TYPES:
        faults.add("type", f"The types of evidence are {', '.join(TYPES)}.")
        raise _refusal(faults)
    if not is_sha256(new.subject_sha256):
        faults.add("subject_sha256", "A subject is named by 64 lower-case hex digits.")
    if new.fact_status not in tuple(FactStatus):
        faults.add("fact_status", f"Say how it is known: {', '.join(FactStatus)}.")
    _gather(faults, lambda: check_dates(new.measured_at, new.valid_until, now))
    metrics = TYPES[new.type].metrics
    if new.metric == FINDING:
        figures = _finding(new, faults)
    elif new.metric not in metrics:
        known = ", ".join((*metrics, FINDING))
        faults.add("metric", f"{new.type} has the metrics {known}.")
        raise _refusal(faults)
    else:
        figures = _figures(new, metrics[new.metric], faults)
    conditions = _conditions(new, faults)
    if faults:
        raise _refusal(faults)
    return replace(new, **words, **figures, conditions=conditions)


def _refusal(faults: list[FieldError]) -> Invalid:
    return Invalid(
        " ".join(dict.fromkeys(fault.sentence for fault in faults)),
        reason="evidence.form",
        next_step="GET /api/v1/evidence-types shows what each type must say.",
        fields=faults,
    )


def _gather(faults: _Faults, check_one: Any) -> Any:
    try:
        return check_one()
    except Invalid as error:
        faults.extend(error.fields)
        return None


def _words(new: NewEvidence, faults: _Faults) -> dict[str, Any]:
    def text(name: str, what: str, limit: int, *, required: bool = True) -> Any:
        given = getattr(new, name) or ""
        return _gather(
            faults, lambda: check_text(given, what, field=name, required=required, limit=limit)
        )

    return {
        "title": text("title", "title", MAX_TITLE),
        "source": text("source", "source", MAX_SOURCE),
        "caveat": text("caveat", "caveat", MAX_TEXT, required=False),
        "author_name": text("author_name", "name of the authors", MAX_TITLE, required=False),
    }


# --- findings ------------------------------------------------------------------------------------


def _finding(new: NewEvidence, faults: _Faults) -> dict[str, Any]:
    if new.value is not None or new.interval is not None or new.companions:
        faults.add("value", "A finding has a verdict and words, and no number.")
    if new.unit not in ("", VERDICT):
        faults.add("unit", f"A finding has the unit {VERDICT}, or none.")
    known = ranks(new.type)
    if new.verdict not in known:
        faults.add("verdict", f"The verdicts of {new.type} are {', '.join(known)}.")
    given = new.finding or ""
    finding = _gather(faults, lambda: check_text(given, "finding", field="finding"))
    _count(new, faults)
    return {"unit": VERDICT, "finding": finding, "companions": {}}


# --- figures -------------------------------------------------------------------------------------


def _figures(new: NewEvidence, metric: Metric, faults: _Faults) -> dict[str, Any]:
    if new.verdict is not None:
        faults.add("verdict", f"A verdict belongs to a finding; {new.metric} has a value.")
    finding = None
    if new.finding:
        given = new.finding
        finding = _gather(faults, lambda: check_text(given, "finding", field="finding"))
    factor = _factor(new, metric, faults)
    value = _number(new.value, "value", new.metric, metric, factor, faults)
    _count(new, faults)
    return {
        "unit": metric.unit,
        "value": value,
        "finding": finding,
        "interval": _interval(new, metric, factor, value, faults),
        "companions": _companions(new, metric, factor, faults),
    }


def _factor(new: NewEvidence, metric: Metric, faults: _Faults) -> float:
    if new.unit == metric.unit:
        return 1.0
    if new.unit in metric.also:
        return metric.also[new.unit]
    units = " or ".join((metric.unit, *metric.also))
    said = f"not in {new.unit!r:.80}" if new.unit else "and none is given"
    faults.add("unit", f"{new.metric} is given in {units}, {said}.")
    return 1.0


def _number(
    given: object, name: str, what: str, metric: Metric, factor: float, faults: _Faults
) -> float | None:
    if isinstance(given, bool) or not isinstance(given, int | float):
        faults.add(name, f"{what} needs a number.")
        return None
    try:
        value = float(given)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        faults.add(name, f"{what} must be a finite number.")
        return None
    value = float(f"{value * factor:.15g}") if factor != 1.0 else value
    low, high = metric.low, metric.high
    if (low is not None and value < low) or (high is not None and value > high):
        between = f"at least {low:g}" if high is None else f"between {low:g} and {high:g}"
        faults.add(name, f"{what} must be {between} {metric.unit}, and {value:g} is not.")
    elif metric.whole and (value != int(value) or abs(value) > MAX_N):
        faults.add(name, f"{what} must be a whole number.")
    return value


def _count(new: NewEvidence, faults: _Faults) -> None:
    whole = isinstance(new.n, int) and not isinstance(new.n, bool)
    if new.n is not None and not (whole and 1 <= new.n <= MAX_N):
        faults.add("n", "n counts what was measured: a whole number from 1 on.")


def _interval(
    new: NewEvidence, metric: Metric, factor: float, value: float | None, faults: _Faults
) -> tuple[float, float] | None:
    if new.interval_level is not None and not 0 < new.interval_level < 100:
        faults.add("interval_level", "The level of an interval is a percentage, such as 95.")
    if new.interval is None:
        if new.interval_level is not None:
            faults.add("interval", "A level needs an interval.")
        return None
    if new.interval_level is None:
        faults.add("interval_level", "Say the level of the interval in percent, such as 95.")
    unbound = replace(metric, whole=False)
    low = _number(new.interval[0], "interval", "the interval", unbound, factor, faults)
    high = _number(new.interval[1], "interval", "the interval", unbound, factor, faults)
    if low is None or high is None or value is None:
        return None
    if not low <= value <= high:
        faults.add("interval", f"{value:g} does not lie in its interval from {low:g} to {high:g}.")
    return low, high


def _companions(
    new: NewEvidence, metric: Metric, factor: float, faults: _Faults
) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, given in new.companions.items():
        if name not in metric.companions:
            known = ", ".join(metric.companions) or "none"
            faults.add(
                f"companions.{name}"[:200],
                f"What {new.metric} can stand beside: {known}; not {name!r:.80}.",
            )
            continue
        value = _number(given, f"companions.{name}", name, metric, factor, faults)
        if value is not None:
            found[name] = value
    return found


# --- conditions ----------------------------------------------------------------------------------


def _conditions(new: NewEvidence, faults: _Faults) -> dict[str, str | float]:
    allowed = allowed_conditions(new.type)
    found: dict[str, str | float] = {}
    for name, given in new.conditions.items():
        if name not in allowed:
            faults.add(
                f"conditions.{name}"[:200],
                f"{new.type} has no condition {name!r:.80}; it has {', '.join(allowed)}.",
            )
            continue
        value = _condition(f"conditions.{name}", name, CONDITIONS[name], given, faults)
        if value is not None:
            found[name] = value
    _missing(new, faults)
    _together(new, found, faults)
    return found


def _missing(new: NewEvidence, faults: _Faults) -> None:
    missing = [n for n in needed_conditions(new.type, new.metric) if n not in new.conditions]
    for name in missing:
        sentence = f"{new.metric} needs the condition {name}: {CONDITIONS[name].meaning}."
        if new.type == "detectability" and name in ("sampler", "text_length"):
            sentence = (
                f"A detector's {new.metric} says nothing without {name}: how the texts were drawn "
                "and how long they were changes it by tens of points. If the source does not "
                "say, record a finding in words."
            )
        faults.add(f"conditions.{name}", sentence)


def _condition(
    path: str, name: str, condition: Condition, given: object, faults: _Faults
) -> str | float | None:
    if condition.form in ("number", "whole", "share"):
        return _amount(path, name, condition, given, faults)
    if not isinstance(given, str):
        faults.add(path, f"{name} is text.")
        return None
    text: str | None = _gather(
        faults, lambda: check_text(given, name, field=path, limit=MAX_CONDITION)
    )
    if text is None:
        return None
    if condition.form == "choice" and text not in condition.choices:
        faults.add(path, f"{name} is one of {', '.join(condition.choices)}.")
    if condition.form == "sampler":
        sampler = read_sampler(text)
        if sampler is None:
            faults.add(path, f"A sampler says {condition.meaning}; {text!r:.80} is none of these.")
        return sampler
    return text


def _amount(
    path: str, name: str, condition: Condition, given: object, faults: _Faults
) -> float | None:
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not math.isfinite(_float(given)):
        faults.add(path, f"{name} is a finite number.")
        return None
    value = _float(given)
    if condition.form == "share" and not 0 < value < 1:
        faults.add(path, f"{name} lies between 0 and 1: write 0.01 for 1 %.")
    elif condition.form == "whole" and value != int(value):
        faults.add(path, f"{name} is a whole number.")
    elif (condition.low is not None and value < condition.low) or (
        condition.high is not None and value > condition.high
    ):
        faults.add(path, f"{name} is out of range: {condition.meaning}.")
    return value


def _float(given: Any) -> float:
    try:
        return float(given)
    except OverflowError:
        return math.inf


def read_sampler(text: str) -> str | None:
    """Return the one spelling of a sampler (``top_k=40`` and ``k40`` are ``top-k 40``), or None.

    >>> read_sampler("K40")
    'top-k 40'
    """
    parts = []
    for part in text.lower().split(","):
        word = " ".join(part.split())
        if word in _PLAIN_SAMPLERS:
            parts.append(word)
            continue
        matches = {name: pattern.fullmatch(word) for name, pattern in _SAMPLERS.items()}
        found = [f"{n} {float(m.group(1)):.10g}" for n, m in matches.items() if m is not None]
        if not found:
            return None
        parts += found
    return ", ".join(sorted(parts))


def _together(new: NewEvidence, found: Mapping[str, str | float], faults: _Faults) -> None:
    low, high = found.get("scale_min"), found.get("scale_max")
    if isinstance(low, float) and isinstance(high, float):
        if low >= high:
            faults.add("conditions.scale_max", "The scale must end above where it begins.")
        elif new.metric == "mean_score":
            points = {"value": new.value} | {
                f"companions.{name}": value for name, value in new.companions.items()
            }
            for name, value in points.items():
                if isinstance(value, int | float) and not low <= value <= high:
                    said = _float(value)
                    faults.add(name, f"{said:g} is not on the scale from {low:g} to {high:g}.")
    if "baseline_value" in new.companions and "baseline" not in found:
        faults.add("conditions.baseline", "Say what baseline_value is the value of.")

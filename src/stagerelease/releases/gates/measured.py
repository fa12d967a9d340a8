"""Gates on evidence: what was measured, under which conditions, how long ago. Pure.

Evidence counts only if it is accepted, in its time and about this track (invariant 4). A condition
the plan asks for and the evidence does not state never passes a gate: a figure with no sampler or
no length says nothing about ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from stagerelease.evidence.facts import EvidenceFact
from stagerelease.evidence.kinds import FINDING, TYPES, UNJUDGED, VERDICT, allowed_conditions, ranks
from stagerelease.kernel.clock import said
from stagerelease.releases.gates.base import (
    EvidenceUse,
    Facts,
    GateResult,
    Option,
    Outcome,
    Plain,
    words,
)
from stagerelease.releases.ladder import GateSpec
from stagerelease.releases.source import parse_duration

_TYPE = Option("type of evidence", "choice", required=True, choices=tuple(TYPES))
_LIMITS = ("at_least", "at_most", "verdict")


def not_counting(found: EvidenceFact, facts: Facts) -> str | None:
    """Return why this piece of evidence does not count at ``facts.at``; None when it does.

    Invariant 4: accepted, ``measured_at <= at < valid_until``, and about this track's bytes.
    """
    if found.state != "accepted":
        return f"It is {found.state}, not accepted."
    if found.accepted_at is not None and found.accepted_at > facts.at:
        return f"It was accepted only at {said(found.accepted_at)}."
    if found.measured_at > facts.at:
        return f"It is dated {said(found.measured_at)}, which has not come."
    if found.valid_until is not None and facts.at >= found.valid_until:
        return f"It was valid until {said(found.valid_until)}."
    if found.subject_sha256 not in facts.subjects:
        return f"It is about {found.subject_sha256[:12]}…, which is no file of this track."
    return None


def expired(found: EvidenceFact, at: datetime) -> bool:
    """Tell whether age alone keeps this accepted evidence from counting."""
    return found.state == "accepted" and found.valid_until is not None and at >= found.valid_until


def _same(asked: object, stated: object) -> bool:
    """Compare a condition: numbers by value, texts letter by letter, never one with the other.

    To Python, True is the number 1; to us it is neither.
    """
    return not isinstance(asked, bool) and not isinstance(stated, bool) and asked == stated


def compare_conditions(
    asked: Mapping[str, Any], stated: Mapping[str, Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return ``(names not stated, names stated otherwise)`` of the conditions a plan asks for."""
    missing = tuple(sorted(name for name in asked if name not in stated))
    other = tuple(sorted(n for n in asked if n in stated and not _same(asked[n], stated[n])))
    return missing, other


def number(value: float) -> str:
    """Return a number as it is said: no trailing zeros, no exponent where none is needed."""
    return f"{value:.10g}"


def _use(found: EvidenceFact, facts: Facts, *, counted: bool, why: str) -> EvidenceUse:
    return EvidenceUse(
        id=found.id,
        title=found.title,
        metric=found.metric,
        value=found.value,
        unit=found.unit,
        verdict=found.verdict,
        fact_status=found.fact_status,
        measured_at=found.measured_at,
        valid_until=found.valid_until,
        age=words(facts.at - found.measured_at),
        counted=counted,
        why=why,
    )


class Evidence(Plain):
    """Evidence of a type whose metric meets a threshold, under the plan's conditions."""

    kind = "evidence"
    options: Mapping[str, Option] = {
        "type": _TYPE,
        "metric": Option(
            "what was measured, as the type names it; finding when a verdict is asked",
            "text",
            required=True,
        ),
        "at_least": Option("the least value that passes", "number"),
        "at_most": Option("the greatest value that passes", "number"),
        "verdict": Option("the least good verdict of a finding that passes", "text"),
        "unit": Option("unit of the threshold; the metric's own when left out", "text"),
        "conditions": Option(
            "conditions it must have been measured under, matched exactly", "conditions"
        ),
        "max_age": Option("how long ago it may have been measured", "duration"),
        "count": Option("how many pieces of evidence must agree", "number", default=1),
        "distinct_organisations": Option("from how many organisations", "number"),
        "judged_by": Option(
            "compare the value itself, or its whole confidence interval",
            "choice",
            choices=("value", "interval"),
            default="value",
        ),
    }

    def wrong(self, options: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the options taken together, or None."""
        if sum(name in options for name in _LIMITS) != 1:
            return "needs exactly one of at_least, at_most and verdict"
        if not all(math.isfinite(options[n]) for n in ("at_least", "at_most") if n in options):
            return "needs a threshold that is a finite number"
        if options["type"] not in TYPES:
            return f"names no type of evidence; there are {', '.join(TYPES)}"
        return _wrong_measure(options) or _wrong_numbers(options)

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass when enough evidence counts and all that counts meets the threshold.

        Some meeting it and some not is inconclusive, and so is evidence that would do but leaves
        a condition unsaid; none at all, or only evidence too old, is waited for.
        """
        asked = _Asked(spec.options)
        matched: list[EvidenceFact] = []
        unsaid: list[EvidenceFact] = []
        aged: list[EvidenceFact] = []
        uses = []
        for found in facts.evidence:
            if found.type != asked.type or found.metric != asked.metric:
                continue
            pile, why = asked.sort(found, facts)
            {"matched": matched, "unsaid": unsaid, "aged": aged}.get(pile, []).append(found)
            uses.append(_use(found, facts, counted=pile == "matched", why=why))
        outcome, sentence = asked.answer(matched, unsaid, aged)
        return GateResult(
            key=spec.key,
            kind=self.kind,
            rule=asked.rule(),
            measured=asked.measured(matched),
            threshold=asked.threshold(),
            outcome=outcome,
            sentence=sentence,
            stale=outcome is Outcome.PENDING and bool(aged),
            evidence=tuple(uses),
        )


def _wrong_measure(options: Mapping[str, Any]) -> str | None:
    type_, metric = options["type"], options["metric"]
    kind = TYPES[type_]
    if (metric == FINDING) != ("verdict" in options):
        return "asks for a verdict of a finding, and for a number of every other metric"
    if metric == FINDING:
        if options["verdict"] not in kind.scale:
            return f"names no verdict of {type_}; there are {', '.join(kind.scale)}"
    elif metric not in kind.metrics:
        return f"names no metric of {type_}; there are {', '.join(kind.metrics)}"
    units: tuple[str, ...] = (VERDICT,)
    if metric != FINDING:
        units = (kind.metrics[metric].unit, *kind.metrics[metric].also)
    if options.get("unit", units[0]) not in units:
        return f"names a unit that {metric} is not written in; there are {', '.join(units)}"
    known = allowed_conditions(type_)
    for name in options.get("conditions") or {}:
        if name not in known:
            return f"names a condition {name!r} that {type_} never states; there are " + ", ".join(
                known
            )
    return None


def _wrong_numbers(options: Mapping[str, Any]) -> str | None:
    for name, most in (("count", 100), ("distinct_organisations", 20)):
        asked = options.get(name, most)
        if type(asked) is not int or not 1 <= asked <= most:
            return f"needs a whole number from 1 to {most} as {name}"
    return None


class _Asked:
    """A plan's options of an evidence gate, read once, and what they say of a piece of evidence."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.type: str = options["type"]
        self.metric: str = options["metric"]
        self.verdict: str | None = options.get("verdict")
        self.least: bool = "at_least" in options
        if self.verdict is not None:
            self.limit: float = ranks(self.type)[self.verdict]
        else:
            self.limit = options["at_least"] if self.least else options["at_most"]
        known = TYPES[self.type].metrics.get(self.metric)
        self.unit: str = known.unit if known is not None else VERDICT
        if known is not None and options.get("unit", self.unit) != self.unit:
            # Evidence is kept in the metric's own unit. As decimals: 0.57 is 57 percent, no less.
            self.limit = float(number(self.limit * known.also[options["unit"]]))
        self.conditions: Mapping[str, Any] = options.get("conditions") or {}
        self.max_age = parse_duration(options["max_age"]) if options.get("max_age") else None
        self.count: int = options.get("count") or 1
        self.organisations: int = options.get("distinct_organisations") or 0
        self.interval: bool = options.get("judged_by") == "interval"

    def sort(self, found: EvidenceFact, facts: Facts) -> tuple[str, str]:
        """Return on which pile a piece goes (matched, unsaid, aged, other), and why."""
        stated: dict[str, Any] = {**found.conditions, "unit": found.unit}
        asked: dict[str, Any] = {**self.conditions, "unit": self.unit}
        missing, other = compare_conditions(asked, stated)
        why = not_counting(found, facts)
        if other:
            said = ", ".join(f"{name} is {stated[name]}, not {asked[name]}" for name in other)
            return "other", f"It was measured under other conditions: {said}."
        if why is not None:
            aged = not missing and expired(found, facts.at)
            return ("aged" if aged else "other"), why
        if self.max_age is not None and facts.at - found.measured_at > self.max_age:
            return ("other" if missing else "aged"), (
                f"It is {words(facts.at - found.measured_at)} old, more than {words(self.max_age)}."
            )
        if missing:
            return "unsaid", f"It does not say: {', '.join(missing)}."
        return "matched", "It counts."

    def meets(self, found: EvidenceFact) -> bool | None:
        """Tell whether a piece meets the threshold; None when its interval does not tell."""
        if self.verdict is not None and found.verdict in UNJUDGED:
            return None  # a study without an answer yet settles nothing either way
        if not self.interval:
            return self._beyond(found.value)
        if found.interval is None:
            return None
        ends = {self._beyond(end) for end in found.interval}
        return ends.pop() if len(ends) == 1 else None

    def _beyond(self, value: float) -> bool:
        return value >= self.limit if self.least else value <= self.limit

    def answer(
        self,
        matched: Sequence[EvidenceFact],
        unsaid: Sequence[EvidenceFact],
        aged: Sequence[EvidenceFact],
    ) -> tuple[Outcome, str]:
        """Return the outcome, and the sentence that says why."""
        values = [v for e in matched for v in (e.value, *(e.interval or ()))]
        if not all(math.isfinite(value) for value in values):
            return Outcome.ERROR, "A value that counts is not a number, so nothing can be compared."
        told = {self.meets(found) for found in matched}
        if told == {False}:
            return Outcome.FAILED, f"{self.measured(matched)}, where {self.threshold()} is asked."
        if None in told:
            what = "confidence interval" if self.verdict is None else "verdict"
            return Outcome.INCONCLUSIVE, (
                f"The {what} does not settle it: {self.measured(matched)}, where "
                f"{self.threshold()} is asked."
            )
        if False in told:
            return Outcome.INCONCLUSIVE, (
                f"Evidence contradicts itself: {self.measured(matched)}, where "
                f"{self.threshold()} is asked."
            )
        short = self._short(matched)
        if short is None:
            return Outcome.PASSED, f"{self.measured(matched)}, where {self.threshold()} is asked."
        if unsaid and self._short([*matched, *unsaid]) is None:
            names = ", ".join(found.id for found in unsaid)
            return Outcome.INCONCLUSIVE, f"Evidence leaves a condition unsaid: {names}."
        if aged:
            return Outcome.PENDING, f"{short} Evidence there is, but too old: it is stale."
        return Outcome.PENDING, short

    def _short(self, matched: Sequence[EvidenceFact]) -> str | None:
        """Return what is still missing, or None when there is enough."""
        if len(matched) < self.count:
            return (
                f"{len(matched)} of {self.count} pieces of accepted {self.type} evidence on "
                f"{self.metric} that count."
            )
        sources = {e.organisation_id for e in matched if e.organisation_id is not None}
        if len(sources) < self.organisations:
            return f"From {len(sources)} of {self.organisations} organisations."
        return None

    def measured(self, matched: Sequence[EvidenceFact]) -> str:
        """Return the values that count, in words."""
        if self.verdict is not None:
            said = [e.verdict or "no verdict" for e in matched]
        else:
            said = [
                number(e.value)
                + (f" ({number(e.interval[0])} to {number(e.interval[1])})" if e.interval else "")
                + f" {e.unit}"
                for e in matched
            ]
        return f"{self.metric} {', '.join(said)}" if said else "nothing that counts"

    def threshold(self) -> str:
        """Return the threshold in words."""
        if self.verdict is not None:
            return f"{self.verdict} or better"
        return f"{'at least' if self.least else 'at most'} {number(self.limit)} {self.unit}"

    def rule(self) -> str:
        """Return the whole rule as one sentence."""
        under = ", ".join(f"{name} {self.conditions[name]}" for name in sorted(self.conditions))
        parts = [
            f"Accepted {self.type} evidence with {self.metric} {self.threshold()}",
            f" under {under}" if under else "",
            f", its whole confidence interval {'above' if self.least else 'below'}"
            if self.interval
            else "",
            f", no older than {words(self.max_age)}" if self.max_age else "",
            f", {self.count} pieces of it" if self.count > 1 else "",
            f", from {self.organisations} organisations" if self.organisations else "",
        ]
        return "".join(parts) + "."


class Freshness(Plain):
    """Evidence of a type that was measured lately, whatever it says."""

    kind = "freshness"
    options: Mapping[str, Option] = {
        "type": _TYPE,
        "max_age": Option("how long ago it may have been measured", "duration", required=True),
    }

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass while some evidence of the type counts and is young enough."""
        span = parse_duration(spec.options["max_age"])
        if span is None:
            raise ValueError("max_age is not a duration")
        kind = spec.options["type"]
        uses: list[EvidenceUse] = []
        aged = False
        for found in (e for e in facts.evidence if e.type == kind):
            why = not_counting(found, facts)
            young = facts.at - found.measured_at <= span
            aged = aged or expired(found, facts.at) or (why is None and not young)
            said = why or ("It counts." if young else "It is too old.")
            uses.append(_use(found, facts, counted=why is None and young, why=said))
        good = [use for use in uses if use.counted]
        newest = max(good, key=lambda use: use.measured_at) if good else None
        return GateResult(
            key=spec.key,
            kind=self.kind,
            rule=f"Accepted {kind} evidence measured within the last {words(span)}.",
            measured=newest.age if newest else "nothing that counts",
            threshold=f"at most {words(span)}",
            outcome=Outcome.PASSED if newest else Outcome.PENDING,
            sentence=f"{newest.id} is {newest.age} old."
            if newest
            else f"No {kind} evidence that counts was measured within the last {words(span)}.",
            stale=newest is None and aged,
            evidence=tuple(uses),
        )

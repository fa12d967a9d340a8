"""The form of evidence: the fields that a type and metric have, and what was typed into them.

A field is named as the service names what is wrong with it, so every fault stands beside its field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stagerelease.evidence import service as evidence
from stagerelease.evidence.formats import COMPANIONS, parse_number
from stagerelease.evidence.kinds import (
    CONDITIONS,
    FINDING,
    TYPES,
    Metric,
    allowed_conditions,
    needed_conditions,
    ranks,
)
from stagerelease.evidence.measure import check
from stagerelease.evidence.queries import EvidenceRow
from stagerelease.http.pages.forms import Typed, end_of_day
from stagerelease.http.pages.frame import by_field, plain
from stagerelease.kernel.errors import FieldError, Invalid

TEXTS = ("title", "verdict", "finding", "caveat", "source", "author_name", "fact_status", "unit")
FIGURES = ("value", "n", "interval_low", "interval_high", "interval_level")
BY_KIND = (
    *(*FIGURES, "unit", "verdict"),
    *(f"conditions.{name}" for name in CONDITIONS),
    *(f"companions.{name}" for name in COMPANIONS),
)
"""Fields that only some types and metrics have."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A field of the form: chosen from ``choices``, else typed."""

    key: str
    label: str
    help: str
    required: bool = False
    choices: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """What a piece of evidence is: its type, and its metric or a finding in words."""

    type: str
    metric: str

    @property
    def key(self) -> str:
        """Return the word by which a form names it."""
        return f"{self.type}.{self.metric}"

    @property
    def name(self) -> str:
        """Return it in words."""
        return f"{plain(self.type)}: {plain(self.metric).lower()}"

    @property
    def figures(self) -> Metric | None:
        """Return what its number is; None for a finding, which has none."""
        return TYPES[self.type].metrics.get(self.metric)

    @property
    def meaning(self) -> str:
        """Return what it says of a model."""
        figures = self.figures
        what = figures.meaning if figures else "what was found, in words"
        return f"{TYPES[self.type].meaning} Here: {what}."

    @property
    def units(self) -> tuple[tuple[str, str], ...]:
        """Return the units its number may be given in."""
        figures = self.figures
        return tuple((one, one) for one in (figures.unit, *figures.also)) if figures else ()

    @property
    def verdicts(self) -> tuple[tuple[str, str], ...]:
        """Return its verdicts, what speaks most for release first."""
        return (("", "Choose one"), *((one, plain(one)) for one in ranks(self.type)))

    @property
    def conditions(self) -> tuple[Asked, ...]:
        """Return what it may say it was measured under, what it must say first."""
        needed = needed_conditions(self.type, self.metric)
        names = dict.fromkeys((*needed, *allowed_conditions(self.type)))
        return tuple(_condition(name, required=name in needed) for name in names)

    @property
    def companions(self) -> tuple[Asked, ...]:
        """Return the other values that may stand beside its own."""
        names = self.figures.companions if self.figures else ()
        words = "Of the same measurement, in the same unit."
        return tuple(Asked(f"companions.{name}", plain(name), words) for name in names)


KINDS: Mapping[str, Kind] = {
    kind.key: kind
    for type_, one in TYPES.items()
    for kind in (Kind(type_, metric) for metric in (*one.metrics, FINDING))
}
NAMED = tuple((kind.key, kind.name) for kind in KINDS.values())


def _condition(name: str, *, required: bool) -> Asked:
    condition = CONDITIONS[name]
    meaning = condition.meaning.replace("_", " ")
    words = f"{meaning[0].upper()}{meaning[1:]}."
    choices = tuple((one, plain(one)) for one in condition.choices)
    if choices:
        choices = (("", "Choose one" if required else "Not said"), *choices)
    return Asked(f"conditions.{name}", plain(name), words, required, choices)


# --- from a draft to the form ---------------------------------------------------------------------


def values_of(row: EvidenceRow) -> dict[str, str]:
    """Return a draft as one would have typed it."""
    whole = row.subject_kind == "manifest"
    return {
        **{name: getattr(row, name) or "" for name in TEXTS},
        **{name: _written(getattr(row, name)) for name in FIGURES},
        **{f"conditions.{name}": _written(value) for name, value in row.conditions.items()},
        **{f"companions.{name}": _written(value) for name, value in row.companions.items()},
        "subject_sha256": row.subject_sha256 if whole else "",
        "subject_file": "" if whole else row.subject_sha256,
        "measured_at": _day(row.measured_at),
        "valid_until": _day(row.valid_until),
        "organisation": row.organisation_id or "",
        "supersedes": row.supersedes_id or "",
        "public": "on" if row.public else "",
    }


def _written(value: object) -> str:
    """Return a value as one types it: the very number, without a point where none is needed."""
    text = "" if value is None else str(value)
    return text.removesuffix(".0") if isinstance(value, float) else text


def _day(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d}" if at else ""


def carried(kind: Kind, values: Mapping[str, str]) -> dict[str, str]:
    """Return what was typed into fields that ``kind`` has not, so that it is not lost meanwhile."""
    asked = {one.key for one in (*kind.conditions, *kind.companions)}
    asked |= {*FIGURES, "unit"} if kind.figures else {"verdict", "n"}
    return {key: values[key] for key in BY_KIND if key not in asked and values.get(key)}


# --- from the form to the service -----------------------------------------------------------------


def read(
    sent: Typed, kind: Kind, now: datetime, before: EvidenceRow | None = None
) -> evidence.NewEvidence:
    """Return what was typed as the service takes it; ``before`` is the draft that is changed.

    Raises:
        Invalid: what should be a number or a date is none, or an interval has one end; with that,
            everything else that is wrong is named.
    """
    figures = kind.figures is not None
    faults: list[FieldError] = []
    low = _number(sent, "interval_low", faults) if figures else None
    high = _number(sent, "interval_high", faults) if figures else None
    new = evidence.NewEvidence(
        type=kind.type,
        metric=kind.metric,
        title=sent.get("title"),
        subject_sha256=sent.get("subject_file").lower() or sent.get("subject_sha256"),
        source=sent.get("source"),
        fact_status=sent.get("fact_status"),
        measured_at=_gather(faults, lambda: _measured(sent, before)) or now,
        valid_until=_gather(faults, lambda: _until(sent, before)),
        value=_number(sent, "value", faults) if figures else None,
        unit=sent.get("unit") if figures else "",
        n=_count(sent, faults),
        interval=_gather(faults, lambda: evidence.read_interval(low, high)),
        interval_level=_number(sent, "interval_level", faults) if figures else None,
        conditions=_said(sent, kind.conditions, faults),
        companions=_said(sent, kind.companions, faults),
        verdict=None if figures else sent.get("verdict"),
        finding=sent.get("finding") or None,
        caveat=sent.get("caveat"),
        author_name=sent.get("author_name"),
        public=sent.ticked("public"),
    )
    if faults:
        _gather(faults, lambda: check(new, now))
        sentence = "The evidence is not complete yet."
        raise Invalid(sentence, reason="evidence.form", fields=faults)
    return new


def _gather(faults: list[FieldError], look: Callable[[], Any]) -> Any:
    """Return what ``look`` finds; None, with its faults noted, where it finds something wrong."""
    try:
        return look()
    except Invalid as error:
        faults.extend(error.fields)
        return None


def placed(sent: Typed) -> dict[str, Any]:
    """Return whose it is and what it supersedes."""
    return {
        "organisation": sent.get("organisation") or None,
        "authors": sent.get("authors").replace(",", " ").split(),
        "supersedes": sent.get("supersedes") or None,
    }


def errors_of(faults: Iterable[FieldError], sent: Typed) -> dict[str, str]:
    """Return one sentence for each field of the form that is wrong."""
    subject = "subject_file" if sent.get("subject_file") else "subject_sha256"
    ours = {"interval": "interval_low", "subject_sha256": subject}
    return by_field(FieldError(ours.get(one.field, one.field), one.sentence) for one in faults)


def _number(sent: Typed, key: str, faults: list[FieldError]) -> float | None:
    text = sent.get(key)
    try:
        return parse_number(text) if text else None
    except ValueError:
        faults.append(FieldError(key, "Give a number, such as 91.2, with a point and no unit."))
        return None


def _count(sent: Typed, faults: list[FieldError]) -> int | None:
    count = _number(sent, "n", faults)
    if count is None:
        return None
    return int(count) if count.is_integer() else 0  # which the service refuses


def _said(
    sent: Typed, asked: Iterable[Asked], faults: list[FieldError]
) -> dict[str, str | float | None]:
    """Return what was typed into these fields; an empty one says nothing."""
    found: dict[str, str | float | None] = {}
    for one in asked:
        group, _, name = one.key.partition(".")
        words = group == "conditions" and CONDITIONS[name].form in ("text", "choice", "sampler")
        if sent.get(one.key):
            found[name] = sent.get(one.key) if words else _number(sent, one.key, faults)
    return found


def _measured(sent: Typed, before: EvidenceRow | None) -> datetime:
    """Return the first second of the day given, or the one a draft has if that day still stands."""
    text = sent.get("measured_at")
    if before is not None and text == _day(before.measured_at):
        return before.measured_at
    at = end_of_day(text, "measured_at")
    if at is None:
        sentence = "Say on which day it was measured."
        raise Invalid(
            sentence, reason="evidence.dates", fields=[FieldError("measured_at", sentence)]
        )
    return at.replace(hour=0, minute=0, second=0)


def _until(sent: Typed, before: EvidenceRow | None) -> datetime | None:
    """Return the last second of the day given, or the one a draft has if that day still stands."""
    text = sent.get("valid_until")
    if before is not None and text == _day(before.valid_until):
        return before.valid_until
    return end_of_day(text, "valid_until")

"""The types of evidence as JSON Schema (2020-12), and as a page of docs. Printed from ``kinds``.

The schema says what a document must look like; ``measure`` also checks what a schema cannot say
(a value inside its interval, dates that have come, a sampler's spelling).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stagerelease.evidence.formats import CSV_COLUMNS
from stagerelease.evidence.kinds import (
    CONDITIONS,
    FINDING,
    TYPES,
    VERDICT,
    Condition,
    EvidenceType,
    Metric,
    allowed_conditions,
    needed_conditions,
    ranks,
)
from stagerelease.evidence.rules import MAX_SOURCE, MAX_TEXT, MAX_TITLE, FactStatus

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def evidence_types() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of each type of evidence, by its name."""
    return {name: schema_of(name) for name in TYPES}


def schema_of(type_: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of evidence of one type, as the API takes it."""
    kind = TYPES[type_]
    ways = [_measured(type_, name, metric) for name, metric in kind.metrics.items()]
    return {
        "$schema": DIALECT,
        "title": type_,
        "description": kind.meaning,
        "type": "object",
        "properties": _common(type_),
        "required": [
            *("type", "metric", "title", "subject_sha256", "source", "fact_status", "measured_at")
        ],
        "oneOf": [*ways, _found(type_, kind)],
        "unevaluatedProperties": False,
    }


def _common(type_: str) -> dict[str, Any]:
    instant = {"type": "string", "format": "date-time"}
    return {
        "type": {"const": type_},
        "title": _text(MAX_TITLE),
        "subject_sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "source": _text(MAX_SOURCE),
        "fact_status": {"enum": list(FactStatus)},
        "measured_at": instant,
        "valid_until": instant,
        "n": {"type": "integer", "minimum": 1},
        "caveat": {"type": "string", "maxLength": MAX_TEXT},
        "finding": {"type": "string", "maxLength": MAX_TEXT},
        "author_name": {"type": "string", "maxLength": MAX_TITLE},
        "authors": {"type": "array", "items": {"type": "string"}},
        "organisation": {"type": "string"},
        "public": {"type": "boolean"},
        "supersedes": {"type": "string"},
        "draft": {"type": "boolean"},
    }


def _text(limit: int) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": limit}


def _measured(type_: str, name: str, metric: Metric) -> dict[str, Any]:
    number = _number(metric)
    properties: dict[str, Any] = {
        "metric": {"const": name, "description": metric.meaning},
        "value": number,
        "unit": {"enum": [metric.unit, *metric.also]},
        "interval_low": {"type": "number"},
        "interval_high": {"type": "number"},
        "interval_level": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100},
        "conditions": _conditions(type_, name),
    }
    if metric.companions:
        properties["companions"] = {
            "type": "object",
            "properties": dict.fromkeys(metric.companions, number),
            "additionalProperties": False,
        }
    needed = ["metric", "value", "unit"]
    if needed_conditions(type_, name):
        needed.append("conditions")
    return {
        "properties": properties,
        "required": needed,
        "dependentRequired": {
            "interval_low": ["interval_high", "interval_level"],
            "interval_high": ["interval_low", "interval_level"],
            "interval_level": ["interval_low", "interval_high"],
        },
    }


def _number(metric: Metric) -> dict[str, Any]:
    number: dict[str, Any] = {"type": "integer" if metric.whole else "number"}
    if metric.low is not None:
        number["minimum"] = metric.low
    if metric.high is not None:
        number["maximum"] = metric.high
    return number


def _found(type_: str, kind: EvidenceType) -> dict[str, Any]:
    scale = ", ".join(kind.scale)
    return {
        "properties": {
            "metric": {"const": FINDING, "description": "What was found, in words."},
            "verdict": {
                "enum": list(ranks(type_)),
                "description": f"What speaks most for release first: {scale}; the last two judge "
                "nothing yet and rank above all.",
            },
            "finding": _text(MAX_TEXT),
            "unit": {"const": VERDICT},
            "conditions": _conditions(type_, FINDING),
        },
        "required": ["metric", "verdict", "finding"]
        + (["conditions"] if kind.finding_needs else []),
    }


def _conditions(type_: str, metric: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _condition(CONDITIONS[name]) for name in allowed_conditions(type_)},
        "required": list(needed_conditions(type_, metric)),
        "additionalProperties": False,
    }


def _condition(condition: Condition) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": condition.meaning}
    if condition.form == "choice":
        return schema | {"enum": list(condition.choices)}
    if condition.form in ("text", "sampler"):
        return schema | {"type": "string", "minLength": 1, "maxLength": 200}
    if condition.form == "share":
        return schema | {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    schema["type"] = "integer" if condition.form == "whole" else "number"
    if condition.low is not None:
        schema["minimum"] = condition.low
    if condition.high is not None:
        schema["maximum"] = condition.high
    return schema


# --- docs/evidence.md ----------------------------------------------------------------------------


def evidence_page() -> str:
    """Return docs/evidence.md."""
    lines = [
        "# Evidence",
        "",
        "Printed from `evidence/kinds.py` by `make docs`; `GET /api/v1/evidence-types` serves the",
        "same as JSON Schema. A figure has a metric, a value in its unit, and the conditions it",
        "was measured under; what is no figure is a `finding` with a verdict and words.",
        "",
        "A finding's verdict has a rank, counted from 0 for what speaks most for release; plans",
        "compare it by `at_most`. `no_result_yet` and `not_judged` rank above every other verdict,",
        "so that no gate passes on a study without an answer.",
        "",
        "Each piece also says how well it is established: `verified` (read in a primary source),",
        "`reported` (read in an account of it), `computed` (arithmetic) or `recalled` (not",
        "re-checked: never accepted, never shown as established).",
    ]
    for name, kind in TYPES.items():
        lines += _type_page(name, kind)
    lines += ["", "## Conditions", "", "| condition | form | meaning |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {_form(one)} | {one.meaning} |" for name, one in sorted(CONDITIONS.items())
    ]
    lines += [
        "",
        "## CSV",
        "",
        "The first line names the columns; which of these it has, and in what order, is free:",
        "",
        ", ".join(f"`{name}`" for name in CSV_COLUMNS) + ".",
    ]
    return "\n".join(lines) + "\n"


def _type_page(name: str, kind: EvidenceType) -> list[str]:
    lines = ["", f"## `{name}`", "", kind.meaning, ""]
    lines += [
        "| metric | unit | range | needs | beside it | meaning |",
        "|---|---|---|---|---|---|",
    ]
    for metric, data in kind.metrics.items():
        units = data.unit + (f" (or {', '.join(data.also)})" if data.also else "")
        needs = ", ".join(f"`{n}`" for n in needed_conditions(name, metric)) or "—"
        companions = ", ".join(f"`{n}`" for n in data.companions) or "—"
        lines.append(
            f"| `{metric}` | {units} | {_range(data)} | {needs} | {companions} | {data.meaning} |"
        )
    needs = ", ".join(f"`{n}`" for n in kind.finding_needs) or "—"
    scale = " < ".join(f"`{one}`" for one in kind.scale)
    lines.append(f"| `{FINDING}` | {VERDICT} | {scale} | {needs} | — | what was found, in words |")
    others = [f"`{n}`" for n in allowed_conditions(name) if n not in kind.required]
    return [*lines, "", f"Other conditions: {', '.join(others)}."]


def _range(metric: Metric) -> str:
    low = "" if metric.low is None else f"{metric.low:g}"
    high = "" if metric.high is None else f"{metric.high:g}"
    whole = ", whole" if metric.whole else ""
    return f"{low or '−∞'} to {high or '∞'}{whole}"


def _form(condition: Condition) -> str:
    forms: Mapping[str, str] = {"share": "between 0 and 1", "whole": "whole number"}
    if condition.form == "choice":
        return " or ".join(f"`{one}`" for one in condition.choices)
    return forms.get(condition.form, condition.form)

"""Reads what a plan gives a gate by the gate's own table of options, and prints it as a schema.

Pure. One table (``Gate.options``) says what may stand there: this reader, the published JSON Schema
and the documentation all go by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from stagerelease.kernel.clock import iso
from stagerelease.releases.gates import KINDS, Gate, Option
from stagerelease.releases.source import Fields, duration_text, is_slug

ARTIFACTS = ("code", "detector", "model_card", "output_dataset", "tokenizer", "weights")
MAX_TEXT = 500
MAX_CONDITIONS = 20


def read_options(gate: Gate, fields: Fields) -> dict[str, Any]:
    """Return the options of ``gate`` that stand in ``fields``; mistakes are noted there."""
    values: dict[str, Any] = {}
    for name, option in gate.options.items():
        value = _value(name, option, fields)
        if value is not None:
            values[name] = value
        elif option.default is not None:
            values[name] = option.default
    before = len(fields.errors)
    missing = any(o.required and n not in values for n, o in gate.options.items())
    wrong = None if missing or len(fields.errors) > before else gate.wrong(values)
    if wrong:
        fields.wrong("", wrong[:1].lower() + wrong[1:].rstrip("."))
    return values


def _value(name: str, option: Option, fields: Fields) -> Any:
    if option.kind == "text":
        return fields.text(name, required=option.required, limit=MAX_TEXT) or None
    raw = fields.take(name, required=option.required)
    if raw is None:
        return None
    if option.kind == "duration":
        before = len(fields.errors)
        span = fields.duration(name, timedelta(0))
        return duration_text(span) if len(fields.errors) == before else None
    if option.kind == "instant":
        at = fields.instant(name)
        return iso(at) if at is not None else None
    if option.kind == "number":
        return raw if _is_number(raw) else fields.wrong(name, "must be a number")
    if option.kind == "choice":
        return fields.choice(name, option.choices) or None
    if option.kind == "names":
        return _names(name, raw, fields)
    return _conditions(name, raw, fields)


def _is_number(raw: object) -> bool:
    return type(raw) is int or (type(raw) is float and math.isfinite(raw))


def _names(name: str, raw: object, fields: Fields) -> tuple[str, ...] | None:
    if (
        isinstance(raw, list)
        and 1 <= len(raw) <= 20
        and all(isinstance(v, str) and 1 <= len(v) <= 128 and v.isprintable() for v in raw)
        and len(set(raw)) == len(raw)
    ):
        return tuple(raw)
    fields.wrong(name, "must be a list of 1 to 20 names without repeats")
    return None


def _conditions(name: str, raw: object, fields: Fields) -> Mapping[str, Any] | None:
    if not isinstance(raw, Mapping) or not 1 <= len(raw) <= MAX_CONDITIONS:
        fields.wrong(name, f"must be a mapping of 1 to {MAX_CONDITIONS} conditions to their values")
        return None
    found: dict[str, Any] = {}
    for key, value in raw.items():
        text_ok = isinstance(value, str) and 1 <= len(value) <= 200 and value.isprintable()
        if not isinstance(key, str) or not is_slug(key):
            fields.wrong(name, "names a condition that is not of a-z, 0-9, '-' and '_'")
        elif not text_ok and not _is_number(value):
            fields.wrong(f"{name}.{key}", "must be a text of 1 to 200 characters or a number")
        else:
            found[key] = value
    return found


def plain_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as plain JSON values."""
    return {
        key: list(value)
        if isinstance(value, tuple)
        else dict(value)
        if isinstance(value, Mapping)
        else value
        for key, value in options.items()
    }


def _schema_of(option: Option) -> dict[str, Any]:
    shapes: dict[str, dict[str, Any]] = {
        "text": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT},
        "number": {"type": "number"},
        "duration": {"$ref": "#/$defs/duration"},
        "instant": {"$ref": "#/$defs/instant"},
        "choice": {"enum": list(option.choices)},
        "names": {
            "type": "array",
            "minItems": 1,
            "maxItems": 20,
            "uniqueItems": True,
            "items": {"type": "string", "minLength": 1, "maxLength": 128},
        },
        "conditions": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": MAX_CONDITIONS,
            "propertyNames": {"pattern": "^[a-z0-9][a-z0-9_-]{0,31}$"},
            "additionalProperties": {
                "anyOf": [
                    {"type": "number"},
                    {"type": "string", "minLength": 1, "maxLength": 200},
                ]
            },
        },
    }
    meaning = option.meaning[:1].upper() + option.meaning[1:] + "."
    shown = shapes[option.kind] | {"description": meaning}
    return shown if option.default is None else shown | {"default": option.default}


def gate_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a gate as plans list it: one form for each kind."""
    standing = sorted(name for name, gate in KINDS.items() if not gate.listed)
    key = {
        "allOf": [{"$ref": "#/$defs/name"}, {"not": {"enum": standing}}],
        "description": "Name of the gate on this stage; the kind when left out.",
    }
    artifacts = {
        "type": "array",
        "minItems": 1,
        "uniqueItems": True,
        "items": {"enum": list(ARTIFACTS)},
        "description": "Kinds of artifact it is asked of; every kind when left out.",
    }
    forms = []
    for name, gate in KINDS.items():
        if not gate.listed:
            continue
        options = {key: _schema_of(option) for key, option in gate.options.items()}
        forms.append(
            {
                "type": "object",
                "title": name.replace("_", " ").capitalize(),
                "description": (type(gate).__doc__ or "").strip().splitlines()[0],
                "additionalProperties": False,
                "required": ["kind", *(k for k, o in gate.options.items() if o.required)],
                "properties": {
                    "kind": {"const": name},
                    "key": key,
                    "artifacts": artifacts,
                    **options,
                },
            }
        )
    return {"oneOf": forms}

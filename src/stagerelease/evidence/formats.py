"""Reads JSON and CSV into entries that nobody has looked at yet. Pure.

Nothing read here is ever run, fetched or followed; a number is a number as JSON and CSV write it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stagerelease.evidence.kinds import CONDITIONS, TYPES
from stagerelease.kernel.errors import FieldError, Invalid

MAX_ENTRIES = 2_000
TEXTS = (
    *("type", "metric", "title", "subject_sha256", "source", "fact_status", "unit"),
    *("verdict", "finding", "caveat", "author_name"),
)
COLUMNS = (
    *TEXTS,
    *("value", "n", "interval_low", "interval_high", "interval_level"),
    *("measured_at", "valid_until", "public", "organisation", "supersedes"),
)
COMPANIONS = tuple(
    sorted({c for kind in TYPES.values() for m in kind.metrics.values() for c in m.companions})
)
CSV_COLUMNS = (
    *COLUMNS,
    *(f"condition.{name}" for name in CONDITIONS),
    *(f"companion.{name}" for name in COMPANIONS),
)
"""Every column a CSV may have; which ones it has, its header says."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What entries that do not say it themselves get. ``unit`` is for shares of a model card."""

    subject_sha256: str | None = None
    measured_at: datetime | None = None
    source: str | None = None
    fact_status: str | None = None
    organisation: str | None = None
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Raw:
    """An entry before its fields are looked at."""

    where: str
    values: Mapping[str, Any]


# --- JSON ----------------------------------------------------------------------------------------


def read_json(text: str) -> list[Raw]:
    """Return the entries of a JSON list, or of the list called ``evidence``.

    Raises:
        Invalid: no such JSON, a name twice in an object, NaN or Infinity; names line and column.
    """
    document = _parse_json(text)
    if isinstance(document, dict) and set(document) == {"evidence"}:
        document = document["evidence"]
    if not isinstance(document, list):
        raise Invalid(
            'JSON evidence is a list of objects, or {"evidence": [...]}.', reason="import.json"
        )
    raw = []
    for at, one in enumerate(document, start=1):
        if not isinstance(one, dict):
            raise Invalid(f"Entry {at} is no object.", reason="import.json")
        raw.append(Raw(f"entry {at}", one))
    return raw


def read_object(text: str) -> Raw:
    """Return the one entry of a JSON object. Raises what ``read_json`` raises."""
    document = _parse_json(text)
    if not isinstance(document, dict):
        raise Invalid("One piece of evidence is a JSON object.", reason="import.json")
    return Raw("evidence", document)


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_doubles)
    except json.JSONDecodeError as error:
        raise Invalid(
            f"Line {error.lineno}, column {error.colno}: {error.msg}. Nothing was imported.",
            reason="import.json",
        ) from error
    except (ValueError, RecursionError) as error:
        raise Invalid(
            f"The JSON cannot be read: {error}. Nothing was imported.", reason="import.json"
        ) from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON's")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {double!r:.80} is there twice")
    return found


# --- CSV -----------------------------------------------------------------------------------------


def read_csv(text: str) -> list[Raw]:
    """Return the entries of a CSV whose first line names its columns (RFC 4180).

    Raises:
        Invalid: no such CSV, an unknown column, or a cell that is no number; names the line.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    raw: list[Raw] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header)
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            where = f"line {reader.line_num}"
            if len(row) != len(header):
                raise Invalid(
                    f"{where}: {len(row)} cells, and the header names {len(header)} columns. "
                    "Nothing was imported.",
                    reason="import.csv",
                )
            raw.append(Raw(where, _row(where, dict(zip(header, row, strict=True)))))
    except csv.Error as error:
        raise Invalid(
            f"line {reader.line_num}: {error}. Nothing was imported.", reason="import.csv"
        ) from error
    return raw


def _check_header(header: Sequence[str]) -> None:
    for name in header:
        if name not in CSV_COLUMNS:
            raise Invalid(
                f"line 1: there is no column {name!r:.80}. Nothing was imported.",
                reason="import.csv",
                next_step="The columns are named in docs/evidence.md.",
            )
    if len(set(header)) != len(header) or not header:
        raise Invalid(
            "line 1: the header names each column once. Nothing was imported.", reason="import.csv"
        )


_CSV_NUMBERS = ("value", "interval_low", "interval_high", "interval_level")


def _row(where: str, cells: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {"conditions": {}, "companions": {}}
    for name, cell in cells.items():
        text = cell.strip()
        if not text:
            continue
        group, _, rest = name.partition(".")
        try:
            if group == "condition":
                text_form = CONDITIONS[rest].form in ("text", "choice", "sampler")
                values["conditions"][rest] = text if text_form else parse_number(text)
            elif group == "companion":
                values["companions"][rest] = parse_number(text)
            elif name == "n":
                values[name] = int(text) if text.isascii() else parse_number(text)
            elif name in _CSV_NUMBERS:
                values[name] = parse_number(text)
            elif name == "public":
                values[name] = {"true": True, "false": False}[text.lower()]
            else:
                values[name] = text
        except (ValueError, KeyError) as error:
            form = "true or false" if name == "public" else "a number"
            sentence = f"{where}: {name} is {form}, and {text!r:.80} is not."
            raise Invalid(
                f"Nothing was imported. {sentence}",
                reason="import.csv",
                fields=[FieldError(f"{where}.{name}", sentence)],
            ) from error
    return values


def parse_number(text: str) -> float:
    """Return a number as it is written in CSV: no underscores, no NaN, no thousands."""
    if not text.isascii() or "_" in text:
        raise ValueError(text)
    return float(text)

"""What an access form is, read from a document and linted field by field. Pure.

Knows YAML through ``releases.source`` and nothing of requests, people or databases. What an
applicant typed is judged in ``answers``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

from stagerelease.kernel.canonical import canonical_sha256
from stagerelease.kernel.errors import FieldError, Invalid
from stagerelease.kernel.plain_yaml import holds_more
from stagerelease.partners.duo import DUO_CODES
from stagerelease.releases.source import MAX_SOURCE, Fields, line_of, lines_of, load_yaml

DEFAULT = "default"
"""The form that comes with the product, asked wherever no other is in force."""

ADDRESS_KEY = "email"
"""The field whose answer is the address that an anonymous applicant confirms."""

MAX_FIELDSETS, MAX_FIELDS, MAX_CHOICES = 12, 40, 60
MOST_VALUES = 10_000
"""Values in the document, whatever they mean: reading them is what costs."""
LONGEST_TEXT, LONGEST_LONG_TEXT = 500, 10_000
_KEY = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")


class Kind(StrEnum):
    """What a field asks for."""

    TEXT = "text"
    LONG_TEXT = "long_text"
    CHOICE = "choice"
    CHOICES = "choices"
    EMAIL = "email"
    URL = "url"
    DATE = "date"
    CHECKBOX = "checkbox"
    DUO_PURPOSE = "duo_purpose"


LIMITED = frozenset({Kind.TEXT, Kind.LONG_TEXT})
CHOSEN = frozenset({Kind.CHOICE, Kind.CHOICES, Kind.DUO_PURPOSE})

PURPOSES = ("NRES", "GRU", "HMB", "DS", "POA", "NCU", "NPU", "NPUNCU")
"""Data Use Ontology codes that say what something is for; the others narrow an agreement."""

FAMILY = "family"
"""``choices_from``: the other checkpoints of the family that whoever looks may know of."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing that can be chosen."""

    value: str
    label: str
    help: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One question. Lengths count characters; dates are inclusive."""

    key: str
    label: str
    kind: Kind
    help: str = ""
    required: bool = False
    min_length: int = 0
    max_length: int = LONGEST_TEXT
    earliest: date | None = None
    latest: date | None = None
    choices: tuple[Choice, ...] = ()
    choices_from: str = ""


@dataclass(frozen=True, slots=True)
class Fieldset:
    """Questions under one legend."""

    key: str
    legend: str
    fields: tuple[Field, ...]
    help: str = ""


@dataclass(frozen=True, slots=True)
class Form:
    """A form: what stands above it, and its fieldsets in order.

    ``median_line`` says whether applicants are told how long an answer takes.
    """

    slug: str
    title: str
    fieldsets: tuple[Fieldset, ...]
    intro: str = ""
    median_line: bool = True

    @property
    def fields(self) -> Iterator[Field]:
        """Walk every field in order."""
        return (field for fieldset in self.fieldsets for field in fieldset.fields)

    def find(self, key: str) -> Field | None:
        """Return the field of that key, or None."""
        return next((field for field in self.fields if field.key == key), None)


# --- reading ------------------------------------------------------------------------------------


def parse_form(source: str) -> Form:
    """Return the form that a YAML or JSON text describes.

    Raises:
        Invalid: it is not YAML or not a form; ``fields`` names every mistake with its line.
    """
    if len(source) <= MAX_SOURCE and holds_more(source, MOST_VALUES):
        raise Invalid(f"The form holds more than {MOST_VALUES:,} values.", reason="form.yaml")
    try:
        raw = load_yaml(source)
    except Invalid as error:
        words = error.sentence.replace("The plan", "The form").replace("no plan", "no form")
        raise Invalid(words, reason="form.yaml") from error
    return _read(raw, lines_of(source))


def read_form(document: object) -> Form:
    """Return the form that a plain document describes, as ``document_of`` wrote it.

    Raises:
        Invalid: it is not a form; ``fields`` names every mistake.
    """
    return _read(document, None)


def _read(raw: object, lines: Mapping[str, int] | None) -> Form:
    errors: list[FieldError] = []
    top = Fields(raw, "", errors)
    fieldsets = tuple(
        _fieldset(item, f"fieldsets.{n}", errors)
        for n, item in enumerate(top.items("fieldsets", most=MAX_FIELDSETS))
    )
    form = Form(
        slug=top.slug("form", required=True),
        title=top.text("title", required=True, limit=120),
        intro=top.text("intro", limit=4000),
        median_line=top.flag("median_line", default=True),
        fieldsets=fieldsets,
    )
    top.refuse_unknown()
    _check_whole(form, top)
    if errors:
        raise Invalid(
            f"The form has {len(errors)} mistake{'s' if len(errors) > 1 else ''}.",
            reason="form.lint",
            next_step="Correct each, then lint it again.",
            fields=[_placed(error, lines) for error in errors],
        )
    return form


def _placed(error: FieldError, lines: Mapping[str, int] | None) -> FieldError:
    """Return a mistake with the line it stands on, in the form's own words."""
    path = "form" if error.field == "plan" else error.field
    words = error.sentence if error.field == path else f"form{error.sentence.removeprefix('plan')}"
    if lines is None:
        return FieldError(path, words)
    return FieldError(path, f"Line {line_of(lines, '' if path == 'form' else path)}: {words}")


def _check_whole(form: Form, top: Fields) -> None:
    """Note what is wrong with the fields taken together."""
    fields = list(form.fields)
    if not fields:
        top.wrong("fieldsets", "must hold at least one field")
    if len(fields) > MAX_FIELDS:
        top.wrong("fieldsets", f"must hold at most {MAX_FIELDS} fields; there are {len(fields)}")
    for what, keys in (
        ("fieldset", [fieldset.key for fieldset in form.fieldsets]),
        ("field", [field.key for field in fields]),
    ):
        for key in sorted({key for key in keys if key and keys.count(key) > 1}):
            top.wrong("fieldsets", f"has the {what} {key!r} more than once")
    address = form.find(ADDRESS_KEY)
    if fields and (address is None or address.kind is not Kind.EMAIL or not address.required):
        top.wrong(
            "fieldsets",
            f"must hold a required field {ADDRESS_KEY!r} of kind email: applicants without an "
            "account confirm that address",
        )


def _fieldset(raw: object, path: str, errors: list[FieldError]) -> Fieldset:
    given = Fields(raw, path, errors)
    fields = tuple(
        _field(item, f"{path}.fields.{n}", errors)
        for n, item in enumerate(given.items("fields", most=MAX_FIELDS))
    )
    found = Fieldset(
        key=_key(given),
        legend=given.text("legend", required=True, limit=200),
        help=given.text("help", limit=1000),
        fields=fields,
    )
    given.refuse_unknown()
    return found


def _key(given: Fields) -> str:
    key = given.text("key", required=True, limit=40)
    if key and not _KEY.match(key):
        given.wrong("key", "must be 1-40 of a-z, 0-9 and '_', beginning with a letter")
        return ""
    return key


def _field(raw: object, path: str, errors: list[FieldError]) -> Field:
    given = Fields(raw, path, errors)
    key = _key(given)
    label = given.text("label", required=True, limit=300)
    kind = given.choice("kind", tuple(Kind))
    field = Field(
        key=key,
        label=label,
        kind=Kind(kind) if kind else Kind.TEXT,
        help=given.text("help", limit=1000),
        required=given.flag("required", default=False),
        **_limits(given, kind),
        **_choices(given, kind),
    )
    given.refuse_unknown()
    return field


def _limits(given: Fields, kind: str) -> dict[str, Any]:
    """Read what bounds an answer: lengths of texts, ends of dates."""
    most = LONGEST_LONG_TEXT if kind == Kind.LONG_TEXT else LONGEST_TEXT
    found: dict[str, Any] = {"max_length": most if kind != Kind.URL else 2000}
    if kind in LIMITED:
        found["min_length"] = _count(given, "min_length", default=0, most=most)
        found["max_length"] = _count(given, "max_length", default=most, most=most)
        if found["min_length"] > found["max_length"]:
            given.wrong("min_length", "must not be more than max_length")
    if kind == Kind.DATE:
        found["earliest"], found["latest"] = _day(given, "earliest"), _day(given, "latest")
        if found["earliest"] and found["latest"] and found["earliest"] > found["latest"]:
            given.wrong("earliest", "must not be after latest")
    return found


def _count(given: Fields, key: str, *, default: int, most: int) -> int:
    value = given.take(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        given.wrong(key, f"must be a whole number from 0 to {most:,}")
        return default
    return value


def _day(given: Fields, key: str) -> date | None:
    text = given.text(key, limit=10)
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        given.wrong(key, "must be a date such as 2026-12-31")
        return None


def _choices(given: Fields, kind: str) -> dict[str, Any]:
    """Read what can be chosen, for the kinds that choose."""
    if kind not in CHOSEN:
        return {}
    if kind == Kind.DUO_PURPOSE:
        codes = given.names("choices", PURPOSES, PURPOSES)
        choices = (Choice(code, f"{DUO_CODES[code].label} ({code})") for code in codes)
        return {"choices": tuple(choices)}
    source = given.text("choices_from", limit=40)
    if source:
        if source != FAMILY or given.take("choices") is not None:
            given.wrong("choices_from", f"must be {FAMILY!r}, and stand without choices")
        return {"choices_from": FAMILY}
    found: list[Choice] = []
    for n, item in enumerate(given.items("choices", most=MAX_CHOICES)):
        one = Fields(item, f"{given.path}.choices.{n}", given.errors)
        choice = Choice(
            one.text("value", required=True, limit=100),
            one.text("label", required=True, limit=300),
            one.text("help", limit=500),
        )
        one.refuse_unknown()
        found.append(choice)
    values = [choice.value for choice in found]
    if len(found) < 2 or len(set(values)) != len(values):
        given.wrong("choices", "must be a list of two or more different values")
    return {"choices": tuple(found)}


# --- writing ------------------------------------------------------------------------------------


def document_of(form: Form) -> dict[str, Any]:
    """Return the plain document of a form, from which ``read_form`` reads the same form."""
    return {
        "form": form.slug,
        "title": form.title,
        **({"intro": form.intro} if form.intro else {}),
        "median_line": form.median_line,
        "fieldsets": [
            {
                "key": fieldset.key,
                "legend": fieldset.legend,
                **({"help": fieldset.help} if fieldset.help else {}),
                "fields": [_field_document(field) for field in fieldset.fields],
            }
            for fieldset in form.fieldsets
        ],
    }


def _field_document(field: Field) -> dict[str, Any]:
    out: dict[str, Any] = {"key": field.key, "label": field.label, "kind": field.kind.value}
    if field.help:
        out["help"] = field.help
    if field.required:
        out["required"] = True
    if field.kind in LIMITED:
        out |= {"min_length": field.min_length, "max_length": field.max_length}
    for name, day in (("earliest", field.earliest), ("latest", field.latest)):
        if day is not None:
            out[name] = day.isoformat()
    if field.choices_from:
        out["choices_from"] = field.choices_from
    elif field.kind is Kind.DUO_PURPOSE:
        out["choices"] = [choice.value for choice in field.choices]
    elif field.choices:
        out["choices"] = [
            {"value": c.value, "label": c.label, **({"help": c.help} if c.help else {})}
            for c in field.choices
        ]
    return out


def form_sha256(form: Form) -> str:
    """Return the 64-hex digest that names exactly this form."""
    return canonical_sha256(document_of(form))


@cache
def shipped_form() -> Form:
    """Return the form that comes with the product."""
    source = files("stagerelease.access").joinpath("shipped", "default.yaml").read_text("utf-8")
    return parse_form(source)

"""Judges what an applicant typed against a form. Pure.

Two steps on purpose: ``as_typed`` keeps nearly anything, so that a draft with mistakes can be
stored and nothing typed is lost; ``judge`` says what is wrong with it, field by field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from stagerelease.access.forms import Choice, Field, Form, Kind
from stagerelease.kernel.canonical import canonical_sha256
from stagerelease.kernel.errors import FieldError, Invalid, TooLarge

Answer = str | bool | list[str]
Answers = dict[str, Answer]

MAX_TYPED_FIELDS = 100
MAX_TYPED = 20_000
"""Characters of one answer that a draft keeps; more than any field allows."""
MAX_TYPED_TOTAL = 200_000
MAX_CHOSEN = 100
_MARK = "\ufffd"
"""Stands where a character stood that no database keeps as text."""
_JOINERS = "\u200c\u200d"
"""Part of ordinary words in Persian and of emoji; harmless, though Unicode calls them formats."""

_ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])\Z"
)
MAX_ADDRESS = 254  # RFC 5321 section 4.5.3.1.3, less the brackets
MAX_LOCAL_PART = 64
TRUE = frozenset({"on", "true", "yes", "1"})
FALSE = frozenset({"", "off", "false", "no", "0"})


# --- keeping ------------------------------------------------------------------------------------


def as_typed(raw: Mapping[str, object]) -> Answers:
    """Return what was typed as a draft keeps it, mistakes and all.

    Line ends become ``\\n``; NUL and halves of characters become U+FFFD, since no database keeps
    them. Nothing else is changed and nothing is cut.

    Raises:
        TooLarge: more fields or characters than any form can ask for.
        Invalid: a value that is neither text, yes or no, nor a list of texts.
    """
    if len(raw) > MAX_TYPED_FIELDS:
        raise TooLarge(f"At most {MAX_TYPED_FIELDS} fields are kept.", reason="access.fields")
    kept = {_text(str(key))[:200]: _value(str(key), value) for key, value in raw.items()}
    total = sum(len(str(value)) for value in kept.values())
    if total > MAX_TYPED_TOTAL:
        raise TooLarge(
            f"Your answers are {total:,} characters together; at most {MAX_TYPED_TOTAL:,} are "
            "kept.",
            reason="access.too-large",
            next_step="Shorten them, or put what is long on a page of yours and link to it.",
        )
    return kept


def _value(key: str, value: object) -> Answer:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return _text(str(value))
    if isinstance(value, str) and len(value) <= MAX_TYPED:
        return _text(value)
    if isinstance(value, str):
        raise TooLarge(
            f"One answer is {len(value):,} characters; at most {MAX_TYPED:,} are kept.",
            reason="access.too-large",
            next_step="Shorten it.",
            fields=[FieldError(_text(key)[:200], f"At most {MAX_TYPED:,} characters are kept.")],
        )
    if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        return [_text(v)[:MAX_TYPED] for v in value[:MAX_CHOSEN]]
    raise Invalid(
        "An answer is text, yes or no, or a list of texts.",
        reason="access.answers",
        fields=[FieldError(_text(key)[:200], "Give text, true or false, or a list of texts.")],
    )


def _text(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", _MARK)
    return "".join(_MARK if "\ud800" <= c <= "\udfff" else c for c in text)


def answers_sha256(answers: Mapping[str, Any]) -> str:
    """Return the digest by which the log speaks of answers, which it never holds."""
    return canonical_sha256(dict(answers))


# --- judging ------------------------------------------------------------------------------------


class Wrong(ValueError):
    """An answer is not one; the message is the sentence shown beside the field."""


def judge(
    form: Form, typed: Mapping[str, Answer], *, family: Iterable[str] = ()
) -> tuple[Answers, tuple[FieldError, ...]]:
    """Return the answers that are good, and one sentence for each field that is not.

    ``family`` are the values of fields whose choices come from there. Answers left empty are
    left out. Fields the form does not have are mistakes too.
    """
    good: Answers = {}
    wrong: list[FieldError] = []
    offered = tuple(Choice(name, name) for name in family)
    for field in form.fields:
        try:
            answer = _judge_field(field, typed.get(field.key, ""), offered)
        except Wrong as error:
            wrong.append(FieldError(field.key, str(error)))
        else:
            if answer not in ("", [], False) or field.kind is Kind.CHECKBOX:
                good[field.key] = answer
    known = {field.key for field in form.fields}
    for key in sorted(typed.keys() - known):
        wrong.append(FieldError(key[:200], "This form has no such field; leave it out."))
    return good, tuple(wrong)


def open_fields(
    form: Form, answers: Mapping[str, Answer], *, family: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the keys of required fields without a good answer: what a reviewer may ask for."""
    _, wrong = judge(form, {k: v for k, v in answers.items() if form.find(k)}, family=family)
    return tuple(error.field for error in wrong)


def matched(form: Form, given: Mapping[str, Answer]) -> Answers:
    """Return answers of a caller who does not know the form, under the form's keys where they fit.

    A name that is a field's key or label, in whatever case, becomes that key; any other name is
    kept as it is, so that a reviewer still reads it.
    """
    keys = {field.key for field in form.fields}
    names = {field.label.casefold(): field.key for field in form.fields}
    names |= {key.casefold(): key for key in keys}
    out: Answers = {name: answer for name, answer in given.items() if name in keys}
    for name, answer in given.items():
        if name not in keys:
            key = names.get(name.strip().casefold(), name)
            out[key if key not in out else name] = answer
    return out


def _judge_field(field: Field, typed: Answer, offered: tuple[Choice, ...]) -> Answer:
    answer = _JUDGES[field.kind](field, typed, field.choices or offered)
    if field.required and answer in ("", [], False):
        raise Wrong(_MISSING.get(field.kind, "Please answer this."))
    return answer


_MISSING = {
    Kind.CHECKBOX: "Tick this to go on; we cannot give access without it.",
    Kind.CHOICE: "Choose one.",
    Kind.CHOICES: "Choose at least one.",
    Kind.DUO_PURPOSE: "Choose one.",
    Kind.EMAIL: "Give an e-mail address that we can write to.",
}


def _one_text(typed: Answer) -> str:
    if not isinstance(typed, str):
        raise Wrong("Give text here.")
    return typed.strip()


def _printable(text: str, *, lines: bool) -> str:
    allowed = _JOINERS + ("\n\t" if lines else "")
    for c in text:
        if c == _MARK or not (c.isprintable() or c in allowed):
            if c in "\n\t":
                raise Wrong("Write this on one line.")
            raise Wrong(f"This holds a character that cannot be shown (U+{ord(c):04X}); remove it.")
    return text


def _text_answer(field: Field, typed: Answer, _: tuple[Choice, ...]) -> str:
    text = _printable(_one_text(typed), lines=field.kind is Kind.LONG_TEXT)
    if len(text) > field.max_length:
        raise Wrong(
            f"At most {field.max_length:,} characters; this is {len(text):,}. Please shorten it."
        )
    if text and len(text) < field.min_length:
        raise Wrong(f"Please write at least {field.min_length:,} characters.")
    return text


def _choice_answer(_field: Field, typed: Answer, choices: tuple[Choice, ...]) -> str:
    text = _one_text(typed)
    if text and text not in {choice.value for choice in choices}:
        raise Wrong("Choose one of those offered.")
    return text


def _choices_answer(_field: Field, typed: Answer, choices: tuple[Choice, ...]) -> list[str]:
    given = [typed] if isinstance(typed, str) else typed
    if not isinstance(given, list):
        raise Wrong("Choose among those offered.")
    chosen = list(dict.fromkeys(text.strip() for text in given if text.strip()))
    if not set(chosen) <= {choice.value for choice in choices}:
        raise Wrong("Choose only among those offered.")
    return chosen


def address_of(text: str) -> str:
    """Return an e-mail address, trimmed, its domain in lower case.

    Only what can travel through any mail system: ASCII, no quoting, no address literals.

    Raises:
        Wrong: it is not one.
    """
    text = text.strip()
    local, _, domain = text.rpartition("@")
    if len(text) > MAX_ADDRESS or len(local) > MAX_LOCAL_PART or not _ADDRESS.match(text):
        raise Wrong("Give an e-mail address such as name@example.org.")
    return f"{local}@{domain.lower()}"


def _email_answer(_field: Field, typed: Answer, _: tuple[Choice, ...]) -> str:
    text = _one_text(typed)
    return address_of(text) if text else ""


def _url_answer(field: Field, typed: Answer, _: tuple[Choice, ...]) -> str:
    text = _printable(_one_text(typed), lines=False)
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError as error:
        raise Wrong("Give a web address such as https://example.org/you.") from error
    if (
        parts.scheme not in ("http", "https")
        or not host
        or parts.username is not None
        or any(c.isspace() for c in text)
        or len(text) > field.max_length
    ):
        raise Wrong("Give a web address such as https://example.org/you.")
    return text


def _date_answer(field: Field, typed: Answer, _: tuple[Choice, ...]) -> str:
    text = _one_text(typed)
    if not text:
        return ""
    try:
        day = date.fromisoformat(text) if len(text) == len("2026-12-31") else None
    except ValueError:
        day = None
    if day is None:
        raise Wrong("Give a date such as 2026-12-31.")
    if field.earliest and day < field.earliest:
        raise Wrong(f"Give a date no earlier than {field.earliest}.")
    if field.latest and day > field.latest:
        raise Wrong(f"Give a date no later than {field.latest}.")
    return day.isoformat()


def _checkbox_answer(_field: Field, typed: Answer, _: tuple[Choice, ...]) -> bool:
    if isinstance(typed, bool):
        return typed
    word = _one_text(typed).casefold()
    if word not in TRUE | FALSE:
        raise Wrong("Tick it, or leave it empty.")
    return word in TRUE


_JUDGES: Mapping[Kind, Callable[[Field, Answer, tuple[Choice, ...]], Answer]] = MappingProxyType(
    {
        Kind.TEXT: _text_answer,
        Kind.LONG_TEXT: _text_answer,
        Kind.CHOICE: _choice_answer,
        Kind.CHOICES: _choices_answer,
        Kind.EMAIL: _email_answer,
        Kind.URL: _url_answer,
        Kind.DATE: _date_answer,
        Kind.CHECKBOX: _checkbox_answer,
        Kind.DUO_PURPOSE: _choice_answer,
    }
)

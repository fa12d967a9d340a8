"""Reads what a browser sends: fields as text, within limits, nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import FormData

from stagerelease.access.forms import Form, Kind
from stagerelease.kernel.clock import in_range
from stagerelease.kernel.errors import FieldError, Invalid

MAX_FIELDS = 300
WORTH_KEEPING = 3
"""Words from which on a text is handed back when its form is refused as a whole."""


def whole(text: str, *, digits: int = 9) -> int | None:
    """Return a whole number of at most so many digits, or None when ``text`` is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= digits else None


class Typed:
    """A form as it was sent. Every value is text; a field that was not sent is empty."""

    def __init__(self, data: FormData) -> None:
        self._values: dict[str, list[str]] = {}
        for key, value in data.multi_items():
            if isinstance(value, str):
                text = value.replace("\r\n", "\n").replace("\r", "\n")  # browsers send CRLF
                self._values.setdefault(key, []).append(text)

    def get(self, key: str) -> str:
        """Return the last value of a field, trimmed; empty when it was not sent."""
        return self.raw(key).strip()

    def raw(self, key: str) -> str:
        """Return the last value of a field as it was typed."""
        values = self._values.get(key)
        return values[-1] if values else ""

    def all(self, key: str) -> list[str]:
        """Return every value of a field, in order."""
        return list(self._values.get(key, ()))

    def ticked(self, key: str) -> bool:
        """Tell whether a box was ticked."""
        return self.get(key) in ("on", "yes", "true", "1")

    def number(self, key: str) -> int | None:
        """Return a field as a whole number, or None when it is none."""
        return whole(self.get(key))

    def everything(self) -> dict[str, str]:
        """Return every field as it was typed, to show a page with many forms again."""
        return {key: self.raw(key) for key in self._values}

    def words(self) -> list[str]:
        """Return what somebody wrote in their own words: each value longer than a name."""
        return [v for vs in self._values.values() for v in vs if len(v.split()) >= WORTH_KEEPING]

    def pairs(self) -> list[tuple[str, str]]:
        """Return every field with each of its values, to be sent again as they are."""
        return [(key, value) for key, values in self._values.items() for value in values]

    def values(self, *keys: str) -> dict[str, str]:
        """Return fields as they were typed, to show them again."""
        return {key: self.raw(key) for key in keys}


async def read_form(request: Request) -> Typed:
    """Return the form of a request; its size was limited before any route saw it."""
    typed = Typed(await request.form(max_files=0, max_fields=MAX_FIELDS))
    request.state.typed = typed.words()  # so that a refusal can hand it back
    request.state.sent = typed.pairs()  # and a proof that is asked for first can send it on
    return typed


Sent = Annotated[Typed, Depends(read_form)]


def answers_of(typed: Typed, form: Form) -> dict[str, str | bool | list[str]]:
    """Return what was typed into an access form, by the key of each of its fields."""
    found: dict[str, str | bool | list[str]] = {}
    for field in form.fields:
        if field.kind is Kind.CHECKBOX:
            found[field.key] = typed.ticked(field.key)
        elif field.kind is Kind.CHOICES:
            found[field.key] = typed.all(field.key)
        else:
            found[field.key] = typed.raw(field.key)
    return found


def end_of_day(text: str, key: str) -> datetime | None:
    """Return the last second of a day (UTC) that a date field holds; None when it is empty.

    Raises:
        Invalid: it is no date.
    """
    if not text:
        return None
    try:
        day = datetime.combine(date.fromisoformat(text), time(23, 59, 59), tzinfo=UTC)
        return in_range(day)
    except ValueError as error:
        sentence = "Give a date such as 2027-03-31."
        raise Invalid(sentence, reason="page.date", fields=[FieldError(key, sentence)]) from error

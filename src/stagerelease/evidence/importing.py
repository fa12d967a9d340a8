"""Evidence from files: JSON, CSV, and the ``model-index`` of a model card's front matter.

A file comes in whole or not at all. Everything in it becomes drafts; nothing read from a file is
ever run, fetched or followed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime
from typing import Any

from stagerelease.db.work import Work
from stagerelease.evidence.cards import read_model_index
from stagerelease.evidence.formats import (
    COLUMNS,
    MAX_ENTRIES,
    TEXTS,
    Defaults,
    Raw,
    read_csv,
    read_json,
    read_object,
)
from stagerelease.evidence.measure import NewEvidence, read_interval
from stagerelease.evidence.queries import EvidenceRow
from stagerelease.evidence.submitting import draft, hand_in
from stagerelease.evidence.throttle import Written, spend
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.errors import DomainError, FieldError, Invalid, TooLarge

MAX_BYTES = 5_000_000
_GROUPS = ("conditions", "companions", "authors")
FORMATS = ("json", "csv", "model-index")


@dataclass(frozen=True, slots=True)
class Entry:
    """One piece of evidence as a file says it."""

    new: NewEvidence
    organisation: str | None
    supersedes: str | None
    authors: tuple[str, ...]  # handles


def submit_text(work: Work, *, text: str, as_draft: bool = False) -> EvidenceRow:
    """Submit the one piece of evidence that a JSON object says, or keep it as a draft.

    Raises:
        Invalid: no such JSON, or with every field that is wrong; else what ``hand_in`` raises.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    entry = _entry(read_object(text), Defaults())
    write = draft if as_draft else hand_in
    return write(
        work,
        entry.new,
        organisation=entry.organisation,
        authors=entry.authors,
        supersedes=entry.supersedes,
    )


def begin_import(work: Work) -> None:
    """Count one import for the caller, before anybody spends time on reading the file.

    Raises:
        Unauthenticated, Forbidden: the caller submits no evidence.
        TooMany: the caller, who is not staff, sent too many files this hour.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    spend(work, Written.IMPORT)


def import_evidence(
    work: Work, *, format: str, text: str, defaults: Defaults | None = None
) -> list[EvidenceRow]:
    """Write every entry of a file down as a draft, or none; in a dry run see what would come.

    Raises: what ``read_file`` and ``write_entries`` raise.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    defaults = defaults or Defaults()
    return write_entries(work, read_file(format, text, defaults), defaults)


def write_entries(work: Work, entries: Sequence[Raw], defaults: Defaults) -> list[EvidenceRow]:
    """Write down as drafts what ``read_file`` read, while no Work was open, or nothing of it.

    Raises:
        Unauthenticated, Forbidden: the caller submits no evidence, or not about a subject in it.
        Invalid: with every entry that is wrong, by line or number, and each wrong field in it.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    rows: list[EvidenceRow] = []
    faults: list[FieldError] = []
    for raw in entries:
        try:
            entry = _entry(raw, defaults)
            rows.append(
                draft(
                    work,
                    entry.new,
                    organisation=entry.organisation,
                    authors=entry.authors,
                    supersedes=entry.supersedes,
                )
            )
        except DomainError as error:
            faults += _placed(raw.where, error)
    _refuse(faults)
    return rows


def read_file(format: str, text: str, defaults: Defaults) -> list[Raw]:
    """Return the entries of a file in their order, before anybody has looked at their fields.

    Slow for a long text: call it while no Work is open, or every other writer waits for it.

    Raises:
        Invalid: the file cannot be read, or holds nothing.
        TooLarge: more than ``MAX_BYTES`` or ``MAX_ENTRIES``.
    """
    readers: Mapping[str, Callable[[], list[Raw]]] = {
        "json": lambda: read_json(text),
        "csv": lambda: read_csv(text),
        "model-index": lambda: read_model_index(text, defaults),
    }
    if format not in readers:
        sentence = f"Evidence is imported from {', '.join(FORMATS)}."
        raise Invalid(sentence, reason="import.format", fields=[FieldError("format", sentence)])
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise TooLarge(f"An import has at most {MAX_BYTES:,} bytes.", reason="import.size")
    text = text.removeprefix("\ufeff")
    raw = readers[format]()
    if len(raw) > MAX_ENTRIES:
        raise TooLarge(
            f"An import has at most {MAX_ENTRIES:,} entries, and this one {len(raw):,}.",
            reason="import.size",
            next_step="Split the file.",
        )
    if not raw:
        raise Invalid("The file holds no evidence.", reason="import.empty")
    return raw


def _placed(where: str, error: DomainError) -> list[FieldError]:
    if not error.fields:
        return [FieldError(where, f"{where}: {error.sentence}")]
    return [FieldError(f"{where}.{f.field}", f"{where}: {f.sentence}") for f in error.fields]


def _refuse(faults: Sequence[FieldError]) -> None:
    if faults:
        shown = " ".join(fault.sentence for fault in faults[:5])
        more = f" And {len(faults) - 5} more." if len(faults) > 5 else ""
        raise Invalid(
            f"Nothing was imported. {shown}{more}",
            reason="import.invalid",
            next_step="Correct these entries and import the whole file again.",
            fields=faults[:200],
        )


# --- one entry -----------------------------------------------------------------------------------


def _entry(raw: Raw, defaults: Defaults) -> Entry:
    values = dict(raw.values)
    unknown = [name for name in values if name not in (*COLUMNS, *_GROUPS)]
    if unknown:
        raise _wrong(str(unknown[0]), f"There is no field {unknown[0]!r:.80}.")
    for one in fields(Defaults):
        given = getattr(defaults, one.name)
        if given is not None and one.name != "unit" and values.get(one.name) is None:
            values[one.name] = given
    said = _Reader(values)
    texts = {name: said.read(_text, name) for name in TEXTS}
    low, high = said.read(_number, "interval_low"), said.read(_number, "interval_high")
    instants = {
        "measured_at": said.read(_needed_instant, "measured_at"),
        "valid_until": said.read(_instant, "valid_until"),
    }
    numbers = {name: said.read(_number, name) for name in ("value", "interval_level")}
    groups = {name: said.read(_mapping, name) for name in ("conditions", "companions")}
    n, public = said.read(_whole, "n"), said.read(_truth, "public")
    placed = {name: said.read(_text, name) for name in ("organisation", "supersedes")}
    authors = said.read(_handles, "authors")
    said.refuse()
    new = NewEvidence(
        **{name: text for name, text in texts.items() if name not in ("verdict", "finding")},
        verdict=texts["verdict"] or None,
        finding=texts["finding"] or None,
        interval=read_interval(low, high),
        n=n,
        public=public,
        **instants,
        **numbers,
        **groups,
    )
    return Entry(new, placed["organisation"] or None, placed["supersedes"] or None, authors)


class _Reader:
    """Reads the fields of one entry, and gathers what is wrong with any of them."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._faults: list[FieldError] = []

    def read(self, form: Callable[[object, str], Any], name: str) -> Any:
        """Return the field called ``name`` in its form; None when it is not in it."""
        try:
            return form(self._values.get(name), name)
        except Invalid as error:
            self._faults += error.fields
            return None

    def refuse(self) -> None:
        """Return only if every field read so far was in its form."""
        if self._faults:
            raise Invalid(
                " ".join(fault.sentence for fault in self._faults),
                reason="import.field",
                fields=self._faults,
            )


def _wrong(field: str, sentence: str) -> Invalid:
    return Invalid(sentence, reason="import.field", fields=[FieldError(field[:120], sentence)])


def _text(given: object, field: str) -> str:
    if given is None:
        return ""
    if not isinstance(given, str):
        raise _wrong(field, f"{field} is text.")
    return given


def _number(given: object, field: str) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise _wrong(field, f"{field} is a number.")
    return given


def _whole(given: object, field: str) -> int | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int):
        raise _wrong(field, f"{field} is a whole number.")
    return given


def _truth(given: object, field: str) -> bool:
    if given is None:
        return False
    if not isinstance(given, bool):
        raise _wrong(field, f"{field} is true or false.")
    return given


def _handles(given: object, field: str) -> tuple[str, ...]:
    if given is None:
        return ()
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise _wrong(field, f"{field} is a list of handles.")
    return tuple(given)


def _mapping(given: object, field: str) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise _wrong(field, f"{field} is an object of names and values.")
    return given


def _needed_instant(given: object, field: str) -> datetime | None:
    at = _instant(given, field)
    if at is None:
        raise _wrong(field, f"{field} is needed: a date, or an instant with its zone.")
    return at


def _instant(given: object, field: str) -> datetime | None:
    """Return an aware instant; a date alone means its first moment in UTC."""
    if given is None or given == "":
        return None
    if isinstance(given, datetime):
        return given
    if isinstance(given, date):  # YAML reads 2019-05-03 as one
        return datetime(given.year, given.month, given.day, tzinfo=UTC)
    if not isinstance(given, str):
        raise _wrong(field, f"{field} is a date, or an instant with its zone.")
    try:
        at = datetime.fromisoformat(given.strip())
    except ValueError as error:
        raise _wrong(
            field, f"{given!r:.80} is no date: write 2019-05-03 or 2019-05-03T12:00Z."
        ) from error
    if at.tzinfo is None and len(given.strip()) > len("2019-05-03"):
        raise _wrong(field, f"Say in which zone {given!r:.80} is, such as 2019-05-03T12:00Z.")
    return at if at.tzinfo else at.replace(tzinfo=UTC)

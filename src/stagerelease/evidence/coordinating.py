"""Coordination records: who else built such a model, who was contacted, and what became of it.

A record says how well its facts are established and where they come from; its dates are as exact
as their source, never more. Where a date is not exact, a window counts from the latest it may
mean, and what was said of a window may later only be made to last longer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import select

from stagerelease.catalog.tables import Family
from stagerelease.db.work import Work
from stagerelease.evidence import queries
from stagerelease.evidence.queries import CoordinationEventRow, CoordinationRow, storable
from stagerelease.evidence.rules import (
    FIRST_YEAR,
    LAST_YEAR,
    MAX_SOURCE,
    FactStatus,
    check_text,
)
from stagerelease.evidence.tables import CoordinationEvent, CoordinationRecord
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, FieldError, Invalid, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger

_DAY = re.compile(r"[0-9]{4}(?:-[0-9]{2}(?:-[0-9]{2})?)?\Z")
MAX_PARAMETERS = 10**15


class Kind(StrEnum):
    """What a coordination record is about."""

    REPLICATION = "replication"
    CONTACT = "contact"
    SIMILAR_RELEASE = "similar_release"
    DISCLOSURE = "disclosure"


class Status(StrEnum):
    """Where talks with the other developer stand."""

    NOTED = "noted"
    CONTACTED = "contacted"
    TALKING = "talking"
    AGREED = "agreed"
    DECLINED = "declined"
    PUBLISHED = "published"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class CoordinationPage:
    """A coordination record with its history."""

    record: CoordinationRow
    events: tuple[CoordinationEventRow, ...]


def read_day(text: str, field: str) -> tuple[datetime, str]:
    """Return the first midnight (UTC) of a day, month or year, and which of them it was.

    Raises:
        Invalid: not ``2019-08-22``, ``2019-08`` or ``2019``, or a day that does not exist.
    """
    parts = text.strip().split("-")
    try:
        if not _DAY.match(text.strip()):
            raise ValueError
        numbers = [int(part) for part in parts] + [1, 1]
        if not FIRST_YEAR <= numbers[0] <= LAST_YEAR:
            raise ValueError
        at = datetime(numbers[0], numbers[1], numbers[2], tzinfo=UTC)
    except ValueError as error:
        sentence = f"{text!r:.80} is no date: write 2019-08-22, 2019-08 or 2019."
        raise Invalid(
            sentence, reason="coordination.date", fields=[FieldError(field, sentence)]
        ) from error
    return at, ("year", "month", "day")[len(parts) - 1]


def write_day(at: datetime, precision: str) -> str:
    """Return a day as exactly as it is known: ``2019-08-22``, ``2019-08`` or ``2019``."""
    return at.strftime({"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}[precision])


def counts_from(row: CoordinationRow | CoordinationRecord) -> datetime:
    """Return when a coordination window begins: at the contact, else when it had happened.

    A month or a year has happened once it is over, or when it was recorded, if that was before:
    it may have been on its last day, and nothing is recorded before it happens.
    """
    if row.contacted_on is not None:
        return row.contacted_on
    return min(_end(row.happened_on, row.happened_precision), row.created_at)


def _end(at: datetime, precision: str) -> datetime:
    """Return when a month or year is over; a day counts from its first midnight."""
    if precision == "day":
        return at
    month = at.month % 12 + 1 if precision == "month" else 1
    return at.replace(year=at.year + (month == 1), month=month)


def add(
    work: Work,
    *,
    family_id: str,
    developer: str,
    claim: str,
    kind: str,
    happened_on: str,
    source: str,
    fact_status: str,
    status: str = Status.NOTED,
    size_parameters: int | None = None,
    contacted_on: str | None = None,
    window_ends_at: datetime | None = None,
    note: str = "",
) -> CoordinationRow:
    """Record what another developer did or was told.

    ``happened_on`` is a day, month or year that has begun, ``contacted_on`` a day.

    Raises:
        Unauthenticated, Forbidden: the caller records no coordination.
        NotFound: no such family. Invalid: with the field that is wrong.
    """
    require(work.actor, Permission.COORDINATION_RECORD)
    _check_family(work, family_id)
    happened, precision = _past_day(work, happened_on, "happened_on")
    record = CoordinationRecord(
        id=new_id("cor"),
        family_id=family_id,
        developer=check_text(developer, "developer", field="developer", limit=200),
        claim=check_text(claim, "claim", field="claim"),
        kind=_one_of(Kind, kind, "kind"),
        size_parameters=_size(size_parameters),
        status=_one_of(Status, status, "status"),
        happened_on=happened,
        happened_precision=precision,
        contacted_on=_contact(work, contacted_on) if contacted_on else None,
        source=check_text(source, "source", field="source", limit=MAX_SOURCE),
        fact_status=_one_of(FactStatus, fact_status, "fact_status"),
        created_by=work.actor.id,
        created_at=work.now,
    )
    record.window_ends_at = _window(window_ends_at, counts_from(record))
    note = check_text(note, "note", field="note", required=False)
    work.session.add(record)
    return _record(work, record, "recorded", before=None, note=note)


def update(
    work: Work,
    record_id: str,
    *,
    status: str | None = None,
    contacted_on: str | None = None,
    window_ends_at: datetime | None = None,
    source: str | None = None,
    fact_status: str | None = None,
    note: str = "",
) -> CoordinationRow:
    """Change what talks with another developer have come to; who and what they claimed stays.

    Raises:
        Unauthenticated, Forbidden, NotFound: not the caller's to change, or no such record.
        Invalid: with the field that is wrong, or nothing to change.
        Conflict: reason ``coordination.earlier``: a window would be over before it was to be.
    """
    require(work.actor, Permission.COORDINATION_RECORD)
    record = _lock(work, record_id)
    before = record.status
    note = check_text(note, "note", field="note", required=False)
    changes: dict[str, Any] = {}
    if status is not None:
        changes["status"] = _one_of(Status, status, "status")
    if contacted_on is not None:
        changes["contacted_on"] = _contact(work, contacted_on)
        _only_later("contacted_on", changes["contacted_on"], counts_from(record))
    if window_ends_at is not None:
        begin = changes.get("contacted_on") or counts_from(record)
        changes["window_ends_at"] = _window(window_ends_at, begin)
        _only_later("window_ends_at", changes["window_ends_at"], record.window_ends_at)
    if source is not None:
        changes["source"] = check_text(source, "source", field="source", limit=MAX_SOURCE)
    if fact_status is not None:
        changes["fact_status"] = _one_of(FactStatus, fact_status, "fact_status")
    if not changes and not note:
        raise Invalid("Nothing to change was named.", reason="coordination.nothing")
    for name, value in changes.items():
        setattr(record, name, value)
    return _record(work, record, "updated", before=before, note=note, changes=changes)


def list_records(
    work: Work, *, family_id: str | None = None, limit: int = 50, after: str | None = None
) -> list[CoordinationRow]:
    """Return at most ``limit`` records, newest first, entered before the one called ``after``.

    Raises:
        Unauthenticated, Forbidden: the caller reads no coordination records.
    """
    require(work.actor, Permission.COORDINATION_READ)
    return queries.list_coordination(work, family_id=family_id, limit=limit, after=after)


def show_record(work: Work, record_id: str) -> CoordinationPage:
    """Return a record and its history.

    Raises:
        Unauthenticated, Forbidden, NotFound: not the caller's to read, or none.
    """
    require(work.actor, Permission.COORDINATION_READ)
    row = queries.load_coordination(work, record_id)
    return CoordinationPage(row, tuple(queries.coordination_events(work, record_id)))


# --- parts ---------------------------------------------------------------------------------------


def _record(
    work: Work,
    record: CoordinationRecord,
    event: str,
    *,
    before: str | None,
    note: str,
    changes: Mapping[str, Any] | None = None,
) -> CoordinationRow:
    work.session.flush()
    leaf = ledger.append(
        work,
        type=f"coordination.{event}",
        subject=f"coordination:{record.id}",
        prev_state=before,
        new_state=record.status,
        detail={
            "note": note,
            "changes": {
                name: iso(value) if isinstance(value, datetime) else value
                for name, value in (changes or {}).items()
            },
        },
    )
    work.session.add(
        CoordinationEvent(
            id=new_id("coe"),
            record_id=record.id,
            from_status=before,
            to_status=record.status,
            note=note,
            actor_id=work.actor.id,
            at=work.now,
            leaf_idx=leaf,
        )
    )
    work.session.flush()
    return queries.load_coordination(work, record.id)


def _lock(work: Work, record_id: str) -> CoordinationRecord:
    record = None
    if storable(record_id):
        record = work.session.execute(
            select(CoordinationRecord).where(CoordinationRecord.id == record_id).with_for_update()
        ).scalar_one_or_none()
    if record is None:
        raise NotFound(
            f"There is no coordination record {record_id!r}.", reason="coordination.unknown"
        )
    return record


def _check_family(work: Work, family_id: str) -> None:
    if not storable(family_id) or work.session.get(Family, family_id) is None:
        raise NotFound(f"There is no family {family_id!r:.80}.", reason="family.unknown")


def _past_day(work: Work, text: str, field: str) -> tuple[datetime, str]:
    at, precision = read_day(text, field)
    if at > work.now:
        sentence = f"{text} has not come."
        raise Invalid(sentence, reason="coordination.date", fields=[FieldError(field, sentence)])
    return at, precision


def _contact(work: Work, text: str) -> datetime:
    at, precision = _past_day(work, text, "contacted_on")
    if precision != "day":
        sentence = f"{text} is no day: say on which day they were contacted, as in 2019-08-22."
        raise Invalid(
            sentence, reason="coordination.date", fields=[FieldError("contacted_on", sentence)]
        )
    return at


def _only_later(field: str, new: datetime, counted: datetime | None) -> None:
    """Refuse what would end a window earlier: others were promised that time.

    Raises:
        Conflict: ``new`` is before what counted until now.
    """
    if counted is None or new >= counted:
        return
    sentence = f"This counted as {iso(counted)} until now, and may only be moved later."
    raise Conflict(
        sentence,
        reason="coordination.earlier",
        next_step="To go on before the window is over, have the gate waived: that takes two people "
        "and stays on record.",
        fields=[FieldError(field, sentence)],
    )


def _one_of(known: type[StrEnum], value: str, field: str) -> str:
    if value not in tuple(known):
        sentence = f"The {field.replace('_', ' ')} is one of {', '.join(known)}."
        raise Invalid(sentence, reason="coordination.form", fields=[FieldError(field, sentence)])
    return value


def _size(value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not 0 < value <= MAX_PARAMETERS):
        sentence = "A size is a number of parameters."
        raise Invalid(
            sentence, reason="coordination.form", fields=[FieldError("size_parameters", sentence)]
        )
    return value


def _window(ends_at: datetime | None, begins: datetime) -> datetime | None:
    if ends_at is None:
        return None
    if ends_at.tzinfo is None or ends_at.year > LAST_YEAR or ends_at <= begins:
        sentence = "A coordination window ends, with its zone said, after the contact it follows."
        raise Invalid(
            sentence, reason="coordination.date", fields=[FieldError("window_ends_at", sentence)]
        )
    return ends_at

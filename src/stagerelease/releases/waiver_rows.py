"""Reads of waivers and of who signed them, as frozen rows. Ended ones are kept and shown too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select

from stagerelease.db.work import Work
from stagerelease.identity.tables import Person
from stagerelease.kernel.errors import NotFound
from stagerelease.releases import queries
from stagerelease.releases.tables import Waiver, WaiverSignature


@dataclass(frozen=True, slots=True)
class WaiverSignatureRow:
    """One person's signature under a waiver."""

    person_id: str
    person: str
    roles: tuple[str, ...]
    at: datetime
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class WaiverRow:
    """A waiver of one gate into one stage of one track, with who signed it.

    ``state``: ``pending`` until the second signer, then ``in_force``, then ``ended``.
    """

    id: str
    track_id: str
    stage: str
    gate: str
    reason: str
    state: str
    created_at: datetime
    signed_at: datetime | None
    ends_at: datetime
    ended_at: datetime | None
    end_reason: str | None
    version: int
    leaf_idx: int
    signatures: tuple[WaiverSignatureRow, ...] = ()

    @property
    def until(self) -> datetime:
        """Return when it ends or ended, whichever came first."""
        return min(self.ends_at, self.ended_at or self.ends_at)


_WAIVER = select(
    Waiver.id,
    Waiver.track_id,
    Waiver.stage,
    Waiver.gate,
    Waiver.reason,
    Waiver.created_at,
    Waiver.signed_at,
    Waiver.ends_at,
    Waiver.ended_at,
    Waiver.end_reason,
    Waiver.version,
    Waiver.leaf_idx,
)


def _state(row: WaiverRow, now: datetime) -> str:
    if row.until <= now:
        return "ended"
    return "pending" if row.signed_at is None else "in_force"


def _rows(work: Work, statement: Select[*tuple[Any, ...]]) -> list[WaiverRow]:
    found = [WaiverRow(**row._mapping, state="") for row in work.session.execute(statement)]
    signed: dict[str, list[WaiverSignatureRow]] = {}
    if found:
        rows = work.session.execute(
            select(
                WaiverSignature.waiver_id,
                WaiverSignature.person_id,
                Person.handle,
                WaiverSignature.roles,
                WaiverSignature.at,
                WaiverSignature.leaf_idx,
            )
            .join(Person, Person.id == WaiverSignature.person_id)
            .where(WaiverSignature.waiver_id.in_([row.id for row in found]))
            .order_by(WaiverSignature.leaf_idx)
        )
        for waiver_id, person_id, handle, roles, at, leaf in rows:
            signature = WaiverSignatureRow(person_id, handle, tuple(roles), at, leaf)
            signed.setdefault(waiver_id, []).append(signature)
    return [
        replace(row, state=_state(row, work.now), signatures=tuple(signed.get(row.id, ())))
        for row in found
    ]


def waivers_of(work: Work, track_id: str, stage: str) -> tuple[WaiverRow, ...]:
    """Return every waiver there ever was of a gate into ``stage`` for this track, oldest first."""
    return tuple(
        _rows(
            work,
            _WAIVER.where(Waiver.track_id == track_id, Waiver.stage == stage).order_by(
                Waiver.created_at, Waiver.id
            ),
        )
    )


def list_waivers(
    work: Work,
    *,
    track_id: str | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> list[WaiverRow]:
    """Return waivers, ended ones too, by id: at most ``limit``, with ids above ``after``."""
    statement = _WAIVER.order_by(Waiver.id)
    if track_id is not None:
        statement = statement.where(Waiver.track_id == track_id)
    if after is not None:
        statement = statement.where(Waiver.id > after)
    if limit is not None:
        statement = statement.limit(limit)
    return _rows(work, statement)


def load_waiver(work: Work, waiver_id: str) -> WaiverRow:
    """Return the waiver of that id.

    Raises:
        NotFound: there is none.
    """
    rows = _rows(work, _WAIVER.where(Waiver.id == waiver_id)) if queries.storable(waiver_id) else []
    if not rows:
        raise NotFound(f"There is no waiver {waiver_id!r}.", reason="waiver.unknown")
    return rows[0]

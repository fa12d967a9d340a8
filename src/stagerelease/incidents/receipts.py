"""Reads of advisories, whom they went to and who acknowledged them, as frozen rows."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, func, or_, select

from stagerelease.db.work import Work
from stagerelease.incidents.rows import AdvisoryRow, ReceiptRow
from stagerelease.incidents.tables import Advisory, AdvisoryReceipt
from stagerelease.partners.tables import Grant
from stagerelease.releases.queries import storable


def holders_on(work: Work, track_ids: Collection[str]) -> dict[tuple[str, bool], list[str]]:
    """Return the holders of active or suspended grants on tracks, each with these grants' ids.

    A holder is ``(id, whether it is an organisation)``.
    """
    found: dict[tuple[str, bool], list[str]] = {}
    rows = work.session.execute(
        select(Grant.id, Grant.organisation_id, Grant.person_id)
        .where(Grant.track_id.in_(sorted(track_ids)), Grant.state.in_(("active", "suspended")))
        .order_by(Grant.id)
    )
    for grant_id, organisation_id, person_id in rows:
        holder = (str(organisation_id or person_id), organisation_id is not None)
        found.setdefault(holder, []).append(grant_id)
    return found


def advisories_of(work: Work, incident_id: int) -> tuple[AdvisoryRow, ...]:
    """Return the advisories sent for an incident, oldest first."""
    rows = work.session.execute(
        select(
            Advisory.id,
            Advisory.incident_id,
            Advisory.text,
            Advisory.sent_at,
            Advisory.sent_by,
            Advisory.due_at,
            func.count(AdvisoryReceipt.id),
            func.count(AdvisoryReceipt.acknowledged_at),
            Advisory.leaf_idx,
        )
        .outerjoin(AdvisoryReceipt, AdvisoryReceipt.advisory_id == Advisory.id)
        .where(Advisory.incident_id == incident_id)
        .group_by(Advisory.id)
        .order_by(Advisory.leaf_idx)
    )
    return tuple(AdvisoryRow(*row) for row in rows)


def last_advisories_by(work: Work, incident_ids: Collection[int]) -> dict[int, tuple[int, int]]:
    """Return, by incident, the holders its last advisory went to and how many acknowledged it."""
    last = (
        select(func.max(Advisory.leaf_idx))
        .where(Advisory.incident_id.in_(sorted(incident_ids)))
        .group_by(Advisory.incident_id)
    )
    rows = work.session.execute(
        select(
            Advisory.incident_id,
            func.count(AdvisoryReceipt.id),
            func.count(AdvisoryReceipt.acknowledged_at),
        )
        .join(AdvisoryReceipt, AdvisoryReceipt.advisory_id == Advisory.id)
        .where(Advisory.incident_id.in_(sorted(incident_ids)), Advisory.leaf_idx.in_(last))
        .group_by(Advisory.incident_id)
    )
    return {incident_id: (told, read) for incident_id, told, read in rows}


_RECEIPT: Select[*tuple[Any, ...]] = select(
    AdvisoryReceipt.id,
    AdvisoryReceipt.advisory_id,
    Advisory.incident_id,
    AdvisoryReceipt.organisation_id,
    AdvisoryReceipt.person_id,
    AdvisoryReceipt.grant_ids,
    Advisory.text,
    Advisory.sent_at,
    AdvisoryReceipt.due_at,
    AdvisoryReceipt.acknowledged_at,
    AdvisoryReceipt.acknowledged_by,
).join(Advisory, Advisory.id == AdvisoryReceipt.advisory_id)


def _receipts(work: Work, statement: Any) -> list[ReceiptRow]:
    found = []
    for row in work.session.execute(statement):
        late = row.acknowledged_at is None and row.due_at <= work.now
        values = [*row[:5], tuple(row[5]), *row[6:], late]
        found.append(ReceiptRow(*values))
    return found


def find_receipt(work: Work, receipt_id: str) -> ReceiptRow | None:
    """Return a receipt by its id, or None."""
    if not storable(receipt_id):
        return None
    found = _receipts(work, _RECEIPT.where(AdvisoryReceipt.id == receipt_id))
    return found[0] if found else None


def receipts_for(
    work: Work,
    *,
    person_id: str,
    organisation_ids: Collection[str],
    limit: int | None = None,
    after: str | None = None,
) -> list[ReceiptRow]:
    """Return the advisories to a person or these organisations, newest first."""
    newest = AdvisoryReceipt.id.desc()
    found: list[ReceiptRow] = []
    # One statement for each holder, so that each is a short walk of the index on it.
    holders: list[Any] = [AdvisoryReceipt.person_id == person_id]
    holders += [AdvisoryReceipt.organisation_id == own for own in sorted(organisation_ids)]
    for held in holders:
        statement = _RECEIPT.where(held).order_by(newest)
        if after is not None:
            statement = statement.where(AdvisoryReceipt.id < after)
        if limit is not None:
            statement = statement.limit(limit)
        found += _receipts(work, statement)
    found.sort(key=lambda row: row.id, reverse=True)
    return found[:limit]


def receipts_of(
    work: Work, advisory_id: str, *, limit: int | None = None, after: str | None = None
) -> list[ReceiptRow]:
    """Return whom an advisory went to, in one stable order."""
    statement = _RECEIPT.where(AdvisoryReceipt.advisory_id == advisory_id)
    statement = statement.order_by(AdvisoryReceipt.id)
    if after is not None:
        statement = statement.where(AdvisoryReceipt.id > after)
    if limit is not None:
        statement = statement.limit(limit)
    return _receipts(work, statement)


def overdue_receipts(
    work: Work, *, limit: int | None = None, after: str | None = None
) -> list[ReceiptRow]:
    """Return receipts that nobody acknowledged in time, longest overdue first."""
    due = AdvisoryReceipt.due_at
    statement = _RECEIPT.where(AdvisoryReceipt.acknowledged_at.is_(None), due <= work.now)
    statement = statement.order_by(due, AdvisoryReceipt.id)
    if after is not None:
        at: datetime | None = None
        if storable(after):
            at = work.session.execute(
                select(due).where(AdvisoryReceipt.id == after)
            ).scalar_one_or_none()
        if at is None:
            return []
        statement = statement.where(and_(due >= at, or_(due > at, AdvisoryReceipt.id > after)))
    if limit is not None:
        statement = statement.limit(limit)
    return _receipts(work, statement)

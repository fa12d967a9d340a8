"""Use cases on advisories: words to every holder of what an incident covers, and their receipts."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import insert, select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.incidents import queries, receipts
from stagerelease.incidents.moving import lock_incident
from stagerelease.incidents.rows import AdvisoryRow, ReceiptRow
from stagerelease.incidents.rules import (
    ACKNOWLEDGE_AT_MOST,
    ACKNOWLEDGE_WITHIN,
    BLOCKING_STATES,
    State,
    check_words,
)
from stagerelease.incidents.tables import Advisory, AdvisoryReceipt, Incident
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.releases.humans import accountable

TOLD_AT_ONCE = 500
"""Holders named in one notice; more take several."""


def default_text(incident: Incident) -> str:
    """Return the words of an advisory for which nobody wrote any."""
    what = incident.public_summary or "Details follow as they are known."
    if incident.blocking:
        then = (
            "Deliveries of what it covers are stopped for everybody. Do not pass on copies you "
            "hold; watch how they are used; tell us what you see."
        )
    else:
        then = "Deliveries go on. Watch how your copies are used, and tell us what you see."
    return (
        f"Incident {incident.id}, of {incident.severity} severity, was confirmed. {what} {then} "
        "Please acknowledge that you have read this."
    )


def send(
    work: Work, incident: Incident, track_ids: list[str], *, text: str, within: timedelta
) -> str | None:
    """Send an advisory to every holder on these tracks; None when nobody holds any.

    The caller has checked ``text`` and holds the incident's lock.
    """
    if not timedelta(0) < within <= ACKNOWLEDGE_AT_MOST:
        raise Invalid(
            f"Holders are given between a moment and {ACKNOWLEDGE_AT_MOST.days} days.",
            reason="advisory.within",
        )
    holders = receipts.holders_on(work, track_ids)
    if not holders:
        return None
    due = work.now + within
    advisory = Advisory(
        id=new_id("adv"),
        incident_id=incident.id,
        text=text,
        sent_at=work.now,
        sent_by=work.actor.id,
        due_at=due,
        leaf_idx=-1,  # known below: the log comes last
    )
    work.session.add(advisory)
    work.session.flush()
    rows = [
        {
            "id": new_id("adr"),
            "advisory_id": advisory.id,
            "organisation_id": own if is_organisation else None,
            "person_id": None if is_organisation else own,
            "grant_ids": grant_ids,
            "due_at": due,
        }
        for (own, is_organisation), grant_ids in holders.items()
    ]
    work.session.execute(insert(AdvisoryReceipt), rows)
    _tell(work, incident, advisory, sorted(holders))
    advisory.leaf_idx = ledger.append(
        work,
        type="advisory.sent",
        subject=f"advisory:{advisory.id}",
        new_state="sent",
        detail={"incident": incident.id, "holders": len(holders), "due_at": iso(due)},
    )
    work.session.flush()
    return advisory.id


def _tell(
    work: Work, incident: Incident, advisory: Advisory, holders: list[tuple[str, bool]]
) -> None:
    for first in range(0, len(holders), TOLD_AT_ONCE):
        part = holders[first : first + TOLD_AT_ONCE]
        emit(
            work,
            "advisory.sent",
            subject=f"advisory:{advisory.id}",
            people=[own for own, is_organisation in part if not is_organisation],
            organisations=[own for own, is_organisation in part if is_organisation],
            facts={
                "advisory_id": advisory.id,
                "incident_id": incident.id,
                "severity": incident.severity,
                "blocking": incident.blocking,
                "text": advisory.text,
                "due_at": iso(advisory.due_at),
            },
        )


def send_advisory(
    work: Work, incident_id: int, *, text: str, within: timedelta = ACKNOWLEDGE_WITHIN
) -> AdvisoryRow:
    """Send words to every holder of what a confirmed incident covers now.

    Raises:
        Conflict: it was never confirmed, or nobody holds a grant on what it covers.
    """
    require(work.actor, Permission.INCIDENT_MANAGE)
    text = check_words(text, "advisory", field="text")
    incident = lock_incident(work, incident_id)
    if incident.state not in BLOCKING_STATES | {State.CLOSED}:
        raise Conflict(
            f"Incident {incident_id} is {incident.state}: holders are told of confirmed ones.",
            reason="advisory.unconfirmed",
            next_step="Confirm it first.",
        )
    row = queries.load_incident(work, incident_id)
    tracks = [track.id for track in queries.covered_tracks(work, row)]
    sent = send(work, incident, tracks, text=text, within=within)
    if sent is None:
        raise Conflict(
            "Nobody holds an active or suspended grant on what this incident covers.",
            reason="advisory.nobody",
        )
    return next(one for one in receipts.advisories_of(work, incident_id) if one.id == sent)


def acknowledge(work: Work, receipt_id: str) -> ReceiptRow:
    """Acknowledge an advisory as its holder, or for an organisation one is on the roster of.

    Once acknowledged it stays so, by whoever was first; doing it again changes nothing.

    Raises:
        NotFound: there is no such receipt, or it is somebody else's.
    """
    _require_known(work)
    scopes = work.actor.scopes
    if scopes is not None and "all" not in scopes:
        raise Forbidden(
            "This token was not made for acting in your name.",
            reason="token.scope",
            next_step="Use a token with the scope 'all'.",
        )
    mine = _own(work, receipt_id)
    if mine.acknowledged_at is not None:
        return mine
    me = accountable(work, "acknowledge an advisory")
    receipt = work.session.execute(
        select(AdvisoryReceipt)
        .where(AdvisoryReceipt.id == receipt_id)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).scalar_one()
    if receipt.acknowledged_at is None:
        receipt.acknowledged_at = work.now
        receipt.acknowledged_by = me
        work.session.flush()
        receipt.leaf_idx = ledger.append(
            work,
            type="advisory.acknowledged",
            subject=f"advisory:{receipt.advisory_id}",
            prev_state="sent",
            new_state="acknowledged",
            detail={
                "receipt": receipt.id,
                "organisation": receipt.organisation_id,
                "person": me,
            },
        )
        work.session.flush()
    return _own(work, receipt_id)


def _require_known(work: Work) -> None:
    if not work.actor.known:
        raise Unauthenticated("Nobody is signed in.", next_step="Send an API token.")


def _own(work: Work, receipt_id: str) -> ReceiptRow:
    found = receipts.find_receipt(work, receipt_id)
    actor = work.actor
    if found is None or not (
        found.organisation_id in actor.organisations
        if found.organisation_id is not None
        else actor.is_human and found.person_id == actor.id
    ):
        raise NotFound(
            f"There is no advisory {receipt_id!r} to you.",
            reason="advisory.unknown",
            next_step="See which were sent to you: GET /api/v1/advisories.",
        )
    return found


def my_advisories(
    work: Work, *, limit: int | None = None, after: str | None = None
) -> list[ReceiptRow]:
    """Return the advisories sent to the caller or to organisations they are in, newest first."""
    _require_known(work)
    return receipts.receipts_for(
        work,
        person_id=work.actor.id,
        organisation_ids=work.actor.organisations,
        limit=limit,
        after=after,
    )


def overdue_advisories(
    work: Work, *, limit: int | None = None, after: str | None = None
) -> list[ReceiptRow]:
    """Return what holders have not acknowledged in time, to staff, longest overdue first."""
    require(work.actor, Permission.INCIDENT_READ)
    return receipts.overdue_receipts(work, limit=limit, after=after)


def advisory_receipts(
    work: Work, advisory_id: str, *, limit: int | None = None, after: str | None = None
) -> list[ReceiptRow]:
    """Return whom an advisory went to and who acknowledged it, to staff."""
    require(work.actor, Permission.INCIDENT_READ)
    return receipts.receipts_of(work, advisory_id, limit=limit, after=after)

"""Use cases of whoever handles incidents: triage, confirm, mitigate, close, dismiss, re-open.

Confirming a blocking incident stops what it covers in the same transaction and takes one person.
Closing one lets releases go on and takes two; it lifts no hold: that takes two people of its own.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.incidents import queries
from stagerelease.incidents.advising import default_text, send
from stagerelease.incidents.covering import (
    Links,
    check_links,
    lay_holds,
    lock_covered,
    present_links,
    set_links,
    together,
)
from stagerelease.incidents.moving import add_update, lock_incident, move, record
from stagerelease.incidents.rows import IncidentPage, IncidentRow
from stagerelease.incidents.rules import (
    ACKNOWLEDGE_WITHIN,
    MAX_PUBLIC,
    MAX_TITLE,
    State,
    Step,
    Visibility,
    blocks,
    check_assessment,
    check_line,
    check_words,
)
from stagerelease.incidents.showing import page_of
from stagerelease.incidents.tables import Incident
from stagerelease.kernel.errors import Conflict, FieldError, Invalid


def triage(
    work: Work,
    incident_id: int,
    *,
    severity: str,
    blocking: bool,
    actor_tier: int | None = None,
    title: str = "",
    public_summary: str = "",
    links: Links = Links(),
    reason: str = "",
) -> IncidentRow:
    """Say how severe an incident is, whether it must stop releases, and what it is about.

    What was said before is replaced. ``public_summary`` is what everybody reads once it is
    confirmed; the rest is for staff.

    Raises:
        Conflict: it is past triage.
        Invalid: not a usable assessment; names the fields.
        NotFound: it names something that is not there.
    """
    require(work.actor, Permission.INCIDENT_MANAGE)
    reason = check_words(reason, "reason", field="reason", required=False)
    incident = lock_incident(work, incident_id)
    before = move(work, incident, Step.TRIAGE)
    check_assessment(
        severity=severity, actor_tier=actor_tier, blocking=blocking, covers=links.covers
    )
    check_links(work, links)
    incident.severity = severity
    incident.blocking = blocking
    incident.actor_tier = actor_tier
    _say(incident, title=title, public_summary=public_summary)
    set_links(work, incident, links)
    record(work, incident, Step.TRIAGE, before=before, reason=reason, detail=_named(links))
    return queries.load_incident(work, incident.id)


def _say(incident: Incident, *, title: str | None, public_summary: str | None) -> None:
    if title is not None:
        incident.title = check_line(title, "title", field="title", required=False, limit=MAX_TITLE)
    if public_summary is not None:
        incident.public_summary = check_words(
            public_summary,
            "public summary",
            field="public_summary",
            required=False,
            limit=MAX_PUBLIC,
        )


def _named(links: Links) -> dict[str, Any]:
    return {
        "everything": links.everything,
        "tracks": sorted(links.tracks),
        "families": sorted(links.families),
        "grants": sorted(links.grants),
        "evidence": sorted(links.evidence),
    }


def confirm(
    work: Work,
    incident_id: int,
    *,
    reason: str,
    advisory: str | None = None,
    acknowledge_within: timedelta = ACKNOWLEDGE_WITHIN,
) -> IncidentPage:
    """Confirm a triaged incident; a blocking one stops what it covers from this commit on.

    A blocking one lays a hold over each track, family or everything it covers, and tells every
    holder, in ``advisory``'s words or default ones; a non-blocking one tells them if ``advisory``
    is given. One person is enough.

    Raises:
        Conflict: it is not triaged.
        Invalid: its assessment is not complete.
    """
    require(work.actor, Permission.INCIDENT_MANAGE)
    reason = check_words(reason, "reason", field="reason")
    incident = lock_incident(work, incident_id)
    before = move(work, incident, Step.CONFIRM)
    check_assessment(
        severity=incident.severity,
        actor_tier=incident.actor_tier,
        blocking=incident.blocking,
        covers=present_links(work, incident).covers,
    )
    incident.confirmed_at = incident.confirmed_at or work.now
    detail = _stop_and_tell(work, incident, advisory, acknowledge_within)
    record(work, incident, Step.CONFIRM, before=before, reason=reason, detail=detail, facts=detail)
    return page_of(work, incident.id)


def _stop_and_tell(
    work: Work, incident: Incident, advisory: str | None, within: timedelta
) -> dict[str, Any]:
    """Tell the holders and lay the holds of a confirmed incident; return what was done."""
    work.session.flush()
    if advisory is not None:
        advisory = check_words(advisory, "advisory", field="advisory")
    elif incident.blocking:
        advisory = default_text(incident)
    track_ids = lock_covered(work, incident.id)
    sent = (
        send(work, incident, track_ids, text=advisory, within=within)
        if advisory is not None
        else None
    )
    laid = lay_holds(work, incident) if incident.blocking else ()
    return {"holds": list(laid), "tracks_covered": len(track_ids), "advisory": sent}


def reassess(
    work: Work,
    incident_id: int,
    *,
    reason: str,
    severity: str | None = None,
    blocking: bool | None = None,
    actor_tier: int | None = None,
    title: str | None = None,
    public_summary: str | None = None,
    links: Links = Links(),
    advisory: str | None = None,
) -> IncidentPage:
    """Say more about a confirmed incident: what is left out stays, and ``links`` are added.

    What a blocking one now covers besides is stopped at once. Nothing is freed this way: a
    blocking incident stays one, and what it covers stays covered, until it is closed.

    Raises:
        Conflict: it is not confirmed, or this would make a blocking incident not block.
    """
    require(work.actor, Permission.INCIDENT_MANAGE)
    reason = check_words(reason, "reason", field="reason")
    incident = lock_incident(work, incident_id)
    before = move(work, incident, Step.REASSESS)
    if incident.blocking and blocking is False:
        raise Conflict(
            "A blocking incident stays blocking until it is closed.",
            reason="incident.frees",
            next_step="Mitigate it and close it; two people close a blocking incident.",
        )
    known = present_links(work, incident)
    wanted = together(known, links)
    check_links(work, wanted)
    incident.severity = severity or incident.severity
    incident.actor_tier = actor_tier if actor_tier is not None else incident.actor_tier
    incident.blocking = incident.blocking or bool(blocking)
    check_assessment(
        severity=incident.severity,
        actor_tier=incident.actor_tier,
        blocking=incident.blocking,
        covers=wanted.covers,
    )
    _say(incident, title=title, public_summary=public_summary)
    set_links(work, incident, wanted)
    detail: dict[str, Any] = _named(wanted)
    if incident.blocking or advisory is not None:
        detail |= _extend(work, incident, advisory)
    record(work, incident, Step.REASSESS, before=before, reason=reason, detail=detail)
    return page_of(work, incident.id)


def _extend(work: Work, incident: Incident, advisory: str | None) -> dict[str, Any]:
    """Stop what is covered besides; tell holders when words are given or holds are new."""
    work.session.flush()
    track_ids = lock_covered(work, incident.id)
    laid = lay_holds(work, incident) if incident.blocking else ()
    text = advisory
    if text is not None:
        text = check_words(text, "advisory", field="advisory")
    elif laid:
        text = default_text(incident)
    sent = None
    if text is not None:
        sent = send(work, incident, track_ids, text=text, within=ACKNOWLEDGE_WITHIN)
    return {"holds": list(laid), "tracks_covered": len(track_ids), "advisory": sent}


def dismiss(work: Work, incident_id: int, *, reason: str, reply: str = "") -> IncidentRow:
    """Dismiss a triaged report: it is not an incident. ``reply`` is put to its reporter.

    Raises:
        Conflict: it is not triaged.
    """
    require(work.actor, Permission.INCIDENT_MANAGE)
    reason = check_words(reason, "reason", field="reason")
    reply = check_words(reply, "reply", field="reply", required=False)
    incident = lock_incident(work, incident_id)
    before = move(work, incident, Step.DISMISS)
    work.session.flush()
    if reply:
        add_update(work, incident.id, reply, visibility=Visibility.REPORTER)
    record(work, incident, Step.DISMISS, before=before, reason=reason)
    return queries.load_incident(work, incident.id)


def mitigate(work: Work, incident_id: int, *, reason: str) -> IncidentRow:
    """Say that a confirmed incident's harm is contained. What it stops stays stopped.

    Raises:
        Conflict: it is not confirmed.
    """
    require(work.actor, Permission.INCIDENT_MANAGE)
    reason = check_words(reason, "reason", field="reason")
    incident = lock_incident(work, incident_id)
    before = move(work, incident, Step.MITIGATE)
    record(work, incident, Step.MITIGATE, before=before, reason=reason)
    return queries.load_incident(work, incident.id)


def reopen(work: Work, incident_id: int, *, reason: str) -> IncidentPage:
    """Re-open a closed or dismissed incident; one person is enough.

    A closed one is confirmed again: if it blocks, what it covers is stopped again wherever its
    holds were lifted, and every holder is told. A dismissed one is back at triage.

    Raises:
        Conflict: it is open.
    """
    require(work.actor, Permission.INCIDENT_MANAGE)
    reason = check_words(reason, "reason", field="reason")
    incident = lock_incident(work, incident_id)
    before = move(work, incident, Step.REOPEN)
    detail: dict[str, Any] = {}
    if blocks(incident.state, blocking=incident.blocking):
        again = f"Incident {incident.id} was re-opened. {default_text(incident)}"
        detail = _stop_and_tell(work, incident, again, ACKNOWLEDGE_WITHIN)
    incident.closed_at = None
    record(work, incident, Step.REOPEN, before=before, reason=reason, detail=detail, facts=detail)
    return page_of(work, incident.id)


def add_note(
    work: Work, incident_id: int, *, text: str, visibility: str = Visibility.PRIVATE
) -> IncidentPage:
    """Put a dated word on the thread: private unless said otherwise.

    Raises:
        Invalid: no such visibility, or words that cannot be kept.
        Conflict: public words on an incident that was never confirmed.
    """
    require(work.actor, Permission.INCIDENT_MANAGE)
    text = check_words(text, "update", field="text")
    if visibility not in set(Visibility):
        sentence = f"An update is for {', '.join(Visibility)}."
        raise Invalid(
            sentence, reason="incident.visibility", fields=[FieldError("visibility", sentence)]
        )
    incident = lock_incident(work, incident_id)
    if visibility == Visibility.PUBLIC and incident.confirmed_at is None:
        raise Conflict(
            f"Incident {incident_id} is {State(incident.state)}: the public does not know of it.",
            reason="incident.unconfirmed",
            next_step="Confirm it first, or write for the reporter or in private.",
        )
    add_update(work, incident.id, text, visibility=Visibility(visibility))
    return page_of(work, incident.id)

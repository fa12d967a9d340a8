"""Incidents as staff handle them: reported, triaged, confirmed, mitigated, closed; and the words.

Which step comes next is said by ``incidents.rules.MOVES``; the page offers those and no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from fastapi import Request, Response

from stagerelease.db.work import Work
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.desk.holds import MOST, choices, covered
from stagerelease.http.pages.desk.steps import (
    Number,
    after_refusal,
    desk_router,
    names_of,
    needed,
    take,
)
from stagerelease.http.pages.desk.thread import Said
from stagerelease.http.pages.forms import Sent, Typed, whole
from stagerelease.http.pages.frame import page
from stagerelease.identity import queries as people
from stagerelease.identity.rules import Permission, authorize
from stagerelease.incidents import queries as reading
from stagerelease.incidents import service as incidents
from stagerelease.incidents.rows import IncidentPage, ReceiptRow
from stagerelease.incidents.rules import MOVES, State, consents_to_close
from stagerelease.kernel.errors import DomainError
from stagerelease.partners import service as partners
from stagerelease.partners.holding import HolderRow
from stagerelease.releases import queries as releases

router = desk_router("/staff/incidents")
ROWS = 50
SHOWS = {
    "open": "Open",
    "all": "All",
    **{state.value: state.value.capitalize() for state in State},
}
SEVERITIES = [("", "Choose"), *((s, s.capitalize()) for s in ("low", "medium", "high", "critical"))]
TIERS = [
    ("", "Nobody knows"),
    ("1", "Curious individuals"),
    ("2", "Skilled people with resources"),
    ("3", "An advanced, persistent actor"),
]
DAYS = 3
NOTICES = {
    "reported": "The report is taken. Assess it next.",
    "triaged": "The assessment is on record.",
    "reassessed": "The assessment is renewed. What it covers besides is stopped already.",
    "confirmed": "The incident is confirmed. What it covers is stopped, and holders are told.",
    "dismissed": "The report is dismissed.",
    "mitigated": "Its harm is contained. What it stops stays stopped.",
    "closed": "Your word to close it is on record.",
    "reopened": "The incident is open again.",
    "noted": "Your word is on the thread.",
    "advised": "The advisory is sent to every holder.",
    "erased": "The reporter’s contact is erased.",
}


@router.get("")
def list_incidents(
    request: Request, begin: BeginPage, show: str = "open", after: str = ""
) -> Response:
    """List incidents, newest first."""
    return _list(request, begin, show=show, after=after)


def _list(
    request: Request,
    begin: Any,
    *,
    show: str = "open",
    after: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    show = show if show in SHOWS else "open"
    behind = whole(after)
    with begin(read_only=True) as work:
        rows = incidents.list_incidents(
            work, state=None if show == "all" else show, limit=ROWS + 1, after=behind
        )
        overdue = incidents.overdue_advisories(work, limit=ROWS)
        told = receivers(work, overdue)
        manages = authorize(work.actor, Permission.INCIDENT_MANAGE).allowed
    older = f"/staff/incidents?show={show}&after={rows[ROWS - 1].id}" if len(rows) > ROWS else ""
    return page(
        request,
        "desk/incidents.html",
        rows=rows[:ROWS],
        show=show,
        shows=SHOWS,
        older=older,
        newer=f"/staff/incidents?show={show}" if behind else "",
        overdue=overdue,
        told=told,
        manages=manages,
        **after_refusal(refusal, typed, "text", "about"),
    )


def receivers(work: Work, rows: Iterable[ReceiptRow]) -> dict[str, str]:
    """Return who each advisory went to, by the id of its receipt."""
    found = {}
    for row in rows:
        if row.organisation_id is not None:
            found[row.id] = people.load_organisation(work, row.organisation_id).name
        elif row.person_id is not None:
            found[row.id] = people.load_person(work, row.person_id).display_name
    return found


@router.post("")
def report(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Take down what somebody of staff saw."""

    def act(work: Work) -> str:
        text = needed(sent, "text", "Say what was seen, where and when.")
        row = incidents.report(work, text=text, about=sent.get("about"), network="staff")
        return f"/staff/incidents/{row.incident_id}?done=reported#done"

    again = partial(_list, request, begin, typed=sent)
    return take(begin, Permission.INCIDENT_READ, act, then=str, again=again)


@router.get("/{number}")
def show_incident(request: Request, begin: BeginPage, number: Number, done: str = "") -> Response:
    """Show everything known of an incident, and what can be done next."""
    return show(request, begin, number, done=done)


def show(
    request: Request,
    begin: Any,
    number: int,
    *,
    done: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    """Return the page of an incident; after a refusal with it, and with what was typed."""
    with begin(read_only=True) as work:
        found = incidents.show_incident(work, number)
        who = names_of(work, _actors(found))
        options = choices(work)
        names = covered(work, found.holds) | dict(options)
        names |= {row.id: row.repo_id for row in releases.find_tracks(work, found.tracks)}
        stopped = stopped_by(work, number)
        me = work.actor.id
        manages = authorize(work.actor, Permission.INCIDENT_MANAGE).allowed
    i = found.incident
    return page(
        request,
        "desk/incident.html",
        found=found,
        i=i,
        who=who,
        names=names,
        options=options,
        stopped=stopped,
        steps={step.name.lower() for state, step in MOVES if state == i.state and manages},
        manages=manages,
        me=me,
        events=_thread(found, who),
        asked=consents_to_close(blocking=i.blocking),
        severities=SEVERITIES,
        tiers=TIERS,
        notice=NOTICES.get(done, ""),
        **after_refusal(refusal),
        typed=typed.everything() if typed else {},
        covers=typed.all("covers") if typed else _covers(found),
    )


def _covers(found: IncidentPage) -> list[str]:
    everything = ["everything:"] if found.incident.scope == "everything" else []
    return [
        *everything,
        *(f"track:{one}" for one in found.tracks),
        *(f"family:{one}" for one in found.families),
    ]


def _actors(found: IncidentPage) -> set[str]:
    return {
        *(event.actor_id for event in found.events),
        *(update.author_id for update in found.updates if update.written_by == "staff"),
        *(consent.person_id for consent in found.consents),
        *(one.sent_by for one in found.advisories),
    }


def stopped_by(work: Work, number: int) -> list[HolderRow]:
    """Return the active grants on what an incident covers: those that a stop would reach now."""
    if not authorize(work.actor, Permission.GRANT_READ).allowed:
        return []
    row = reading.load_incident(work, number)
    return [
        grant
        for track in reading.covered_tracks(work, row)[:MOST]
        for grant in partners.holders_report(work, track_id=track.id, state="active", limit=500)
    ]


def _thread(found: IncidentPage, who: dict[str, str]) -> list[Said]:
    kinds = {"confirmed": "bad", "closed": "good", "mitigated": "good", "dismissed": "good"}
    readers = {"private": "for staff", "reporter": "to the reporter", "public": "in public"}
    said = [
        Said(
            e.to_state.capitalize(),
            e.at,
            who.get(e.actor_id, e.actor_id),
            e.reason,
            kinds.get(e.to_state, ""),
            e.leaf_idx,
        )
        for e in found.events
    ]
    for u in found.updates:
        by = who.get(u.author_id, "") if u.written_by == "staff" else "the reporter"
        title = f"A word {readers[u.visibility]}"
        said.append(
            Said(title, u.at, by, u.text, "ask" if by == "the reporter" else "", u.leaf_idx)
        )
    for c in found.consents:
        words = f"{c.outcome}\n{c.public_outcome}".strip()
        said.append(
            Said("Consented to close it", c.at, who.get(c.person_id, ""), words, "", c.leaf_idx)
        )
    return sorted(said, key=lambda one: one.at)

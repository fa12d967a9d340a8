"""Renews a grant: a new one that names the old, with what changed in its purpose, by word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from stagerelease.db.work import Work
from stagerelease.identity import queries as people
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.errors import Conflict, NotFound
from stagerelease.partners import queries
from stagerelease.partners.granting import issue_grant
from stagerelease.partners.moving import load_for, lock_grant, note, require_own_name, tell
from stagerelease.partners.queries import GrantRow
from stagerelease.partners.rules import LIVE
from stagerelease.releases.humans import accountable
from stagerelease.releases.rules import check_text

MAX_WISH = 1000
ASKED, WISH = "renewal_asked", "Renewal asked for: "
AGAIN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Renewal:
    """A renewed grant, the one it follows, and ``(keep | drop | add, words)`` of its purpose."""

    grant: GrantRow
    renews: GrantRow
    purpose: tuple[tuple[str, str], ...]


def word_changes(old: str, new: str) -> tuple[tuple[str, str], ...]:
    """Return what becomes of ``old`` to make ``new``, as runs of words in order.

    ``keep`` and ``drop`` runs joined give ``old`` back, ``keep`` and ``add`` runs give ``new``.
    """
    before, after = re.findall(r"\s+|\S+", old), re.findall(r"\s+|\S+", new)
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    runs: list[tuple[str, str]] = []
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            runs.append(("keep", "".join(before[a:b])))
            continue
        if b > a:
            runs.append(("drop", "".join(before[a:b])))
        if d > c:
            runs.append(("add", "".join(after[c:d])))
    return tuple(runs)


def renew_grant(
    work: Work,
    grant_id: str,
    *,
    valid_until: datetime,
    purpose: str | None = None,
    permissions: Sequence[str] | None = None,
) -> Renewal:
    """Issue the grant that follows ``grant_id``; what is not said stays as it was.

    The old grant keeps its own end. An ended grant may be renewed too, unless it was revoked or
    suspended then: letting its holder in again is a new decision, and takes two people.

    Raises:
        NotFound: there is no such grant.
        Conflict: it was revoked, or suspended when its date passed.
        Invalid, Forbidden, Blocked: as ``issue_grant``.
    """
    require(work.actor, Permission.GRANT_ISSUE)
    old = load_for(work, grant_id, Permission.GRANT_ISSUE)
    new = issue_grant(
        work,
        track_id=old.track_id,
        organisation=people.load_organisation(work, old.organisation_id).slug
        if old.organisation_id
        else None,
        person=people.load_person(work, old.person_id).handle if old.person_id else None,
        permissions=sorted(permissions or old.permissions),
        purpose=purpose if purpose is not None else old.purpose,
        audience=old.audience,
        valid_until=valid_until,
        renewed_from=old.id,
    )
    return Renewal(new, old, word_changes(old.purpose, new.purpose))


def renewal_of(work: Work, grant_id: str) -> Renewal | None:
    """Return what a grant renews and how its purpose changed, or None when it renews nothing.

    Raises:
        NotFound: there is no such grant, or the caller may not know of it.
    """
    grant = load_for(work, grant_id, None)
    if grant.renewed_from_id is None:
        return None
    old = queries.load_grant(work, grant.renewed_from_id)
    return Renewal(grant, old, word_changes(old.purpose, grant.purpose))


def ask_renewal(work: Work, grant_id: str, *, message: str) -> None:
    """Ask the access officers, as a holder, to let a grant go on; it is theirs to decide.

    Raises:
        NotFound: there is no such grant, or the caller does not hold it.
        Forbidden: the token is too narrow to act in their name.
        Conflict: it has ended for good, or this was asked within the last day.
        Invalid: no message, or one too long.
    """
    grant = load_for(work, grant_id, None)
    require_own_name(work.actor)
    me = accountable(work, "ask for renewal")
    if grant.person_id != me and grant.organisation_id not in work.actor.organisations:
        raise NotFound(f"You hold no grant {grant_id!r}.", reason="grant.unknown")
    if grant.state not in LIVE:
        raise Conflict(
            f"The grant is {grant.state}; there is nothing left to renew.",
            reason="grant.ended",
            next_step="Ask for access anew.",
        )
    message = check_text(message, "message", limit=MAX_WISH)
    row = lock_grant(work, grant_id)
    recent = [
        event
        for event in queries.grant_events(work, grant_id)
        if event.reason.startswith(WISH) and event.at > work.now - AGAIN
    ]
    if recent:
        raise Conflict(
            "You have asked for this within the last day.",
            reason="grant.renewal-asked",
            next_step="Wait for the answer; it comes by mail and on this page.",
        )
    tell(work, row, ASKED, message=message, roles=("access_officer",))
    note(work, row, event=ASKED, before=row.state, reason=f"{WISH}{message}")

"""What stands still right now, in the words that everybody may read: for the top of every page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from stagerelease.db.work import Work
from stagerelease.entitlements.known import is_public
from stagerelease.notices.feed import covered
from stagerelease.releases import queries as releases
from stagerelease.releases.queries import HoldRow, TrackRow


@dataclass(frozen=True, slots=True)
class HeldLine:
    """An active hold: what it covers, why, and the one repository it covers, if it is one."""

    hold_id: int
    what: str
    because: str
    repo_id: str | None
    since: datetime


def holds_in_public(work: Work) -> tuple[HeldLine, ...]:
    """Return the active holds over what everybody may know of, oldest first."""
    found = []
    for hold in releases.active_holds(work):
        track = releases.find_track(work, hold.scope_id or "") if hold.scope == "track" else None
        if _may_be_told(work, hold, track):
            found.append(
                HeldLine(
                    hold.id,
                    covered(hold, track),
                    hold.public_reason,
                    track.repo_id if track else None,
                    hold.laid_at,
                )
            )
    return tuple(found)


def _may_be_told(work: Work, hold: HoldRow, track: TrackRow | None) -> bool:
    if hold.scope == "everything":
        return True
    if hold.scope == "track":
        return track is not None and is_public(work, track)
    family = releases.list_tracks(work, families={hold.scope_id or ""})
    return any(is_public(work, one) for one in family)

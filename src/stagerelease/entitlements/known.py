"""Which tracks everybody may know of: the one rule that every public face asks (invariant 16)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.releases import queries as releases
from stagerelease.releases.ladder import WITHDRAWN
from stagerelease.releases.queries import TrackRow
from stagerelease.releases.tables import StageEvent


def is_public(work: Work, track: TrackRow) -> bool:
    """Tell whether outsiders may know of a track: it is at a stage that is listed.

    A withdrawn one is known to whom it was known before: it was at a listed stage once. What was
    never announced is not announced by taking it back.
    """
    return bool(public_ones(work, [track]))


def public_ones(work: Work, tracks: Sequence[TrackRow]) -> list[TrackRow]:
    """Return those of ``tracks`` that outsiders may know of, in their order."""
    known = public_ids(work, ((t.id, t.stage, t.plan_version_id) for t in tracks))
    return [track for track in tracks if track.id in known]


def public_ids(work: Work, tracks: Iterable[tuple[str, str, str]]) -> set[str]:
    """Return the ids of the tracks that outsiders may know of, of (id, stage, plan version)."""
    found, gone = set(), {}
    for track_id, stage, version in tracks:
        if stage == WITHDRAWN:
            gone[track_id] = version
        elif (now := releases.plan_of(work, version).find(stage)) is not None and now.listed:
            found.add(track_id)
    if gone:
        rows = work.session.execute(
            select(StageEvent.track_id, StageEvent.to_stage)
            .where(StageEvent.track_id.in_(sorted(gone)))
            .distinct()
        )
        for track_id, name in rows:
            once = releases.plan_of(work, gone[track_id]).find(name)
            if once is not None and once.listed:
                found.add(track_id)
    return found

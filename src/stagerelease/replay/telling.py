"""Tells a replayed release as a timeline: what this installation did, beside the public record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from stagerelease.db.work import Works
from stagerelease.kernel.actor import OPERATOR
from stagerelease.releases import queries as releases
from stagerelease.replay.record import facts


@dataclass(frozen=True, slots=True)
class Line:
    """A day of the timeline. ``standing`` is ``replayed``, or how the record knows it.

    ``day`` is as exact as its source: ``2019-08-20`` or ``2019-08``.
    """

    day: str
    what: str
    standing: str
    track: str = ""
    stage: str = ""


def moves(works: Works) -> list[tuple[datetime, Line]]:
    """Return every move above the first stage, oldest first."""
    found = []
    with works.begin(OPERATOR, read_only=True) as work:
        for track in releases.list_tracks(work):
            for event in releases.stage_events(work, track.id):
                if event.from_stage is None:
                    continue
                kind = track.kind.replace("_", " ")
                what = f"{track.repo_id}, {kind}: {event.to_stage}"
                line = Line(f"{event.at:%Y-%m-%d}", what, "replayed", track.id, event.to_stage)
                found.append((event.at, line))
    return sorted(found, key=lambda item: (item[0], item[1].what))


def timeline(works: Works) -> list[Line]:
    """Return the moves, each month's public record before them."""
    found = [(f"{at:%Y-%m-%dT%H:%M}", line) for at, line in moves(works)]
    for entry in facts()["timeline"]:
        found.append((entry["date"], Line(entry["date"], entry["event"], entry["status"])))
    return [line for _, line in sorted(found, key=lambda item: item[0])]

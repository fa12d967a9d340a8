"""The public timeline: what was released, stopped and said, in entries that anybody may read.

Invariant 16: applied moves only, on stages that outsiders may know of; public words only; nobody's
name. What cannot be known from a model's own page is not here either.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, or_, select

from stagerelease.catalog.tables import Variant
from stagerelease.db.work import Work
from stagerelease.incidents import queries as incidents
from stagerelease.incidents.rows import PublicIncident
from stagerelease.incidents.showing import public_incidents_of
from stagerelease.kernel.clock import iso
from stagerelease.releases import queries as releases
from stagerelease.releases.ladder import WITHDRAWN
from stagerelease.releases.queries import HoldRow, TrackRow
from stagerelease.releases.tables import Hold, StageEvent, Track

MOST = 201  # a page of 200, and one more that tells another follows
ARTIFACTS = {
    "weights": "Weights",
    "tokenizer": "Tokenizer",
    "output_dataset": "Output dataset",
    "detector": "Detector",
    "model_card": "Model card",
    "code": "Code",
}
AUDIENCES = {
    "organisations": "partner organisations",
    "people": "admitted researchers",
    "everyone": "everyone",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened, in public words. ``id`` never changes; newest ``at`` comes first."""

    id: str
    at: datetime
    kind: str  # release | withdrawal | hold | hold_lifted | incident
    title: str
    said: str
    repo_id: str | None
    leaf_idx: int | None

    @property
    def place(self) -> tuple[datetime, str]:
        """Return what orders entries: the instant, and among those of one instant the id."""
        return self.at, self.id


def timeline(
    work: Work,
    *,
    before: datetime | None = None,
    before_id: str | None = None,
    limit: int = 50,
) -> list[Entry]:
    """Return public entries, newest first, at most ``limit``.

    ``before`` leaves out what came at that instant or later; with ``before_id``, the id of an
    entry of that instant, those of the instant that are behind it stay in.
    """
    limit = min(limit, MOST)
    listed = {t.id: t for t in releases.list_tracks(work) if _is_public(work, t)}
    place = None if before is None else (before, before_id or "")
    sources = (
        _moves(work, listed, before),
        _holds(work, listed, before, lifted=False),
        _holds(work, listed, before, lifted=True),
    )
    entries = [entry for source in sources for entry in _first(source, place, limit)]
    entries += _incidents(work, place, limit)
    return sorted(entries, key=lambda e: e.place, reverse=True)[:limit]


def _first(
    entries: Generator[Entry, None, None], place: tuple[datetime, str] | None, limit: int
) -> Iterator[Entry]:
    """Yield ``limit`` entries behind ``place``, and the others of the last one's instant.

    The database orders by instant; among those of one instant only their ids do, so that a page
    may begin anywhere among them.
    """
    count, last = 0, None
    with closing(entries):
        for entry in entries:
            if place is not None and entry.place >= place:
                continue
            if count >= limit and entry.at != last:
                return
            count, last = count + 1, entry.at
            yield entry


def _rows(work: Work, statement: Select[*tuple[Any, ...]]) -> Iterator[Any]:
    """Yield rows as they are asked for: whoever reads them stops when they have enough."""
    with work.session.execute(statement.execution_options(yield_per=MOST)) as rows:
        yield from rows


def _is_public(work: Work, track: TrackRow) -> bool:
    """Tell whether outsiders may know of a track: it is, or once was, at a stage that is listed."""
    plan = releases.plan_of(work, track.plan_version_id)
    if track.stage == WITHDRAWN:
        seen = work.session.scalars(
            select(StageEvent.to_stage).where(StageEvent.track_id == track.id)
        )
        return any((s := plan.find(name)) is not None and s.listed for name in seen)
    stage = plan.find(track.stage)
    return stage is not None and stage.listed


def _moves(
    work: Work, listed: dict[str, TrackRow], before: datetime | None
) -> Generator[Entry, None, None]:
    statement = (
        select(StageEvent, Variant.repo_id, Track.kind)
        .join(Track, Track.id == StageEvent.track_id)
        .join(Variant, Variant.id == Track.variant_id)
        # A track's beginning is no release: its first stage is where only staff are.
        .where(StageEvent.track_id.in_(sorted(listed)), StageEvent.from_stage.is_not(None))
        .order_by(StageEvent.at.desc())
    )
    if before is not None:
        statement = statement.where(StageEvent.at <= before)
    for event, repo_id, kind in _rows(work, statement):
        what = f"{ARTIFACTS.get(kind, kind)} of {repo_id}"
        if event.to_stage == WITHDRAWN:
            yield Entry(
                event.id,
                event.at,
                "withdrawal",
                f"{what} withdrawn",
                "The release was withdrawn: its files are no longer delivered to anyone.",
                repo_id,
                event.leaf_idx,
            )
            continue
        plan = releases.plan_of(work, listed[event.track_id].plan_version_id)
        stage = plan.find(event.to_stage)
        if stage is None or not stage.listed:
            continue
        whom = AUDIENCES.get(stage.audience, stage.audience)
        title = (
            f"{what} released publicly"
            if stage.audience == "everyone"
            else f"{what} shared with {whom}"
        )
        said = f"{what} moved from {event.from_stage or 'nowhere'} to the {stage.name} stage."
        yield Entry(event.id, event.at, "release", title, said, repo_id, event.leaf_idx)


def _holds(
    work: Work, listed: dict[str, TrackRow], before: datetime | None, *, lifted: bool
) -> Generator[Entry, None, None]:
    """Yield holds as they were laid, or as they were lifted."""
    families = {t.family_id for t in listed.values()}
    at = Hold.lifted_at if lifted else Hold.laid_at
    statement = (
        select(Hold)
        .where(
            at.is_not(None),
            or_(
                Hold.scope == "everything",
                and_(Hold.scope == "track", Hold.scope_id.in_(sorted(listed))),
                and_(Hold.scope == "family", Hold.scope_id.in_(sorted(families))),
            ),
        )
        .order_by(at.desc())
    )
    if before is not None:
        statement = statement.where(at <= before)
    for (hold,) in _rows(work, statement):
        track = listed.get(hold.scope_id or "")
        what = _covered(hold, track)
        repo_id = track.repo_id if track is not None else None
        if lifted:
            said, leaf = "Two people lifted the hold.", None
            kind, title = "hold_lifted", f"Hold lifted: {what}"
        else:
            said, leaf = hold.public_reason or "No reason is given in public yet.", hold.leaf_idx
            kind, title = "hold", f"On hold: {what}"
        instant = hold.lifted_at if lifted else hold.laid_at
        if instant is not None:
            yield Entry(f"hold-{hold.id}-{kind}", instant, kind, title, said, repo_id, leaf)


def _covered(hold: Hold | HoldRow, track: TrackRow | None) -> str:
    if hold.scope == "everything":
        return "every release"
    if track is not None:
        return f"{ARTIFACTS.get(track.kind, track.kind).lower()} of {track.repo_id}"
    return f"the family {hold.scope_id}"


def _incidents(work: Work, place: tuple[datetime, str] | None, limit: int) -> Iterator[Entry]:
    """Yield what was said of incidents: of those alone whose words may be on this page."""
    numbers: set[int] = set()
    begins = place[0] if place is not None else None
    count, last = 0, None
    moments = incidents.public_moments(work, before=begins)
    with closing(moments):
        for at, number in moments:
            if count >= limit and at != last:
                break
            if at != begins:  # those of that instant may be on the page before, and do not count
                count, last = count + 1, at
            numbers.add(number)
    for incident in public_incidents_of(work, numbers):
        yield from (e for e in _said_of(incident) if place is None or e.place < place)


def _said_of(incident: PublicIncident) -> Iterator[Entry]:
    said = [
        (
            incident.confirmed_at,
            "confirmed",
            incident.summary or f"An incident of {incident.severity} severity was confirmed.",
        )
    ]
    said += [(update.at, "update", update.text) for update in incident.updates]
    if incident.closed_at is not None:
        said.append((incident.closed_at, "closed", incident.outcome or "It is closed."))
    repo_id = incident.repos[0] if len(incident.repos) == 1 else None
    for number, (at, what, text) in enumerate(said):
        title = f"Incident {incident.id}: {what}"
        name = f"incident-{incident.id}-{what}-{number}"
        yield Entry(name, at, "incident", title, text, repo_id, None)


def version_of(entries: list[Entry]) -> str:
    """Return what names this state of the feed: it changes whenever an entry does."""
    newest = entries[0] if entries else None
    return f"{len(entries)}-{newest.id}-{iso(newest.at)}" if newest else "empty"

"""The public timeline: what was released, stopped and said, in entries that anybody may read.

Invariant 16: applied moves only, on stages that outsiders may know of; public words only; nobody's
name. What cannot be known from a model's own page is not here either.

It is read newest first, a page at a time, through the index on time: how much there is in all does
not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select

from stagerelease.catalog.tables import Variant
from stagerelease.db.work import Work
from stagerelease.entitlements.known import public_ids, public_ones
from stagerelease.incidents.showing import public_incidents
from stagerelease.kernel.clock import in_range, iso
from stagerelease.releases import queries as releases
from stagerelease.releases.ladder import WITHDRAWN
from stagerelease.releases.queries import HoldRow, TrackRow
from stagerelease.releases.tables import Hold, StageEvent, Track

MOST = 201  # a page of 200, and one more that tells another follows
BATCH = 200
"""Moves read at once; those that are not public are passed over."""
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
KINDS = ("release", "withdrawal", "hold", "incident")
"""What a reader may ask for; a lifted hold goes with holds."""


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
    stage: str | None = None  # of a release: the stage it moved to, and who that lets in
    audience: str | None = None
    incident: int | None = None

    @property
    def place(self) -> tuple[datetime, str]:
        """Return what orders entries: the instant, and among those of one instant the id."""
        return self.at, self.id


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries: older than ``before``, or at ``until`` and older; of one kind or model.

    ``kind`` and ``repo_id`` are None for all.
    """

    before: datetime | None = None
    until: datetime | None = None
    kind: str | None = None
    repo_id: str | None = None

    def takes(self, at: datetime) -> bool:
        """Tell whether something at that instant is old enough."""
        return (self.before is None or at < self.before) and (
            self.until is None or at <= self.until
        )


@dataclass(frozen=True, slots=True)
class Stretch:
    """A page of the timeline; ``next`` opens the one after it, or is None at the end."""

    entries: tuple[Entry, ...]
    next: str | None


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
    if before is None or before_id is None:
        return _read(work, Wanted(before=before), limit)
    found = _read(work, Wanted(until=before), limit + MOST)
    return [entry for entry in found if entry.place < (before, before_id)][:limit]


def stretch(
    work: Work,
    *,
    after: str | None = None,
    kind: str | None = None,
    repo_id: str | None = None,
    limit: int = 50,
) -> Stretch:
    """Return a page of the timeline, after the one whose ``next`` is ``after``.

    Nothing is left out or told twice where several things happened at one instant.
    """
    until, told = _opened(after)
    limit = min(limit, MOST)
    found = _read(work, Wanted(None, until, kind, repo_id), limit + told + 1)
    found = found[told:]
    if len(found) <= limit:
        return Stretch(tuple(found), None)
    shown = found[:limit]
    last = shown[-1].at
    at_last = sum(entry.at == last for entry in shown) + (told if last == until else 0)
    instant = last.isoformat().replace("+00:00", "Z")
    return Stretch(tuple(shown), f"{instant}~{at_last}")


def _opened(after: str | None) -> tuple[datetime | None, int]:
    """Return the instant a page begins at, and how many entries of it were told already."""
    at, _, told = (after or "").partition("~")
    try:
        instant = datetime.fromisoformat(at)
        count = int(told)
        fine = instant.tzinfo is not None and 0 <= count <= MOST
        return (in_range(instant), count) if fine else (None, 0)
    except ValueError:
        return None, 0


def _read(work: Work, wanted: Wanted, limit: int) -> list[Entry]:
    entries: list[Entry] = []
    if wanted.kind in (None, "release", "withdrawal"):
        entries += _moves(work, wanted, limit)
    if wanted.kind in (None, "hold"):
        entries += _holds(work, wanted)
    if wanted.kind in (None, "incident"):
        entries += _incidents(work, wanted)
    if wanted.repo_id is not None:
        entries = [entry for entry in entries if entry.repo_id == wanted.repo_id]
    return sorted(entries, key=lambda e: e.place, reverse=True)[:limit]


# --- moves ---------------------------------------------------------------------------------------


def _moves_statement(wanted: Wanted) -> Select[*tuple[Any, ...]]:
    statement = (
        select(
            StageEvent.id,
            StageEvent.track_id,
            StageEvent.from_stage,
            StageEvent.to_stage,
            StageEvent.at,
            StageEvent.leaf_idx,
            Variant.repo_id,
            Track.kind,
            Track.stage,
            Track.plan_version_id,
        )
        .join(Track, Track.id == StageEvent.track_id)
        .join(Variant, Variant.id == Track.variant_id)
        # A track's beginning is no release: its first stage is where only staff are.
        .where(StageEvent.from_stage.is_not(None))
        .order_by(StageEvent.at.desc(), StageEvent.id.desc())
    )
    if wanted.before is not None:
        statement = statement.where(StageEvent.at < wanted.before)
    if wanted.until is not None:
        statement = statement.where(StageEvent.at <= wanted.until)
    if wanted.repo_id is not None:
        statement = statement.where(Variant.repo_id == wanted.repo_id)
    if wanted.kind == "withdrawal":
        statement = statement.where(StageEvent.to_stage == WITHDRAWN)
    elif wanted.kind == "release":
        statement = statement.where(StageEvent.to_stage != WITHDRAWN)
    return statement


def _moves(work: Work, wanted: Wanted, limit: int) -> list[Entry]:
    statement, offset, found = _moves_statement(wanted), 0, list[Entry]()
    batch = min(BATCH, limit + limit // 2)
    while len(found) < limit:
        rows = work.session.execute(statement.offset(offset).limit(batch)).all()
        known = public_ids(work, {(r.track_id, r.stage, r.plan_version_id) for r in rows})
        for row in rows:
            if row.track_id in known:
                found += _told(work, row)
        if len(rows) < batch:
            break
        offset += batch
        batch = BATCH
    return found[:limit]


def _told(work: Work, move: Any) -> Iterator[Entry]:
    what = f"{ARTIFACTS.get(move.kind, move.kind)} of {move.repo_id}"
    if move.to_stage == WITHDRAWN:
        yield Entry(
            move.id,
            move.at,
            "withdrawal",
            f"{what} withdrawn",
            "The release was withdrawn: its files are no longer delivered to anyone.",
            move.repo_id,
            move.leaf_idx,
        )
        return
    stage = releases.plan_of(work, move.plan_version_id).find(move.to_stage)
    if stage is None or not stage.listed:
        return
    whom = AUDIENCES.get(stage.audience, stage.audience)
    title = f"{what} shared with {whom}"
    if stage.audience == "everyone":
        title = f"{what} released publicly"
    said = f"{what} moved from {move.from_stage or 'nowhere'} to the {stage.name} stage."
    yield Entry(
        move.id,
        move.at,
        "release",
        title,
        said,
        move.repo_id,
        move.leaf_idx,
        stage=stage.name,
        audience=stage.audience,
    )


# --- holds and incidents -------------------------------------------------------------------------


def _holds(work: Work, wanted: Wanted) -> Iterator[Entry]:
    rows = work.session.scalars(select(Hold).order_by(Hold.id.desc()).limit(MOST)).all()
    tracks = _tracks_of(work, rows)
    families = _families_known(work, rows)
    for hold in rows:
        track = tracks.get(hold.scope_id or "")
        if hold.scope == "track" and track is None:
            continue
        if hold.scope == "family" and hold.scope_id not in families:
            continue
        what = covered(hold, track)
        because = hold.public_reason or "No reason is given in public yet."
        repo_id = track.repo_id if track is not None else None
        for at, kind, title, said in (
            (hold.laid_at, "hold", f"On hold: {what}", because),
            (hold.lifted_at, "hold_lifted", f"Hold lifted: {what}", "Two people lifted the hold."),
        ):
            if at is not None and wanted.takes(at):
                leaf = hold.leaf_idx if kind == "hold" else None
                yield Entry(f"hold-{hold.id}-{kind}", at, kind, title, said, repo_id, leaf)


def _tracks_of(work: Work, holds: Sequence[Hold]) -> dict[str, TrackRow]:
    """Return the tracks that holds are laid over and outsiders may know of, by id."""
    ids = {hold.scope_id for hold in holds if hold.scope == "track" and hold.scope_id}
    found = releases.find_tracks(work, ids)
    return {track.id: track for track in public_ones(work, found)}


def _families_known(work: Work, holds: Sequence[Hold]) -> set[str]:
    """Return the families that holds are laid over and outsiders may know of."""
    asked = {hold.scope_id for hold in holds if hold.scope == "family" and hold.scope_id}
    if not asked:
        return set()
    tracks = releases.list_tracks(work, families=asked)
    return {track.family_id for track in public_ones(work, tracks)}


def covered(hold: Hold | HoldRow, track: TrackRow | None) -> str:
    """Return in words what a hold is laid over."""
    if hold.scope == "everything":
        return "every release"
    if track is not None:
        return f"{ARTIFACTS.get(track.kind, track.kind).lower()} of {track.repo_id}"
    return f"the family {hold.scope_id}"


def _incidents(work: Work, wanted: Wanted) -> Iterator[Entry]:
    for incident in public_incidents(work, limit=MOST):
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
        for number, (at, what, text) in enumerate(said):
            if wanted.takes(at):
                repo_id = incident.repos[0] if len(incident.repos) == 1 else None
                title = f"Incident {incident.id}: {what}"
                entry_id = f"incident-{incident.id}-{what}-{number}"
                yield Entry(
                    entry_id, at, "incident", title, text, repo_id, None, incident=incident.id
                )


def version_of(entries: list[Entry]) -> str:
    """Return what names this state of the feed: it changes whenever an entry does."""
    newest = entries[0] if entries else None
    return f"{len(entries)}-{newest.id}-{iso(newest.at)}" if newest else "empty"

"""The public timeline: what was released, stopped and said, in entries that anybody may read.

Invariant 16: applied moves only, on stages that outsiders may know of; public words only; nobody's
name. What cannot be known from a model's own page is not here either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from stagerelease.catalog.tables import Variant
from stagerelease.db.work import Work
from stagerelease.incidents.showing import public_incidents
from stagerelease.kernel.clock import iso
from stagerelease.releases import queries as releases
from stagerelease.releases.ladder import WITHDRAWN
from stagerelease.releases.queries import HoldRow, TrackRow
from stagerelease.releases.tables import Hold, StageEvent, Track

MOST = 200
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


def timeline(work: Work, *, before: datetime | None = None, limit: int = 50) -> list[Entry]:
    """Return public entries, newest first, of which the oldest is before ``before``."""
    limit = min(limit, MOST)
    listed = {t.id: t for t in releases.list_tracks(work) if _is_public(work, t)}
    entries = [
        *_moves(work, listed, before, limit),
        *_holds(work, listed, before),
        *_incidents(work, before),
    ]
    return sorted(entries, key=lambda e: (e.at, e.id), reverse=True)[:limit]


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
    work: Work, listed: dict[str, TrackRow], before: datetime | None, limit: int
) -> Iterable[Entry]:
    statement = (
        select(StageEvent, Variant.repo_id, Track.kind)
        .join(Track, Track.id == StageEvent.track_id)
        .join(Variant, Variant.id == Track.variant_id)
        # A track's beginning is no release: its first stage is where only staff are.
        .where(StageEvent.track_id.in_(sorted(listed)), StageEvent.from_stage.is_not(None))
        .order_by(StageEvent.at.desc(), StageEvent.id.desc())
        .limit(limit)
    )
    if before is not None:
        statement = statement.where(StageEvent.at < before)
    for event, repo_id, kind in work.session.execute(statement):
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


def _holds(work: Work, listed: dict[str, TrackRow], before: datetime | None) -> Iterable[Entry]:
    families = {t.family_id for t in listed.values()}
    rows = work.session.scalars(select(Hold).order_by(Hold.id.desc()).limit(MOST))
    for hold in rows:
        if hold.scope == "track" and hold.scope_id not in listed:
            continue
        if hold.scope == "family" and hold.scope_id not in families:
            continue
        track = listed.get(hold.scope_id or "")
        what = _covered(hold, track)
        because = hold.public_reason or "No reason is given in public yet."
        repo_id = track.repo_id if track is not None else None
        for at, kind, title, said in (
            (hold.laid_at, "hold", f"On hold: {what}", because),
            (hold.lifted_at, "hold_lifted", f"Hold lifted: {what}", "Two people lifted the hold."),
        ):
            if at is not None and (before is None or at < before):
                leaf = hold.leaf_idx if kind == "hold" else None
                yield Entry(f"hold-{hold.id}-{kind}", at, kind, title, said, repo_id, leaf)


def _covered(hold: Hold | HoldRow, track: TrackRow | None) -> str:
    if hold.scope == "everything":
        return "every release"
    if track is not None:
        return f"{ARTIFACTS.get(track.kind, track.kind).lower()} of {track.repo_id}"
    return f"the family {hold.scope_id}"


def _incidents(work: Work, before: datetime | None) -> Iterable[Entry]:
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
            if before is None or at < before:
                repo_id = incident.repos[0] if len(incident.repos) == 1 else None
                title = f"Incident {incident.id}: {what}"
                entry_id = f"incident-{incident.id}-{what}-{number}"
                yield Entry(entry_id, at, "incident", title, text, repo_id, None)


def version_of(entries: list[Entry]) -> str:
    """Return what names this state of the feed: it changes whenever an entry does."""
    newest = entries[0] if entries else None
    return f"{len(entries)}-{newest.id}-{iso(newest.at)}" if newest else "empty"

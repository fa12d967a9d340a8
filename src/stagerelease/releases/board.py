"""The board: variants against stages, each cell a mark and words. A read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from stagerelease.db.work import Work
from stagerelease.evidence import queries as evidence
from stagerelease.identity.rules import Permission, require
from stagerelease.releases import people, queries, requests
from stagerelease.releases.gates import Facts, counted
from stagerelease.releases.ladder import WITHDRAWN
from stagerelease.releases.queries import HoldRow, TrackRow
from stagerelease.releases.requests import PromotionRow
from stagerelease.releases.rules import in_words


@dataclass(frozen=True, slots=True)
class Cell:
    """A track at a stage: ``✓`` reached, ``◐`` asked for, ``✗`` stopped, ``—`` not yet."""

    stage: str
    mark: str
    words: str
    since: datetime | None = None
    promotion_id: int | None = None


@dataclass(frozen=True, slots=True)
class BoardRow:
    """One track across the stages of the board."""

    track_id: str
    repo_id: str
    kind: str
    revision_id: str
    stage: str
    held: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """Tracks against every stage of the plans they are under, lowest stage first.

    ``more`` tells whether a window of it has others behind.
    """

    stages: tuple[str, ...]
    rows: tuple[BoardRow, ...]
    more: bool = False


def board(
    work: Work,
    *,
    named: str = "",
    waiting_only: bool = False,
    offset: int = 0,
    limit: int | None = None,
) -> Board:
    """Return the board to somebody who may read tracks: all of it, or a window of ``limit`` tracks.

    ``named`` is a part of the repository's name; ``waiting_only`` leaves those with an open
    request. Reads the same few statements however many tracks there are.
    """
    require(work.actor, Permission.TRACK_READ)
    asked_for = requests.open_promotions(work)
    tracks = queries.list_tracks(
        work,
        ids={p.track_id for p in asked_for} if waiting_only else None,
        named=named,
        offset=offset,
        limit=None if limit is None else limit + 1,
    )
    more = limit is not None and len(tracks) > limit
    tracks = tracks[:limit] if more else tracks
    shown = {track.id for track in tracks}
    waiting = {(p.track_id, p.to_stage): p for p in asked_for if p.track_id in shown}
    counts = _approvals(work, list(waiting.values()))
    reached = queries.stages_reached(work, track_ids=None if limit is None else shown)
    holds = queries.active_holds(work)
    stages: list[str] = []
    for version in dict.fromkeys(track.plan_version_id for track in tracks):
        names = [stage.name for stage in queries.plan_of(work, version).ladder]
        stages += [name for name in names if name not in stages]
    rows = []
    for track in tracks:
        held = any(_covers(hold, track) for hold in holds)
        asked = {
            stage: _asked(work, waiting[track.id, stage], counts, held=held)
            for stage in stages
            if (track.id, stage) in waiting
        }
        cells = tuple(
            asked.get(stage) or _cell(track, stage, reached.get((track.id, stage)), held=held)
            for stage in stages
        )
        rows.append(
            BoardRow(
                track.id, track.repo_id, track.kind, track.revision_id, track.stage, held, cells
            )
        )
    return Board(tuple(stages), tuple(rows), more)


def _covers(hold: HoldRow, track: TrackRow) -> bool:
    return hold.scope == "everything" or hold.scope_id in (track.id, track.family_id)


def _cell(track: TrackRow, stage: str, at: datetime | None, *, held: bool) -> Cell:
    if stage == track.stage:
        words = "here, on hold" if held else "here"
        return Cell(stage, "✗" if held else "✓", words, track.entered_at)
    if at is None:
        return Cell(stage, "—", "not yet")
    gone = track.stage == WITHDRAWN
    return Cell(stage, "✗" if gone else "✓", "withdrawn" if gone else "passed", at)


def _asked(work: Work, promotion: PromotionRow, counts: dict[int, int], *, held: bool) -> Cell:
    target = queries.plan_of(work, promotion.plan_version_id).stage(promotion.to_stage)
    words = (
        f"request {promotion.id}, {in_words(promotion.state)}: "
        f"{counts[promotion.id]} of {target.quorum.count} approvals"
    )
    mark, words = ("✗", f"{words}, on hold") if held else ("◐", words)
    return Cell(promotion.to_stage, mark, words, promotion.submitted_at, promotion.id)


def _approvals(work: Work, promotions: Sequence[PromotionRow]) -> dict[int, int]:
    """Return how many approvals of each request count now, as the quorum gate would say."""
    given = requests.approvals_given(work, [p.id for p in promotions])
    approvers = {a.person_id for rows in given.values() for a in rows}
    who = people.standing(work, approvers)
    # Only what an approver wrote can make an approval not count; the rest need not be read.
    written = evidence.written_by(work, approvers) if approvers else set()
    named = {i for p in promotions for i in p.evidence_ids if i in written}
    known = {e.id: e for e in evidence.facts_of(work, named)} if named else {}
    return {
        p.id: len(
            counted(
                Facts(
                    at=work.now,
                    track_stage=p.from_stage,
                    from_stage=p.from_stage,
                    target=queries.plan_of(work, p.plan_version_id).stage(p.to_stage),
                    state=p.state,
                    requester=p.requester_id,
                    request_hash=p.request_hash,
                    entered_at=p.created_at,
                    first_served_at=None,
                    approvals=people.approval_facts(given.get(p.id, ()), who),
                    evidence=tuple(known[i] for i in p.evidence_ids if i in known),
                )
            )
        )
        for p in promotions
    }

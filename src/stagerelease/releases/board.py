"""The board: variants against stages, each cell a mark and words. A read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.releases import facts, queries
from stagerelease.releases.facts import PromotionRow
from stagerelease.releases.gates import counted
from stagerelease.releases.ladder import WITHDRAWN
from stagerelease.releases.queries import TrackRow
from stagerelease.releases.rules import OPEN, in_words


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
    """Every track against every stage of the plans in use, lowest stage first."""

    stages: tuple[str, ...]
    rows: tuple[BoardRow, ...]


def board(work: Work) -> Board:
    """Return the board to somebody who may read tracks."""
    require(work.actor, Permission.TRACK_READ)
    tracks = queries.list_tracks(work)
    waiting: dict[str, list[PromotionRow]] = {}
    for promotion in facts.list_promotions(work):
        if promotion.state in OPEN:
            waiting.setdefault(promotion.track_id, []).append(promotion)
    stages: list[str] = []
    for version in dict.fromkeys(track.plan_version_id for track in tracks):
        names = [stage.name for stage in queries.plan_of(work, version).ladder]
        stages += [name for name in names if name not in stages]
    rows = (_row(work, track, stages, waiting.get(track.id, [])) for track in tracks)
    return Board(tuple(stages), tuple(rows))


def _row(work: Work, track: TrackRow, stages: list[str], waiting: list[PromotionRow]) -> BoardRow:
    held = bool(queries.holds_over(work, track))
    reached = {e.to_stage: e.at for e in queries.stage_events(work, track.id)}
    cells = []
    for stage in stages:
        asked = [p for p in waiting if p.to_stage == stage]
        if asked:
            cells.append(_asked(work, stage, asked[-1], held=held))
        elif stage == track.stage:
            words = "here, on hold" if held else "here"
            cells.append(Cell(stage, "✗" if held else "✓", words, track.entered_at))
        elif stage in reached:
            gone = track.stage == WITHDRAWN
            words = "withdrawn" if gone else "passed"
            cells.append(Cell(stage, "✗" if gone else "✓", words, reached[stage]))
        else:
            cells.append(Cell(stage, "—", "not yet"))
    return BoardRow(
        track.id, track.repo_id, track.kind, track.revision_id, track.stage, held, tuple(cells)
    )


def _asked(work: Work, stage: str, promotion: PromotionRow, *, held: bool) -> Cell:
    seen = facts.gather(work, promotion.id)
    words = (
        f"request {promotion.id}, {in_words(promotion.state)}: "
        f"{len(counted(seen))} of {seen.target.quorum.count} approvals"
    )
    mark, words = ("✗", f"{words}, on hold") if held else ("◐", words)
    return Cell(stage, mark, words, promotion.submitted_at, promotion.id)

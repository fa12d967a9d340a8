"""Models as lists show them: where each is on its ladder, in a few reads however many there are.

What one caller may do with one model is on its own page; see ``models``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from stagerelease.catalog import queries as catalog
from stagerelease.catalog.queries import VariantRow
from stagerelease.db.work import Work
from stagerelease.entitlements.known import public_ones
from stagerelease.http.pages.models import AUDIENCES, Rung, rungs
from stagerelease.identity.rules import Permission, authorize
from stagerelease.releases import queries as releases
from stagerelease.releases.ladder import WITHDRAWN
from stagerelease.releases.queries import HoldRow, TrackRow

BATCH = 60
"""Variants read at once; those that the caller may not know of are passed over."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A model in a list. ``stage`` is None before any release (staff alone see such)."""

    repo_id: str
    label: str
    parameters: int | None
    stage: str | None
    audience: str
    who: str
    since: datetime | None
    ladder: tuple[Rung, ...]
    held: bool


def lately(work: Work, *, limit: int = 6) -> list[Listed]:
    """Return the models that moved last, as everybody may know of them."""
    moved = public_ones(work, releases.lately_moved(work, limit=limit * 10))
    first: dict[str, TrackRow] = {}
    for track in moved:
        if track.kind == "weights" or all(t.kind != "weights" for t in moved):
            first.setdefault(track.variant_id, track)
    chosen = list(first.items())[:limit]
    variants = catalog.find_variants(work, [variant_id for variant_id, _ in chosen])
    holds = releases.active_holds(work)
    counts = _counts(work, [track for _, track in chosen])
    return [_listed(work, variants[v], track, holds, counts) for v, track in chosen]


def models(work: Work, *, after: str | None, limit: int) -> tuple[list[Listed], str | None]:
    """Return a page of the models that the caller may know of, and what the next page is after."""
    staff = authorize(work.actor, Permission.CATALOG_READ_INTERNAL).allowed
    holds = releases.active_holds(work)
    found: list[Listed] = []
    while len(found) <= limit:
        variants = catalog.page_variants(work, after=after, limit=BATCH)
        leading = _leading(work, [v.id for v in variants], staff=staff)
        counts = _counts(work, leading.values())
        found += [
            _listed(work, variant, leading.get(variant.id), holds, counts)
            for variant in variants
            if staff or variant.id in leading
        ]
        if len(variants) < BATCH:
            break
        after = variants[-1].repo_id
    more = len(found) > limit
    shown = found[:limit]
    return shown, shown[-1].repo_id if more else None


def _leading(work: Work, variant_ids: Collection[str], *, staff: bool) -> dict[str, TrackRow]:
    """Return the track each variant is shown by: its newest, weights before anything else."""
    tracks = releases.tracks_of_variants(work, variant_ids)
    known: Sequence[TrackRow] = tracks if staff else public_ones(work, tracks)
    found: dict[str, TrackRow] = {}
    for track in sorted(known, key=lambda t: t.kind != "weights"):
        found.setdefault(track.variant_id, track)
    return found


def _counts(work: Work, tracks: Iterable[TrackRow]) -> dict[str, int | None]:
    """Return the exact number of parameters, from the files' headers, of each track's revision."""
    rows = catalog.find_revisions(work, {track.revision_id for track in tracks})
    return {row.id: row.parameters for row in rows.values()}


def _listed(
    work: Work,
    variant: VariantRow,
    track: TrackRow | None,
    holds: Sequence[HoldRow],
    counts: Mapping[str, int | None],
) -> Listed:
    if track is None:
        return Listed(
            variant.repo_id, variant.label, variant.parameters, None, "", "Nobody", None, (), False
        )
    plan = releases.plan_of(work, track.plan_version_id)
    now = plan.find(track.stage)
    audience = now.audience if now else ""
    covering = {None, track.id, track.family_id}
    return Listed(
        repo_id=variant.repo_id,
        label=variant.label,
        parameters=counts.get(track.revision_id) or variant.parameters,
        stage=track.stage,
        audience=audience,
        who=AUDIENCES.get(audience, "Nobody"),
        since=track.entered_at,
        ladder=rungs(plan, now),
        held=track.stage != WITHDRAWN and any(h.scope_id in covering for h in holds),
    )

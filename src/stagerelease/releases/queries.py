"""Reads of plans, tracks, stage events and holds, as frozen rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, or_, select, true

from stagerelease.catalog.tables import Variant
from stagerelease.db.types import UtcDateTime
from stagerelease.db.work import Work
from stagerelease.identity.tables import Person, RoleAssignment
from stagerelease.kernel.errors import NotFound
from stagerelease.releases.ladder import Plan
from stagerelease.releases.plans import read_plan
from stagerelease.releases.tables import Hold, HoldLift, PlanVersion, StageEvent, Track

MAX_ID = 2**31 - 1  # of the numbered rows; what is beyond cannot be there


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One version of a plan, as applied."""

    id: str
    slug: str
    version: int
    sha256: str
    created_by: str
    created_at: datetime
    leaf_idx: int
    source: str
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrackRow:
    """What is promoted, and the stage it is at."""

    id: str
    variant_id: str
    family_id: str
    repo_id: str
    kind: str
    revision_id: str
    plan_version_id: str
    stage: str
    entered_at: datetime
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StageEventRow:
    """A move of a track, as applied."""

    id: str
    track_id: str
    from_stage: str | None
    to_stage: str
    at: datetime
    promotion_id: int | None
    reason: str
    leaf_idx: int
    waived: tuple[dict[str, str], ...] = ()  # gates waived for it


@dataclass(frozen=True, slots=True)
class HoldRow:
    """A hold; ``lifted_at`` is None while it is active."""

    id: int
    scope: str
    scope_id: str | None
    reason: str
    public_reason: str
    laid_at: datetime
    laid_by: str
    lifted_at: datetime | None
    version: int
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class HoldLiftRow:
    """One person's consent to lift a hold."""

    id: str
    hold_id: int
    person_id: str
    reason: str
    at: datetime
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class HoldPage(HoldRow):
    """A hold with the consents to lift it."""

    consents: tuple[HoldLiftRow, ...]


def storable(text: str) -> bool:
    """Tell whether ``text`` could be an identifier in the database at all."""
    return len(text) <= 200 and text.isascii() and text.isprintable()


# --- plans ---------------------------------------------------------------------------------------

_PLAN = select(
    PlanVersion.id,
    PlanVersion.slug,
    PlanVersion.version,
    PlanVersion.sha256,
    PlanVersion.created_by,
    PlanVersion.created_at,
    PlanVersion.leaf_idx,
    PlanVersion.source,
    PlanVersion.document,
)
_READ: dict[str, tuple[Plan, str]] = {}  # by id of the version, which never changes


def find_plan(work: Work, slug: str, version: int | None = None) -> PlanRow | None:
    """Return a version of the plan called ``slug``, the newest unless one is named, or None."""
    if not storable(slug) or (version is not None and not 0 < version <= MAX_ID):
        return None
    statement = _PLAN.where(PlanVersion.slug == slug)
    if version is not None:
        statement = statement.where(PlanVersion.version == version)
    row = work.session.execute(statement.order_by(PlanVersion.version.desc()).limit(1)).first()
    return PlanRow(*row) if row else None


def list_plans(work: Work) -> list[PlanRow]:
    """Return every version of every plan, by name, newest first."""
    rows = work.session.execute(_PLAN.order_by(PlanVersion.slug, PlanVersion.version.desc()))
    return [PlanRow(*row) for row in rows]


def sources_of(work: Work, slug: str) -> list[str]:
    """Return the source of every version of a plan, oldest first."""
    statement = select(PlanVersion.source).where(PlanVersion.slug == slug)
    return list(work.session.scalars(statement.order_by(PlanVersion.version)))


def count_holders(work: Work, roles: Collection[str]) -> int:
    """Return how many open accounts of people hold at least one of ``roles`` now."""
    statement = (
        select(func.count(RoleAssignment.person_id.distinct()))
        .join(Person, Person.id == RoleAssignment.person_id)
        .where(
            RoleAssignment.role.in_(sorted(roles)),
            RoleAssignment.starts_at <= work.now,
            or_(RoleAssignment.ends_at.is_(None), RoleAssignment.ends_at > work.now),
            Person.kind == "human",
            Person.disabled_at.is_(None),
        )
    )
    return int(work.session.execute(statement).scalar_one())


def plan_of(work: Work, plan_version_id: str) -> Plan:
    """Return the plan of a version; read once per process, because versions never change."""
    return _plan(work, plan_version_id)[0]


def plan_sha256(work: Work, plan_version_id: str) -> str:
    """Return the SHA-256 of the source of a plan version."""
    return _plan(work, plan_version_id)[1]


def _plan(work: Work, plan_version_id: str) -> tuple[Plan, str]:
    found = _READ.get(plan_version_id)
    if found is None:
        document, sha256 = work.session.execute(
            select(PlanVersion.document, PlanVersion.sha256).where(
                PlanVersion.id == plan_version_id
            )
        ).one()
        found = _READ[plan_version_id] = (read_plan(document), sha256)
    return found


# --- tracks --------------------------------------------------------------------------------------

_TRACK = select(
    Track.id,
    Track.variant_id,
    Variant.family_id,
    Variant.repo_id,
    Track.kind,
    Track.revision_id,
    Track.plan_version_id,
    Track.stage,
    Track.entered_at,
    Track.version,
    Track.created_at,
).join(Variant, Variant.id == Track.variant_id)


def find_track(work: Work, track_id: str) -> TrackRow | None:
    """Return the track of that id, or None."""
    if not storable(track_id):
        return None
    row = work.session.execute(_TRACK.where(Track.id == track_id)).one_or_none()
    return TrackRow(*row) if row else None


def load_track(work: Work, track_id: str) -> TrackRow:
    """Return the track of that id.

    Raises:
        NotFound: there is none.
    """
    row = find_track(work, track_id)
    if row is None:
        raise NotFound(f"There is no track {track_id!r}.", reason="track.unknown")
    return row


def tracks_of_revision(work: Work, revision_id: str) -> list[TrackRow]:
    """Return the tracks of a revision, one per artifact kind."""
    rows = work.session.execute(_TRACK.where(Track.revision_id == revision_id).order_by(Track.kind))
    return [TrackRow(*row) for row in rows]


def find_tracks(work: Work, ids: Collection[str]) -> list[TrackRow]:
    """Return the tracks of these ids, at most 500; unknown ids are left out."""
    statement = _TRACK.where(Track.id.in_(sorted(ids)[:500])).order_by(Track.id)
    return [TrackRow(*row) for row in work.session.execute(statement)] if ids else []


def tracks_of_variants(work: Work, variant_ids: Collection[str]) -> list[TrackRow]:
    """Return the tracks of these variants, newest first within each."""
    statement = _TRACK.where(Track.variant_id.in_(sorted(variant_ids))).order_by(
        Track.variant_id, Track.created_at.desc(), Track.id
    )
    return [TrackRow(*row) for row in work.session.execute(statement)]


def lately_moved(work: Work, *, limit: int) -> list[TrackRow]:
    """Return the tracks that moved last, newest first, at most ``limit``."""
    statement = _TRACK.order_by(Track.entered_at.desc(), Track.id.desc()).limit(limit)
    return [TrackRow(*row) for row in work.session.execute(statement)]


def list_tracks(
    work: Work,
    *,
    variant_id: str | None = None,
    stage: str | None = None,
    families: Collection[str] | None = None,
    ids: Collection[str] | None = None,
    named: str = "",
    offset: int = 0,
    limit: int | None = None,
) -> list[TrackRow]:
    """Return tracks by variant, newest first within each.

    ``named`` is a part of the repository's name, in any case; ``offset`` and ``limit`` cut a window
    out of what is left.
    """
    statement = _TRACK.order_by(
        Variant.position, Variant.repo_id, Track.created_at.desc(), Track.id
    )
    if variant_id is not None:
        statement = statement.where(Track.variant_id == variant_id)
    if stage is not None:
        statement = statement.where(Track.stage == stage)
    if families is not None:
        statement = statement.where(Variant.family_id.in_(sorted(families)))
    if ids is not None:
        statement = statement.where(Track.id.in_(sorted(ids)))
    if named:
        statement = statement.where(Variant.repo_id.icontains(named, autoescape=True))
    if limit is not None:
        statement = statement.offset(offset).limit(limit)
    return [TrackRow(*row) for row in work.session.execute(statement)]


def stages_reached(
    work: Work, *, track_ids: Collection[str] | None = None
) -> dict[tuple[str, str], datetime]:
    """Return when each track last entered each stage it has been at, by ``(track id, stage)``.

    Of every track, or of these.
    """
    statement = select(
        StageEvent.track_id,
        StageEvent.to_stage,
        func.max(StageEvent.at, type_=UtcDateTime()),
    ).group_by(StageEvent.track_id, StageEvent.to_stage)
    if track_ids is not None:
        statement = statement.where(StageEvent.track_id.in_(sorted(track_ids)))
    rows = work.session.execute(statement)
    return {(track_id, stage): at for track_id, stage, at in rows}


def stage_events(work: Work, track_id: str) -> list[StageEventRow]:
    """Return every move of a track, oldest first."""
    rows = work.session.execute(
        select(
            StageEvent.id,
            StageEvent.track_id,
            StageEvent.from_stage,
            StageEvent.to_stage,
            StageEvent.at,
            StageEvent.promotion_id,
            StageEvent.reason,
            StageEvent.leaf_idx,
            StageEvent.waived,
        )
        .where(StageEvent.track_id == track_id)
        .order_by(StageEvent.leaf_idx)
    )
    return [StageEventRow(**{**row._mapping, "waived": tuple(row.waived or ())}) for row in rows]


# --- holds ---------------------------------------------------------------------------------------

_HOLD = select(
    Hold.id,
    Hold.scope,
    Hold.scope_id,
    Hold.reason,
    Hold.public_reason,
    Hold.laid_at,
    Hold.laid_by,
    Hold.lifted_at,
    Hold.version,
    Hold.leaf_idx,
).order_by(Hold.id)


def find_hold(work: Work, hold_id: int) -> HoldRow | None:
    """Return the hold of that number, or None."""
    if not 0 < hold_id <= MAX_ID:
        return None
    row = work.session.execute(_HOLD.where(Hold.id == hold_id)).one_or_none()
    return HoldRow(**row._mapping) if row else None


def list_holds(work: Work, *, active: bool | None = None) -> list[HoldRow]:
    """Return holds, oldest first: active ones, lifted ones, or all when None."""
    statement = _HOLD
    if active is not None:
        statement = statement.where(
            Hold.lifted_at.is_(None) if active else Hold.lifted_at.is_not(None)
        )
    return [HoldRow(**row._mapping) for row in work.session.execute(statement)]


def active_holds(work: Work, *, track_ids: Collection[str] | None = None) -> list[HoldRow]:
    """Return the active holds; with ``track_ids``, those that cover any of these tracks."""
    statement = _HOLD.where(Hold.lifted_at.is_(None))
    if track_ids is not None:
        families = (
            select(Variant.family_id)
            .join(Track, Track.variant_id == Variant.id)
            .where(Track.id.in_(track_ids))
        )
        statement = statement.where(
            or_(
                Hold.scope == "everything",
                and_(Hold.scope == "family", Hold.scope_id.in_(families)),
                and_(Hold.scope == "track", Hold.scope_id.in_(track_ids)),
            )
        )
    return [HoldRow(**row._mapping) for row in work.session.execute(statement)]


def holds_over(work: Work, track: TrackRow, *, lifted: bool = False) -> tuple[HoldRow, ...]:
    """Return the active holds that cover ``track``; with ``lifted``, those that once did too."""
    rows = work.session.execute(
        _HOLD.where(
            or_(
                Hold.scope == "everything",
                and_(Hold.scope == "family", Hold.scope_id == track.family_id),
                and_(Hold.scope == "track", Hold.scope_id == track.id),
            ),
            true() if lifted else Hold.lifted_at.is_(None),
        )
    )
    return tuple(HoldRow(**row._mapping) for row in rows)


def hold_lifts(work: Work, hold_id: int) -> list[HoldLiftRow]:
    """Return the consents to lift a hold, oldest first."""
    rows = work.session.execute(
        select(
            HoldLift.id,
            HoldLift.hold_id,
            HoldLift.person_id,
            HoldLift.reason,
            HoldLift.at,
            HoldLift.leaf_idx,
        )
        .where(HoldLift.hold_id == hold_id)
        .order_by(HoldLift.leaf_idx)
    )
    return [HoldLiftRow(*row) for row in rows]

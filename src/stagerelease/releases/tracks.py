"""Use cases on tracks: start one at the lowest stage, withdraw one, look at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stagerelease.catalog import queries as catalog
from stagerelease.catalog.rules import check_kind
from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.jobs.outbox import emit, enqueue
from stagerelease.kernel.errors import Conflict, Invalid, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.releases import queries
from stagerelease.releases.facts import PromotionRow, list_promotions
from stagerelease.releases.ladder import WITHDRAWN
from stagerelease.releases.moving import lock_open_promotions, lock_track, supersede
from stagerelease.releases.planning import plan_in_force
from stagerelease.releases.queries import HoldRow, StageEventRow, TrackRow
from stagerelease.releases.rules import check_text
from stagerelease.releases.tables import StageEvent, Track

ANNOUNCE = "releases.announce"


@dataclass(frozen=True, slots=True)
class TrackPage:
    """A track with its history, what holds it, and the requests about it."""

    track: TrackRow
    events: tuple[StageEventRow, ...]
    holds: tuple[HoldRow, ...]
    promotions: tuple[PromotionRow, ...]


def create_track(
    work: Work,
    *,
    repo_id: str,
    kind: str = "weights",
    revision: str | None = None,
    plan: str = "default",
) -> TrackRow:
    """Start a track for one artifact kind of a revision (``main`` when None), lowest stage first.

    Raises:
        NotFound: no such repository, no such revision in it, or no such plan.
        Invalid: the revision has no files of that kind.
        Conflict: that kind of that revision is on a track already.
    """
    require(work.actor, Permission.TRACK_CREATE)
    check_kind(kind)
    variant, revision_id = _revision_of(work, repo_id, revision or "main")
    if kind not in catalog.kinds(work, revision_id):
        raise Invalid(
            f"Revision {revision_id[:12]} of {variant.repo_id} has no files of kind {kind}.",
            reason="track.kind",
        )
    if any(t.kind == kind for t in queries.tracks_of_revision(work, revision_id)):
        raise Conflict(
            f"The {kind} of {revision_id[:12]} are on a track already.", reason="track.exists"
        )
    version = plan_in_force(work, plan)
    start = queries.plan_of(work, version.id).ladder[0]
    track = Track(
        id=new_id("trk"),
        variant_id=variant.id,
        kind=kind,
        revision_id=revision_id,
        plan_version_id=version.id,
        stage=start.name,
        entered_at=work.now,
        created_at=work.now,
    )
    work.session.add(track)
    work.session.flush()  # the event refers to it, and a lost race shows before the log is locked
    _record(work, track, event="track.created", before=None, policy_sha256=version.sha256)
    return queries.load_track(work, track.id)


def _revision_of(work: Work, repo_id: str, rev: str) -> tuple[catalog.VariantRow, str]:
    if not queries.storable(repo_id) or not queries.storable(rev):
        raise NotFound("There is no such repository or revision.", reason="repo")
    variant = catalog.load_variant(work, repo_id)
    revision_id = catalog.resolve_rev(work, variant.id, rev)
    row = catalog.revision(work, revision_id) if revision_id else None
    if row is None or row.variant_id != variant.id:
        raise NotFound(
            f"{variant.repo_id} has no revision {rev!r}.",
            reason="revision",
            next_step="List its revisions, or import one first.",
        )
    return variant, row.id


def _record(
    work: Work,
    track: Track,
    *,
    event: str,
    before: str | None,
    policy_sha256: str,
    reason: str = "",
    promotion_id: int | None = None,
    waived: Sequence[Mapping[str, str]] = (),
    public: bool = False,
) -> int:
    """Write the stage event of a move that was just made, announce it, and log it last."""
    if before is not None:
        enqueue(
            work,
            ANNOUNCE,
            {"track": track.id, "from": before, "to": track.stage, "promotion": promotion_id},
        )
    work.session.flush()  # every change and the job are written before the log is locked
    leaf = ledger.append(
        work,
        type=event,
        subject=f"track:{track.id}",
        prev_state=before,
        new_state=track.stage,
        detail={
            "variant": track.variant_id,
            "kind": track.kind,
            "revision": track.revision_id,
            "promotion": promotion_id,
            **({"reason": reason} if reason else {}),
            **({"waived": list(waived)} if waived else {}),
        },
        policy_sha256=policy_sha256,
        private=not public,
    )
    work.session.add(
        StageEvent(
            id=new_id("sev"),
            track_id=track.id,
            from_stage=before,
            to_stage=track.stage,
            at=work.now,
            promotion_id=promotion_id,
            reason=reason,
            leaf_idx=leaf,
            waived=list(waived),
        )
    )
    return leaf


def move_track(
    work: Work,
    track: Track,
    to: str,
    *,
    event: str,
    reason: str = "",
    promotion_id: int | None = None,
    waived: Sequence[Mapping[str, str]] = (),
) -> int:
    """Put a locked track at stage ``to``: event row, announcement and log entry in this Work.

    The caller has decided that it may. The log entry is public when outsiders may know of the
    stage it reaches or leaves; so are ``reason`` (a request's rationale is not for the public) and
    the gates ``waived`` for it then.
    """
    plan = queries.plan_of(work, track.plan_version_id)
    known = any(s.listed for name in (track.stage, to) if (s := plan.find(name)) is not None)
    before = track.stage
    track.stage = to
    track.entered_at = work.now
    return _record(
        work,
        track,
        event=event,
        before=before,
        policy_sha256=queries.plan_sha256(work, track.plan_version_id),
        reason=reason,
        promotion_id=promotion_id,
        waived=waived,
        public=known,
    )


def withdraw_track(work: Work, track_id: str, reason: str) -> TrackRow:
    """Take a track off every stage; unapplied requests about it are superseded.

    One person is enough, and no gate is asked: stopping harm never waits for paperwork. Grants on
    the track are suspended by the caller (``entitlements``), in the same transaction.

    Raises:
        Conflict: it is at the first stage, where nobody outside was let in, or withdrawn already.
    """
    require(work.actor, Permission.RELEASE_WITHDRAW)
    reason = check_text(reason, "reason")
    track = lock_track(work, track_id)
    if track.stage == WITHDRAWN:
        raise Conflict("The track is withdrawn already.", reason="track.withdrawn")
    plan = queries.plan_of(work, track.plan_version_id)
    if plan.rank(track.stage) == 0:
        raise Conflict(
            f"The track is at {track.stage}, where nobody outside has been let in: there is "
            "nothing to withdraw.",
            reason="track.internal",
        )
    competing = lock_open_promotions(work, track.id)
    supersede(work, competing, because="The track was withdrawn.")
    move_track(work, track, WITHDRAWN, event="track.withdrawn", reason=reason)
    work.session.flush()  # the row returned is read back
    row = queries.load_track(work, track.id)
    emit(
        work,
        "track.withdrawn",
        subject=f"track:{track.id}",
        roles=("owner", "release_manager", "reviewer", "security"),
        facts={
            "track_id": row.id,
            "repo_id": row.repo_id,
            "kind": row.kind,
            "reason": reason,
        },
    )
    return row


def show_track(work: Work, track_id: str) -> TrackPage:
    """Return a track with its history to somebody who may read tracks."""
    require(work.actor, Permission.TRACK_READ)
    track = queries.load_track(work, track_id)
    return TrackPage(
        track,
        tuple(queries.stage_events(work, track.id)),
        queries.holds_over(work, track),
        tuple(list_promotions(work, track_id=track.id)),
    )


def list_tracks(work: Work, *, stage: str | None = None) -> list[TrackRow]:
    """Return tracks to somebody who may read them."""
    require(work.actor, Permission.TRACK_READ)
    if stage is not None and not queries.storable(stage):
        return []
    return queries.list_tracks(work, stage=stage)

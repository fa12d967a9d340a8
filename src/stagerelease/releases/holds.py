"""Use cases on holds: one person lays one, two distinct people lift it (invariant 14)."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import select, update

from stagerelease.catalog import queries as catalog
from stagerelease.catalog.tables import Variant
from stagerelease.db.work import Work
from stagerelease.identity.rules import ROLE_PERMISSIONS, Permission, Role, require
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.errors import Conflict, Invalid, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.releases import queries
from stagerelease.releases.humans import accountable
from stagerelease.releases.moving import lock_tracks
from stagerelease.releases.people import standing
from stagerelease.releases.queries import HoldPage, HoldRow
from stagerelease.releases.rules import HOLD_SCOPES, LIFT_CONSENTS, check_text
from stagerelease.releases.tables import Hold, HoldLift, Track

_MAY_LIFT = frozenset(r for r in Role if Permission.HOLD_LIFT in ROLE_PERMISSIONS[r])

CONCERNED = ("owner", "release_manager", "reviewer", "security")
"""Roles that are told of every hold."""


def _covered(work: Work, scope: str, scope_id: str | None) -> list[str]:
    """Return the tracks a scope covers now.

    Raises:
        Invalid: no such kind of scope, or an id where none or one belongs.
        NotFound: there is no such track or family.
    """
    if scope not in HOLD_SCOPES:
        raise Invalid(f"A hold is laid over {', '.join(HOLD_SCOPES)}.", reason="hold.scope")
    if (scope == "everything") != (scope_id is None):
        raise Invalid(
            "A hold over everything names nothing; over a track or a family it names which.",
            reason="hold.scope",
        )
    if scope_id is None:
        return list(work.session.execute(select(Track.id)).scalars())
    if scope == "track":
        return [queries.load_track(work, scope_id).id]
    if scope_id not in {family.id for family in catalog.list_families(work)}:
        raise NotFound(f"There is no family {scope_id!r}.", reason="family.unknown")
    tracks = select(Track.id).join(Variant, Variant.id == Track.variant_id)
    return list(work.session.execute(tracks.where(Variant.family_id == scope_id)).scalars())


def lay_hold(
    work: Work, *, scope: str, scope_id: str | None, reason: str, public_reason: str = ""
) -> HoldRow:
    """Lay a hold over a track, a family or everything, from this instant on.

    ``reason`` is for staff; ``public_reason`` is what refused callers read.

    Raises:
        Invalid, NotFound: see the scope.
    """
    require(work.actor, Permission.HOLD_LAY)
    reason = check_text(reason, "reason")
    public_reason = check_text(public_reason, "public reason", required=False, limit=500)
    # The tracks are locked so that a promotion being applied right now is over first: it comes
    # before this hold in the log, or finds it.
    lock_tracks(work, _covered(work, scope, scope_id))
    hold = Hold(
        scope=scope,
        scope_id=scope_id,
        reason=reason,
        public_reason=public_reason,
        laid_by=work.actor.id,
        laid_at=work.now,
        leaf_idx=-1,  # known below, once the hold has its number
    )
    work.session.add(hold)
    work.session.flush()  # its number is given by the database
    leaf = ledger.append(
        work,
        type="hold.laid",
        subject=f"hold:{hold.id}",
        new_state="active",
        detail={"scope": scope, "scope_id": scope_id, "reason": reason, "public": public_reason},
    )
    work.session.execute(update(Hold).where(Hold.id == hold.id).values(leaf_idx=leaf))
    emit(work, "hold.laid", subject=f"hold:{hold.id}", roles=CONCERNED, facts=_facts(hold))
    return _load(work, hold.id)


def _facts(hold: Hold) -> dict[str, object]:
    return {
        "hold_id": hold.id,
        "scope": hold.scope,
        "scope_id": hold.scope_id,
        "reason": hold.reason,
    }


def _load(work: Work, hold_id: int) -> HoldRow:
    found = queries.find_hold(work, hold_id)
    if found is None:
        raise NotFound(f"There is no hold {hold_id}.", reason="hold.unknown")
    return found


def lift_hold(work: Work, hold_id: int, *, reason: str) -> HoldRow:
    """Record one person's consent to lift a hold; lift it once two distinct people consent.

    A consent counts while its giver may still lift holds; who laid the hold may be one of the two.

    Raises:
        Forbidden: not a human with an open account.
        Conflict: lifted already, or this person consented already.
    """
    require(work.actor, Permission.HOLD_LIFT)
    me = accountable(work, "consent to lift a hold")
    reason = check_text(reason, "reason")
    _load(work, hold_id)
    hold = work.session.execute(
        select(Hold)
        .where(Hold.id == hold_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).scalar_one()
    if hold.lifted_at is not None:
        raise Conflict(f"Hold {hold_id} is lifted already.", reason="hold.lifted")
    before = queries.hold_lifts(work, hold_id)
    if any(consent.person_id == me for consent in before):
        raise Conflict(
            "You have consented already; somebody else has to consent too.",
            reason="hold.consented",
            next_step="Ask another person who may lift holds.",
        )
    who = standing(work, sorted({me, *(c.person_id for c in before)}), lock=True)
    counted = sum(
        1
        for _, human, disabled, roles in who.values()
        if human and not disabled and roles & _MAY_LIFT
    )
    lifted = counted >= LIFT_CONSENTS
    if lifted:
        hold.lifted_at = work.now
        work.session.flush()  # a lost race over the row shows here, before the log is locked
    _log_consent(work, hold, me, reason, counted=counted)
    if lifted:
        ledger.append(
            work,
            type="hold.lifted",
            subject=f"hold:{hold.id}",
            prev_state="active",
            new_state="lifted",
            detail={"scope": hold.scope, "scope_id": hold.scope_id, "consents": counted},
        )
        emit(work, "hold.lifted", subject=f"hold:{hold.id}", roles=CONCERNED, facts=_facts(hold))
    work.session.flush()  # the row returned is read back
    return _load(work, hold_id)


def _log_consent(work: Work, hold: Hold, person_id: str, reason: str, *, counted: int) -> None:
    leaf = ledger.append(
        work,
        type="hold.lift_consented",
        subject=f"hold:{hold.id}",
        prev_state="active",
        new_state="active",
        detail={"person": person_id, "reason": reason, "consents": counted},
    )
    work.session.add(
        HoldLift(
            id=new_id("hlf"),
            hold_id=hold.id,
            person_id=person_id,
            reason=reason,
            at=work.now,
            leaf_idx=leaf,
        )
    )


def list_holds(work: Work, *, active: bool | None = None) -> list[HoldRow]:
    """Return holds to somebody who may read tracks."""
    require(work.actor, Permission.TRACK_READ)
    return queries.list_holds(work, active=active)


def show_hold(work: Work, hold_id: int) -> HoldPage:
    """Return a hold and the consents to lift it to somebody who may read tracks."""
    require(work.actor, Permission.TRACK_READ)
    hold = _load(work, hold_id)
    return HoldPage(**asdict(hold), consents=tuple(queries.hold_lifts(work, hold_id)))

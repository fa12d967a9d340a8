"""Use cases on waivers: two people let one gate into one stage of one track pass until a date.

Never for a gate every stage has: quorum, hold, incident, dwell and dates are nobody's to waive.
Whether a waiver helps a request is decided by the gates, again inside the applying transaction.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update

from stagerelease.db.work import Work
from stagerelease.identity import queries as identity
from stagerelease.identity.rules import Permission, require
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.clock import iso, said
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.releases import people, queries, waiver_rows
from stagerelease.releases.gates import KINDS, WAIVER_SIGNERS
from stagerelease.releases.humans import accountable
from stagerelease.releases.moving import lock_track
from stagerelease.releases.queries import TrackRow
from stagerelease.releases.rules import OPEN, check_text, check_waiver_end
from stagerelease.releases.tables import Promotion, Track, Waiver, WaiverSignature
from stagerelease.releases.waiver_rows import WaiverRow

__all__ = ["end_waiver", "list_waivers", "propose_waiver", "show_waiver", "sign_waiver"]


def _check_gate(work: Work, track: Track, stage: str, gate: str) -> None:
    """Return only if the plan has that gate into that stage and it may be waived.

    Raises:
        NotFound: the plan has no such stage, or no such gate into it.
        Forbidden: the gate is one no waiver can open.
    """
    target = queries.plan_of(work, track.plan_version_id).find(stage)
    if target is None:
        raise NotFound(f"The plan of this track has no stage {stage!r}.", reason="waiver.stage")
    standing = [name for name, kind in KINDS.items() if not kind.waivable]
    if gate in standing:
        raise Forbidden(
            f"The gate {gate} cannot be waived, by anybody: {', '.join(standing)} never are.",
            reason="waiver.never",
            next_step="Wait until it passes, or change the plan for tracks to come.",
        )
    keys = [spec.key for spec in target.gates]
    if gate not in keys:
        raise NotFound(
            f"The stage {stage} has no gate {gate!r} in this track's plan; it lists "
            f"{', '.join(keys) or 'none'}.",
            reason="gate.unknown",
        )


def _refuse_requester(work: Work, track_id: str, stage: str, person_id: str) -> None:
    mine = work.session.execute(
        select(Promotion.id)
        .where(
            Promotion.track_id == track_id,
            Promotion.to_stage == stage,
            Promotion.requester_id == person_id,
            Promotion.state.in_(sorted(OPEN)),
        )
        .limit(1)
    ).scalar_one_or_none()
    if mine is not None:
        raise Forbidden(
            f"You opened promotion request {mine}, which this waiver would help: a requester "
            "never signs a waiver.",
            reason="waiver.requester",
            next_step="Ask somebody else who may sign waivers.",
        )


def propose_waiver(
    work: Work, *, track_id: str, stage: str, gate: str, reason: str, ends_at: datetime
) -> WaiverRow:
    """Write a waiver and sign it as the first of two; it helps nobody before the second signs.

    ``reason`` is shown for ever, and to everyone once a promotion is applied under it.

    Raises:
        NotFound: no such track, stage or gate.
        Forbidden: a gate that is never waived; not a person; the requester of an open request.
        Invalid: the end is missing its zone, past, or further away than ``WAIVER_LIMIT``.
    """
    require(work.actor, Permission.WAIVER_SIGN)
    me = accountable(work, "sign a waiver")
    reason = check_text(reason, "reason")
    ends_at = check_waiver_end(ends_at, work.now)
    track = lock_track(work, track_id)
    _check_gate(work, track, stage, gate)
    _refuse_requester(work, track.id, stage, me)
    waiver = Waiver(
        id=new_id("wvr"),
        track_id=track.id,
        stage=stage,
        gate=gate,
        reason=reason,
        created_at=work.now,
        ends_at=ends_at,
        leaf_idx=-1,  # known below
    )
    work.session.add(waiver)
    work.session.flush()
    leaf = _sign(work, waiver, event="waiver.proposed")
    work.session.execute(update(Waiver).where(Waiver.id == waiver.id).values(leaf_idx=leaf))
    return _read_back(work, waiver)


def _sign(work: Work, waiver: Waiver, *, event: str) -> int:
    held = sorted(identity.roles_now(work, work.actor.id))
    leaf = ledger.append(
        work,
        type=event,
        subject=f"waiver:{waiver.id}",
        prev_state=None if event == "waiver.proposed" else "pending",
        new_state="pending" if waiver.signed_at is None else "in_force",
        detail={
            "person": work.actor.id,
            "roles": held,
            "track": waiver.track_id,
            "stage": waiver.stage,
            "gate": waiver.gate,
            "reason": waiver.reason,
            "ends_at": iso(waiver.ends_at),
        },
    )
    work.session.add(
        WaiverSignature(
            id=new_id("wsg"),
            waiver_id=waiver.id,
            person_id=work.actor.id,
            roles=held,
            at=work.now,
            leaf_idx=leaf,
        )
    )
    return leaf


def _read_back(work: Work, waiver: Waiver) -> WaiverRow:
    work.session.flush()
    return waiver_rows.load_waiver(work, waiver.id)


def _lock(work: Work, waiver_id: str) -> tuple[Waiver, Track]:
    """Return a waiver and its track, both locked, the track first as everywhere."""
    track = lock_track(work, waiver_rows.load_waiver(work, waiver_id).track_id)
    waiver = work.session.execute(
        select(Waiver)
        .where(Waiver.id == waiver_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).scalar_one()
    return waiver, track


def _check_not_ended(work: Work, row: WaiverRow) -> None:
    if row.until <= work.now:
        raise Conflict(
            f"The waiver ended at {said(row.until)}.",
            reason="waiver.ended",
            next_step="Propose a new one.",
        )


def sign_waiver(work: Work, waiver_id: str) -> WaiverRow:
    """Sign a waiver as its second signer, which puts it in force until its end.

    The first signature counts while its giver may still sign waivers; if it does not any more, this
    one is kept and a third is waited for.

    Raises:
        NotFound: there is no such waiver.
        Conflict: it ended, is in force already, or this person signed it already.
        Forbidden: not a person, or the requester of an open request it would help.
    """
    require(work.actor, Permission.WAIVER_SIGN)
    me = accountable(work, "sign a waiver")
    waiver, track = _lock(work, waiver_id)
    row = waiver_rows.load_waiver(work, waiver_id)
    _check_not_ended(work, row)
    if row.signed_at is not None:
        raise Conflict("The waiver is in force already.", reason="waiver.in-force")
    before = [signature.person_id for signature in row.signatures]
    if me in before:
        raise Conflict(
            "You have signed this waiver already; somebody else has to sign it too.",
            reason="waiver.signed",
            next_step="Ask another person who may sign waivers.",
        )
    _refuse_requester(work, track.id, waiver.stage, me)
    who = people.standing(work, sorted({me, *before}), lock=True)
    good = sum(
        human and not disabled and bool(roles & people.MAY_WAIVE)
        for _, human, disabled, roles in who.values()
    )
    if good >= WAIVER_SIGNERS:
        waiver.signed_at = work.now
        _tell(work, waiver, queries.load_track(work, track.id), [*before, me])
    work.session.flush()
    _sign(work, waiver, event="waiver.signed" if waiver.signed_at else "waiver.cosigned")
    return _read_back(work, waiver)


def _tell(work: Work, waiver: Waiver, track: TrackRow, signers: list[str]) -> None:
    emit(
        work,
        "waiver.signed",
        subject=f"waiver:{waiver.id}",
        people=signers,
        roles=["release_manager", "reviewer", "security", "auditor"],
        facts={
            "waiver_id": waiver.id,
            "track_id": track.id,
            "repo_id": track.repo_id,
            "kind": track.kind,
            "stage": waiver.stage,
            "gate": waiver.gate,
            "reason": waiver.reason,
            "until": iso(waiver.ends_at),
        },
    )


def end_waiver(work: Work, waiver_id: str, *, reason: str) -> WaiverRow:
    """End a waiver before its time. One person is enough: it only makes things stricter.

    Raises:
        NotFound: there is no such waiver.
        Conflict: it ended already.
        Forbidden: not a person.
    """
    require(work.actor, Permission.WAIVER_SIGN)
    accountable(work, "end a waiver")
    reason = check_text(reason, "reason")
    waiver, _ = _lock(work, waiver_id)
    row = waiver_rows.load_waiver(work, waiver_id)
    _check_not_ended(work, row)
    waiver.ended_at, waiver.end_reason = work.now, reason
    work.session.flush()
    ledger.append(
        work,
        type="waiver.ended",
        subject=f"waiver:{waiver.id}",
        prev_state=row.state,
        new_state="ended",
        detail={"person": work.actor.id, "reason": reason, "track": waiver.track_id},
    )
    return _read_back(work, waiver)


def show_waiver(work: Work, waiver_id: str) -> WaiverRow:
    """Return a waiver to somebody who may read promotion requests."""
    require(work.actor, Permission.PROMOTION_READ)
    return waiver_rows.load_waiver(work, waiver_id)


def list_waivers(
    work: Work,
    *,
    track_id: str | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> list[WaiverRow]:
    """Return waivers, ended ones too, to somebody who may read promotion requests."""
    require(work.actor, Permission.PROMOTION_READ)
    for text in (track_id, after):
        if text is not None and not queries.storable(text):
            raise Invalid("That is no id.", reason="waiver.id")
    return waiver_rows.list_waivers(work, track_id=track_id, after=after, limit=limit)

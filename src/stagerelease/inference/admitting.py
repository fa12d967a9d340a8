"""Lets one request through to an engine, asks again while it runs, and records what it used.

``prepare`` decides and reserves in one transaction, before anything is computed; ``finish`` puts
what was really used in the reservation's place. No connection is held in between. What a process
that died had reserved is free again once it has expired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from stagerelease.db.counting import insert_into
from stagerelease.db.epoch import read_epoch
from stagerelease.db.work import Work, Works
from stagerelease.engine.ports import Checkpoint
from stagerelease.entitlements import service as entitlements
from stagerelease.identity import service as identity
from stagerelease.identity import sessions
from stagerelease.inference import keeping, queries
from stagerelease.inference.models import (
    CONFIG,
    Contexts,
    checkpoint_of,
    prompts_are_kept,
    resolve,
)
from stagerelease.inference.rules import (
    Left,
    Limits,
    Meter,
    fresh,
    left_of,
    most_tokens,
    overridden,
    reserve,
    settle,
)
from stagerelease.inference.tables import InferenceMeter, InferenceRequest
from stagerelease.kernel.actor import ANONYMOUS, SYSTEM, Actor
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import DomainError, Invalid, Unauthenticated
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger

SLACK = timedelta(seconds=30)
"""How long after the longest request's end its reservation still counts."""
MOST_LOST = 500
"""Reservations of dead processes set right in one go."""


@dataclass(frozen=True, slots=True)
class House:
    """What holds for everybody: limits, the longest a request may run, how long prompts stay."""

    limits: Limits
    longest: timedelta
    prompts_kept_for: timedelta


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, as far as admission needs to know.

    ``bounds``: the most tokens each prompt can have. ``prompts``: their text, for the case that the
    plan keeps prompts.
    """

    model: str
    kind: str  # completion | chat | score
    bounds: Sequence[int]
    prompts: Sequence[str]
    n: int = 1
    max_tokens: int = 0

    @property
    def sequences(self) -> int:
        """Return how many sequences this runs at once."""
        return len(self.bounds) * self.n


@dataclass(frozen=True, slots=True)
class Permit:
    """A request let through: which model, under what, how much, and what the caller is told.

    ``cache_salt`` names the caller to the engine without saying who it is: what is computed for one
    caller's prompt never makes another's answer come sooner.
    """

    request_id: str
    at: datetime
    checkpoint: Checkpoint
    context: int | None
    stage: str | None
    grant_id: str | None
    token_id: str | None
    epoch: int
    until: datetime | None
    prompt_logging: bool
    limits: Limits
    left: tuple[Left, ...]
    cache_salt: str
    session_id: str | None = None


def prepare(work: Work, contexts: Contexts, asked: Asked, house: House) -> Permit:
    """Decide on one request for ``work.actor`` and reserve what it may use.

    Raises:
        Unauthenticated: nobody is known; quotas need a holder.
        NotFound: the model is not there, or the caller may not know of it.
        Gated: the caller may not ask it now; says why and what to do.
        Invalid: it is no model, or more is asked for than could ever be allowed.
        QuotaSpent: the quota is used up for now; says until when.
    """
    if not work.actor.is_human:
        raise Unauthenticated("Asking a model needs a token.", reason="token.missing")
    epoch = read_epoch(work.session.connection())
    entitled = resolve(work, asked.model)
    if not entitled.decision.allowed:
        raise entitlements.refuse(entitled.decision, work.actor)
    checkpoint = checkpoint_of(work, entitled)
    context = contexts.of(checkpoint.files[CONFIG])
    grant_id = entitled.decision.grant_id
    limits = limits_of(work, house.limits, grant_id)
    _require_modest(asked, limits)
    row = InferenceRequest(
        id=new_id("inf"),
        holder=_holder(work.actor, grant_id),
        grant_id=grant_id,
        person_id=work.actor.id,
        token_id=work.actor.token_id,
        track_id=entitled.track.id if entitled.track is not None else None,
        revision_id=checkpoint.commit,
        kind=asked.kind,
        sequences=asked.sequences,
        reserved_tokens=most_tokens(
            asked.bounds, n=asked.n, max_tokens=asked.max_tokens, context=context
        ),
        started_at=work.now,
        expires_at=work.now + house.longest + SLACK,
    )
    meter = _reserve(work, limits, row)
    kept = prompts_are_kept(work, entitled)
    if kept:
        keeping.keep(work, row.id, asked.prompts, kept_for=house.prompts_kept_for)
    return Permit(
        request_id=row.id,
        at=work.now,
        checkpoint=checkpoint,
        context=context,
        stage=entitled.stage,
        grant_id=grant_id,
        token_id=work.actor.token_id,
        epoch=epoch,
        until=entitled.decision.until,
        prompt_logging=kept,
        limits=limits,
        left=left_of(meter, limits, work.now),
        cache_salt=sha256_hex(f"{row.holder}/{work.actor.id}".encode())[:32],
        session_id=work.actor.session_id,
    )


def limits_of(work: Work, common: Limits, grant_id: str | None) -> Limits:
    """Return what a grant may ask: its own limits where it has them, else everybody's."""
    own = queries.find_limits(work, grant_id) if grant_id is not None else None
    return overridden(common, own.limits) if own is not None else common


def _holder(actor: Actor, grant_id: str | None) -> str:
    return f"grant:{grant_id}" if grant_id is not None else f"person:{actor.id}"


def _require_modest(asked: Asked, limits: Limits) -> None:
    if asked.max_tokens > limits.max_tokens:
        raise Invalid(
            f"max_tokens is {asked.max_tokens:,}; your quota is {limits.max_tokens:,} a request.",
            reason="quota.max_tokens",
            next_step="Ask for less, or ask the access officer.",
        )


def _reserve(work: Work, limits: Limits, row: InferenceRequest) -> Meter:
    """Count a request before it runs. The holder's row is locked first: they come one by one."""
    kept = _lock_meter(work, row.holder)
    meter = reserve(
        _meter(kept),
        limits,
        work.now,
        tokens=row.reserved_tokens,
        sequences=row.sequences,
        running=queries.running(work, row.holder),
    )
    _store(kept, meter)
    work.session.add(row)
    work.session.flush()  # a kept prompt refers to it
    return meter


def _lock_meter(work: Work, holder: str) -> InferenceMeter:
    new = fresh(work.now)
    values = {
        "holder": holder,
        "minute": new.minute,
        "minute_requests": 0,
        "minute_tokens": 0,
        "day": new.day,
        "day_tokens": 0,
    }
    work.session.execute(insert_into(work, InferenceMeter).values(values).on_conflict_do_nothing())
    return work.session.execute(
        select(InferenceMeter).where(InferenceMeter.holder == holder).with_for_update()
    ).scalar_one()


def _meter(row: InferenceMeter) -> Meter:
    return Meter(row.minute, row.minute_requests, row.minute_tokens, row.day, row.day_tokens)


def _store(row: InferenceMeter, meter: Meter) -> None:
    row.minute, row.minute_requests = meter.minute, meter.minute_requests
    row.minute_tokens, row.day, row.day_tokens = meter.minute_tokens, meter.day, meter.day_tokens


def recheck(works: Works, permit: Permit) -> tuple[datetime | None, DomainError | None]:
    """Ask again, now, whether a request under way may go on: until when, or why not."""
    with works.begin(ANONYMOUS, read_only=True) as work:
        try:
            if permit.token_id is not None:
                work.actor = identity.actor_of_token(work, permit.token_id)
            elif permit.session_id is not None:
                work.actor = sessions.actor_of_session(work, permit.session_id)
            name = f"{permit.checkpoint.repo_id}@{permit.checkpoint.commit}"
            entitled = resolve(work, name)
        except DomainError as refused:
            return None, refused
        if not entitled.decision.allowed or entitled.revision.id != permit.checkpoint.commit:
            return None, entitlements.refuse(entitled.decision, work.actor)
        return entitled.decision.until, None


def finish(
    works: Works,
    request_id: str,
    *,
    prompt_tokens: int | None,
    completion_tokens: int,
    milliseconds: int,
    outcome: str,
) -> None:
    """Record what a request used and how it ended, and put that in its reservation's place.

    ``prompt_tokens`` is None when it is not known how many were computed: then all that was
    reserved counts. Never more than that counts: a server that only estimates may tell more.
    ``outcome`` is ``completed``, ``client_left``, ``cut`` (the caller may no longer), ``stalled``
    (the client did not read) or the reason of the refusal or failure.
    """
    with works.begin(SYSTEM, quiet=True) as work:
        holder = work.session.execute(
            select(InferenceRequest.holder).where(InferenceRequest.id == request_id)
        ).scalar_one()
        kept = _lock_meter(work, holder)
        row = work.session.get_one(InferenceRequest, request_id, with_for_update=True)
        if row.ended_at is not None:  # it had expired meanwhile and was set right
            return
        most = row.reserved_tokens
        row.completion_tokens = min(completion_tokens, most)
        most -= row.completion_tokens
        row.prompt_tokens = most if prompt_tokens is None else min(prompt_tokens, most)
        row.milliseconds = milliseconds
        _end(work, kept, row, outcome)
        ledger.enqueue_bulk(
            work,
            type="inference.completed",
            subject=f"inference:{row.id}",
            actor=row.person_id or ANONYMOUS.id,
            detail={
                "track": row.track_id,
                "grant": row.grant_id,
                "revision": row.revision_id,
                "kind": row.kind,
                "sequences": row.sequences,
                "prompt_tokens": row.prompt_tokens,
                "completion_tokens": row.completion_tokens,
                "outcome": row.outcome,
            },
        )


def _end(work: Work, kept: InferenceMeter, row: InferenceRequest, outcome: str) -> None:
    row.ended_at, row.outcome = work.now, outcome[:32]
    used = row.prompt_tokens + row.completion_tokens
    meter = settle(
        _meter(kept), work.now, reserved_at=row.started_at, reserved=row.reserved_tokens, used=used
    )
    _store(kept, meter)


def lost_due(work: Work) -> bool:
    """Tell whether a process died with requests under way; takes no lock."""
    return bool(_lost(work, limit=1))


def _lost(work: Work, *, limit: int) -> list[tuple[str, str]]:
    rows = work.session.execute(
        select(InferenceRequest.id, InferenceRequest.holder)
        .where(InferenceRequest.ended_at.is_(None), InferenceRequest.expires_at <= work.now)
        .order_by(InferenceRequest.holder, InferenceRequest.id)  # one order for all: no deadlock
        .limit(limit)
    )
    return [(row[0], row[1]) for row in rows]


def settle_lost(work: Work) -> None:
    """End, as ``lost``, what processes that died had reserved; what they used is not known."""
    for request_id, holder in _lost(work, limit=MOST_LOST):
        kept = _lock_meter(work, holder)
        row = work.session.get_one(InferenceRequest, request_id, with_for_update=True)
        if row.ended_at is None:
            _end(work, kept, row, "lost")

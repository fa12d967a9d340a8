"""What a promotion would meet at some date, and when it could first go: nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.errors import Blocked, Invalid
from stagerelease.releases import facts, queries, rules
from stagerelease.releases.gates import Facts, GateResult, evaluate
from stagerelease.releases.plans import parse_plan

HORIZON_DAYS = 3 * 366
HUMAN = frozenset({"quorum", "manual"})
"""Gates that people pass by acting: no date passes them, so none is waited for."""

SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Simulation:
    """What would be said ``at``, and ``first_at``, when it could first go through.

    ``first_at`` supposes that every gate asked of people (``asked``) is passed by then; it is None
    when some gate (``never``) stays shut for three years whatever the date.
    """

    track_id: str
    to: str
    at: datetime
    gates: tuple[GateResult, ...]
    first_at: datetime | None
    asked: tuple[str, ...]
    never: tuple[str, ...]


def simulate(
    work: Work, track_id: str, to: str, *, at: datetime | None = None, source: str | None = None
) -> Simulation:
    """Return every gate of a move to ``to`` as it would stand ``at`` (now when None).

    What is known now is taken as it is: evidence, holds, grants. ``source`` tries another plan than
    the track's own.

    Raises:
        NotFound: there is no such track.
        Blocked: ``to`` is not the next stage under that plan.
        Invalid: ``at`` lies in the past or beyond three years, or ``source`` is not a plan.
    """
    require(work.actor, Permission.PROMOTION_READ)
    at = at or work.now
    if not work.now <= at <= work.now + timedelta(days=HORIZON_DAYS):
        raise Invalid(
            "A simulation looks from now to three years ahead.",
            reason="simulate.range",
            next_step="Give a date in that span.",
        )
    track = queries.load_track(work, track_id)
    own = queries.plan_of(work, track.plan_version_id)
    plan = parse_plan(source) if source is not None else own
    wrong = rules.step(plan, track.stage, to)
    if wrong is not None:
        raise Blocked([wrong], next_step="Ask for the next stage.")
    known = facts.imagine(work, track, to, target=plan.stage(to))
    results = evaluate(replace(known, at=at))
    first = first_open(known, work.now)
    last = evaluate(replace(known, at=work.now + timedelta(days=HORIZON_DAYS)))
    return Simulation(
        track_id=track.id,
        to=to,
        at=at,
        gates=results,
        first_at=first,
        asked=tuple(r.key for r in results if r.kind in HUMAN and not r.passed),
        never=() if first else tuple(r.key for r in last if r.kind not in HUMAN and not r.passed),
    )


def first_open(known: Facts, now: datetime) -> datetime | None:
    """Return the first second, from ``now`` on, at which no gate but those of people is shut.

    Looks day by day, then by halves: a gate may shut again (evidence ages), so the first open day
    is not found by halves alone.
    """

    def is_open(at: datetime) -> bool:
        return all(r.passed for r in evaluate(replace(known, at=at)) if r.kind not in HUMAN)

    if is_open(now):
        return now
    for day in range(1, HORIZON_DAYS + 1):
        until = now + timedelta(days=day)
        if is_open(until):
            return _by_halves(until - timedelta(days=1), until, is_open)
    return None


def _by_halves(shut: datetime, opened: datetime, is_open: Callable[[datetime], bool]) -> datetime:
    while opened - shut > SECOND:
        middle = shut + (opened - shut) // 2
        if is_open(middle):
            opened = middle
        else:
            shut = middle
    return opened

"""When a release may move, and why not. Pure: no clock, no database, no I/O.

The life of a promotion request is the table ``MOVES``; whether one may be applied is ``blockers``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from stagerelease.kernel.canonical import canonical_sha256
from stagerelease.kernel.clock import iso, said
from stagerelease.kernel.errors import Blocker, Conflict, Invalid
from stagerelease.releases.gates import Facts, GateResult, Outcome, evaluate
from stagerelease.releases.ladder import WITHDRAWN, Plan

HOLD_SCOPES = ("track", "family", "everything")
LIFT_CONSENTS = 2
"""Laying a hold needs one person; lifting it needs this many (invariant 14)."""

MAX_TEXT = 4000
SCHEDULE_LIMIT = timedelta(days=3 * 366)


class State(StrEnum):
    """Where a promotion request is."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    IN_REVIEW = "in_review"
    CHANGES_REQUESTED = "changes_requested"
    APPROVED = "approved"
    SCHEDULED = "scheduled"
    APPLIED = "applied"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


S = State
ENDED = frozenset({S.APPLIED, S.REJECTED, S.CANCELLED, S.EXPIRED, S.SUPERSEDED})
OPEN = frozenset(State) - ENDED
REVIEWABLE = frozenset({S.SUBMITTED, S.IN_REVIEW, S.APPROVED, S.SCHEDULED})
"""States in which a reviewer may approve, reject or answer a manual gate."""

_ALWAYS = frozenset({S.CANCELLED, S.EXPIRED, S.SUPERSEDED})
MOVES: dict[State, frozenset[State]] = {
    S.DRAFT: _ALWAYS | {S.DRAFT, S.SUBMITTED},
    S.SUBMITTED: _ALWAYS | {S.DRAFT, S.SUBMITTED, S.IN_REVIEW},
    S.IN_REVIEW: _ALWAYS | {S.DRAFT, S.IN_REVIEW, S.CHANGES_REQUESTED, S.REJECTED, S.APPROVED},
    S.CHANGES_REQUESTED: _ALWAYS | {S.DRAFT},
    S.APPROVED: _ALWAYS | {S.DRAFT, S.IN_REVIEW, S.REJECTED, S.SCHEDULED, S.APPLIED},
    S.SCHEDULED: _ALWAYS | {S.DRAFT, S.IN_REVIEW, S.REJECTED, S.APPLIED},
    **{state: frozenset() for state in ENDED},
}
"""Every move of a promotion request there is. ``→ draft`` is an edit, which voids approvals; from
``approved`` or ``scheduled`` back to ``in_review``, or to where it is, is a re-opening, which voids
them too (evidence it rests on was retracted or disputed)."""

REOPENED = {
    S.SUBMITTED: S.SUBMITTED,
    S.IN_REVIEW: S.IN_REVIEW,
    S.APPROVED: S.IN_REVIEW,
    S.SCHEDULED: S.IN_REVIEW,
}
"""Where a re-opened request goes. A draft and one sent back hold no approval that could count."""

WAIVER_LIMIT = timedelta(days=90)
"""The longest a waiver may last: what is waived for longer belongs into the plan."""

MAX_EVIDENCE = 200
"""How many pieces of evidence one request can name."""


def check_move(state: str, to: State) -> None:
    """Return only if a request in ``state`` may move to ``to``.

    Raises:
        Conflict: the table does not have that move; says what state the request is in.
    """
    if to not in MOVES[State(state)]:
        raise Conflict(
            f"The promotion request is {in_words(state)}, and that does not lead to "
            f"{in_words(to)}.",
            reason=f"promotion.{state}",
            next_step="Open a new request." if State(state) in ENDED else "Look at its state.",
        )


def in_words(state: str) -> str:
    """Return a state as a person reads it."""
    return str(state).replace("_", " ")


def check_text(text: str, what: str, *, required: bool = True, limit: int = MAX_TEXT) -> str:
    """Return ``text`` trimmed, if it is 1..``limit`` characters that every database can keep.

    Raises:
        Invalid: empty (when ``required``), too long, or with control characters.
    """
    text = text.strip()
    if (required and not text) or len(text) > limit:
        least = 1 if required else 0
        raise Invalid(f"The {what} must be {least} to {limit} characters.", reason="text.malformed")
    if not all(c.isprintable() or c in "\n\t" for c in text):
        raise Invalid(
            f"The {what} holds control characters, which are not kept.", reason="text.malformed"
        )
    return text


def check_schedule(scheduled_for: datetime | None, now: datetime) -> datetime | None:
    """Return the instant in UTC to the millisecond, as it is hashed and shown.

    Raises:
        Invalid: without a zone, in the past, or more than three years ahead.
    """
    if scheduled_for is None:
        return None
    if scheduled_for.tzinfo is None:
        raise Invalid("Say in which zone that time is.", reason="schedule.zone")
    if not now < scheduled_for <= now + SCHEDULE_LIMIT:
        raise Invalid(
            "A request can be scheduled for a time to come, at most three years ahead.",
            reason="schedule.range",
        )
    at = scheduled_for.astimezone(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


@dataclass(frozen=True, slots=True)
class Vouched:
    """Everything an approval vouches for. ``edition`` counts edits, so no hash comes back."""

    track_id: str
    from_stage: str
    to_stage: str
    manifests: tuple[str, ...]
    evidence_ids: tuple[str, ...]
    plan_sha256: str
    rationale: str
    scheduled_for: datetime | None
    edition: int


def check_waiver_end(ends_at: datetime, now: datetime) -> datetime:
    """Return the end of a waiver in UTC to the millisecond.

    Raises:
        Invalid: without a zone, in the past, or further away than ``WAIVER_LIMIT``.
    """
    if ends_at.tzinfo is None:
        raise Invalid("Say in which zone that time is.", reason="waiver.zone")
    if not now < ends_at <= now + WAIVER_LIMIT:
        raise Invalid(
            f"A waiver ends at a time to come, at most {WAIVER_LIMIT.days} days ahead.",
            reason="waiver.range",
            next_step="Give an earlier date; what is to be waived for longer belongs in the plan.",
        )
    at = ends_at.astimezone(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def request_hash(vouched: Vouched) -> str:
    """Return the SHA-256 of the canonical JSON (RFC 8785) of what approvals vouch for.

    The order of evidence does not matter, and evidence named twice counts once.
    """
    return canonical_sha256(
        {
            "track": vouched.track_id,
            "from": vouched.from_stage,
            "to": vouched.to_stage,
            "manifests": sorted(set(vouched.manifests)),
            "evidence": sorted(set(vouched.evidence_ids)),
            "plan": vouched.plan_sha256,
            "rationale": vouched.rationale,
            "scheduled_for": iso(vouched.scheduled_for) if vouched.scheduled_for else None,
            "edition": vouched.edition,
        }
    )


def step(plan: Plan, stage: str, to: str) -> Blocker | None:
    """Return why a track at ``stage`` cannot be asked to move to ``to``; None when it can."""
    if stage == WITHDRAWN:
        return Blocker("withdrawn", "The track is withdrawn, and nothing leads out of that.")
    above = plan.next(stage)
    if above is not None and above.name == to:
        return None
    leads = f"the next stage is {above.name}" if above else "there is no stage above it"
    return Blocker(
        "no-such-move",
        f"The track is at {stage}, and it moves one stage at a time: {leads}, not {to!r}.",
    )


def blockers(facts: Facts, results: Sequence[GateResult] | None = None) -> tuple[Blocker, ...]:
    """Return every reason why this request cannot be applied now; an empty tuple means go.

    ``results`` may hand in gates already evaluated on the same facts.
    """
    found: list[Blocker] = []
    state = State(facts.state)
    if state in ENDED:
        return (Blocker("ended", f"The request is {in_words(state)}; its decision is over."),)
    if facts.track_stage != facts.from_stage:
        found.append(
            Blocker(
                "stage-moved",
                f"The request is about leaving {facts.from_stage}, and the track is at "
                f"{facts.track_stage} now.",
            )
        )
    if facts.expires_at is not None and facts.at >= facts.expires_at:
        found.append(Blocker("expired", f"The request expired at {said(facts.expires_at)}."))
    if state not in REVIEWABLE:
        found.append(
            Blocker(
                "not-submitted",
                f"The request is {in_words(state)}: it has to be submitted and reviewed first.",
            )
        )
    for result in evaluate(facts) if results is None else results:
        if not result.passed:
            found.append(Blocker(f"gate.{result.kind}", _because(result)))
    return tuple(found)


def _because(result: GateResult) -> str:
    said = result.sentence if result.key == result.kind else f"{result.key}: {result.sentence}"
    if result.outcome is Outcome.INCONCLUSIVE:
        return f"{said} It waits for one recorded judgement."
    return said


def expiry(submitted_at: datetime, scheduled_for: datetime | None, plan: Plan) -> datetime:
    """Return when an unapplied request expires: its plan's lifetime after the later of the two."""
    return max(submitted_at, scheduled_for or submitted_at) + plan.request_lifetime

"""The gates of a promotion request: an open set, one class each. Pure: facts in, results out.

A new kind is one class here and one line in ``KINDS``; plans may then list it and every face shows
it. A gate reads ``Facts`` only: it must not ask the time, a database or the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from stagerelease.kernel.clock import iso
from stagerelease.releases.ladder import GateSpec, Stage


class Outcome(StrEnum):
    """What a gate says. Only ``passed`` lets a request through."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class ApprovalFact:
    """One approval, with what its giver is at this instant (not when it was given)."""

    person_id: str
    name: str
    request_hash: str
    human: bool
    disabled: bool
    roles: frozenset[str]


@dataclass(frozen=True, slots=True)
class JudgementFact:
    """One recorded human answer to a manual gate."""

    gate: str
    request_hash: str
    person_id: str
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class HoldFact:
    """A hold that covers the track; ``until`` is None while it is active."""

    id: int
    reason: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a decision on a request may look at, read at the instant ``at``.

    ``first_served_at``: when the audience of the stage below could first fetch, None if not yet.
    """

    at: datetime
    track_stage: str
    from_stage: str
    target: Stage
    state: str
    requester: str
    request_hash: str
    entered_at: datetime
    first_served_at: datetime | None
    approvals: Sequence[ApprovalFact] = ()
    judgements: Sequence[JudgementFact] = ()
    holds: Sequence[HoldFact] = ()  # active and lifted alike
    scheduled_for: datetime | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class GateResult:
    """A gate's answer in words: the rule, what was measured against what, and the sentence."""

    key: str
    kind: str
    rule: str
    measured: str
    threshold: str
    outcome: Outcome
    sentence: str

    @property
    def passed(self) -> bool:
        """Tell whether this gate lets the request through."""
        return self.outcome is Outcome.PASSED


class Gate(Protocol):
    """A kind of gate. ``options`` maps each option a plan must give to what it means."""

    kind: str
    listed: bool  # may a plan list it? The others come from a stage's own fields.
    options: Mapping[str, str]

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Return the answer for ``facts``."""
        ...


def words(span: timedelta) -> str:
    """Return a length of time as a person says it: ``13 d 4 h``; seconds only below a minute."""
    seconds = max(int(span.total_seconds()), 0)
    if 0 < seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    parts = ((minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min"))
    said = " ".join(f"{count} {unit}" for count, unit in parts if count)
    return said or "0 min"


def time_held(holds: Sequence[HoldFact], start: datetime, end: datetime) -> timedelta:
    """Return how much of ``start``..``end`` lies under at least one hold (overlaps count once)."""
    total = timedelta(0)
    reached = start
    for hold in sorted(holds, key=lambda h: h.since):
        since = max(hold.since, reached)
        until = min(hold.until or end, end)
        if until > since:
            total += until - since
            reached = until
    return total


def dwell(facts: Facts) -> timedelta | None:
    """Return how long the stage below has really been served, without time under holds.

    Counts from the later of entering the stage and its audience's first chance to fetch
    (invariant 5); None while that audience has had no chance.
    """
    if facts.first_served_at is None:
        return None
    start = max(facts.entered_at, facts.first_served_at)
    if start >= facts.at:
        return timedelta(0)
    return facts.at - start - time_held(facts.holds, start, facts.at)


class Dwell:
    """Minimum time in the stage below, counted from when its audience could fetch."""

    kind = "dwell"
    listed = False
    options: Mapping[str, str] = {}

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass once the time served reaches the plan's minimum; a minimum of zero always passes."""
        minimum = facts.target.minimum_dwell
        served = dwell(facts)
        rule = (
            f"At least {words(minimum)} at {facts.from_stage}, holds not counted."
            if minimum
            else f"No minimum time at {facts.from_stage}."
        )
        if served is None:
            measured = "nobody could fetch yet"
            outcome = Outcome.PENDING if minimum else Outcome.PASSED
            sentence = (
                f"The audience of {facts.from_stage} has had no chance to fetch yet, so its "
                f"{words(minimum)} have not begun."
                if minimum
                else "No minimum time is asked."
            )
        else:
            measured = words(served)
            outcome = Outcome.PASSED if served >= minimum else Outcome.PENDING
            left = minimum - served
            sentence = (
                f"Served {words(served)} at {facts.from_stage}."
                if outcome is Outcome.PASSED
                else f"Served {measured} of {words(minimum)} at {facts.from_stage}; "
                f"{words(left)} to go."
            )
        return GateResult(spec.key, self.kind, rule, measured, words(minimum), outcome, sentence)


def counted(facts: Facts) -> tuple[ApprovalFact, ...]:
    """Return the approvals that count now, one per person (invariant 1).

    Counts: of exactly this request, by a human who is not the requester, whose account is open and
    who holds one of the quorum's roles at this instant.
    """
    seen: dict[str, ApprovalFact] = {}
    for approval in facts.approvals:
        if (
            approval.request_hash == facts.request_hash
            and approval.person_id != facts.requester
            and approval.human
            and not approval.disabled
            and approval.roles & frozenset(facts.target.quorum.roles)
        ):
            seen[approval.person_id] = approval
    return tuple(seen.values())


class QuorumMet:
    """Enough distinct people of the named roles approved exactly this request."""

    kind = "quorum"
    listed = False
    options: Mapping[str, str] = {}

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass once the approvals that count reach the plan's quorum."""
        quorum = facts.target.quorum
        have = counted(facts)
        who = " or ".join(quorum.roles)
        short = quorum.count - len(have)
        names = ", ".join(sorted(a.name for a in have))
        sentence = (
            f"Approved by {names}."
            if short <= 0
            else f"{len(have)} of {quorum.count} approvals"
            + (f" ({names})" if have else "")
            + f"; {short} more by a {who} who did not open the request."
        )
        return GateResult(
            spec.key,
            self.kind,
            f"At least {quorum.count} people with the role {who}, never the requester.",
            str(len(have)),
            str(quorum.count),
            Outcome.PASSED if short <= 0 else Outcome.PENDING,
            sentence,
        )


class NoHold:
    """No active hold covers the track, its family or everything."""

    kind = "hold"
    listed = False
    options: Mapping[str, str] = {}

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass while no hold is active."""
        active = [hold for hold in facts.holds if hold.until is None]
        sentence = (
            "No hold is active."
            if not active
            else " ".join(f"On hold ({hold.id}): {hold.reason}" for hold in active)
        )
        return GateResult(
            spec.key,
            self.kind,
            "No hold covers this track.",
            f"{len(active)} active",
            "0 active",
            Outcome.FAILED if active else Outcome.PASSED,
            sentence,
        )


class NotBefore:
    """A date has come: the plan's for the stage, and the request's own."""

    kind = "not_before"
    listed = False
    options: Mapping[str, str] = {}

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass once the latest of the dates asked for has come."""
        dates = [d for d in (facts.target.not_before, facts.scheduled_for) if d is not None]
        if not dates:
            return GateResult(
                spec.key,
                self.kind,
                "No date is set.",
                iso(facts.at),
                "none",
                Outcome.PASSED,
                "No date is set.",
            )
        due = max(dates)
        passed = facts.at >= due
        return GateResult(
            spec.key,
            self.kind,
            f"Not before {iso(due)}.",
            iso(facts.at),
            iso(due),
            Outcome.PASSED if passed else Outcome.PENDING,
            f"{iso(due)} has come." if passed else f"Not before {iso(due)}.",
        )


class Manual:
    """A question that one person answers once, on record."""

    kind = "manual"
    listed = True
    options: Mapping[str, str] = {"question": "what the person is asked to judge"}

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass or fail as answered; wait until somebody other than the requester answers."""
        rule = spec.options["question"]
        answer = next(
            (
                j
                for j in facts.judgements
                if j.gate == spec.key
                and j.request_hash == facts.request_hash
                and j.person_id != facts.requester
            ),
            None,
        )
        if answer is None:
            measured, outcome = "no answer", Outcome.PENDING
            sentence = f"Nobody has answered '{rule}' yet."
        elif answer.passed:
            measured, outcome = "yes", Outcome.PASSED
            sentence = f"Answered yes: {answer.reason}"
        else:
            measured, outcome = "no", Outcome.FAILED
            sentence = f"Answered no: {answer.reason}"
        return GateResult(spec.key, self.kind, rule, measured, "yes", outcome, sentence)


KINDS: dict[str, Gate] = {
    gate.kind: gate for gate in (Dwell(), QuorumMet(), NoHold(), NotBefore(), Manual())
}
"""Every kind of gate there is."""


def specs_of(stage: Stage) -> tuple[GateSpec, ...]:
    """Return the gates into ``stage``: those every stage has, then those its plan lists."""
    always = tuple(GateSpec(kind, kind) for kind, gate in KINDS.items() if not gate.listed)
    return always + stage.gates


def evaluate(facts: Facts) -> tuple[GateResult, ...]:
    """Return the result of every gate of the stage asked for, in the plan's order."""
    return tuple(_one(spec, facts) for spec in specs_of(facts.target))


def _one(spec: GateSpec, facts: Facts) -> GateResult:
    gate = KINDS.get(spec.kind)
    if gate is None:  # a plan applied by a version that knew more kinds: block, never guess
        return GateResult(
            spec.key,
            spec.kind,
            f"Gate of kind {spec.kind!r}.",
            "unknown",
            "unknown",
            Outcome.ERROR,
            f"This version does not know gates of kind {spec.kind!r}, so it cannot pass one.",
        )
    return gate.result(spec, facts)

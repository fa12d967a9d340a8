"""The gates every stage has: dwell, quorum, hold, date, incident. Pure.

No plan lists or drops one, and no waiver opens one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from stagerelease.kernel.clock import said
from stagerelease.releases.gates.base import (
    ApprovalFact,
    Facts,
    GapFact,
    GateResult,
    HoldFact,
    JudgementFact,
    Outcome,
    Standing,
    words,
)
from stagerelease.releases.ladder import GateSpec


def time_held(stops: Sequence[HoldFact | GapFact], start: datetime, end: datetime) -> timedelta:
    """Return how much of ``start``..``end`` lies in at least one stop (overlaps count once)."""
    total = timedelta(0)
    reached = start
    for stop in sorted(stops, key=lambda s: s.since):
        since = max(stop.since, reached)
        until = min(stop.until or end, end)
        if until > since:
            total += until - since
            reached = until
    return total


def began(facts: Facts) -> datetime | None:
    """Return when the stage below began to be served; None while its audience had no chance.

    The later of entering the stage and its audience's first chance to fetch (invariant 5).
    """
    if facts.first_served_at is None:
        return None
    return max(facts.entered_at, facts.first_served_at)


def dwell(facts: Facts) -> timedelta | None:
    """Return how long the stage below has really been served.

    Time under holds, and time in which nobody was let in, is not. None while its audience has had
    no chance to fetch.
    """
    start = began(facts)
    return None if start is None else _served_since(facts, start)


def _served_since(facts: Facts, start: datetime) -> timedelta:
    start = min(start, facts.at)
    return facts.at - start - time_held(_stops(facts), start, facts.at)


def _stops(facts: Facts) -> list[HoldFact | GapFact]:
    return [*facts.holds, *facts.gaps]


class Dwell(Standing):
    """Minimum time in the stage below, counted while its audience could fetch."""

    kind = "dwell"

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass once the time served reaches the plan's minimum; a minimum of zero always passes."""
        minimum = facts.target.minimum_dwell
        start = began(facts)
        rule, due = f"No minimum time at {facts.from_stage}.", None
        if minimum:
            rule = f"At least {words(minimum)} at {facts.from_stage}, holds not counted."
        if start is None:
            measured = "nobody could fetch yet"
            outcome, sentence = Outcome.PASSED, "No minimum time is asked."
            if minimum:
                outcome = Outcome.PENDING
                sentence = (
                    f"The audience of {facts.from_stage} has had no chance to fetch yet, so its "
                    f"{words(minimum)} have not begun."
                )
        else:
            served = _served_since(facts, start)
            measured = words(served)
            outcome, sentence = Outcome.PASSED, f"Served {measured} at {facts.from_stage}."
            left = minimum - served
            if served < minimum:
                outcome = Outcome.PENDING
                sentence = (
                    f"Served {measured} of {words(minimum)} at {facts.from_stage}; "
                    f"{words(left)} to go."
                )
                if any(gap.until is None for gap in facts.gaps):
                    sentence += " Nobody can fetch now, so no time is counted."
                stopped = any(stop.until is None for stop in _stops(facts))
                due = None if stopped else max(facts.at, start) + left
        return GateResult(
            spec.key, self.kind, rule, measured, words(minimum), outcome, sentence, due=due
        )


def evidence_authors(facts: Facts) -> dict[str, str]:
    """Return who wrote evidence this request names: person id to the id of one such piece."""
    return {author: used.id for used in facts.evidence for author in sorted(used.authors)}


def why_not_counted(facts: Facts, approval: ApprovalFact) -> str | None:
    """Return why this approval does not count towards the quorum now; None when it does.

    Counts: of exactly this request, by a human who is neither the requester nor an author of
    evidence it names, whose account is open and who holds one of the quorum's roles at this
    instant (invariant 1).
    """
    roles = facts.target.quorum.roles
    wrote = evidence_authors(facts).get(approval.person_id)
    if approval.request_hash != facts.request_hash:
        return "It is of an earlier edition of this request."
    if approval.person_id == facts.requester:
        return "Its giver opened this request."
    if wrote is not None:
        return f"Its giver is an author of evidence {wrote}, which this request rests on."
    if not approval.human:
        return "Its giver is not a person."
    if approval.disabled:
        return "Its giver's account is disabled."
    if not approval.roles & frozenset(roles):
        return f"Its giver does not hold the role {' or '.join(roles)} now."
    return None


def why_not_heard(facts: Facts, said: JudgementFact) -> str | None:
    """Return why this answer to a gate does not count now; None when it does.

    Counts: of exactly this request, by a human who did not open it, whose account is open and who
    may decide on requests at this instant. An answer does not outlive what its giver may do.
    """
    if said.request_hash != facts.request_hash:
        return "It is of an earlier edition of this request."
    if said.person_id == facts.requester:
        return "Its giver opened this request."
    if not said.human:
        return "Its giver is not a person."
    if said.disabled:
        return "Its giver's account is disabled."
    if not said.entitled:
        return "Its giver may not decide on requests now."
    return None


def counted(facts: Facts) -> tuple[ApprovalFact, ...]:
    """Return the approvals that count now, one per person (invariant 1)."""
    seen = {
        approval.person_id: approval
        for approval in facts.approvals
        if why_not_counted(facts, approval) is None
    }
    return tuple(seen.values())


class QuorumMet(Standing):
    """Enough distinct people of the named roles approved exactly this request."""

    kind = "quorum"

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass once the approvals that count reach the plan's quorum."""
        quorum = facts.target.quorum
        have = counted(facts)
        who = " or ".join(quorum.roles)
        names = ", ".join(sorted(a.name for a in have))
        enough = len(have) >= quorum.count
        said = [f"Approved by {names}."]
        if not enough:
            by = f" ({names})" if have else ""
            said = [
                f"{len(have)} of {quorum.count} approvals{by}; {quorum.count - len(have)} more by "
                f"a {who} who did not open the request."
            ]
        for approval in facts.approvals:
            reason = why_not_counted(facts, approval)
            if reason and approval.request_hash == facts.request_hash:
                said.append(f"The approval by {approval.name} does not count: {reason}")
        return GateResult(
            spec.key,
            self.kind,
            f"At least {quorum.count} people with the role {who}, never the requester or an author "
            "of the evidence used.",
            str(len(have)),
            str(quorum.count),
            Outcome.PASSED if enough else Outcome.PENDING,
            " ".join(said),
        )


class NoHold(Standing):
    """No active hold covers the track, its family or everything."""

    kind = "hold"

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


class NotBefore(Standing):
    """A date has come: the plan's for the stage, and the request's own."""

    kind = "not_before"

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass once the latest of the dates asked for has come."""
        dates = [d for d in (facts.target.not_before, facts.scheduled_for) if d is not None]
        if not dates:
            return GateResult(
                spec.key,
                self.kind,
                "No date is set.",
                said(facts.at),
                "none",
                Outcome.PASSED,
                "No date is set.",
            )
        due = max(dates)
        passed = facts.at >= due
        return GateResult(
            spec.key,
            self.kind,
            f"Not before {said(due)}.",
            said(facts.at),
            said(due),
            Outcome.PASSED if passed else Outcome.PENDING,
            f"{said(due)} has come." if passed else f"Not before {said(due)}.",
            due=None if passed else due,
        )


class NoIncident(Standing):
    """No confirmed blocking incident that touches the track is still open."""

    kind = "no_incident"

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass while no blocking incident is confirmed and not yet closed."""
        blocking = sorted(facts.incidents, key=lambda i: i.id)
        sentence = (
            "No blocking incident is open."
            if not blocking
            else " ".join(f"Incident {i.id} ({i.severity}) is open and blocks." for i in blocking)
        )
        return GateResult(
            spec.key,
            self.kind,
            "No blocking incident about this track is open.",
            f"{len(blocking)} open",
            "0 open",
            Outcome.FAILED if blocking else Outcome.PASSED,
            sentence,
        )

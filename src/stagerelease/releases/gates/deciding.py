"""Every kind of gate there is, and what a stage's gates say together. Pure.

An answer of a gate is final unless it is inconclusive, which one recorded judgement settles, or a
waiver in force covers it. What no plan lists can be neither judged nor waived.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from stagerelease.kernel.clock import said
from stagerelease.releases.gates.base import (
    Facts,
    Gate,
    GateResult,
    JudgementFact,
    Outcome,
    SignerFact,
    WaiverFact,
)
from stagerelease.releases.gates.measured import Evidence, Freshness
from stagerelease.releases.gates.others import CardLocked, Coordination, Manual, Served, Signed
from stagerelease.releases.gates.standing import (
    Dwell,
    NoHold,
    NoIncident,
    NotBefore,
    QuorumMet,
    evidence_authors,
    why_not_heard,
)
from stagerelease.releases.ladder import GateSpec, Stage

KINDS: dict[str, Gate] = {
    gate.kind: gate
    for gate in (
        Dwell(),
        QuorumMet(),
        NoHold(),
        NotBefore(),
        NoIncident(),
        Evidence(),
        Freshness(),
        Served(),
        Signed(),
        CardLocked(),
        Coordination(),
        Manual(),
    )
}
"""Every kind of gate there is. A new one is one class and one line here."""

WAIVER_SIGNERS = 2
"""A waiver is in force once this many distinct people signed it."""


def specs_of(stage: Stage, kind: str = "") -> tuple[GateSpec, ...]:
    """Return the gates into ``stage``: those every stage has, then those its plan lists.

    ``kind`` is the track's kind of artifact: gates that a plan asks of other kinds only are left
    out. Empty leaves out none.
    """
    always = tuple(GateSpec(name, name) for name, gate in KINDS.items() if not gate.listed)
    return always + tuple(
        spec for spec in stage.gates if not spec.artifacts or not kind or kind in spec.artifacts
    )


def evaluate(facts: Facts) -> tuple[GateResult, ...]:
    """Return the result of every gate of the stage asked for, in the plan's order."""
    return tuple(_one(spec, facts) for spec in specs_of(facts.target, facts.kind))


def rules_of(
    target: Stage, *, from_stage: str, kind: str, at: datetime, scheduled_for: datetime | None
) -> dict[str, str]:
    """Return the rule of every gate into ``target`` in words, by key.

    A rule is the plan's and the request's own: nothing has to be known of how it fared.
    """
    nothing = Facts(
        at=at,
        track_stage=from_stage,
        from_stage=from_stage,
        target=target,
        state="",
        requester="",
        request_hash="",
        entered_at=at,
        first_served_at=None,
        scheduled_for=scheduled_for,
        kind=kind,
    )
    return {result.key: result.rule for result in evaluate(nothing)}


def _one(spec: GateSpec, facts: Facts) -> GateResult:
    gate = KINDS.get(spec.kind)
    if gate is None:  # a plan applied by a version that knew more kinds: block, never guess
        return _error(spec, f"This version does not know gates of kind {spec.kind!r}")
    try:
        result = gate.result(spec, facts)
    except (KeyError, TypeError, ValueError) as error:  # options no reader of plans lets through
        return _error(spec, f"What the plan says of it cannot be used ({error!r})")
    result = replace(result, found=result.outcome, waivable=gate.waivable)
    return _waived(_judged(result, facts), facts)


def _error(spec: GateSpec, why: str) -> GateResult:
    return GateResult(
        spec.key,
        spec.kind,
        f"Gate of kind {spec.kind!r}.",
        "unknown",
        "unknown",
        Outcome.ERROR,
        f"{why}, so it cannot be passed.",
        found=Outcome.ERROR,
    )


def judgement_on(facts: Facts, key: str) -> JudgementFact | None:
    """Return the one judgement on an inconclusive gate of exactly this request, or None.

    Neither its requester nor an author of its evidence judges what that evidence leaves open, and
    an answer counts while its giver may still give it.
    """
    wrote = evidence_authors(facts)
    return next(
        (
            said
            for said in facts.judgements
            if said.gate == key
            and why_not_heard(facts, said) is None
            and said.person_id not in wrote
        ),
        None,
    )


def _judged(result: GateResult, facts: Facts) -> GateResult:
    """Settle an inconclusive gate as one person judged it; leave every other as it is."""
    if result.outcome is not Outcome.INCONCLUSIVE:
        return result
    said = judgement_on(facts, result.key)
    if said is None:
        return result
    word = "yes" if said.passed else "no"
    return replace(
        result,
        outcome=Outcome.PASSED if said.passed else Outcome.FAILED,
        sentence=f"{result.sentence} Judged {word}: {said.reason}",
        judgement=said,
    )


def waiver_signers(waiver: WaiverFact, requester: str) -> tuple[SignerFact, ...]:
    """Return the signers that count: distinct people, entitled now, none of them the requester."""
    good = {
        signer.person_id: signer
        for signer in waiver.signers
        if signer.human
        and not signer.disabled
        and signer.entitled
        and signer.person_id != requester
    }
    return tuple(good.values())


def waiver_for(facts: Facts, key: str) -> WaiverFact | None:
    """Return a waiver in force at ``facts.at`` for that gate into the stage asked for, or None."""
    return next(
        (
            waiver
            for waiver in facts.waivers
            if waiver.gate == key
            and waiver.stage == facts.target.name
            and waiver.since <= facts.at < waiver.until
            and len(waiver_signers(waiver, facts.requester)) >= WAIVER_SIGNERS
        ),
        None,
    )


def _waived(result: GateResult, facts: Facts) -> GateResult:
    """Let a gate through that a waiver in force covers; say so, and keep what was found."""
    if result.passed or not result.waivable:
        return result
    waiver = waiver_for(facts, result.key)
    if waiver is None:
        return result
    names = " and ".join(sorted(s.name for s in waiver_signers(waiver, facts.requester)))
    return replace(
        result,
        outcome=Outcome.WAIVED,
        sentence=f"Waived by {names} until {said(waiver.until)}: {waiver.reason} "
        f"(Without the waiver: {result.sentence})",
        waiver=waiver,
    )

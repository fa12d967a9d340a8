"""Gates a plan may list on use, signatures, contacts and what people judge. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stagerelease.kernel.clock import said
from stagerelease.releases.gates.base import Facts, GateResult, Option, Outcome, Plain, words
from stagerelease.releases.gates.standing import why_not_heard
from stagerelease.releases.ladder import GateSpec
from stagerelease.releases.source import parse_duration

MOST_DOWNLOADS = 10_000
MOST_RECORDS = 100


class Manual(Plain):
    """A question that one person answers once, on record."""

    kind = "manual"
    options: Mapping[str, Option] = {
        "question": Option("what the person is asked to judge", "text", required=True)
    }

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass or fail as answered; wait until somebody answers who did not open the request."""
        rule = spec.options["question"]
        given = [
            j
            for j in facts.judgements
            if j.gate == spec.key and j.request_hash == facts.request_hash
        ]
        answer = next((j for j in given if why_not_heard(facts, j) is None), None)
        if answer is None:
            measured, outcome = "no answer", Outcome.PENDING
            sentence = f"Nobody has answered '{rule}' yet."
            if given:
                sentence = f"The answer on record does not count: {why_not_heard(facts, given[0])}"
        elif answer.passed:
            measured, outcome = "yes", Outcome.PASSED
            sentence = f"Answered yes: {answer.reason}"
        else:
            measured, outcome = "no", Outcome.FAILED
            sentence = f"Answered no: {answer.reason}"
        return GateResult(
            spec.key, self.kind, rule, measured, "yes", outcome, sentence, judgement=answer
        )


class Served(Plain):
    """The audience of the stage below really fetched it."""

    kind = "served"
    options: Mapping[str, Option] = {
        "at_least": Option("how many completed downloads by that audience", "number", default=1)
    }

    def wrong(self, options: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the number asked for, or None."""
        asked = options.get("at_least", MOST_DOWNLOADS)
        if type(asked) is not int or not 1 <= asked <= MOST_DOWNLOADS:
            return f"needs a whole number from 1 to {MOST_DOWNLOADS} as at_least"
        return None

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass once enough downloads were completed; staff below need not fetch anything."""
        asked = int(spec.options.get("at_least", 1))
        plural = "" if asked == 1 else "s"
        rule = f"At least {asked} completed download{plural} by the audience of {facts.from_stage}."
        if facts.completed is None:
            measured = "only staff"
            outcome, sentence = Outcome.PASSED, f"{facts.from_stage} admits staff only."
        else:
            measured = str(facts.completed)
            done = facts.completed >= asked
            outcome = Outcome.PASSED if done else Outcome.PENDING
            sentence = f"{measured} of {asked} downloads completed at {facts.from_stage}."
            if done:
                sentence = f"{asked} or more downloads were completed at {facts.from_stage}."
        return GateResult(spec.key, self.kind, rule, measured, str(asked), outcome, sentence)


class Signed(Plain):
    """The manifest of exactly this revision is signed."""

    kind = "signed"
    options: Mapping[str, Option] = {
        "keys": Option("ids of keys of which one must have signed; any key when left out", "names")
    }

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass once the request's manifest carries a signature that counts."""
        keys = tuple(spec.options.get("keys", ()))
        good = sorted(
            signature.key
            for signature in facts.signatures
            if signature.manifest_sha256 == facts.manifest_sha256
            and signature.at <= facts.at
            and (not keys or signature.key in keys)
        )
        by = f" by {' or '.join(keys)}" if keys else ""
        return GateResult(
            spec.key,
            self.kind,
            f"The manifest is signed{by}.",
            ", ".join(good) or "no signature",
            "1 signature",
            Outcome.PASSED if good else Outcome.PENDING,
            f"Manifest {facts.manifest_sha256[:12]}… is signed with {', '.join(good)}."
            if good
            else f"No signature{by} over manifest {facts.manifest_sha256[:12]}… is here yet.",
        )


class CardLocked(Plain):
    """The model card of exactly this revision is locked."""

    kind = "card_locked"

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass once the card this revision holds is locked."""
        at = facts.card_locked_at
        locked = at is not None and at <= facts.at
        return GateResult(
            spec.key,
            self.kind,
            "The model card of this revision is locked.",
            said(at) if at is not None and locked else "not locked",
            "locked",
            Outcome.PASSED if locked else Outcome.PENDING,
            "The model card is locked." if locked else "The model card is not locked yet.",
        )


class Coordination(Plain):
    """Other developers were told, and had their time."""

    kind = "coordination"
    options: Mapping[str, Option] = {
        "window": Option("how long ago every contact must be", "duration", required=True),
        "at_least": Option("how many coordination records there must be", "number", default=0),
    }

    def wrong(self, options: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the number asked for, or None."""
        asked = options.get("at_least", MOST_RECORDS)
        if type(asked) is not int or not 0 <= asked <= MOST_RECORDS:
            return f"needs a whole number from 0 to {MOST_RECORDS} as at_least"
        return None

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Pass once every contact's window is over: the plan's, and the agreed one if longer."""
        window = parse_duration(spec.options["window"])
        if window is None:
            raise ValueError("window is not a duration")
        least = int(spec.options.get("at_least", 0))
        known = [contact for contact in facts.coordination if contact.at <= facts.at]
        ends = [max(c.at + window, c.window_ends_at or c.at) for c in known]
        running = sum(1 for end in ends if end > facts.at)
        needs = f", and at least {least} on record" if least else ""
        if running:
            due = max(ends)
            outcome, sentence = Outcome.PENDING, f"{running} windows still run, until {said(due)}."
        elif len(known) < least:
            due, outcome = None, Outcome.PENDING
            sentence = f"{len(known)} of {least} coordination records."
        else:
            due, outcome = None, Outcome.PASSED
            sentence = f"Of {len(known)} coordination records, every window is over."
        return GateResult(
            spec.key,
            self.kind,
            f"Every coordination record of the family is at least {words(window)} old and any "
            f"longer window agreed is over{needs}.",
            f"{len(known)} records, {running} windows running",
            f"{words(window)}, at least {least} records",
            outcome,
            sentence,
            due=due,
        )

"""What every gate has in common: the facts it may look at, the options a plan gives it, its answer.

Pure. A gate reads ``Facts`` only: it must not ask the time, a database or the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, Protocol

from stagerelease.evidence.facts import EvidenceFact
from stagerelease.releases.ladder import GateSpec, Stage


class Outcome(StrEnum):
    """What a gate says. Only ``passed`` and ``waived`` let a request through.

    No gate says ``waived`` itself: it is what a waiver in force makes of another answer.
    """

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
    PENDING = "pending"
    WAIVED = "waived"


# --- what a gate may look at ---------------------------------------------------------------------


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
    """One recorded human answer to a manual or inconclusive gate, with what its giver is now.

    ``entitled``: holds a role that may decide on requests now.
    """

    gate: str
    request_hash: str
    person_id: str
    passed: bool
    reason: str
    human: bool
    disabled: bool
    entitled: bool


@dataclass(frozen=True, slots=True)
class HoldFact:
    """A hold that covers the track; ``until`` is None while it is active."""

    id: int
    reason: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class IncidentFact:
    """An incident that is open and blocking, and covers the track."""

    id: int
    severity: str


@dataclass(frozen=True, slots=True)
class SignerFact:
    """One signer of a waiver, with what they are at this instant.

    ``entitled``: holds a role that may sign waivers now.
    """

    person_id: str
    name: str
    human: bool
    disabled: bool
    entitled: bool


@dataclass(frozen=True, slots=True)
class WaiverFact:
    """A waiver of one gate into one stage of this track; ``until`` is its end, early or due."""

    id: str
    stage: str
    gate: str
    reason: str
    since: datetime
    until: datetime
    signers: tuple[SignerFact, ...]


@dataclass(frozen=True, slots=True)
class SignatureFact:
    """A signature over a manifest."""

    manifest_sha256: str
    key: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ContactFact:
    """A coordination record about the track's family, and when its window ends if agreed."""

    id: str
    developer: str
    kind: str
    at: datetime  # of the contact; of the event itself where nobody is known to have been asked
    window_ends_at: datetime | None


@dataclass(frozen=True, slots=True)
class GapFact:
    """A time after the first in which nobody of the audience could fetch; ``until`` None: still."""

    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a decision on a request may look at, read at the instant ``at``.

    ``first_served_at``: when the audience of the stage below could first fetch, None if not yet;
    ``gaps`` are the times after it when no member of that audience could.
    ``completed``: how many downloads by that audience were completed (None: that audience is staff,
    who are not let in one by one). ``evidence`` is what the request names; ``subjects`` are the
    digests of the track's files of its own kind and of its manifest.
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
    gaps: Sequence[GapFact] = ()
    approvals: Sequence[ApprovalFact] = ()
    judgements: Sequence[JudgementFact] = ()
    holds: Sequence[HoldFact] = ()  # active and lifted alike
    scheduled_for: datetime | None = None
    expires_at: datetime | None = None
    kind: str = ""  # of artifact
    manifest_sha256: str = ""
    subjects: frozenset[str] = frozenset()
    evidence: Sequence[EvidenceFact] = ()
    incidents: Sequence[IncidentFact] = ()  # open and blocking only
    waivers: Sequence[WaiverFact] = ()  # of this track; ended ones too
    completed: int | None = None
    signatures: Sequence[SignatureFact] = ()
    card_locked_at: datetime | None = None
    coordination: Sequence[ContactFact] = ()


# --- what a gate answers -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EvidenceUse:
    """A piece of evidence a gate looked at: what it says, how old it is, whether it counted."""

    id: str
    title: str
    metric: str
    value: float  # of a finding: the rank of its verdict
    unit: str
    verdict: str | None
    fact_status: str  # how well it is established
    measured_at: datetime
    valid_until: datetime | None
    age: str  # in words
    counted: bool
    why: str  # a sentence


@dataclass(frozen=True, slots=True)
class GateResult:
    """A gate's answer in words: the rule, what was measured against what, and the sentence.

    ``outcome`` is what lets through or not, after a judgement and a waiver; ``found`` is what the
    gate itself says. ``stale``: it would be otherwise were the evidence younger. ``due``: when time
    alone passes it, where that is known.
    """

    key: str
    kind: str
    rule: str
    measured: str
    threshold: str
    outcome: Outcome
    sentence: str
    stale: bool = False
    evidence: tuple[EvidenceUse, ...] = ()
    due: datetime | None = None
    waivable: bool = False
    found: Outcome | None = None  # None: the same as ``outcome``
    judgement: JudgementFact | None = None
    waiver: WaiverFact | None = None

    @property
    def passed(self) -> bool:
        """Tell whether this gate lets the request through."""
        return self.outcome in (Outcome.PASSED, Outcome.WAIVED)

    @property
    def verdict(self) -> str:
        """Return the one word to show: the outcome, or ``stale`` where age is all that is wrong."""
        return "stale" if self.stale and not self.passed else self.outcome.value


# --- what a plan says to a gate ------------------------------------------------------------------

OptionKind = Literal["text", "number", "duration", "instant", "names", "choice", "conditions"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a gate in a plan, and the plain value its reader hands over.

    ``text``: str · ``number``: int | float · ``duration``: ISO 8601 text · ``instant``: ISO text ·
    ``names``: tuple of str · ``choice``: one of ``choices`` · ``conditions``: mapping of name to
    str | int | float. An optional one that is left out is not in ``GateSpec.options``, unless it
    has a ``default``.
    """

    meaning: str
    kind: OptionKind
    required: bool = False
    choices: tuple[str, ...] = ()
    default: Any = None


class Gate(Protocol):
    """A kind of gate. ``options`` is the table a plan's reader and its schema go by."""

    kind: str
    listed: bool  # may a plan list it? The others every stage has, from its own fields.
    waivable: bool
    options: Mapping[str, Option]

    def wrong(self, options: Mapping[str, Any]) -> str | None:
        """Return what is wrong with ``options`` taken together (each is right alone), or None."""
        ...

    def result(self, spec: GateSpec, facts: Facts) -> GateResult:
        """Return the answer for ``facts``."""
        ...


class Plain:
    """What most gates are: listed by plans, open to a waiver, their options free of each other."""

    listed = True
    waivable = True
    options: Mapping[str, Option] = {}

    def wrong(self, options: Mapping[str, Any]) -> str | None:  # noqa: ARG002 (others read it)
        """Return None: every option is right or wrong by itself."""
        return None


class Standing(Plain):
    """A gate every stage has. No waiver opens one: what it guards is not a plan's to give away."""

    listed = False
    waivable = False


def words(span: timedelta) -> str:
    """Return a length of time as a person says it: ``13 d 4 h``; seconds only below a minute."""
    seconds = max(int(span.total_seconds()), 0)
    if 0 < seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    parts = ((minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min"))
    said = " ".join(f"{count} {unit}" for count, unit in parts if count)
    return said or "0 min"

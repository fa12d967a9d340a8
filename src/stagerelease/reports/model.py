"""What a release report says, as frozen values: the same for HTML, PDF and JSON. Pure.

A public report is built from fields that the public may read; nothing is cut out of a full one
afterwards. What was left out is said as a count or in a sentence, never silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

AUDIENCES = ("public", "full")


@dataclass(frozen=True, slots=True)
class FileLine:
    """A file of the revision."""

    path: str
    size: int
    sha256: str
    kind: str


@dataclass(frozen=True, slots=True)
class LockLine:
    """The model card is final since then."""

    sha256: str
    at: datetime
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """A verified signature over the manifest."""

    id: str
    key: str
    at: datetime
    counts: bool
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class Card:
    """What is released: names, exact counts, digests. ``files`` is empty where it is not public."""

    family: str
    family_name: str
    repo_id: str
    aliases: tuple[str, ...]
    label: str
    kind: str
    parameters: int | None
    revision_id: str
    manifest_sha256: str
    total_bytes: int
    recorded_at: datetime
    file_count: int
    files: tuple[FileLine, ...]
    lock: LockLine | None
    signatures: tuple[SignatureLine, ...]


@dataclass(frozen=True, slots=True)
class PlanLine:
    """The plan the release is under, as registered."""

    slug: str
    title: str
    version: int
    sha256: str
    registered_at: datetime
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class Rung:
    """A stage of the ladder. ``state``: passed | current | ahead."""

    name: str
    audience: str
    state: str
    entered_at: datetime | None
    left_at: datetime | None
    demands: tuple[str, ...]  # what the plan asks of a request into it; empty where not public


@dataclass(frozen=True, slots=True)
class GateLine:
    """A gate as it was decided on: the rule, what was measured against what, and the verdict."""

    key: str
    kind: str
    rule: str
    measured: str
    threshold: str
    outcome: str
    evidence: tuple[str, ...] = ()  # ids; only of what this report shows
    withheld: int = 0  # how many pieces of evidence it rests on that are not public


@dataclass(frozen=True, slots=True)
class ApprovalLine:
    """An approval that counted. ``name`` and ``comment`` are empty in a public report."""

    role: str
    at: datetime
    leaf_idx: int
    name: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Move:
    """A move of the track, as applied. ``rationale`` is empty in a public report."""

    from_stage: str | None
    to_stage: str
    at: datetime
    reason: str
    leaf_idx: int
    promotion_id: int | None = None
    rationale: str = ""
    requested_by: str = ""
    approvals: tuple[ApprovalLine, ...] = ()
    quorum: str = ""
    gates: tuple[GateLine, ...] = ()
    waived: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EvidenceLine:
    """A piece of evidence with its conditions and where it comes from."""

    id: str
    type: str
    title: str
    metric: str
    value: str
    finding: str
    n: int | None
    interval: str
    conditions: tuple[tuple[str, str], ...]
    companions: tuple[tuple[str, str], ...]
    beside: tuple[str, ...]  # what a detector's figure means at its base rate, in words
    caveat: str
    author: str
    measured_on: datetime
    valid_until: datetime | None
    source: str
    status: str  # verified | reported | computed | recalled
    state: str
    subject_sha256: str


@dataclass(frozen=True, slots=True)
class WaiverLine:
    """A waiver, in force or ended; shown for ever. ``signers`` are roles in a public report."""

    stage: str
    gate: str
    reason: str
    signed_at: datetime | None
    until: datetime
    state: str
    signers: tuple[str, ...]
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class HoldLine:
    """A hold that covers or covered the track; ``reason`` is the public one in a public report."""

    id: int
    scope: str
    reason: str
    since: datetime
    until: datetime | None
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class IncidentLine:
    """An incident about the track; in a public report, one that was confirmed."""

    id: int
    state: str
    severity: str
    blocking: bool
    title: str
    outcome: str
    reported_at: datetime
    confirmed_at: datetime | None
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class HolderLine:
    """Somebody who holds a grant; only in a full report."""

    name: str
    audience: str
    permissions: tuple[str, ...]
    purpose: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True)
class Holders:
    """Who holds what now: counts for everybody, lines for staff (``more`` of them left out)."""

    organisations: int
    people: int
    by_stage: tuple[tuple[str, int], ...]
    lines: tuple[HolderLine, ...] = ()
    more: int = 0


@dataclass(frozen=True, slots=True)
class ContactLine:
    """Something other developers did, or were told; only in a full report."""

    developer: str
    kind: str
    claim: str
    on: str
    status: str
    source: str


@dataclass(frozen=True, slots=True)
class Opening:
    """What a commitment in a leaf stands for: SHA-256(salt ‖ value) is in the leaf."""

    name: str  # subject | actor
    value: str
    salt: str  # hex


@dataclass(frozen=True, slots=True)
class ProofLine:
    """A log entry with its inclusion proof: RFC 6962 hashes, base64, under the checkpoint."""

    idx: int
    what: str
    type: str
    at: str
    body: str  # the leaf's bytes, base64
    hashes: tuple[str, ...]
    openings: tuple[Opening, ...]


@dataclass(frozen=True, slots=True)
class LogPart:
    """All that is needed to check this report offline, but the verifier key one must trust."""

    vkey: str
    size: int
    checkpoint: str  # a C2SP tlog-checkpoint note
    proofs: tuple[ProofLine, ...]
    unsigned: tuple[int, ...]  # entries newer than the checkpoint


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of the timeline. ``kind``: plan | move | card | signature | hold | incident | …"""

    at: datetime
    kind: str
    words: str
    leaf_idx: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A release report for one audience, as of one instant."""

    audience: str
    made_at: datetime
    track_id: str
    card: Card
    plan: PlanLine
    stage: str
    entered_at: datetime
    withdrawn: bool
    ladder: tuple[Rung, ...]
    moves: tuple[Move, ...]
    refused: Mapping[str, int]  # requests that ended otherwise than applied, by how
    ahead: str  # the next stage, or empty
    ahead_gates: tuple[GateLine, ...]
    evidence: tuple[EvidenceLine, ...]
    evidence_withheld: int
    waivers: tuple[WaiverLine, ...]
    holds: tuple[HoldLine, ...]
    incidents: tuple[IncidentLine, ...]
    holders: Holders
    contacts: tuple[ContactLine, ...]
    moments: tuple[Moment, ...]
    log: LogPart
    notes: tuple[str, ...] = field(default=())

    @property
    def title(self) -> str:
        """Return the heading of the report."""
        return f"{self.card.repo_id}, {self.card.kind.replace('_', ' ')}"


def number(value: Any) -> str:
    """Return a number as a person reads it: grouped, without a tail of zeros."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.2f}"

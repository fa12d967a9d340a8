"""What a release decision may know of a piece of evidence. Pure values, shared with the gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class EvidenceFact:
    """One piece of evidence as it stands at an instant.

    ``subject_sha256`` is a file's digest or a manifest's; ``conditions`` are names and values as
    the type's schema writes them (``sampler``, ``text_length``, ``detector``, ``base_rate``, …).

    A finding in words has metric ``finding``, unit ``verdict``, and as ``value`` the rank of its
    ``verdict`` on the scale of its type: 0 speaks most for release, and a verdict that judges
    nothing yet ranks above all others, so that "at most" never passes on it. Show the verdict, not
    the rank.
    """

    id: str
    type: str
    metric: str
    value: float
    unit: str
    state: str  # draft | submitted | accepted | rejected | disputed | superseded | retracted
    subject_sha256: str
    measured_at: datetime
    valid_until: datetime | None
    accepted_at: datetime | None
    organisation_id: str | None
    authors: frozenset[str]  # person ids: none of them counts towards a quorum that uses this
    n: int | None = None
    interval: tuple[float, float] | None = None
    conditions: Mapping[str, str | float] = field(default_factory=dict)
    title: str = ""
    companions: Mapping[str, float] = field(default_factory=dict)  # of the same measurement
    verdict: str | None = None
    finding: str = ""
    caveat: str = ""
    fact_status: str = "verified"  # verified | reported | computed | recalled
    source: str = ""
    author_name: str = ""  # as the source prints it
    public: bool = False

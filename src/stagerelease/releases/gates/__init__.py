"""The gates of a promotion request: an open set, one class each. Pure: facts in, results out.

``base`` says what a gate may look at and answer, ``standing`` holds the gates every stage has,
``measured`` those on evidence, ``others`` the rest; ``deciding`` puts their answers together.
"""

from stagerelease.releases.gates.base import (
    ApprovalFact,
    ContactFact,
    EvidenceUse,
    Facts,
    GapFact,
    Gate,
    GateResult,
    HoldFact,
    IncidentFact,
    JudgementFact,
    Option,
    OptionKind,
    Outcome,
    SignatureFact,
    SignerFact,
    WaiverFact,
    words,
)
from stagerelease.releases.gates.deciding import (
    KINDS,
    WAIVER_SIGNERS,
    evaluate,
    judgement_on,
    rules_of,
    specs_of,
    waiver_for,
    waiver_signers,
)
from stagerelease.releases.gates.measured import not_counting
from stagerelease.releases.gates.standing import (
    counted,
    dwell,
    evidence_authors,
    time_held,
    why_not_counted,
    why_not_heard,
)

__all__ = [
    "KINDS",
    "WAIVER_SIGNERS",
    "ApprovalFact",
    "ContactFact",
    "EvidenceUse",
    "Facts",
    "GapFact",
    "Gate",
    "GateResult",
    "HoldFact",
    "IncidentFact",
    "JudgementFact",
    "Option",
    "OptionKind",
    "Outcome",
    "SignatureFact",
    "SignerFact",
    "WaiverFact",
    "counted",
    "dwell",
    "evaluate",
    "evidence_authors",
    "judgement_on",
    "not_counting",
    "rules_of",
    "specs_of",
    "time_held",
    "waiver_for",
    "waiver_signers",
    "why_not_counted",
    "why_not_heard",
    "words",
]

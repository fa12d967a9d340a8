"""Data Use Ontology codes on agreements: what each means, and which contradict another. Pure.

Terms and labels are those of the GA4GH Data Use Ontology (release 2021-02-23); the sentences are
ours. A code says in one word what the text says at length; where they differ, the text counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from stagerelease.kernel.errors import Invalid

MAX_CODES = 20


@dataclass(frozen=True, slots=True)
class DuoCode:
    """One code: its term, label and meaning. A ``modifier`` narrows what a permission allows."""

    code: str
    term: str
    label: str
    meaning: str
    modifier: bool = True


def _allows(code: str, number: int, label: str, meaning: str) -> DuoCode:
    return DuoCode(code, f"DUO:{number:07d}", label, meaning, modifier=False)


def _narrows(code: str, number: int, label: str, meaning: str) -> DuoCode:
    return DuoCode(code, f"DUO:{number:07d}", label, meaning)


_ALL = (
    _allows("NRES", 4, "no restriction", "Any use is allowed."),
    _allows("GRU", 42, "general research use", "Any research purpose is allowed."),
    _allows(
        "HMB",
        6,
        "health or medical or biomedical research",
        "Research on health, medicine or biology is allowed; not on origins or ancestry.",
    ),
    _allows("DS", 7, "disease specific research", "Research on the disease named is allowed."),
    _allows(
        "POA",
        11,
        "population origins or ancestry research only",
        "Only research on origins or ancestry of populations is allowed.",
    ),
    _narrows("RS", 12, "research specific restrictions", "Only the kind of research named."),
    _narrows("NMDS", 15, "no general methods research", "Not for developing methods in general."),
    _narrows("GSO", 16, "genetic studies only", "Only for genetic studies."),
    _narrows(
        "NPUNCU",
        18,
        "not for profit, non commercial use only",
        "Only by organisations not run for profit, and not for commercial ends.",
    ),
    _narrows("PUB", 19, "publication required", "Results are made available to other researchers."),
    _narrows("COL", 20, "collaboration required", "Only together with the investigators named."),
    _narrows("IRB", 21, "ethics approval required", "An ethics board has approved the use."),
    _narrows("GS", 22, "geographical restriction", "Only in the region named."),
    _narrows("MOR", 24, "publication moratorium", "Results are not published before the date."),
    _narrows("TS", 25, "time limit on use", "Use ends at the time named."),
    _narrows("US", 26, "user specific restriction", "Only by the people named."),
    _narrows("PS", 27, "project specific restriction", "Only within the project approved."),
    _narrows("IS", 28, "institution specific restriction", "Only within the institution named."),
    _narrows(
        "RTN", 29, "return to database or resource", "What is derived is given back to the source."
    ),
    _narrows("CC", 43, "clinical care use", "Use in the care of patients is allowed."),
    _narrows(
        "NPOA",
        44,
        "population origins or ancestry research prohibited",
        "Not for research on origins or ancestry of populations.",
    ),
    _narrows(
        "NPU",
        45,
        "not for profit organisation use only",
        "Only by organisations that are not run for profit.",
    ),
    _narrows(
        "NCU",
        46,
        "non-commercial use only",
        "Not for commercial ends; organisations run for profit may use it for research.",
    ),
)
DUO_CODES: Mapping[str, DuoCode] = MappingProxyType({code.code: code for code in _ALL})
"""Every code that can be put on an agreement, by its shorthand."""

CONTRADICTIONS: tuple[frozenset[str], ...] = (
    frozenset({"POA", "NPOA"}),
    *(frozenset({"NRES", code.code}) for code in _ALL if code.code != "NRES"),
)
"""Pairs of which one denies what the other says."""


def check_duo(codes: Sequence[str]) -> list[str]:
    """Return Data Use Ontology codes (such as NCU) in order, each once.

    Raises:
        Invalid: one is unknown, two contradict each other, or there are more than ``MAX_CODES``.
    """
    unknown = sorted({code for code in codes if code not in DUO_CODES})
    if unknown or len(codes) > MAX_CODES:
        named = ", ".join(repr(code) for code in unknown[:3]) or f"{len(codes)} codes"
        raise Invalid(
            f"{named}: these are not Data Use Ontology codes we know, at most {MAX_CODES} of them.",
            reason="agreement.duo",
            next_step=f"Choose from {', '.join(DUO_CODES)}.",
        )
    chosen = set(codes)
    for pair in CONTRADICTIONS:
        if pair <= chosen:
            raise Invalid(
                f"{' and '.join(sorted(pair))} contradict each other.", reason="agreement.duo"
            )
    return sorted(chosen)


def uses(codes: Sequence[str]) -> tuple[DuoCode, ...]:
    """Return what stored codes mean, in their order.

    A code stored before codes were checked is given back as it is, with the text as its meaning.
    """
    return tuple(
        DUO_CODES.get(code) or DuoCode(code, "", code, "As the text says.") for code in codes
    )

"""The record of 2019 that ships with the product, and evidence made of it. No figure is typed here.

Every figure comes from ``gpt2_facts.json`` with its source and standing. What the record does not
establish is said in a caveat or left out; what it rejects is never used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from stagerelease.evidence.measure import NewEvidence

BY_PUBLICATION = (
    "Dated by the day its source was published; the day of measurement is not established."
)
_LENGTH = (
    " Its text length is a bound computed from the model's context of 1,024 tokens, and its base "
    "rate from the counts of the output data set; neither is stated with the figure."
)


@cache
def facts() -> Mapping[str, Any]:
    """Return the record."""
    source = files("stagerelease.replay").joinpath("gpt2_facts.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(source)
    return found


def variant(key: str) -> Mapping[str, Any]:
    """Return the facts of a size: ``small``, ``medium``, ``large`` or ``xl``."""
    return next(one for one in facts()["variants"] if one["key"] == key)


def day(text: str, hour: int = 0) -> datetime:
    """Return an hour (UTC) of a day of the record."""
    return datetime.fromisoformat(text).replace(hour=hour, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Fact:
    """One entry of the record's evidence."""

    entry: Mapping[str, Any]

    @property
    def published(self) -> str:
        """Return the day its source was published, as the record has it."""
        for name in ("first_published", "as_of", "date"):
            if name in self.entry:
                return str(self.entry[name])
        return _PUBLISHED[str(self.entry["source"])]


_FOLLOW_UP, _FINAL = "GPT-2: 6-Month Follow-Up", "GPT-2: 1.5B Release"


def _published() -> dict[str, str]:
    """Return on which day of the record each source came out."""
    large, xl = variant("large"), variant("xl")
    first = next(e for e in facts()["evidence"] if "first_published" in e)["first_published"]
    return {
        _FOLLOW_UP: large["weights_public"],
        _FINAL: xl["weights_public"],
        "detection.md": first,
        "GPT-2 model card (Nov 2019)": xl["weights_public"],
        f"GPT-2 model card (Nov 2019); {_FINAL}": xl["weights_public"],
    }


_PUBLISHED = _published()


def find(type_: str, **fields: Any) -> Fact:
    """Return the one entry of a type whose fields are these; True asks for any value.

    Raises:
        LookupError: there is none, or more than one.
    """
    found = [
        entry
        for entry in facts()["evidence"]
        if entry["type"] == type_
        and all(k in entry and (v is True or entry[k] == v) for k, v in fields.items())
    ]
    if len(found) != 1:
        raise LookupError(f"{len(found)} entries of {type_} with {fields}")
    return Fact(found[0])


# --- evidence ------------------------------------------------------------------------------------


def _new(fact: Fact, subject: str, *, title: str, caveat: str = "", **more: Any) -> NewEvidence:
    entry = fact.entry
    said = " ".join(part for part in (BY_PUBLICATION, caveat, entry.get("caveat", "")) if part)
    return NewEvidence(
        type=entry["type"],
        title=title,
        subject_sha256=subject,
        source=entry["source"],
        fact_status=entry["status"],
        measured_at=day(fact.published),
        caveat=said,
        author_name=entry.get("author_org", ""),
        public=True,
        **more,
    )


def baseline(key: str, sampler: str, subject: str) -> NewEvidence:
    """Return the published accuracy of the baseline detector; ``sampler`` is ``t1`` or ``k40``."""
    fact = find("detectability", accuracy_pct=True)
    data = facts()["output_dataset"]
    made = data["per_size_random" if sampler == "t1" else "per_size_top_k40"]
    said = {"t1": "temperature 1", "k40": "top-k 40"}[sampler]
    return _new(
        fact,
        subject,
        title=f"TF-IDF and logistic regression on {variant(key)['labels'][0]}, {said}",
        caveat=_LENGTH.strip(),
        metric="accuracy",
        value=fact.entry["accuracy_pct"][key][sampler],
        unit="percent",
        conditions={
            "detector": fact.entry["detector"],
            "sampler": said,
            "text_length": 1024,
            "text_length_unit": "tokens",
            "text_length_basis": "at_most",
            "base_rate": made / (made + data["webtext_documents"]),
        },
    )


def finding(
    fact: Fact,
    subject: str,
    *,
    title: str,
    verdict: str = "not_judged",
    finding: str = "",
    caveat: str = "",
    conditions: Mapping[str, Any] | None = None,
) -> NewEvidence:
    """Return an entry as a finding in its own words; ``verdict`` only where the record judges."""
    return _new(
        fact,
        subject,
        title=title,
        caveat=caveat,
        metric="finding",
        verdict=verdict,
        finding=finding or fact.entry["finding"],
        conditions=dict(conditions or {}),
    )


def credibility_score(key: str, subject: str) -> NewEvidence:
    """Return the mean credibility of one size, on the scale of the record."""
    fact = find("credibility", scale=True)
    low, high = (float(end) for end in fact.entry["scale"].split("-"))
    return _new(
        fact,
        subject,
        title=f"Mean credibility of {variant(key)['labels'][-1]} texts, {low:g} to {high:g}",
        caveat="Another study than the share of readers; the two are not comparable.",
        metric="mean_score",
        value=fact.entry["values"][key],
        unit="scale points",
        conditions={"scale_min": low, "scale_max": high},
    )


def credibility_share(subject: str) -> NewEvidence:
    """Return the share of one cohort that found articles credible, beside its baseline."""
    fact = find("credibility", value_pct=True)
    return _new(
        fact,
        subject,
        title="Readers of one cohort who found articles credible",
        caveat="Which size wrote them is not stated in the record used here.",
        metric="share_credible",
        value=fact.entry["value_pct"],
        unit="percent",
        companions={"baseline_value": fact.entry["baseline_pct"]},
        conditions={
            "cohort": "one cohort",
            "sample_selection": "human_selected",
            "baseline": fact.entry["baseline"],
        },
    )

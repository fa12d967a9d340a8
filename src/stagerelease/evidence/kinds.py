"""Which metrics, units, ranges and conditions each type of evidence has: data, printed into docs.

Pure. A new type or metric is one entry here; ``measure`` checks entries against it and ``schema``
prints it as JSON Schema. Nothing here knows states or people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

FINDING = "finding"
VERDICT = "verdict"  # the unit of a finding
UNJUDGED = ("no_result_yet", "not_judged")
"""Verdicts beyond every scale: a study under way, and a description that judges nothing."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Something measured: its unit and range, and what must be said beside it.

    ``also`` maps other units that may be written to the factor that turns them into ``unit``.
    """

    meaning: str
    unit: str
    low: float | None = None
    high: float | None = None
    whole: bool = False
    also: Mapping[str, float] = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # conditions, beyond those of the type
    companions: tuple[str, ...] = ()  # other values of the same measurement, same unit and range


@dataclass(frozen=True, slots=True)
class Condition:
    """Something a measurement was made under."""

    meaning: str
    form: Literal["text", "number", "whole", "choice", "sampler", "share"]
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class EvidenceType:
    """A type of evidence. ``scale`` orders verdicts, what speaks most for release first."""

    meaning: str
    metrics: Mapping[str, Metric]
    required: tuple[str, ...]  # conditions of every metric but a finding
    optional: tuple[str, ...]
    scale: tuple[str, ...]
    finding_needs: tuple[str, ...] = ()


_PERCENT: Mapping[str, float] = {"fraction": 100.0}


def _percent(
    meaning: str, *, needs: tuple[str, ...] = (), companions: tuple[str, ...] = ()
) -> Metric:
    return Metric(meaning, "percent", 0, 100, also=_PERCENT, needs=needs, companions=companions)


def _count(meaning: str, unit: str = "count", *, needs: tuple[str, ...] = ()) -> Metric:
    return Metric(meaning, unit, 0, None, whole=True, needs=needs)


CONDITIONS: Mapping[str, Condition] = {
    "detector": Condition("what told made texts from others", "text"),
    "sampler": Condition(
        "how texts were drawn: 'temperature 1', 'top-k 40', 'top-p 0.96', 'greedy', 'beam 4', "
        "joined by commas, or 'mixed'",
        "sampler",
    ),
    "text_length": Condition("how long the texts were", "number", low=1),
    "text_length_unit": Condition("what text_length counts", "choice", ("tokens", "characters")),
    "text_length_basis": Condition(
        "what text_length is of the texts", "choice", ("exactly", "at_most", "at_least", "mean")
    ),
    "base_rate": Condition(
        "share of texts that are machine-made, where the claim is to hold: between 0 and 1", "share"
    ),
    "test_base_rate": Condition("share of made texts in the test itself", "share"),
    "detector_trained_on": Condition("what the detector learnt from", "text"),
    "fine_tuned_on": Condition("data the model was fine-tuned on before", "text"),
    "transfer_from": Condition("model whose texts the detector learnt on, when another", "text"),
    "language": Condition("language of the texts", "text"),
    "domain": Condition("kind of texts", "text"),
    "dataset": Condition("data set it was measured on", "text"),
    "split": Condition("part of the data set", "text"),
    "shots": Condition("examples shown in the prompt", "whole", low=0, high=10_000),
    "task": Condition("what the model was asked to do", "text"),
    "scale_min": Condition("least value of the rating scale", "number"),
    "scale_max": Condition("greatest value of the rating scale", "number"),
    "cohort": Condition("who judged", "text"),
    "sample_selection": Condition(
        "how samples were picked", "choice", ("random", "human_selected", "model_selected")
    ),
    "baseline": Condition("what it is compared with", "text"),
    "compared_with": Condition("model it is compared with", "text"),
    "probe": Condition("test that was used", "text"),
    "attribute": Condition("what the bias is about, such as gender", "text"),
    "method": Condition("how it was done", "text"),
    "actor_tier": Condition(
        "1 curious, 2 skilled and resourced, 3 advanced persistent", "whole", low=1, high=3
    ),
    "window_days": Condition("over how many days", "number", low=0),
    "counted_from": Condition("where the figures come from", "text"),
    "developer": Condition("who replicated it", "text"),
    "audience": Condition("who benefits", "text"),
}

_DETECTOR = ("detector", "sampler", "text_length", "text_length_unit", "base_rate")

TYPES: Mapping[str, EvidenceType] = {
    "detectability": EvidenceType(
        "How well a detector tells the model's texts from others.",
        {
            "accuracy": _percent(
                "texts put on the right side", companions=("sensitivity", "specificity")
            ),
            "sensitivity": _percent("made texts found", companions=("specificity",)),
            "specificity": _percent("other texts left alone", companions=("sensitivity",)),
            "precision": _percent("alarms that were right, at the stated base rate"),
            "auroc": Metric("area under the ROC curve", "fraction", 0, 1),
        },
        _DETECTOR,
        (
            *("text_length_basis", "test_base_rate", "detector_trained_on", "fine_tuned_on"),
            *("transfer_from", "language", "domain", "dataset"),
        ),
        ("reliable_alone", "reliable_with_review", "not_enough_alone", "not_detectable"),
    ),
    "credibility": EvidenceType(
        "How credible people find the model's texts.",
        {
            "mean_score": Metric(
                "mean of the ratings",
                "scale points",
                needs=("scale_min", "scale_max"),
                companions=("baseline_value",),
            ),
            "share_credible": _percent(
                "readers who found it credible",
                needs=("cohort", "sample_selection"),
                companions=("baseline_value",),
            ),
        },
        (),
        (
            *("scale_min", "scale_max", "cohort", "sample_selection", "baseline"),
            *("compared_with", "language", "domain", "sampler"),
        ),
        ("not_credible", "less_than_human", "like_human", "more_than_human"),
    ),
    "bias_probe": EvidenceType(
        "Differences in what the model writes about groups of people.",
        {
            "score_difference": Metric("difference of mean scores", "score points", -1e6, 1e6),
            "share_stereotyped": _percent("answers that follow the stereotype"),
            "associations": _count("significant associations found"),
        },
        ("probe", "attribute"),
        ("probe", "attribute", "compared_with", "baseline", "language", "sampler", "dataset"),
        ("no_significant_difference", "some_difference", "strong_difference"),
    ),
    "finetune_misuse": EvidenceType(
        "What the model can be made to do by fine-tuning, and at what cost.",
        {
            "share_harmful": _percent("outputs that serve the misuse"),
            "cost": Metric("what it took", "US dollars", 0, 1e12),
            "hours": Metric("work it took", "hours", 0, 1e6),
            "examples": _count("examples it took"),
        },
        ("fine_tuned_on",),
        ("fine_tuned_on", "method", "actor_tier", "sampler", "language", "domain"),
        ("not_feasible", "feasible_with_expertise", "feasible"),
        finding_needs=("fine_tuned_on",),
    ),
    "misuse_monitoring": EvidenceType(
        "Misuse seen, or not seen, while watching.",
        {
            "incidents": _count("incidents seen"),
            "reports": _count("reports received"),
            "anomalies": _count("grants whose use stood out"),
            "downloads": _count("completed downloads"),
            "inference_requests": _count("requests answered"),
            "share_flagged": _percent("requests that were flagged"),
        },
        ("window_days", "counted_from"),
        ("window_days", "counted_from", "actor_tier", "domain", "method"),
        ("none_seen", "no_strong_evidence", "some_evidence", "strong_evidence"),
    ),
    "zero_shot_eval": EvidenceType(
        "What the model can do without training on the task.",
        {
            "accuracy": _percent("right answers", companions=("baseline_value",)),
            "f1": _percent("F1 score", companions=("baseline_value",)),
            "exact_match": _percent("exact answers", companions=("baseline_value",)),
            "perplexity": Metric(
                "perplexity", "perplexity", 1, None, companions=("baseline_value",)
            ),
            "bits_per_character": Metric(
                "bits per character", "bits per character", 0, 64, companions=("baseline_value",)
            ),
            "loss": Metric("mean cross-entropy", "nats per token", 0, None),
        },
        ("dataset",),
        ("dataset", "split", "shots", "task", "baseline", "compared_with", "language", "method"),
        ("weaker_than_best", "like_best", "new_best_on_some", "new_best_on_most"),
    ),
    "replication": EvidenceType(
        "Whether and how others rebuilt the model.",
        {
            "parameters": _count("size of the replica", "parameters"),
            "cost": Metric("what it took", "US dollars", 0, 1e12),
            "groups": _count("groups that did it", needs=("counted_from",)),
            "days": Metric("time from publication to replica", "days", 0, 1e5),
        },
        ("developer",),
        ("developer", "method", "dataset", "counted_from", "compared_with"),
        ("not_replicated", "attempted", "replicated", "replicated_and_public"),
    ),
    "benefit": EvidenceType(
        "What good the model does.",
        {
            "users": _count("people who use it"),
            "publications": _count("publications that rest on it"),
            "downloads": _count("completed downloads"),
            "share_satisfied": _percent("users who say it helps"),
        },
        ("audience", "counted_from"),
        ("audience", "counted_from", "window_days", "domain", "baseline", "method"),
        ("clear_benefit", "some_benefit", "no_benefit_seen"),
    ),
}
"""Every type of evidence, by the name that plans use."""


def ranks(type_: str) -> Mapping[str, int]:
    """Return the rank of each verdict of a type; 0 speaks most for release, unjudged ranks last.

    A verdict that judges nothing ranks above all others, so that a plan's "at most" cannot pass on
    a study that has no answer.
    """
    scale = TYPES[type_].scale
    return {one: at for at, one in enumerate(scale)} | dict.fromkeys(UNJUDGED, len(scale))


def rank_of(type_: str, verdict: str | None) -> int:
    """Return the rank of a verdict; one that is missing ranks with the unjudged."""
    known = ranks(type_)
    return known.get(verdict or "", len(TYPES[type_].scale))


def allowed_conditions(type_: str) -> tuple[str, ...]:
    """Return the names of the conditions a type knows, those it must state first."""
    kind = TYPES[type_]
    return tuple(dict.fromkeys((*kind.required, *kind.optional)))


def needed_conditions(type_: str, metric: str) -> tuple[str, ...]:
    """Return the conditions that evidence of this metric must state."""
    kind = TYPES[type_]
    if metric == FINDING:
        return kind.finding_needs
    return (*kind.required, *kind.metrics[metric].needs)

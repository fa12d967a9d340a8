"""Reads the ``model-index`` of a model card (Hugging Face model card metadata). Pure.

What a card says of itself is an account: nobody here has repeated the measurement, so each entry
is ``reported`` unless whoever imports it says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from stagerelease.evidence.formats import MAX_ENTRIES, Defaults, Raw, parse_number
from stagerelease.evidence.kinds import TYPES
from stagerelease.kernel.errors import Invalid, TooLarge
from stagerelease.kernel.plain_yaml import load_plain

MAX_BLOCK = 256_000  # characters of metadata; reading YAML is slow
_METRICS = {
    "accuracy": "accuracy",
    "acc": "accuracy",
    "f1": "f1",
    "exact_match": "exact_match",
    "em": "exact_match",
    "perplexity": "perplexity",
    "ppl": "perplexity",
    "bits_per_character": "bits_per_character",
    "bpc": "bits_per_character",
    "loss": "loss",
}
_EVAL = "zero_shot_eval"


def front_matter(text: str) -> Mapping[str, Any]:
    """Return the YAML block at the head of a model card, read safely.

    Raises:
        Invalid: there is none, or it is no YAML mapping; names the line.
    """
    lines = text.splitlines()
    ends = [at for at, line in enumerate(lines[1:], start=1) if line.rstrip() == "---"]
    if not lines or lines[0].rstrip() != "---" or not ends:
        raise Invalid(
            "The model card has no metadata block between two lines of ---.", reason="import.card"
        )
    source = "\n".join(lines[1 : ends[0]])
    if len(source) > MAX_BLOCK:
        raise TooLarge(
            f"The metadata block has at most {MAX_BLOCK:,} characters.", reason="import.size"
        )
    try:
        block = load_plain(source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 2}" if mark is not None else "somewhere"
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise Invalid(
            f"The metadata block is no YAML, {line}: {problem}.", reason="import.card"
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise Invalid(
            "The metadata block holds what YAML cannot mean here.", reason="import.card"
        ) from error
    if not isinstance(block, dict):
        raise Invalid("The metadata block is no mapping.", reason="import.card")
    return block


def read_model_index(text: str, defaults: Defaults) -> list[Raw]:
    """Return one entry for each metric of each result in a model card's ``model-index``.

    Raises:
        Invalid: no metadata, no model-index, a metric no type here knows, or no unit for a share.
    """
    index = front_matter(text).get("model-index")
    if not isinstance(index, list):
        raise Invalid("The model card has no model-index.", reason="import.card")
    raw: list[Raw] = []
    for m, model in enumerate(index):
        results = model.get("results") if isinstance(model, dict) else None
        if not isinstance(results, list):
            raise Invalid(f"model-index.{m} has no list of results.", reason="import.card")
        for r, result in enumerate(results):
            where = f"model-index.{m}.results.{r}"
            raw += _read_result(where, result, _text(model.get("name")) or "model", defaults)
            if len(raw) > MAX_ENTRIES:
                return raw
    return raw


def _read_result(where: str, result: object, model: str, defaults: Defaults) -> list[Raw]:
    if not isinstance(result, dict) or not isinstance(result.get("metrics"), list):
        raise Invalid(f"{where} has no list of metrics.", reason="import.card")
    dataset = _name_of(result.get("dataset"))
    task = _name_of(result.get("task"))
    if dataset is None:
        raise Invalid(f"{where} names no dataset.", reason="import.card")
    source = result.get("source")
    url = source.get("url") if isinstance(source, dict) else None
    conditions: dict[str, Any] = {"dataset": dataset}
    if task is not None:
        conditions["task"] = task
    split = result["dataset"].get("split")
    if isinstance(split, str) and split:
        conditions["split"] = split
    raw = []
    for at, metric in enumerate(result["metrics"][: MAX_ENTRIES + 1]):
        place = f"{where}.metrics.{at}"
        values = _read_metric(place, metric, defaults)
        values |= {
            "title": f"{values['metric']} on {dataset} ({model})"[:200],
            "source": url if isinstance(url, str) else defaults.source or f"model card of {model}",
            "conditions": dict(conditions),
        }
        raw.append(Raw(place, values))
    return raw


def _name_of(given: object) -> str | None:
    if not isinstance(given, dict):
        return None
    return _text(given.get("name")) or _text(given.get("type")) or None


def _text(given: object) -> str:
    """Return text, and nothing for what is none: a list is too long to print."""
    return given if isinstance(given, str) else ""


def _read_metric(where: str, metric: object, defaults: Defaults) -> dict[str, Any]:
    if not isinstance(metric, dict):
        raise Invalid(f"{where} is no mapping.", reason="import.card")
    written = _text(metric.get("type")).lower()
    name = _METRICS.get(written)
    if name is None:
        raise Invalid(
            f"{where}: no metric of {_EVAL} is called {written!r:.80}; known are "
            f"{', '.join(_METRICS)}. Nothing was imported.",
            reason="import.card",
        )
    unit = TYPES[_EVAL].metrics[name].unit
    if TYPES[_EVAL].metrics[name].also:
        if defaults.unit is None:
            raise Invalid(
                f"{where}: a model card does not say whether {name} is in percent or a fraction.",
                reason="import.unit",
                next_step="Give the unit: percent or fraction.",
            )
        unit = defaults.unit
    value = metric.get("value")
    if isinstance(value, str):  # cards quote numbers now and then
        try:
            value = parse_number(value.strip())
        except ValueError as error:
            raise Invalid(f"{where}: {value!r:.80} is no number.", reason="import.card") from error
    return {
        "type": _EVAL,
        "metric": name,
        "value": value,
        "unit": unit,
        # What a card says of itself is an account; nobody here has repeated the measurement.
        "fact_status": defaults.fact_status or "reported",
    }

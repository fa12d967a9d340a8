"""Whether a change of a plan lets in sooner, asks more, or cannot be told. Pure.

Who consents to a plan goes by this. So nothing is said to tighten that might let somebody in, and
of several things that change together the one that loosens is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from stagerelease.evidence.kinds import ranks
from stagerelease.releases.ladder import AUDIENCES, GateSpec, Plan, Stage
from stagerelease.releases.source import parse_duration

LOOSENS, TIGHTENS, NEUTRAL, UNCLEAR = "loosens", "tightens", "neutral", "unclear"
_MEASURED = ("type", "metric", "unit")


def order(before: Any, after: Any) -> str:
    """Weigh what asks more the greater it is."""
    return NEUTRAL if before == after else LOOSENS if after < before else TIGHTENS


def sets(before: frozenset[Any], after: frozenset[Any]) -> str:
    """Weigh what lets in more the more there is of it; what is exchanged cannot be told."""
    if before == after:
        return NEUTRAL
    return LOOSENS if after > before else TIGHTENS if after < before else UNCLEAR


def together(effects: Iterable[str]) -> str:
    """Weigh several things that change together."""
    found = set(effects)
    return next((one for one in (LOOSENS, UNCLEAR, TIGHTENS) if one in found), NEUTRAL)


# --- stages --------------------------------------------------------------------------------------


def audience(before: str, after: str) -> str:
    """Weigh whom a stage lets in: the wider, the looser."""
    return order(AUDIENCES.index(after), AUDIENCES.index(before))


def agreement(before: str | None, after: str | None) -> str:
    """Weigh what must be signed; nobody can tell here what two texts ask."""
    if before == after:
        return NEUTRAL
    return TIGHTENS if before is None else LOOSENS if after is None else UNCLEAR


def added(old: Plan, new: Plan, stage: Stage) -> str:
    """Weigh a stage that comes in.

    It only asks more where it is one step more on the way up and lets in nobody, and nothing, that
    the stage below it did not.
    """
    rank = new.rank(stage.name)
    below = new.ladder[rank - 1] if rank else old.ladder[0]
    wider = (
        audience(below.audience, stage.audience) == LOOSENS
        or agreement(below.agreement, stage.agreement) in (LOOSENS, UNCLEAR)
        or not stage.permissions <= below.permissions
        or (stage.listed and not below.listed)
    )
    return LOOSENS if wider or new.next(stage.name) is None else TIGHTENS


def removed(old: Plan, stage: Stage) -> str:
    """Weigh a stage that goes: any but the last is a step less on the way up."""
    return TIGHTENS if old.next(stage.name) is None else LOOSENS


# --- gates ---------------------------------------------------------------------------------------


def gate(before: GateSpec, after: GateSpec) -> str:
    """Weigh what becomes of one gate, by each of its options."""
    if before.kind != after.kind:
        return UNCLEAR
    names = {*before.options, *after.options}
    changed = {n for n in names if before.options.get(n) != after.options.get(n)}
    effects = {_option(before, name, before.options, after.options) for name in changed}
    return together({_artifacts(before, after), *effects})


def _artifacts(before: GateSpec, after: GateSpec) -> str:
    """Weigh of which kinds it is asked; of all when none is named."""
    was, now = frozenset(before.artifacts), frozenset(after.artifacts)
    if was == now:
        return NEUTRAL
    if not was or not now:
        return LOOSENS if now else TIGHTENS
    return sets(now, was)


def _option(spec: GateSpec, name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    weigh = _WEIGHED.get((spec.kind, name))
    if weigh is None or any(before.get(one) != after.get(one) for one in _MEASURED):
        return UNCLEAR  # of something else that is measured, no number can be compared
    return weigh(before.get(name), after.get(name), before)


Weigh = Callable[[Any, Any, Mapping[str, Any]], str]


def _more(before: float | None, after: float | None, _: Mapping[str, Any]) -> str:
    """Weigh a number that asks more the greater it is; none at all asks nothing."""
    if before is None or after is None:
        return TIGHTENS if before is None else LOOSENS
    return order(before, after)


def _least(before: float | None, after: float | None, _: Mapping[str, Any]) -> str:
    """Weigh a threshold to be reached; when it gives way to another kind it cannot be told."""
    return UNCLEAR if before is None or after is None else order(before, after)


def _most(before: float | None, after: float | None, _: Mapping[str, Any]) -> str:
    """Weigh a threshold not to be exceeded."""
    return UNCLEAR if before is None or after is None else order(after, before)


def _verdict(before: str | None, after: str | None, options: Mapping[str, Any]) -> str:
    """Weigh a verdict by its rank, 0 for what speaks most for release."""
    if before is None or after is None:
        return UNCLEAR
    scale = ranks(options["type"])
    return order(scale[after], scale[before])


def _longer(before: str | None, after: str | None, _: Mapping[str, Any]) -> str:
    """Weigh a time that has to pass; none is no time."""
    return order(_span(before, timedelta(0)), _span(after, timedelta(0)))


def _younger(before: str | None, after: str | None, _: Mapping[str, Any]) -> str:
    """Weigh an age that is not to be exceeded; none is any age."""
    return order(_span(after, timedelta.max), _span(before, timedelta.max))


def _age_of_figures(before: str | None, after: str | None, _: Mapping[str, Any]) -> str:
    """Weigh the age of evidence: older figures let in; fewer may be fewer that contradict."""
    return LOOSENS if _younger(before, after, {}) == LOOSENS else UNCLEAR


def _judged_by(before: str, _after: str, __: Mapping[str, Any]) -> str:
    """Weigh by what a figure is compared: one that failed by its value may be judged by another."""
    return LOOSENS if before == "interval" else UNCLEAR


def _keys(before: tuple[str, ...] | None, after: tuple[str, ...] | None, _: Any) -> str:
    """Weigh whose signature is enough; anybody's when none is named."""
    was, now = frozenset(before or ()), frozenset(after or ())
    if not was or not now:
        return TIGHTENS if now else LOOSENS
    return sets(was, now)


def _span(text: str | None, otherwise: timedelta) -> timedelta:
    span = parse_duration(text) if text else None
    return otherwise if span is None else span


_WEIGHED: Mapping[tuple[str, str], Weigh] = {
    ("served", "at_least"): _more,
    ("coordination", "at_least"): _more,
    ("coordination", "window"): _longer,
    ("signed", "keys"): _keys,
    ("freshness", "max_age"): _younger,
    ("evidence", "at_least"): _least,
    ("evidence", "at_most"): _most,
    ("evidence", "verdict"): _verdict,
    ("evidence", "count"): _more,
    ("evidence", "distinct_organisations"): _more,
    ("evidence", "max_age"): _age_of_figures,
    ("evidence", "judged_by"): _judged_by,
}
"""By kind and option. What is not here (a question, conditions) is for people to read."""

"""What changes from one plan to another, in words, and whether it lets in sooner. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stagerelease.releases import weighing
from stagerelease.releases.ladder import Plan, Stage
from stagerelease.releases.plans import plan_document


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. ``effect`` is loosens, tightens, neutral, or unclear when it cannot be told.

    ``before`` and ``after`` are the values as a plan writes them, None where there is none.
    """

    where: str
    before: Any
    after: Any
    effect: str

    @property
    def sentence(self) -> str:
        """Return the change as a person reads it."""
        if self.where == "Description":
            return "Description is reworded."
        if self.before is None:
            return f"{self.where} is added: {_said(self.after)}."
        if self.after is None:
            return f"{self.where} is removed (was {_said(self.before)})."
        return f"{self.where}: {_said(self.before)} becomes {_said(self.after)}."


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_said(item) for item in value) or "none"
    return str(value)


_ALWAYS = datetime.min.replace(tzinfo=UTC)
"""From when a stage without a date may be entered."""


def _stage_changes(
    old: Stage, new: Stage, before: dict[str, Any], after: dict[str, Any]
) -> Iterator[Change]:
    where = f"Stage {new.name}"
    effects = {
        "audience": weighing.audience(old.audience, new.audience),
        "listed": weighing.order(not old.listed, not new.listed),
        "agreement": weighing.agreement(old.agreement, new.agreement),
        "permissions": weighing.sets(old.permissions, new.permissions),
        "prompt_logging": weighing.order(old.prompt_logging, new.prompt_logging),
        "minimum_dwell": weighing.order(old.minimum_dwell, new.minimum_dwell),
        "not_before": weighing.order(old.not_before or _ALWAYS, new.not_before or _ALWAYS),
    }
    for key, effect in effects.items():
        if before.get(key) != after.get(key):
            yield Change(f"{where}, {key}", before.get(key), after.get(key), effect)
    yield from _quorum_changes(where, old, new)
    yield from _gate_changes(where, (old, new), before.get("gates", []), after.get("gates", []))


def _quorum_changes(where: str, old: Stage, new: Stage) -> Iterator[Change]:
    if old.quorum.count != new.quorum.count:
        yield Change(
            f"{where}, quorum",
            old.quorum.count,
            new.quorum.count,
            weighing.order(old.quorum.count, new.quorum.count),
        )
    was, now = frozenset(old.quorum.roles), frozenset(new.quorum.roles)
    if was != now:
        yield Change(f"{where}, quorum roles", sorted(was), sorted(now), weighing.sets(was, now))


def _gate_changes(
    where: str, stages: tuple[Stage, Stage], old: list[Any], new: list[Any]
) -> Iterator[Change]:
    was = {gate["key"]: gate for gate in old}
    now = {gate["key"]: gate for gate in new}
    specs = [{spec.key: spec for spec in stage.gates} for stage in stages]
    for key in [*was, *(k for k in now if k not in was)]:
        before, after = was.get(key), now.get(key)
        if before != after:
            effect = weighing.TIGHTENS if before is None else weighing.LOOSENS
            if before is not None and after is not None:
                effect = weighing.gate(specs[0][key], specs[1][key])
            yield Change(f"{where}, gate {key}", before, after, effect)


def differences(old: Plan, new: Plan) -> tuple[Change, ...]:
    """Return what changes from ``old`` to ``new``, stage by stage; empty when nothing does."""
    before, after = plan_document(old), plan_document(new)
    words = {
        "title": weighing.NEUTRAL,
        "description": weighing.NEUTRAL,
        # the longer a request lives, the longer its approvals count
        "request_lifetime": weighing.order(new.request_lifetime, old.request_lifetime),
    }
    found: list[Change] = [
        Change(key.replace("_", " ").capitalize(), before.get(key), after.get(key), effect)
        for key, effect in words.items()
        if before.get(key) != after.get(key)
    ]
    stages = {stage["name"]: stage for stage in before["stages"]}
    renewed = {stage["name"]: stage for stage in after["stages"]}
    for stage in old.ladder:
        if new.find(stage.name) is None:
            gone = stages[stage.name]
            found.append(Change(f"Stage {stage.name}", gone, None, weighing.removed(old, stage)))
    for stage in new.ladder:
        was = old.find(stage.name)
        if was is None:
            come = renewed[stage.name]
            effect = weighing.added(old, new, stage)
            found.append(Change(f"Stage {stage.name}", None, come, effect))
        else:
            found.extend(_stage_changes(was, stage, stages[stage.name], renewed[stage.name]))
    order = [s.name for s in old.ladder if new.find(s.name)]
    reorder = [s.name for s in new.ladder if old.find(s.name)]
    if order != reorder:
        found.append(Change("Order of stages", order, reorder, weighing.UNCLEAR))
    return tuple(found)

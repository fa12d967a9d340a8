"""What changes from one plan to another, in words, and whether it lets in sooner. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from stagerelease.releases.ladder import Plan, Stage
from stagerelease.releases.plans import plan_document


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. ``effect`` is loosens, tightens, or neutral when neither can be said.

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


def _order(before: Any, after: Any) -> str:
    return "neutral" if before == after else "loosens" if after < before else "tightens"


def _sets(before: frozenset[str], after: frozenset[str]) -> str:
    return "loosens" if after > before else "tightens" if after < before else "neutral"


_PLAIN_KEYS = (
    "audience",
    "listed",
    "agreement",
    "permissions",
    "prompt_logging",
    "minimum_dwell",
    "not_before",
)


def _stage_changes(
    old: Stage, new: Stage, before: dict[str, Any], after: dict[str, Any]
) -> Iterator[Change]:
    where = f"Stage {new.name}"
    effects = {
        "minimum_dwell": _order(old.minimum_dwell, new.minimum_dwell),
        "permissions": _sets(old.permissions, new.permissions),
    }
    if old.not_before != new.not_before:
        effects["not_before"] = (
            "tightens"
            if old.not_before is None
            else "loosens"
            if new.not_before is None
            else _order(old.not_before, new.not_before)
        )
    for key in _PLAIN_KEYS:
        if before.get(key) != after.get(key):
            effect = effects.get(key, "neutral")
            yield Change(f"{where}, {key}", before.get(key), after.get(key), effect)
    yield from _quorum_changes(where, old, new)
    yield from _gate_changes(where, before.get("gates", []), after.get("gates", []))


def _quorum_changes(where: str, old: Stage, new: Stage) -> Iterator[Change]:
    if old.quorum.count != new.quorum.count:
        yield Change(
            f"{where}, quorum",
            old.quorum.count,
            new.quorum.count,
            _order(old.quorum.count, new.quorum.count),
        )
    was, now = frozenset(old.quorum.roles), frozenset(new.quorum.roles)
    if was != now:
        yield Change(f"{where}, quorum roles", sorted(was), sorted(now), _sets(was, now))


def _gate_changes(where: str, old: list[Any], new: list[Any]) -> Iterator[Change]:
    was = {gate["key"]: gate for gate in old}
    now = {gate["key"]: gate for gate in new}
    for key in [*was, *(k for k in now if k not in was)]:
        before, after = was.get(key), now.get(key)
        if before != after:
            effect = "tightens" if before is None else "loosens" if after is None else "neutral"
            yield Change(f"{where}, gate {key}", before, after, effect)


def differences(old: Plan, new: Plan) -> tuple[Change, ...]:
    """Return what changes from ``old`` to ``new``, stage by stage; empty when nothing does."""
    before, after = plan_document(old), plan_document(new)
    found: list[Change] = [
        Change(key.replace("_", " ").capitalize(), before.get(key), after.get(key), "neutral")
        for key in ("title", "description", "request_lifetime")
        if before.get(key) != after.get(key)
    ]
    stages = {stage["name"]: stage for stage in before["stages"]}
    renewed = {stage["name"]: stage for stage in after["stages"]}
    for stage in old.ladder:
        if new.find(stage.name) is None:
            found.append(Change(f"Stage {stage.name}", stages[stage.name], None, "loosens"))
    for stage in new.ladder:
        was = old.find(stage.name)
        if was is None:
            found.append(Change(f"Stage {stage.name}", None, renewed[stage.name], "tightens"))
        else:
            found.extend(_stage_changes(was, stage, stages[stage.name], renewed[stage.name]))
    order = [s.name for s in old.ladder if new.find(s.name)]
    reorder = [s.name for s in new.ladder if old.find(s.name)]
    if order != reorder:
        found.append(Change("Order of stages", order, reorder, "neutral"))
    return tuple(found)

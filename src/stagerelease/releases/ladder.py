"""What a release plan is: an ordered ladder of stages; and the plans that come with the product.

Pure values. This module must not know YAML, or how a gate is decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

WITHDRAWN = "withdrawn"
"""Where a withdrawn track is. Not a rung: no plan may name a stage so, and nothing leads out."""

SHIPPED = ("default", "demo", "gpt2-2019", "strict")
"""Plans that come with the product, as package data."""

AUDIENCES = ("staff", "organisations", "people", "everyone")
"""Who a stage lets in, narrowest first. A ladder never narrows."""

PERMISSIONS = frozenset({"download", "infer"})


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many distinct people, each holding one of ``roles``, must approve."""

    count: int = 2
    roles: tuple[str, ...] = ("reviewer",)


@dataclass(frozen=True, slots=True)
class GateSpec:
    """A gate as a plan lists it: its key on this stage, its kind, and what the kind reads.

    ``artifacts`` are the artifact kinds it is asked of; empty means every kind.
    """

    key: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """One rung. Quorum, dwell, date and gates are asked of a request *into* this stage."""

    name: str
    audience: str
    listed: bool = True
    agreement: str | None = None
    permissions: frozenset[str] = PERMISSIONS
    minimum_dwell: timedelta = timedelta(0)  # to be served in the stage below
    quorum: Quorum = field(default_factory=Quorum)
    not_before: datetime | None = None
    gates: tuple[GateSpec, ...] = ()
    prompt_logging: bool = False  # keep what callers ask models at this stage, and tell them so


@dataclass(frozen=True, slots=True)
class Plan:
    """A release plan: its name, its ladder from narrowest to widest, and a request's lifetime."""

    slug: str
    title: str
    ladder: tuple[Stage, ...]
    request_lifetime: timedelta = timedelta(days=30)
    description: str = ""

    def find(self, name: str) -> Stage | None:
        """Return the stage called ``name``, or None."""
        return next((stage for stage in self.ladder if stage.name == name), None)

    def stage(self, name: str) -> Stage:
        """Return the stage called ``name``.

        Raises:
            KeyError: this plan has no such stage; ``withdrawn`` is not one.
        """
        found = self.find(name)
        if found is None:
            raise KeyError(name)
        return found

    def rank(self, name: str) -> int:
        """Return the rung of ``name``, 0 being the lowest.

        Raises:
            KeyError: this plan has no such stage.
        """
        return self.ladder.index(self.stage(name))

    def next(self, name: str) -> Stage | None:
        """Return the rung above ``name``; None at the top and for what is not on the ladder."""
        if self.find(name) is None:
            return None
        above = self.rank(name) + 1
        return self.ladder[above] if above < len(self.ladder) else None


@cache
def shipped_source(slug: str) -> str:
    """Return the YAML source of a plan that comes with the product.

    Raises:
        KeyError: it is not one of ``SHIPPED``.
    """
    if slug not in SHIPPED:
        raise KeyError(slug)
    return files("stagerelease.releases").joinpath("shipped", f"{slug}.yaml").read_text("utf-8")


@cache
def shipped_schema() -> str:
    """Return the JSON Schema of plans, as published."""
    schema = files("stagerelease.releases").joinpath("shipped", "plan.schema.json")
    return schema.read_text("utf-8")

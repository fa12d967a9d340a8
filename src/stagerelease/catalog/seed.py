"""Families that ship with the product, as data. Reads package files; never touches the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from stagerelease.kernel.errors import NotFound


@dataclass(frozen=True, slots=True)
class VariantSeed:
    """A variant to add: exact parameter count, architecture and other names."""

    label: str
    repo_id: str
    aliases: tuple[str, ...]
    parameters: int
    architecture: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FamilySeed:
    """A family to add, smallest variant first."""

    id: str
    name: str
    description: str
    variants: tuple[VariantSeed, ...]


def shipped(family_id: str) -> FamilySeed:
    """Return the family of that id that ships with the product.

    Raises:
        NotFound: none does.
    """
    source = files("stagerelease.catalog") / "shipped" / f"{family_id}.yaml"
    if not source.is_file():
        raise NotFound(f"No family {family_id!r} ships with this version.", reason="family.unknown")
    document = yaml.safe_load(source.read_text("utf-8"))
    shared = document.get("architecture", {})
    return FamilySeed(
        id=document["id"],
        name=document["name"],
        description=document["description"],
        variants=tuple(
            VariantSeed(
                label=str(variant["label"]),
                repo_id=variant["repo_id"],
                aliases=tuple(variant.get("aliases", ())),
                parameters=int(variant["parameters"]),
                architecture={**shared, **variant.get("architecture", {})},
            )
            for variant in document["variants"]
        ),
    )

"""The agreement texts that come with the product: templates, kept as package data."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

SHIPPED = ("model-sharing", "researcher-terms")


@cache
def shipped_text(slug: str) -> str:
    """Return the Markdown text of a shipped agreement.

    Raises:
        KeyError: it is not one of ``SHIPPED``.
    """
    if slug not in SHIPPED:
        raise KeyError(slug)
    return files("stagerelease.partners").joinpath("shipped", f"{slug}.md").read_text("utf-8")

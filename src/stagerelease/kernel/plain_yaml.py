"""Reads YAML that strangers wrote: plain values, so many of them, nothing that multiplies. Pure."""

from __future__ import annotations

from typing import Any

import yaml

try:
    from yaml import CSafeLoader as _Base  # libyaml: ten times as quick
except ImportError:
    from yaml import SafeLoader as _Base  # type: ignore[assignment]

MOST_NODES = 60_000
DEEPEST = 50


class _Loader(_Base):
    """A safe loader to which a date is the text it was written as."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_plain(source: str) -> object:
    """Return the values of a YAML text without anchors, which make a short text a huge value.

    Raises:
        yaml.YAMLError: it is no YAML of that kind, or holds more than anybody writes by hand.
        ValueError, TypeError: it holds numbers or keys that Python cannot hold.
    """
    _check_events(source)
    return yaml.load(source, _Loader)  # noqa: S506 (a safe loader: it builds plain values only)


def _check_events(source: str) -> None:
    """Look at the text as it comes, before anything is built of it: that needs no recursion."""
    nodes = depth = 0
    for event in yaml.parse(source, _Loader):
        if getattr(event, "anchor", None) is not None:
            raise _refusal(event, "anchors and aliases are not read")
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if nodes > MOST_NODES or depth > DEEPEST:
            raise _refusal(
                event, f"more than {MOST_NODES:,} values, or deeper than {DEEPEST}, are not read"
            )


def _refusal(event: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


def holds_more(source: str, most: int) -> bool:
    """Tell whether a YAML text holds more values than ``most``; quick, and no judge of the rest."""
    nodes = 0
    try:
        for event in yaml.parse(source, _Loader):
            nodes += isinstance(event, yaml.NodeEvent)
            if nodes > most:
                return True
    except yaml.YAMLError:  # whoever loads it says what is wrong
        return False
    return False

"""Reads a YAML text field by field, noting every mistake by its path. Pure.

Knows YAML, durations and instants; knows nothing of what a plan means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from stagerelease.kernel.errors import FieldError, Invalid

MAX_SOURCE = 65_536
LONGEST = timedelta(days=36_500)
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
_DURATION = re.compile(  # ISO 8601 durations of a fixed length: no years, no months
    r"P(?=.)(?:(?P<weeks>\d{1,4})W|(?:(?P<days>\d{1,5})D)?"
    r"(?:T(?=.)(?:(?P<hours>\d{1,5})H)?(?:(?P<minutes>\d{1,5})M)?(?:(?P<seconds>\d{1,5})S)?)?)\Z"
)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d))?\Z")


def is_slug(text: str) -> bool:
    """Tell whether ``text`` is a name of a-z, 0-9, - and _ (at most 32)."""
    return _SLUG.match(text) is not None


def parse_duration(text: str) -> timedelta | None:
    """Return an ISO 8601 duration of days and less (``P14D``, ``PT36H``, ``P2W``), else None."""
    found = _DURATION.match(text) if text.isascii() else None
    if found is None:
        return None
    span = timedelta(**{unit: int(count) for unit, count in found.groupdict("0").items()})
    return span if span <= LONGEST else None


def duration_text(span: timedelta) -> str:
    """Return ``span`` (whole seconds) as the ISO 8601 duration that ``parse_duration`` reads."""
    rest = span.seconds
    if not rest:
        return f"P{span.days}D"
    return f"P{span.days}DT{rest // 3600}H{rest // 60 % 60}M{rest % 60}S"


class _Loader(yaml.SafeLoader):
    """YAML without its traps."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise yaml.constructor.ConstructorError(
                None, None, "anchors and aliases are not read in plans", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_yaml(source: str) -> object:
    """Return the plain values of a YAML text: no tags, anchors, merges, dates or repeated keys.

    Raises:
        Invalid: it is too long, or not YAML of that kind; says where.
    """
    if len(source) > MAX_SOURCE:
        raise Invalid(
            f"The plan is {len(source):,} characters; at most {MAX_SOURCE:,} are read.",
            reason="plan.too-large",
        )
    try:
        # A subclass of SafeLoader: it builds plain values only.
        return yaml.load(source, _Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise Invalid(f"The plan is not YAML{at}: {error.problem}.", reason="plan.yaml") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        # ValueError and TypeError: numbers and keys that YAML allows and Python cannot hold.
        raise Invalid(
            "The plan is not YAML that can be read: it holds characters, numbers, keys or a depth "
            "that no plan needs.",
            reason="plan.yaml",
        ) from error


def lines_of(source: str) -> dict[str, int]:
    """Return the line (from 1) on which each value of a YAML text stands, by its dotted path.

    ``stages.1.quorum.count`` and the like; the whole text is ``""``. For a text that ``load_yaml``
    reads.
    """
    lines: dict[str, int] = {}

    def note(node: yaml.Node, path: str, line: int) -> None:
        lines[path] = line + 1
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                note(value, f"{path}.{key.value}".lstrip("."), key.start_mark.line)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                note(value, f"{path}.{index}".lstrip("."), value.start_mark.line)

    root = yaml.compose(source, _Loader)
    if root is not None:
        note(root, "", root.start_mark.line)
    return lines


def line_of(lines: Mapping[str, int], path: str) -> int:
    """Return the line of ``path``, or of the nearest thing around it that is there."""
    while path and path not in lines:
        path = path.rpartition(".")[0]
    return lines.get(path, 1)


class Fields:
    """Reads one mapping, key by key, and notes every mistake instead of stopping at the first."""

    def __init__(self, raw: object, path: str, errors: list[FieldError]) -> None:
        self.path = path
        self.errors = errors
        self.values: dict[str, object] = {}
        self._asked: set[str] = set()
        if isinstance(raw, Mapping):
            self.values = {str(key): value for key, value in raw.items()}
        else:
            self.wrong("", "must be a mapping of keys to values")

    def wrong(self, key: str, sentence: str) -> None:
        """Note a mistake at ``key`` of this mapping."""
        where = ".".join(part for part in (self.path, key) if part) or "plan"
        self.errors.append(FieldError(where, f"{where} {sentence}."))

    def take(self, key: str, *, required: bool = False) -> object:
        """Return the raw value of ``key``, None when it is not there."""
        self._asked.add(key)
        value = self.values.get(key)
        if value is None and required:
            self.wrong(key, "is missing")
        return value

    def text(self, key: str, *, required: bool = False, limit: int = 200) -> str:
        """Return a text; empty when absent or wrong."""
        value = self.take(key, required=required)
        if value is None:
            return ""
        if not isinstance(value, str) or not 1 <= len(value.strip()) <= limit:
            self.wrong(key, f"must be a text of 1 to {limit} characters")
            return ""
        value = value.strip()
        if not all(c.isprintable() or c == "\n" for c in value):
            self.wrong(key, "holds characters that cannot be printed")
            return ""
        return value

    def slug(self, key: str, *, required: bool = False) -> str:
        """Return a name of a-z, 0-9, - and _ (at most 32)."""
        value = self.text(key, required=required)
        if value and not is_slug(value):
            self.wrong(key, "must be 1-32 of a-z, 0-9, '-' and '_', beginning with a-z or 0-9")
            return ""
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """Return one of ``choices``; the key must be there."""
        value = self.take(key, required=True)
        if value is not None and value not in choices:
            self.wrong(key, f"must be one of {', '.join(choices)}")
            return ""
        return value if isinstance(value, str) else ""

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.wrong(key, "must be true or false")
        return value is True

    def duration(self, key: str, default: timedelta) -> timedelta:
        """Return an ISO 8601 duration."""
        value = self.take(key)
        if value is None:
            return default
        span = parse_duration(value) if isinstance(value, str) else None
        if span is None:
            self.wrong(key, "must be an ISO 8601 duration of days or less, such as P14D or PT12H")
            return default
        return span

    def instant(self, key: str) -> datetime | None:
        """Return a date (its first instant in UTC) or an instant with a zone; None when absent."""
        value = self.take(key)
        if value is None:
            return None
        at = None
        if isinstance(value, str) and _INSTANT.match(value):
            try:
                at = datetime.fromisoformat(value)
                at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
            except (ValueError, OverflowError):
                at = None
        if at is None:
            self.wrong(key, "must be a date or an instant with its zone, such as 2019-11-05")
        return at

    def names(
        self, key: str, choices: tuple[str, ...], default: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Return a list of distinct names out of ``choices``."""
        value = self.take(key)
        if value is None:
            return default
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(v, str) and v in choices for v in value)
            or len(set(value)) != len(value)
        ):
            self.wrong(key, f"must be a list without repeats of: {', '.join(choices)}")
            return default
        return tuple(value)

    def items(self, key: str, *, most: int) -> list[object]:
        """Return a list of at most ``most`` items; empty when absent."""
        value = self.take(key)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > most:
            self.wrong(key, f"must be a list of at most {most}")
            return []
        return value

    def refuse_unknown(self) -> None:
        """Note every key that nothing asked for."""
        for key in self.values.keys() - self._asked:
            known = ", ".join(sorted(self._asked))
            # The key is quoted by its printable form: it comes from outside.
            self.wrong(ascii(key)[1:-1][:80], f"is not a key here; there are {known}")

"""Reads release plans: YAML in, a checked ``Plan`` out, every mistake named by its field.

Pure: text in, values out. YAML is read with the safest subset (no tags, no anchors, no duplicate
keys, no dates guessed from strings), because a plan decides who may be let in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from stagerelease.identity.rules import ROLE_PERMISSIONS, Permission, Role
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import FieldError, Invalid
from stagerelease.releases.gates import KINDS
from stagerelease.releases.ladder import (
    AUDIENCES,
    PERMISSIONS,
    SHIPPED,
    WITHDRAWN,
    GateSpec,
    Plan,
    Quorum,
    Stage,
    shipped_source,
)

__all__ = [
    "SHIPPED",
    "GateSpec",
    "Plan",
    "Quorum",
    "Stage",
    "duration_text",
    "parse_duration",
    "parse_plan",
    "plan_document",
    "read_plan",
    "shipped_source",
]

MAX_SOURCE = 65_536
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
_DURATION = re.compile(  # ISO 8601 durations of a fixed length: no years, no months
    r"P(?=.)(?:(?P<weeks>\d{1,4})W|(?:(?P<days>\d{1,5})D)?"
    r"(?:T(?=.)(?:(?P<hours>\d{1,5})H)?(?:(?P<minutes>\d{1,5})M)?(?:(?P<seconds>\d{1,5})S)?)?)\Z"
)
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d))?\Z")
_DECIDERS = tuple(sorted(r for r in Role if Permission.PROMOTION_DECIDE in ROLE_PERMISSIONS[r]))


def parse_duration(text: str) -> timedelta | None:
    """Return an ISO 8601 duration of days and less (``P14D``, ``PT36H``, ``P2W``), else None."""
    found = _DURATION.match(text) if text.isascii() else None
    if found is None:
        return None
    return timedelta(**{unit: int(count) for unit, count in found.groupdict("0").items()})


def duration_text(span: timedelta) -> str:
    """Return ``span`` (whole seconds) as the ISO 8601 duration that ``parse_duration`` reads."""
    rest = span.seconds
    if not rest:
        return f"P{span.days}D"
    return f"P{span.days}DT{rest // 3600}H{rest // 60 % 60}M{rest % 60}S"


class _PlanLoader(yaml.SafeLoader):
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


_PlanLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _load_yaml(source: str) -> object:
    if len(source) > MAX_SOURCE:
        raise Invalid(
            f"The plan is {len(source):,} characters; at most {MAX_SOURCE:,} are read.",
            reason="plan.too-large",
        )
    try:
        # A subclass of SafeLoader: it builds plain values only.
        return yaml.load(source, _PlanLoader)  # noqa: S506
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


class _Fields:
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
        if value and not _SLUG.match(value):
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


def _quorum(raw: object, path: str, errors: list[FieldError]) -> Quorum:
    if raw is None:
        return Quorum()
    fields = _Fields(raw, path, errors)
    count = fields.take("count", required=True)
    if count is not None and (type(count) is not int or not 1 <= count <= 20):
        fields.wrong("count", "must be a whole number from 1 to 20")
    roles = fields.names("roles", _DECIDERS, ("reviewer",))
    fields.refuse_unknown()
    return Quorum(count if isinstance(count, int) else 2, roles)


def _gate(raw: object, path: str, errors: list[FieldError]) -> GateSpec:
    fields = _Fields(raw, path, errors)
    kind = fields.text("kind", required=True)
    key = fields.slug("key") or kind
    gate = KINDS.get(kind)
    options: dict[str, str] = {}
    if kind and gate is None:
        listable = ", ".join(k for k, g in KINDS.items() if g.listed)
        fields.wrong("kind", f"names no kind of gate; there are {listable}")
        return GateSpec(key, kind)
    if gate is not None and not gate.listed:
        fields.wrong("kind", f"is {kind}, which every stage has already and no plan lists")
        return GateSpec(key, kind)
    if gate is not None:
        options = {name: fields.text(name, required=True, limit=500) for name in gate.options}
        fields.refuse_unknown()
    return GateSpec(key, kind, options)


def _gates(raw: list[object], path: str, errors: list[FieldError]) -> tuple[GateSpec, ...]:
    specs = tuple(_gate(item, f"{path}.{i}", errors) for i, item in enumerate(raw))
    seen = {kind for kind, gate in KINDS.items() if not gate.listed}
    for i, spec in enumerate(specs):
        if spec.key in seen:
            where = f"{path}.{i}.key"
            errors.append(FieldError(where, f"{where}: {spec.key!r} names another gate already."))
        seen.add(spec.key)
    return specs


def _stage(raw: object, index: int, errors: list[FieldError]) -> Stage:
    path = f"stages.{index}"
    fields = _Fields(raw, path, errors)
    stage = Stage(
        name=fields.slug("name", required=True),
        audience=fields.choice("audience", AUDIENCES),
        listed=fields.flag("listed", default=index > 0),
        agreement=fields.slug("agreement") or None,
        permissions=frozenset(
            fields.names("permissions", tuple(sorted(PERMISSIONS)), tuple(PERMISSIONS))
        ),
        minimum_dwell=fields.duration("minimum_dwell", timedelta(0)),
        quorum=_quorum(fields.take("quorum"), f"{path}.quorum", errors),
        not_before=fields.instant("not_before"),
        gates=_gates(fields.items("gates", most=20), f"{path}.gates", errors),
    )
    if index == 0:
        for key in ("minimum_dwell", "quorum", "not_before", "gates"):
            if key in fields.values:
                fields.wrong(key, "has no meaning on the first stage: nothing is promoted to it")
    if stage.name == WITHDRAWN:
        fields.wrong("name", f"must not be {WITHDRAWN}: that is where withdrawn tracks are")
    if stage.audience in ("organisations", "people") and stage.agreement is None:
        fields.wrong("agreement", f"is missing: {stage.audience} are let in under an agreement")
    if stage.audience in ("staff", "everyone") and stage.agreement is not None:
        fields.wrong("agreement", f"has no meaning here: {stage.audience} sign none")
    fields.refuse_unknown()
    return stage


def _check_ladder(ladder: tuple[Stage, ...], errors: list[FieldError]) -> None:
    def wrong(index: int, key: str, sentence: str) -> None:
        where = f"stages.{index}.{key}"
        errors.append(FieldError(where, f"{where} {sentence}."))

    names: set[str] = set()
    for i, stage in enumerate(ladder):
        if stage.name and stage.name in names:
            wrong(i, "name", f"repeats {stage.name!r}: each stage has its own name")
        names.add(stage.name)
        if not stage.audience:
            continue
        if i == 0 and stage.audience != "staff":
            wrong(i, "audience", "must be staff: every track starts where only staff reach it")
        if i > 0 and stage.audience == "staff":
            wrong(i, "audience", "must not be staff above the first stage")
        below = ladder[i - 1].audience if i else ""
        if below and AUDIENCES.index(stage.audience) < AUDIENCES.index(below):
            wrong(i, "audience", f"is narrower than {below} below it: a ladder only widens")
        if stage.audience == below == "everyone":
            wrong(i, "audience", "is everyone twice: nothing is wider than everyone")


def read_plan(raw: object) -> Plan:
    """Return the plan that plain values (mappings, lists, texts) describe.

    Raises:
        Invalid: something is missing, unknown or contradicts itself; ``fields`` names all of it.
    """
    errors: list[FieldError] = []
    fields = _Fields(raw, "", errors)
    slug = fields.slug("plan", required=True)
    title = fields.text("title", required=True)
    description = fields.text("description", limit=4000)
    lifetime = fields.duration("request_lifetime", timedelta(days=30))
    if lifetime < timedelta(hours=1):
        fields.wrong("request_lifetime", "must be at least an hour")
    items = fields.items("stages", most=12)
    if len(items) < 2:
        fields.wrong("stages", "must list at least two stages, lowest first")
    ladder = tuple(_stage(item, i, errors) for i, item in enumerate(items))
    _check_ladder(ladder, errors)
    fields.refuse_unknown()
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise Invalid(
            f"The plan cannot be used: {errors[0].sentence}{more}",
            reason="plan.invalid",
            next_step="Correct the fields; shipped/plan.schema.json describes the form.",
            fields=errors,
        )
    return Plan(slug, title, ladder, lifetime, description)


def parse_plan(source: str) -> Plan:
    """Return the plan that a YAML text describes.

    Raises:
        Invalid: it is not YAML, or not a plan; ``fields`` names every mistake.
    """
    return read_plan(_load_yaml(source))


def plan_document(plan: Plan) -> dict[str, Any]:
    """Return ``plan`` as plain JSON values, every default written out.

    ``read_plan(plan_document(plan)) == plan``; its canonical digest names the plan's meaning.
    """
    return {
        "plan": plan.slug,
        "title": plan.title,
        **({"description": plan.description} if plan.description else {}),
        "request_lifetime": duration_text(plan.request_lifetime),
        "stages": [_stage_document(stage, first=i == 0) for i, stage in enumerate(plan.ladder)],
    }


def _stage_document(stage: Stage, *, first: bool) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": stage.name,
        "audience": stage.audience,
        "listed": stage.listed,
        "permissions": sorted(stage.permissions),
    }
    if stage.agreement:
        document["agreement"] = stage.agreement
    if not first:
        document["minimum_dwell"] = duration_text(stage.minimum_dwell)
        document["quorum"] = {"count": stage.quorum.count, "roles": list(stage.quorum.roles)}
        document["gates"] = [{"kind": g.kind, "key": g.key, **g.options} for g in stage.gates]
        if stage.not_before:
            document["not_before"] = iso(stage.not_before)
    return document

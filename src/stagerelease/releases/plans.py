"""Reads release plans: YAML in, a checked ``Plan`` out, every mistake named by its field.

Pure: text in, values out. YAML is read with the safest subset (no tags, no anchors, no duplicate
keys, no dates guessed from strings), because a plan decides who may be let in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from stagerelease.identity.rules import ROLE_PERMISSIONS, Permission, Role
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import FieldError, Invalid
from stagerelease.releases.gate_options import ARTIFACTS, plain_options, read_options
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
from stagerelease.releases.source import (
    Fields,
    duration_text,
    line_of,
    lines_of,
    load_yaml,
    parse_duration,
)

__all__ = [
    "SHIPPED",
    "Finding",
    "GateSpec",
    "Plan",
    "Quorum",
    "Stage",
    "duration_text",
    "lint_plan",
    "parse_duration",
    "parse_plan",
    "plan_document",
    "read_plan",
    "shipped_source",
]

_DECIDERS = tuple(sorted(r for r in Role if Permission.PROMOTION_DECIDE in ROLE_PERMISSIONS[r]))


def _quorum(raw: object, path: str, errors: list[FieldError]) -> Quorum:
    if raw is None:
        return Quorum()
    fields = Fields(raw, path, errors)
    count = fields.take("count", required=True)
    if count is not None and (type(count) is not int or not 1 <= count <= 20):
        fields.wrong("count", "must be a whole number from 1 to 20")
    roles = fields.names("roles", _DECIDERS, ("reviewer",))
    fields.refuse_unknown()
    return Quorum(count if isinstance(count, int) else 2, roles)


def _gate(raw: object, path: str, errors: list[FieldError]) -> GateSpec:
    fields = Fields(raw, path, errors)
    kind = fields.text("kind", required=True)
    key = fields.slug("key") or kind
    gate = KINDS.get(kind)
    if kind and gate is None:
        listable = ", ".join(k for k, g in KINDS.items() if g.listed)
        fields.wrong("kind", f"names no kind of gate; there are {listable}")
        return GateSpec(key, kind)
    if gate is not None and not gate.listed:
        fields.wrong("kind", f"is {kind}, which every stage has already and no plan lists")
        return GateSpec(key, kind)
    if gate is None:
        return GateSpec(key, kind)
    artifacts = fields.names("artifacts", ARTIFACTS, ())
    options = read_options(gate, fields)
    fields.refuse_unknown()
    return GateSpec(key, kind, options, artifacts)


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
    fields = Fields(raw, path, errors)
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
        prompt_logging=fields.flag("prompt_logging", default=False),
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
    if stage.prompt_logging and "infer" not in stage.permissions:
        fields.wrong("prompt_logging", "has no meaning here: this stage gives no infer")
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
    fields = Fields(raw, "", errors)
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
    return read_plan(load_yaml(source))


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to say of a plan source. ``error`` stops it from being used; ``warning`` does not.

    ``line`` counts from 1; ``field`` is the dotted path of what it is about.
    """

    line: int
    field: str
    severity: str
    sentence: str


def lint_plan(source: str) -> tuple[Finding, ...]:
    """Return everything to say of a plan source, in the order of its lines; empty when it is good.

    Raises:
        Invalid: it is not YAML, so no line of it can be looked at; the sentence says where.
    """
    raw = load_yaml(source)
    lines = lines_of(source)
    try:
        plan = read_plan(raw)
    except Invalid as refused:
        found = [
            Finding(line_of(lines, e.field), e.field, "error", e.sentence) for e in refused.fields
        ]
    else:
        found = [
            Finding(line_of(lines, path), path, "warning", sentence)
            for path, sentence in _doubts(plan)
        ]
    return tuple(sorted(found, key=lambda f: (f.line, f.field)))


def _doubts(plan: Plan) -> list[tuple[str, str]]:
    """Return ``(path, sentence)`` for what a plan may say and its readers should think twice of."""
    found = []
    for i, stage in enumerate(plan.ladder[1:], start=1):
        if stage.quorum.count < 2:
            found.append((f"stages.{i}.quorum", "One person alone decides on this stage."))
        if stage.audience == "everyone" and not stage.minimum_dwell:
            found.append(
                (f"stages.{i}.name", "Everyone is let in with no time spent at the stage below.")
            )
        if stage.prompt_logging and stage.agreement is None:
            found.append(
                (
                    f"stages.{i}.prompt_logging",
                    "What everyone asks is kept, and nobody signs an agreement that says so.",
                )
            )
        if stage.audience == "everyone" and not stage.gates:
            found.append((f"stages.{i}.name", "Everyone is let in with no gate beyond approvals."))
    return found


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
    if stage.prompt_logging:  # not written when off: plans of before keep their digest
        document["prompt_logging"] = True
    if not first:
        document["minimum_dwell"] = duration_text(stage.minimum_dwell)
        document["quorum"] = {"count": stage.quorum.count, "roles": list(stage.quorum.roles)}
        document["gates"] = [_gate_document(gate) for gate in stage.gates]
        if stage.not_before:
            document["not_before"] = iso(stage.not_before)
    return document


def _gate_document(gate: GateSpec) -> dict[str, Any]:
    only = {"artifacts": list(gate.artifacts)} if gate.artifacts else {}
    return {"kind": gate.kind, "key": gate.key, **only, **plain_options(gate.options)}

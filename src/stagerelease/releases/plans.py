"""Reads release plans: YAML in, a checked ``Plan`` out, every mistake named by its field.

Pure: text in, values out. YAML is read with the safest subset (no tags, no anchors, no duplicate
keys, no dates guessed from strings), because a plan decides who may be let in.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

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
from stagerelease.releases.source import Fields, duration_text, load_yaml, parse_duration

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

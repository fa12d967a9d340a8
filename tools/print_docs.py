"""Writes the pages of docs/ that are printed from code: permissions and problems."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import stagerelease.http.app  # noqa: F401 (only what is loaded has its refusals listed)
from stagerelease.evidence.schema import evidence_page
from stagerelease.http.problems import all_codes, status_of
from stagerelease.identity.rules import HUMAN_ACTS, ROLE_PERMISSIONS, SCOPES, Permission, Role
from stagerelease.releases.gate_options import gate_schema
from stagerelease.releases.gates import KINDS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SCHEMA = ROOT / "src/stagerelease/releases/shipped/plan.schema.json"


def permissions_page() -> str:
    """Return docs/permissions.md."""
    lines = [
        "# Permissions",
        "",
        "Printed from `identity/rules.py` by `make docs`; a test fails when it is not current.",
        "Deny by default: what has no mark is not allowed.",
        "The API reference (`/docs/api`) and the OpenAPI document say of each call what it needs.",
        "",
        "| permission | " + " | ".join(Role) + " |",
        "|---" * (len(Role) + 1) + "|",
    ]
    for permission in sorted(Permission):
        marks = ["✓" if permission in ROLE_PERMISSIONS[role] else "" for role in Role]
        lines.append(f"| `{permission}` | " + " | ".join(marks) + " |")
    lines += [
        "",
        "Everybody with an account may also manage their own tokens and submit access requests.",
        "The local operator (a shell on the host, no token) may do everything but "
        + ", ".join(f"`{p}`" for p in sorted(HUMAN_ACTS))
        + ", which need an accountable person.",
        "",
        "## Token scopes",
        "",
        "A scope never adds; it leaves this much of what the person may do:",
        "",
    ]
    for scope, left in sorted(SCOPES.items()):
        what = "everything" if left is None else ", ".join(f"`{p}`" for p in sorted(left))
        lines.append(f"- `{scope}`: {what or 'that act alone, on released files'}")
    return "\n".join(lines) + "\n"


def problems_page() -> str:
    """Return docs/problems.md."""
    lines = [
        "# Problems",
        "",
        "Every refusal of the JSON API is an RFC 9457 document whose `type` is `/problems/<code>`.",
        "`reason` is finer and stable too; `next_step` says what to do. Printed by `make docs`.",
        "",
        "| code | status | title | when |",
        "|---|---|---|---|",
    ]
    for code, cls in sorted(all_codes().items()):
        status = status_of(cls.__new__(cls))
        words = " ".join((cls.__doc__ or "").split())
        lines.append(f"| `{code}` | {status} | {cls.title} | {words} |")
    return "\n".join(lines) + "\n"


def gates_page() -> str:
    """Return docs/gates.md."""
    lines = [
        "# Gates",
        "",
        "Printed from `releases/gates` by `make docs`. A promotion request applies only when every",
        "gate of the stage it asks for has passed, or is waived by two people.",
        "",
        "## Gates every stage has",
        "",
    ]
    for name, gate in KINDS.items():
        if not gate.listed:
            lines.append(f"- `{name}`: {_first_line(gate)}")
    lines += ["", "No plan lists these, and no waiver opens one.", "", "## Gates a plan may list"]
    for name, gate in KINDS.items():
        if not gate.listed:
            continue
        waivable = "" if gate.waivable else " Cannot be waived."
        lines += ["", f"### `{name}`", "", _first_line(gate) + waivable, ""]
        if gate.options:
            lines += ["| option | form | must be there | what it means |", "|---|---|---|---|"]
        for key, option in gate.options.items():
            form = ", ".join(f"`{c}`" for c in option.choices) or option.kind
            must = "yes" if option.required else "no"
            default = f" Default {option.default}." if option.default is not None else ""
            lines.append(f"| `{key}` | {form} | {must} | {option.meaning}.{default} |")
    return "\n".join(lines) + "\n"


def _first_line(gate: object) -> str:
    return (type(gate).__doc__ or "").strip().splitlines()[0]


def plan_schema() -> str:
    """Return the published JSON Schema of plans, its gates written from their own tables."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    schema["$defs"]["gate"] = gate_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


PAGES = {
    DOCS / "permissions.md": permissions_page,
    DOCS / "problems.md": problems_page,
    DOCS / "gates.md": gates_page,
    DOCS / "evidence.md": evidence_page,
    SCHEMA: plan_schema,
}


def main() -> None:
    """Write every page, or with --check fail when one is not current."""
    stale = []
    for path, page in PAGES.items():
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != page():
                stale.append(path.name)
        else:
            path.write_text(page())
    if stale:
        sys.exit(f"not current: {', '.join(stale)}; run make docs")


if __name__ == "__main__":
    main()

"""Writes the pages of docs/ that are printed from code: permissions and problems."""

from __future__ import annotations

import sys
from pathlib import Path

from stagerelease.http.api.service import all_codes
from stagerelease.http.problems import status_of
from stagerelease.identity.rules import ROLE_PERMISSIONS, SCOPES, Permission, Role

DOCS = Path(__file__).resolve().parent.parent / "docs"


def permissions_page() -> str:
    """Return docs/permissions.md."""
    lines = [
        "# Permissions",
        "",
        "Printed from `identity/rules.py` by `make docs`; a test fails when it is not current.",
        "Deny by default: what has no mark is not allowed.",
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
        "`promotion:decide` and `agreement:sign`, which need an accountable person.",
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


PAGES = {"permissions.md": permissions_page, "problems.md": problems_page}


def main() -> None:
    """Write every page, or with --check fail when one is not current."""
    stale = []
    for name, page in PAGES.items():
        path = DOCS / name
        if "--check" in sys.argv:
            if not path.exists() or path.read_text() != page():
                stale.append(name)
        else:
            path.write_text(page())
    if stale:
        sys.exit(f"not current: {', '.join(stale)}; run make docs")


if __name__ == "__main__":
    main()

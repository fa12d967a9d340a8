"""Release reports from the command line, and checking one that somebody was given."""

from __future__ import annotations

import json
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from stagerelease.cli.box import opened
from stagerelease.kernel.actor import SYSTEM
from stagerelease.kernel.errors import Corrupt, Invalid
from stagerelease.ledger import service as ledger
from stagerelease.reports import service
from stagerelease.reports.proofs import check
from stagerelease.reports.rendering import render

GROUPS: dict[str, typer.Typer] = {}
_EMBEDDED = re.compile(r'<script type="application/json" id="report">(.*?)</script>', re.DOTALL)


class Audience(StrEnum):
    """Who a report is for."""

    PUBLIC = "public"
    FULL = "full"


class ReportForm(StrEnum):
    """What file a report is made as."""

    HTML = "html"
    PDF = "pdf"
    JSON = "json"


def report(
    track: Annotated[str, typer.Argument(help="Id of the track.")],
    audience: Annotated[Audience, typer.Option(help="Who it is for.")] = Audience.PUBLIC,
    form: Annotated[ReportForm, typer.Option("--format", help="What file.")] = ReportForm.HTML,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Write it here; to stdout when left out.")
    ] = None,
) -> None:
    """Make the release report of a track: one self-contained file, with its log proofs."""
    with opened() as box:
        with box.works.begin(SYSTEM, quiet=True) as work:
            while ledger.sequence_pending(work):
                pass
            ledger.sign_checkpoint(work, box.signer)  # so that the report proves all it tells
        with box.works.begin(box.actor, read_only=True) as work:
            made = service.build(work, track, audience=audience.value, vkey=box.signer.vkey)
        data = render(made, form.value)
        if out is None:
            sys.stdout.buffer.write(data)
            return
        out.write_bytes(data)
        box.out.say(f"Wrote {len(data):,} bytes to {out}.")


def verify_report(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON or HTML.")],
    vkey: Annotated[str, typer.Option(help="The log's verifier key, from a source you trust.")],
) -> None:
    """Check the proofs in a report offline: no database, no network; exit 5 if one fails."""
    found = check(_document(file), vkey)
    typer.echo(
        f"✓ {found['entries']} entries of {found['origin']} are in the log of {found['size']} "
        f"entries, root {found['root']}"
    )
    if found["unsigned"]:
        typer.echo(f"  Not proven yet: entries {found['unsigned']}.", err=True)


def _document(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text("utf-8")
        embedded = _EMBEDDED.search(text)
        document = json.loads(embedded.group(1) if embedded else text)
    except (OSError, ValueError, RecursionError) as error:
        raise Invalid(
            f"{file} is not a report in HTML or JSON.", reason="report.malformed"
        ) from error
    if not isinstance(document, dict):
        raise Corrupt(f"{file} holds no report.", reason="report.proof")
    return document


def add_commands(app: typer.Typer) -> None:
    """Register ``report`` and ``verify-report``."""
    app.command("report")(report)
    app.command("verify-report")(verify_report)

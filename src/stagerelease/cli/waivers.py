"""Waivers on the command line: two people let a gate pass until a date."""

from __future__ import annotations

from typing import Annotated

import typer

from stagerelease.cli.box import instant, opened
from stagerelease.cli.promotions import DryRun, say_dry
from stagerelease.kernel.errors import Invalid
from stagerelease.releases import service

waiver = typer.Typer(help="Waivers: a gate that need not pass until a date.", no_args_is_help=True)
WaiverId = Annotated[str, typer.Argument(help="Id of the waiver.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Everyone may read it for ever.")]
_COLUMNS = ("id", "track_id", "stage", "gate", "state", "ends_at", "reason")


@waiver.command("propose")
def propose(
    track_id: str,
    stage: Annotated[str, typer.Option(help="Stage the gate leads into.")],
    gate: Annotated[str, typer.Option(help="Key of the gate ('promotion show' prints it).")],
    reason: Reason,
    until: Annotated[str, typer.Option(help="When it ends, e.g. 2026-12-31T18:00Z.")],
    dry_run: DryRun = False,
) -> None:
    """Write a waiver and sign it as the first of two."""
    ends_at = instant(until)
    if ends_at is None:
        raise Invalid("Say when the waiver ends.", reason="waiver.range")
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.propose_waiver(
                work, track_id=track_id, stage=stage, gate=gate, reason=reason, ends_at=ends_at
            )
        say_dry(box, dry_run)
        box.out.show(row, columns=_COLUMNS)


@waiver.command("sign")
def sign(waiver_id: WaiverId, dry_run: DryRun = False) -> None:
    """Sign a waiver as the second of two, which puts it in force."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.sign_waiver(work, waiver_id)
        say_dry(box, dry_run)
        box.out.show(row, columns=_COLUMNS)


@waiver.command("end")
def end(waiver_id: WaiverId, reason: Reason, dry_run: DryRun = False) -> None:
    """End a waiver before its time."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.end_waiver(work, waiver_id, reason=reason)
        say_dry(box, dry_run)
        box.out.show(row, columns=_COLUMNS)


@waiver.command("list")
def list_(
    track_id: Annotated[str | None, typer.Option("--track", help="Only of this track.")] = None,
    after: Annotated[str | None, typer.Option(help="Id of the last one seen.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 200,
) -> None:
    """List waivers, oldest first; ended ones too."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            rows = service.list_waivers(work, track_id=track_id, after=after, limit=limit)
        box.out.show(rows, columns=_COLUMNS)


@waiver.command("show")
def show(waiver_id: WaiverId) -> None:
    """Show a waiver and who signed it."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            row = service.show_waiver(work, waiver_id)
        box.out.show(row)

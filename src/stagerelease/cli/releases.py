"""Release control: tracks, holds and the board. Plans and promotion requests are beside this."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from stagerelease.cli.box import Form, Opened, opened
from stagerelease.cli.plans import plan
from stagerelease.cli.promotions import DryRun, promotion, say_dry
from stagerelease.cli.waivers import waiver
from stagerelease.entitlements import service as entitlements
from stagerelease.releases import service
from stagerelease.releases.board import Board

track = typer.Typer(help="Tracks: what is promoted, stage by stage.", no_args_is_help=True)
hold = typer.Typer(help="Holds: one person lays one, two lift it.", no_args_is_help=True)
GROUPS = {
    "plan": plan,
    "track": track,
    "promotion": promotion,
    "waiver": waiver,
    "hold": hold,
}

Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; it is kept on record.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands that stand by themselves."""
    app.command("board")(board)


# --- tracks --------------------------------------------------------------------------------------

_TRACK_COLUMNS = ("id", "repo_id", "kind", "revision_id", "stage", "entered_at")


@track.command("create")
def track_create(
    repo_id: str,
    kind: Annotated[str, typer.Option(help="Artifact kind.")] = "weights",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    plan_name: Annotated[str, typer.Option("--plan", help="Plan it follows.")] = "default",
    dry_run: DryRun = False,
) -> None:
    """Start a track at the lowest stage of its plan."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.create_track(
                work, repo_id=repo_id, kind=kind, revision=revision, plan=plan_name
            )
        say_dry(box, dry_run)
        box.out.show(row, columns=_TRACK_COLUMNS)


@track.command("list")
def track_list(
    stage: Annotated[str | None, typer.Option(help="Only at this stage.")] = None,
) -> None:
    """List tracks."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            rows = service.list_tracks(work, stage=stage)
        box.out.show(rows, columns=_TRACK_COLUMNS)


@track.command("show")
def track_show(track_id: str) -> None:
    """Show a track with its history, holds and requests."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            page = service.show_track(work, track_id)
        if box.out.form is not Form.TABLE:
            box.out.show(page)
            return
        box.out.show(page.track, columns=_TRACK_COLUMNS)
        for title, rows, columns in (
            ("History", page.events, ("at", "from_stage", "to_stage", "promotion_id", "leaf_idx")),
            ("Active holds", page.holds, ("id", "scope", "reason", "laid_at")),
            ("Promotion requests", page.promotions, ("id", "to_stage", "state", "requester")),
        ):
            if rows:
                box.out.say(f"\n{title}")
                box.out.show(rows, columns=columns)


@track.command("withdraw")
def track_withdraw(track_id: str, reason: Reason, dry_run: DryRun = False) -> None:
    """Withdraw a release: grants are suspended and nothing more is delivered."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            entitlements.withdraw(work, track_id, reason=reason)
        say_dry(box, dry_run)
        box.out.say(f"{track_id} is withdrawn. Copies already delivered cannot be called back.")


# --- holds ---------------------------------------------------------------------------------------

_HOLD_COLUMNS = ("id", "scope", "scope_id", "reason", "laid_at", "lifted_at")


@hold.command("lay")
def hold_lay(
    reason: Reason,
    scope: Annotated[str, typer.Option(help="track, family or everything.")] = "track",
    on: Annotated[str | None, typer.Option("--on", help="Id of the track or family.")] = None,
    public_reason: Annotated[str, typer.Option(help="What refused callers read.")] = "",
    dry_run: DryRun = False,
) -> None:
    """Lay a hold: nothing it covers is promoted or delivered from now on."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.lay_hold(
                work, scope=scope, scope_id=on, reason=reason, public_reason=public_reason
            )
        say_dry(box, dry_run)
        box.out.show(row, columns=_HOLD_COLUMNS)


@hold.command("lift")
def hold_lift(hold_id: int, reason: Reason, dry_run: DryRun = False) -> None:
    """Consent to lift a hold; the second person's consent lifts it."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.lift_hold(work, hold_id, reason=reason)
        say_dry(box, dry_run)
        waiting = row.lifted_at is None
        box.out.say(
            "Your consent is recorded; one more person has to consent."
            if waiting
            else f"Hold {row.id} is lifted."
        )
        box.out.show(row, columns=_HOLD_COLUMNS)


@hold.command("list")
def hold_list(
    everything: Annotated[bool, typer.Option("--all", help="Lifted ones too.")] = False,
) -> None:
    """List active holds."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            rows = service.list_holds(work, active=None if everything else True)
        box.out.show(rows, columns=_HOLD_COLUMNS)


# --- board ---------------------------------------------------------------------------------------


def board() -> None:
    """Show every variant against every stage: ✓ reached, ◐ asked for, ✗ stopped, — not yet."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            shown = service.board(work)
        if box.out.form is Form.TABLE:
            _matrix(box, shown)
        else:
            box.out.show(shown)


def _matrix(box: Opened, shown: Board) -> None:
    if not shown.rows:
        box.out.say("There is no track yet. Import a model, then 'stagerelease track create'.")
        return
    lines = [
        [row.repo_id, row.kind, *(f"{c.mark} {c.words}" for c in row.cells)] for row in shown.rows
    ]
    head = ["variant", "kind", *shown.stages]
    if not box.out.console.is_terminal:
        for line in [head, *lines]:
            box.out.console.print("\t".join(line), markup=False, highlight=False)
        return
    table = Table(*head, box=None, pad_edge=False)
    for line in lines:
        table.add_row(*line)
    box.out.console.print(table, markup=False)

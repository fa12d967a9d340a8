"""Release plans on the command line: lint, propose, consent, compare, simulate."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stagerelease.cli.box import CHOICES, Form, Opened, Screen, instant, opened
from stagerelease.cli.promotions import DryRun, say_dry
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Invalid
from stagerelease.releases import service
from stagerelease.releases.differing import Change, differences
from stagerelease.releases.ladder import SHIPPED, shipped_source
from stagerelease.releases.plans import Finding, lint_plan, parse_plan, plan_document
from stagerelease.releases.proposing import ProposalRow

plan = typer.Typer(help="Release plans: who is let in, in which order.", no_args_is_help=True)

Source = Annotated[
    str, typer.Argument(help="A YAML file, - for standard input, or a shipped name.")
]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; it is kept on record.")]
_LONGEST_FILE = 1_000_000
_COLUMNS = ("slug", "version", "sha256", "created_at", "leaf_idx")
_EFFECTS = {
    "loosens": "- looser ",
    "tightens": "+ tighter",
    "neutral": "  changed",
    "unclear": "? unclear",
}


def _read(source: str) -> str:
    if source in SHIPPED and not Path(source).exists():
        return shipped_source(source)
    try:
        if source == "-":
            return sys.stdin.read(_LONGEST_FILE)
        return Path(source).read_bytes()[:_LONGEST_FILE].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{source} cannot be read: {error}.", reason="plan.file") from error


@plan.command("lint")
def plan_lint(source: Source) -> None:
    """Check a plan without a database; mistakes come as file:line, and the exit code is 1."""
    text = _read(source)
    found = lint_plan(text)
    wrong = [f for f in found if f.severity == "error"]
    out = Screen(CHOICES.form)
    if out.form is not Form.TABLE:
        out.show({"findings": found, "document": None if wrong else _document(text)})
    else:
        _say_findings(out, source, found)
        if not wrong:
            _say_ladder(out, text)
    if wrong:
        raise typer.Exit(1)


def _document(text: str) -> dict[str, Any]:
    return plan_document(parse_plan(text))


def _say_findings(out: Screen, source: str, found: tuple[Finding, ...]) -> None:
    for finding in found:
        sys.stdout.write(f"{source}:{finding.line}: {finding.severity}: {finding.sentence}\n")
    if not found:
        out.say("✓ Nothing to say against this plan.")


def _say_ladder(out: Screen, text: str) -> None:
    found = parse_plan(text)
    out.say(f"✓ {found.title} ({found.slug}) reads:")
    for stage in found.ladder:
        terms = f", under {stage.agreement}" if stage.agreement else ""
        out.say(f"  {found.rank(stage.name)}  {stage.name}: {stage.audience}{terms}")


@plan.command("apply")
def plan_apply(
    source: Source,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why; it is kept on record.")] = "",
    dry_run: DryRun = False,
) -> None:
    """Propose a plan as the next version of its name; a second person consents to it.

    A plan that comes with the product, unchanged, is the next version at once.
    """
    text = _read(source)
    if not reason and text == _shipped(source):
        reason = "A plan that comes with the product."
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.propose_plan(work, text, rationale=reason)
        say_dry(box, dry_run)
        _show(box, row)
        if row.missing and not dry_run:
            box.out.say(
                f"{row.missing} more must consent: stagerelease plan consent {row.id} {row.sha256}"
            )


def _shipped(source: str) -> str | None:
    return shipped_source(source) if source in SHIPPED else None


@plan.command("consent")
def plan_consent(
    proposal_id: int,
    sha256: Annotated[str, typer.Argument(help="SHA-256 of the proposed source you read.")],
    comment: Annotated[str, typer.Option("--comment", "-m")] = "",
    dry_run: DryRun = False,
) -> None:
    """Consent to a proposed plan, as yourself."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.consent_to_plan(work, proposal_id, sha256=sha256, comment=comment)
        say_dry(box, dry_run)
        _show(box, row)


@plan.command("cancel")
def plan_cancel(proposal_id: int, reason: Reason, dry_run: DryRun = False) -> None:
    """End a proposal that was not applied."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.cancel_proposal(work, proposal_id, reason=reason)
        say_dry(box, dry_run)
        _show(box, row)


@plan.command("proposals")
def plan_proposals(state: Annotated[str | None, typer.Option()] = None) -> None:
    """List proposed plans, newest first."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            rows = service.list_proposals(work, state=state)
        box.out.show(rows, columns=("id", "slug", "state", "missing", "created_at", "sha256"))


@plan.command("proposal")
def plan_proposal(proposal_id: int) -> None:
    """Show a proposal, what it changes, and who stands behind it."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            row = service.show_proposal(work, proposal_id)
        _show(box, row)


def _show(box: Opened, row: ProposalRow) -> None:
    if box.out.form is not Form.TABLE:
        box.out.show(row)
        return
    box.out.show(
        row, columns=("id", "slug", "base_version", "state", "rationale", "sha256", "missing")
    )
    _say_changes(box.out, row.changes)


def _say_changes(out: Screen, changes: tuple[Change, ...]) -> None:
    for change in changes:
        out.say(f"  {_EFFECTS[change.effect]}  {change.sentence}")


@plan.command("diff")
def plan_diff(
    old: Annotated[str, typer.Argument(help="A YAML file, a shipped name, or NAME@VERSION.")],
    new: Annotated[str, typer.Argument(help="The same; what it changes is shown.")],
) -> None:
    """Say what changes from one plan to another, and whether it lets in sooner."""
    changes = differences(parse_plan(_source(old)), parse_plan(_source(new)))
    out = Screen(CHOICES.form)
    if out.form is not Form.TABLE:
        out.show([{**_plain(change), "sentence": change.sentence} for change in changes])
        return
    _say_changes(out, changes)
    if not changes:
        out.say("The two plans say the same.")


def _plain(change: Change) -> dict[str, Any]:
    return {key: getattr(change, key) for key in ("where", "before", "after", "effect")}


def _source(named: str) -> str:
    slug, at, version = named.rpartition("@")
    if not at or not version.isdecimal() or Path(named).exists():
        return _read(named)
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        return service.show_plan(work, slug, int(version)).source


@plan.command("simulate")
def plan_simulate(
    track: Annotated[str, typer.Option(help="The track's id.")],
    to: Annotated[str, typer.Option(help="The stage it would move to.")],
    at: Annotated[str | None, typer.Option(help="A date; now when left out.")] = None,
    source: Annotated[
        str | None, typer.Option("--plan", help="Try another plan: a file or a shipped name.")
    ] = None,
) -> None:
    """Say what a promotion would meet at a date, and when it could first go through."""
    text = _read(source) if source is not None else None
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            row = service.simulate(work, track, to, at=instant(at), source=text)
        if box.out.form is not Form.TABLE:
            box.out.show(row)
            return
        for gate in row.gates:
            mark = "✓" if gate.passed else "✗"
            box.out.say(f"  {mark} {gate.key}: {gate.sentence}")
        if row.first_at is not None:
            asked = f", once {', '.join(row.asked)} is given" if row.asked else ""
            box.out.say(f"It could first go through at {iso(row.first_at)}{asked}.")
        else:
            box.out.say(f"No date in three years opens it: {', '.join(row.never)} stays shut.")


@plan.command("list")
def plan_list() -> None:
    """List every version of every plan."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            rows = service.list_plans(work)
        box.out.show(rows, columns=_COLUMNS)


@plan.command("show")
def plan_show(slug: str, version: Annotated[int | None, typer.Option(min=1)] = None) -> None:
    """Show the source of a plan version, the newest unless one is named."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            row = service.show_plan(work, slug, version)
        if box.out.form is not Form.TABLE:
            box.out.show(row)
            return
        box.out.say(f"{row.slug} version {row.version}, SHA-256 {row.sha256}, log #{row.leaf_idx}")
        sys.stdout.write(row.source)

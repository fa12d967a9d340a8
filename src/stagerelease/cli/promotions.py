"""Promotion requests on the command line: open, look, review, decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from stagerelease.cli.box import Form, Opened, instant, opened
from stagerelease.kernel import clock
from stagerelease.kernel.clock import iso
from stagerelease.releases import service
from stagerelease.releases.facts import FactsPage, PromotionRow

promotion = typer.Typer(
    help="Promotion requests: gates, approvals, the decision.", no_args_is_help=True
)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")]
Number = Annotated[int, typer.Argument(help="Number of the promotion request.")]
Hash = Annotated[
    str, typer.Option("--hash", help="request_hash you looked at ('promotion show' prints it).")
]
Comment = Annotated[str, typer.Option("--comment", "-m", help="Kept on record.")]
When = Annotated[str | None, typer.Option("--at", help="Apply not before, e.g. 2026-12-31T18:00Z.")]
_COLUMNS = ("id", "repo_id", "from_stage", "to_stage", "state", "request_hash")
Evidence = Annotated[
    list[str] | None,
    typer.Option("--evidence", help="Id of evidence it rests on; repeat. All accepted if none."),
]
_MARKS = {
    "passed": "✓",
    "waived": "w",
    "pending": "◐",
    "inconclusive": "?",
    "stale": "◐",
    "failed": "✗",
    "error": "✗",
}


def say_dry(box: Opened, dry_run: bool) -> None:
    """Tell that nothing was changed, when nothing was."""
    if dry_run:
        box.out.say("Dry run: this would happen, and nothing was changed.")


def _show(box: Opened, row: PromotionRow, dry_run: bool) -> None:
    say_dry(box, dry_run)
    box.out.show(row, columns=_COLUMNS)


@promotion.command("open")
def open_(
    track_id: str,
    to: Annotated[str, typer.Option(help="The next stage.")],
    rationale: Annotated[str, typer.Option("--rationale", "-m", help="Why now.")],
    at: When = None,
    evidence: Evidence = None,
    draft: Annotated[bool, typer.Option(help="Do not submit it yet.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Ask for a track to be moved one stage up."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.open_promotion(
                work,
                track_id=track_id,
                to=to,
                rationale=rationale,
                scheduled_for=instant(at),
                evidence_ids=evidence or None,
                draft=draft,
            )
        _show(box, row, dry_run)


@promotion.command("edit")
def edit(
    number: Number,
    rationale: Annotated[str | None, typer.Option("--rationale", "-m")] = None,
    at: When = None,
    unschedule: Annotated[bool, typer.Option(help="Apply as soon as it may be.")] = False,
    evidence: Evidence = None,
    no_evidence: Annotated[bool, typer.Option(help="Rest on no evidence at all.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Change your request; it becomes a draft, and its approvals are void."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.edit_promotion(
                work,
                number,
                rationale=rationale,
                scheduled_for=instant(at),
                unschedule=unschedule,
                evidence_ids=[] if no_evidence else evidence or None,
            )
        _show(box, row, dry_run)


@promotion.command("resubmit")
def resubmit(number: Number, dry_run: DryRun = False) -> None:
    """Submit your draft."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.resubmit(work, number)
        _show(box, row, dry_run)


@promotion.command("approve")
def approve(
    number: Number, request_hash: Hash, comment: Comment = "", dry_run: DryRun = False
) -> None:
    """Approve exactly the request you looked at."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.approve(work, number, request_hash=request_hash, comment=comment)
        _show(box, row, dry_run)


@promotion.command("reject")
def reject(number: Number, request_hash: Hash, comment: Comment, dry_run: DryRun = False) -> None:
    """End the request you looked at, with reasons."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.reject(work, number, request_hash=request_hash, comment=comment)
        _show(box, row, dry_run)


@promotion.command("request-changes")
def request_changes(
    number: Number, request_hash: Hash, comment: Comment, dry_run: DryRun = False
) -> None:
    """Send the request you looked at back to its requester."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.request_changes(work, number, request_hash=request_hash, comment=comment)
        _show(box, row, dry_run)


@promotion.command("judge")
def judge(
    number: Number,
    gate: Annotated[str, typer.Option(help="Key of the gate that asks.")],
    request_hash: Hash,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Kept on record.")],
    passed: Annotated[bool, typer.Option("--yes/--no", help="Your answer.")],
    dry_run: DryRun = False,
) -> None:
    """Answer a manual or an inconclusive gate, once."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.judge(
                work,
                number,
                gate=gate,
                passed=passed,
                reason=reason,
                request_hash=request_hash,
            )
        _show(box, row, dry_run)


@promotion.command("cancel")
def cancel(
    number: Number,
    reason: Annotated[str, typer.Option("--reason", "-m")] = "",
    dry_run: DryRun = False,
) -> None:
    """End an unapplied request."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.cancel(work, number, reason=reason)
        _show(box, row, dry_run)


@promotion.command("apply")
def apply(number: Number, dry_run: DryRun = False) -> None:
    """Apply a request; exit 4 and every reason when it is blocked."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.apply(work, number)
        _show(box, row, dry_run)


@promotion.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="Only in this state.")] = None,
    track_id: Annotated[str | None, typer.Option("--track", help="Only of this track.")] = None,
    after: Annotated[int | None, typer.Option(help="Number of the last one seen.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 200,
) -> None:
    """List promotion requests, oldest first."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            rows = service.list_promotions(
                work, track_id=track_id, state=state, after=after, limit=limit
            )
        columns = ("id", "repo_id", "kind", "from_stage", "to_stage", "state", "requester")
        box.out.show(rows, columns=columns)


@promotion.command("show")
def show(number: Number) -> None:
    """Show a request with every gate: ✓ passed, w waived, ◐ waiting, ? asks a person, ✗ failed."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            page = service.facts_page(work, number)
        if box.out.form is Form.TABLE:
            _checklist(box, page)
        else:
            box.out.show(page)


def _checklist(box: Opened, page: FactsPage) -> None:
    def line(text: str) -> None:
        box.out.console.print(text, markup=False, highlight=False)

    row = page.promotion
    line(f"Promotion {row.id}: {row.repo_id} ({row.kind}), {row.from_stage} → {row.to_stage}")
    line(f"  {row.state.replace('_', ' ')}, opened by {row.requester} at {iso(row.created_at)}")
    line(f"  {row.rationale}")
    line(f"  request_hash {row.request_hash}")
    line("Gates")
    for gate in page.gates:
        line(f"  {_MARKS[gate.verdict]} {gate.verdict:<12} {gate.key}: {gate.sentence}")
        line(f"      {gate.rule} ({gate.measured}; asked: {gate.threshold})")
        for use in gate.evidence:
            mark = "rests on" if use.counted else "not"
            line(f"      {mark} {use.id} ({use.age} old): {use.why}")
    _say_evidence(page, line)
    if page.approvals:
        line("Reviews")
    for given in page.approvals:
        stale = "" if given.current else ", of an earlier edition: void"
        line(f"  {given.verdict} by {given.person} (log #{given.leaf_idx}{stale}) {given.comment}")
    for said in page.judgements:
        stale = "" if said.current else ", of an earlier edition: void"
        answer = "yes" if said.passed else "no"
        where = f"(log #{said.leaf_idx}{stale})"
        line(f"  {answer} on {said.gate} by {said.person} {where} {said.reason}")
    line("Who may approve")
    for person in page.deciders:
        mark, roles = "✓" if person.may else "✗", " and ".join(person.roles)
        by = f" by {person.given_by}" if person.given_by else ""
        line(
            f"  {mark} {person.person}: {person.why} {roles} since {clock.said(person.since)}{by}."
        )
    blocked = "; ".join(b.code for b in page.blockers)
    line(f"Blocked by: {blocked}" if blocked else "Nothing blocks it.")


def _say_evidence(page: FactsPage, line: Callable[[str], None]) -> None:
    if page.evidence:
        line("Evidence about this track")
    for row in page.evidence:
        mark = "✓" if row.counts else "✗"
        line(f"  {mark} {row.id} {row.type} {row.metric}, {row.state}, {row.age} old: {row.why}")
    if page.waivers:
        line("Waivers, ended ones too")
    for waiver in page.waivers:
        names = ", ".join(signature.person for signature in waiver.signatures)
        line(f"  {waiver.id} {waiver.gate} until {iso(waiver.until)}, {waiver.state}, by {names}")
        line(f"      {waiver.reason}")

"""Incidents, advisories and figures of use on the command line."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import typer

from stagerelease.cli.box import Form, Opened, instant, opened
from stagerelease.cli.promotions import DryRun, say_dry
from stagerelease.incidents import service
from stagerelease.incidents.rows import IncidentPage
from stagerelease.incidents.rules import Severity, Visibility
from stagerelease.incidents.service import Links

incident = typer.Typer(help="What went wrong, and what is done about it.", no_args_is_help=True)
advisory = typer.Typer(help="Words to those who hold a release.", no_args_is_help=True)
usage = typer.Typer(help="Who was delivered how much, and what stands out.", no_args_is_help=True)

Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; it is kept on record.")]
Names = Annotated[list[str] | None, typer.Option(help="May be given several times.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")]
Tier = Annotated[
    int | None,
    typer.Option(min=1, max=3, help="1 curious, 2 skilled and resourced, 3 advanced persistent."),
]
Words = Annotated[str | None, typer.Option(help="What holders are told.")]
_COLUMNS = ("id", "state", "severity", "blocking", "title", "reported_at")
_RECEIPT = ("id", "incident_id", "sent_at", "due_at", "acknowledged_at", "overdue", "text")


class Metric(StrEnum):
    """What is counted."""

    ANOMALIES = "anomalies"
    DOWNLOADS = "downloads"
    INCIDENTS = "incidents"


@incident.command("report")
def report(
    text: str,
    about: Annotated[str, typer.Option(help="The repository or track it is about.")] = "",
    contact: Annotated[str | None, typer.Option(help="How to reach the reporter.")] = None,
) -> None:
    """Report something that should not be; the reference is shown only now."""
    with opened() as box:
        with box.works.begin(box.actor, quiet=True) as work:
            row = service.report(work, text=text, about=about, contact=contact)
        box.out.show(row)
        box.out.say("Keep the reference: with it the report can be followed. It is not kept here.")


@incident.command("list")
def list_incidents(
    state: Annotated[str | None, typer.Option(help="A state, or open.")] = None,
    severity: Annotated[Severity | None, typer.Option()] = None,
    limit: Limit = 50,
    after: Annotated[int | None, typer.Option(help="Go on behind this number.")] = None,
) -> None:
    """List incidents, newest first."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            rows = service.list_incidents(
                work, state=state, severity=severity, limit=limit, after=after
            )
        box.out.show(rows, columns=_COLUMNS)


@incident.command("public")
def public_list(limit: Limit = 50) -> None:
    """List confirmed incidents as everybody may read them."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            rows = service.public_incidents(work, limit=limit)
        columns = ("id", "state", "severity", "blocking", "holds_active", "summary")
        box.out.show(rows, columns=columns)


@incident.command("show")
def show(number: int) -> None:
    """Show everything known of an incident."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            page = service.show_incident(work, number)
        _show(box, page)


def _show(box: Opened, page: IncidentPage) -> None:
    if box.out.form is not Form.TABLE:
        box.out.show(page)
        return
    box.out.show(page.incident)
    box.out.say(f"Reported: {page.report.text}")
    for update in page.updates:
        box.out.say(f"  {update.at:%Y-%m-%d %H:%M} ({update.visibility}) {update.text}")
    for one in page.advisories:
        box.out.say(f"Advisory {one.id}: {one.acknowledged} of {one.holders} acknowledged it.")
    for consent in page.consents:
        box.out.say(f"{consent.person_id} consents to close it as: {consent.outcome}")
    for hold in page.holds_active:
        box.out.say(f"Hold {hold} stops deliveries until two people lift it.")


@incident.command("triage")
def triage(
    number: int,
    severity: Annotated[Severity, typer.Option()],
    blocking: Annotated[bool, typer.Option(help="Must what it covers be stopped?")],
    tier: Tier = None,
    title: Annotated[str, typer.Option()] = "",
    summary: Annotated[str, typer.Option(help="What everybody reads once confirmed.")] = "",
    everything: Annotated[bool, typer.Option("--everything")] = False,
    track: Names = None,
    family: Names = None,
    grant: Names = None,
    evidence: Names = None,
    reason: Reason = "",
    dry_run: DryRun = False,
) -> None:
    """Say how severe it is, whether it must stop releases, and what it is about."""
    links = Links(everything, track or (), family or (), grant or (), evidence or ())
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.triage(
                work,
                number,
                severity=severity,
                blocking=blocking,
                actor_tier=tier,
                title=title,
                public_summary=summary,
                links=links,
                reason=reason,
            )
        say_dry(box, dry_run)
        box.out.show(row)


@incident.command("reassess")
def reassess(
    number: int,
    reason: Reason,
    severity: Annotated[Severity | None, typer.Option()] = None,
    blocking: Annotated[bool | None, typer.Option()] = None,
    tier: Tier = None,
    summary: Annotated[str | None, typer.Option()] = None,
    everything: Annotated[bool, typer.Option("--everything")] = False,
    track: Names = None,
    family: Names = None,
    grant: Names = None,
    evidence: Names = None,
    words: Words = None,
    dry_run: DryRun = False,
) -> None:
    """Say more about a confirmed incident; what a blocking one covers besides stops at once."""
    links = Links(everything, track or (), family or (), grant or (), evidence or ())
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            page = service.reassess(
                work,
                number,
                reason=reason,
                severity=severity,
                blocking=blocking,
                actor_tier=tier,
                public_summary=summary,
                links=links,
                advisory=words,
            )
        say_dry(box, dry_run)
        _show(box, page)


@incident.command("confirm")
def confirm(
    number: int,
    reason: Reason,
    words: Words = None,
    days: Annotated[int, typer.Option(min=1, max=90, help="To acknowledge.")] = 3,
    dry_run: DryRun = False,
) -> None:
    """Confirm it: a blocking one stops what it covers now and tells every holder."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            page = service.confirm(
                work,
                number,
                reason=reason,
                advisory=words,
                acknowledge_within=timedelta(days=days),
            )
        say_dry(box, dry_run)
        _show(box, page)


@incident.command("dismiss")
def dismiss(
    number: int,
    reason: Reason,
    reply: Annotated[str, typer.Option(help="What the reporter reads.")] = "",
    dry_run: DryRun = False,
) -> None:
    """Dismiss a triaged report."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.dismiss(work, number, reason=reason, reply=reply)
        say_dry(box, dry_run)
        box.out.show(row)


@incident.command("mitigate")
def mitigate(number: int, reason: Reason, dry_run: DryRun = False) -> None:
    """Say that its harm is contained; what it stops stays stopped."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.mitigate(work, number, reason=reason)
        say_dry(box, dry_run)
        box.out.show(row)


@incident.command("close")
def close(
    number: int,
    outcome: Annotated[str, typer.Option("--outcome", "-m", help="How it ended.")],
    public: Annotated[str, typer.Option(help="The outcome as everybody reads it.")] = "",
    dry_run: DryRun = False,
) -> None:
    """Close it; a blocking one once two people say the same outcome. It lifts no hold."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            page = service.close(work, number, outcome=outcome, public_outcome=public)
        say_dry(box, dry_run)
        _show(box, page)
        if page.incident.state != "closed":
            box.out.say("It stays mitigated until a second person says the same outcome.")


@incident.command("reopen")
def reopen(number: int, reason: Reason, dry_run: DryRun = False) -> None:
    """Re-open it; a blocking one stops again what it covers."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            page = service.reopen(work, number, reason=reason)
        say_dry(box, dry_run)
        _show(box, page)


@incident.command("update")
def update(
    number: int,
    text: str,
    visibility: Annotated[
        Visibility, typer.Option("--for", help="Who may read it.")
    ] = Visibility.PRIVATE,
    dry_run: DryRun = False,
) -> None:
    """Put a dated word on its thread, private unless said otherwise."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            page = service.add_note(work, number, text=text, visibility=visibility)
        say_dry(box, dry_run)
        _show(box, page)


@incident.command("advise")
def advise(
    number: int,
    text: str,
    days: Annotated[int, typer.Option(min=1, max=90, help="To acknowledge.")] = 3,
    dry_run: DryRun = False,
) -> None:
    """Tell every holder of what it covers."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.send_advisory(work, number, text=text, within=timedelta(days=days))
        say_dry(box, dry_run)
        box.out.show(row)


@incident.command("erase-report")
def erase_report(
    number: int,
    reason: Reason,
    words: Annotated[bool, typer.Option("--words", help="Their words as well.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Erase the reporter's contact, and their words if asked."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.erase_report(work, number, reason=reason, words=words)
        say_dry(box, dry_run)
        box.out.show(row)


@advisory.command("list")
def list_advisories(
    overdue: Annotated[bool, typer.Option("--overdue", help="Everybody's, for staff.")] = False,
    limit: Limit = 50,
) -> None:
    """List the advisories sent to you or your organisations, or all that are overdue."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            rows = (
                service.overdue_advisories(work, limit=limit)
                if overdue
                else service.my_advisories(work, limit=limit)
            )
        columns = ("id", "organisation_id", "person_id", "due_at") if overdue else _RECEIPT
        box.out.show(rows, columns=columns)


@advisory.command("acknowledge")
def acknowledge(receipt: str) -> None:
    """Acknowledge an advisory that was sent to you or your organisation."""
    with opened() as box:
        with box.works.begin(box.actor) as work:
            row = service.acknowledge(work, receipt)
        box.out.show(row)


@usage.command("show")
def show_usage(
    track: Annotated[str | None, typer.Option(help="A track's id.")] = None,
    grant: Annotated[str | None, typer.Option(help="A grant's id.")] = None,
    since: Annotated[str | None, typer.Option(help="A date; 28 days ago when left out.")] = None,
    until: Annotated[str | None, typer.Option(help="A date; now when left out.")] = None,
    limit: Limit = 200,
) -> None:
    """Show deliveries by day, track and grant, newest day first."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            rows = service.usage(
                work,
                since=instant(since),
                until=instant(until),
                track_id=track,
                grant_id=grant,
                limit=limit,
            )
        box.out.show(rows)


@usage.command("anomalies")
def show_anomalies(
    days: Annotated[int, typer.Option(min=1, max=366)] = 7,
    track: Annotated[str | None, typer.Option(help="A track's id.")] = None,
    limit: Limit = 200,
) -> None:
    """Show what stands out. Each is a reason to look, never a verdict."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            rows = service.list_anomalies(work, days=days, track_id=track, limit=limit)
        box.out.show(rows, columns=("day", "rule", "grant_id", "sentence"))


@usage.command("evidence")
def draft_evidence(
    track: Annotated[str, typer.Option(help="A track's id.")],
    metric: Annotated[Metric, typer.Option()] = Metric.ANOMALIES,
    since: Annotated[str | None, typer.Option(help="A date; 28 days ago when left out.")] = None,
    until: Annotated[str | None, typer.Option(help="A date; now when left out.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Draft monitoring evidence from the figures; nothing is submitted."""
    with opened() as box:
        with box.works.begin(box.actor, dry_run=dry_run) as work:
            row = service.draft_monitoring(
                work,
                track_id=track,
                metric=metric.value,
                since=instant(since),
                until=instant(until),
            )
        say_dry(box, dry_run)
        box.out.show(row)


GROUPS = {"incident": incident, "advisory": advisory, "usage": usage}

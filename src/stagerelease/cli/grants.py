"""Grants that end: renew, who holds what, what was revoked and what holders declared."""

from __future__ import annotations

from typing import Annotated

import typer

from stagerelease.cli.box import instant, opened
from stagerelease.cli.partners import GRANT_COLUMNS, Reason, grant
from stagerelease.kernel.errors import Invalid
from stagerelease.partners import service

GROUPS: dict[str, typer.Typer] = {}
"""None of its own: these commands join the group ``grant``."""

HOLDER_COLUMNS = (
    "holder",
    "repo_id",
    "artifact",
    "audience",
    "state",
    "valid_until",
    "grant_id",
)
_MARKS = {"keep": "{}", "drop": "[-{}-]", "add": "{{+{}+}}"}


@grant.command("renew")
def grant_renew(
    grant_id: str,
    until: Annotated[str, typer.Option(help="End, at most two years on, e.g. 2027-12-31.")],
    purpose: Annotated[str | None, typer.Option(help="As before if not said.")] = None,
) -> None:
    """Issue the grant that follows one, and show how its purpose changed."""
    valid_until = instant(until)
    if valid_until is None:
        raise Invalid("A grant needs an end.", reason="grant.dates")
    with opened() as box:
        with box.works.begin(box.actor) as work:
            row = service.renew_grant(work, grant_id, valid_until=valid_until, purpose=purpose)
        box.out.show(row.grant, columns=GRANT_COLUMNS)
        if purpose is not None:
            box.out.say("".join(_MARKS[kind].format(words) for kind, words in row.purpose))


@grant.command("consent")
def grant_consent(grant_id: str) -> None:
    """Consent, as a second person, to letting somebody in again whose grant was revoked."""
    with opened() as box:
        with box.works.begin(box.actor) as work:
            row = service.consent_to_grant(work, grant_id)
        box.out.show(row, columns=GRANT_COLUMNS)


@grant.command("holders")
def grant_holders(
    at: Annotated[str | None, typer.Option(help="A past date or instant; now if not said.")] = None,
    track: Annotated[str | None, typer.Option(help="Only on this track.")] = None,
    organisation: Annotated[str | None, typer.Option(help="Only this organisation's.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state at that instant.")] = None,
) -> None:
    """Say who holds what, now or at any past instant."""
    with opened() as box:
        rows = []
        with box.works.begin(box.actor, read_only=True) as work:
            after = None
            while True:
                part = service.holders_report(
                    work,
                    at=instant(at),
                    track_id=track,
                    organisation=organisation,
                    state=state,
                    limit=500,
                    after=after,
                )
                rows += part
                if len(part) < 500:
                    break
                after = part[-1].grant_id
        box.out.show(rows, columns=HOLDER_COLUMNS)


@grant.command("revoke-organisation")
def grant_revoke_organisation(organisation: str, reason: Reason) -> None:
    """End every live grant of an organisation for good, in one act."""
    with opened() as box:
        with box.works.begin(box.actor) as work:
            rows = service.revoke_organisation(work, organisation, reason=reason)
        box.out.show(rows, columns=GRANT_COLUMNS)
        box.out.say(f"{len(rows)} grant(s) revoked; their holder is asked to declare destruction.")


@grant.command("attest")
def grant_attest(
    grant_id: str,
    statement: Annotated[str, typer.Option("--statement", "-m", help="What became of the files.")],
    name: Annotated[str, typer.Option(help="Your legal name, typed as a signature.")],
) -> None:
    """Declare, as its holder, what became of the files delivered under a revoked grant."""
    with opened() as box:
        with box.works.begin(box.actor) as work:
            row = service.attest_destruction(work, grant_id, statement, typed_name=name)
        box.out.show(row)


@grant.command("attestations")
def grant_attestations() -> None:
    """List what holders of revoked grants were asked to declare and have not."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            rows = service.list_attestations(work, limit=500)
        box.out.show(rows, columns=("grant_id", "opened_at", "delivered"))

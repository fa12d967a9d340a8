"""Use of models: what was used, what a grant may ask. Joins the groups ``usage`` and ``grant``."""

from __future__ import annotations

from typing import Annotated

import typer

from stagerelease.cli.box import instant, opened
from stagerelease.cli.incidents import usage
from stagerelease.cli.partners import Reason, grant
from stagerelease.inference import service

GROUPS: dict[str, typer.Typer] = {}
"""None of its own."""

USE_COLUMNS = (
    "day",
    "grant_id",
    "revision_id",
    "requests",
    "sequences",
    "prompt_tokens",
    "completion_tokens",
    "cut",
)
Most = Annotated[int | None, typer.Option(min=1, help="As for everybody if not said.")]


@usage.command("inference")
def show_inference(
    since: Annotated[str | None, typer.Option(help="A date; 28 days ago if not said.")] = None,
    until: Annotated[str | None, typer.Option(help="A date; now if not said.")] = None,
    grant_id: Annotated[str | None, typer.Option("--grant", help="Only under this grant.")] = None,
) -> None:
    """Say who asked models for how much, by day, grant and revision."""
    with opened() as box:
        with box.works.begin(box.actor, read_only=True) as work:
            rows = service.usage(
                work, since=instant(since), until=instant(until), grant_id=grant_id
            )
        box.out.show(rows, columns=USE_COLUMNS)


@usage.command("prompts")
def show_prompts(
    reason: Reason,
    grant_id: Annotated[str | None, typer.Option("--grant", help="Only under this grant.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
) -> None:
    """Read prompts that a plan says are kept. That they were read, and why, goes on record."""
    with opened() as box:
        with box.works.begin(box.actor, quiet=True) as work:
            rows = service.read_prompts(work, reason=reason, grant_id=grant_id, limit=limit)
        box.out.show(rows, columns=("request_id", "grant_id", "kept_at", "prompt"))


@grant.command("limits")
def grant_limits(
    grant_id: str,
    requests_per_minute: Most = None,
    tokens_per_minute: Most = None,
    tokens_per_day: Most = None,
    sequences: Most = None,
    max_tokens: Most = None,
    reason: Annotated[str | None, typer.Option(help="Why; with it, limits are set.")] = None,
) -> None:
    """Show what a grant may ask of models; with ``--reason``, set its own limits (or none)."""
    given = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_day": tokens_per_day,
        "sequences": sequences,
        "max_tokens": max_tokens,
    }
    if reason is None and any(value is not None for value in given.values()):
        raise typer.BadParameter("Say why: --reason.")
    with opened() as box:
        common = service.house_of(box.settings).limits
        if reason is None:
            with box.works.begin(box.actor, read_only=True) as work:
                row = service.show_limits(work, grant_id, common)
        else:
            with box.works.begin(box.actor, quiet=True) as work:
                row = service.set_limits(work, grant_id, given, reason=reason, common=common)
        box.out.show(row)

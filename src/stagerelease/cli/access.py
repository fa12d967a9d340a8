"""Access requests on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from stagerelease.access import service
from stagerelease.access.rules import Status
from stagerelease.cli.box import instant, opened

access = typer.Typer(help="Requests for access.", no_args_is_help=True)
GROUPS = {"access": access}

COLUMNS = ["id", "status", "repo_id", "handle", "submitted_at", "reason", "grant_id"]


@access.command("list")
def access_list(
    repo_id: Annotated[str | None, typer.Argument(help="Only this repository's.")] = None,
    status: Annotated[Status | None, typer.Option(help="Only these.")] = None,
) -> None:
    """List access requests, newest first: your own, to staff all."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        box.out.show(service.list_requests(work, repo_id=repo_id, status=status), columns=COLUMNS)


@access.command("accept")
def access_accept(
    repo_id: str,
    handle: str,
    until: Annotated[
        str | None, typer.Option(help="End of the grant; a year from now if left out.")
    ] = None,
    permission: Annotated[
        list[str] | None, typer.Option(help="download or infer; repeatable.")
    ] = None,
) -> None:
    """Accept a person's request: a grant is issued with it."""
    with opened() as box, box.works.begin(box.actor) as work:
        request = service.find_for(work, repo_id=repo_id, handle=handle)
        row = service.accept(
            work,
            request.id,
            valid_until=instant(until),
            permissions=permission or ["download"],
        )
        box.out.show(row, columns=COLUMNS)


@access.command("reject")
def access_reject(
    repo_id: str,
    handle: str,
    reason: Annotated[str, typer.Option(help="What the applicant reads, up to 200 characters.")],
) -> None:
    """Reject a person's request; access that it had led to is revoked."""
    with opened() as box, box.works.begin(box.actor) as work:
        request = service.find_for(work, repo_id=repo_id, handle=handle)
        box.out.show(service.reject(work, request.id, reason=reason), columns=COLUMNS)

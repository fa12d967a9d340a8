"""Access requests and forms on the command line."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from stagerelease.access import service
from stagerelease.access.forms import document_of
from stagerelease.access.rules import State, Status
from stagerelease.cli.box import instant, opened
from stagerelease.kernel.errors import Invalid

access = typer.Typer(help="Requests for access, by repository and handle.", no_args_is_help=True)
request = typer.Typer(help="Requests for access, and their review.", no_args_is_help=True)
form = typer.Typer(help="Forms that ask for access.", no_args_is_help=True)
GROUPS = {"access": access, "request": request, "form": form}

COLUMNS = ["id", "status", "repo_id", "handle", "submitted_at", "reason", "grant_id"]
QUEUE = ["id", "state", "age", "repo_id", "handle", "assignee", "submitted_at"]
FORM_COLUMNS = ["id", "slug", "version", "in_force", "created_at"]

Id = Annotated[str, typer.Argument(help="Id of the request (arq_…).")]
Seen = Annotated[
    int | None, typer.Option(help="Version you looked at; refused if it moved on since.")
]
Permissions = Annotated[
    list[str] | None, typer.Option("--permission", help="download or infer; repeatable.")
]


# --- by repository and handle ------------------------------------------------------------------


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
    permission: Permissions = None,
) -> None:
    """Accept the request of a person who has signed: a grant is issued with it."""
    with opened() as box, box.works.begin(box.actor) as work:
        found = service.find_for(work, repo_id=repo_id, handle=handle)
        row = service.accept(
            work,
            found.id,
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
        found = service.find_for(work, repo_id=repo_id, handle=handle)
        box.out.show(service.reject(work, found.id, reason=reason), columns=COLUMNS)


# --- requests -----------------------------------------------------------------------------------


@request.command("list")
def request_list(
    state: Annotated[
        list[State] | None, typer.Option(help="Only these states; the open ones if left out.")
    ] = None,
    repo_id: Annotated[str | None, typer.Option("--repo", help="Only this repository's.")] = None,
    assignee: Annotated[
        str | None, typer.Option(help="A reviewer's handle, 'me' or 'nobody'.")
    ] = None,
    older_than_days: Annotated[int | None, typer.Option(help="Only older than this.")] = None,
    limit: Annotated[int, typer.Option(help="At most this many.")] = 50,
    after: Annotated[str | None, typer.Option(help="Id of the last request seen.")] = None,
) -> None:
    """Show the queue of requests, oldest first."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        page = service.queue(
            work,
            states=state or (),
            repo_id=repo_id,
            assignee=assignee,
            older_than=None if older_than_days is None else timedelta(days=older_than_days),
            limit=limit,
            after=after,
        )
        rows = [
            {
                "id": row.request.id,
                "state": row.request.state,
                "age": f"{row.age_seconds // 86_400} d",
                "repo_id": row.request.repo_id,
                "handle": row.request.handle,
                "assignee": row.request.assignee,
                "submitted_at": row.request.submitted_at,
            }
            for row in page.rows
        ]
        box.out.show(rows, columns=QUEUE)
        box.out.say(page.times.sentence)
        if page.next is not None:
            box.out.say(f"There are more: --after {page.next}")


@request.command("show")
def request_show(request_id: Id) -> None:
    """Show a request: answers, every step, and to staff notes and conflicts of interest."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        page = service.request_page(work, request_id)
        form_named = f"{page.form.slug} version {page.form.version}" if page.form else None
        box.out.show(
            {
                "request": page.request,
                "form": form_named,
                "open": page.open,
                "events": page.events,
                "notes": page.notes,
                "conflicts": page.conflicts,
            }
        )


@request.command("assign")
def request_assign(
    request_id: Id,
    assignee: Annotated[str | None, typer.Argument(help="Handle; you if left out.")] = None,
    seen: Seen = None,
) -> None:
    """Take a request up, or give it to another reviewer."""
    with opened() as box, box.works.begin(box.actor) as work:
        row = service.assign(work, request_id, assignee=assignee, seen=seen)
        box.out.show(row, columns=[*COLUMNS, "assignee"])


@request.command("ask")
def request_ask(request_id: Id, question: str, seen: Seen = None) -> None:
    """Return a request to its applicant with a question."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(service.ask(work, request_id, question=question, seen=seen), columns=COLUMNS)


@request.command("approve")
def request_approve(
    request_id: Id,
    until: Annotated[str | None, typer.Option(help="End of access; a year if left out.")] = None,
    permission: Permissions = None,
    comment: Annotated[str, typer.Option(help="What the applicant reads with it.")] = "",
    seen: Seen = None,
) -> None:
    """Let an applicant in; the grant waits for their signature where one is missing."""
    with opened() as box, box.works.begin(box.actor) as work:
        row = service.approve(
            work,
            request_id,
            until=instant(until),
            permissions=permission or ["download"],
            comment=comment,
            seen=seen,
        )
        box.out.show(row, columns=[*COLUMNS, "grant_state"])


@request.command("reject")
def request_reject(
    request_id: Id,
    reason: Annotated[str, typer.Option(help="What the applicant reads, up to 200 characters.")],
    reapply_after: Annotated[
        str | None, typer.Option(help="When they may ask again; in 30 days if left out.")
    ] = None,
    seen: Seen = None,
) -> None:
    """Refuse a request; access that it had led to is revoked."""
    with opened() as box, box.works.begin(box.actor) as work:
        row = service.reject(
            work,
            request_id,
            reason=reason,
            may_reapply_after=instant(reapply_after),
            seen=seen,
        )
        box.out.show(row, columns=[*COLUMNS, "may_reapply_after"])


@request.command("note")
def request_note(request_id: Id, text: str) -> None:
    """Leave a note for other staff; the applicant never reads it."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(service.add_note(work, request_id, text=text))


@request.command("conflict")
def request_conflict(
    request_id: Id, reason: Annotated[str, typer.Option(help="Why others should decide.")]
) -> None:
    """Declare your own conflict of interest in a request."""
    with opened() as box, box.works.begin(box.actor) as work:
        box.out.show(service.declare_conflict(work, request_id, reason=reason))


# --- forms --------------------------------------------------------------------------------------


def _read(path: Path) -> str:
    """Return the text of a file, or of standard input for ``-``.

    Raises:
        Invalid: it cannot be read, or is not UTF-8.
    """
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} cannot be read: {error}.", reason="form.file") from error


FormFile = Annotated[Path, typer.Argument(help="A YAML or JSON file; - for standard input.")]


@form.command("lint")
def form_lint(path: FormFile) -> None:
    """Check a form; every mistake is named with its line."""
    with opened() as box:
        found = service.lint_form(_read(path))
        fields = len(list(found.fields))
        box.out.say(f"{found.slug}: {fields} fields, no mistakes.")


@form.command("apply")
def form_apply(
    path: FormFile,
    repo_id: Annotated[str | None, typer.Option("--repo", help="Only for this repository.")] = None,
    stage: Annotated[str | None, typer.Option(help="Only at this stage.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Do everything, then undo it.")] = False,
) -> None:
    """Put a form in force; one that says something new becomes the next version."""
    with opened() as box, box.works.begin(box.actor, dry_run=dry_run) as work:
        row = service.apply_form(work, _read(path), repo_id=repo_id, stage=stage)
        box.out.show(row, columns=FORM_COLUMNS)


@form.command("list")
def form_list() -> None:
    """List every version of every form, and where each is in force."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        box.out.show(service.list_forms(work), columns=FORM_COLUMNS)


@form.command("show")
def form_show(
    slug: Annotated[str, typer.Argument(help="The form.")] = "default",
    version: Annotated[int | None, typer.Option(help="The newest if left out.")] = None,
) -> None:
    """Show a form as a document that can be edited and applied."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        box.out.show(document_of(service.show_form(work, slug, version=version).form))

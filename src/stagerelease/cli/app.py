"""The ``stagerelease`` command: its sub-commands, and how errors become words and exit codes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from stagerelease import __version__
from stagerelease.cli import (
    access,
    attestations,
    catalog,
    evidence,
    grants,
    identity,
    incidents,
    inference,
    ledger,
    notices,
    ops,
    partners,
    releases,
    replay,
    reports,
)
from stagerelease.cli.box import CHOICES, Form
from stagerelease.kernel.errors import (
    Blocked,
    Corrupt,
    DomainError,
    Forbidden,
    Unauthenticated,
)

EXIT_DENIED, EXIT_BLOCKED, EXIT_CORRUPT = 3, 4, 5

app = typer.Typer(
    name="stagerelease",
    help="Let a powerful model out in stages, and prove every decision and delivered byte.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for module in (
    ops,
    identity,
    catalog,
    releases,
    partners,
    access,
    ledger,
    evidence,
    attestations,
    incidents,
    reports,
    replay,
    notices,
    grants,
    inference,
):
    for name, group in module.GROUPS.items():
        app.add_typer(group, name=name)
for module in (ops, identity, releases, reports):
    module.add_commands(app)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    output: Annotated[
        Form, typer.Option("-o", "--output", help="How answers are shown.")
    ] = Form.TABLE,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Read the options that stand before the sub-command."""
    CHOICES.form = output
    if version:
        typer.echo(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


def exit_code(error: DomainError) -> int:
    """Return the exit code of an error: 3 denied, 4 blocked, 5 does not verify, 1 otherwise."""
    if isinstance(error, Blocked):
        return EXIT_BLOCKED
    if isinstance(error, Forbidden | Unauthenticated):
        return EXIT_DENIED
    if isinstance(error, Corrupt):
        return EXIT_CORRUPT
    return 1


def explain(error: DomainError) -> None:
    """Print an error as title, sentence and what to do next."""
    out = Console(file=sys.stderr, soft_wrap=True)
    out.print(f"✗ {error.title} ({error.reason})", style="bold red", markup=False)
    if isinstance(error, Blocked):
        for blocker in error.blockers:
            out.print(f"  - {blocker.sentence} ({blocker.code})", markup=False)
    else:
        out.print(f"  {error.sentence}", markup=False)
    for field in error.fields:
        out.print(f"  - {field.field}: {field.sentence}", markup=False)
    if error.next_step:
        out.print(f"  Try: {error.next_step}", markup=False)


def main() -> None:
    """Run the command line; exit 0 done, 1 refused, 2 misused, 3 denied, 4 blocked, 5 corrupt."""
    try:
        app()
    except DomainError as error:
        explain(error)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        sys.exit(0)  # the reader of our output has seen enough

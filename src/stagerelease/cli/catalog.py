"""Families, imports, mirrors, and checks of what is stored."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from stagerelease.catalog import service, synthesize, views
from stagerelease.catalog.fsck import FsckReport, check
from stagerelease.catalog.importer import import_directory, room_of
from stagerelease.catalog.pull import pull
from stagerelease.cli.box import Form, opened
from stagerelease.kernel.errors import Corrupt

catalog = typer.Typer(help="Models, their revisions and files.", no_args_is_help=True)
GROUPS = {"catalog": catalog}

REVISION = ("id", "parent_id", "message", "created_at", "parameters", "total_bytes")

Kind = Annotated[
    str | None, typer.Option(help="Artifact kind of every file, such as output_dataset.")
]
Repo = Annotated[str, typer.Option(help="Repository id, such as openai/gpt2-124M.")]


@contextmanager
def _bar() -> Iterator[Callable[[int, int, str], None] | None]:
    """Show bytes, speed and remaining time on stderr; nothing at all when nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    more = (TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, *more, console=Console(file=sys.stderr), transient=True) as progress:
        task = progress.add_task("", total=None)

        def step(done: int, total: int, what: str) -> None:
            progress.update(task, completed=done, total=total, description=what[-40:])

        yield step


@catalog.command("seed")
def seed() -> None:
    """Add the families that ship with this version; what is there stays as it is."""
    with opened() as box:
        with box.works.begin(box.actor) as work:
            rows = service.seed_gpt2(work)
        box.out.show(rows, columns=["repo_id", "label", "parameters"])


@catalog.command("import")
def import_(
    directory: Annotated[Path, typer.Argument(help="Directory in Hub layout.")],
    repo: Repo,
    message: Annotated[str, typer.Option(help="What this revision is.")] = "",
    kind: Kind = None,
) -> None:
    """Import a directory of model files as a new revision on main."""
    with opened() as box:
        with _bar() as step:
            row = import_directory(
                box.works,
                box.blobs,
                box.actor,
                directory=directory,
                repo_id=repo,
                message=message,
                progress=step,
                kind=kind,
                note=box.out.say,
                room=room_of(box.settings.data_dir),
            )
        box.out.show(row)


@catalog.command("synthesize")
def synthesize_(
    directory: Annotated[Path, typer.Argument(help="Where to write; must not exist or be empty.")],
    variant: Annotated[str, typer.Option(help="Size such as 124M, or a repository id or alias.")],
    seed: Annotated[int, typer.Option(help="Same seed, same bytes.")] = 0,
) -> None:
    """Write a checkpoint of random weights with a variant's exact architecture."""
    if variant in synthesize.VARIANTS:
        config = synthesize.config_of(variant)
    else:
        with opened() as box, box.works.begin(box.actor, read_only=True) as work:
            figures = views.load_architecture(work, variant)
        config = {**synthesize.config_of("124M"), **figures}
    with _bar() as step:

        def told(done: int, total: int) -> None:
            if step is not None:
                step(done, total, "model.safetensors")

        synthesize.synthesize_config(config, directory, seed=seed, progress=told, label=variant)
    typer.echo(f"Wrote random weights of {variant} to {directory}.", err=True)


@catalog.command("pull")
def pull_(
    repo: Annotated[str, typer.Argument(help="Repository id here.")],
    from_: Annotated[str, typer.Option("--from", help="Address of a Hub-compatible endpoint.")],
    source: Annotated[str | None, typer.Option(help="Its name over there, if another.")] = None,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit over there.")] = "main",
    token_file: Annotated[Path | None, typer.Option(help="File that holds its token.")] = None,
    skip_refused: Annotated[
        bool, typer.Option(help="Leave out files that are never hosted, such as pickles.")
    ] = False,
    kind: Kind = None,
) -> None:
    """Mirror a repository from another Hub as a new revision on main."""
    with opened() as box:
        with _bar() as step:
            row = pull(
                box.works,
                box.blobs,
                box.actor,
                repo,
                from_url=from_,
                token=token_file.read_text().strip() if token_file else None,
                revision=revision,
                progress=step,
                source_repo=source,
                staging=box.settings.data_dir / "staging",
                skip_refused=skip_refused,
                kind=kind,
                note=box.out.say,
            )
        box.out.show(row)


@catalog.command("list")
def list_() -> None:
    """List repositories."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        columns = ["repo_id", "label", "parameters", "family_id", "aliases"]
        box.out.show(views.list_repos(work), columns=columns)


@catalog.command("show")
def show(
    repo: Annotated[str, typer.Argument(help="Repository id or alias.")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "main",
) -> None:
    """Show a revision of a repository with its files."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        view = views.load_view(work, repo, revision)
        if box.out.form is not Form.TABLE:
            box.out.show(view)
            return
        box.out.show(replace(view, files=[]), columns=REVISION)
        box.out.show(view.files, columns=["path", "size", "kind", "sha256"])


@catalog.command("fsck")
def fsck(
    repair: Annotated[bool, typer.Option(help="Clear what nothing refers to.")] = False,
    grace: Annotated[int, typer.Option(help="Seconds that leftovers are left alone.")] = 3600,
) -> None:
    """Read every stored byte again; exit 5 if something that is referred to does not verify."""
    with opened() as box:
        with _bar() as step:
            report = check(
                box.works,
                box.blobs,
                repair=repair,
                grace=timedelta(seconds=max(grace, 0)),
                progress=step,
                actor=box.actor,
            )
        box.out.show(report)
        _judge(report)


def _judge(report: FsckReport) -> None:
    if not report.ok:
        raise Corrupt(
            f"{len(report.findings)} thing(s) do not verify: {report.findings[0].sentence}",
            reason=report.findings[0].code,
            next_step="Import the same files again to replace corrupt bytes, or restore a backup.",
        )

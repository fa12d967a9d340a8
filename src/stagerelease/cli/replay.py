"""Replays of staged releases of the past, into an installation of their own."""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path
from typing import Annotated

import typer

from stagerelease.bootstrap import build
from stagerelease.cli.box import CHOICES, Form, Screen
from stagerelease.kernel.clock import SetClock
from stagerelease.kernel.errors import Invalid
from stagerelease.replay import gpt2_2019
from stagerelease.replay.stage import Stage
from stagerelease.replay.telling import Line, timeline
from stagerelease.settings import Settings, read_settings

replay = typer.Typer(help="Replay a staged release of the past.", no_args_is_help=True)
GROUPS = {"replay": replay}
FILE = "replay.json"


@replay.callback()
def _group() -> None:
    """Replay a staged release of the past into an empty installation."""


@replay.command("gpt2-2019")
def gpt2(
    data_dir: Annotated[
        Path | None, typer.Option(help="Where to lay it down; must be empty. Default: DATA_DIR.")
    ] = None,
) -> None:
    """Replay GPT-2's release of 2019 through the same use cases, with the clock of then."""
    changes = {"data_dir": data_dir} if data_dir is not None else {}
    settings = read_settings(os.environ).model_copy(update=changes)
    out = Screen(CHOICES.form)
    _refuse_used(settings)
    begun = time.monotonic()
    clock = SetClock(gpt2_2019.START)
    box = build(settings, migrate=True, clock=clock)
    try:
        out.say("Replaying 2019 …")
        stage = gpt2_2019.run(box.works, box.blobs, box.signer, clock, say=out.say)
        _write(settings.data_dir / FILE, stage)
        lines = timeline(box.works)
    finally:
        box.works.engine.dispose()
    _show(out, lines)
    out.say(
        f"Replayed in {time.monotonic() - begun:.1f} s. Open it with: "
        f"DATA_DIR={settings.data_dir} stagerelease up   (tokens of its role accounts: {FILE})"
    )


def _refuse_used(settings: Settings) -> None:
    """Refuse before anything is made or migrated there."""
    where = settings.data_dir
    if where.exists() and any(where.iterdir()):
        raise Invalid(
            f"{where} is not empty: a replay would mix 2019 into its record.",
            reason="replay.not-empty",
            next_step="Name a directory that does not exist yet: DATA_DIR=replay-data.",
        )


def _write(path: Path, stage: Stage) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    note = "For looking around in a replay. These tokens open nothing outside this data directory."
    with os.fdopen(descriptor, "w") as out:
        json.dump({"tokens": stage.tokens, "note": note}, out, indent=2)
        out.write("\n")
    os.replace(partial, path)


def _show(out: Screen, lines: list[Line]) -> None:
    if out.form is not Form.TABLE:
        out.show(lines)
        return
    for line in lines:
        mark = "●" if line.standing == "replayed" else "○"
        said = line.what if line.standing == "replayed" else f"{line.what} ({line.standing})"
        out.console.print(f"{line.day:<10}  {mark} {said}", markup=False, highlight=False)

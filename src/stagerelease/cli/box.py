"""What every command opens: settings, ports, who is acting, and how answers are shown."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from stagerelease.bootstrap import build
from stagerelease.db.migrate import check_schema
from stagerelease.db.work import Works
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR, Actor
from stagerelease.kernel.clock import in_range, iso
from stagerelease.kernel.errors import Invalid
from stagerelease.ledger.signer import LogSigner
from stagerelease.settings import Settings, read_settings
from stagerelease.storage.ports import BlobStore

TOKEN_VARIABLE = "STAGERELEASE_TOKEN"  # noqa: S105 (the name of a variable)


class Form(StrEnum):
    """How an answer is shown."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass(slots=True)
class Choices:
    """What the options before the sub-command said."""

    form: Form = Form.TABLE


CHOICES = Choices()


def plain(value: Any) -> Any:
    """Return ``value`` as JSON-ready data: rows as objects, instants as text, sets sorted."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(v) for v in value)
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)


class Screen:
    """Answers on stdout, messages on stderr."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.console = Console(file=sys.stdout, soft_wrap=True)
        self.messages = Console(file=sys.stderr, soft_wrap=True)

    def say(self, sentence: str) -> None:
        """Tell the person something that is not the answer."""
        self.messages.print(sentence, markup=False, highlight=False)

    def show(self, answer: Any, *, columns: Sequence[str] | None = None) -> None:
        """Show a row or a list of rows in the form the person asked for."""
        data = plain(answer)
        if self.form is Form.JSON:
            sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
        elif self.form is Form.YAML:
            sys.stdout.write(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))
        elif isinstance(data, list):
            self._table(data, columns)
        elif isinstance(data, dict):
            for key, value in data.items():
                if columns is None or key in columns:
                    self.console.print(f"{key:>20}  {self._cell(value)}", markup=False)
        else:
            self.console.print(str(data), markup=False)

    def _table(self, rows: list[Any], columns: Sequence[str] | None) -> None:
        if not rows:
            self.say("Nothing to show.")
            return
        names = list(columns or rows[0].keys())
        if not self.console.is_terminal:
            for row in rows:
                self.console.print(
                    "\t".join(self._cell(row.get(n)) for n in names), markup=False, highlight=False
                )
            return
        table = Table(*[n.replace("_", " ") for n in names], box=None, pad_edge=False)
        for row in rows:
            table.add_row(*[self._cell(row.get(n)) for n in names])
        self.console.print(table, markup=False)

    @staticmethod
    def _cell(value: Any) -> str:
        if value is None:
            return "—"
        if isinstance(value, list | dict):
            return json.dumps(value, ensure_ascii=False)
        return str(value)


@dataclass(frozen=True, slots=True)
class Opened:
    """An open box: what a command needs."""

    settings: Settings
    works: Works
    blobs: BlobStore
    signer: LogSigner
    actor: Actor
    out: Screen
    link_key: bytes


@contextmanager
def opened(*, migrate: bool = False) -> Iterator[Opened]:
    """Open the box for one command.

    ``STAGERELEASE_TOKEN`` says who is acting; without it the actor is the local operator, who may
    set things up but never approves or signs.

    Raises:
        Unavailable: the database is not there or not at this version's schema.
        Unauthenticated: the token is not good.
    """
    settings = read_settings(os.environ)
    box = build(settings, migrate=migrate)
    try:
        check_schema(box.works.engine)
        actor = OPERATOR
        token = os.environ.get(TOKEN_VARIABLE)
        if token:
            with box.works.begin(quiet=True) as work:
                actor = identity.authenticate(work, token.strip())
        screen = Screen(CHOICES.form)
        yield Opened(settings, box.works, box.blobs, box.signer, actor, screen, box.link_key)
    finally:
        box.works.engine.dispose()


def instant(text: str | None) -> datetime | None:
    """Read a date or an instant from the command line; a date means midnight UTC.

    Raises:
        Invalid: it is neither, or of a year that is not kept.
    """
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(
            f"{text!r} is not a date. Write 2026-12-31 or 2026-12-31T18:00Z.", reason="date"
        ) from error
    try:
        return in_range(at if at.tzinfo else at.replace(tzinfo=UTC))
    except ValueError as error:
        raise Invalid(f"{text!r}: {error}", reason="date") from error

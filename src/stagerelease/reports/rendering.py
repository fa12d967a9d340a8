"""Turns a report into one file: JSON, an HTML page that needs nothing else, or a PDF. Pure.

Hostile text stays text: Jinja escapes all of it, JSON is embedded where no parser of markup reads
it, and Typst gets data, never source. The same report gives the same bytes every time.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Invalid
from stagerelease.partners.typesetting import typeset
from stagerelease.reports import drawing
from stagerelease.reports.model import GateLine, Report, number

FORMATS = {
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
    "json": "application/json",
}
FORMAT = "stagerelease-report/v1"
PAGE_FONT = "inherit"
PAPER_FONT = "Libertinus Serif"


def render(report: Report, form: str) -> bytes:
    """Return the report as one self-contained file: ``html``, ``pdf`` or ``json``.

    Raises:
        Invalid: there is no such form.
    """
    if form == "json":
        return (json.dumps(document(report), indent=1, ensure_ascii=False) + "\n").encode()
    if form == "html":
        return html(report).encode()
    if form == "pdf":
        return pdf(report)
    raise Invalid(f"A report is one of {', '.join(FORMATS)}.", reason="report.format")


def document(report: Report) -> dict[str, Any]:
    """Return the report as JSON-ready data; its ``log`` is what ``proofs.check`` checks."""
    plain = {f.name: _plain(getattr(report, f.name)) for f in dataclasses.fields(report)}
    return {"format": FORMAT, "title": report.title, **plain}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d\.\d{3}Z")
_NAME = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")
_IN_WORDS = frozenset({"evidence", "freshness"})
"""Kinds of gates whose sentences are made of names of ours alone, written with underscores."""


def _readable(report: Report) -> Report:
    """Return the report with its gates in plainer words; the JSON edition keeps them exactly."""
    return dataclasses.replace(
        report,
        moves=tuple(
            dataclasses.replace(move, gates=tuple(_plainer(gate) for gate in move.gates))
            for move in report.moves
        ),
        ahead_gates=tuple(_plainer(gate) for gate in report.ahead_gates),
    )


def _plainer(gate: GateLine) -> GateLine:
    def words(text: str) -> str:
        text = _INSTANT.sub(r"\1 \2 UTC", text)
        if gate.kind not in _IN_WORDS:
            return text
        return _NAME.sub(lambda name: name.group().replace("_", " "), text)

    return dataclasses.replace(
        gate,
        rule=words(gate.rule),
        measured=words(gate.measured),
        threshold=words(gate.threshold),
    )


# --- the page ------------------------------------------------------------------------------------


@cache
def _page() -> Template:
    environment = Environment(  # every expression is escaped: there is no markup from outside
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        day=drawing.day,
        instant=lambda at: f"{at:%Y-%m-%d %H:%M} UTC",
        iso=iso,
        number=number,
        words=lambda text: text.replace("_", " "),
    )
    return environment.from_string(_template("report.html"))


def html(report: Report) -> str:
    """Return the page: style, drawings and proofs inside it, no script, no outside reference."""
    embedded = json.dumps(document(report), ensure_ascii=False).replace("<", "\\u003c")
    return _page().render(
        report=_readable(report),
        titles={e.id: e.title or e.type for e in report.evidence},
        style=Markup(_template("report.css")),  # noqa: S704 (our own file)
        ladder=Markup(drawing.ladder(report, font=PAGE_FONT)),  # noqa: S704 (escaped there)
        timeline=Markup(drawing.timeline(report, font=PAGE_FONT)),  # noqa: S704 (escaped there)
        embedded=Markup(embedded),  # noqa: S704 (no '<' is left in it)
        audiences=drawing.AUDIENCES,
        open_to_all=_open_to_all(report),
    )


def _open_to_all(report: Report) -> bool:
    return any(r.state == "current" and r.audience == "everyone" for r in report.ladder)


def _template(name: str) -> str:
    return files("stagerelease.reports").joinpath("templates", name).read_text("utf-8")


# --- paper ---------------------------------------------------------------------------------------


def pdf(report: Report) -> bytes:
    """Return the PDF: set from data, with the typefaces the typesetter brings and no others.

    Raises:
        Unavailable: the typesetter cannot run here.
    """
    data = {
        **document(_readable(report)),
        "open_to_all": _open_to_all(report),
        "titles": {e.id: e.title or e.type for e in report.evidence},
        "ladder_svg": drawing.ladder(report, font=PAPER_FONT, paper=True),
        "timeline_svg": drawing.timeline(report, font=PAPER_FONT, paper=True),
    }
    return typeset(_template("report.typ").encode(), data, report.made_at)

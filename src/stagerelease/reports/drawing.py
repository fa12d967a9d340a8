"""Draws the ladder and the timeline of a report as SVG, for the page and for paper alike. Pure.

Colours are classes: the page gives them its own, light or dark; paper gets a style of its own. All
text is escaped here; nothing that comes from outside becomes markup.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape

from stagerelease.reports.model import Moment, Report, Rung

Scale = Callable[[datetime], float]
WIDTH = 760.0
PAPER = (
    ".ink{fill:#16202c}.dim{fill:#5b6876}.onfill{fill:#ffffff}.line{stroke:#9aa7b4}"
    ".here{fill:#1f5fae;stroke:#1f5fae}.done{fill:#dbe8f7;stroke:#8fb4de}"
    ".todo{fill:#ffffff;stroke:#b5c0cb}.stop{fill:#b3261e;stroke:#b3261e}"
    ".s0{fill:#c8d2dc}.s1{fill:#a9c7ea}.s2{fill:#6f9fd8}.s3{fill:#1f5fae}.s9{fill:#8c2f28}"
    ".mark{fill:#ffffff;stroke:#1f5fae}"
)
"""The colours of paper, for SVG that stands outside a page."""

AUDIENCES = {
    "staff": "staff only",
    "organisations": "partner organisations",
    "people": "admitted researchers",
    "everyone": "everyone",
}


def day(at: datetime) -> str:
    """Return a date as a person reads it, ``14 Feb 2019``."""
    return f"{at.day} {at:%b %Y}"


def _svg(height: float, body: Sequence[str], *, label: str, font: str, paper: bool) -> str:
    style = f"<style>{PAPER}</style>" if paper else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {height:.0f}" '
        f'width="{WIDTH:.0f}" height="{height:.0f}" role="img" aria-label="{escape(label)}" '
        f'font-family="{escape(font)}">{style}{"".join(body)}</svg>'
    )


def _text(
    x: float,
    y: float,
    words: str,
    *,
    kind: str = "ink",
    size: float = 12,
    anchor: str = "start",
    bold: bool = False,
) -> str:
    weight = ' font-weight="700"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" font-size="{size:g}" '
        f'text-anchor="{anchor}"{weight}>{escape(words)}</text>'
    )


def _cut(words: str, width: float, size: float) -> str:
    """Return ``words``, shortened to what fits ``width`` at that size."""
    room = max(int(width / (size * 0.54)), 1)
    return words if len(words) <= room else words[: max(room - 1, 1)].rstrip() + "…"


# --- the ladder ----------------------------------------------------------------------------------


def ladder(report: Report, *, font: str = "inherit", paper: bool = False) -> str:
    """Return the ladder: one step per stage, rising; filled as far as the track has come."""
    rungs = report.ladder
    gap = 10.0
    width = (WIDTH - gap * (len(rungs) - 1)) / max(len(rungs), 1)
    rise = min(26.0, 90.0 / max(len(rungs) - 1, 1))
    base = 74.0 + rise * (len(rungs) - 1)
    body = []
    for number, rung in enumerate(rungs):
        x, top = number * (width + gap), rise * (len(rungs) - 1 - number)
        body.append(_step(rung, x, top + 1, width, base - top))
    said = ", ".join(f"{r.name}: {_since(r)}" for r in rungs)
    return _svg(base + 4, body, label=f"Ladder. {said}", font=font, paper=paper)


def _since(rung: Rung) -> str:
    if rung.entered_at is None:
        return "not reached"
    return f"since {day(rung.entered_at)}" if rung.state == "current" else day(rung.entered_at)


def _step(rung: Rung, x: float, top: float, width: float, height: float) -> str:
    shape = {"current": "here", "passed": "done"}.get(rung.state, "todo")
    dash = ' stroke-dasharray="4 4"' if shape == "todo" else ""
    ink, dim = ("onfill", "onfill") if shape == "here" else ("ink", "dim")
    room = width - 24
    parts = [
        f'<rect x="{x + 0.75:.1f}" y="{top:.1f}" width="{width - 1.5:.1f}" height="{height:.1f}" '
        f'rx="8" class="{shape}" stroke-width="1.5"{dash}/>',
        _text(
            x + 12, top + 24, _cut(rung.name.capitalize(), room, 15), kind=ink, size=15, bold=True
        ),
        _text(
            x + 12,
            top + 41,
            _cut(AUDIENCES.get(rung.audience, rung.audience), room, 11.5),
            kind=dim,
            size=11.5,
        ),
        _text(x + 12, top + 60, _cut(_since(rung), room, 12), kind=ink, size=12),
    ]
    return "".join(parts)


# --- the timeline --------------------------------------------------------------------------------

_ROW = 17.0
_STAGES = 4  # shades of a stage's band


@dataclass(frozen=True, slots=True)
class _Label:
    x: float
    words: str
    kind: str


def timeline(report: Report, *, font: str = "inherit", paper: bool = False) -> str:
    """Return the timeline: a band that darkens with every stage, and what happened, with dates."""
    begin, end, more = _window(report)
    span = (end - begin).total_seconds()

    def x_of(at: datetime) -> float:
        return 8 + (WIDTH - 16) * (at - begin).total_seconds() / span

    placed = _place(_labels(report.moments, x_of))
    lanes = max((lane for _, lane in placed), default=0) + 1
    band = lanes * _ROW + 12
    body = [*_bands(report, x_of, band, end), *_holds(report, x_of, band, end)]
    for label, lane in placed:
        body.append(_flag(label, lane, lanes, band))
    if more:  # it goes on unchanged, beyond what is drawn
        body.append(_arrow(WIDTH - 8, band, report))
    body += _ticks(begin, end, x_of, band + 18)
    said = "; ".join(f"{day(m.at)}: {m.words}" for m in report.moments)
    return _svg(band + 52, body, label=f"Timeline. {said}", font=font, paper=paper)


def _window(report: Report) -> tuple[datetime, datetime, bool]:
    """Return from when to when to draw, and whether that leaves out a long time without events."""
    begin = min([m.at for m in report.moments] + [report.entered_at])
    last = max([m.at for m in report.moments] + [report.entered_at])
    told = max(last - begin, timedelta(hours=1))
    if report.made_at - last > told:
        return begin, last + told / 4, True
    return begin, max(report.made_at, begin + timedelta(hours=1)), False


def _arrow(x: float, y: float, report: Report) -> str:
    """Return the end of a band that goes on to the present."""
    names = [rung.name for rung in report.ladder]
    shade = _shade(names, report.stage)
    return f'<path d="M{x:.1f} {y - 3:.1f}l8 10l-8 10z" class="s{shade}"/>'


def _shade(names: Sequence[str], stage: str) -> int:
    if stage not in names:
        return 9
    return round(names.index(stage) * (_STAGES - 1) / max(len(names) - 1, 1))


def _labels(moments: Sequence[Moment], x_of: Scale) -> list[_Label]:
    """Return one label per day on which something happened, in order of time."""
    days: dict[str, list[Moment]] = {}
    for moment in moments:
        days.setdefault(day(moment.at), []).append(moment)
    labels = []
    for date, group in days.items():
        said = list(dict.fromkeys(m.words for m in group))
        words = ", ".join(said[:3]) + (f" and {len(said) - 3} more" if len(said) > 3 else "")
        stop = any(m.kind in ("hold", "incident") for m in group)
        labels.append(_Label(x_of(group[-1].at), f"{date}  {words}", "stop" if stop else "mark"))
    return labels


def _place(labels: Sequence[_Label]) -> list[tuple[_Label, int]]:
    """Give each label the lowest lane in which it covers no other label and no other's stem."""
    free: list[float] = []
    placed: list[tuple[_Label, int]] = []
    for label in sorted(labels, key=lambda item: item.x, reverse=True):
        left, right = _extent(label)
        lane = next((n for n, edge in enumerate(free) if right <= edge), len(free))
        if lane == len(free):
            free.append(WIDTH)
        free[lane] = left
        # A stem rises through every lane below its own: those are taken up to it as well.
        for below in range(lane):
            free[below] = min(free[below], label.x - 6)
        placed.append((label, lane))
    return placed


def _extent(label: _Label) -> tuple[float, float]:
    """Return where a label begins and ends: to the right of its mark, or to the left at the end."""
    length = len(label.words) * 5.9 + 14
    if label.x + length <= WIDTH:
        return label.x - 4, label.x + length
    return max(label.x - length, 0), label.x + 4


def _flag(label: _Label, lane: int, lanes: int, band: float) -> str:
    y = (lanes - 1 - lane) * _ROW + 12
    left, _ = _extent(label)
    at_left = left < label.x - 4
    anchor, x = ("end", label.x - 6) if at_left else ("start", label.x + 6)
    return (
        f'<line x1="{label.x:.1f}" y1="{y - 9:.1f}" x2="{label.x:.1f}" y2="{band:.1f}" '
        f'class="line" stroke-width="1"/>'
        f'<circle cx="{label.x:.1f}" cy="{band + 7:.1f}" r="4.5" class="{label.kind}" '
        f'stroke-width="2"/>'
        + _text(x, y, _cut(label.words, WIDTH - 20, 11), size=11, anchor=anchor)
    )


def _bands(report: Report, x_of: Scale, y: float, end: datetime) -> list[str]:
    names = [rung.name for rung in report.ladder]
    parts = []
    for number, move in enumerate(report.moves):
        last = number + 1 == len(report.moves)
        left, right = x_of(move.at), x_of(end if last else report.moves[number + 1].at)
        shade = _shade(names, move.to_stage)
        parts.append(
            f'<rect x="{left:.1f}" y="{y:.1f}" width="{max(right - left, 0.5):.1f}" height="14" '
            f'class="s{shade}"/>'
        )
    return parts


def _holds(report: Report, x_of: Scale, y: float, end: datetime) -> list[str]:
    parts = []
    for hold in report.holds:
        left, right = x_of(max(hold.since, report.moments[0].at)), x_of(hold.until or end)
        parts.append(
            f'<rect x="{left:.1f}" y="{y - 3:.1f}" width="{max(right - left, 2):.1f}" height="3" '
            f'class="stop"/>'
        )
    return parts


def _ticks(begin: datetime, end: datetime, x_of: Scale, y: float) -> list[str]:
    """Return ticks at the starts of days, months or years: at most a dozen, with words."""
    parts, last = [], -100.0
    for at, words in _calendar(begin, end):
        x = x_of(at)
        if x - last < 58 or x > WIDTH - 30:
            continue
        parts.append(
            f'<line x1="{x:.1f}" y1="{y - 2:.1f}" x2="{x:.1f}" y2="{y + 4:.1f}" class="line" '
            f'stroke-width="1"/>'
        )
        parts.append(_text(x, y + 17, words, kind="dim", size=10.5))
        last = x
    return parts


def _calendar(begin: datetime, end: datetime) -> list[tuple[datetime, str]]:
    span = end - begin
    first = begin.replace(hour=0, minute=0, second=0, microsecond=0)
    found = []
    if span <= timedelta(days=3):
        step = timedelta(hours=1 if span < timedelta(hours=12) else 6)
        at = begin.replace(minute=0, second=0, microsecond=0) + step
        while at <= end:
            found.append((at, f"{at:%H:%M}"))
            at += step
    elif span <= timedelta(days=45):
        at = first + timedelta(days=1)
        while at <= end:
            found.append((at, f"{at.day} {at:%b}"))
            at += timedelta(days=1)
    else:
        years = span > timedelta(days=1500)
        year, month = first.year, first.month
        while True:
            month += 1
            year, month = (year + 1, 1) if month > 12 else (year, month)
            at = first.replace(year=year, month=month, day=1)
            if at > end:
                break
            if years and month != 1:
                continue
            found.append((at, str(year) if years or month == 1 else f"{at:%b}"))
    return found

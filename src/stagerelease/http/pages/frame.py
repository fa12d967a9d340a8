"""Renders templates inside the frame of the product: one environment, one policy, one time style.

Every value is escaped; ``safe`` is not used in any template. Templates decide nothing: what may be
shown was decided by the service that was asked.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from stagerelease.access.forms import Field
from stagerelease.http.pages import nav
from stagerelease.http.pages.begin import NOBODY, Viewer
from stagerelease.kernel.clock import iso, said
from stagerelease.kernel.errors import FieldError

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # Not no-referrer: under that a browser sends its own forms with ``Origin: null``.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
THEMES = ("system", "light", "dark")
THEME_COOKIE = "theme"


@dataclass(frozen=True, slots=True)
class Asset:
    """A static file: what is in it, packed too, and the digest that is part of its address.

    ``name`` is its path under ``static``; ``integrity`` is for files from elsewhere alone.
    """

    name: str
    body: bytes
    packed: bytes
    digest: str
    media_type: str
    integrity: str = ""

    @property
    def path(self) -> str:
        """Return the address, which changes whenever the content does."""
        return f"/static/{self.digest[:16]}/{self.name}"


@cache
def assets() -> Mapping[str, Asset]:
    """Return the static files that come with the product, by name."""
    root = Path(str(files("stagerelease.http.pages").joinpath("static")))
    listed = json.loads((root / "vendor/VENDOR.json").read_text())
    foreign = {f"vendor/{row['path']}": row["integrity"] for row in listed}
    found = {}
    for path in sorted(root.rglob("*")):
        kind, name = path.suffix.removeprefix("."), path.relative_to(root).as_posix()
        if kind in TYPES:
            body = path.read_bytes()
            found[name] = Asset(
                name,
                body,
                gzip.compress(body, 9, mtime=0),
                hashlib.sha256(body).hexdigest(),
                TYPES[kind],
                foreign.get(name, ""),
            )
    return found


def static(name: str) -> str:
    """Return the address of a static file."""
    return assets()[name].path


@cache
def vendored(name: str) -> Asset:
    """Return a file from elsewhere by its last name, whatever its version."""
    return next(a for a in assets().values() if a.integrity and a.name.endswith(f"/{name}"))


def when(at: datetime | None) -> Markup:
    """Return an instant in words with its zone, and exactly for machines."""
    if at is None:
        return Markup("—")
    return Markup('<time datetime="{}">{}</time>').format(iso(at), said(at))


def day(at: datetime | None) -> Markup:
    """Return the day of an instant, and the instant exactly for machines."""
    if at is None:
        return Markup("—")
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{} {:%B %Y}</time>').format(iso(at), at.day, at)


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: ``3 days 4 hours``."""
    left = max(0, int(seconds))
    parts = []
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count:,} {name}{'s' if count != 1 else ''}")
    return " ".join(parts[:2]) or "less than a minute"


def paragraphs(text: str) -> Markup:
    """Return what somebody wrote, escaped, with its line ends."""
    lines = Markup("<br>").join(escape(line) for line in text.split("\n"))
    return Markup('<bdi class="prose">{}</bdi>').format(lines)


def number(value: float | None) -> str:
    """Return a number with its thousands apart; a whole one is written as such: ``256``."""
    if value is None:
        return "—"
    whole = isinstance(value, float) and value.is_integer()
    return f"{int(value) if whole else value:,}"


def size(count: int) -> str:
    """Return a number of bytes with its unit: ``1.4 GB`` (powers of ten, as disks are sold)."""
    value, unit = float(count), "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, bigger
    return f"{count:,} B" if unit == "B" else f"{value:,.1f} {unit}"


def counted(value: int, one: str, many: str = "") -> str:
    """Return a number with what is counted: ``1 person``, ``1,204 people``."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def plain(word: str) -> str:
    """Return a code as words: ``in_review`` becomes ``In review``."""
    return word.replace("_", " ").replace("-", " ").capitalize()


def choice_labels(field: Field) -> dict[str, str]:
    """Return the words for each thing a field lets one choose."""
    return {choice.value: choice.label for choice in field.choices}


@cache
def environment() -> Environment:
    """Return the one Jinja environment: everything is escaped, nothing may be missing."""
    env = Environment(
        loader=PackageLoader("stagerelease.http.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "when": when,
        "day": day,
        "span": span,
        "paragraphs": paragraphs,
        "number": number,
        "plain": plain,
        "choice_labels": choice_labels,
        "size": size,
        "counted": counted,
    }
    env.globals |= {
        "static": static,
        "vendored": vendored,
        "log_address": nav.log_address,
        "current": nav.current,
    }
    return env


def by_field(errors: Iterable[FieldError]) -> dict[str, str]:
    """Return one sentence for each field that is wrong."""
    found: dict[str, str] = {}
    for error in errors:
        found.setdefault(error.field, error.sentence)
    return found


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    part: str = "",
    **context: Any,
) -> HTMLResponse:
    """Return a page: ``template`` in the frame, with the headers that every page carries.

    ``part`` names the template of the piece that is enough for htmx, when that asks: one that
    ``template`` includes.
    """
    viewer: Viewer = getattr(request.state, "viewer", NOBODY)
    # A refusal may come from a route that opened no Work; the last that was seen is near enough.
    last = getattr(request.app.state, "standing", None)
    values = {
        "viewer": viewer,
        "here": request.url.path,
        "here_whole": safe_next(_whole(request)) or "/",
        "request_id": getattr(request.state, "request_id", ""),
        "standing": getattr(request.state, "standing", last),
        "demo": getattr(request.app.state, "demo", None),
        "theme": chosen_theme(request),
        "main_nav": nav.links(nav.MAIN, viewer),
        "staff_nav": nav.links(nav.STAFF, viewer),
        "errors": {},
        **context,
    }
    asked = part if part and request.headers.get("hx-request") == "true" else template
    body = environment().get_template(asked).render(values)
    kept = {**HEADERS, "Vary": "HX-Request, Cookie, Accept-Encoding", **(headers or {})}
    if "t" in request.query_params:  # a link that signs in: its address goes along to nobody
        kept["Referrer-Policy"] = "strict-origin"
    if not _may_be_packed(request):
        return HTMLResponse(body, status, kept)
    kept["Content-Encoding"] = "gzip"
    return HTMLResponse(gzip.compress(body.encode(), 4), status, kept)


def _may_be_packed(request: Request) -> bool:
    """Tell whether an answer may be compressed: it holds no secret, being the same for everybody.

    The length of a compressed page tells of what is in it (BREACH), so whoever sends a cookie that
    names them gets theirs as it is.
    """
    named = set(request.cookies) - {THEME_COOKIE}
    return (
        request.method == "GET"
        and not named
        and "gzip" in request.headers.get("accept-encoding", "")
    )


def _whole(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def chosen_theme(request: Request) -> str:
    """Return ``light`` or ``dark`` when the visitor chose one here, else nothing."""
    chosen = request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in ("light", "dark") else ""


def to(path: str) -> RedirectResponse:
    """Return the redirect that follows a form: the browser asks for ``path`` with GET."""
    return RedirectResponse(path, 303, {"Cache-Control": "no-store"})


def safe_next(path: str | None) -> str:
    """Return a path of ours to go to, or nothing: never another site, whatever was asked for.

    >>> [safe_next(p) for p in ("/me", "//evil.example", "/\\\\evil.example", "https://e.example")]
    ['/me', '', '', '']
    """
    text = path or ""
    fine = (
        text.startswith("/")
        and not text.startswith(("//", "/\\"))
        and text.isascii()
        and text.isprintable()
        and not set(text) & set("\\ \"'<>")
        and len(text) <= 90
    )
    return text if fine else ""

"""Renders templates inside the frame of the product: one environment, one policy, one time style.

Every value is escaped; ``safe`` is not used in any template. Templates decide nothing: what may be
shown was decided by the service that was asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from stagerelease.access.forms import Field
from stagerelease.http.pages.begin import NOBODY, Viewer
from stagerelease.kernel.clock import iso
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
TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A static file: what is in it, and the digest that is part of its address."""

    name: str
    body: bytes
    digest: str
    media_type: str

    @property
    def path(self) -> str:
        """Return the address, which changes whenever the content does."""
        return f"/static/{self.digest[:16]}/{self.name}"


@cache
def assets() -> Mapping[str, Asset]:
    """Return the static files that come with the product, by name."""
    found = {}
    for entry in files("stagerelease.http.pages").joinpath("static").iterdir():
        kind = entry.name.rpartition(".")[2]
        if kind in TYPES:
            body = entry.read_bytes()
            digest = hashlib.sha256(body).hexdigest()
            found[entry.name] = Asset(entry.name, body, digest, TYPES[kind])
    return found


def static(name: str) -> str:
    """Return the address of a static file."""
    return assets()[name].path


def when(at: datetime | None) -> Markup:
    """Return an instant in words with its zone, and exactly for machines."""
    if at is None:
        return Markup("—")
    at = at.astimezone(UTC)
    words = f"{at.day} {at:%B %Y, %H:%M} UTC"
    return Markup('<time datetime="{}">{}</time>').format(iso(at), words)


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


def number(value: int | None) -> str:
    """Return a number with its thousands apart."""
    return "—" if value is None else f"{value:,}"


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
    }
    env.globals |= {"static": static}
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
    **context: Any,
) -> HTMLResponse:
    """Return a page: ``template`` in the frame, with the headers that every page carries."""
    viewer: Viewer = getattr(request.state, "viewer", NOBODY)
    body = (
        environment()
        .get_template(template)
        .render(
            viewer=viewer,
            here=request.url.path,
            request_id=getattr(request.state, "request_id", ""),
            **{"errors": {}, **context},
        )
    )
    return HTMLResponse(body, status, {**HEADERS, **(headers or {})})


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

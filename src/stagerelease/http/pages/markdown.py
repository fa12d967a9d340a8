"""Markdown as pages show it: agreements, model cards, documents. Hostile text, all of it.

Parsed without raw HTML, cleaned again afterwards, and never with a picture: a page of ours fetches
nothing because somebody wrote so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import nh3
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from stagerelease.kernel.plain_yaml import load_plain

TAGS = {
    *("p", "h2", "h3", "h4", "h5", "ul", "ol", "li", "strong", "em", "blockquote", "code", "pre"),
    *("hr", "br", "table", "thead", "tbody", "tr", "th", "td"),
}
LARGEST_FRONT = 20_000
Rewrite = Callable[[str], str]
"""What an address in a text becomes; nothing means: no link."""


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def render_text(text: str, *, rewrite: Rewrite | None = None, lower: int = 1) -> Markup:
    """Return Markdown as HTML that runs nothing: headings ``lower`` lower, links as ``rewrite``.

    Without ``rewrite`` there are no links at all.
    """
    tokens = _parser().parse(text)
    names: dict[str, int] = {}
    for place, token in enumerate(tokens):
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1]) + lower, 5)}"
        if token.type == "heading_open" and rewrite is not None:
            token.attrSet("id", _slug(tokens[place + 1].content, names))
        for child in token.children or ():
            _relink(child, rewrite)
    html = _parser().renderer.render(tokens, _parser().options, {})
    tags = TAGS | ({"a"} if rewrite else set())
    attributes = {"ol": {"start"}} | ({"a": {"href"}, **_ANCHORS} if rewrite else {})
    clean = nh3.clean(
        html,
        tags=tags,
        attributes=attributes,
        url_schemes={"http", "https", "mailto"},
        link_rel="nofollow noopener noreferrer" if rewrite else None,
    )
    return Markup(_scrolling(clean))  # noqa: S704 (cleaned just above)


def _scrolling(clean: str) -> str:
    """Put each table into a region that scrolls by itself and can be reached by keyboard."""
    pieces = clean.split("<table>")
    opened = [
        f'<div class="scroll" role="region" aria-label="Table {number}" tabindex="0"><table>{piece}'
        for number, piece in enumerate(pieces[1:], 1)
    ]
    return "".join([pieces[0], *opened]).replace("</table>", "</table></div>")


_ANCHORS = {heading: {"id"} for heading in ("h2", "h3", "h4", "h5")}


def _relink(token: Token, rewrite: Rewrite | None) -> None:
    if token.type == "link_open" and rewrite is not None:
        href = rewrite(str(token.attrs.pop("href", "")))
        if href:
            token.attrSet("href", href)


def _slug(words: str, taken: dict[str, int]) -> str:
    """Return the name of a heading within its page: equal ones are numbered from the second on.

    ``taken`` counts each name, so that twelve thousand equal headings cost no more than others.
    """
    kept = "".join(c for c in words.lower() if c.isalnum() or c in " -_").strip()
    base = name = "s-" + kept.replace(" ", "-")[:60]
    while name in taken:
        taken[base] += 1
        name = f"{base}-{taken[base]}"
    taken[name] = 1
    return name


def split_front(text: str) -> tuple[dict[str, Any], str]:
    """Return what a card's metadata block says, and the card without it; nothing if unreadable."""
    if not text.startswith("---\n"):
        return {}, text
    front, mark, rest = text[4:].partition("\n---")
    if not mark or len(front) > LARGEST_FRONT:
        return {}, text
    try:
        said = load_plain(front)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        said = None
    return (said if isinstance(said, dict) else {}), rest.lstrip("-").lstrip("\n")


def without_title(text: str) -> str:
    """Return a text without its first heading, which the page shows itself."""
    lines = text.lstrip().split("\n", 1)
    return (lines[1] if len(lines) > 1 else "") if lines[0].startswith("# ") else text

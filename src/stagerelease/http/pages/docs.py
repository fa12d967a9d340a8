"""The documents of the product, served by the product; and its API, told from its own description.

A reader is never sent elsewhere for what this version does: the documents are the ones it came
with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from markupsafe import Markup

from stagerelease.http.pages.begin import BeginVisitor
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.frame import page
from stagerelease.http.pages.markdown import Rewrite, render_text, without_title
from stagerelease.kernel.errors import NotFound

router = APIRouter(prefix="/docs", include_in_schema=False, dependencies=[Depends(speak_page)])
_PACKAGED = Path(__file__).resolve().parents[2] / "_docs"
_IN_TREE = Path(__file__).resolve().parents[4] / "docs"
GROUPS = (
    ("Start here", ("operators", "staff", "partners")),
    ("How a release is decided", ("gates", "evidence", "access-requests", "incidents", "reports")),
    ("For programs and their authors", ("permissions", "problems", "pages")),
)
DECISIONS = "adr"
METHODS = ("get", "post", "put", "patch", "delete", "head")
_HEADING = re.compile(r'<h2 id="(s-[^"]+)">([^<]+)</h2>')
_LINK = re.compile(r"(?:\./|\.\./)*((?:adr/)?[A-Za-z0-9-]+)\.md(?:#(.*))?\Z")


@dataclass(frozen=True, slots=True)
class Document:
    """A document: its address, its title, its first sentence, its Markdown."""

    slug: str
    path: str
    title: str
    lede: str
    text: str


@cache
def documents() -> Mapping[str, Document]:
    """Return the documents that came with this version, by slug; decisions begin with ``adr/``."""
    where = _PACKAGED if _PACKAGED.is_dir() else _IN_TREE
    found = {}
    for file in sorted([*where.glob("*.md"), *(where / DECISIONS).glob("*.md")]):
        slug = file.relative_to(where).with_suffix("").as_posix()
        text = file.read_text("utf-8")
        title = text.lstrip("# ").split("\n", 1)[0].strip()
        path = "/docs/" + slug.replace(f"{DECISIONS}/", "decisions/")
        found[slug] = Document(slug, path, title.replace("`", ""), _lede(text), text)
    return found


def _lede(text: str) -> str:
    """Return the first sentence of running text, without marks."""
    for block in without_title(text).split("\n\n"):
        line = " ".join(block.split())
        if line and not line.startswith(("#", "|", "-", "```", ">", "*", "Status")):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", line)
            for sentence in re.split(r"(?<=[.:]) ", plain):
                if "make docs" not in sentence and len(sentence) > 20:
                    return sentence[0].upper() + sentence[1:].rstrip(".:;") + "."
    return ""


def relink(base: str) -> Rewrite:
    """Return what turns the links of a document below ``base`` into links of the product."""

    def rewrite(href: str) -> str:
        if href.startswith(("https://", "http://")):
            return href
        if href.startswith("#"):
            return f"#s-{href[1:]}"
        found = _LINK.match(href)
        if found is None:
            return ""
        named, anchor = found.group(1), found.group(2)
        slugs = (f"{base}{named}", named)
        document = next((documents()[s] for s in slugs if s in documents()), None)
        if document is None:
            return ""
        return document.path + (f"#s-{anchor}" if anchor else "")

    return rewrite


@cache
def _rendered(slug: str) -> Markup:
    base = f"{DECISIONS}/" if slug.startswith(f"{DECISIONS}/") else ""
    text = without_title(documents()[slug].text)
    return render_text(text, rewrite=relink(base), lower=0)


@router.get("")
def contents(request: Request, begin: BeginVisitor) -> Response:
    """List the documents."""
    with begin(read_only=True):
        pass
    every = documents()
    named = {slug for _, slugs in GROUPS for slug in slugs}
    groups = [(title, [every[s] for s in slugs if s in every]) for title, slugs in GROUPS]
    decisions = [d for d in every.values() if d.slug.startswith(f"{DECISIONS}/")]
    rest = [d for d in every.values() if d.slug not in named and d not in decisions]
    return page(request, "docs.html", groups=[*groups, ("More", rest)], decisions=decisions)


@router.get("/decisions/{slug}")
def decision(request: Request, begin: BeginVisitor, slug: str) -> Response:
    """Show a decision on record."""
    return _show(request, begin, f"{DECISIONS}/{slug}")


def _show(request: Request, begin: BeginVisitor, slug: str) -> Response:
    with begin(read_only=True):
        pass
    document = documents().get(slug)
    if document is None:
        raise NotFound(
            f"There is no document {slug!r} in this version.",
            reason="document",
            next_step="See the list of documents at /docs.",
        )
    text = _rendered(slug)
    return page(request, "doc.html", document=document, text=text, headings=_HEADING.findall(text))


# --- the API ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a call: where it goes, its form, what it is for."""

    name: str
    where: str
    form: str
    required: bool
    words: str


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the API."""

    id: str
    method: str
    path: str
    summary: str
    words: str
    parameters: tuple[Parameter, ...]
    sends: tuple[Parameter, ...]
    media: str
    answers: tuple[tuple[str, str], ...]
    permissions: tuple[str, ...]
    needs: str


def calls_of(described: Mapping[str, Any]) -> dict[str, list[Call]]:
    """Return the calls of an OpenAPI document by tag, in the order of their paths."""
    found: dict[str, list[Call]] = {}
    for path, item in sorted(described["paths"].items()):
        for method in METHODS:
            if method in item:
                call = _call(described, path, method, item[method])
                for tag in dict.fromkeys(item[method].get("tags") or ["service"]):
                    found.setdefault(tag, []).append(call)
    return dict(sorted(found.items()))


def _call(described: Mapping[str, Any], path: str, method: str, said: Mapping[str, Any]) -> Call:
    content: Mapping[str, Any] = said.get("requestBody", {}).get("content", {})
    media = next(iter(content), "")
    needs = said["x-permission"]
    summary, *more = str(said["description"]).removesuffix(needs["words"]).strip().split("\n\n")
    return Call(
        id=said["operationId"],
        method=method.upper(),
        path=path,
        summary=summary,
        words="\n\n".join(more),
        parameters=tuple(
            Parameter(
                p["name"],
                p["in"],
                _form(p.get("schema", {})),
                p.get("required", False),
                p.get("description", ""),
            )
            for p in said.get("parameters") or []
        ),
        sends=_fields(described, content[media].get("schema", {})) if media else (),
        media=media,
        answers=tuple((code, r.get("description", "")) for code, r in said["responses"].items()),
        permissions=tuple(needs.get("permissions", ())),
        needs=needs["words"],
    )


def _fields(described: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[Parameter, ...]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    whole = described.get("components", {}).get("schemas", {}).get(name, schema)
    asked = set(whole.get("required", ()))
    return tuple(
        Parameter(key, "body", _form(one), key in asked, one.get("description", ""))
        for key, one in whole.get("properties", {}).items()
    )


def _form(schema: Mapping[str, Any]) -> str:
    """Return the form of a value in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(str(one) for one in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            forms = [_form(one) for one in schema[key] if one.get("type") != "null"]
            return " or ".join(dict.fromkeys(forms))
    if schema.get("type") == "array":
        return f"list of {_form(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or "anything")


@router.get("/api")
def api(request: Request, begin: BeginVisitor) -> Response:
    """List every call of the API by subject."""
    calls = calls_of(request.app.openapi())
    with begin(read_only=True):
        pass
    return page(request, "api.html", calls=calls, subject="")


@router.get("/api/{subject}")
def api_subject(request: Request, begin: BeginVisitor, subject: str) -> Response:
    """Show the calls of one subject in full."""
    calls = calls_of(request.app.openapi())
    with begin(read_only=True):
        pass
    if subject not in calls:
        raise NotFound(f"The API has no subject {subject!r}.", reason="document")
    return page(request, "api.html", calls={subject: calls[subject]}, subject=subject)


@router.get("/{slug}")
def document(request: Request, begin: BeginVisitor, slug: str) -> Response:
    """Show a document."""
    return _show(request, begin, slug)

"""Agreements on paper: the text, and for a signed one the page that says who signed it and when.

The text is parsed as CommonMark and handed to the typesetter as data, so that nothing in it is read
as typesetting markup. The same input gives the same bytes: dates come from the signature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from stagerelease.db.work import Work
from stagerelease.identity import queries as people
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Unavailable
from stagerelease.partners import queries
from stagerelease.partners.agreements import show_version
from stagerelease.partners.duo import uses
from stagerelease.partners.queries import AgreementVersionRow, SignatureRow
from stagerelease.partners.signatures import show_signature
from stagerelease.partners.typesetting import typeset

NOTE = (
    "This page was made by the service that keeps the signature. Its receipt holds the record, its "
    "place in the transparency log and the proof, which anybody can check without the service."
)


@dataclass(frozen=True, slots=True)
class Document:
    """One file to hand out."""

    name: str
    content: bytes


def version_pdf(work: Work, agreement: str, number: int | None = None) -> Document:
    """Return a version of an agreement as PDF, to whoever may read it.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Unavailable: the typesetter cannot run here.
    """
    row, text = show_version(work, agreement, number)
    at = row.effective_from or row.created_at
    content = _typeset(row, text, None, at)
    return Document(f"{row.agreement}-{row.version}.pdf", content)


def signed_pdf(work: Work, signature_id: str) -> Document:
    """Return a signed agreement as PDF: the very text, and the signature page. Also after its end.

    Raises:
        NotFound: there is no such signature, or the caller may not know of it.
        Unavailable: the typesetter cannot run here.
    """
    row = show_signature(work, signature_id)
    version = queries.find_version(work, row.agreement_version_id)
    if version is None:
        raise Unavailable("The signed text is missing from the database.", reason="agreement.lost")
    text = queries.text_of(work, version.id)
    last = row.countersigned_at or row.signed_at
    content = _typeset(version, text, _page(work, row, version), last)
    return Document(f"{row.agreement}-{row.version}-{row.id}.pdf", content)


def _page(work: Work, row: SignatureRow, version: AgreementVersionRow) -> dict[str, str]:
    signer = people.load_person(work, row.person_id)
    shown = {
        "Agreement": f"{row.agreement}, version {row.version}",
        "SHA-256 of the text": row.text_sha256,
        "Uses": "; ".join(f"{one.label} ({one.code})" for one in uses(version.duo_codes))
        or "as the text says",
        "Signed for": people.load_organisation(work, row.organisation_id).name
        if row.organisation_id
        else "the signer",
        "Name": row.typed_name,
        "Title": row.typed_title,
        "Account": f"{signer.handle} ({row.method})",
        "Authority": "The signer declared to be authorised to bind the party.",
        "Form": "The signer agreed to sign electronically.",
        "Signed at": f"{iso(row.signed_at)} (UTC)",
        "Ends": f"{iso(row.valid_until)} (UTC)" if row.valid_until else "when ended",
        "Log entry": f"#{row.leaf_idx}",
        "Signature": row.id,
    }
    if row.countersigned_by is not None and row.countersigned_at is not None:
        by = people.load_person(work, row.countersigned_by)
        shown["Countersigned"] = (
            f"for the publisher by {by.handle}, {iso(row.countersigned_at)} (UTC)"
        )
        if row.countersign_leaf_idx is not None:
            shown["Log entry of that"] = f"#{row.countersign_leaf_idx}"
    elif version.needs_countersignature:
        shown["Countersigned"] = "Not yet. The agreement is not in force without it."
    return shown


def _typeset(
    version: AgreementVersionRow, text: str, signature: dict[str, str] | None, at: datetime
) -> bytes:
    data = {
        "title": version.title,
        "version": version.version,
        "sha256": version.text_sha256,
        "blocks": blocks_of(text),
        "signature": signature,
        "note": NOTE,
    }
    template = files("stagerelease.partners").joinpath("templates", "agreement.typ").read_bytes()
    return typeset(template, data, at)


# --- Markdown as data ----------------------------------------------------------------------------


@dataclass(slots=True)
class _Open:
    """A block under way: where what comes next goes."""

    items: list[dict[str, Any]] = field(default_factory=list)


def blocks_of(text: str) -> list[dict[str, Any]]:
    """Return CommonMark text as nested plain values: no HTML is read, links keep their address."""
    tokens = MarkdownIt("commonmark", {"html": False}).parse(text)
    stack = [_Open()]
    heading = 0
    for token in tokens:
        here = stack[-1].items
        if token.type == "heading_open":
            heading = int(token.tag[1:])
        elif token.type == "inline":
            kind = {"kind": "heading", "level": heading} if heading else {"kind": "paragraph"}
            here.append({**kind, "runs": _runs(token.children or [])})
            heading = 0
        elif token.type in ("bullet_list_open", "ordered_list_open"):
            ordered = token.type == "ordered_list_open"
            start = int(token.attrGet("start") or 1)
            here.append({"kind": "list", "ordered": ordered, "start": start, "items": []})
            stack.append(_Open(here[-1]["items"]))
        elif token.type == "list_item_open":
            stack.append(_Open())
        elif token.type == "list_item_close":
            done = stack.pop()
            stack[-1].items.append(done.items)  # type: ignore[arg-type]
        elif token.type == "blockquote_open":
            here.append({"kind": "quote", "items": []})
            stack.append(_Open(here[-1]["items"]))
        elif token.type in ("bullet_list_close", "ordered_list_close", "blockquote_close"):
            stack.pop()
        elif token.type in ("fence", "code_block"):
            here.append({"kind": "code", "text": token.content})
        elif token.type == "hr":
            here.append({"kind": "rule"})
    return stack[0].items


def _runs(children: Sequence[Token]) -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = []
    strong = emph = 0
    address = ""

    def add(text: str, *, code: bool = False) -> None:
        runs.append({"text": text, "strong": strong > 0, "emph": emph > 0, "code": code})

    for child in children:
        if child.type == "strong_open":
            strong += 1
        elif child.type == "strong_close":
            strong -= 1
        elif child.type == "em_open":
            emph += 1
        elif child.type == "em_close":
            emph -= 1
        elif child.type == "link_open":
            address = str(child.attrGet("href") or "")
        elif child.type == "link_close":
            add(f" ({address})")
        elif child.type in ("softbreak", "hardbreak"):
            add(" ")
        elif child.type == "code_inline":
            add(child.content, code=True)
        elif child.content:
            add(child.content)
    return runs

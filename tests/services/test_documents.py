"""The signed agreement and its receipt: the same bytes again, for both sides, to be checked."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_partners import database_url, partnered, world
from pypdf import PdfReader

from logbook import SIGNER, sign
from stagerelease.kernel.errors import NotFound, Unavailable
from stagerelease.ledger import merkle, notes
from stagerelease.partners import service
from stagerelease.partners.documents import blocks_of
from stagerelease.partners.texts import SHIPPED, shipped_text
from stagerelease.partners.typesetting import typeset

__all__ = ["database_url", "partnered", "world"]  # fixtures
HOSTILE = '#set page(fill: red) $x^2$ *bold* <label> @ref \\ "quoted" #import "x"'


def words_of(content: bytes) -> str:
    reader = PdfReader(io.BytesIO(content))
    return " ".join(" ".join(page.extract_text().split()) for page in reader.pages)


def signed(world, who="ann", **changes):
    return world.sign(who, "model-sharing", organisation="lab-a", **changes)


def document(world, who, signature_id, kind="pdf"):
    with world.begin(who, read_only=True) as work:
        if kind == "pdf":
            return service.signed_pdf(work, signature_id)
        return service.signature_receipt(work, signature_id, vkey=SIGNER.vkey)


def test_a_signed_pdf_holds_the_text_and_who_signed(world):
    row = signed(world, typed_name="Ann Other", typed_title="Head of tests")
    found = document(world, "ann", row.id)
    shown = words_of(found.content)
    for part in ("not legal advice", "Ann Other", "Head of tests", "Lab-A", f"#{row.leaf_idx}"):
        assert part in shown
    digest = "".join(shown.split())
    assert row.text_sha256[:32] in digest.replace("\u200b", "")
    assert found.name.endswith(f"{row.id}.pdf")
    assert document(world, "olga", row.id) == found, "the same bytes again, for the other side"


def test_hostile_words_are_words_on_paper(world):
    row = signed(world, typed_name=HOSTILE, typed_title="<script>")
    shown = words_of(document(world, "ann", row.id).content)
    assert "#set page(fill: red)" in shown
    assert '#import "x"' in shown.replace("“", '"').replace("”", '"')
    world.redraft("model-sharing", text=f"# {HOSTILE}\n\n{HOSTILE}\n\n```\n{HOSTILE}\n```\n")
    with world.begin("olga", read_only=True) as work:
        content = service.version_pdf(work, "model-sharing", 2).content
    assert words_of(content).count("#set page(fill: red)") >= 2


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("李明", "[U+674E][U+660E]"),
        ("Ω Żółć Дмитрий", "Ω Żółć Дмитрий"),
        ("Ann \U0001f600", "Ann [U+1F600]"),
    ],
)
def test_a_name_that_the_typeface_lacks_is_spelled_out_not_left_blank(world, typed, shown):
    content = document(world, "ann", signed(world, typed_name=typed).id).content
    words = words_of(content)
    assert shown in words
    assert ("Unicode number" in words) == ("[U+" in shown)


def test_what_turns_the_order_of_a_text_is_spelled_out_and_not_obeyed(world):
    world.redraft("model-sharing", text="You \u202etlahs\u202c not pay. x\ue000y")
    with world.begin("olga", read_only=True) as work:
        words = words_of(service.version_pdf(work, "model-sharing", 2).content)
    assert "You [U+202E]tlahs[U+202C] not pay. x[U+E000]y" in words
    assert "Unicode number" in words


def test_a_typesetter_that_refuses_is_said_and_not_hidden():
    with pytest.raises(Unavailable) as caught:
        typeset(b'#panic("no")', {}, datetime(2026, 1, 1, tzinfo=UTC))
    assert caught.value.reason == "document.typeset"


def test_a_document_is_an_archive_file_that_can_be_read_aloud(world):
    row = signed(world)
    found = document(world, "ann", row.id)
    root = PdfReader(io.BytesIO(found.content)).trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"]
    assert root["/Lang"] == "en"
    assert "/StructTreeRoot" in root
    told = root["/Metadata"].get_data()
    assert b"<pdfaid:part>2</pdfaid:part>" in told
    assert b"<pdfaid:conformance>A</pdfaid:conformance>" in told
    assert not re.search(rb"/(JavaScript|Launch|URI|EmbeddedFile)\b", found.content)


def test_both_sides_keep_theirs_after_the_end_and_nobody_else(world):
    row = signed(world)
    sign(world.works)
    with world.begin("ann") as work:
        service.terminate_signature(work, row.id, "We leave.")
    for kind in ("pdf", "receipt"):
        for who in ("ann", "art", "olga", "aud"):
            assert document(world, who, row.id, kind).content
        for who in ("bea", "rex"):
            with pytest.raises(NotFound):
                document(world, who, row.id, kind)


def test_a_receipt_is_checked_without_the_service(world):
    row = signed(world)
    with pytest.raises(NotFound) as caught:
        document(world, "ann", row.id, "receipt")
    assert caught.value.reason == "ledger.unsigned"
    sign(world.works)
    receipt = json.loads(document(world, "ann", row.id, "receipt").content)
    leaf = base64.b64decode(receipt["leaf"])
    told = json.loads(leaf)
    assert told["type"] == "signature.signed"
    assert hashlib.sha256(receipt["detail"].encode()).hexdigest() == told["detail_sha256"]
    detail = json.loads(receipt["detail"])["detail"]
    assert (detail["text_sha256"], detail["typed_name"]) == (row.text_sha256, "ann of somewhere")
    idx, hashes, note = notes.parse_proof(receipt["proof"])
    head = notes.open_checkpoint(note, receipt["vkey"])
    assert idx == receipt["leaf_idx"] == row.leaf_idx
    merkle.check_inclusion(merkle.leaf_hash(leaf), idx, head.size, hashes, head.root)
    altered = leaf.replace(b"signature.signed", b"signature.signeD")
    with pytest.raises(merkle.ProofRefused):
        merkle.check_inclusion(merkle.leaf_hash(altered), idx, head.size, hashes, head.root)


def test_where_a_signer_signed_from_is_never_in_the_log(world):
    row = signed(world, client_address="203.0.113.77", user_agent="Browser/1")
    sign(world.works)
    receipt = document(world, "ann", row.id, "receipt").content
    assert b"203.0.113.77" not in receipt
    assert b"Browser/1" not in receipt


@pytest.mark.parametrize("slug", SHIPPED)
def test_shipped_agreements_say_that_they_are_no_legal_advice(slug):
    assert "not legal advice" in " ".join(shipped_text(slug).replace(">", " ").split())


@given(st.text(max_size=300))
def test_any_text_becomes_plain_blocks(text):
    json.dumps(blocks_of(text))


def test_markdown_is_read_as_it_is_meant():
    found = blocks_of("# One\n\nTwo *three* **four** `five`.\n\n1. a\n2. b\n\n> q\n\n- x\n\n---\n")
    kinds = [block["kind"] for block in found]
    assert kinds == ["heading", "paragraph", "list", "quote", "list", "rule"]
    assert [r["text"] for r in found[1]["runs"]] == ["Two ", "three", " ", "four", " ", "five", "."]
    assert [len(items) for items in (found[2]["items"], found[4]["items"])] == [2, 1]
    assert (found[2]["ordered"], found[4]["ordered"]) == (True, False)
    assert blocks_of("<b>x</b>")[0]["runs"][0]["text"] == "<b>x</b>"

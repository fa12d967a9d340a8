"""The audit log as pages: what is everybody's, what is private, and finding one's way."""

from __future__ import annotations

import ast
import base64
import re
from pathlib import Path

import httpx
import pytest

from browsing import browser
from stagerelease.http.pages import log
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.ledger import merkle, notes, queries
from stagerelease.ledger import service as ledger


@pytest.fixture
def signed(world):
    with world.box.works.begin(OPERATOR, quiet=True) as work:
        public = ledger.append(
            work, type="test.said", subject="test:one", detail={"said": "<b>1</b>"}, private=False
        )
        private = ledger.append(work, type="test.kept", subject="test:two", detail={})
    with world.box.works.begin(SYSTEM, quiet=True) as work:
        ledger.sign_checkpoint(work, world.box.signer)
    return {"public": public, "private": private}


def test_what_is_private_is_a_hash_to_all_but_those_who_may_read_it(world, signed):
    with (
        browser(world, "owner") as may,
        browser(world, "researcher") as known,
        browser(world) as all_,
    ):
        for client in (known, all_):
            shown = client.get(f"/log/{signed['private']}")
            assert shown.status_code == 200
            assert "test:two" not in shown.text
            assert 'id="canonical"' not in shown.text
            assert client.get(f"/log/{signed['private']}/bundle").json()["body"] is None
            assert "test:one" in client.get(f"/log/{signed['public']}").text
            listed = client.get("/log?about=test:two").text
            assert "<bdi>test:two" not in listed
        assert "test:two" in may.get(f"/log/{signed['private']}").text
        assert "test:two" in may.get("/log?about=test:two").text
        assert ">Said" not in may.get("/log?about=test:two").text
        assert "<b>1" not in may.get(f"/log/{signed['public']}").text


def test_a_bundle_holds_all_that_its_proof_needs(world, signed):
    with browser(world) as client:
        got = client.get(f"/log/{signed['public']}/bundle").json()
        idx, hashes, note = notes.parse_proof(got["proof"])
        head = notes.open_checkpoint(note, got["vkey"])
        leaf = merkle.leaf_hash(base64.b64decode(got["body"]))
        assert base64.b64decode(got["leaf_hash"]) == leaf
        merkle.check_inclusion(leaf, idx, head.size, hashes, head.root)


def test_entries_are_found_by_type_and_read_page_by_page(world, signed):
    with browser(world, "auditor") as client:
        seen: list[int] = []
        path = "/log"
        while path:
            text = client.get(path).text
            seen += [int(n) for n in re.findall(r'row"><a href="/log/(\d+)"', text)]
            older = re.search(r'href="(/log\?[^"]*before=\d+)" rel="next"', text)
            path = older.group(1).replace("&amp;", "&") if older else ""
        assert seen == list(range(seen[0], -1, -1))
        assert seen[0] >= signed["private"]
        found = client.get("/log?type=test.").text
        assert re.findall(r'row"><a href="/log/(\d+)"', found) == [
            str(signed["private"]),
            str(signed["public"]),
        ]
        assert "No entry fits here" in client.get("/log?type=nothing").text


def test_each_entry_says_its_type_in_words_and_any_type_can_be_chosen(world, signed):
    with browser(world) as client:
        text = client.get("/log").text
        row = re.search(
            rf'<tr><th scope="row"><a href="/log/{signed["public"]}".*?</tr>', text, re.S
        )
        cells = re.findall(r'data-label="(Type|What happened)">(.*?)</td>', row.group())
        assert [name for name, _ in cells] == ["Type", "What happened"]
        assert cells[0][1] == "Test"
        assert cells[1][1] == "Said"
        assert 'href="/log?type=test.said"' in client.get(f"/log/{signed['public']}").text
        headers = re.findall(r'<th scope="col">([^<]*)</th>', text)
        assert headers == ["Entry", "Time", "Type", "What happened", "Subject"]
        chosen = client.get("/log?type=promotion.").text
        assert '<option value="promotion." selected>Promotion</option>' in chosen
        assert set(re.findall(r'data-label="Type">([^<]*)<', chosen)) == {"Promotion"}
        narrow = client.get("/log?type=promotion.opened").text
        assert '<option value="promotion.opened" selected>Promotion: opened</option>' in narrow
        odd = client.get("/log", params={"type": "<b>x</b>.\"'"}).text
        assert "<b>x" not in odd


def test_every_type_that_is_written_can_be_chosen(world):
    written = set()
    for file in (Path(log.__file__).parents[2]).rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "ledger.append":
                found = next(k.value for k in call.keywords if k.arg == "type")
                first = found.values[0] if isinstance(found, ast.JoinedStr) else found
                if isinstance(first, ast.Constant):
                    written.add(first.value.partition(".")[0])
    assert len(written) > 25
    with world.box.works.begin(read_only=True) as work:
        rows = queries.entries(work, start=0, limit=queries.log_size(work))
    written |= {row.leaf["type"].partition(".")[0] for row in rows}
    assert written <= set(log.KINDS)


@pytest.mark.parametrize("idx", ["x", "-1", "1e3", "99999999", "9" * 40, "٣"])
def test_what_is_no_entry_is_not_found(world, idx):
    with browser(world) as client:
        assert client.get(f"/log/{idx}").status_code == 404
        assert client.get(f"/log/{idx}/bundle").status_code == 404
    with browser(world) as client:
        assert client.get("/log", params={"before": idx}).status_code == 200


def test_one_that_no_checkpoint_covers_says_so(world, signed):
    with world.box.works.begin(OPERATOR, quiet=True) as work:
        late = ledger.append(work, type="test.late", subject="test:three", detail={})
    with browser(world) as client:
        assert "Not signed yet" in client.get(f"/log/{late}").text
        assert client.get(f"/log/{late}/bundle").status_code == 404


def test_a_search_stops_where_it_says_and_goes_on_from_there(world, signed, monkeypatch):
    monkeypatch.setattr(queries, "LOOKED_AT", 10)
    size = signed["private"] + 1
    with world.box.works.begin(read_only=True) as work:
        wanted = queries.Search(type="nothing")
        found = queries.search(work, wanted, before=None, limit=50)
        assert (found.rows, found.next) == ((), size - 10)
        looked, before = 0, None
        while True:
            found = queries.search(work, queries.Search(type="test."), before=before, limit=1)
            looked += len(found.rows)
            if found.next is None:
                break
            before = found.next
        assert looked == 2


def test_the_api_tells_no_more_of_a_private_entry_than_the_page(world, signed):
    with httpx.Client(base_url=world.base_url) as client:
        told = client.get("/api/v1/log/entries?limit=1000").json()
        token = {"Authorization": f"Bearer {world.tokens['auditor']}"}
        whole = client.get("/api/v1/log/entries?limit=1000", headers=token).json()
    assert [e["leaf_hash"] for e in told] == [e["leaf_hash"] for e in whole]
    hidden = [e["idx"] for e in told if e["body"] is None]
    assert hidden == [e["idx"] for e in whole if "nonce" in e["leaf"]]
    assert 0 < len(hidden) < len(whole)
    assert all(e["leaf"] is None for e in told if e["body"] is None)

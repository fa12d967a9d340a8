"""The audit log checked in a browser: five steps that light up, and every tampering refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from browsing import cookie_for
from live import World
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.ledger import notes
from stagerelease.ledger import service as ledger

pytestmark = pytest.mark.e2e
IDX = 20


@pytest.fixture
def page(chromium: Browser, world: World) -> Iterator[Page]:
    with world.box.works.begin(SYSTEM, quiet=True) as work:
        ledger.sign_checkpoint(work, world.box.signer)
    context = chromium.new_context(base_url=world.base_url)
    context.set_default_timeout(8_000)
    cookie = {"name": "sr", "value": cookie_for(world, "auditor"), "url": world.base_url}
    context.add_cookies([cookie])
    yield context.new_page()
    context.close()


def grow(world: World, by: int) -> None:
    with world.box.works.begin(OPERATOR, quiet=True) as work:
        for n in range(by):
            ledger.append(work, type="test.grown", subject=f"test:{n}", detail={})
        ledger.sign_checkpoint(work, world.box.signer)


def verify(page: Page, idx: int = IDX) -> str:
    page.goto(f"/log/{idx}")
    page.get_by_role("button", name="Verify in this browser").click()
    verdict = page.locator(".verdict")
    expect(verdict).to_contain_text("erified")
    return verdict.inner_text()


def lit(page: Page) -> list[str | None]:
    return [li.get_attribute("data-lit") for li in page.locator("[data-step]").all()]


def test_five_steps_light_up_and_the_log_is_known_again_when_it_has_grown(page, world):
    assert verify(page).startswith(f"Verified: this is entry {IDX} of the log that test.example")
    assert lit(page) == ["ok", "ok", "ok", "none", "ok"]
    assert "had not seen this log before" in page.locator("[data-step=seen]").inner_text()
    for by in (1, 5, 64):  # every shape of the path
        grow(world, by)
        assert verify(page).startswith("Verified")
        assert "continues the" in page.locator("[data-step=seen]").inner_text()
    for idx in (0, 1, IDX + 1):
        assert verify(page, idx).startswith("Verified")
    steps = page.locator("svg.path rect.node:not(.own):not(.root)").count()
    assert steps == page.locator("aside ol li").count() - 2 > 3  # the drawing and its words


def test_a_private_entry_is_proved_by_its_hash_alone(page):
    page.context.clear_cookies()
    assert verify(page).startswith("Verified")
    assert lit(page) == ["none", "ok", "ok", "none", "ok"]
    assert page.locator("#canonical").count() == 0


def flipped(text: str) -> str:
    data = bytearray(base64.b64decode(text))
    data[len(data) // 2] ^= 1
    return base64.b64encode(bytes(data)).decode()


def lines(bundle: dict[str, Any], change: Callable[[list[str]], None]) -> dict[str, Any]:
    parts = bundle["proof"].split("\n")
    change(parts)
    return bundle | {"proof": "\n".join(parts)}


def another_key(bundle: dict[str, Any]) -> dict[str, Any]:
    """Sign the same head with a key of the same name, as a whole second log would."""
    skey, vkey = notes.generate_key("test.example/log")
    head, _, note = bundle["proof"].partition("\n\n")
    forged = notes.sign(notes.parse_note(note).text, skey)
    return bundle | {"proof": f"{head}\n\n{forged}", "vkey": vkey}


def set_line(n: int, to: Callable[[str], str]) -> Callable[[list[str]], None]:
    def change(parts: list[str]) -> None:
        parts[n] = to(parts[n])

    return change


TAMPERED: dict[str, tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "text": ("leaf", lambda b: b | {"body": flipped(b["body"])}),
    "hash": ("leaf", lambda b: b | {"leaf_hash": flipped(b["leaf_hash"])}),
    "index": ("leaf", lambda b: b | {"idx": IDX + 1}),
    "index in the proof": ("leaf", lambda b: lines(b, set_line(1, lambda _: "index 21"))),
    "a hash of the path": ("path", lambda b: lines(b, set_line(3, flipped))),
    "a step left out": ("path", lambda b: lines(b, lambda p: p.pop(2) and None)),
    "a step too many": ("path", lambda b: lines(b, lambda p: p.insert(2, p[2]))),
    "the size": ("path", lambda b: lines(b, set_line(-5, lambda _: "21"))),
    "the root": ("path", lambda b: lines(b, set_line(-4, flipped))),
    "the signature": (
        "signature",
        lambda b: lines(b, set_line(-2, lambda t: t[:-6] + "AAAA" + t[-2:])),
    ),
    "the key": ("signature", lambda b: b | {"vkey": b["vkey"][:-4] + "AAA="}),
    "another log": ("seen", another_key),
    "no base64": ("leaf", lambda b: b | {"body": "%%"}),
}


def answering(body: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(body=body)


def test_whatever_is_tampered_with_is_refused_in_words(page, world):
    assert verify(page).startswith("Verified")
    good = page.request.get(f"/log/{IDX}/bundle").json()
    for what, (step, change) in TAMPERED.items():
        bad = json.dumps(change(dict(good)))
        page.route("**/bundle", answering(bad))
        said = verify(page)
        assert said.startswith("Not verified: "), what
        assert page.locator("[data-lit=stop]").get_attribute("data-step") == step, (what, said)
        page.unroute("**/bundle")
    with page.expect_download() as kept:
        page.get_by_role("link", name="Download what was checked").click()
    found = json.loads(kept.value.path().read_text())
    assert found["idx"] == IDX
    assert found["remembered"]["origin"] == "test.example/log"


def test_a_log_that_forgot_what_this_browser_saw_is_refused(page, world):
    grow(world, 3)
    assert verify(page).startswith("Verified")
    page.evaluate(
        """() => { const m = JSON.parse(localStorage.getItem('stagerelease.log'));
        m.size -= 2; localStorage.setItem('stagerelease.log', JSON.stringify(m)); }"""
    )
    assert "not the one this browser saw before" in verify(page)
    assert page.locator("[data-lit=stop]").get_attribute("data-step") == "seen"

"""The playground over the real inference process: torch, and a miniature that was really trained.

What the page does with refusals, holds and scripts that are off is in ``test_playground``, over an
engine that costs nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from edge_site import wait_for
from playwright.sync_api import Page, expect
from sqlalchemy import select
from test_playground import opened, press

from live import World
from stagerelease.bootstrap import Box
from stagerelease.engine.remote import RemoteEngine, Where
from stagerelease.inference.tables import InferenceRequest

pytestmark = pytest.mark.e2e
PROMPT = "In a shocking"  # what ``opened`` types
COUNT_AND_STOP = """() => { window.pieces = 0; window.stopAfter = Infinity;
  new MutationObserver((seen) => {
    window.pieces += seen.length;
    if (window.pieces >= window.stopAfter) document.querySelector('[data-stop]').click();
  }).observe(document.getElementById('written'), {childList: true, subtree: true}); }"""


@pytest.fixture
def world_box(world_box: Box) -> Iterator[Box]:
    """The demo world, whose questions are answered by ``stagerelease infer``."""
    with tempfile.TemporaryDirectory(prefix="sr-") as room:  # a socket's path has to be short
        where = f"unix:{room}/infer.sock"
        environ = {k: v for k, v in os.environ.items() if not k.startswith("STAGERELEASE_")}
        environ |= {
            "DATA_DIR": str(world_box.settings.data_dir),
            "STAGERELEASE_INFERENCE_URL": where,
        }
        process = subprocess.Popen([sys.executable, "-m", "stagerelease", "infer"], env=environ)
        yield replace(world_box, engine=RemoteEngine(Where.of(where)))
        process.terminate()
        process.wait(30)


def asked_by_api(world: World, tokens: int) -> str:
    """Return what the model makes of the prompt without any chance, once it is loaded."""
    body = {"model": world.repos["researcher"], "prompt": PROMPT, "max_tokens": tokens}
    with world.client("researcher") as client:
        for _ in range(60):
            answer = client.post("/v1/completions", json=body | {"temperature": 0})
            if answer.status_code == 200:
                return str(answer.json()["choices"][0]["text"])
            time.sleep(1)  # each question counts against a quota
    raise AssertionError(answer.text)


def settle(page: Page, **settings: str) -> None:
    for name, value in settings.items():
        page.locator(f"#f-{name}").fill(value)


def tell(page: Page, words: str) -> None:
    expect(page.locator("#telling")).to_have_text(words)


def test_the_real_model_is_streamed_stopped_and_chosen_from(chromium, world) -> None:
    wanted = asked_by_api(world, 40)
    page = opened(chromium, world)
    page.evaluate(COUNT_AND_STOP)
    page.get_by_text("Settings", exact=True).click()
    settle(page, length="40", temperature="0")
    press(page, "Continue the text")
    tell(page, "The machine has finished.")
    assert page.locator("mark").text_content() == wanted
    assert page.evaluate("window.pieces") > 20  # it came piece by piece

    settle(page, length="200", temperature="0.8")
    page.evaluate("window.pieces = 0, window.stopAfter = 8")
    press(page, "Continue the text")
    tell(page, "You stopped it.")
    page.evaluate("window.stopAfter = Infinity")
    wait_for(lambda: cut_short(world, 200))

    press(page, "Three short ways to go on")
    tell(page, "The machine has finished.")
    ways = page.locator(".choice mark").all_text_contents()
    assert len(ways) == len(set(ways)) == 3
    assert all(ways)
    page.get_by_role("button", name="Go on with this one").nth(1).click()
    assert page.locator("#f-prompt").input_value() == PROMPT + ways[1]
    page.context.close()


def cut_short(world: World, tokens: int) -> bool:
    """Tell whether the newest question was left before all its tokens were computed."""
    with world.box.works.begin(read_only=True) as work:
        newest = work.session.scalars(
            select(InferenceRequest).order_by(InferenceRequest.id.desc())
        ).first()
        return newest.outcome == "client_left" and newest.completion_tokens < tokens

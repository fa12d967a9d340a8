"""The playground in a browser: streamed, stopped, chosen from, labelled; and refused in words."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from browsing import cookie_for
from live import World
from stagerelease.identity import service as identity
from stagerelease.identity import sessions
from stagerelease.kernel.actor import OPERATOR
from stagerelease.releases import service as releases

pytestmark = pytest.mark.e2e


def opened(chromium: Browser, world: World, *, scripts: bool = True) -> Page:
    context = chromium.new_context(base_url=world.base_url, java_script_enabled=scripts)
    context.set_default_timeout(8_000)
    if scripts:
        context.grant_permissions(["clipboard-read", "clipboard-write"])
    cookie = {"name": "sr", "value": cookie_for(world, "researcher"), "url": world.base_url}
    context.add_cookies([cookie])
    page = context.new_page()
    page.goto("/playground")
    page.locator("#f-model").select_option(world.repos["researcher"])
    page.locator("#f-prompt").fill("In a shocking")
    return page


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def test_a_text_is_streamed_labelled_copied_and_the_same_by_its_seed(chromium, world):
    page = opened(chromium, world)
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("console", lambda m: broken.append(m.text) if m.type == "error" else None)
    press(page, "Continue the text")
    expect(page.locator("#telling")).to_have_text("The machine has finished.")
    caption = page.locator("figcaption").inner_text()
    seed = re.fullmatch(rf"Written by a machine: {world.repos['researcher']}, seed (\d+)", caption)
    first = page.locator("mark").inner_text()
    assert len(first) > 20
    press(page, "Copy with its label")
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"[{caption}]\n\nIn a shocking{page.locator('mark').text_content()}"
    page.get_by_text("Settings", exact=True).click()
    page.locator("#f-seed").fill(seed.group(1))
    press(page, "Continue the text")
    expect(page.locator("#telling")).to_have_text("The machine has finished.")
    assert page.locator("mark").inner_text() == first
    press(page, "Put it into the box")
    assert page.locator("#f-prompt").input_value().startswith("In a shocking" + first[:5])
    assert broken == []
    page.context.close()


def test_three_short_ways_to_go_on_are_offered(chromium, world):
    page = opened(chromium, world)
    press(page, "Three short ways to go on")
    expect(page.locator("#telling")).to_have_text("The machine has finished.")
    choices = page.locator(".choice mark")
    assert choices.count() == 3
    second = choices.nth(1).text_content()
    page.get_by_role("button", name="Go on with this one").nth(1).click()
    assert page.locator("#f-prompt").input_value() == "In a shocking" + second
    page.context.close()


def test_it_can_be_stopped_and_what_came_stays(chromium, world):
    world.box.engine.step = 0.05
    page = opened(chromium, world)
    press(page, "Continue the text")
    expect(page.locator("mark")).to_have_text(re.compile(".{5}", re.S))
    press(page, "Stop")
    expect(page.locator("#telling")).to_have_text("You stopped it.")
    assert len(page.locator("mark").text_content()) >= 5
    page.context.close()


def test_a_hold_is_said_in_words_and_what_was_typed_stays(chromium, world):
    page = opened(chromium, world)
    with world.box.works.begin(world.actor("security")) as work:
        releases.lay_hold(work, scope="everything", scope_id=None, reason="An exercise.")
    press(page, "Continue the text")
    expect(page.locator("#telling")).to_contain_text("hold")
    assert page.locator("#f-prompt").input_value() == "In a shocking"
    page.context.close()


def test_access_that_ends_meanwhile_cuts_the_text_and_other_changes_do_not(chromium, world):
    world.box.engine.step = 0.05
    page = opened(chromium, world)
    press(page, "Continue the text")
    expect(page.locator("mark")).to_have_text(re.compile(".{3}", re.S))
    with world.box.works.begin(OPERATOR) as work:  # something else changes, and it is asked again
        identity.create_person(work, handle="late", display_name="Late")
    expect(page.locator("mark")).to_have_text(re.compile(".{40}", re.S))
    with world.box.works.begin(world.actor("researcher")) as work:
        sessions.close_all_sessions(work)
    expect(page.locator("#telling")).to_contain_text("You signed out")
    page.context.close()


def test_without_scripts_the_finished_text_comes_back(chromium, world):
    page = opened(chromium, world, scripts=False)
    press(page, "Three short ways to go on")
    assert page.locator("figcaption").inner_text().startswith("Written by a machine")
    assert page.locator(".choice").count() == 3
    second = page.locator(".choice input[name=text]").nth(1).get_attribute("value")
    page.get_by_role("button", name="Go on with this one").nth(1).click()
    assert page.locator("#f-prompt").input_value() == "In a shocking" + second
    press(page, "Continue the text")
    assert page.locator(".prose-box").inner_text().startswith("In a shocking")
    page.locator("#f-prompt").fill("")
    press(page, "Continue the text")
    assert "Write the beginning" in page.locator("#errors").inner_text()
    page.context.close()

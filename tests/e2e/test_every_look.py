"""Every page as people with other eyes and hands meet it: axe, both schemes, phone and desk.

Each page of ``looks.LOOKS`` is opened once, in one browser: what it breaks of its policy is counted
as it loads, then it is looked at in four ways. With ``--screenshots`` each look is kept as a
picture (``make screenshots``).
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from browsing import cookie_for
from live import World
from looks import LOOKS, Look, lay_out

pytestmark = pytest.mark.e2e
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WAYS = (("light", 1280), ("dark", 1280), ("dark", 320), ("light", 320))
"""In an order that changes one thing at a time and leaves the scheme as it was."""
AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()
RUN = """async (only) => {
  const found = await axe.run(document, {runOnly: only, resultTypes: ['violations'],
    preload: false, elementRef: false});
  return {looked: found.passes.length, wide: document.documentElement.scrollWidth,
    wrong: found.violations.map(v => v.id + ': ' + v.help + ' '
      + v.nodes.slice(0, 4).map(n => n.target.join(' ')).join(' | '))};
}"""
WATCH = "window.broken = []; document.addEventListener('securitypolicyviolation', " + (
    "e => window.broken.push(e.violatedDirective + ' ' + e.blockedURI));"
)


class Visitor:
    """One page of one browser, which is one person after another."""

    def __init__(self, browser: Browser, world: World) -> None:
        self.world = world
        self.context: BrowserContext = browser.new_context(reduced_motion="reduce")
        self.context.set_default_timeout(8_000)
        self.context.add_init_script(WATCH + AXE)
        self.page: Page = self.context.new_page()
        self.broken: list[str] = []
        self.page.on("pageerror", lambda error: self.broken.append(str(error)))
        self.page.on("console", self._note)
        self._cookies: dict[str, str] = {}

    def _note(self, message) -> None:
        if message.type == "error" and "status of 4" not in message.text:
            self.broken.append(message.text)

    def be(self, who: str | None) -> None:
        self.context.clear_cookies()
        if who is not None:
            value = self._cookies.setdefault(who, cookie_for(self.world, who))
            cookie = {"name": "sr", "value": value, "url": self.world.base_url}
            self.context.add_cookies([cookie])

    def go(self, look: Look, names: dict[str, str]) -> int:
        self.be(look.who)
        show_at(self.page, 1280)
        answer = self.page.goto(self.world.base_url + look.path.format(**names))
        if look.unfold:
            self.page.get_by_text(look.unfold, exact=True).click()
        for key, value in look.fill.items():
            self.page.locator(f"#f-{key}").fill(value)
        if look.press:
            button = self.page.get_by_role("button", name=look.press, exact=True)
            # A click does not wait for the page that it leads to.
            with nullcontext() if look.stays else self.page.expect_navigation():
                button.click()
        return answer.status


def show_at(page: Page, width: int) -> None:
    if page.viewport_size != (size := {"width": width, "height": 900}):
        page.set_viewport_size(size)


def look_at(page: Page, scheme: str, width: int) -> list[str]:
    """Return what is wrong with a page in one scheme at one width.

    A scheme changes colours and nothing else, so the second is asked about those alone.
    """
    if page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") != (scheme == "dark"):
        page.emulate_media(color_scheme=scheme)
    show_at(page, width)
    only = RULES if scheme == "light" else ["color-contrast", "link-in-text-block"]
    found = page.evaluate(RUN, only)
    assert found["looked"] > (10 if scheme == "light" else 0)  # it really looked
    wrong = list(found["wrong"])
    if found["wide"] > width:
        wrong.append(f"{found['wide']} px wide")
    return wrong


def test_every_page_in_every_look(chromium, world, request):
    folder = request.config.getoption("--screenshots")
    names, visitor, found = lay_out(world), Visitor(chromium, world), []
    for name, look in LOOKS.items():
        visitor.broken.clear()
        status = visitor.go(look, names)
        if status != look.status:
            found.append(f"{name}: {status}")
        broken = [*visitor.broken, *visitor.page.evaluate("window.broken")]
        found += [f"{name}: {what}" for what in broken]
        for scheme, width in WAYS:
            wrong = look_at(visitor.page, scheme, width)
            found += [f"{name}, {scheme}, {width}: {what}" for what in wrong]
            if folder:
                file = f"{re.sub(r'[^a-z]+', '-', name)}-{scheme}-{width}.png"
                visitor.page.screenshot(path=Path(folder) / file, full_page=True)
    visitor.context.close()
    assert found == []


def test_the_timeline_is_narrowed_in_place_and_the_address_follows(chromium, world):
    visitor = Visitor(chromium, world)
    visitor.go(Look("/"), {})
    page = visitor.page
    page.evaluate("window.stayed = true")
    page.locator("#f-kind").select_option("withdrawal")
    page.get_by_text("Nothing matches").wait_for()
    assert page.evaluate("window.stayed")
    assert page.url.endswith("kind=withdrawal&model=")
    assert page.get_by_text("Where they are now").is_visible()
    assert [*visitor.broken, *page.evaluate("window.broken")] == []
    visitor.context.close()


def test_the_watch_would_see_a_violation(chromium, world):
    """Break it on purpose: an inline style is refused, and counted."""
    visitor = Visitor(chromium, world)
    visitor.go(Look("/"), {})
    visitor.page.evaluate("document.body.setAttribute('style', 'color: red')")
    visitor.page.wait_for_function("window.broken.length > 0")
    assert visitor.page.evaluate("window.broken")[0].startswith("style-src")
    visitor.context.close()


def test_the_keyboard_reaches_the_content_first(chromium, world):
    visitor = Visitor(chromium, world)
    visitor.go(Look("/"), {})
    visitor.page.keyboard.press("Tab")
    assert visitor.page.evaluate("document.activeElement.className") == "skip"
    visitor.page.keyboard.press("Enter")
    assert visitor.page.evaluate("document.activeElement.id") == "main"
    visitor.context.close()

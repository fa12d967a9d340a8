"""Takes the four pictures of the README from a demo world of its own: ``make pictures``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from budget import demo, sign_in
from playwright.sync_api import Browser, Page, expect, sync_playwright

FOLDER = Path(__file__).parents[1] / "docs" / "images"
SIZE = {"width": 1280, "height": 820}
TRIES = 20


def timeline(page: Page, at: str) -> None:
    """What the public sees first."""
    page.goto(at)


def promotion(page: Page, at: str) -> None:
    """Gates, approvals and record of a promotion."""
    page.goto(f"{at}/staff/promotions/1")


def log(page: Page, at: str) -> None:
    """An entry that everybody may read, verified in the browser."""
    page.goto(f"{at}/log?type=track.promoted")
    page.locator("main table a[href^='/log/']").first.click()
    page.get_by_role("button", name="Verify in this browser").click()
    page.get_by_text("Verified: this is entry").wait_for()
    page.evaluate("scrollTo(0, 0)")


def playground(page: Page, at: str) -> None:
    """A text continued by the real engine."""
    page.goto(f"{at}/playground")
    page.get_by_label("Model").select_option(label="demo/gpt2-mini-774M (partner)")
    page.get_by_label("Your text").fill("The old man looked at the sea and said")
    finished = page.get_by_text("The machine has finished")
    for _ in range(TRIES):  # the engine may still be starting, which the page says
        page.get_by_role("button", name="Continue the text").click()
        expect(page.locator("#telling")).not_to_be_empty()
        expect(page.locator("[data-stop]")).to_be_hidden(timeout=60_000)
        if finished.is_visible():
            break
        page.wait_for_timeout(3_000)
    finished.wait_for()
    page.evaluate("scrollTo(0, 0)")


PICTURES: dict[str, tuple[Callable[[Page, str], None], str, str]] = {
    "timeline": (timeline, "", "light"),
    "promotion": (promotion, "release_manager", "light"),
    "log": (log, "", "light"),
    "playground": (playground, "partner", "dark"),
}
"""How to come to what each picture shows, who is signed in, and the scheme."""


def take(browser: Browser, at: str, name: str) -> None:
    """Take one picture."""
    go, role, scheme = PICTURES[name]
    context = browser.new_context(viewport=SIZE, color_scheme=scheme)
    if role:
        sign_in(context, at, role)
    page = context.new_page()
    go(page, at)
    page.screenshot(path=FOLDER / f"{name}.png")
    context.close()
    print(FOLDER / f"{name}.png")


def main() -> int:
    """Take those named, or all."""
    with demo() as at, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        for name in sys.argv[1:] or PICTURES:
            take(browser, at, name)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

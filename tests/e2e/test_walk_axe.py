"""Every page as people with other eyes and hands meet it: axe, both schemes, phone and desk.

The same pages are opened once more under their own policy, which nothing may violate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from browsing import ANSWERS, cookie_for
from live import World
from stagerelease.access import service as access
from stagerelease.identity import entering, links
from stagerelease.jobs.tables import Job
from stagerelease.partners import queries as papers

pytestmark = pytest.mark.e2e
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LOOKS = [(scheme, width) for scheme in ("light", "dark") for width in (320, 1280)]
Steps = Callable[[Page, str], None]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        yield browser
        browser.close()


def to(path: str, *press: str, **fill: str) -> Steps:
    """Return the steps to a page: open it, fill fields in, press buttons."""

    def steps(page: Page, base: str) -> None:
        page.goto(base + path)
        for key, value in fill.items():
            page.locator(f"#f-{key}").fill(value)
        for name in press:
            page.get_by_role("button", name=name, exact=True).click()

    return steps


def lay_out(world: World) -> dict[str, str]:
    """Make one of everything the pages show, and return what it is called."""
    repo, begin = world.repos["researcher"], world.box.works.begin
    answers = {k: True if v == "on" else v for k, v in ANSWERS.items()}
    with begin(world.actor("outsider")) as work:
        draft = access.save_draft(work, answers=answers, repo_id=repo)
        sent = access.submit_draft(work, draft.id).check().request
        assert sent is not None
    with begin(world.actor("access_officer")) as work:
        access.assign(work, sent.id)
        access.add_note(work, sent.id, text="Known group.")
        access.ask(work, sent.id, question="Who else can read the volume?")
    with begin() as work:
        mine = access.save_draft(work, answers=answers, repo_id=world.repos["partner"])
        assert access.submit_draft(work, mine.id, secret=mine.secret).confirming
        entering.ask_to_sign_in(work, "demo@example.org", network="ab" * 32)
    with begin(read_only=True) as work:
        facts = [j.payload.get("facts", {}) for j in work.session.query(Job).order_by(Job.id)]
        link = next(f["link"] for f in facts if f.get("link_path") == "/access/confirm")
        version = papers.find_in_force(work, "researcher-terms")
        signature = papers.list_signatures(work, person_id=world.actor("researcher").id)[0]
    return {
        "request": sent.id,
        "version": version.id,
        "signature": signature.id,
        "confirm": links.sign_link(world.box.link_key, link),
        "gone": links.sign_link(world.box.link_key, "lnk_of_another_day"),
        "repo": repo,
    }


def all_pages(names: dict[str, str], repos: dict[str, str]) -> dict[str, tuple[str | None, Steps]]:
    """Return every page in every state worth looking at: who opens it, and how one gets there."""
    ask = f"/models/{names['repo']}/request"
    review = f"/staff/requests/{names['request']}"
    sign = f"/agreements/{names['version']}/sign"
    return {
        "home": (None, to("/")),
        "request form": (None, to(ask)),
        "request form, refused": (None, to(ask, "Send request", name="Ada")),
        "request form, saved": (None, to(ask, "Save draft", name="Ada")),
        "request form, waiting": ("outsider", to(ask)),
        "open model": (None, to(f"/models/{repos['public']}/request")),
        "held by me": ("researcher", to(ask)),
        "mail sent": (None, to(f"{ask}/sent")),
        "confirm": (None, to(f"/access/confirm?t={names['confirm']}")),
        "confirm, forged": (None, to("/access/confirm?t=x")),
        "confirm, gone": (None, to(f"/access/confirm?t={names['gone']}")),
        "request status": ("outsider", to(f"/requests/{names['request']}")),
        "sign in": (None, to("/sign-in")),
        "sign in, refused": (None, to("/sign-in", "Mail me a link", address="nobody")),
        "sign in, sent": (None, to("/sign-in/sent")),
        "my access": ("researcher", to("/me")),
        "my access, token": ("researcher", to("/me", "Make token", name="laptop")),
        "my access, refused": ("researcher", to("/me", "Make token")),
        "my access, empty": ("auditor", to("/me")),
        "queue": ("access_officer", to("/staff/requests")),
        "queue, empty": ("access_officer", to("/staff/requests?show=decided")),
        "review": ("access_officer", to(review)),
        "review, refused": ("access_officer", to(review, "Reject request")),
        "review, read only": ("auditor", to(review)),
        "sign": ("partner", to(sign)),
        "sign, refused": ("partner", to(sign, "Sign agreement")),
        "decline": ("partner", to(f"/agreements/{names['version']}/decline")),
        "signature": ("researcher", to(f"/signatures/{names['signature']}")),
        "report": (None, to("/report")),
        "report, refused": (None, to("/report", "Send report")),
        "reported": (None, to("/report", "Send report", text="I saw it on a forum.")),
        "follow": (None, to("/report/follow")),
        "follow, unknown": (None, to("/report/follow", "Show", reference="x")),
        "problem": (None, to("/nowhere")),
    }


def visit(browser: Browser, world: World, who: str | None, **more):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **more)
    context.set_default_timeout(8_000)
    if who is not None:
        cookie = {"name": "sr", "value": cookie_for(world, who), "url": world.base_url}
        context.add_cookies([cookie])
    return context


def test_axe_finds_nothing_and_nothing_overflows(chromium, world):
    found = []
    for name, (who, steps) in all_pages(lay_out(world), world.repos).items():
        context = visit(chromium, world, who, bypass_csp=True)
        page = context.new_page()
        steps(page, world.base_url)
        for scheme, width in LOOKS:
            # Without motion: axe must not measure a colour on its way to the other scheme.
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.set_viewport_size({"width": width, "height": 900})
            look = f"{name}, {scheme}, {width}"
            result = Axe().run(page, options={"runOnly": RULES})
            for violation in result.response["violations"]:
                nodes = [node["target"] for node in violation["nodes"]][:4]
                found.append(f"{look}: {violation['id']} {violation['help']} {nodes}")
            assert len(result.response["passes"]) > 10, look  # it really looked
            wide = page.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                found.append(f"{look}: {wide} px wide")
        context.close()
    assert found == []


WATCH = "window.broken = []; document.addEventListener('securitypolicyviolation', " + (
    "e => window.broken.push(e.violatedDirective + ' ' + e.blockedURI));"
)


def test_nothing_violates_the_policy(chromium, world):
    broken: list[str] = []

    def note(error) -> None:
        broken.append(str(error))

    for name, (who, steps) in all_pages(lay_out(world), world.repos).items():
        context = visit(chromium, world, who)
        context.add_init_script(WATCH)
        page = context.new_page()
        page.on("pageerror", note)
        steps(page, world.base_url)
        broken.extend(f"{name}: {what}" for what in page.evaluate("window.broken"))
        context.close()
    assert broken == []


def test_the_watch_would_see_a_violation(chromium, world):
    """Break it on purpose: an inline style is refused, and counted."""
    context = visit(chromium, world, None)
    context.add_init_script(WATCH)
    page = context.new_page()
    page.goto(world.base_url + "/")
    page.evaluate("document.body.setAttribute('style', 'color: red')")
    page.wait_for_function("window.broken.length > 0")
    assert page.evaluate("window.broken")[0].startswith("style-src")
    context.close()


def test_the_keyboard_reaches_the_content_first(chromium, world):
    context = visit(chromium, world, None)
    page = context.new_page()
    page.goto(world.base_url + "/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    context.close()

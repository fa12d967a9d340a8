"""The researcher's walk in a real browser: form, mail, review, signature, token, ``hf download``.

Run with JavaScript off and on: every step is a plain form. Nothing on the way may break the policy
of the pages, which is watched through the browser's own console and violation events.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from playwright.sync_api import Browser, BrowserContext, Page

from browsing import ANSWERS, cookie_for
from databases import free_port
from live import World
from stagerelease import worker
from stagerelease.jobs.runner import run_one
from stagerelease.notices import jobs as notices
from stagerelease.partners import queries as papers

pytestmark = pytest.mark.e2e
ADDRESS = ANSWERS["email"]
BOXES = ("no_sharing", "report_misuse")
CHOICES = ("category", "data_use", "public_output")


class Visit:
    """A browser of one person, which notes every complaint about the policy."""

    def __init__(self, browser: Browser, world: World, *, scripts: bool, who: str | None = None):
        self.world = world
        self.context: BrowserContext = browser.new_context(java_script_enabled=scripts)
        self.context.set_default_timeout(8_000)
        self.complaints: list[str] = []
        if who is not None:
            cookie = {"name": "sr", "value": cookie_for(world, who), "url": world.base_url}
            self.context.add_cookies([cookie])
        self.page: Page = self.context.new_page()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, message) -> None:
        if message.type == "error" and "status of 4" not in message.text:
            self.complaints.append(message.text)

    def go(self, path: str) -> Page:
        self.page.goto(self.world.base_url + path)
        return self.page

    def press(self, name: str) -> Page:
        self.page.get_by_role("button", name=name, exact=True).click()
        return self.page

    def heading(self) -> str:
        return self.page.locator("h1").inner_text()


def fill_in(page: Page, answers: dict[str, str]) -> None:
    for key, value in answers.items():
        if key in BOXES:
            page.locator(f"#f-{key}").set_checked(bool(value))
        elif key in CHOICES:
            page.locator(f'input[name="{key}"][value="{value}"]').check()
        else:
            page.locator(f"#f-{key}").fill(value)


class Postbox:
    """A mail server on loopback, and what it took."""

    def __init__(self) -> None:
        self.letters: list[EmailMessage] = []
        self.controller = Controller(self, hostname="127.0.0.1", port=free_port())

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802 (aiosmtpd's name)
        content = envelope.original_content or envelope.content
        self.letters.append(message_from_bytes(content, policy=default_policy))
        return "250 OK"


@pytest.fixture
def postbox() -> Iterator[Postbox]:
    box = Postbox()
    box.controller.start()
    yield box
    box.controller.stop()


def mailed(world: World, postbox: Postbox, address: str) -> str:
    """Let the worker send what is due, and return the path in the newest letter to ``address``."""
    settings = world.box.settings.model_copy(
        update={
            "smtp_url": f"smtp://127.0.0.1:{postbox.controller.port}",
            "public_url": world.base_url,
            "mail_from": "Releases <releases@models.example>",
        }
    )
    before = len(postbox.letters)
    handlers = worker.HANDLERS | notices.handlers(settings, world.box.link_key)
    while run_one(world.box.works, handlers, "test"):
        pass
    fresh = [m for m in postbox.letters[before:] if m["To"] == address]
    assert fresh, [str(m["Subject"]) for m in postbox.letters[before:]]
    found = []
    for letter in fresh:
        text = letter.get_body(("plain",)).get_content()
        found += re.findall(re.escape(world.base_url) + r"(/\S+\?t=\S+)", text)
    assert len(found) == 1, [m.get_body(("plain",)).get_content() for m in fresh]
    return found[0]


def asked(visit: Visit, repo: str) -> None:
    """Ask for access as a visitor: a draft, a sending that is refused, a sending that is not."""
    page = visit.go(f"/models/{repo}/request")
    fill_in(page, {"name": "Ada", "purpose": "too short", "no_sharing": "on"})
    visit.press("Save draft")
    assert "Your draft is saved" in page.locator("[role=status]").inner_text()
    visit.press("Send request")
    summary = page.locator("#errors")
    wrong = summary.locator("a").count()
    assert wrong >= 7
    for link in summary.locator("a").all():  # each leads to a field that says what is wrong
        target = page.locator(str(link.get_attribute("href")))
        assert target.count() == 1
    assert page.locator("#f-email").get_attribute("aria-invalid") == "true"
    assert page.locator("#f-name").input_value() == "Ada"
    assert page.locator("#f-purpose").input_value() == "too short"
    assert page.locator("#f-no_sharing").is_checked()
    page.reload()  # after a redirect nothing is sent twice
    assert page.locator("#f-purpose").input_value() == "too short"
    fill_in(page, ANSWERS)
    visit.press("Send request")
    assert visit.heading() == "Check your mail"
    assert ADDRESS in page.locator("main").inner_text()


def confirmed(visit: Visit, path: str) -> str:
    """Follow the mailed link twice, as a mail scanner does, then press its button."""
    visit.go(path)
    visit.go(path)
    assert ADDRESS in visit.page.locator("main").inner_text()
    visit.press("Confirm and send")
    assert "Your request was sent" in visit.page.locator("main").inner_text()
    return visit.page.url.split("/requests/")[1].split("?")[0]


def download(world: World, tmp_path: Path, token: str, repo: str) -> Path:
    target = tmp_path / "downloaded"
    command = [str(Path(sys.executable).parent / "hf"), "download", repo]
    environ = {**os.environ, "HF_ENDPOINT": world.base_url, "HF_TOKEN": token}
    environ |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [*command, "--local-dir", str(target)], env=environ, capture_output=True, timeout=120
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return target


def sign(visit: Visit, path: str) -> None:
    page = visit.go(path)
    assert page.locator("#f-typed_name").count() == 1, page.locator("main").inner_text()[-600:]
    for box in ("authorised_to_bind", "consents_electronically"):
        assert not page.locator(f"#f-{box}").is_checked()
    visit.press("Sign agreement")
    assert page.locator("#errors a").count() == 4
    page.locator("#f-typed_name").fill("Ada Example")
    page.locator("#f-typed_title").fill("Researcher")
    page.locator("#f-authorised_to_bind").check()
    page.locator("#f-consents_electronically").check()
    visit.press("Sign agreement")
    assert "Signed" in page.locator("[role=status]").inner_text()


def token_of(visit: Visit) -> str:
    page = visit.go("/me/tokens")
    page.locator("#f-name").fill("laptop")
    visit.press("Make token")
    text = page.locator("#secret").inner_text()
    assert re.fullmatch(r"srp_[0-9A-Za-z]{36}", text)
    assert f"HF_ENDPOINT={visit.world.base_url}" in page.locator("#command").inner_text()
    visit.go("/me/tokens")
    assert text not in visit.page.content()
    return text


def reviewed(officer: Visit, ada: Visit, request_id: str) -> None:
    """Take the request up, note, ask, and get an answer."""
    page = officer.go("/staff/requests")
    page.get_by_role("link", name="Ada Example").click()
    page.get_by_text(ANSWERS["purpose"]).wait_for()  # beside the list
    page.get_by_role("link", name="Review and decide").click()
    assert ANSWERS["purpose"] in page.locator("main").inner_text()
    officer.press("Assign")
    page.locator("#f-text").fill("Private: known group.")
    officer.press("Keep note")
    page.locator("#f-question").fill("Who else can read the volume?")
    officer.press("Send question")
    ada.go(f"/requests/{request_id}")
    assert "Who else can read the volume?" in ada.page.locator("main").inner_text()
    assert "known group" not in ada.page.content()
    ada.page.locator("#f-message").fill("Only my supervisor.")
    ada.press("Send answer")
    officer.go(f"/staff/requests/{request_id}")
    assert "Only my supervisor." in page.locator("main").inner_text()


def approved(officer: Visit, request_id: str) -> None:
    page = officer.go(f"/staff/requests/{request_id}")
    officer.press("Approve request")
    assert "The request is approved" in page.locator("main").inner_text()


def approved_and_signed(officer: Visit, ada: Visit, request_id: str) -> None:
    """Be approved, then sign: access begins with the signature."""
    approved(officer, request_id)
    ada.go(f"/requests/{request_id}")
    ada.page.get_by_role("link", name="Read and sign").click()
    sign(ada, ada.page.url.removeprefix(ada.world.base_url))


def given_up(visit: Visit) -> None:
    """Ask for more time, think better of it, and give the grant up."""
    page = visit.go("/me")
    page.get_by_text("Renew, or give it up").click()
    page.locator("#f-message-1").fill("One more month.")
    visit.press("Ask for renewal")
    assert "Your wish was passed on" in page.locator("#done").inner_text()
    page.get_by_text("Renew, or give it up").click()
    page.get_by_role("link", name="Give up this access").click()
    visit.press("Give up access")
    assert "You gave that access up." in page.locator("#done").inner_text()
    with visit.world.box.works.begin(read_only=True) as work:
        assert len(papers.list_grants(work, state="revoked")) == 1


@pytest.mark.parametrize("scripts", [False, True], ids=["without-scripts", "with-scripts"])
def test_from_the_form_to_the_bytes(chromium, world, postbox, tmp_path, scripts):
    repo = world.repos["researcher"]
    ada = Visit(chromium, world, scripts=scripts)
    asked(ada, repo)
    request_id = confirmed(ada, mailed(world, postbox, ADDRESS))
    officer = Visit(chromium, world, scripts=scripts, who="access_officer")
    reviewed(officer, ada, request_id)
    approved_and_signed(officer, ada, request_id)
    got = download(world, tmp_path, token_of(ada), repo)
    assert (got / "model.safetensors").stat().st_size > 100_000

    ada.press("Sign out")
    ada.go("/me")
    assert ada.heading() == "Sign in"
    ada.page.locator("#f-address").fill(ADDRESS)
    ada.press("Mail me a link")
    ada.go(mailed(world, postbox, ADDRESS))
    ada.press("Sign in")
    assert ada.heading() == "My access"
    assert "You have access" in ada.page.locator("main").inner_text()
    given_up(ada)
    assert ada.complaints == officer.complaints == []


def test_a_draft_saved_once_saves_itself_from_then_on(chromium, world):
    path = f"/models/{world.repos['researcher']}/request"
    visit = Visit(chromium, world, scripts=True)
    visit.page.clock.install()
    posts: list[str] = []
    visit.page.on("request", lambda r: posts.append(r.url) if r.method == "POST" else None)
    page = visit.go(path)
    page.locator("#f-name").fill("Ada")
    page.clock.run_for(30_000)
    assert posts == []  # nothing typed leaves the browser unasked
    visit.press("Save draft")
    assert len(posts) == 1
    page.locator("#f-name").fill("Ada Munk")
    page.clock.run_for(9_000)
    assert len(posts) == 1
    page.clock.run_for(2_000)
    page.get_by_text(re.compile("^Draft saved at")).wait_for()
    assert len(posts) == 2
    again = Visit(chromium, world, scripts=False)
    again.context.add_cookies(visit.context.cookies())
    assert again.go(path).locator("#f-name").input_value() == "Ada Munk"
    assert visit.complaints == []

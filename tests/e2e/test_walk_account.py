"""Passkeys in a real browser with an authenticator; an account by keyboard alone."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Browser, Page, expect

from browsing import cookie_for
from live import World
from stagerelease.identity import links, passkeys, passwords, proving
from stagerelease.identity.passkeys import Site
from stagerelease.identity.tables import Person
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import Conflict, Invalid

pytestmark = pytest.mark.e2e
PASSWORD = "four unrelated plain words"


class Visit:
    """A browser with an authenticator, at the name ``localhost``: numbers have no passkeys."""

    def __init__(self, chromium: Browser, world: World, *, scripts: bool = True) -> None:
        self.here = world.base_url.replace("127.0.0.1", "localhost")
        self.world = world
        self.context = chromium.new_context(java_script_enabled=scripts, reduced_motion="reduce")
        self.context.set_default_timeout(8_000)
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.cdp = self.context.new_cdp_session(self.page)
        self.cdp.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": True,
            "isUserVerified": True,
            "automaticPresenceSimulation": True,
        }
        made = self.cdp.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        self.authenticator = made["authenticatorId"]

    def _note(self, message) -> None:
        if message.type == "error" and "status of 4" not in message.text:
            self.complaints.append(message.text)

    @property
    def site(self) -> Site:
        return Site("localhost", self.here)

    def be(self, who: str) -> None:
        cookie = {"name": "sr", "value": cookie_for(self.world, who), "url": self.here}
        self.context.add_cookies([cookie])

    def go(self, path: str) -> Page:
        self.page.goto(self.here + path)
        return self.page

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def credential(self) -> dict:
        found = self.cdp.send("WebAuthn.getCredentials", {"authenticatorId": self.authenticator})
        return found["credentials"][0]

    def set_count(self, count: int) -> None:
        """Make this authenticator the copy of one that was used less often."""
        mine = self.credential() | {"signCount": count}
        named = {"authenticatorId": self.authenticator, "credentialId": mine["credentialId"]}
        self.cdp.send("WebAuthn.removeCredential", named)
        self.cdp.send(
            "WebAuthn.addCredential", {"authenticatorId": self.authenticator, "credential": mine}
        )


def enrolled(visit: Visit, who: str = "researcher") -> None:
    visit.be(who)
    page = visit.go("/me/security/passkey")
    page.locator("#f-name").fill("Work laptop")
    visit.press("Make the passkey")
    page.wait_for_url("**/me/security?done=passkey#done")
    assert page.get_by_role("heading", name="Work laptop").is_visible()


def test_a_passkey_is_made_signs_in_and_is_what_counts(chromium, world, clock):
    visit = Visit(chromium, world)
    enrolled(visit)
    page = visit.page
    visit.press("Sign out")
    page.goto(visit.here + "/sign-in?next=/me/tokens")
    before = visit.context.cookies()
    visit.press("Sign in with a passkey")
    expect(page.locator("h1")).to_have_text("Tokens")
    assert visit.context.cookies() != before

    page.locator("#f-name").fill("cluster")
    clock.move(timedelta(minutes=6))
    visit.press("Make token")
    assert page.locator("h1").inner_text() == "Show that it is you"
    visit.press("Use my passkey")  # and the form goes on by itself
    expect(page.locator("#secret")).to_have_text(re.compile(r"srp_[0-9A-Za-z]{36}"))
    page.goto(visit.here + "/me/tokens")
    assert page.get_by_role("rowheader", name="cluster").is_visible()
    assert visit.complaints == []
    visit.context.close()


def test_a_copied_passkey_is_found_out_and_not_believed_again(chromium, world):
    visit = Visit(chromium, world)
    enrolled(visit)
    visit.press("Sign out")
    for _ in range(2):  # the count grows
        visit.go("/sign-in")
        visit.press("Sign in with a passkey")
        visit.page.wait_for_url("**/me")
        visit.press("Sign out")
    visit.set_count(0)
    for said in ("somebody may have a copy", "not known here"):
        visit.go("/sign-in")
        visit.press("Sign in with a passkey")
        expect(visit.page.locator("[data-passkey] [role=status]")).to_contain_text(said)
    assert visit.go("/me").locator("h1").inner_text() == "Sign in"
    visit.be("researcher")
    assert "Its count went backwards" in visit.go("/me/security").locator("main").inner_text()
    visit.context.close()


def test_an_answer_is_good_once_here_and_for_its_own_question(chromium, world):
    visit = Visit(chromium, world)
    enrolled(visit)
    visit.press("Sign out")
    seen: list[dict] = []

    def keep(route) -> None:
        seen.append({k: v[0] for k, v in parse_qs(route.request.post_data).items()})
        route.abort()

    visit.page.route("**/sign-in/passkey", keep)
    page = visit.go("/sign-in")
    visit.press("Sign in with a passkey")
    expect(page.locator("[data-passkey] button")).to_be_enabled()
    (answer,) = seen
    begin = world.box.works.begin
    good = {"ceremony": answer["ceremony"], "credential": answer["credential"]}
    with begin() as work:
        other = passkeys.begin_sign_in(work, visit.site, network="0" * 64)["ceremony"]
    document = json.loads(answer["credential"])
    signature = document["response"]["signature"]
    document["response"]["signature"] = signature[:-8] + "AAAAAAAA"
    refused = [
        (Site("localhost", "http://localhost:1"), good),
        (Site("evil.example", visit.here), good),
        (visit.site, good | {"ceremony": other}),
        (visit.site, good | {"credential": json.dumps(document)}),
        (visit.site, good | {"credential": "{}"}),
        (visit.site, good | {"credential": "[1"}),
    ]
    for site, sent in refused:
        with pytest.raises(Invalid), begin() as work:
            passkeys.show(work, site, **sent)
    with pytest.raises(Conflict), begin() as work:
        passkeys.show(work, visit.site, **good, person_id=world.actor("researcher").id)
    with begin() as work:
        assert passkeys.show(work, visit.site, **good).check() == world.actor("researcher").id
    with pytest.raises(Conflict), begin() as work:
        passkeys.show(work, visit.site, **good)
    visit.context.close()


def test_numbers_in_the_address_are_told_where_passkeys_work(chromium, world):
    visit = Visit(chromium, world)
    visit.page.goto(world.base_url + "/sign-in")
    assert f"open {visit.here}" in visit.page.locator("section.scripted").inner_text()
    assert not visit.page.get_by_role("button", name="Sign in with a passkey").is_visible()
    visit.context.close()


# --- by keyboard alone, and without scripts -----------------------------------------------------


def tab_to(page: Page, name: str, most: int = 60) -> None:
    """Press Tab until what is focused is called ``name``."""
    asked = """() => { const e = document.activeElement;
      const label = e.labels && e.labels[0] ? e.labels[0].innerText : '';
      return (label || e.innerText || '').trim(); }"""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate(asked).startswith(name):
            return
    raise AssertionError(f"Tab does not lead to {name!r}")


def test_from_sign_in_to_a_token_and_out_by_keyboard_alone(chromium, world):
    with world.box.works.begin(world.actor("researcher")) as work:
        work.session.get_one(Person, work.actor.id).email = "ada@example.org"
        passwords.set_password(work, passwords.hash_new(PASSWORD))
    visit = Visit(chromium, world)
    page = visit.go("/me/tokens")
    keys = page.keyboard
    tab_to(page, "With a password")
    keys.press("Enter")
    tab_to(page, "E-mail address")
    keys.type("ada@example.org")
    tab_to(page, "Password")
    keys.type(PASSWORD)
    keys.press("Enter")
    expect(page.locator("h1")).to_have_text("Tokens")
    tab_to(page, "Name")
    keys.type("by keyboard")
    tab_to(page, "Infer")
    keys.press("Space")
    tab_to(page, "Make token")
    keys.press("Enter")
    expect(page.locator("#secret")).to_have_text(re.compile("srp_"))
    expect(page.get_by_role("rowheader", name="by keyboard")).to_be_visible()
    page.keyboard.press("Control+Home")
    tab_to(page, "Sign out")
    keys.press("Enter")
    page.wait_for_url("**/sign-in")
    assert visit.complaints == []
    visit.context.close()


def test_without_scripts_a_printed_link_leads_to_a_password_that_proves(chromium, world, clock):
    with world.box.works.begin(OPERATOR) as work:
        made = proving.make_enrolment(work, world.actor("owner").name)
    visit = Visit(chromium, world, scripts=False)
    page = visit.go("/enrol?t=" + links.sign_link(world.box.link_key, made.link))
    visit.press("Come in and make a passkey")
    assert "Passkeys need JavaScript" in page.locator("main").inner_text()
    page.get_by_role("link", name="set a password", exact=True).click()
    page.locator("#f-new").fill(PASSWORD)
    visit.press("Set password")
    assert "Your password is set" in page.locator("[role=status]").inner_text()
    clock.move(timedelta(minutes=6))
    page = visit.go("/me/tokens")
    page.locator("#f-name").fill("no scripts")
    visit.press("Make token")
    page.locator("#f-password").fill("not it")
    visit.press("Show that it is me")
    assert "not your password" in page.locator("#errors").inner_text()
    page.locator("#f-password").fill(PASSWORD)
    visit.press("Show that it is me")
    visit.press("Go on with what I was doing")
    assert page.locator("#secret").inner_text().startswith("srp_")
    visit.context.close()


@pytest.mark.parametrize("scripts", [True, False])
def test_evidence_is_written_changed_to_another_kind_and_handed_in(chromium, world, clock, scripts):
    visit = Visit(chromium, world, scripts=scripts)
    visit.be("researcher")
    page = visit.go("/me/evidence")
    page.get_by_label("What it says").select_option("detectability.accuracy")
    visit.press("Go on")
    page.get_by_label("Title").fill("A detector of ours")
    page.get_by_label("Sensitivity").fill("93")
    page.get_by_label("Value", exact=True).fill("91,2")
    page.get_by_text("It is of another type or metric").click()
    page.get_by_label("What it says").select_option("credibility.mean_score")
    visit.press("Show its fields")
    expect(page.get_by_label("Title")).to_have_value("A detector of ours")
    expect(page.get_by_label("Value", exact=True)).to_have_value("91,2")
    page.get_by_label("Scale min").fill("0")
    page.get_by_label("Scale max").fill("100")
    page.get_by_label("Source").fill("Our survey")
    page.get_by_label("How you know it").select_option("verified")
    page.get_by_label("Measured on").fill(f"{clock.now() - timedelta(days=1):%Y-%m-%d}")
    page.get_by_label("Title").press("Enter")  # saves, and is refused for the one thing wrong
    expect(page.locator(".wrong")).to_have_count(1)
    expect(page.locator("#e-value")).to_contain_text("with a point and no unit")
    page.get_by_label("Value", exact=True).fill("91.2")
    visit.press("Save draft")
    page.get_by_role("link", name="Change this draft").click()
    expect(page.get_by_label("Scale max")).to_have_value("100")
    page.get_by_label("Value", exact=True).fill("90")
    visit.press("Save draft")
    expect(page.get_by_role("status")).to_contain_text("The draft is saved")
    visit.press("Submit evidence")
    expect(page.get_by_text("Waiting for review")).to_be_visible()
    assert visit.complaints == []
    visit.context.close()

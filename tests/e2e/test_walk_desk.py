"""Everybody at work in a real browser: officers, partners, owners, auditors, security, visitors.

Each walk is written once and walked by hands that use a mouse, by hands that press keys alone, and
by a mouse with JavaScript off. What the keys reach has to be in sight when they reach it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect
from pypdf import PdfReader
from standardwebhooks import Webhook as Verifier
from test_walk_researcher import BOXES, CHOICES, Postbox, Visit, mailed

from browsing import ANSWERS
from live import World
from looks import PLAN, lay_out
from receiving import Receiver, receiving
from stagerelease import worker
from stagerelease.access import service as access
from stagerelease.bootstrap import Box
from stagerelease.evidence import queries as evidence
from stagerelease.identity import passwords
from stagerelease.incidents import queries as incidents
from stagerelease.incidents import service as handling
from stagerelease.jobs.runner import run_one
from stagerelease.kernel.actor import SYSTEM
from stagerelease.ledger import queries as leaves
from stagerelease.ledger import service as ledger
from stagerelease.notices import jobs as notices
from stagerelease.partners import queries as papers
from stagerelease.releases import queries as tracks
from stagerelease.releases import service as releases

pytestmark = pytest.mark.e2e
PASSWORD = "four unrelated plain words"
IN_SIGHT = """e => { const box = e.getClientRects()[0];
  const on = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
  return on !== null && e.contains(on); }"""


class Hands:
    """What a person does on a page, whatever they do it with."""

    def __init__(self, visit: Visit) -> None:
        self.visit, self.page = visit, visit.page

    def use(self, what: Locator) -> None:
        """Follow a link, press a button, tick a box."""
        raise NotImplementedError

    def field(self, key: str) -> Locator:
        return self.page.locator(f"#f-{key}")

    def follow(self, name: str) -> None:
        self.use(self.page.get_by_role("link", name=name).first)

    def press(self, name: str) -> None:
        self.use(self.page.get_by_role("button", name=name, exact=True))

    def tick(self, key: str) -> None:
        self.use(self.field(key))
        expect(self.field(key)).to_be_checked()

    def unfold(self, summary: str) -> None:
        """Open what is folded away under these words."""
        what = self.page.locator("summary", has_text=summary).first
        self.use(what)
        expect(what.locator("..")).to_have_attribute("open", "")

    def keep(self, name: str) -> bytes:
        """Follow a link that downloads something, and return what."""
        with self.page.expect_download() as got:
            self.follow(name)
        return Path(got.value.path()).read_bytes()

    def is_told(self, words: str) -> None:
        """Pass when the page answers the last step with these words."""
        expect(self.page.locator("#done")).to_contain_text(words)

    def is_refused(self, words: str) -> None:
        """Pass when the page says that something is wrong."""
        expect(self.page.locator("#errors")).to_contain_text(words)

    def is_at(self, heading: str) -> None:
        expect(self.page.locator("h1")).to_have_text(heading)


class Mouse(Hands):
    """Hands with a mouse."""

    def use(self, what: Locator) -> None:
        what.click()

    def write(self, key: str, text: str) -> None:
        self.field(key).fill(text)

    def add(self, key: str, text: str) -> None:
        self.write(key, self.field(key).input_value() + text)

    def choose(self, key: str, label: str) -> None:
        self.field(key).select_option(label=label)

    def pick(self, key: str, value: str) -> None:
        self.page.locator(f"input[name='{key}'][value='{value}']").check()

    def date(self, key: str, day: date) -> None:
        self.write(key, f"{day:%Y-%m-%d}")


class Keys(Hands):
    """Hands that have a keyboard and nothing else."""

    def use(self, what: Locator) -> None:
        self.reach(what)
        ticked = what.get_attribute("type") in ("checkbox", "radio")
        self.page.keyboard.press("Space" if ticked else "Enter")

    def write(self, key: str, text: str) -> None:
        self.reach(self.field(key))
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)

    def add(self, key: str, text: str) -> None:
        self.reach(self.field(key))
        self.page.keyboard.press("Control+End")
        self.page.keyboard.type(text)

    def choose(self, key: str, label: str) -> None:
        self.reach(self.field(key))
        self.page.keyboard.type(label)
        chosen = self.field(key).evaluate("e => e.selectedOptions[0].label")
        assert chosen == label

    def pick(self, key: str, value: str) -> None:
        """Go into a group of which nothing is chosen, and down to what is wanted."""
        self.use(self.page.locator(f"input[name='{key}']").first)
        for _ in range(self.page.locator(f"input[name='{key}']").count()):
            if self.page.locator(f"input[name='{key}']:checked").input_value() == value:
                return
            self.page.keyboard.press("ArrowDown")
        raise AssertionError(f"the arrows do not reach {value}")

    def date(self, key: str, day: date) -> None:
        self.reach(self.field(key))
        self.page.keyboard.type(f"{day:%m%d%Y}")
        expect(self.field(key)).to_have_value(f"{day:%Y-%m-%d}")

    def reach(self, what: Locator) -> None:
        wanted = what.element_handle()
        for _ in range(150):
            if wanted.evaluate("e => e === document.activeElement"):
                self.page.wait_for_function(IN_SIGHT, arg=wanted)
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"the keyboard does not reach {what}")


Enter = Callable[[str | None], Mouse | Keys]
WAYS: dict[str, tuple[type[Mouse] | type[Keys], bool]] = {
    "mouse": (Mouse, True),
    "keyboard": (Keys, True),
    "no-scripts": (Mouse, False),
}


@pytest.fixture
def world_box(world_box: Box) -> Box:
    """The demo world, allowed to post to a receiver on this machine."""
    settings = world_box.settings.model_copy(update={"webhooks_to_loopback": True})
    return replace(world_box, settings=settings)


@pytest.fixture(params=list(WAYS))
def enter(chromium, world: World, request) -> Iterator[Enter]:
    """Let somebody in; at the end no browser has anything to complain of."""
    visits: list[Visit] = []
    hands, scripts = WAYS[request.param]

    def let_in(who: str | None) -> Mouse | Keys:
        visits.append(Visit(chromium, world, scripts=scripts, who=who))
        return hands(visits[-1])

    yield let_in
    for visit in visits:
        assert visit.complaints == []
        visit.context.close()


@pytest.fixture
def entered(world: World) -> Callable[[], list[str]]:
    """Return what the log took since the test began, as the types of its entries."""
    with world.box.works.begin(read_only=True) as work:
        first = leaves.log_size(work)

    def types() -> list[str]:
        with world.box.works.begin(read_only=True) as work:
            found = [leaves.entry(work, i).leaf for i in range(first, leaves.log_size(work))]
        return [leaf["type"] for leaf in found if not leaf["type"].startswith("session.")]

    return types


def words_of(pdf: bytes) -> str:
    return " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


def test_an_amended_agreement_is_signed_by_both_sides_and_kept_by_both(enter: Enter) -> None:
    officer, partner = enter("access_officer"), enter("partner")
    officer.visit.go("/staff")
    officer.follow("Agreements")
    officer.follow("Amend model-sharing")
    officer.add("text", "\n\nTell us of every copy within a day.\n")
    officer.tick("countersign")
    officer.press("Keep draft")
    officer.is_told("Nobody can sign it before it is published.")
    expect(officer.page.locator(".diff")).to_contain_text("Tell us of every copy within a day.")
    officer.press("Publish version 2")
    officer.is_told("The version is in force.")

    partner.visit.go("/me")
    partner.follow("Read and sign it")
    partner.write("typed_name", "Pat Example")
    partner.write("typed_title", "Director")
    partner.tick("authorised_to_bind")
    partner.tick("consents_electronically")
    partner.press("Sign agreement")
    told = partner.page.locator("[role=status]")
    expect(told).to_contain_text("It counts once the publisher has countersigned")

    officer.follow("Agreements")
    officer.is_at("Agreements")
    officer.follow("Partner A (demo), model-sharing version 2")
    officer.press("Sign for the publisher")
    officer.is_told("You signed for the publisher.")
    ours = officer.keep("As PDF")

    partner.visit.go("/me")
    expect(partner.page.get_by_text("You have access").first).to_be_visible()
    expect(partner.page.get_by_text("A newer version is in force")).to_have_count(0)
    partner.follow("model-sharing, version 2")
    expect(partner.page.locator("main")).to_contain_text("Countersigned")
    theirs = partner.keep("Download the signed PDF")
    assert ours == theirs
    for said in ("Pat Example", "Director", "every copy within a day", "demo-access"):
        assert said in words_of(theirs), said


def test_a_person_gets_a_role_and_a_place_on_a_roster_and_loses_both(enter, world, clock) -> None:
    with world.box.works.begin(world.actor("owner")) as work:
        passwords.set_password(work, passwords.hash_new(PASSWORD))
    owner, other = enter("owner"), enter("outsider")
    clock.move(timedelta(minutes=6))  # so that a step that counts asks who is there
    owner.visit.go("/staff")
    owner.follow("People")
    owner.follow("demo-outsider")
    owner.choose("role", "Auditor")
    owner.press("Give role")
    owner.is_at("Show that it is you")
    owner.write("password", PASSWORD)
    owner.press("Show that it is me")
    owner.press("Go on with what I was doing")
    owner.is_told("The role counts from now on.")
    other.visit.go("/staff/holders")
    other.is_at("Holders")
    owner.press("Take away the role Auditor")  # it was just shown who is there
    owner.is_told("The role is taken away.")
    assert other.page.reload().status == 403

    owner.follow("People")
    owner.is_at("People and organisations")
    owner.follow("Partner B (demo)")
    owner.write("person", "demo-outsider")
    owner.choose("place", "Administrator")
    owner.press("Put on the roster")
    owner.is_told("The roster has a new line.")
    other.visit.go("/agreements/model-sharing/sign")
    expect(other.field("typed_name")).to_be_visible()
    owner.press("Take off demo-outsider")
    owner.is_told("They are off the roster.")
    other.page.reload()
    expect(other.page.locator("#sign")).to_contain_text("an administrator on a partner’s roster")
    expect(other.field("typed_name")).to_have_count(0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def work_off(world: World) -> None:
    """Do what is due, as the worker does."""
    handlers = worker.HANDLERS | notices.handlers(world.box.settings, world.box.link_key)
    while run_one(world.box.works, handlers, "test"):
        pass


def something_happens(world: World) -> None:
    with world.box.works.begin(world.actor("security")) as work:
        releases.lay_hold(work, scope="everything", scope_id=None, reason="An exercise.")
    work_off(world)


def test_a_webhook_is_made_posted_to_replayed_stopped_and_deleted(enter, world, receiver) -> None:
    manager = enter("release_manager")
    page = manager.visit.go("/staff")
    manager.follow("Webhooks")
    manager.write("url", receiver.url)
    manager.write("events", "hold.*")
    manager.press("Register webhook")
    manager.is_told("Its secret is shown this once.")
    first = page.locator(".secret").inner_text()
    manager.follow(receiver.url)
    manager.is_at(receiver.url)
    something_happens(world)
    page.reload()
    row = page.locator("tbody tr")
    expect(row).to_contain_text("Delivered")
    assert Verifier(first).verify(*reversed(receiver.posts[0]))["type"] == "hold.laid"

    manager.press("New secret")
    second = page.locator(".secret").inner_text()
    manager.press("Replay hold.laid")
    manager.is_told("The deliveries are queued again")
    work_off(world)
    (before, _), (headers, body) = receiver.posts
    assert headers["webhook-id"] == before["webhook-id"]
    for secret in (first, second):  # for a day both sign
        Verifier(secret).verify(body, headers)

    manager.press("Stop posting")
    expect(page.locator("#errors")).to_contain_text("Say why.")
    manager.write("reason", "It moves.")
    manager.press("Stop posting")
    manager.is_told("Nothing is posted there now.")
    something_happens(world)
    assert len(receiver.posts) == 2
    manager.press("Delete webhook")
    manager.is_told("The webhook is deleted")
    expect(page.locator("main")).to_contain_text("No webhook yet")


@pytest.mark.parametrize("enter", ["mouse", "keyboard"], indirect=True)  # verifying is a script
def test_an_auditor_finds_an_entry_and_proves_it(enter, world) -> None:
    with world.box.works.begin(SYSTEM, quiet=True) as work:
        ledger.sign_checkpoint(work, world.box.signer)
    auditor = enter("auditor")
    page = auditor.visit.go("/")
    auditor.follow("Audit log")
    auditor.is_at("Audit log")
    auditor.choose("type", "Promotion")
    auditor.press("Apply")
    page.wait_for_url("**/log?type=promotion.*")
    types, subjects = (page.locator(f"td[data-label='{name}']") for name in ("Type", "Subject"))
    assert set(types.all_inner_texts()) == {"Promotion"}
    subject = subjects.first.inner_text()
    assert len(set(subjects.all_inner_texts())) > 1
    auditor.write("about", subject)
    auditor.press("Apply")
    page.wait_for_url("**about=promotion*")
    assert set(subjects.all_inner_texts()) == {subject}
    entry = page.locator("tbody th a").first.inner_text()
    auditor.follow(entry)
    auditor.is_at(f"Log entry {entry}")
    expect(page.locator("main")).to_contain_text(subject)
    auditor.press("Verify in this browser")
    expect(page.locator(".verdict")).to_contain_text("Verified: this is entry")
    bundle = json.loads(auditor.keep("the bundle of this entry"))
    assert f"#{bundle['idx']}" == entry


def test_a_visitor_reports_a_leak_which_is_assessed_frozen_and_lifted(enter, world, entered):
    visitor = enter(None)
    visitor.visit.go("/status")
    visitor.follow("Report misuse")
    visitor.press("Send report")
    visitor.is_refused("Write the report.")
    visitor.write("text", "Your weights are on a torrent site.")
    visitor.press("Send report")
    visitor.is_at("Thank you: report 1 is with us")
    reference = visitor.page.locator(".secret").inner_text()
    assert entered() == ["incident.reported"]

    security, owner = enter("security"), enter("owner")
    page = security.visit.go("/staff")
    security.follow("Incidents")
    security.follow("1: Not assessed yet")
    security.choose("severity", "High")
    security.tick("blocking")
    security.use(page.get_by_label(world.repos["researcher"]))
    security.write("public_summary", "Weights were found elsewhere.")
    security.press("Keep the assessment")
    security.is_told("The assessment is on record.")
    security.follow("Confirm and freeze")
    expect(page.locator("#stops")).to_contain_text("Researcher (demo)")
    security.press("Confirm and freeze")
    security.is_refused("Say how you know")
    security.write("reason", "Seen on two forums.")
    security.press("Confirm and freeze")
    security.is_told("What it covers is stopped")
    with world.client("researcher") as ada:
        assert ada.get(world.file("researcher", "config.json")).status_code == 403
    visitor.follow("Follow your report")
    visitor.write("reference", reference)
    visitor.press("Show")
    visitor.is_at("Report 1: confirmed")

    security.follow("Hold 1")
    security.write("reason", "Taken down.")
    security.press("Consent to lift")
    security.is_told("A second person")
    spent = page.get_by_role("button", name="Consent to lift")
    assert spent.get_attribute("aria-disabled")
    with world.box.works.begin(read_only=True) as work:
        assert incidents.load_incident(work, 1).state == "confirmed"
        assert [hold.id for hold in tracks.list_holds(work, active=True)] == [1]
    owner.visit.go("/staff")
    owner.follow("Holds")
    owner.is_at("Holds")
    owner.use(owner.page.locator("a[href='/staff/holds/1']").first)
    owner.write("reason", "Both hosts confirm it.")
    owner.press("Consent to lift")
    owner.is_told("the hold is lifted")
    with world.client("researcher") as ada:
        assert ada.get(world.file("researcher", "config.json")).status_code == 200

    security.follow("Incidents")
    security.is_at("Incidents")
    security.use(page.locator("a[href='/staff/incidents/1']").first)
    security.write("mitigate_reason", "Both copies are gone.")
    security.press("Its harm is contained")
    security.is_told("Its harm is contained.")
    security.write("outcome", "Two copies, both taken down.")
    security.press("Consent to close")
    security.is_told("Your word to close it is on record.")
    owner.follow("Incidents")
    owner.is_at("Incidents")
    owner.use(owner.page.locator("a[href='/staff/incidents/1']").first)
    owner.press("Consent to close")
    owner.is_told("Your word to close it is on record.")
    with world.box.works.begin(read_only=True) as work:
        assert tracks.list_holds(work, active=True) == []
        assert incidents.load_incident(work, 1).state == "closed"
    assert [t for t in entered() if t.startswith("hold.")] == [
        "hold.laid",
        *["hold.lift_consented"] * 2,
        "hold.lifted",
    ]


@pytest.mark.parametrize("enter", ["keyboard", "no-scripts"], indirect=True)
def test_a_partner_hands_evidence_in_and_a_reviewer_accepts_it(enter, world, clock, entered):
    partner, reviewer = enter("partner"), enter("reviewer_a")
    partner.visit.go("/me")
    partner.follow("Evidence")
    partner.is_at("Evidence")
    partner.choose("what", "Benefit: finding")
    partner.press("Go on")
    partner.is_at("Write evidence down")
    partner.write("title", "Used in two classrooms")
    partner.choose("verdict", "Some benefit")
    partner.write("finding", "Teachers showed with it what a model gets wrong.")
    partner.write("source", "A report of six pages.")
    partner.press("Save draft")
    partner.is_refused("Say on which day")  # and nothing typed is lost
    partner.choose("fact_status", "Read in a primary source, or measured by us")
    partner.date("measured_at", clock.now().date() - timedelta(days=2))
    partner.press("Save draft")
    partner.is_at("Used in two classrooms")
    partner.press("Submit evidence")
    partner.is_told("It is handed in.")
    number = partner.page.url.split("/me/evidence/")[1].split("?")[0]

    reviewer.visit.go("/staff")
    reviewer.follow("Evidence")
    reviewer.follow("Used in two classrooms")
    reviewer.write("accept_reason", "Read to the end.")
    reviewer.press("Accept evidence")
    reviewer.is_told("It is accepted and counts for gates.")
    with world.box.works.begin(read_only=True) as work:
        row = evidence.load_evidence(work, number)
    assert (row.state, row.verdict) == ("accepted", "some_benefit")
    assert row.accepted_by == world.actor("reviewer_a").id
    assert entered() == ["evidence.drafted", "evidence.submitted", "evidence.accepted"]


@pytest.mark.parametrize("enter", ["keyboard", "no-scripts"], indirect=True)
def test_a_manager_lays_a_hold_by_hand_and_an_officer_refuses_a_request(enter, world, entered):
    names = lay_out(world, keys=False)
    before = entered()
    manager, officer = enter("release_manager"), enter("access_officer")
    manager.visit.go("/staff")
    manager.follow("Holds")
    manager.is_at("Holds")
    manager.press("Lay hold")
    manager.is_refused("Choose what it is over.")
    manager.choose("over", "Everything")
    manager.write("reason", "An exercise.")
    manager.press("Lay hold")
    manager.is_told("The hold is laid.")
    officer.visit.go("/staff")
    officer.follow("Requests")
    officer.follow("Outsider (demo)")
    officer.follow("Review and decide")
    officer.follow("Cannot be verified")
    expect(officer.field("reason")).to_have_value(re.compile("could not verify"))
    officer.press("Reject request")
    officer.is_told("rejected")
    with world.box.works.begin(world.actor("access_officer")) as work:
        held = tracks.list_holds(work, active=True)
        assert access.show_request(work, names["request"]).request.state == "rejected"
    assert held[-1].scope == "everything"
    assert entered()[len(before) :] == ["hold.laid", "access_request.rejected"]


@pytest.fixture
def letters() -> Iterator[Postbox]:
    box = Postbox()
    box.controller.start()
    yield box
    box.controller.stop()


@pytest.mark.parametrize("enter", ["keyboard"], indirect=True)  # by mouse: test_walk_researcher.py
def test_by_keys_a_researcher_asks_is_let_in_downloads_and_gives_up(enter, world, letters, entered):
    ada, officer = enter(None), enter("access_officer")
    page = ada.visit.go(f"/models/{world.repos['researcher']}")
    ada.follow("Request access")
    for key, answer in ANSWERS.items():
        if key in BOXES:
            ada.tick(key)
        elif key in CHOICES:
            ada.pick(key, answer)
        elif answer:
            ada.write(key, answer)
    ada.press("Send request")
    ada.is_at("Check your mail")
    ada.visit.go(mailed(world, letters, ANSWERS["email"]))
    ada.press("Confirm and send")
    page.wait_for_url("**/requests/*")

    other = officer.visit.go("/staff/requests")
    for key in "jjk":  # the only one stays the one
        other.keyboard.press(key)
    assert other.evaluate("document.activeElement.textContent") == "Ada Example"
    other.keyboard.press("Enter")
    expect(other.locator("#beside")).to_contain_text(ANSWERS["purpose"])
    officer.follow("Review and decide")
    officer.write("comment", "Welcome.")
    officer.press("Approve request")
    officer.is_told("The request is approved")

    page.reload()
    ada.follow("Read and sign")
    ada.write("typed_name", "Ada Example")
    ada.write("typed_title", "Researcher")
    ada.tick("authorised_to_bind")
    ada.tick("consents_electronically")
    ada.press("Sign agreement")
    expect(page.locator("[role=status]")).to_contain_text("Signed")
    ada.visit.go("/me")
    ada.follow("Tokens")
    ada.write("name", "laptop")
    ada.press("Make token")
    token = page.locator("#secret").inner_text()
    with world.client() as client:
        client.headers["Authorization"] = f"Bearer {token}"
        file = world.file("researcher", "config.json")
        assert client.get(file).status_code == 200
        ada.visit.go("/me")
        ada.unfold("Renew, or give it up")
        ada.write("message-1", "One more month.")
        ada.press("Ask for renewal")
        ada.is_told("Your wish was passed on")
        ada.unfold("Renew, or give it up")
        ada.follow("Give up this access")
        ada.press("Give up access")
        ada.is_told("You gave that access up.")
        assert client.get(file).status_code == 403
    assert entered() == [
        *("person.created", "access_request.submitted", "grant.issued", "role.assigned"),
        *("access_request.accepted", "signature.signed", "grant.issued", "token.created"),
        *("grant.renewal_asked", "grant.given_up"),
    ]
    with world.box.works.begin(read_only=True) as work:
        grants = papers.list_grants(work, state="revoked")
    assert len(grants) == 1


@pytest.mark.parametrize("enter", ["keyboard"], indirect=True)
def test_what_has_the_focus_keeps_it_when_the_stops_are_asked_again(enter, world):
    names = lay_out(world)
    security = enter("security")
    security.page.clock.install()
    page = security.visit.go(f"/staff/incidents/{names['triaged']}/freeze")
    region = page.get_by_role("region", name="Grants it stops")
    security.reach(region)
    region.evaluate("e => { e.dataset.old = 'yes'; }")
    page.clock.run_for(11_000)
    expect(page.locator("[data-old]")).to_have_count(0)
    expect(region).to_be_focused()

    with world.box.works.begin(world.actor("security")) as work:
        handling.confirm(work, int(names["triaged"]), reason="Seen on two forums.")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for _ in range(3):  # there is nothing to decide any more, so it is not asked again
        page.clock.run_for(11_000)
        page.wait_for_load_state("networkidle")
    assert len(asked) == 1


@pytest.mark.parametrize("enter", ["keyboard", "no-scripts"], indirect=True)
def test_a_plan_is_checked_proposed_and_consented_to(enter, world, entered):
    manager, reviewer = enter("release_manager"), enter("reviewer_a")
    page = manager.visit.go("/staff")
    manager.follow("Plans")
    manager.follow("Write a plan")
    manager.is_at("Write a plan")
    manager.write("source", PLAN.replace("P14D", "two weeks"))
    manager.write("rationale", "Two more weeks.")
    manager.press("Check")
    expect(page.locator("#beside")).to_contain_text("must be an ISO 8601 duration")
    manager.write("source", PLAN)
    manager.press("Propose plan")
    manager.is_told("A second person")
    reviewer.visit.go("/staff")
    reviewer.follow("Plans")
    reviewer.is_at("Plans")
    reviewer.use(reviewer.page.locator("a[href^='/staff/plan-proposals/']").first)
    reviewer.press("Consent to this text")
    reviewer.is_told("in force")
    with world.box.works.begin(read_only=True) as work:
        plan = tracks.find_plan(work, "demo")
    assert plan is not None
    assert plan.version == 2
    assert entered() == ["plan.proposed", "plan.consented", "plan.applied"]


@pytest.mark.parametrize("enter", ["keyboard"], indirect=True)  # by mouse: test_playground.py
def test_by_keys_a_text_is_begun_and_gone_on_with(enter, world):
    ada = enter("researcher")
    page = ada.visit.go("/")
    ada.follow("Playground")
    ada.is_at("Playground")
    ada.write("prompt", "In a shocking")
    ada.press("Three short ways to go on")
    expect(page.locator("#telling")).to_have_text("The machine has finished.")
    second = page.locator(".choice mark").nth(1).text_content()
    ada.use(page.get_by_role("button", name="Go on with this one").nth(1))
    expect(ada.field("prompt")).to_have_value(f"In a shocking{second}")

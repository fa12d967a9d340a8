"""Staff at work in a real browser: a promotion from draft to applied, by three people.

By mouse with scripts and without, and by the keyboard alone. What moves beneath somebody is told
to them, and what they typed is kept.
"""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from playwright.sync_api import Page
from test_walk_researcher import Visit

from looks import lay_out, side_track
from stagerelease.catalog import queries as catalog
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service

pytestmark = pytest.mark.e2e
WHO = ("release_manager", "reviewer_a", "reviewer_b")
RATIONALE = "Six weeks at researchers, and nothing new was found."


@pytest.fixture
def people(chromium, world, request):
    scripts = getattr(request, "param", True)
    visits = {who: Visit(chromium, world, scripts=scripts, who=who) for who in WHO}
    yield visits
    for visit in visits.values():
        assert visit.complaints == []
        visit.context.close()


def number_of(page: Page) -> int:
    return int(re.search(r"/staff/promotions/(\d+)", page.url).group(1))


def notice(page: Page) -> str:
    return page.locator("#done").inner_text()


@pytest.mark.parametrize("people", [True, False], indirect=True, ids=["scripts", "no-scripts"])
def test_three_people_take_a_promotion_from_draft_to_applied(people, world):
    manager, a, b = (people[who] for who in WHO)
    repo = world.repos["researcher"]
    page = manager.go("/staff")
    page.get_by_role("link", name=repo).click()
    page.get_by_role("link", name="Ask for public").click()
    assert "Not as things stand" not in page.locator("main").inner_text()
    manager.press("Submit promotion")  # nothing is typed yet
    assert "Say why now" in page.locator("#errors").inner_text()
    page.locator("#f-rationale").fill(RATIONALE)
    manager.press("Keep as a draft")
    assert "The draft is kept" in notice(page)
    assert page.get_by_role("button", name="Approve").count() == 0
    manager.press("Submit")
    assert "submitted" in notice(page)
    own = page.get_by_role("button", name="Approve")
    assert own.get_attribute("aria-disabled") == "true"
    why = str(own.get_attribute("aria-describedby"))
    assert "You opened this promotion" in page.locator(f"#{why}").inner_text()
    number = number_of(page)

    for visit in (a, b):
        page = visit.go("/staff")
        page.get_by_role("link", name=f"{number}: {repo} to public").click()
        assert RATIONALE in page.locator("#thread + .thread").inner_text()
        assert "everybody, without an account" in page.locator("main").inner_text()
        page.locator("#f-comment").fill("Read it all.")
        visit.press("Approve")
        assert "Your approval is on record" in notice(page)

    page = manager.go("/staff")
    page.get_by_role("link", name=f"{number}: {repo} to public").click()
    page.locator("#f-typed").fill("demo/another")
    manager.press("Promote to public")
    assert "Type the name exactly" in page.locator("#errors").inner_text()
    assert page.locator("#f-typed").input_value() == "demo/another"
    page.locator("#f-typed").fill(repo)
    manager.press("Promote to public")
    assert "Promoted" in notice(page)
    with world.box.works.begin(read_only=True) as work:
        variant = catalog.load_variant(work, repo)
        assert releases.list_tracks(work, variant_id=variant.id)[0].stage == "public"


def tab_to(page: Page, what: str) -> None:
    """Press Tab until what matches a selector has the focus; never use the mouse."""
    for _ in range(160):
        page.keyboard.press("Tab")
        if page.evaluate("what => document.activeElement.matches(what)", what):
            return
    raise AssertionError(f"the keyboard does not reach {what}")


def button(words: str) -> str:
    """Return a selector that marks a button by its words, put there for the keyboard to find."""
    return f"[data-found='{words}']"


def find_button(page: Page, words: str) -> str:
    page.get_by_role("button", name=words, exact=True).evaluate(
        "(found, words) => found.setAttribute('data-found', words)", words
    )
    return button(words)


def press_by_key(page: Page, words: str) -> None:
    tab_to(page, find_button(page, words))
    with page.expect_navigation():
        page.keyboard.press("Enter")


def test_the_same_by_the_keyboard_alone(people, world):
    manager, a, b = (people[who] for who in WHO)
    repo = world.repos["researcher"]
    page = manager.go("/staff")
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    page.locator("#keys").wait_for(state="hidden")  # a browser closes it in its own time
    page.keyboard.press("/")
    page.wait_for_function("document.activeElement.id === 'f-q'")
    with page.expect_response(lambda answer: "q=335M" in answer.url):  # whatever letters asked for
        page.keyboard.type("335M")
    page.wait_for_url("**/staff?q=335M*")  # narrowed in place, and the address follows
    page.locator("#board tbody tr").nth(1).wait_for(state="detached")
    page.locator(".htmx-request, .htmx-swapping, .htmx-settling").wait_for(state="detached")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("j")
    assert repo in page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    page.wait_for_url("**/staff/tracks/*")
    tab_to(page, "a[href$='/promote']")
    page.keyboard.press("Enter")
    page.wait_for_url("**/promote")
    tab_to(page, "#f-rationale")
    page.keyboard.type(RATIONALE)
    press_by_key(page, "Keep as a draft")
    press_by_key(page, "Submit")
    number = number_of(page)
    for visit in (a, b):
        page = visit.go("/staff")
        tab_to(page, f"aside a[href='/staff/promotions/{number}']")
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/staff/promotions/{number}")
        tab_to(page, "#f-comment")
        page.keyboard.type("Read it.")
        press_by_key(page, "Approve")
        assert "Your approval is on record" in notice(page)
    page = manager.go(f"/staff/promotions/{number}")
    tab_to(page, "#f-typed")
    page.keyboard.type(repo)
    press_by_key(page, "Promote to public")
    assert "Promoted" in notice(page)


@pytest.mark.parametrize("people", [False], indirect=True, ids=["no-scripts"])
def test_what_moved_is_told_and_what_was_typed_is_kept(people, world):
    manager, a, b = (people[who] for who in WHO)
    track_id = side_track(world, "side/moved")
    with world.box.works.begin(world.actor("release_manager")) as work:
        row = release_service.open_promotion(work, track_id=track_id, to="public", rationale="One.")
    here = f"/staff/promotions/{row.id}"
    page = b.go(here)
    page.locator("#f-comment").fill("I read the first edition to the end.")

    world.clock.move(timedelta(seconds=4))
    other = a.go(here)
    other.locator("#f-comment").fill("Fine by me.")
    a.press("Approve")
    mine = manager.go(here + "/edit")
    mine.locator("#f-rationale").fill("Another reason altogether.")
    manager.press("Submit the new edition")
    world.clock.move(timedelta(seconds=4))

    with page.expect_response(lambda got: got.request.method == "POST") as answer:
        b.press("Approve")
    assert answer.value.status == 409
    told = page.locator("#errors").inner_text()
    assert "This moved since you looked" in told
    assert "by demo-reviewer-a" in told
    assert "What you typed is still here" in told
    assert page.locator("#f-comment").input_value() == "I read the first edition to the end."
    assert "Another reason altogether." in page.locator("main").inner_text()
    b.press("Approve")  # now of what the page says
    assert "Your approval is on record" in notice(page)
    b.go(here)
    page.get_by_text("Answer this gate").click()
    page.locator("#f-answer-card-read-1").check()
    page.locator("#f-why-card-read").fill("Twice, line by line.")
    b.press("Put the answer on record")
    assert "Your answer is on record" in notice(page)


def test_a_plan_is_linted_beside_its_text_as_it_is_written(chromium, world):
    manager = Visit(chromium, world, scripts=True, who="release_manager")
    page = manager.go("/staff/plan-editor?base=demo")
    page.evaluate("window.stayed = true")
    text = page.locator("#f-source").input_value()
    page.locator("#f-source").fill(text.replace("count: 2", "count: 9", 1))
    page.get_by_text("The quorum asks for 9 people").wait_for()
    page.locator("#f-track").select_option(label="demo/gpt2-mini-335M, weights, at researcher")
    page.get_by_role("heading", name="Simulation").wait_for()
    assert page.evaluate("window.stayed")
    page.locator("#f-rationale").fill("More eyes.")
    manager.press("Propose plan")
    assert "proposed" in notice(page)
    assert "Asks more" in page.locator("main").inner_text()
    reviewer = Visit(chromium, world, scripts=False, who="reviewer_a")
    other = reviewer.go(page.url.removeprefix(world.base_url).split("?")[0])
    reviewer.press("Consent to this text")
    assert "in force" in notice(other)
    assert manager.complaints == reviewer.complaints == []
    manager.context.close()
    reviewer.context.close()


def test_a_request_opens_beside_its_list_in_place_and_without_scripts(chromium, world):
    names = lay_out(world)
    for scripts in (True, False):
        officer = Visit(chromium, world, scripts=scripts, who="access_officer")
        page = officer.go("/staff/requests")
        page.get_by_role("link", name="Outsider (demo)").click()
        page.get_by_role("link", name="Review and decide").wait_for()
        assert "Known group." in page.locator("#beside .private").inner_text()
        assert page.url.split("#")[0].endswith(f"beside={names['request']}")
        page.get_by_role("link", name="Review and decide").click()
        page.get_by_role("link", name="Cannot be verified").click()
        assert "could not verify" in page.locator("#f-reason").input_value()
        assert officer.complaints == []
        officer.context.close()

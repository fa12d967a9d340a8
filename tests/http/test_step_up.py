"""Acts that count ask for a fresh proof, and carry what was typed through it."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape

import pytest

from browsing import browser
from stagerelease.identity import links, passwords, proving
from stagerelease.identity.tables import Person
from stagerelease.jobs.tables import Job

STALE = timedelta(minutes=5)
NAME = "laptop & <b>“one”</b>"
TOKEN = {"name": NAME, "lasts": "90", "scope": "download"}
PASSWORD = "four unrelated plain words"


def hidden(html: str, form: str) -> dict[str, list[str]]:
    """Return the hidden fields of the form whose tag holds ``form``."""
    body = re.search(rf"<form[^>]*{re.escape(form)}[^>]*>(.*?)</form>", html, re.S)
    assert body, html[-3000:]
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', body.group(1))
    values: dict[str, list[str]] = {}
    for key, value in found:
        values.setdefault(unescape(key), []).append(unescape(value))
    return values


def set_password(world, who, text=PASSWORD):
    with world.box.works.begin(world.actor(who)) as work:
        passwords.set_password(work, passwords.hash_new(text))


def give_address(world, who):
    with world.box.works.begin() as work:
        work.session.get_one(Person, world.actor(who).id).email = f"{who}@example.org"


def newest_link(world, event):
    with world.box.works.begin(read_only=True) as work:
        facts = [
            j.payload["facts"]
            for j in work.session.query(Job).order_by(Job.id)
            if j.payload.get("event") == event
        ]
    return links.sign_link(world.box.link_key, facts[-1]["link"])


def test_a_fresh_sign_in_is_a_proof_for_five_minutes(world, clock):
    with browser(world, "researcher") as ada:
        assert ada.post("/me/tokens", data=TOKEN).status_code == 201
        clock.move(STALE - timedelta(seconds=1))
        assert ada.post("/me/tokens", data=TOKEN).status_code == 201
        clock.move(timedelta(seconds=1))
        refused = ada.post("/me/tokens", data=TOKEN)
        assert refused.status_code == 403
        assert "Show that it is you" in refused.text
        assert ada.get("/me").status_code == 200  # reading goes on


def test_a_password_is_the_proof_of_who_has_one_and_the_form_goes_on(world, clock):
    set_password(world, "researcher")
    with browser(world, "researcher") as ada:  # by a link, which is the weaker way
        asked = ada.post("/me/tokens", data=TOKEN)
        assert asked.status_code == 403
        assert NAME not in asked.text  # escaped wherever it is carried
        carried = hidden(asked.text, 'action="/step-up"')
        wrong = ada.post("/step-up", data=carried | {"password": "not that"})
        assert wrong.status_code == 422
        assert ada.post("/me/tokens", data=TOKEN).status_code == 403
        again = hidden(wrong.text, 'action="/step-up"')
        right = ada.post("/step-up", data=again | {"password": PASSWORD})
        assert right.status_code == 200
        resumed = hidden(right.text, 'action="/me/tokens"')
        assert resumed == {key: [value] for key, value in TOKEN.items()}
        assert ada.post("/me/tokens", data=resumed).status_code == 201


def test_a_link_is_the_proof_of_who_has_nothing_else_in_that_browser_alone(world, clock):
    give_address(world, "researcher")
    with browser(world, "researcher") as ada, browser(world, "researcher") as other:
        clock.move(STALE)
        asked = ada.post("/me/tokens", data=TOKEN)
        carried = hidden(asked.text, 'action="/step-up/link"')
        waiting = ada.post("/step-up/link", data=carried)
        assert "Check your mail" in waiting.text
        assert hidden(waiting.text, 'id="resume"')["name"] == [NAME]
        link = newest_link(world, "account.prove")
        assert other.post("/step-up/confirm", data={"t": link}).status_code == 403
        assert ada.get("/step-up/confirm", params={"t": link}).status_code == 200
        assert ada.post("/me/tokens", data=TOKEN).status_code == 403  # looking proves nothing
        assert ada.post("/step-up/confirm", data={"t": link}).status_code == 200
        assert ada.post("/step-up/confirm", data={"t": link}).status_code == 409
        assert ada.post("/me/tokens", data=TOKEN).status_code == 201
        assert other.post("/me/tokens", data=TOKEN).status_code == 403


@pytest.mark.parametrize("target", ["//evil.example", "https://evil.example/", "/\\evil", ""])
def test_the_proof_leads_nowhere_else(world, clock, target):
    set_password(world, "researcher")
    with browser(world, "researcher") as ada:
        sent = {"target": target, "method": "post", "password": PASSWORD}
        assert ada.post("/step-up", data=sent).status_code == 422


def test_links_to_show_who_one_is_are_limited(world, clock):
    give_address(world, "researcher")
    with browser(world, "researcher") as ada:
        form = {"target": "/me", "method": "get"}
        answers = [ada.post("/step-up/link", data=form).status_code for _ in range(11)]
    assert answers == [200] * proving.PER_PERSON + [429]

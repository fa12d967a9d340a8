"""One's own account over HTTP: passwords and their limits, sessions, grants, evidence, data."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import select

from browsing import browser, draft_evidence
from stagerelease.identity import links, passkeys, passwords, proving
from stagerelease.identity.tables import Passkey, Person
from stagerelease.kernel.actor import OPERATOR
from stagerelease.partners import queries as papers

PASSWORD = "four unrelated plain words"


def with_password(world, who="auditor"):
    with world.box.works.begin(world.actor(who)) as work:
        work.session.get_one(Person, world.actor(who).id).email = f"{who}@example.org"
        passwords.set_password(work, passwords.hash_new(PASSWORD))
    return f"{who}@example.org"


def log_in(client, login, password, **more):
    return client.post("/sign-in/password", data={"login": login, "password": password, **more})


def test_a_password_signs_in_with_a_new_session_and_leads_nowhere_else(world):
    login = with_password(world)
    planted = {"sr": "A" * 43}
    with browser(world) as client:
        client.cookies.update(planted)
        got = log_in(client, f" {login.upper()} ", PASSWORD, next="//evil.example")
        assert (got.status_code, got.headers["location"]) == (303, "/me")
        assert got.cookies["sr"] != planted["sr"]
    with browser(world) as client:
        got = log_in(client, login, PASSWORD, next="/models")
        assert got.headers["location"] == "/models"
        first = got.cookies["sr"]
        second = log_in(client, login, PASSWORD).cookies["sr"]
        assert first != second
        client.cookies.clear()
        client.cookies.set("sr", first)
        assert client.get("/me").status_code == 303  # the one before has ended


def test_wrong_unknown_and_unset_are_answered_alike(world):
    login = with_password(world)
    with browser(world) as client:
        answers = [
            log_in(client, login, "wrong"),
            log_in(client, "nobody@example.org", "wrong"),
            log_in(client, "demo-owner@example.org", PASSWORD),
        ]
    texts = [re.sub(r'value="[^"]*@[^"]*"', "", a.text) for a in answers]
    assert [a.status_code for a in answers] == [422] * 3
    assert len({re.sub(r"[0-9a-f]{32}", "", t) for t in texts}) == 1


def test_ten_wrong_passwords_shut_the_door_for_a_while_even_to_the_right_one(
    world, clock, monkeypatch
):
    login = with_password(world)
    monkeypatch.setattr(passwords, "matches", lambda attempt, word: word == PASSWORD)  # the clock
    with browser(world) as client:
        codes = [log_in(client, login, "wrong").status_code for _ in range(9)]
        assert log_in(client, login, PASSWORD).status_code == 303  # and counts anew
        codes += [log_in(client, login, "wrong").status_code for _ in range(10)]
        assert set(codes) == {422}
        shut = log_in(client, login, PASSWORD)
        assert (shut.status_code, int(shut.headers["retry-after"]) <= 900) == (429, True)
        assert log_in(client, "another@example.org", "wrong").status_code == 422
        clock.move(timedelta(minutes=16))
        assert log_in(client, login, PASSWORD).status_code == 303


def test_setting_a_password_signs_the_other_browsers_out(world):
    with browser(world, "researcher") as mine, browser(world, "researcher") as other:
        weak = mine.post("/me/security/password", data={"new": "short"})
        assert weak.status_code == 422
        assert 'id="e-new"' in weak.text
        got = mine.post("/me/security/password", data={"new": PASSWORD})
        assert got.headers["location"] == "/me/security?done=password#done"
        assert mine.get("/me").status_code == 200
        assert other.get("/me").status_code == 303


def test_sessions_are_listed_and_ended_one_by_one(world):
    with browser(world, "researcher") as mine, browser(world, "researcher") as other:
        shown = mine.get("/me/security").text
        found = re.findall(r"/me/sessions/(ses_[0-9a-z]+)/close", shown)
        assert len(found) == 2
        here = re.search(
            r"/me/sessions/(ses_[0-9a-z]+)/close(?:(?!</form).)*This browser", shown, re.S
        ).group(1)
        (there,) = set(found) - {here}
        with browser(world, "outsider") as stranger:
            assert stranger.post(f"/me/sessions/{there}/close").status_code == 404
        assert mine.post(f"/me/sessions/{there}/close").status_code == 303
        assert other.get("/me").status_code == 303
        assert mine.post(f"/me/sessions/{here}/close").headers["location"] == "/sign-in"
        assert mine.get("/me").status_code == 303


def test_a_printed_link_lets_in_once_to_make_a_key(world):
    with world.box.works.begin(OPERATOR) as work:
        made = proving.make_enrolment(work, world.actor("owner").name)
    token = links.sign_link(world.box.link_key, made.link)
    with browser(world) as client:
        opened = client.get("/enrol", params={"t": token})
        assert opened.status_code == 200
        assert opened.headers["referrer-policy"] == "strict-origin"  # not into a log, as a referrer
        assert client.get("/me").status_code == 303  # looking does nothing
        got = client.post("/enrol", data={"t": token})
        assert got.headers["location"] == "/me/security/passkey?first=1"
        assert client.get(got.headers["location"]).status_code == 200
        assert client.post("/me/security/passkey/options").json()["publicKey"]["rp"]["id"]
    with browser(world) as other:
        assert other.post("/enrol", data={"t": token}).status_code == 409


def test_a_holder_asks_for_renewal_gives_up_and_declares(world):
    with world.box.works.begin(read_only=True) as work:
        (grant,) = papers.list_grants(work, person_id=world.actor("researcher").id)
    here = f"/me/grants/{grant.id}"
    with browser(world, "outsider") as stranger:
        for what in ("renew", "give-up", "declare"):
            assert stranger.post(f"{here}/{what}", data={"message": "x"}).status_code == 404
    with browser(world, "owner") as owner:
        assert owner.post(f"{here}/give-up").status_code == 403  # staff revoke; holders give up
    with browser(world, "researcher") as ada:
        assert ada.post(f"{here}/renew", data={"message": " "}).status_code == 422
        assert ada.post(f"{here}/renew", data={"message": "Two more months."}).status_code == 303
        assert ada.post(f"{here}/renew", data={"message": "Please."}).status_code == 409
        assert "Two more months." in ada.get("/me").text
        stale = ada.post(f"{here}/give-up", data={"version": "999"})
        assert stale.status_code == 412
        done = ada.post(f"{here}/give-up", data={"version": str(grant.version)})
        assert done.headers["location"] == "/me?done=given-up#done"
        assert "Declare what became" in ada.get("/me").text
        said = {"statement": "Deleted, and the backups too.", "typed_name": "Ada Example"}
        assert ada.post(f"{here}/declare", data=said).status_code == 303
        assert "Declare what became" not in ada.get("/me").text
    with world.client("researcher") as hub:
        assert hub.get(world.file("researcher")).status_code == 403


def test_evidence_is_written_given_files_and_handed_in(world):
    with browser(world, "researcher") as ada:
        form = ada.get("/me/evidence/new?what=detectability.accuracy").text
        subject = re.search(r'name="subject_sha256"[^>]*>\s*<option value="([0-9a-f]{64})"', form)
        typed = {
            "subject_sha256": subject.group(1),
            "title": "A <b>fine-tuned</b> detector",
            "what": "detectability.accuracy",
            "value": "91,2",
            "conditions.detector": "RoBERTa-large",
            "conditions.sampler": "top-k 40",
            "conditions.text_length": "256",
            "conditions.text_length_unit": "tokens",
            "conditions.base_rate": "0.5",
            "unit": "percent",
            "n": "5000",
            "source": "Run 12",
            "fact_status": "verified",
            "measured_at": f"{world.clock.now() - timedelta(days=2):%Y-%m-%d}",
        }
        wrong = ada.post("/me/evidence", data=typed)
        assert wrong.status_code == 422
        assert 'id="e-value"' in wrong.text
        assert "RoBERTa-large" in wrong.text  # what was typed is still there
        kept = ada.post("/me/evidence", data=typed | {"value": "91.2"})
        assert kept.status_code == 303, re.findall(r'class="wrong"[^<]*<span.*?</p>', kept.text)
        here = kept.headers["location"]
        files = {"file": ("run <12>.csv", b"a,b\n1,2\n", "text/html")}
        assert ada.post(f"{here}/attachments", files=files).status_code == 422  # the name
        files = {"file": ("run 12.csv", b"a,b\n1,2\n", "text/html")}
        assert ada.post(f"{here}/attachments", files=files).status_code == 303
        assert ada.post(f"{here}/attachments", files={"other": ("", b"")}).status_code == 422
        assert "run 12.csv" in ada.get(here).text
        assert "<b>fine" not in ada.get(here).text
        assert ada.post(f"{here}/submit").status_code == 303
        assert ada.post(f"{here}/submit").status_code == 409
    with browser(world, "outsider") as stranger:
        assert stranger.get(here).status_code == 404


def test_the_export_holds_what_is_mine_and_no_secret(world):
    written = draft_evidence(world)
    with browser(world, "researcher") as ada:
        got = ada.get("/me/data/export")
        kept = json.loads(got.text)
        cookie = ada.cookies["sr"]
    assert "attachment" in got.headers["content-disposition"]
    assert kept["account"]["id"] == world.actor("researcher").id
    assert [e["id"] for e in kept["evidence"]] == [written]
    assert len(kept["grants"]) == 1
    assert kept["tokens"]
    for secret in (world.tokens["researcher"], cookie):
        assert secret not in got.text
    with browser(world, "outsider") as other:
        theirs = other.get("/me/data/export").json()
    assert theirs["grants"] == theirs["evidence"] == []


@pytest.mark.parametrize("credential", ["[" * 100_000, "{", "[]", '{"id": 1}', '{"id": "AA"}', ""])
def test_what_is_no_passkey_is_refused(world, credential):
    """From anybody: signing in needs no account to be tried."""
    with browser(world) as client:
        begun = client.post("/sign-in/passkey/options").json()
        data = {"ceremony": begun["ceremony"], "credential": credential}
        assert client.post("/sign-in/passkey", data=data).status_code in (400, 422)
    with browser(world, "partner") as client:
        begun = client.post("/me/security/passkey/options").json()
        data = {"ceremony": begun["ceremony"], "credential": credential, "name": "Laptop"}
        assert client.post("/me/security/passkey", data=data).status_code in (400, 422)


@pytest.mark.parametrize("transports", ["usb", 7, {"a": 1}, None])
def test_transports_that_are_no_list_are_none(world, monkeypatch, transports):
    made = SimpleNamespace(
        credential_id=b"c",
        credential_public_key=b"k",
        sign_count=0,
        credential_device_type=None,
    )
    monkeypatch.setattr(passkeys, "verify_registration_response", lambda **_: made)
    monkeypatch.setattr(passkeys, "_use", lambda *_: b"challenge")
    sent = json.dumps({"response": {"transports": transports}})
    with world.box.works.begin(world.actor("partner")) as work:
        passkeys.enrol(
            work, passkeys.Site("localhost", "x"), ceremony="c", credential=sent, name="Laptop"
        )
        work.session.flush()
        key = work.session.scalars(select(Passkey).where(Passkey.credential_id == b"c")).one()
        assert key.transports == []

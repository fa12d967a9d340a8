"""Asking for access, and deciding it, over JSON and as Hub clients do: a live server."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import HfApi

from stagerelease.access.forms import document_of, shipped_form
from stagerelease.identity import links
from stagerelease.identity import service as identity
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR

URL = "/api/v1/access-requests"
GOOD: dict[str, Any] = {
    "name": "Ada Munk",
    "email": "ada@example.org",
    "organisation": "A lab",
    "role": "Reader",
    "purpose": "Telling machine text from human text, at length.",
    "category": "detection",
    "data_use": "GRU",
    "public_output": "paper",
    "storage": "On one encrypted machine that I alone can reach.",
    "no_sharing": True,
    "report_misuse": True,
}


def link_of(world) -> str:
    """Return the token that the newest confirmation mail would hold."""
    with world.box.works.begin(read_only=True) as work:
        jobs = [j for j in work.session.query(Job).order_by(Job.id) if "event" in j.payload]
        mails = [j for j in jobs if j.payload["event"] == "request.confirm_address"]
        return links.sign_link(world.box.link_key, mails[-1].payload["facts"]["link"])


def sign(client, agreement: str) -> None:
    """Sign the version in force of an agreement for oneself."""
    version = client.get(f"/api/v1/agreements/{agreement}").json()
    signed = client.post(
        "/api/v1/signatures",
        json={
            "version_id": version["id"],
            "text_sha256": version["text_sha256"],
            "typed_name": "Ada Munk",
            "typed_title": "Reader",
            "authorised_to_bind": True,
            "consents_electronically": True,
        },
    )
    assert signed.status_code in (200, 201), signed.text


def test_a_researcher_without_an_account_walks_from_form_to_first_byte(world):
    repo = world.repos["researcher"]
    with world.client() as nobody, world.client("access_officer") as officer:
        form = nobody.get("/api/v1/access-forms/asked", params={"repo_id": repo}).json()
        assert (form["slug"], form["times"]["count"]) == ("default", 0)
        begun = nobody.post(f"{URL}/drafts", json={"repo_id": repo, "answers": {"name": "A"}})
        assert begun.status_code == 201, begun.text
        draft = begun.json()
        one, secret = f"{URL}/drafts/{draft['id']}", {"X-Draft-Secret": draft["secret"]}
        assert nobody.get(one).status_code == 404
        wrong = nobody.post(
            f"{one}/submit", json={"answers": GOOD | {"email": "no"}}, headers=secret
        )
        assert (wrong.status_code, wrong.json()["reason"]) == (422, "access.fields")
        assert [f["field"] for f in wrong.json()["fields"]] == ["email"]
        kept = nobody.get(one, headers=secret).json()
        assert kept["answers"] == GOOD | {"email": "no"}
        assert nobody.put(one, json={"answers": GOOD}, headers=secret).json()["wrong"] == []
        sent = nobody.post(f"{one}/submit", headers=secret).json()
        assert (sent["confirming"], sent["request"]) == (True, None)
        token = link_of(world)
        seen = nobody.get(f"{URL}/confirm", params={"token": token}).json()
        assert (seen["address"], seen["repo_id"]) == ("ada@example.org", repo)
        done = nobody.post(f"{URL}/confirm", json={"token": token}).json()
        assert (done["made"], done["request"]["state"]) == (True, "submitted")
        assert nobody.post(f"{URL}/confirm", json={"token": token}).status_code in (404, 409, 400)
        assert nobody.get(one, headers=secret).status_code == 404
        waiting = officer.get(f"{URL}/queue", params={"repo_id": repo}).json()
        assert [q["request"]["id"] for q in waiting["requests"]] == [done["request"]["id"]]
        page = f"{URL}/{done['request']['id']}"
        assert officer.post(f"{page}/assign", json={}).json()["state"] == "in_review"
        early = officer.post(f"{page}/accept", json={})
        assert (early.status_code, early.json()["reason"]) == (409, "access.no-signature")
        approved = officer.post(f"{page}/approve", json={"comment": "Welcome."})
        assert approved.status_code == 200, approved.text
        assert approved.json()["grant_state"] == "pending"
        with world.box.works.begin(OPERATOR) as work:
            handle = done["request"]["handle"]
            _, world.tokens["ada"] = identity.create_token(work, person=handle, name="hers")
        with world.client("ada") as ada:
            file = world.file("researcher")
            assert ada.get(file).status_code == 403
            sign(ada, "researcher-terms")
            assert ada.get(page).json()["request"]["grant_state"] == "active"
            assert ada.get(file, follow_redirects=True).status_code == 200
            assert ada.get(page).json()["events"][-1]["comment"] == "Welcome."
        assert officer.get(f"{URL}/decision-times").json()["count"] == 1


def test_one_post_with_whole_answers_asks_and_with_half_of_them_is_told_what_is_missing(world):
    repo = world.repos["researcher"]
    with world.client("outsider") as outsider, world.client("access_officer") as officer:
        half = {"name": "Oto", "email": "no", "category": "none", "extra": "x"}
        refused = outsider.post(URL, json={"repo_id": repo, "fields": half})
        assert (refused.status_code, refused.json()["reason"]) == (422, "access.fields")
        named = {f["field"] for f in refused.json()["fields"]}
        required = {f.key for f in shipped_form().fields if f.required}
        assert named == (required - {"name"}) | {"email", "category", "extra"}
        assert outsider.post(URL, json={"repo_id": repo}).status_code == 422
        assert officer.get(URL, params={"repo_id": repo}).json() == []  # nothing was sent
        labelled = GOOD | {"Full name": GOOD["name"]}
        del labelled["name"]
        sent = outsider.post(URL, json={"repo_id": repo, "fields": labelled})
        assert (sent.status_code, sent.json()["answers"]) == (201, GOOD)
        assert officer.get(f"{URL}/{sent.json()['id']}").json()["open"] == []


def test_a_question_goes_back_and_forth_and_notes_stay_with_staff(world):
    repo = world.repos["researcher"]
    with world.client("outsider") as outsider, world.client("access_officer") as officer:
        draft = outsider.post(f"{URL}/drafts", json={"repo_id": repo, "answers": GOOD}).json()
        assert draft["secret"] is None
        sent = outsider.post(f"{URL}/drafts/{draft['id']}/submit").json()
        one = f"{URL}/{sent['request']['id']}"
        version = sent["request"]["version"]
        asked = officer.post(f"{one}/ask", json={"question": "Which texts?", "seen": version})
        assert asked.json()["state"] == "returned"
        late = officer.post(f"{one}/reject", json={"reason": "No.", "seen": version})
        assert (late.status_code, late.json()["reason"]) == (412, "access.stale")
        officer.post(f"{one}/notes", json={"text": "Looks fine."})
        body = {"message": "English.", "answers": {"purpose": "English texts, told apart."}}
        assert outsider.post(f"{one}/reply", json=body).json()["state"] == "submitted"
        theirs = outsider.get(one).json()
        assert [e["kind"] for e in theirs["events"]] == [
            "submitted",
            "assigned",
            "question",
            "answered",
        ]
        assert (theirs["notes"], theirs["open"]) == ([], [])
        assert officer.get(one).json()["notes"][0]["text"] == "Looks fine."
        declared = officer.post(f"{one}/conflicts", json={"reason": "A friend."})
        assert declared.status_code == 201
        refused = officer.post(f"{one}/approve", json={})
        assert refused.json()["reason"] == "access.conflict-declared"


def test_lists_are_followed_to_their_end(world):
    with world.client("outsider") as outsider, world.client("access_officer") as officer:
        ids = []
        for stage in ("researcher", "partner"):
            body = {"repo_id": world.repos[stage], "fields": GOOD}
            ids.append(outsider.post(URL, json=body).json()["id"])
        for first in (f"{URL}?limit=1", f"{URL}/queue?limit=1"):
            seen, url = [], first
            while url:
                page = officer.get(url)
                rows = page.json() if isinstance(page.json(), list) else page.json()["requests"]
                seen += [(row.get("request") or row)["id"] for row in rows]
                url = page.links.get("next", {}).get("url")
            assert sorted(seen) == sorted(ids)


def test_forms_are_linted_applied_and_shown(world):
    url = "/api/v1/access-forms"
    with world.client("access_officer") as officer:
        source = str(document_of(shipped_form()) | {"form": "mine"}).replace("True", "true")
        broken = officer.post(f"{url}/lint", json={"source": source.replace("checkbox", "tick")})
        assert broken.status_code == 422
        assert {f["field"] for f in broken.json()["fields"]} == {
            "fieldsets.2.fields.1.kind",
            "fieldsets.2.fields.2.kind",
        }
        assert all(f["sentence"].startswith("Line 1: ") for f in broken.json()["fields"])
        dry = officer.post(f"{url}?dry_run=true", json={"source": source})
        assert dry.json()["version"] == 1
        assert officer.get(f"{url}/mine").status_code == 404
        applied = officer.post(url, json={"source": source, "repo_id": world.repos["partner"]})
        assert applied.json()["in_force"] == [world.repos["partner"]]
        assert officer.get(f"{url}/mine").json()["document"]["form"] == "mine"
        shown = {f["slug"]: f["in_force"] for f in officer.get(url).json()}
        assert shown == {"mine": [world.repos["partner"]], "default": ["everywhere else"]}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"repo_id": "x"},
        {"repo_id": "x", "answers": []},
        {"repo_id": "x", "answers": {"a": None}},
        {"repo_id": "x", "answers": {"a": {"b": 1}}},
        {"repo_id": "x", "answers": {str(n): "" for n in range(101)}},
        {"repo_id": "", "answers": {}},
        {"repo_id": "x", "answers": {}, "more": 1},
    ],
)
def test_what_is_no_draft_is_refused_in_one_shape(world, body):
    with world.client() as nobody:
        got = nobody.post(f"{URL}/drafts", json=body)
    assert got.status_code == 422
    assert got.json()["fields"]


def test_too_many_drafts_are_refused_with_when_to_come_back(world):
    with world.client() as nobody:
        body = {"repo_id": world.repos["researcher"], "answers": {}}
        codes = [nobody.post(f"{URL}/drafts", json=body).status_code for _ in range(20)]
        late = nobody.post(f"{URL}/drafts", json=body)
    assert set(codes) == {201}
    assert late.status_code == 429
    assert 0 < int(late.headers["retry-after"]) <= 3600


def test_hub_clients_ask_and_decide_over_the_same_form(world):
    repo = world.repos["researcher"]
    with world.client("outsider") as outsider, world.client("access_officer") as officer:
        sent = outsider.post(f"/{repo}/ask-access", data={"Full name": "Oto", "Country": "Nowhere"})
        assert sent.json()["fields"] == {"name": "Oto", "Country": "Nowhere"}
        assert {"purpose", "no_sharing"} <= set(sent.json()["open_fields"])
        assert "name" not in sent.json()["open_fields"]
        row = officer.get(URL, params={"repo_id": repo}).json()[0]
        assert (row["origin"], row["answers"]["name"]) == ("hub", "Oto")
        page = officer.get(f"{URL}/{row['id']}").json()
        assert page["form"]["slug"] == "default"
        assert "purpose" in page["open"]
    api = HfApi(endpoint=world.base_url, token=world.tokens["access_officer"])
    pending = api.list_pending_access_requests(repo)
    assert [(r.username, r.fields) for r in pending] == [
        ("demo-outsider", {"name": "Oto", "Country": "Nowhere"})
    ]
    api.reject_access_request(repo, "demo-outsider", rejection_reason="Say why.")
    assert [r.username for r in api.list_rejected_access_requests(repo)] == ["demo-outsider"]
    api.cancel_access_request(repo, "demo-outsider")
    assert [r.username for r in api.list_pending_access_requests(repo)] == ["demo-outsider"]

"""Release control's JSON face: shapes, codes, dry runs. What may happen is the machine's matter."""

from __future__ import annotations

import hashlib
import json

import httpx
import pytest
from make_release import PLAN, REPO, Staffed, database_url, make_revision, staff, staffed, track

from live import box, server
from stagerelease.kernel.actor import OPERATOR

__all__ = ["box", "database_url", "server", "staff", "staffed", "track"]  # fixtures


@pytest.fixture
def call(server, staffed: Staffed):
    """Return a function that asks as somebody, and expects a status."""

    def ask(method: str, path: str, *, who: str | None = "mia", says: int = 200, **options):
        headers = {"Content-Type": "application/json"} if "content" in options else {}
        headers |= {"Authorization": f"Bearer {staffed.tokens[who]}"} if who else {}
        reply = httpx.request(
            method, f"{server.base_url}/api/v1{path}", headers=headers, timeout=30, **options
        )
        assert reply.status_code == says, reply.text
        return reply.json()

    return ask


def test_a_plan_is_kept_as_it_was_sent(call):
    source = PLAN.replace("plan: ours", "plan: theirs")
    body = {"source": source, "rationale": "New."}
    row = call("POST", "/plans", json=body, says=201)
    assert row["sha256"] == hashlib.sha256(source.encode()).hexdigest()
    seen = {"sha256": row["sha256"]}
    call(
        "POST",
        f"/plan-proposals/{row['id']}/consent",
        json={"sha256": "0" * 64},
        who="rae",
        says=412,
    )
    done = call("POST", f"/plan-proposals/{row['id']}/consent", json=seen, who="rae")
    assert done["state"] == "applied"
    assert call("GET", f"/plan-proposals/{row['id']}")["state"] == "applied"
    shown = call("GET", "/plans/theirs", params={"version": 1})
    assert (shown["source"], shown["document"]["plan"]) == (source, "theirs")
    assert [p["slug"] for p in call("GET", "/plans")] == ["ours", "theirs"]
    call("GET", "/plans/theirs", params={"version": 2}, says=404)
    wrong = call("POST", "/plans", json={**body, "source": "plan: A B"}, says=422)
    assert {"plan", "title", "stages"} <= {f["field"] for f in wrong["fields"]}
    call("POST", "/plans", json=body, who="rae", says=403)
    findings = call("POST", "/plans/lint", json={"source": source.replace("P14D", "soon")})
    assert [f["severity"] for f in findings] == ["error"]
    assert call("GET", "/plans/schema.json", who=None)["title"] == "Release plan"
    move = {"to": "partner"}
    track = call("GET", "/tracks")[0]["id"]
    assert call("POST", f"/tracks/{track}/simulate", json=move)["asked"] == ["quorum"]


def test_a_track_is_started_and_shown(call, box):
    with box.works.begin(OPERATOR) as work:
        make_revision(work, "gpt2-mini/two", salt="b")
    body = {"repo_id": "gpt2-mini/two", "plan": "demo"}
    call("POST", "/tracks", json=body, params={"dry_run": True}, says=201)
    assert [t["repo_id"] for t in call("GET", "/tracks")] == [REPO]
    track = call("POST", "/tracks", json=body, says=201)
    call("POST", "/tracks", json=body, says=409)
    page = call("GET", f"/tracks/{track['id']}", who="aud")
    assert page["track"] == track
    assert [e["to_stage"] for e in page["events"]] == ["internal"]
    gates = call("GET", f"/tracks/{track['id']}/gates", params={"to": "partner"})
    assert [g["key"] for g in gates] == [
        *("dwell", "quorum", "hold", "not_before", "no_incident"),
    ]
    refused = call("GET", f"/tracks/{track['id']}/gates", params={"to": "public"}, says=409)
    assert [b["code"] for b in refused["blockers"]] == ["no-such-move"]
    rows = call("GET", "/board")["rows"]
    assert {row["repo_id"] for row in rows} == {REPO, "gpt2-mini/two"}
    for path in ("/tracks", f"/tracks/{track['id']}", "/board", "/promotions", "/holds"):
        call("GET", path, who="nia", says=403)
        call("GET", path, who=None, says=401)


def test_a_request_shows_what_blocks_it_until_it_is_applied(call, track):
    body = {"track_id": track.id, "to": "partner", "rationale": "Ready."}
    request = call("POST", "/promotions", json=body, says=201)
    path = f"/promotions/{request['id']}"
    seen = {"request_hash": request["request_hash"]}
    blocked = call("POST", f"{path}/apply", says=409)
    assert (blocked["code"], [b["code"] for b in blocked["blockers"]]) == (
        "blocked",
        ["gate.quorum"],
    )
    call("POST", f"{path}/approve", json={"request_hash": "0" * 64}, who="rae", says=412)
    call("POST", f"{path}/approve", json=seen | {"by": "rob"}, who="rae", says=422)
    for who in ("rae", "rob"):
        call("POST", f"{path}/approve", json=seen, who=who)
    call("POST", f"{path}/apply", params={"dry_run": True})
    shown = call("GET", path, who="aud")
    assert (shown["promotion"]["state"], shown["track_stage"]) == ("approved", "internal")
    assert [a["person"] for a in shown["approvals"]] == ["rae", "rob"]
    assert {g["outcome"] for g in shown["gates"]} == {"passed"}
    assert call("POST", f"{path}/apply")["state"] == "applied"
    assert call("GET", f"/tracks/{track.id}")["track"]["stage"] == "partner"
    assert call("GET", "/promotions", params={"state": "submitted"}) == []
    call("GET", "/promotions", params={"state": "lost"}, says=422)
    page = call("POST", f"/tracks/{track.id}/withdraw", json={"reason": "Harm."}, who="sam")
    assert page["track"]["stage"] == "withdrawn"


def test_holds_are_listed_with_their_consents(call, track):
    body = {"scope": "track", "scope_id": track.id, "reason": "Incident.", "public_reason": "Soon."}
    hold = call("POST", "/holds", json=body, who="sam", says=201)
    assert call("GET", f"/tracks/{track.id}")["holds"] == [hold]
    for who in ("sam", "sue"):
        call("POST", f"/holds/{hold['id']}/lift", json={"reason": "Over."}, who=who)
    shown = call("GET", f"/holds/{hold['id']}")
    assert [c["reason"] for c in shown["consents"]] == ["Over.", "Over."]
    assert call("GET", "/holds", params={"active": True}) == []
    assert len(call("GET", "/holds", params={"active": False})) == 1


@pytest.mark.parametrize(
    "path", ["/promotions/999", "/holds/999", "/tracks/trk_none", "/tracks/%C3%BC", "/plans/none"]
)
def test_what_is_not_there_is_not_found(call, path):
    assert call("GET", path, says=404)["code"] == "not-found"


@pytest.mark.parametrize("number", ["0", "-1", str(2**31), str(2**80), "one"])
def test_numbers_that_cannot_be_are_refused(call, number):
    call("GET", f"/promotions/{number}", says=422)
    call("POST", f"/holds/{number}/lift", json={"reason": "x"}, says=422)


@pytest.mark.parametrize("text", ["nul \x00", "half \ud800", "bell \x07"])
def test_texts_that_cannot_be_kept_are_refused(call, track, text):
    body = json.dumps({"track_id": track.id, "to": "partner", "rationale": text})
    reply = call("POST", "/promotions", content=body.encode(), says=422)
    assert reply["code"] == "invalid"

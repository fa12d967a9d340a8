"""Waivers and the page of facts on the command line and over JSON, end to end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from make_release import database_url, make_track, staff, staffed
from test_releases_api import call
from test_releases_cli import shell

from live import box, server

__all__ = ["box", "call", "database_url", "server", "shell", "staff", "staffed"]  # fixtures
PLAN = """
plan: locked
title: Locked
stages:
  - {name: internal, audience: staff}
  - name: partner
    audience: organisations
    agreement: model-sharing
    gates:
      - {kind: card_locked}
      - {kind: evidence, key: useful, type: benefit, metric: users, at_least: 1}
"""


@pytest.fixture
def track_id(shell, tmp_path):
    """A track that waits for a locked card and for evidence."""
    source = tmp_path / "locked.yaml"
    source.write_text(PLAN)
    proposal = shell.json("plan", "apply", str(source), "-m", "To test.", who="mia")
    shell.run("plan", "consent", str(proposal["id"]), proposal["sha256"], who="rae")
    track = shell.json(
        "track", "create", "gpt2-mini/one", "--kind", "model_card", "--plan", "locked"
    )
    return track["id"]


def test_a_waiver_from_end_to_end(shell, track_id):
    """Propose, sign, look, apply, end: each by whom it belongs to."""
    opening = ("promotion", "open", track_id, "--to", "partner", "-m", "Ready.")
    shell.run(*opening, "--evidence", "evd_none", who="mia", says=1)
    opened = shell.json(*opening, who="mia")
    number = str(opened["id"])
    for who in ("rae", "rob"):
        shell.run("promotion", "approve", number, "--hash", opened["request_hash"], who=who)
    until = (datetime.now(UTC) + timedelta(days=9)).isoformat()
    propose = ("waiver", "propose", track_id, "--stage", "partner", "-m", "No lab.")
    shell.run(*propose, "--gate", "quorum", "--until", until, who="sam", says=3)
    shell.run(*propose, "--gate", "useful", "--until", until, who="mia", says=3)
    ids = []
    for gate in ("useful", "card_locked"):
        asked = (*propose, "--gate", gate, "--until", until)
        shell.run(*asked, "--dry-run", who="sam")
        ids.append(shell.json(*asked, who="sam")["id"])
    shell.run("promotion", "apply", number, who="mia", says=4)
    for waiver in ids:
        assert shell.json("waiver", "sign", waiver, who="sue")["state"] == "in_force"
    page = shell.run("promotion", "show", number, who="aud")
    assert "w waived" in page
    assert "Waived by sam and sue until" in page
    assert "Waivers, ended ones too" in page
    assert "✗ rae: Has approved this request already." in page
    assert "✓ roy: May approve." in page
    assert "Nothing blocks it." in page
    ended = shell.json("waiver", "end", ids[1], "-m", "It is locked now.", who="roy")
    assert ended["state"] == "ended"
    shell.run("promotion", "apply", number, who="mia", says=4)
    assert [w["id"] for w in shell.json("waiver", "list", "--track", track_id)] == sorted(ids)
    assert len(shell.json("waiver", "list", "--limit", "1")) == 1
    shown = shell.json("waiver", "show", ids[0])
    assert [s["person"] for s in shown["signatures"]] == ["sam", "sue"]
    gates = shell.json("promotion", "show", number, who="aud")["gates"]
    assert {g["key"]: g["outcome"] for g in gates if g["waivable"]} == {
        "card_locked": "pending",
        "useful": "waived",
    }


def test_the_same_over_json(call, works, clock):
    track = make_track(works, repo_id="gpt2-mini/two", plan=PLAN, salt="b")
    asked = {"track_id": track.id, "to": "partner", "rationale": "Ready."}
    wrong = call("POST", "/promotions", json={**asked, "evidence_ids": ["evd_none"]}, says=422)
    assert wrong["fields"][0]["field"] == "evidence_ids.0"
    opened = call("POST", "/promotions", json=asked, says=201)
    body = {
        "track_id": track.id,
        "stage": "partner",
        "gate": "card_locked",
        "reason": "It is locked tomorrow. <script>alert(1)</script>",
        "ends_at": (clock.now() + timedelta(days=9)).isoformat(),
    }
    never = call("POST", "/waivers", json={**body, "gate": "dwell"}, who="sam", says=403)
    assert never["reason"] == "waiver.never"
    call("POST", "/waivers", json={**body, "ends_at": "2026-03-03T00:00:00"}, who="sam", says=422)
    call("POST", "/waivers", json={**body, "extra": 1}, who="sam", says=422)
    dry = {"dry_run": "true"}
    call("POST", "/waivers", json=body, params=dry, who="sam", says=201)
    assert call("GET", "/waivers", who="aud") == []
    made = [call("POST", "/waivers", json=body, who="sam", says=201) for _ in range(3)]
    assert [w["state"] for w in made] == ["pending"] * 3
    signed = call("POST", f"/waivers/{made[0]['id']}/sign", who="sue")
    assert signed["state"] == "in_force"
    call("POST", f"/waivers/{made[0]['id']}/sign", who="roy", says=409)
    call("POST", "/waivers/wvr_none/sign", who="roy", says=404)
    page = call("GET", f"/promotions/{opened['id']}", who="aud")
    gate = next(g for g in page["gates"] if g["key"] == "card_locked")
    assert (gate["outcome"], gate["verdict"], gate["found"]) == ("waived", "waived", "pending")
    assert [s["name"] for s in gate["waiver"]["signers"]] == ["sam", "sue"]
    assert page["waivers"][0]["reason"] == body["reason"]  # data; escaping is a page's matter
    assert page["deciders"][0]["person"] == "bot"
    assert page["evidence"] == []
    ended = call("POST", f"/waivers/{made[0]['id']}/end", json={"reason": "Done."}, who="roy")
    assert ended["ended_at"] is not None
    first = call("GET", "/waivers", params={"limit": 2, "track_id": track.id}, who="aud")
    rest = call("GET", "/waivers", params={"after": first[-1]["id"]}, who="aud")
    assert sorted(w["id"] for w in made) == [w["id"] for w in first + rest]


def test_requests_are_listed_page_by_page(call, works):
    track = make_track(works, repo_id="gpt2-mini/two", plan=PLAN, salt="b")
    asked = {"track_id": track.id, "to": "partner", "rationale": "Ready."}
    numbers = [call("POST", "/promotions", json=asked, says=201)["id"] for _ in range(3)]
    first = call("GET", "/promotions", params={"limit": 2}, who="aud")
    rest = call("GET", "/promotions", params={"limit": 2, "after": first[-1]["id"]}, who="aud")
    assert [p["id"] for p in first + rest] == numbers
    for after in ("x", "9" * 40, "²"):
        assert call("GET", "/promotions", params={"after": after}, who="aud") == []

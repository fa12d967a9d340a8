"""Incidents from the command line: the same use cases, exit codes, words."""

from __future__ import annotations

import json

import pytest
from make_release import staffed
from test_releases_cli import shell

__all__ = ["shell", "staffed"]  # fixtures


def test_an_incident_from_end_to_end(shell, staffed):
    """Report, triage, confirm, mitigate, close by two, re-open: each by whom it belongs to."""
    track = staffed.track_id
    taken = shell.json("incident", "report", "They are on a forum.", "--about", "one", who="nia")
    number = str(taken["incident_id"])
    assert len(taken["reference"]) == 32
    triage = ("incident", "triage", number, "--severity", "high", "--blocking", "--track", track)
    shell.run(*triage, who="aud", says=3)
    shell.run(*triage, who="nia", says=3)
    shell.run("incident", "confirm", number, "-m", "Seen.", who="sam", says=1)  # not triaged
    row = shell.json(*triage, "--tier", "2", "--summary", "Weights leaked.", who="sam")
    assert (row["state"], row["actor_tier"]) == ("triaged", 2)
    shell.run("incident", "confirm", number, "-m", "Seen.", "--dry-run", who="sam")
    assert shell.json("incident", "show", number, who="aud")["incident"]["state"] == "triaged"
    page = shell.json("incident", "confirm", number, "-m", "Seen.", who="sam")
    assert page["incident"]["state"] == "confirmed"
    (hold,) = page["holds"]
    assert "✗ here, on hold" in shell.run("board")
    assert shell.json("incident", "public")[0]["summary"] == "Weights leaked."
    shell.run("incident", "mitigate", number, "-m", "Gone.", who="sam")
    shell.run("incident", "update", number, "Looking good.", "--for", "public", who="sam")
    close = ("incident", "close", number, "-m", "Over.")
    shell.run(*close, says=3)  # the operator is nobody's second person
    assert "mitigated" in shell.run(*close, who="sam")
    shell.run(*close, who="sam", says=1)
    page = shell.json(*close, who="sue")
    assert page["incident"]["state"] == "closed"
    assert shell.json("incident", "list", "--state", "open", who="aud") == []
    assert [h["id"] for h in page["holds"] if h["lifted_at"] is None] == [hold["id"]]
    page = shell.json("incident", "reopen", number, "-m", "Back.", who="sam")
    assert page["incident"]["state"] == "confirmed"
    assert len(page["holds"]) == 1


def test_dismissing_and_erasing(shell):
    number = str(shell.json("incident", "report", "A joke.", who="nia")["incident_id"])
    shell.run("incident", "triage", number, "--severity", "low", "--no-blocking", who="sam")
    row = shell.json("incident", "dismiss", number, "-m", "A joke.", "--reply", "Ha.", who="sam")
    assert row["state"] == "dismissed"
    shell.run("incident", "erase-report", number, "-m", "Asked.", "--words", who="sam")
    page = shell.json("incident", "show", number, who="sam")
    assert page["report"]["text"] == "[erased]"


def test_advisories_and_usage(shell, staffed):
    assert shell.json("advisory", "list", who="nia") == []
    assert shell.json("advisory", "list", "--overdue", who="aud") == []
    shell.run("advisory", "list", "--overdue", who="nia", says=3)
    shell.run("advisory", "acknowledge", "adr_none", who="nia", says=1)
    assert shell.json("usage", "show", who="sam") == []
    assert shell.json("usage", "anomalies", "--days", "30", who="aud") == []
    shell.run("usage", "show", who="nia", says=3)
    draft = shell.json(
        "usage", "evidence", "--track", staffed.track_id, "--metric", "downloads", who="sam"
    )
    assert (draft["state"], draft["value"]) == ("draft", 0.0)


@pytest.mark.parametrize("command", [("incident", "show", "99"), ("incident", "list")])
def test_refusals_are_told_by_exit_code(shell, command):
    shell.run(*command, who="nia", says=3)
    if command[-1] == "99":
        shell.run(*command, who="sam", says=1)
    assert json.loads(shell.run("-o", "json", "incident", "list", who="sam")) == []

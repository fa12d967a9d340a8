"""Evidence and coordination from the command line: the same use cases, exit codes, words."""

from __future__ import annotations

import json

import pytest
from make_evidence import WEIGHTS
from make_release import Staffed, staffed
from test_releases_cli import Shell

__all__ = ["staffed"]

FOUND = {
    "type": "finetune_misuse",
    "metric": "finding",
    "title": "Four positions fine-tuned",
    "subject_sha256": WEIGHTS,
    "source": "GPT-2: 1.5B Release",
    "fact_status": "verified",
    "measured_at": "2019-11-05",
    "verdict": "feasible",
    "finding": "Propaganda generation is feasible.",
    "conditions": {"fine_tuned_on": "four extremist positions"},
}


@pytest.fixture
def shell(staffed: Staffed, tmp_path):
    with staffed.copied(tmp_path) as url:
        yield Shell(staffed, url, tmp_path / "data")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "finding.json"
    path.write_text(json.dumps(FOUND))
    return str(path)


def test_a_life_of_evidence(shell, file, tmp_path):
    draft = shell.json("evidence", "submit", file, "--draft", who="mia")
    assert draft["state"] == "draft"
    table = tmp_path / "table.csv"
    table.write_text("a,b\n1,2\n")
    shell.run(
        "evidence", "attach", draft["id"], str(table), "--sha256", "0" * 64, who="mia", says=1
    )
    kept = shell.json("evidence", "attach", draft["id"], str(table), who="mia")
    assert (kept["filename"], kept["size"]) == ("table.csv", 8)
    shell.run("evidence", "attach", draft["id"], str(tmp_path), who="mia", says=1)
    done = shell.json("evidence", "submit", "--id", draft["id"], who="mia")
    assert done["state"] == "submitted"
    shell.run("evidence", "accept", draft["id"], says=3)  # a shell is nobody's judgement
    shell.run("evidence", "accept", draft["id"], who="mia", says=3)
    shell.run("evidence", "accept", draft["id"], "--reason", "Read.", who="rae")
    assert (
        shell.json("evidence", "dispute", draft["id"], "--reason", "Is it?", who="sam")["reopened"]
        == []
    )
    shell.run("evidence", "resolve", draft["id"], "--reason", "It is.", who="rob")
    shell.run("evidence", "publish", draft["id"], who="rob", says=1)  # not marked public
    page = shell.json("evidence", "show", draft["id"])
    assert page["evidence"]["state"] == "accepted"
    assert page["attachments"][0]["sha256"] == kept["sha256"]
    assert shell.json("evidence", "list", "--state", "accepted")[0]["id"] == draft["id"]
    shell.run("evidence", "retract", draft["id"], "--reason", "Wrong.", who="rae")
    assert "retracted" in shell.run("evidence", "list")
    other = shell.json("evidence", "submit", file, who="mia")
    shell.run("evidence", "reject", other["id"], "--reason", "Twice.", who="rae")


def test_a_detectors_precision_is_said(shell, tmp_path):
    path = tmp_path / "accuracy.json"
    path.write_text(
        json.dumps(
            {
                **{k: FOUND[k] for k in ("title", "subject_sha256", "source", "fact_status")},
                "type": "detectability",
                "metric": "accuracy",
                "measured_at": "2019-11-05",
                "value": 95,
                "unit": "percent",
                "conditions": {
                    "detector": "RoBERTa",
                    "sampler": "top-k 40",
                    "base_rate": 0.01,
                    "text_length": 500,
                    "text_length_unit": "characters",
                },
            }
        )
    )
    row = shell.json("evidence", "submit", str(path), who="mia")
    page = shell.json("evidence", "show", row["id"])
    assert "16.1 % of alarms would be right" in page["beside"][0]


def test_imports(shell, file, tmp_path):
    cards = tmp_path / "README.md"
    cards.write_text(
        "---\nmodel-index:\n- name: m\n  results:\n  - dataset: {name: LAMBADA}\n"
        "    metrics: [{type: perplexity, value: 8.63}]\n---\n"
    )
    command = (
        "evidence",
        "import",
        str(cards),
        "--subject",
        WEIGHTS,
        "--measured-at",
        "2019-02-14",
    )
    assert len(shell.json(*command, "--dry-run", who="mia")) == 1
    assert shell.json("evidence", "list") == []
    assert shell.json(*command, who="mia")[0]["metric"] == "perplexity"
    shell.run("evidence", "import", file, who="mia", says=1)  # an object, and no list
    shell.run("evidence", "import", str(tmp_path / "none.csv"), who="mia", says=1)
    shell.run("evidence", "submit", who="mia", says=1)
    assert "detectability" in shell.json("evidence", "types")
    assert shell.json("evidence", "types", "benefit")["title"] == "benefit"
    shell.run("evidence", "types", "nonsense", says=1)


def test_coordination(shell):
    command = ("coordination", "add", "gpt2-mini", "--developer", "Brown University")
    command += ("--claim", "OpenGPT-2", "--kind", "replication", "--on", "2019-08-22")
    command += ("--source", "Their post", "--fact-status", "verified")
    shell.run(*command, who="aud", says=3)
    row = shell.json(*command, "--size", "1500000000", who="sam")
    shell.run("coordination", "update", row["id"], "--status", "contacted", who="sam")
    shell.run("coordination", "update", row["id"], "--status", "friends", who="sam", says=1)
    assert shell.json("coordination", "list", "--family", "gpt2-mini")[0]["status"] == "contacted"
    assert len(shell.json("coordination", "show", row["id"])["events"]) == 2

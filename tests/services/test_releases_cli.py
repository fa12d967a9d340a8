"""Release control from the command line: the same use cases, exit codes, words."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from make_release import PLAN, Staffed, staffed
from typer.main import get_command

from stagerelease.cli.app import app, exit_code
from stagerelease.kernel.errors import DomainError

COMMAND = get_command(app)  # once: putting the tree together is most of a small command
__all__ = ["staffed"]  # a fixture


class Shell:
    """Runs commands against a private copy of the small world."""

    def __init__(self, staffed: Staffed, url: str, data: Path) -> None:
        self.staffed = staffed
        self.env = {"STAGERELEASE_DATABASE_URL": url, "DATA_DIR": str(data)}

    def run(self, *command: str, who: str | None = None, says: int = 0) -> str:
        """Run a command as ``who`` (the operator when None); it must exit with ``says``."""
        token = self.staffed.tokens[who] if who else ""
        result = CliRunner().invoke(
            COMMAND, list(command), env={**self.env, "STAGERELEASE_TOKEN": token}
        )
        code = result.exit_code
        if isinstance(result.exception, DomainError):
            code = exit_code(result.exception)
        elif result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert code == says, (command, result.output, result.exception)
        return result.stdout

    def json(self, *command: str, who: str | None = None):
        return json.loads(self.run("-o", "json", *command, who=who))


@pytest.fixture
def shell(staffed: Staffed, tmp_path: Path):
    with staffed.copied(tmp_path) as url:
        yield Shell(staffed, url, tmp_path / "data")


def test_a_release_from_end_to_end(shell, staffed):
    """Open, review, hold, lift, apply, look, withdraw: each by whom it belongs to."""
    track = staffed.track_id
    opening = ("promotion", "open", track, "--to", "partner", "-m", "Ready.")
    shell.run(*opening, says=3)  # the operator is nobody's requester
    shell.run(*opening, "--dry-run", who="mia")
    assert shell.json("promotion", "list", "--track", track) == []
    number = str(shell.json(*opening, who="mia")["id"])  # a dry run may have used one up
    page = shell.json("promotion", "show", number)
    seen = ("--hash", page["promotion"]["request_hash"])
    assert [b["code"] for b in page["blockers"]] == ["gate.quorum"]
    shell.run("promotion", "apply", number, says=4)
    shell.run("promotion", "approve", number, *seen, says=3)
    shell.run("promotion", "approve", number, "--hash", "0" * 64, who="rae", says=1)
    shell.run("promotion", "approve", number, *seen, who="rae")
    assert f"◐ request {number}, in review: 1 of 2 approvals" in shell.run("board")
    shell.run("promotion", "approve", number, *seen, "-m", "Yes.", who="rob")
    shell.run("hold", "lay", "-m", "Incident.", "--on", track, who="sam")
    assert "✗ here, on hold" in shell.run("board")
    shell.run("promotion", "apply", number, says=4)
    for who in ("sam", "sue"):
        shell.run("hold", "lift", "1", "-m", "Over.", who=who)
    assert shell.json("hold", "list") == []
    assert len(shell.json("hold", "list", "--all")) == 1
    shell.run("promotion", "apply", number, "--dry-run")
    assert shell.json("track", "show", track)["track"]["stage"] == "internal"
    shell.run("promotion", "apply", number, who="mia")
    shown = shell.run("promotion", "show", number)
    assert "approve by rob" in shown
    assert shell.json("board")["rows"][0]["stage"] == "partner"
    assert "partner" in shell.run("track", "show", track)
    shell.run("track", "withdraw", track, "-m", "Harm.", who="sam")
    assert shell.json("track", "list", "--stage", "withdrawn")[0]["id"] == track


def test_a_request_goes_back_is_edited_and_ends(shell, staffed):
    opening = ("promotion", "open", staffed.track_id, "--to", "partner", "-m", "Ready.", "--draft")
    first = shell.json(*opening, who="mia")
    assert first["state"] == "draft"
    shell.run("promotion", "resubmit", "1", who="mia")
    seen = ("--hash", first["request_hash"])
    shell.run("promotion", "request-changes", "1", *seen, "-m", "Say why.", who="rae")
    shell.run("promotion", "edit", "1", "-m", "Why.", "--at", "2099-01-01", who="mia", says=1)
    day = f"{datetime.now(UTC) + timedelta(days=10):%Y-%m-%d}"
    edited = shell.json("promotion", "edit", "1", "-m", "Why.", "--at", day, who="mia")
    assert (edited["state"], edited["scheduled_for"]) == ("draft", f"{day}T00:00:00.000Z")
    shell.run("promotion", "edit", "1", "--unschedule", who="mia")
    again = shell.json("promotion", "resubmit", "1", who="mia")
    seen = ("--hash", again["request_hash"])
    judging = ("promotion", "judge", "1", "--gate", "card-read", "--yes", "-m", "Read.")
    shell.run(*judging, *seen, who="rae", says=1)  # partner has no manual gate
    shell.run("promotion", "reject", "1", *seen, "-m", "No.", who="rae")
    shell.run("promotion", "cancel", "1", who="mia", says=1)
    assert [p["state"] for p in shell.json("promotion", "list")] == ["rejected"]


def test_plans_are_checked_applied_and_shown(shell, tmp_path):
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN.replace("plan: ours", "plan: theirs"))
    assert shell.json("plan", "lint", str(file))["document"]["plan"] == "theirs"
    shell.run("plan", "lint", "demo")
    shell.run("plan", "apply", str(file), "-m", "New.", "--dry-run", who="mia")
    assert shell.json("plan", "proposals") == []
    made = shell.json("plan", "apply", str(file), "-m", "New.", who="mia")
    assert {p["slug"] for p in shell.json("plan", "list")} == {"ours"}
    done = shell.json("plan", "consent", str(made["id"]), made["sha256"], who="rae")
    assert (done["state"], done["missing"]) == ("applied", 0)
    assert shell.run("plan", "show", "theirs") == file.read_text()
    other = tmp_path / "other.yaml"
    other.write_text(file.read_text().replace("P14D", "P7D"))
    (change,) = shell.json("plan", "diff", "theirs@1", str(other))
    assert (change["effect"], change["before"], change["after"]) == ("loosens", "P14D", "P7D")
    again = shell.json("plan", "apply", str(other), "-m", "Sooner.", who="mia")
    assert shell.json("plan", "proposal", str(again["id"]))["changes"]
    shell.run("plan", "cancel", str(again["id"]), "-m", "No.", who="mia")
    broken = file.read_text().replace("P14D", "never")
    other.write_text(broken)
    line = 1 + broken[: broken.index("never")].count("\n")
    assert f"{other}:{line}: error: " in shell.run("plan", "lint", str(other), says=1)
    simulated = ("plan", "simulate", "--track", shell.staffed.track_id, "--to", "partner")
    assert shell.json(*simulated)["asked"] == ["quorum"]
    file.write_text("plan: [")
    shell.run("plan", "lint", str(file), says=1)
    shell.run("plan", "apply", str(tmp_path / "none.yaml"), says=1)
    shell.run("plan", "show", "theirs", "--version", "2", says=1)
    shell.run("plan", "apply", "demo", who="nia", says=3)

"""Access requests and forms from the command line: the same use cases, exit codes, words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from make_partners import REPO, World, database_url, partnered, world
from typer.main import get_command

from stagerelease.access import service
from stagerelease.access.forms import document_of, shipped_form
from stagerelease.cli.app import app, exit_code
from stagerelease.db.work import Works
from stagerelease.kernel.errors import DomainError

COMMAND = get_command(app)  # once: putting the tree together is most of a small command
__all__ = ["database_url", "partnered", "world"]  # fixtures


@pytest.fixture
def shell(world: World, tmp_path: Path):
    world.climb("researcher")
    url = world.works.engine.url.render_as_string(hide_password=False)
    env = {"STAGERELEASE_DATABASE_URL": url, "DATA_DIR": str(tmp_path / "data")}

    def run(*command: str, who: str | None = None, says: int = 0):
        token = world.tokens[who] if who else ""
        result = CliRunner().invoke(
            COMMAND, ["-o", "json", *command], env={**env, "STAGERELEASE_TOKEN": token}
        )
        code = result.exit_code
        if isinstance(result.exception, DomainError):
            code = exit_code(result.exception)
        elif result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert code == says, (command, result.output, result.exception)
        return json.loads(result.stdout) if result.stdout.strip() else None

    return run


def now(world: World, who: str):
    """Open a Work of ``who`` by the machine's clock, which commands go by."""
    return Works(world.works.engine).begin(world.actor(who))


def test_a_request_from_queue_to_decision(shell, world):
    world.sign("rex", "researcher-terms")
    ids = []
    for who in ("rex", "ron"):
        with now(world, who) as work:
            row = service.submit(work, repo_id=REPO, answers={"purpose": "Reading a lot."})
            ids.append(row.id)
    assert [row["id"] for row in shell("request", "list", who="olga")] == sorted(ids)
    shell("request", "list", who="rex", says=3)
    assert len(shell("request", "list", "--limit", "1", who="aud")) == 1
    assert shell("request", "assign", ids[0], who="olga")["assignee"] == "olga"
    assert shell("request", "assign", ids[0], "otto", who="olga")["assignee"] == "otto"
    assert [r["id"] for r in shell("request", "list", "--assignee", "me", who="otto")] == ids[:1]
    shell("request", "note", ids[0], "A note.", who="otto")
    shell("request", "conflict", ids[0], "--reason", "A friend.", who="olga")
    shell("request", "approve", ids[0], who="olga", says=3)
    shell("request", "approve", ids[0], "--seen", "1", who="otto", says=1)
    shell("request", "approve", ids[0], "--until", "2001-01-01", who="otto", says=1)
    row = shell("request", "approve", ids[0], "--comment", "Welcome.", who="otto")
    assert (row["state"], row["grant_state"]) == ("approved", "active")
    assert shell("request", "ask", ids[1], "Why?", who="olga")["state"] == "returned"
    with now(world, "ron") as work:
        service.reply(work, ids[1], message="Because.")
    row = shell("request", "reject", ids[1], "--reason", "No.", who="olga")
    assert row["reason"] == "No."
    page = shell("request", "show", ids[0], who="aud")
    assert [note["text"] for note in page["notes"]] == ["A note."]
    assert [c["reason"] for c in page["conflicts"]] == ["A friend."]
    assert shell("request", "show", ids[0], who="rex")["notes"] == []
    assert shell("request", "list", who="olga") == []


def test_a_form_is_linted_applied_and_shown(shell, tmp_path):
    path = tmp_path / "form.yaml"
    path.write_text(yaml.safe_dump(document_of(shipped_form()) | {"form": "mine"}))
    shell("form", "lint", str(path))
    shell("form", "apply", str(path), who="mia", says=3)
    shell("form", "apply", str(path), "--dry-run", who="olga")
    shell("form", "show", "mine", who="olga", says=1)
    row = shell("form", "apply", str(path), "--repo", REPO, who="olga")
    assert (row["version"], row["in_force"]) == (1, [REPO])
    shown = shell("form", "show", "mine", who="aud")
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(shown))
    assert shell("form", "apply", str(again), who="olga")["version"] == 1
    assert {r["slug"] for r in shell("form", "list", who="aud")} == {"mine", "default"}
    path.write_text(path.read_text().replace("checkbox", "tick"))
    for broken in (path, tmp_path / "none.yaml"):
        shell("form", "lint", str(broken), says=1)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    shell("form", "lint", str(tmp_path / "bytes"), says=1)

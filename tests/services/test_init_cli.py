"""``stagerelease init``: the first owner, and the link that lets them in once."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from typer.main import get_command

from stagerelease.bootstrap import build
from stagerelease.cli.app import app
from stagerelease.identity import proving
from stagerelease.identity.sessions import authenticate_session, require_proof
from stagerelease.kernel.errors import Conflict, DomainError, Forbidden
from stagerelease.settings import Settings

COMMAND = get_command(app)
ADA = ("init", "ada", "--name", "Ada Example", "--email", "ada@example.org")


@pytest.fixture
def shell(tmp_path: Path):
    def run(*command: str, refused: type[DomainError] | None = None, **more: str) -> str:
        env = {"DATA_DIR": str(tmp_path / "data"), "STAGERELEASE_TOKEN": "", **more}
        result = CliRunner().invoke(COMMAND, command, env=env)
        if refused is not None:
            assert isinstance(result.exception, refused), result.output
        elif result.exception is not None:
            raise result.exception
        return result.stdout.strip()

    return run


def test_the_first_owner_comes_in_by_a_printed_link_once(shell, tmp_path):
    link = shell(*ADA)
    assert link.startswith("http://localhost:8000/enrol?t=")
    box = build(Settings(data_dir=tmp_path / "data"))
    token = link.partition("?t=")[2]
    with box.works.begin() as work:
        cookie = proving.enter(work, box.link_key, token, replaces=None)
        actor = authenticate_session(work, cookie)
        assert (actor.name, actor.roles) == ("ada", {"owner"})
        require_proof(work, cookie)  # so that a passkey can be made at once
    with pytest.raises(Conflict), box.works.begin() as work:
        proving.enter(work, box.link_key, token, replaces=None)
    with pytest.raises(Forbidden), box.works.begin(actor) as work:
        proving.make_enrolment(work, "ada")  # only a shell on the host prints one
    box.works.engine.dispose()
    shell(*ADA, refused=Conflict)
    again = shell("person", "enrol", "ada", STAGERELEASE_PUBLIC_URL="https://models.example")
    assert again.startswith("https://models.example/enrol?t=")
    assert again != link


def test_a_demonstration_is_not_made_real(shell, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo.json").write_text('{"people": {"owner": "demo-owner"}}')
    shell(*ADA, refused=Conflict)

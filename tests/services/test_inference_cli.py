"""Use of models from the command line: the same use cases, exit codes, words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from make_partners import partnered
from test_inference import laid_down
from test_releases_cli import Shell

__all__ = ["laid_down", "partnered"]  # fixtures


@pytest.fixture
def shell(laid_down, tmp_path: Path):
    with laid_down.copied(tmp_path) as url:
        yield Shell(SimpleNamespace(tokens=laid_down.world.tokens), url, tmp_path / "data")


def test_limits_are_shown_and_set_by_whom_they_belong_to(shell) -> None:
    [grant] = shell.json("grant", "list", who="ann")
    shown = shell.json("grant", "limits", grant["id"], who="ann")
    assert (shown["limits"]["sequences"], shown["own"]) == (16, None)
    setting = ("grant", "limits", grant["id"], "--sequences", "3")
    shell.run(*setting, who="olga", says=2)  # no reason
    shell.run(*setting, "--reason", "A trial.", who="ann", says=3)
    set_ = shell.json(*setting, "--reason", "A trial.", who="olga")
    assert (set_["limits"]["sequences"], set_["own"]["reason"]) == (3, "A trial.")
    shell.run("grant", "limits", grant["id"], "--reason", "Over.", who="olga")
    assert shell.json("grant", "limits", grant["id"], who="ann")["limits"]["sequences"] == 16


def test_usage_and_prompts(shell) -> None:
    assert shell.json("usage", "inference", who="ann") == []
    assert shell.json("usage", "inference", "--since", "2026-01-01", who="aud") == []
    shell.run("usage", "prompts", "--reason", "Curious.", who="ann", says=3)
    assert shell.json("usage", "prompts", "--reason", "An inquiry.", who="sam") == []

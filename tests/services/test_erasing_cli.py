"""Erasing a person from the command line: tried first, then done, then found out about."""

from __future__ import annotations

from make_release import staffed
from test_releases_cli import shell

__all__ = ["shell", "staffed"]  # fixtures


def test_what_would_be_is_shown_before_it_is_done(shell):
    erase = ("person", "erase", "nia", "--reason", "Asked by letter.")
    shell.run(*erase, who="aud", says=3)
    shell.run("person", "erase", "nia", "--reason", "Nia asked.", says=1)
    tried = shell.json(*erase, "--dry-run", who="ola")
    assert "nia" in shell.run("person", "list")
    done = shell.json(*erase, who="ola")
    assert done == tried
    assert "nia" not in shell.run("person", "list").split()
    assert done["pseudonym"] in shell.run("person", "list")
    shell.run(*erase, says=1)
    shell.run("ledger", "verify")

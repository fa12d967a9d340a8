"""What a first visit to each page costs on a phone, and that one which costs more is found out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from live import World
from stagerelease.kernel.actor import SYSTEM
from stagerelease.ledger import service as ledger

pytestmark = [pytest.mark.e2e, pytest.mark.alone]
ROOT = Path(__file__).resolve().parents[2]


def measured(world: World, *options: str) -> tuple[int, str]:
    """Run the script against the test's own server; return its exit status and what it prints."""
    command = [sys.executable, "tools/budget.py", "--at", world.base_url, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_every_page_keeps_its_budget(world):
    with world.box.works.begin(SYSTEM, quiet=True) as work:
        ledger.sign_checkpoint(work, world.box.signer)
    status, said = measured(world)
    assert status == 0, said
    assert said.rstrip().endswith("Every page is within its budget.")
    print(said)


def test_a_page_over_its_budget_is_named_with_what_is_wrong(world):
    status, said = measured(world, "--page", "/", "--page", "/livez", "--budget", "bytes=30000")
    assert status == 1
    heavy, faulty = said.splitlines()[-2:]
    assert heavy.startswith("/: bytes ")
    assert heavy.endswith(", at most 30,000")
    assert faulty.startswith("/livez: faults ")  # JSON: no page of ours
    assert "it has no title; it names no language; it has no description" in faulty

"""The tests of the decision rules see nine of ten ways to break them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.e2e
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "group", ["releases", "access", "partners", "entitlements", "incidents", "evidence"]
)
def test_nine_of_ten_mutants_of_the_rules_are_seen(group: str) -> None:
    """Of a sample; ``python tools/mutate.py --group …`` runs them all."""
    done = subprocess.run(
        [sys.executable, "tools/mutate.py", "--group", group, "--sample", "60", "--least", "90"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr

"""Documentation is tested: printed pages are current, named commands and settings exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from stagerelease.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[2]


def test_printed_pages_are_current():
    script = ROOT / "tools" / "print_docs.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_setting_is_documented_and_every_documented_setting_exists():
    text = (ROOT / "docs" / "operators.md").read_text()
    named = set(re.findall(PREFIX + r"([A-Z_]+)", text)) - {"TOKEN"}
    fields = {name.upper() for name in Settings.model_fields}
    assert named - fields == set()
    assert fields - named - {"PORT", "DATA_DIR"} == set()


def test_every_command_named_in_the_documents_exists():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    known = set()
    for line in help_of():
        known.add(line)
    named = set()
    for page in pages:
        named |= set(re.findall(r"^(?:\$ )?stagerelease ([a-z][a-z-]+)", page.read_text(), re.M))
    assert named - known == set()


def help_of() -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "stagerelease", "--help"],
        capture_output=True,
        text=True,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin", "TERM": "dumb", "NO_COLOR": "1"},
        check=True,
    )
    return set(re.findall(r"^[│| ]+([a-z][a-z-]+) {2,}", done.stdout, re.M))


def test_no_page_names_one_machine_or_a_registry():
    for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("tools/**/*.md")]:
        text = page.read_text()
        assert not re.search(r"(?<![\w.])/(root|work|home)/", text), page

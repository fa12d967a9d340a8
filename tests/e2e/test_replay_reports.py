"""The whole way from a shell: replay 2019, make its reports, check them, read them in a browser."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
COMMAND = str(Path(sys.executable).with_name("stagerelease"))
pytestmark = pytest.mark.e2e


def run(directory: Path, *command: str, says: int = 0) -> subprocess.CompletedProcess[str]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("STAGERELEASE_")}
    done = subprocess.run(
        [COMMAND, *command],
        env=environ | {"DATA_DIR": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == says, done.stderr
    return done


@pytest.fixture(scope="module")
def replayed(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("replay") / "data"
    begun = time.monotonic()
    done = run(directory, "replay", "gpt2-2019")
    assert time.monotonic() - begun < 60
    assert "2019-11-05  ● openai/gpt2-1.5B, weights: public" in done.stdout
    assert stat.S_IMODE((directory / "replay.json").stat().st_mode) == 0o600
    run(directory, "replay", "gpt2-2019", says=1)
    return directory


@pytest.fixture(scope="module")
def reports(replayed: Path, tmp_path_factory) -> dict[str, Path]:
    """Editions of the report on the largest size."""
    tracks = json.loads(run(replayed, "-o", "json", "track", "list").stdout)
    (track,) = [
        t["id"] for t in tracks if t["repo_id"] == "openai/gpt2-1.5B" and t["kind"] == "weights"
    ]
    where = tmp_path_factory.mktemp("reports")
    made = {}
    for name in ("public.html", "public.pdf", "full.html", "full.json"):
        audience, _, form = name.partition(".")
        made[name] = where / name
        options = ("--audience", audience, "--format", form, "--out", str(made[name]))
        run(replayed, "report", track, *options)
    return made


def test_reports_verify_without_the_installation(replayed, reports, tmp_path):
    vkey = run(replayed, "ledger", "vkey").stdout.strip()
    nowhere = tmp_path / "nowhere"
    for name in ("public.html", "full.json"):
        done = run(nowhere, "verify-report", str(reports[name]), "--vkey", vkey)
        assert "9 entries" in done.stdout
    assert not nowhere.exists()
    text = reports["public.html"].read_text()
    lie = tmp_path / "lie.html"
    lie.write_text(text.replace('"at": "2019-11-05', '"at": "2019-11-04'))
    assert lie.read_text() != text
    assert "report.proof" in run(nowhere, "verify-report", str(lie), "--vkey", vkey, says=5).stderr
    stranger = vkey.replace("stagerelease", "somebody", 1)
    run(nowhere, "verify-report", str(reports["full.json"]), "--vkey", stranger, says=5)
    run(nowhere, "verify-report", str(reports["public.pdf"]), "--vkey", vkey, says=1)


def test_pages_read_well_in_a_browser(reports):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        for name in ("public.html", "full.html"):
            for scheme, width in (("light", 1000), ("dark", 1000), ("light", 360)):
                context = browser.new_context(
                    color_scheme=scheme, viewport={"width": width, "height": 900}, offline=True
                )
                page = context.new_page()
                said: list[str] = []
                page.on("console", lambda message, said=said: said.append(message.text))
                page.on("request", lambda asked, said=said: said.append(asked.url))
                page.goto(reports[name].as_uri())
                assert said == [reports[name].as_uri()]  # one request: the file itself
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert page.locator("svg[role=img]").count() == 2
                found = Axe().run(page)
                assert [v["id"] for v in found.response["violations"]] == []
                context.close()
        browser.close()

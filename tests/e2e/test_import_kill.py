"""kill -9 at any moment of an import: no half revision, nothing locked, leftovers that fsck clears.

``TEST_KILLS=40`` kills more often than the quick default.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from make_catalog import REPO, head_of, make_repo, stored
from stagerelease.catalog import queries, synthesize
from stagerelease.catalog.fsck import check
from stagerelease.catalog.importer import import_directory
from stagerelease.kernel.actor import OPERATOR

pytestmark = pytest.mark.e2e
KILLS = int(os.environ.get("TEST_KILLS", "8"))
CHILD = """
import sys
from pathlib import Path
from stagerelease.catalog.importer import import_directory
from stagerelease.db.engine import make_engine
from stagerelease.db.work import Works
from stagerelease.kernel.actor import OPERATOR
from stagerelease.storage.local import LocalBlobStore

url, blobs, directory, repo = sys.argv[1:]
works, store = Works(make_engine(url)), LocalBlobStore(Path(blobs))
print("ready", flush=True)
row = import_directory(works, store, OPERATOR, directory=Path(directory), repo_id=repo, message="m")
print(row.id, flush=True)
"""


def start(url: str, root: Path, directory: Path) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(root), str(directory), REPO],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    return child


def renew(directory: Path, number: int) -> None:
    """Make every file of the directory new, so that an import copies all of them."""
    (directory / "README.md").write_text(f"Version {number}\n")
    with (directory / "model.safetensors").open("r+b") as out:
        out.seek(-4, os.SEEK_END)
        out.write(number.to_bytes(4, "little"))


def test_kill_9_at_any_moment_leaves_nothing_half_done(works, blobs, database_url, tmp_path):
    make_repo(works)
    directory = tmp_path / "checkpoint"
    config = synthesize.small_config(layers=4, width=256, heads=4, vocabulary=4000, positions=64)
    synthesize.synthesize_config(config, directory)
    child = start(database_url, blobs.root, directory)
    began = time.monotonic()
    head = child.stdout.readline().strip()
    whole = time.monotonic() - began
    child.communicate(timeout=60)
    assert head_of(works) == head
    dice, killed, recorded = random.Random(7), 0, 0
    for number in range(KILLS):
        renew(directory, number)
        child = start(database_url, blobs.root, directory)
        time.sleep(whole * (number + dice.random()) / KILLS)
        child.kill()
        said = child.communicate(timeout=60)[0].strip()
        killed += child.returncode == -9
        after = head_of(works)
        recorded += after != head
        assert not said or said == after  # what was acknowledged is there
        report = check(works, blobs, repair=True, grace=timedelta(0))
        assert report.ok, report.findings
        with works.begin(OPERATOR, read_only=True) as work:
            line = queries.lineage(work, str(after))
            needed = {f.sha256 for row in line for f in queries.files(work, row.id)}
        assert set(stored(blobs)) == needed  # no partial, no orphan, nothing missing
        assert [row.id for row in line][: 1 + (after != head)][-1] == head
        row = import_directory(
            works, blobs, OPERATOR, directory=directory, repo_id=REPO, message="after the kill"
        )
        head = str(head_of(works))
        assert row.id == head
    assert killed >= KILLS // 2, "the kills came too late to mean anything"
    assert check(works, blobs).ok
    print(f"{KILLS} imports of {whole * 1000:.0f} ms: {killed} killed, {recorded} already recorded")

"""Copies what package.json lists into the pages' static files, and writes down exactly what it was.

Needs npm and a network, once, when a version changes. ``VENDOR.json`` says for each file its
version, licence and SHA-384; a test recomputes them, and pages name them in ``integrity=``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "src/stagerelease/http/pages/static/vendor"


def integrity(body: bytes) -> str:
    """Return what ``integrity=`` says of these bytes (Subresource Integrity, section 3.3)."""
    return "sha384-" + base64.b64encode(hashlib.sha384(body).digest()).decode()


def unpack(name: str, version: str, room: Path) -> Path:
    """Fetch one package by its exact version and return where it lies unpacked."""
    done = subprocess.run(
        ["npm", "pack", "--silent", f"{name}@{version}"],
        cwd=room,
        check=True,
        capture_output=True,
        text=True,
    )
    with tarfile.open(room / done.stdout.split()[-1]) as archive:
        archive.extractall(room, filter="data")
    return room / "package"


def take(name: str, version: str, how: dict[str, Any]) -> list[dict[str, str]]:
    """Copy the files of one package and return what to write down of each."""
    target = VENDOR / f"{how['as']}-{version}"
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as room:
        package = unpack(name, version, Path(room))
        licence = json.loads((package / "package.json").read_text())["license"]
        rows = []
        for path in how["files"]:
            copied = target / Path(path).name
            shutil.copyfile(package / path, copied)
            rows.append(
                {
                    "path": copied.relative_to(VENDOR).as_posix(),
                    "package": name,
                    "version": version,
                    "licence": licence,
                    "integrity": integrity(copied.read_bytes()),
                }
            )
    return rows


def main() -> None:
    wanted = json.loads((ROOT / "package.json").read_text())
    if VENDOR.exists():
        shutil.rmtree(VENDOR)
    rows = []
    for name, version in sorted(wanted["dependencies"].items()):
        rows += take(name, version, wanted["vendor"][name])
    (VENDOR / "VENDOR.json").write_text(json.dumps(rows, indent=2) + "\n")
    for row in rows:
        print(row["path"], row["integrity"])


if __name__ == "__main__":
    main()

"""Every hostile weights file, by every way in: refused with its code, and nothing is stored."""

from __future__ import annotations

import base64
import json
import time
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from hostile import hostile_safetensors
from make_catalog import REPO, head_of, make_checkpoint, make_repo, stored
from stagerelease.catalog import commits, queries
from stagerelease.catalog.fsck import check
from stagerelease.catalog.importer import import_directory
from stagerelease.catalog.pull import pull
from stagerelease.catalog.stored import note_blobs
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import DomainError

CASES = hostile_safetensors()
COMMIT = "c" * 40


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A good checkpoint whose weights a case replaces."""
    return make_checkpoint(tmp_path / "tiny")


def nothing_happened(works, blobs) -> bool:
    with works.begin(OPERATOR, read_only=True) as work:
        variant = queries.load_variant(work, REPO)
        rows = queries.list_revisions(work, variant.id)
    return head_of(works) is None and rows == [] and stored(blobs) == {}


def outcome(act) -> tuple[str, float]:
    began = time.monotonic()
    try:
        act()
    except DomainError as error:
        return error.reason, time.monotonic() - began
    return "accepted", time.monotonic() - began


def test_an_import_refuses_each_and_stores_nothing(works, blobs, directory):
    make_repo(works)
    wrong, slow = {}, {}
    for number, case in enumerate(CASES):
        names = ("model.safetensors", "extra/other.safetensors")
        for name in names if number % 5 == 0 else names[:1]:
            target = directory / name
            target.parent.mkdir(exist_ok=True)
            good = target.read_bytes() if target.exists() else None
            target.write_bytes(case.data)
            code, took = outcome(
                lambda: import_directory(
                    works, blobs, OPERATOR, directory=directory, repo_id=REPO, message="x"
                )
            )
            if code != case.code or not nothing_happened(works, blobs):
                wrong[case.name, name] = code
            if took > 2:
                slow[case.name, name] = took
            target.unlink() if good is None else target.write_bytes(good)
            if target.parent != directory:
                target.parent.rmdir()
    assert wrong == {}
    assert slow == {}
    # and it was the weights that were refused: with good ones, the same directory goes in
    arguments = {"directory": directory, "repo_id": REPO, "message": "good"}
    assert import_directory(works, blobs, OPERATOR, **arguments).id == head_of(works)


def commit(works, blobs, *items: tuple[str, dict]) -> None:
    draft = commits.Draft(blobs)
    for key, value in (("header", {"summary": "x"}), *items):
        draft.add_line(json.dumps({"key": key, "value": value}).encode())
    commits.commit(
        lambda **options: works.begin(OPERATOR, **options),
        blobs,
        repo_id=REPO,
        branch="main",
        draft=draft,
    )


def test_an_upload_refuses_each_and_stores_nothing(works, blobs):
    make_repo(works)
    wrong = {}
    for case in CASES:
        content = base64.b64encode(case.data).decode()
        file = {"path": "model.safetensors", "content": content, "encoding": "base64"}
        code, _ = outcome(lambda file=file: commit(works, blobs, ("file", file)))
        if code != case.code or not nothing_happened(works, blobs):
            wrong[case.name] = code
    assert wrong == {}


def test_objects_sent_before_they_are_named_are_refused_when_they_are(works, blobs):
    """A PUT knows no file name: what is not a pickle or archive is judged at commit."""
    make_repo(works)
    wrong = {}
    for case in CASES:
        with blobs.writer() as writer:
            writer.write(case.data)
            sent = writer.commit()
        with works.begin(OPERATOR) as work:
            note_blobs(work, {sent.sha256: sent.size}, blobs=blobs)
        link = {"path": "model.safetensors", "algo": "sha256", "oid": sent.sha256}
        code, _ = outcome(lambda link=link: commit(works, blobs, ("lfsFile", link)))
        if code != case.code or head_of(works) is not None:
            wrong[case.name] = code
    assert wrong == {}
    # what nothing came to refer to goes
    assert check(works, blobs, repair=True, grace=timedelta(seconds=-5)).ok
    assert stored(blobs) == {}


def test_a_mirror_refuses_each_and_stores_nothing(works, blobs, tmp_path):
    make_repo(works)
    wrong = {}
    for case in CASES:

        def hub(request: httpx.Request, data=case.data) -> httpx.Response:
            if "/revision/" in request.url.path:
                return httpx.Response(200, json={"sha": COMMIT})
            if "/tree/" in request.url.path:
                lfs = {"oid": sha256_hex(data), "size": len(data)}
                entry = {"type": "file", "path": "model.safetensors", "size": len(data)}
                return httpx.Response(200, json=[entry | {"oid": COMMIT, "lfs": lfs}])
            return httpx.Response(200, content=iter([data]))

        transport = httpx.MockTransport(hub)
        code, _ = outcome(
            lambda transport=transport: pull(
                works,
                blobs,
                OPERATOR,
                REPO,
                from_url="https://hub.example",
                transport=transport,
                staging=tmp_path / "staging",
            )
        )
        if code != case.code or not nothing_happened(works, blobs):
            wrong[case.name] = code
    assert wrong == {}
    assert list((tmp_path / "staging").iterdir()) == []

"""No body is read beyond its limit, whoever sends it and whatever its path begins with."""

from __future__ import annotations

import json

import pytest

from stagerelease.http.app import UNLIMITED

JSON = {"Content-Type": "application/json"}


def many_pieces():
    """Yield 4 MiB of one JSON text, without a length in front."""
    yield b'{"a":"'
    for _ in range(64):
        yield b"x" * 65536
    yield b'"}'


@pytest.mark.parametrize("path", ["/api/uploads/ask-access", "/demo/nothing/ask-access"])
def test_a_path_that_begins_as_an_upload_is_limited_all_the_same(world, path):
    with world.client("outsider") as client:
        got = client.post(path, content=many_pieces(), headers=JSON)
        assert got.status_code in (404, 413)


def test_only_the_routes_that_stream_are_spared():
    spared = [
        *("PUT /api/uploads/up_1/secret", "POST /api/models/a/b/commit/main"),
        *("POST /api/models/a/b/commit/release/stage-1", "POST /api/models/a/b/preupload/main"),
        *("POST /api/v1/evidence/evi_1/attachments", "POST /me/evidence/evi_1/attachments"),
    ]
    limited = [
        *("POST /api/uploads/ask-access", "POST /api/uploads/up_1/secret", "PUT /api/uploads/x"),
        *("PUT /api/uploads/a/b/c", "PUT /api/models/a/b/commit/main"),
        *("POST /api/models/a/b/commit/", "POST /api/v1/evidence/evi_1/attachments/x"),
        "PUT /api/v1/evidence/evi_1/attachments",
    ]
    assert [one for one in spared if not UNLIMITED.fullmatch(one)] == []
    assert [one for one in limited if UNLIMITED.fullmatch(one)] == []


def test_nobodys_answers_are_read(world):
    """Who is not known, or may not know of it, is refused without a look at the body."""
    repo = world.repos["researcher"]
    for who, status in ((None, 401), ("outsider", 400)):
        with world.client(who) as client:
            got = client.post(f"/{repo}/ask-access", content=b"{", headers=JSON)
        assert got.status_code == status
    with world.client("outsider") as client:
        got = client.post("/api/uploads/ask-access", content=b"{", headers=JSON)
        assert (got.status_code, got.headers["x-error-code"]) == (404, "RepoNotFound")


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b"{", b"[1]", json.dumps({"purpose": "\ud800"}).encode(), b'{"\\ud800":"x"}'],
)
def test_what_are_no_answers_is_said(world, body):
    with world.client("outsider") as client:
        got = client.post(f"/{world.repos['researcher']}/ask-access", content=body, headers=JSON)
    assert (got.status_code, got.json()["reason"]) == (400, "access.answers")

"""Evidence over HTTP: types, submission, files as downloads, imports, pages and refusals."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import jsonschema
import pytest
from test_resolve import end_token

from live import serve_in_thread
from stagerelease.catalog import queries as catalog
from stagerelease.db.engine import make_engine
from stagerelease.db.work import Works
from stagerelease.evidence import service, throttle
from stagerelease.http.sentinel import BLIND_LIMIT
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR
from stagerelease.releases import queries as releases
from stagerelease.settings import Settings

PAGE = b"<!doctype html><script>alert(document.domain)</script>"


@pytest.fixture
def evidence(world):
    """Evidence about the partner's track, as the API takes it."""
    with world.box.works.begin(read_only=True) as work:
        track = next(t for t in releases.list_tracks(work) if t.repo_id == world.repos["partner"])
        files = catalog.files(work, track.revision_id)
    return {
        "type": "detectability",
        "metric": "accuracy",
        "title": "TF-IDF and logistic regression",
        "subject_sha256": next(f.sha256 for f in files if f.path == "model.safetensors"),
        "source": "detection.md",
        "fact_status": "verified",
        "measured_at": "2026-02-01T00:00:00Z",
        "value": 95,
        "unit": "percent",
        "interval_low": 94.5,
        "interval_high": 95.5,
        "interval_level": 95,
        "conditions": {
            "detector": "tfidf+logreg",
            "sampler": "k40",
            "text_length": 500,
            "text_length_unit": "characters",
            "base_rate": 0.01,
        },
    }


def submit(world, evidence, who="partner", **changes):
    answer = world.client(who).post("/api/v1/evidence", json={**evidence, **changes})
    assert answer.status_code == 201, answer.text
    return answer.json()


def attach(world, row, data=PAGE, who="partner", name="report.html", **query):
    return world.client(who).post(
        f"/api/v1/evidence/{row['id']}/attachments",
        content=data,
        params={"filename": name, **query},
        headers={"Content-Type": "text/html"},
    )


def test_the_types_are_served_and_what_they_describe_is_taken(world, evidence):
    schemas = world.client().get("/api/v1/evidence-types").json()
    jsonschema.Draft202012Validator(schemas["detectability"]).validate(evidence)
    del evidence["conditions"]["sampler"]
    assert not jsonschema.Draft202012Validator(schemas["detectability"]).is_valid(evidence)
    answer = world.client("partner").post("/api/v1/evidence", json=evidence)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["reason"] == "evidence.form"
    assert problem["fields"][0]["field"] == "conditions.sampler"
    assert "says nothing without sampler" in problem["detail"]


def test_from_submission_to_acceptance_with_its_precision(world, evidence):
    row = submit(world, evidence)
    assert (row["state"], row["established"]) == ("submitted", False)
    accepted = world.client("reviewer_a").post(f"/api/v1/evidence/{row['id']}/accept", json={})
    assert accepted.status_code == 200, accepted.text
    page = world.client("partner").get(f"/api/v1/evidence/{row['id']}").json()
    assert (page["state"], page["established"]) == ("accepted", True)
    assert [round(one["percent"], 1) for one in page["precision"]] == [16.1]
    assert page["beside"][0].startswith("At the stated base rate of 1 %, 16.1 %")
    assert [event["to_state"] for event in page["events"]] == ["draft", "submitted", "accepted"]
    taken = world.client("security").post(
        f"/api/v1/evidence/{row['id']}/retract", json={"reason": "Wrong split."}
    )
    assert taken.json() == {"evidence_id": row["id"], "state": "retracted", "reopened": 0}


def test_a_draft_is_edited_and_handed_in(world, evidence):
    row = submit(world, evidence, draft=True)
    address = f"/api/v1/evidence/{row['id']}"
    assert world.client("reviewer_a").get(address).json()["state"] == "draft"
    edited = world.client("partner").put(address, json={**evidence, "title": "Better words"})
    assert edited.json()["title"] == "Better words"
    assert world.client("partner").post(f"{address}/submit").json()["state"] == "submitted"
    assert world.client("partner").put(address, json=evidence).status_code == 409


def test_a_dry_run_keeps_nothing(world, evidence):
    answer = world.client("partner").post(
        "/api/v1/evidence", json=evidence, params={"dry_run": True}
    )
    assert answer.json()["state"] == "submitted"
    assert world.client("auditor").get("/api/v1/evidence").json() == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"unit": "seconds"}, "unit"),
        ({"value": 101}, "value"),
        ({"value": "95"}, "value"),
        ({"value": True}, "value"),
        ({"measured_at": "2030-01-01T00:00:00Z"}, "measured_at"),
        ({"measured_at": "2026-02-01"}, "measured_at"),
        ({"measured_at": "2026-02-01T00:00:00"}, "measured_at"),
        ({"valid_until": "2025-01-01T00:00:00Z"}, "valid_until"),
        ({"interval_low": None}, "interval_low"),
        ({"n": -1}, "n"),
        ({"n": 2.5}, "n"),
        ({"title": "\x00"}, "title"),
        ({"title": "x" * 201}, "title"),
        ({"subject_sha256": "../../etc/passwd"}, "subject_sha256"),
        ({"conditions": {"colour": "red"}}, "conditions.colour"),
        ({"conditions": {"base_rate": [1]}}, "conditions"),
        ({"supersedes": "evd_nothing"}, "supersedes"),
        ({"nonsense": 1}, "nonsense"),
        ({"state": "accepted"}, "state"),
        ({"accepted_by": "me"}, "accepted_by"),
    ],
)
def test_a_wrong_field_is_named(world, evidence, change, field):
    answer = world.client("partner").post("/api/v1/evidence", json={**evidence, **change})
    assert answer.status_code == 422, answer.text
    named = [one["field"].removeprefix("body.") for one in answer.json()["fields"]]
    assert any(name.startswith(field) for name in named)
    assert world.client("auditor").get("/api/v1/evidence").json() == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(world, evidence, number):
    body = json.dumps(evidence).replace('"value": 95', f'"value": {number}')
    answer = world.client("partner").post(
        "/api/v1/evidence", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    assert world.client("auditor").get("/api/v1/evidence").json() == []


# --- files ---------------------------------------------------------------------------------------


def test_a_file_is_a_download_and_never_a_page(world, evidence):
    row = submit(world, evidence)
    digest = hashlib.sha256(PAGE).hexdigest()
    made = attach(world, row, name="Ωμέγα.html", sha256=digest)
    assert made.status_code == 201, made.text
    assert (made.json()["sha256"], made.json()["size"]) == (digest, len(PAGE))
    address = f"/api/v1/evidence/{row['id']}/attachments/{made.json()['id']}"
    got = world.client("partner").get(address)
    assert got.content == PAGE
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["content-disposition"].startswith("attachment; filename*=UTF-8''%CE%A9")
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers.get_list("x-content-type-options") == ["nosniff"]
    assert got.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert got.headers["cache-control"] == "private, no-store"
    part = world.client("partner").get(address, headers={"Range": "bytes=0-8"})
    assert (part.status_code, part.content) == (206, PAGE[:9])
    assert part.headers["content-disposition"].startswith("attachment")
    assert world.client().get(address).status_code == 401
    assert world.client("other_partner").get(address).status_code == 404


def test_a_file_in_flight_is_cut_when_its_reader_may_not_have_it_any_more(world, evidence):
    row = submit(world, evidence)
    data = b"x" * (48 << 20)
    made = attach(world, row, data=data).json()
    address = f"/api/v1/evidence/{row['id']}/attachments/{made['id']}"
    ended: dict[str, float] = {}
    got = 0
    with world.client("partner") as client, client.stream("GET", address) as response:
        assert response.status_code == 200
        threading.Timer(0.3, lambda: (end_token(world), ended.update(at=time.monotonic()))).start()
        with pytest.raises(httpx.HTTPError):
            for chunk in response.iter_raw(65536):
                got += len(chunk)
                time.sleep(0.02)
    assert time.monotonic() - ended["at"] < 5.0
    assert got < len(data)


def test_a_file_in_flight_goes_on_though_every_connection_is_taken(world, evidence):
    """A crowd of requests must not keep the question waiting whether its reader may have it."""
    row = submit(world, evidence)
    data = b"x" * (48 << 20)
    made = attach(world, row, data=data).json()
    address = f"/api/v1/evidence/{row['id']}/attachments/{made['id']}"
    pool = world.box.works.engine.pool
    elsewhere = Works(make_engine(world.box.settings.resolved_database_url), world.clock)
    with (
        ExitStack() as taken,
        world.client("partner") as client,
        client.stream("GET", address) as response,
    ):
        for _ in range(pool.size() + 4):
            taken.enter_context(world.box.works.engine.connect())
        with elsewhere.begin(OPERATOR) as work:  # everybody in flight is asked about again
            identity.disable_person(work, "demo-outsider")
        got, began = 0, time.monotonic()
        for chunk in response.iter_raw(1 << 20):
            got += len(chunk)
            time.sleep(0.2 if time.monotonic() - began < BLIND_LIMIT + 1.5 else 0)
    elsewhere.engine.dispose()
    assert got == len(data)


def test_other_bytes_than_announced_are_refused(world, evidence):
    row = submit(world, evidence)
    answer = attach(world, row, sha256="0" * 64)
    assert (answer.status_code, answer.json()["reason"]) == (422, "blob.digest-mismatch")
    assert attach(world, row, data=b"").json()["reason"] == "attachment.empty"
    for name in ("../x", "a\r\nSet-Cookie: b=c", ".ssh", 'a"b'):
        assert attach(world, row, name=name).status_code in (400, 422)
    page = world.client("partner").get(f"/api/v1/evidence/{row['id']}").json()
    assert page["attachments"] == []


def test_a_file_may_be_larger_than_other_bodies_up_to_its_own_limit(world_box, world, evidence):
    row = submit(world, evidence)
    data = b"x" * (world_box.settings.max_json_bytes + 1)
    assert attach(world, row, data=data).status_code == 201
    settings = Settings(data_dir=world_box.settings.data_dir, max_attachment_bytes=2_000_000)
    limited = replace(world_box, settings=settings)
    live, stop = serve_in_thread(limited)
    try:
        answer = httpx.post(
            f"{live.base_url}/api/v1/evidence/{row['id']}/attachments",
            params={"filename": "large.bin"},
            content=b"x" * 2_000_001,
            headers={"Authorization": f"Bearer {world.tokens['partner']}"},
        )
    finally:
        stop()
    assert (answer.status_code, answer.json()["reason"]) == (413, "attachment.size")
    assert Settings().max_attachment_bytes == 256 * 2**20


def test_nobody_streams_bytes_before_they_are_known(world, evidence):
    row = submit(world, evidence)
    url = urlsplit(world.base_url)
    with socket.create_connection((url.hostname, url.port), timeout=10) as wire:
        wire.sendall(
            f"POST /api/v1/evidence/{row['id']}/attachments?filename=a HTTP/1.1\r\n"
            f"Host: {url.netloc}\r\nContent-Length: 100000000\r\n\r\nxxxx".encode()
        )
        assert wire.recv(100).startswith(b"HTTP/1.1 401 ")


# --- imports and lists ---------------------------------------------------------------------------


def test_an_import_comes_whole_or_not_at_all(world, evidence):
    client = world.client("partner")
    body = {"format": "json", "text": json.dumps([evidence, {**evidence, "unit": "seconds"}])}
    answer = client.post("/api/v1/evidence/import", json=body)
    assert answer.status_code == 422
    assert answer.json()["fields"][0]["field"] == "entry 2.unit"
    assert client.get("/api/v1/evidence").json() == []
    body["text"] = json.dumps([evidence, evidence])
    seen = client.post("/api/v1/evidence/import", json=body, params={"dry_run": True})
    assert [row["state"] for row in seen.json()] == ["draft", "draft"]
    assert client.get("/api/v1/evidence").json() == []
    assert client.post("/api/v1/evidence/import", json=body).status_code == 201
    assert len(client.get("/api/v1/evidence").json()) == 2


def test_a_list_goes_on_by_its_link(world, evidence):
    made = [submit(world, evidence)["id"] for _ in range(5)]
    client = world.client("auditor")
    got, address = [], "/api/v1/evidence?limit=2&type=detectability"
    while address:
        page = client.get(address)
        got += [row["id"] for row in page.json()]
        address = page.links.get("next", {}).get("url")
    assert got == sorted(made, reverse=True)
    assert client.get("/api/v1/evidence?state=nonsense").status_code == 422


def test_the_public_reads_what_is_shown_to_all(world, evidence):
    row = submit(world, evidence, public=True)
    anybody = world.client()
    address = f"/api/v1/evidence/{row['id']}"
    assert anybody.get("/api/v1/evidence").json() == []
    assert anybody.get(address).status_code == 401
    reviewer = world.client("reviewer_a")
    reviewer.post(f"{address}/accept", json={})
    assert reviewer.post(f"{address}/public", json={"shown": True}).status_code == 200
    page = anybody.get(address).json()
    assert (page["authors"], page["events"], page["created_by"]) == ([], [], "")
    assert (page["organisation_id"], page["accepted_by"]) == (None, None)
    assert [one["id"] for one in anybody.get("/api/v1/evidence").json()] == [row["id"]]


# --- coordination --------------------------------------------------------------------------------


def test_coordination_records_over_json(world):
    client = world.client("security")
    with world.box.works.begin(read_only=True) as work:
        family = catalog.list_families(work)[0].id
    body = {
        "family_id": family,
        "developer": "University of Washington / AI2",
        "claim": "Grover; other discriminators 73%, Grover 92%",
        "kind": "similar_release",
        "happened_on": "2019-05",
        "source": "Defending Against Neural Fake News",
        "fact_status": "verified",
    }
    made = client.post("/api/v1/coordination", json=body)
    assert made.status_code == 201, made.text
    row = made.json()
    assert (row["happened_on"], row["status"]) == ("2019-05", "noted")
    changed = client.post(
        f"/api/v1/coordination/{row['id']}/update",
        json={"status": "contacted", "contacted_on": "2019-06-01", "note": "A letter."},
    ).json()
    assert (changed["status"], changed["contacted_on"]) == ("contacted", "2019-06-01")
    page = world.client("auditor").get(f"/api/v1/coordination/{row['id']}").json()
    assert [event["to_status"] for event in page["events"]] == ["noted", "contacted"]
    listed = world.client("auditor").get(f"/api/v1/coordination?family={family}").json()
    assert [one["id"] for one in listed] == [row["id"]]
    for wrong in ({"happened_on": "soon"}, {"kind": "rumour"}, {"happened_on": "2030-01"}):
        answer = client.post("/api/v1/coordination", json={**body, **wrong})
        assert answer.status_code == 422
        assert answer.json()["fields"][0]["field"].removeprefix("body.") == next(iter(wrong))


def test_a_file_is_read_while_nobody_waits(world, monkeypatch):
    """Reading takes seconds when it is hostile: no other writer waits for it, and it is counted."""
    real, seen = service.read_file, []

    def read(*args):
        with world.box.works.begin(OPERATOR, quiet=True):  # would wait for a writer, and give up
            seen.append(1)
        return real(*args)

    monkeypatch.setattr(service, "read_file", read)
    monkeypatch.setitem(throttle.LIMITS, throttle.Written.IMPORT, 2)
    body = {"format": "model-index", "text": "---\nx: [a, b]\n---\n"}
    with world.client("researcher") as client:
        answers = [client.post("/api/v1/evidence/import", json=body) for _ in range(3)]
    assert [a.status_code for a in answers] == [422, 422, 429]
    assert len(seen) == 2

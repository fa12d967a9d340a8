"""A confirmed blocking incident stops every way to the bytes in seconds, and everybody reads it.

Over a live server, through the same routes that people and clients use.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from stagerelease.db.epoch import read_epoch
from stagerelease.downloads.tables import Transfer
from stagerelease.releases import queries as releases

REFUSED = (401, 403)
HELD_AGAIN = 2.0
CUT_AFTER = 5.0


def track_of(world, repo):
    with world.box.works.begin(read_only=True) as work:
        return next(t for t in releases.list_tracks(work) if t.repo_id == repo)


def covering(world, scope: str, repo: str) -> dict[str, Any]:
    track = track_of(world, repo)
    return {
        "track": {"tracks": [track.id]},
        "family": {"families": [track.family_id]},
        "everything": {"everything": True},
    }[scope]


def triaged(world, security: httpx.Client, links: dict[str, Any], **changes: Any) -> int:
    with world.client() as anybody:
        taken = anybody.post("/api/v1/incident-reports", json={"text": "They are on a forum."})
    assert taken.status_code == 201, taken.text
    number = taken.json()["incident_id"]
    body = {"severity": "critical", "blocking": True, "public_summary": "Weights leaked.", **links}
    got = security.post(f"/api/v1/incidents/{number}/triage", json=body | changes)
    assert got.status_code == 200, got.text
    return number


def confirm(security: httpx.Client, number: int) -> httpx.Response:
    got = security.post(f"/api/v1/incidents/{number}/confirm", json={"reason": "Seen."})
    assert got.status_code == 200, got.text
    return got


def ways(client: httpx.Client, repo: str, commit: str) -> dict[str, Callable[[], httpx.Response]]:
    """Every way of the Hub's face to gated bytes, or to what says which there are."""
    file = f"/{repo}/resolve/{commit}/model.safetensors"
    api = f"/api/models/{repo}"
    return {
        "HEAD": lambda: client.head(file),
        "GET": lambda: client.get(file),
        "a range": lambda: client.get(file, headers={"Range": "bytes=0-9"}),
        "the last bytes": lambda: client.get(file, headers={"Range": "bytes=-10"}),
        "several ranges": lambda: client.get(file, headers={"Range": "bytes=0-1,4-5"}),
        "a resumed range": lambda: client.get(
            file, headers={"Range": "bytes=100-", "If-Range": '"x"'}
        ),
        "a condition": lambda: client.get(file, headers={"If-None-Match": '"x"'}),
        "a HEAD at a branch": lambda: client.head(file.replace(commit, "main")),
        "a GET at a branch": lambda: client.get(file.replace(commit, "main")),
        "a short commit": lambda: client.get(file.replace(commit, commit[:10])),
        "a small file": lambda: client.get(f"/{repo}/resolve/{commit}/config.json"),
        "the tokenizer": lambda: client.get(f"/{repo}/resolve/{commit}/tokenizer.json"),
        "the card as a file": lambda: client.get(f"/{repo}/resolve/{commit}/README.md"),
        "a file not there": lambda: client.get(f"/{repo}/resolve/{commit}/none.bin"),
        "the tree": lambda: client.get(f"{api}/tree/main", params={"recursive": True}),
        "the tree of a commit": lambda: client.get(f"{api}/tree/{commit}"),
        "paths": lambda: client.post(
            f"{api}/paths-info/main", data={"paths": ["model.safetensors"]}
        ),
        "refs": lambda: client.get(f"{api}/refs"),
        "commits": lambda: client.get(f"{api}/commits/main"),
        "the check": lambda: client.get(f"{api}/auth-check"),
    }


def until_refused(ask, began: float) -> tuple[float, httpx.Response]:
    """Ask until refused; return when the last request that was still served began, and the end."""
    served_last = 0.0
    while True:
        asked = time.monotonic() - began
        if (got := ask()).status_code in REFUSED:
            return served_last, got
        served_last = asked
        assert asked < 30, got.status_code
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("scope", "stage", "who"),
    [
        ("track", "partner", "partner"),
        ("family", "researcher", "researcher"),
        ("everything", "public", None),
        ("track", "public", None),
        ("everything", "partner", "partner"),
    ],
)
def test_every_way_to_the_bytes_refuses_within_two_seconds(world, scope, stage, who):
    repo = world.repos[stage]
    with world.client(who) as client, world.client("security") as security:
        commit = track_of(world, repo).revision_id
        tried = ways(client, repo, commit)
        if who is not None:  # asking a model needs a token, wherever it is
            body = {"model": repo, "prompt": "Once", "max_tokens": 1}
            tried["asking it for text"] = lambda: client.post("/v1/completions", json=body)
            tried["asking it for figures"] = lambda: client.post(
                "/v1/score", json={"model": repo, "texts": ["Once"]}
            )
        for name, ask in tried.items():
            assert ask().status_code not in REFUSED, name
        number = triaged(world, security, covering(world, scope, repo))
        for name, ask in tried.items():  # triage stops nothing
            assert ask().status_code not in REFUSED, name
        confirm(security, number)
        began = time.monotonic()
        with ThreadPoolExecutor(len(tried)) as pool:  # all at once, so that each is asked early
            ends = {n: pool.submit(until_refused, ask, began) for n, ask in tried.items()}
        for name, end in ends.items():
            served_last, refused = end.result()
            assert served_last < HELD_AGAIN, name
            said = refused.headers.get("x-error-message") or refused.text
            assert f"incident {number}" in said, name
        for name, ask in tried.items():  # and stays so
            assert ask().status_code in REFUSED, name
        page = client.get(f"/models/{repo}", headers={"Accept": "text/html"})
        assert page.status_code == 200  # what it is can still be read, and why it stands still
        assert "On hold" in page.text
        assert f"incident {number}" in page.text
        assert "/resolve/" not in page.text.partition('id="files-h"')[2]


def test_no_rank_gets_past_it(world):
    repo = world.repos["partner"]
    commit = track_of(world, repo).revision_id
    with world.client("security") as security:
        confirm(security, triaged(world, security, covering(world, "track", repo)))
    time.sleep(1.0)
    for who in ("owner", "release_manager", "security", "partner"):
        with world.client(who) as client:
            for name, ask in ways(client, repo, commit).items():
                assert ask().status_code in REFUSED, (who, name)


def test_an_open_download_is_cut_within_five_seconds(world, big_file):
    ended: dict[str, float] = {}
    with world.client("security") as security:
        number = triaged(world, security, covering(world, "track", world.repos["partner"]))

        def stop() -> None:
            confirm(security, number)
            ended["at"] = time.monotonic()

        got = 0
        with world.client("partner") as client, client.stream("GET", big_file.url) as response:
            assert response.status_code == 200
            timer = threading.Timer(0.3, stop)
            timer.start()
            with pytest.raises(httpx.HTTPError):
                for chunk in response.iter_raw(65536):
                    got += len(chunk)
                    time.sleep(0.02)
            cut_after = time.monotonic() - ended["at"]
            timer.join()
    assert got < big_file.size
    assert cut_after < CUT_AFTER
    deadline = time.monotonic() + 10
    while True:
        with world.box.works.begin(read_only=True) as work:
            if "cut" in work.session.execute(select(Transfer.outcome)).scalars().all():
                break
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_it_does_not_cover_goes_on(world):
    covered, other = world.repos["partner"], world.repos["researcher"]
    with world.client("security") as security:
        confirm(security, triaged(world, security, covering(world, "track", covered)))
    time.sleep(1.0)
    with world.client("researcher") as client:
        for name, ask in ways(client, other, track_of(world, other).revision_id).items():
            assert ask().status_code not in REFUSED, name


def test_everybody_reads_of_it_at_once_and_follows_it_to_the_end(world):
    repo = world.repos["partner"]
    with (
        world.client() as anybody,
        world.client("security") as security,
        world.client("owner") as owner,
        world.client("partner") as partner,
    ):
        feed = "/api/v1/public/incidents"
        assert anybody.get(feed).json() == []
        number = triaged(world, security, covering(world, "track", repo))
        assert anybody.get(feed).json() == []
        confirm(security, number)
        (seen,) = anybody.get(feed).json()
        assert (seen["id"], seen["state"], seen["blocking"]) == (number, "confirmed", True)
        assert (seen["holds_active"], seen["holders_told"]) == (1, 1)
        assert seen["repos"] == [repo]
        assert seen["summary"] == "Weights leaked."
        assert anybody.get(f"{feed}/{number}").json() == seen
        assert anybody.get(f"{feed}/{number + 1}").status_code == 404

        (receipt,) = partner.get("/api/v1/advisories").json()
        done = partner.post(f"/api/v1/advisories/{receipt['id']}/acknowledge")
        assert done.json()["acknowledged_at"] is not None
        assert anybody.get(feed).json()[0]["holders_acknowledged"] == 1

        security.post(f"/api/v1/incidents/{number}/mitigate", json={"reason": "Taken down."})
        word = {"text": "The copies are gone.", "visibility": "public"}
        security.post(f"/api/v1/incidents/{number}/updates", json=word)
        body = {"outcome": "Done.", "public_outcome": "The forum removed them."}
        first = security.post(f"/api/v1/incidents/{number}/close", json=body).json()
        assert first["incident"]["state"] == "mitigated"
        second = owner.post(f"/api/v1/incidents/{number}/close", json=body).json()
        assert second["incident"]["state"] == "closed"
        assert len(second["holds_active"]) == 1
        (seen,) = anybody.get(feed).json()
        assert (seen["state"], seen["outcome"]) == ("closed", "The forum removed them.")
        assert [u["text"] for u in seen["updates"]] == ["The copies are gone."]
        assert seen["holds_active"] == 1
        assert partner.get(world.file("partner")).status_code in REFUSED


# --- the face itself ----------------------------------------------------------------------------


def test_a_flood_is_told_when_to_come_back_and_others_still_get_in(world):
    body = {"text": "Look at this."}
    with world.client() as anybody:
        got = [anybody.post("/api/v1/incident-reports", json=body) for _ in range(8)]
        assert [r.status_code for r in got] == [201] * 5 + [429] * 3
        refused = got[-1]
        assert 0 < int(refused.headers["retry-after"]) <= 3600
        assert refused.json()["code"] == "too-many"
        assert refused.headers["cache-control"] == "no-store"
    with world.client("partner") as partner:
        assert partner.post("/api/v1/incident-reports", json=body).status_code == 201


def test_a_flood_of_reports_makes_nobody_ask_again(world):
    def epoch() -> int:
        with world.box.works.begin(read_only=True) as work:
            return read_epoch(work.session.connection())

    before = epoch()
    with world.client() as anybody:
        for _ in range(3):
            assert anybody.post("/api/v1/incident-reports", json={"text": "Look."}).is_success
    assert epoch() == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": 5}, "text"),
        ({"text": "x" * 8_001}, "text"),
        ({"text": "a\u0000b"}, "text"),
        ({"text": "a", "contact": "x" * 321}, "contact"),
        ({"text": "a", "severity": "critical"}, "severity"),
    ],
)
def test_a_wrong_report_is_refused_beside_its_field(world, body, field):
    with world.client() as anybody:
        got = anybody.post("/api/v1/incident-reports", json=body)
    assert got.status_code == 422
    assert any(f["field"].endswith(field) for f in got.json()["fields"])


def test_the_reporter_follows_by_reference_in_the_body_only(world):
    with world.client() as anybody, world.client("security") as security:
        body = {"text": "A leak.", "contact": "me@example.org"}
        taken = anybody.post("/api/v1/incident-reports", json=body).json()
        asked = {"reference": taken["reference"]}
        seen = anybody.post("/api/v1/incident-reports/follow", json=asked).json()
        assert (seen["state"], seen["has_contact"]) == ("reported", True)
        more = anybody.post("/api/v1/incident-reports/words", json={**asked, "text": "And more."})
        assert more.json()["updates"][0]["by"] == "you"
        page = security.get(f"/api/v1/incidents/{taken['incident_id']}").json()
        assert page["report"]["contact"] == "me@example.org"
        assert page["updates"][0]["text"] == "And more."
        gone = anybody.post("/api/v1/incident-reports/forget-me", json=asked).json()
        assert not gone["has_contact"]
        wrong = anybody.post("/api/v1/incident-reports/follow", json={"reference": "a" * 32})
        assert wrong.status_code == 404
        assert taken["reference"] not in wrong.text


def test_lists_link_to_their_next_page(world):
    with world.client("security") as security:
        for _ in range(3):
            security.post("/api/v1/incident-reports", json={"text": "One."})
        first = security.get("/api/v1/incidents", params={"limit": 2})
        assert [row["id"] for row in first.json()] == [3, 2]
        rest = security.get(first.links["next"]["url"])
        assert [row["id"] for row in rest.json()] == [1]
        assert "next" not in rest.links
        assert security.get("/api/v1/incidents", params={"after": "x"}).status_code == 422
        assert security.get("/api/v1/incidents", params={"state": "lost"}).status_code == 422


def test_usage_is_shown_and_drafted_from(world):
    with world.client("partner") as partner:
        assert partner.get(world.file("partner"), follow_redirects=True).status_code == 200
    deadline = time.monotonic() + 10
    track = track_of(world, world.repos["partner"])
    with world.client("security") as security:
        while True:
            world.clock.move(timedelta(seconds=1))
            rows = security.get("/api/v1/usage", params={"track_id": track.id}).json()
            if rows and rows[0]["completed"]:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert (rows[0]["deliveries"], rows[0]["files"], rows[0]["tokens"]) == (1, 1, 1)
        assert security.get("/api/v1/usage/anomalies").json() == []
        body = {"track_id": track.id, "metric": "downloads"}
        draft = security.post("/api/v1/usage/evidence", json=body)
        assert draft.status_code == 201, draft.text
        assert (draft.json()["state"], draft.json()["value"]) == ("draft", 1.0)

"""The public timeline: what anybody may read of releases, holds and incidents, in three forms."""

from __future__ import annotations

from datetime import datetime
from xml.etree import ElementTree

import httpx
import pytest

from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service

ATOM = {"a": "http://www.w3.org/2005/Atom"}


def get(world, path, **options):
    return httpx.get(world.base_url + path, timeout=30, **options)


def lay(world, repo, reason, public):
    with world.box.works.begin(world.actor("security")) as work:
        track = next(t for t in releases.list_tracks(work) if t.repo_id == world.repos[repo])
        return release_service.lay_hold(
            work, scope="track", scope_id=track.id, reason=reason, public_reason=public
        )


def test_the_timeline_tells_what_was_released_and_to_whom(world):
    entries = get(world, "/api/v1/timeline").json()
    titles = [e["title"] for e in entries]
    assert f"Weights of {world.repos['public']} released publicly" in titles
    assert f"Weights of {world.repos['partner']} shared with partner organisations" in titles
    assert not any(world.repos["internal"] in str(e) for e in entries), "nobody may know of it"
    assert not any("partner-a" in str(e) for e in entries), "counts and kinds, never names"
    assert [e["at"] for e in entries] == sorted((e["at"] for e in entries), reverse=True)


def test_atom_is_what_rfc_4287_asks_for(world):
    answer = get(world, "/feed.atom")
    assert answer.headers["content-type"].startswith("application/atom+xml")
    feed = ElementTree.fromstring(answer.content)
    assert feed.tag == "{http://www.w3.org/2005/Atom}feed"
    for name in ("id", "title", "updated", "author/a:name"):
        assert feed.find(f"a:{name}", ATOM).text
    assert feed.find("a:link[@rel='self']", ATOM).attrib["href"].endswith("/feed.atom")
    entries = feed.findall("a:entry", ATOM)
    assert entries
    ids = [e.find("a:id", ATOM).text for e in entries]
    assert len(set(ids)) == len(ids)
    for entry in entries:
        datetime.fromisoformat(entry.find("a:updated", ATOM).text)
        assert entry.find("a:title", ATOM).text
        assert entry.find("a:content", ATOM).text
    newest = max(e.find("a:updated", ATOM).text for e in entries)
    assert feed.find("a:updated", ATOM).text == newest


def test_json_feed_is_version_1_1_and_pages(world):
    feed = get(world, "/feed.json").json()
    assert feed["version"] == "https://jsonfeed.org/version/1.1"
    assert feed["feed_url"].endswith("/feed.json")
    ids = [item["id"] for item in feed["items"]]
    assert all(item["content_text"] and item["date_published"] for item in feed["items"])
    part = get(world, "/feed.json?limit=2").json()
    assert [i["id"] for i in part["items"]] == ids[:2]
    assert httpx.get(part["next_url"], timeout=30).status_code == 200


@pytest.mark.parametrize("path", ["/feed.atom", "/feed.json"])
def test_a_reader_that_has_it_is_told_so(world, path):
    first = get(world, path)
    again = get(world, path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    lay(world, "researcher", "Private words.", "Being looked into.")
    changed = get(world, path, headers={"If-None-Match": first.headers["etag"]})
    assert changed.status_code == 200


def test_a_hold_is_told_at_once_in_its_public_words(world):
    lay(world, "partner", "Ann suspects a leak", "<script>alert(1)</script> & more")
    for path in ("/feed.atom", "/feed.json", "/api/v1/timeline"):
        answer = get(world, path)
        assert "Ann suspects" not in answer.text
        assert "On hold: weights of" in answer.text
    feed = ElementTree.fromstring(get(world, "/feed.atom").content)
    said = [e.find("a:content", ATOM).text for e in feed.findall("a:entry", ATOM)]
    assert "<script>alert(1)</script> & more" in said


def test_a_hold_on_what_is_internal_is_not_told(world):
    lay(world, "internal", "Private.", "Public words about what nobody may know of")
    assert "nobody may know of" not in get(world, "/api/v1/timeline").text


def test_wrong_questions_are_refused(world):
    for query in ("limit=0", "limit=999", "before=yesterday"):
        assert get(world, f"/feed.json?{query}").status_code == 422

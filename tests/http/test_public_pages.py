"""What everybody reads: the timeline by pages, the way between pages, the demo's doors, weights."""

from __future__ import annotations

import gzip
import json
import re
import socket
from dataclasses import replace
from datetime import timedelta
from html import unescape
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import select

from browsing import SAME, browser
from live import serve_in_thread
from looks import LOOKS, lay_out
from stagerelease.http.app import create_app
from stagerelease.http.pages.demo import PROXIED, read_demo
from stagerelease.http.pages.docs import documents
from stagerelease.http.pages.frame import assets
from stagerelease.http.pages.markdown import render_text, split_front
from stagerelease.identity import sessions
from stagerelease.identity.tables import SignInSession
from stagerelease.kernel.actor import OPERATOR
from stagerelease.notices import feed
from stagerelease.releases import holds
from stagerelease.releases.tables import StageEvent

AS = {"role": "reviewer_a"}


# --- the timeline -------------------------------------------------------------------------------


def many_moves(world, count, *, at_once):
    """Add moves of the public track, ``at_once`` of them at each instant."""
    with world.box.works.begin(OPERATOR) as work:
        first = work.session.scalars(
            select(StageEvent).where(StageEvent.to_stage == "public")
        ).one()
        for n in range(count):
            work.session.add(
                StageEvent(
                    id=f"sev_{n:05}",
                    track_id=first.track_id,
                    from_stage="researcher",
                    to_stage="public",
                    at=first.at - timedelta(days=1, seconds=n // at_once),
                    reason="",
                    leaf_idx=first.leaf_idx,
                )
            )


@pytest.mark.parametrize(("at_once", "limit"), [(1, 7), (5, 7), (50, 7), (3, 1)])
def test_reading_on_leaves_nothing_out_and_tells_nothing_twice(world, at_once, limit):
    many_moves(world, 60, at_once=at_once)
    with world.box.works.begin(read_only=True) as work:
        whole = [entry.id for entry in feed.stretch(work, limit=200).entries]
        read, after = [], None
        while True:
            part = feed.stretch(work, after=after, limit=limit)
            read += [entry.id for entry in part.entries]
            if part.next is None:
                break
            after = part.next
    assert read == whole
    assert len(set(whole)) == len(whole) >= 60


@pytest.mark.parametrize(
    "after", ["", "x", "2026-01-01~1", "2026-01-01T00:00:00Z~-1", "~", "a~b~c"]
)
def test_a_made_up_place_to_read_on_from_begins_at_the_top(world, after):
    with browser(world) as client:
        got = client.get("/", params={"after": after})
        assert got.status_code == 200
        assert "released publicly" in got.text


def test_the_timeline_can_be_narrowed_and_htmx_gets_the_entries_alone(world):
    with browser(world) as client:
        whole = client.get("/?kind=release").text
        part = client.get("/?kind=release", headers={"HX-Request": "true"})
        assert part.text.lstrip().startswith('<div id="entries">')
        assert part.text.strip() in whole
        assert "HX-Request" in part.headers["vary"]
        assert "Nothing matches" in client.get("/?kind=incident").text
        mine = client.get("/", params={"model": world.repos["researcher"]}).text
        assert world.repos["public"] not in mine
        assert world.repos["internal"] not in client.get("/").text


def test_a_hold_is_on_top_of_every_page_and_an_internal_one_on_none(world):
    def lay(repo, words):
        with world.box.works.begin(world.actor("security")) as work:
            track = next(t for t in feed.releases.list_tracks(work) if t.repo_id == repo)
            holds.lay_hold(
                work, scope="track", scope_id=track.id, reason="Private.", public_reason=words
            )

    lay(world.repos["internal"], "Nobody knows of it.")
    with browser(world) as client:
        assert "On hold" not in client.get("/status").text
        lay(world.repos["partner"], "A copy is being looked into.")
        for path in ("/", "/models", "/docs", "/sign-in", "/nowhere"):
            shown = client.get(path).text
            assert "A copy is being looked into." in shown, path
            assert "Nobody knows of it." not in shown
            assert "Private." not in shown


# --- the reference of the API -------------------------------------------------------------------


def test_the_reference_says_of_each_call_once_who_may_make_it(world):
    with browser(world) as client:
        spec = client.get("/api/v1/openapi.json").json()
        listed = client.get("/docs/api").text
        subjects = sorted(set(re.findall(r'href="/docs/api/([a-z-]+)"', listed)))
        told = {}
        for subject in subjects:
            parts = client.get(f"/docs/api/{subject}").text.split('<section class="card" id="')
            keys = [part.partition('"')[0] for part in parts[1:]]
            assert len(keys) == len(set(keys)), subject
            told |= dict(zip(keys, map(unescape, parts[1:]), strict=True))
    for ways in spec["paths"].values():
        for operation in ways.values():
            needs = operation["x-permission"]
            assert needs["words"] in told[operation["operationId"]]
            for one in needs.get("permissions", ()):
                row = re.search(rf'#{operation["operationId"]}".*?</dd>', listed, re.S)
                assert f"<code>{one}</code>" in row.group()


# --- the way between pages ----------------------------------------------------------------------


def links_in(text):
    return {unescape(link) for link in re.findall(r'href="(/[^"]*|#[^"]*)"', text)}


def test_no_public_page_leads_nowhere(world):
    """Follow every link of ours from the first page on, and find the place it names there."""
    names = lay_out(world)
    waiting = {"/", "/docs", f"/models/{names['repo']}", f"/incidents/{names['incident']}"}
    seen, ids, wanted, dead = set(), {}, set(), []
    with browser(world, follow_redirects=True) as client:
        while waiting:
            path = waiting.pop()
            seen.add(path)
            if "/resolve/" in path or path.startswith(("/api/", "/feed", "/static/", "/log/")):
                got = client.head(path) if "/resolve/" in path else client.get(path)
                if got.status_code >= 400:
                    dead.append(f"{path}: {got.status_code}")
                continue
            got = client.get(path)
            if got.status_code != 200:
                dead.append(f"{path}: {got.status_code}")
                continue
            ids[path] = set(re.findall(r'\bid="([^"]+)"', got.text))
            for link in links_in(got.text):
                to, _, anchor = link.partition("#")
                to = to or path
                if anchor:
                    wanted.add((path, to, anchor))
                if to not in seen:
                    waiting.add(to)
    dead += [f"{p} → {to}#{a}" for p, to, a in wanted if to in ids and a not in ids[to]]
    assert dead == []
    assert len(ids) > 40
    assert {d.path for d in documents().values()} <= set(ids)


def test_every_look_of_the_list_has_an_address_of_a_page(world):
    names = lay_out(world)
    for look in LOOKS.values():
        assert look.path.format(**names).startswith("/")


# --- light, dark and weight ---------------------------------------------------------------------


def test_the_choice_of_scheme_is_kept_and_leads_back(world):
    with browser(world) as client:
        got = client.post("/theme", data={"theme": "dark", "next": "/models?after=a"})
        assert got.headers["location"] == "/models?after=a"
        assert 'data-theme="dark"' in client.get("/").text
        client.post("/theme", data={"theme": "system", "next": "//evil.example"})
        assert "data-theme" not in client.get("/").text
        client.cookies.set("theme", "dark><b>")
        assert "<b>" not in client.get("/").text
        forged = client.post("/theme", data={"theme": "dark"}, headers={"Sec-Fetch-Site": "x"})
        assert forged.status_code == 403


def test_a_first_view_weighs_at_most_60_kb(world):
    with httpx.Client(base_url=world.base_url, headers={"Accept": "text/html"}) as client:
        for path in ("/", "/models", f"/models/{world.repos['public']}", "/docs/staff"):
            got = client.get(path)
            assert got.headers["content-encoding"] == "gzip"
            with client.stream("GET", path) as raw:
                weight = sum(len(part) for part in raw.iter_raw())
            for link in set(re.findall(r'(?:href|src)="(/static/[^"]+)"', got.text)):
                with client.stream("GET", link) as raw:
                    weight += sum(len(part) for part in raw.iter_raw())
            assert weight <= 60_000, (path, weight)


def test_what_names_its_reader_is_not_compressed(world):
    with browser(world, "researcher") as client:
        assert "content-encoding" not in client.get("/me").headers
        assert "content-encoding" not in client.get("/").headers


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ratio(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_colour_of_text_stands_out_from_every_ground_it_is_on():
    text = assets()["tokens.css"].body.decode()
    pairs = re.findall(r"--([a-z-]+): light-dark\((#\w{6}), (#\w{6})\);", text)
    for scheme in (1, 2):
        colour = {pair[0]: pair[scheme] for pair in pairs}
        grounds = ("paper", "sheet", "sunk")
        asked = [(ink, g) for ink in ("ink", "quiet", "accent", "accent-deep") for g in grounds]
        asked += [(s, f"{s}-wash") for s in ("ok", "wait", "stop", "none", "note")]
        asked += [("ink", f"{s}-wash") for s in ("ok", "wait", "stop", "none", "note")]
        asked += [("accent", "wash"), ("ink", "wash"), ("on-accent", "accent")]
        asked += [("on-accent", "accent-deep"), ("stop", "sheet"), ("ok", "sheet")]
        low = [(i, g) for i, g in asked if ratio(colour[i], colour[g]) < 4.5]
        assert low == []
        assert ratio(colour["edge"], colour["sheet"]) >= 3  # borders of fields (1.4.11)


# --- Markdown -----------------------------------------------------------------------------------


def test_the_markdown_of_a_card_runs_nothing_and_fetches_nothing():
    shown = render_text(
        "# T <script>alert(1)</script>\n\n[a](javascript:alert(1)) [b](data:text/html,x) "
        "[c](https://e.example/?a=1&b=2) ![d](https://e.example/z.png)\n\n<img src=x onerror=y>\n",
        rewrite=lambda href: href,
    )
    for word in ("<script", "<img", 'href="javascript', 'href="data', "z.png"):
        assert word not in shown, word
    assert 'href="https://e.example/?a=1&amp;b=2"' in shown
    assert 'rel="nofollow noopener noreferrer"' in shown


@pytest.mark.parametrize(
    ("text", "front", "rest"),
    [
        ("---\nlicense: mit\n---\n\n# A", {"license": "mit"}, "# A"),
        ("# A", {}, "# A"),
        ("---\n: [\n---\nB", {}, "B"),
        ("---\nno end", {}, "---\nno end"),
        ("---\n- a list\n---\nB", {}, "B"),
    ],
)
def test_the_front_of_a_card_is_read_or_left_alone(text, front, rest):
    assert split_front(text) == (front, rest)


# --- the demo's doors ---------------------------------------------------------------------------


def test_one_click_signs_in_as_a_demo_person_and_marks_the_session(world):
    with browser(world) as client:
        assert "Sign in as Reviewer A" in client.get("/").text
        got = client.post("/demo/sign-in", data=AS)
        assert (got.status_code, got.headers["location"]) == (303, "/")
        assert "demo-reviewer-a" in client.get("/").text
        client.post("/demo/sign-in", data={"role": "outsider"})
        assert "demo-outsider" in client.get("/").text
    with world.box.works.begin(read_only=True) as work:
        rows = work.session.scalars(select(SignInSession).order_by(SignInSession.created_at)).all()
        assert [row.method for row in rows] == ["demo", "demo"]
        assert [row.revoked_at is not None for row in rows] == [True, False]


def refused(client, **more):
    got = client.post("/demo/sign-in", data=AS, **more)
    return got.status_code in (403, 404) and "set-cookie" not in got.headers


def test_the_doors_are_shut_to_other_sites_proxies_and_other_names(world):
    with browser(world) as client:
        assert refused(client, headers={"Sec-Fetch-Site": "cross-site"})
        for header in PROXIED:
            assert refused(client, headers={header: "127.0.0.1"}), header
        for host in ("demo.example", "127.0.0.1.example", "10.0.0.1", "localhost.example:80"):
            assert refused(client, headers={"Host": host}), host
            assert "Sign in as Owner" not in client.get("/", headers={"Host": host}).text
        for host in ("localhost", "127.0.0.1:1", "localhost:443"):
            assert refused(client, headers={"Host": host}), host
        for origin in ("https://demo.example", "http://127.0.0.1:1", "null", "http://[x"):
            assert refused(client, headers={"Origin": origin}), origin
        assert not refused(client, headers={"Origin": world.base_url})
        assert client.post("/demo/sign-in", data={"role": "demo-owner"}).status_code == 404
        assert client.get("/demo/sign-in").status_code == 404


def test_a_proxy_with_nothing_configured_finds_the_doors_shut(world):
    """nginx's default: it asks by HTTP/1.0 with our own host's name, and says nothing of itself."""
    url = urlsplit(world.base_url)
    form = b"role=owner"
    with socket.create_connection((url.hostname, url.port), timeout=10) as wire:
        wire.sendall(
            b"POST /demo/sign-in HTTP/1.0\r\nHost: %b\r\nConnection: close\r\n"
            % url.netloc.encode()
            + b"Sec-Fetch-Site: same-origin\r\nContent-Length: %d\r\n" % len(form)
            + b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
            + form
        )
        got = wire.recv(65536)
    assert got.startswith(b"HTTP/1.1 404")
    assert b"set-cookie" not in got.lower()


@pytest.mark.parametrize(
    "change",
    [
        {"host": "0.0.0.0"},
        {"host": "192.0.2.1"},
        {"public_url": "http://127.0.0.1:8000"},
        {"trusted_proxies": "127.0.0.1"},
    ],
)
def test_the_doors_are_shut_where_the_service_faces_others(world, change):
    box = world.box
    open_box = replace(box, settings=box.settings.model_copy(update=change))
    live, stop = serve_in_thread(open_box)
    try:
        with httpx.Client(base_url=live.base_url, headers=SAME) as client:
            assert refused(client)
            assert "Sign in as Owner" not in client.get("/").text
    finally:
        stop()


@pytest.mark.parametrize(
    "people", [None, {}, {"owner": "olga"}, {"other": "demo-owner"}, ["owner"]]
)
def test_a_directory_that_is_no_demo_has_no_doors(world, people):
    path = world.box.settings.data_dir / "demo.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "people": people}))
    assert read_demo(world.box.settings) is None
    assert create_app(world.box).state.demo is None
    with browser(world) as client:  # and one that stops being a demo shuts them at once
        assert refused(client)


def test_without_the_file_or_with_a_broken_one_there_is_no_demo(world):
    path = world.box.settings.data_dir / "demo.json"
    path.write_text("{")
    assert read_demo(world.box.settings) is None
    path.unlink()
    assert read_demo(world.box.settings) is None


def test_the_way_one_came_in_stays_with_the_session(world):
    with world.box.works.begin(OPERATOR) as work:
        person = world.actor("outsider").id
        sessions.open_session(work, person)
        assert work.session.scalars(select(SignInSession)).one().method == "link"


def test_static_files_come_packed_to_who_can_unpack(world):
    asset = assets()["parts.css"]
    assert gzip.decompress(asset.packed) == asset.body
    assert len(asset.packed) < len(asset.body) / 2

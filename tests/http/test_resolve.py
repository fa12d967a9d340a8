"""Files by ``resolve``, to the header (RFC 9110 §14, and what Hub clients rely on)."""

from __future__ import annotations

import hashlib
import threading
import time
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import event, select

from live import NO_TLS
from stagerelease.catalog import queries as catalog
from stagerelease.catalog.rules import NewFile
from stagerelease.catalog.service import record_revision
from stagerelease.catalog.tables import RepoAlias
from stagerelease.demo.world import CHECKPOINTS
from stagerelease.downloads.tables import Download, Transfer
from stagerelease.entitlements import service as entitlements
from stagerelease.http.hub import strangers
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import NotFound
from stagerelease.ledger import queries as ledger
from stagerelease.ledger import service as log
from stagerelease.partners import queries as partner_queries
from stagerelease.partners import service as partners
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service


@pytest.fixture
def weights(world):
    name = world.repos["partner"].partition("/")[2]
    return (CHECKPOINTS / name / "model.safetensors").read_bytes()


def pinned(world, path="model.safetensors") -> str:
    with world.client("partner") as client:
        return client.head(world.file("partner", path)).headers["location"]


def test_head_at_a_branch_pins_the_commit(world, weights):
    with world.client("partner") as client:
        first = client.head(world.file("partner"))
        assert first.status_code == 307
        commit = first.headers["x-repo-commit"]
        assert first.headers["location"] == world.file("partner", rev=commit)
        second = client.head(first.headers["location"])
    assert second.status_code == 200
    digest = hashlib.sha256(weights).hexdigest()
    assert second.headers["etag"] == f'"{digest}"'
    assert int(second.headers["content-length"]) == len(weights)
    assert second.headers["accept-ranges"] == "bytes"
    assert second.headers["cache-control"] == "private, no-transform"
    assert "Authorization" in second.headers["vary"]
    assert second.headers["x-repo-commit"] == commit
    assert "content-encoding" not in second.headers


@pytest.mark.parametrize(
    ("asked", "status", "begin", "end"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=100-", 206, 100, None),
        ("bytes=-7", 206, -7, None),
        ("bytes=5-99999999999", 206, 5, None),
        ("bytes=9-5", 200, 0, None),
        ("bytes=0-1,4-5", 200, 0, None),
        ("lines=1-2", 200, 0, None),
    ],
)
def test_ranges(world, weights, asked, status, begin, end):
    with world.client("partner") as client:
        got = client.get(pinned(world), headers={"Range": asked})
    assert got.status_code == status
    assert got.content == weights[begin:end]
    if status == 206:
        first = begin if begin >= 0 else len(weights) + begin
        last = first + len(got.content) - 1
        assert got.headers["content-range"] == f"bytes {first}-{last}/{len(weights)}"


def test_past_the_end_is_416_with_the_size(world, weights):
    with world.client("partner") as client:
        got = client.get(pinned(world), headers={"Range": f"bytes={len(weights)}-"})
    assert got.status_code == 416
    assert got.headers["content-range"] == f"bytes */{len(weights)}"


def test_if_range_resumes_only_the_same_bytes(world, weights):
    with world.client("partner") as client:
        url = pinned(world)
        etag = client.head(url).headers["etag"]
        same = client.get(url, headers={"Range": "bytes=10-", "If-Range": etag})
        other = client.get(url, headers={"Range": "bytes=10-", "If-Range": '"0000"'})
        weak = client.get(url, headers={"Range": "bytes=10-", "If-Range": f"W/{etag}"})
    assert (same.status_code, other.status_code, weak.status_code) == (206, 200, 200)
    assert same.content == weights[10:]
    assert other.content == weak.content == weights


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("who", "stage", "status", "code"),
    [
        (None, "partner", 401, "GatedRepo"),
        ("outsider", "partner", 403, "GatedRepo"),
        ("outsider", "internal", 404, "RepoNotFound"),
        (None, "internal", 401, "RepoNotFound"),
    ],
)
def test_refusals_carry_their_code_and_a_next_step(world, method, who, stage, status, code):
    with world.client(who) as client:
        got = client.request(method, world.file(stage))
        unknown = client.request(method, "/demo/nothing/resolve/main/x")
    assert got.status_code == status
    assert got.headers["x-error-code"] == code
    assert got.headers["x-error-message"]
    if code == "RepoNotFound":  # hidden and absent look the same
        assert unknown.status_code == got.status_code
        assert unknown.headers["x-error-code"] == code


def test_a_denied_caller_learns_neither_files_nor_revisions(world):
    answers = set()
    with world.client("outsider") as client:
        for rev in ("main", "0" * 40, "nope", "refs%2Fpr%2F1"):
            for path in ("model.safetensors", "nope.bin"):
                got = client.get(f"/{world.repos['partner']}/resolve/{rev}/{path}")
                answers.add((got.status_code, got.headers["x-error-code"], got.text))
    assert len(answers) == 1


def test_an_alias_of_what_is_hidden_is_answered_like_a_name_that_is_none(world):
    hidden = world.repos["internal"]
    with world.box.works.begin(OPERATOR) as work:
        variant = catalog.load_variant(work, hidden)
        for alias in ("xl", "community/xl"):
            work.session.add(RepoAlias(alias=alias, variant_id=variant.id))
    asked = ("/api/models/{}", "/{}/resolve/main/config.json", "/models/{}", "/{}")
    for who in (None, "outsider", "partner"):
        with world.client(who) as client:
            for name, none in (("xl", "ab"), ("community/xl", "community/ab")):
                for path in asked:
                    got, other = client.get(path.format(name)), client.get(path.format(none))
                    assert hidden not in got.text + str(got.headers)
                    assert got.status_code == other.status_code
                    said = [a.text.replace(a.headers["x-request-id"], "") for a in (got, other)]
                    assert said[0].replace(name, none) == said[1], path
    with world.client("owner") as client:
        assert client.get("/api/models/xl").headers["location"].endswith(hidden)


def push_drafts(world, repo: str, count: int) -> None:
    """Record ``count`` revisions on top of main, none of which is on a track."""
    with world.box.works.begin(OPERATOR) as work:
        variant = catalog.load_variant(work, repo)
        tip = str(catalog.find_ref(work, variant.id, "main"))
        row = catalog.find_file(work, tip, "README.md")
        files = [NewFile(row.path, row.size, row.sha256, row.git_oid, row.lfs, row.kind)]
        for number in range(count):
            made = record_revision(
                work,
                variant_id=variant.id,
                files=files,
                message=f"Draft {number}",
                parent_id=tip,
                parameters=None,
            )
            tip = made.id


def test_drafts_without_number_do_not_hide_what_was_released(world, weights):
    push_drafts(world, world.repos["partner"], 60)
    with world.client("partner") as client:
        assert client.get(world.file("partner"), follow_redirects=True).content == weights


def test_a_hidden_repository_is_refused_as_fast_however_much_is_in_it(world):
    def statements() -> int:
        seen = []
        with world.box.works.begin(read_only=True) as work:
            connection = work.session.connection()
            event.listen(connection, "before_cursor_execute", lambda *a: seen.append(a[2]))
            with pytest.raises(NotFound):
                entitlements.see(work, work.actor, world.repos["internal"])
        return len(seen)

    few = statements()
    push_drafts(world, world.repos["internal"], 40)
    assert statements() == few


def test_a_missing_file_names_the_commit(world):
    with world.client("partner") as client:
        got = client.head(world.file("partner", "nope.json"))
    assert got.status_code == 404
    assert got.headers["x-error-code"] == "EntryNotFound"
    assert len(got.headers["x-repo-commit"]) == 40


def test_bytes_that_are_missing_are_our_fault_and_not_yours(world, weights):
    url = pinned(world)
    path = world.box.blobs.locate(hashlib.sha256(weights).hexdigest()).path
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        with world.client("partner") as client:
            answer = client.get(url)
    finally:
        aside.rename(path)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "300")
    assert "X-Error-Code" not in answer.headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_bad_tokens_are_401_without_a_code(world, method):
    for text in ("Bearer nonsense", "Bearer " + "srp_" + "a" * 36, "Basic abc", "Bearer"):
        got = httpx.request(
            method, world.base_url + world.file("public"), headers={"Authorization": text}
        )
        assert got.status_code == 401
        assert "x-error-code" not in got.headers
        assert got.headers["x-error-message"] == "Invalid credentials in Authorization header"


# --- what is recorded ---------------------------------------------------------------------------


def drain(world) -> list[str]:
    with world.box.works.begin(OPERATOR) as work:
        log.sequence_pending(work)
        return [e.leaf["type"] for e in ledger.entries(work, start=0, limit=1000)]


def downloads(world) -> list[Download]:
    with world.box.works.begin(read_only=True) as work:
        rows = list(work.session.execute(select(Download)).scalars())
        work.session.expunge_all()
        return rows


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def test_a_resumed_download_is_one_entry_started_once_and_completed_once(world, weights):
    url, half = pinned(world), len(weights) // 2
    with world.client("partner") as client:
        client.get(url, headers={"Range": f"bytes=0-{half - 1}"})
        wait_for(lambda: downloads(world)[0].bytes_sent == half)
        assert downloads(world)[0].completed_at is None
        client.get(url, headers={"Range": f"bytes={half}-"})
    wait_for(lambda: downloads(world)[0].completed_at)
    rows = downloads(world)
    assert [row.bytes_sent for row in rows] == [len(weights)]
    assert rows[0].grant_id is not None
    types = drain(world)
    assert types.count("download.started") == 1
    assert types.count("download.completed") == 1


def test_overlapping_ranges_do_not_pass_for_a_whole_file(world, weights):
    url, half = pinned(world), len(weights) // 2
    with world.client("partner") as client:
        for _ in range(3):
            client.get(url, headers={"Range": f"bytes=0-{half}"})
    wait_for(lambda: downloads(world)[0].bytes_sent == 3 * (half + 1))
    assert downloads(world)[0].completed_at is None


def a_stranger(world, address):
    """A client without a token, that comes from an address of this machine's own network."""
    return world.client(transport=httpx.HTTPTransport(local_address=address, verify=NO_TLS))


def test_a_strangers_parts_of_one_file_are_one_download(world):
    url = world.client("partner").head(world.file("public")).headers["location"]
    with a_stranger(world, "127.0.0.1") as client:
        whole = client.get(url).content
        for at in (0, 0, 1, 2):
            client.get(url, headers={"Range": f"bytes={at}-{at}"})
        wait_for(lambda: [row.bytes_sent for row in downloads(world)] == [len(whole) + 4])
        for asked in ({}, {"Range": "bytes=0-"}, {"Range": "x"}, {"Range": "bytes=0-1,4-5"}):
            assert client.get(url, headers=asked).content == whole  # each may be somebody else
        assert client.get(url, headers={"Range": "bytes=0-0", "If-Range": '"x"'}).content == whole
    with a_stranger(world, "127.0.7.7") as client:
        client.get(url, headers={"Range": "bytes=0-0"})
        client.get(url, headers={"Range": f"bytes=1-{len(whole)}"})
    wait_for(lambda: all(row.completed_at for row in downloads(world)))
    sent = sorted(row.bytes_sent for row in downloads(world))
    assert sent == [len(whole)] * 6 + [len(whole) + 4]
    types = drain(world)
    assert types.count("download.started") == types.count("download.completed") == 7


def test_where_a_stranger_came_from_is_forgotten_after_an_hour(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(strangers.time, "monotonic", lambda: now[0])
    kept = strangers.Strangers()
    first, second = ("n", "r", "v", "one"), ("n", "r", "v", "two")
    kept.keep(first, "dl_1")
    now[0] = 3000.0
    kept.keep(second, "dl_2")
    assert (kept.find(first), kept.find(second)) == ("dl_1", "dl_2")
    now[0] = 3601.0
    assert (kept.find(first), kept.find(second), len(kept)) == (None, "dl_2", 1)
    now[0] = 7000.0
    kept.keep(first, "dl_3")
    assert len(kept) == 1


def test_a_strangers_range_is_new_after_an_hour(world):
    url = world.client("partner").head(world.file("public")).headers["location"]
    with a_stranger(world, "127.0.0.1") as client:
        client.get(url, headers={"Range": "bytes=0-0"})
        world.clock.move(timedelta(minutes=59))
        client.get(url, headers={"Range": "bytes=0-0"})
        world.clock.move(timedelta(minutes=2))
        client.get(url, headers={"Range": "bytes=0-0"})
    wait_for(lambda: [row.bytes_sent for row in downloads(world)] in ([1, 2], [2, 1]))


def test_head_and_refusals_record_nothing(world):
    with world.client("partner") as client:
        client.head(pinned(world))
    with world.client("outsider") as client:
        client.get(world.file("partner"))
    assert downloads(world) == []


# --- access that ends ---------------------------------------------------------------------------


def grant_of(world):
    with world.box.works.begin(read_only=True) as work:
        track = next(t for t in releases.list_tracks(work) if t.repo_id == world.repos["partner"])
        return track.id, partner_queries.list_grants(work, track_id=track.id)[0].id


def revoke(world):
    with world.box.works.begin(world.actor("access_officer")) as work:
        partners.revoke_grant(work, grant_of(world)[1], reason="Terms broken.")


def revoke_organisation(world):
    with world.box.works.begin(world.actor("security")) as work:
        rows = partners.revoke_organisation(work, "partner-a", reason="Terms broken.")
        assert grant_of(world)[1] in {row.id for row in rows}


def suspend(world):
    with world.box.works.begin(world.actor("security")) as work:
        partners.suspend_grant(work, grant_of(world)[1], reason="Looking into it.")


def hold(world):
    with world.box.works.begin(world.actor("security")) as work:
        release_service.lay_hold(
            work, scope="track", scope_id=grant_of(world)[0], reason="Suspected leak."
        )


def hold_everything(world):
    with world.box.works.begin(world.actor("security")) as work:
        release_service.lay_hold(work, scope="everything", scope_id=None, reason="Stop.")


def withdraw(world):
    with world.box.works.begin(world.actor("owner")) as work:
        entitlements.withdraw(work, grant_of(world)[0], reason="Withdrawn.")


def end_token(world):
    actor = world.actor("partner")
    with world.box.works.begin(OPERATOR) as work:
        identity.revoke_token(work, actor.token_id)


def end_membership(world):
    with world.box.works.begin(OPERATOR) as work:
        identity.end_membership(work, organisation="partner-a", person="demo-partner")


def pass_time(world):
    world.clock.move(timedelta(days=366))


ENDINGS = [
    revoke,
    revoke_organisation,
    suspend,
    hold,
    hold_everything,
    withdraw,
    end_token,
    end_membership,
    pass_time,
]


@pytest.mark.parametrize("end", ENDINGS, ids=lambda f: f.__name__)
def test_every_ending_refuses_within_a_second(world, end):
    """What is asked for a second after the end, or later, is refused; how long saying so takes is
    the machine's affair."""
    url = pinned(world)
    with world.client("partner") as client:
        assert client.head(url).status_code == 200
        assert client.head(url).status_code == 200  # answered from a decision kept
        end(world)
        ended = asked = time.monotonic()
        while client.head(url).status_code == 200:
            assert asked - ended < 1.0
            time.sleep(0.05)
            asked = time.monotonic()
        assert client.head(url).status_code in (401, 403)
        assert client.get(url).status_code in (401, 403)


@pytest.mark.parametrize("end", ENDINGS, ids=lambda f: f.__name__)
def test_every_ending_cuts_a_download_in_flight(world, end, big_file):
    """A reader that takes its time is cut within 5 s, short of the whole file."""
    ended: dict[str, float] = {}
    with (
        world.client("partner") as client,
        client.stream("GET", big_file.url) as response,
    ):
        assert response.status_code == 200
        threading.Timer(0.3, lambda: (end(world), ended.update(at=time.monotonic()))).start()
        got = 0
        with pytest.raises(httpx.HTTPError):
            for chunk in response.iter_raw(65536):
                got += len(chunk)
                time.sleep(0.02)
        cut_after = time.monotonic() - ended["at"]
    assert got < big_file.size
    assert cut_after < 5.0
    with world.box.works.begin(read_only=True) as work:
        wait_for(
            lambda: (
                "cut" in work.session.execute(select(Transfer.outcome)).scalars().all()
                or work.session.rollback()
            )
        )


def test_others_go_on_when_one_is_cut(world, big_file):
    with (
        world.client("partner") as client,
        client.stream("GET", big_file.url) as response,
    ):
        hold_other = world.actor("security")
        with world.box.works.begin(hold_other) as work:
            track = next(
                t for t in releases.list_tracks(work) if t.repo_id == world.repos["researcher"]
            )
            release_service.lay_hold(work, scope="track", scope_id=track.id, reason="Another.")
        got = 0
        for chunk in response.iter_raw(1 << 20):
            got += len(chunk)
            if got < 40 << 20:
                time.sleep(0.02)
    assert got == big_file.size

"""The nginx files of deploy/, run natively over TLS: bytes, headers, counting, cuts, and walls."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
from edge_site import (
    BIG,
    Site,
    SlowReader,
    revoke_grant_of,
    running_site,
    sha256_of,
    wait_for,
)
from safetensors.numpy import save_file
from sqlalchemy import select

from stagerelease.demo.world import CHECKPOINTS
from stagerelease.downloads import edge
from stagerelease.downloads.edge import EdgeWatch
from stagerelease.downloads.tables import Download, EdgePassage
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR
from stagerelease.releases import service as releases

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SAME_EVERYWHERE = (
    *("etag", "x-repo-commit", "x-linked-size", "x-linked-etag", "last-modified"),
    *("content-type", "content-length", "content-range", "content-disposition"),
    *("content-encoding", "content-security-policy", "cache-control", "vary", "accept-ranges"),
    *("x-content-type-options", "referrer-policy"),
)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site() as running:
        yield running


@pytest.fixture(scope="module")
def direct(site: Site) -> Iterator[str]:
    """The same installation's files, sent by a web process itself: what the edge must equal."""
    from live import serve_in_thread

    live, stop = serve_in_thread(site.box)
    yield live.base_url
    stop()


def pinned(site: Site, stage: str = "partner", path: str = "model.safetensors") -> str:
    with site.client("partner") as client:
        return client.head(f"/{site.repo(stage)}/resolve/main/{path}").headers["location"]


def weights(site: Site) -> bytes:
    name = site.repo("partner").partition("/")[2]
    return (CHECKPOINTS / name / "model.safetensors").read_bytes()


# --- what a client sees -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"Range": "bytes=0-9"},
        {"Range": "bytes=100-"},
        {"Range": "bytes=-7"},
        {"Range": "bytes=5-99999999999"},
        {"Range": "bytes=0-1,4-5"},
        {"Range": "lines=1-2"},
        {"Range": "bytes=99999999999-"},
        {"Range": "bytes=0-9", "If-Range": "ETAG"},
        {"Range": "bytes=0-9", "If-Range": '"another"'},
        {"Range": "bytes=0-9", "If-Range": "W/ETAG"},
        {"If-None-Match": "ETAG"},
        {"Accept-Encoding": "gzip, deflate"},
    ],
    ids=lambda asked: " ".join(f"{k}:{v}" for k, v in asked.items()) or "plain",
)
def test_the_edge_answers_as_the_web_process_does(site, direct, method, asked):
    url = pinned(site)
    etag = f'"{hashlib.sha256(weights(site)).hexdigest()}"'
    headers = {name: value.replace("ETAG", etag) for name, value in asked.items()}
    bearer = {"Authorization": f"Bearer {site.token('partner')}"}
    with site.client("partner") as client:
        edge = client.request(method, url, headers=headers)
    web = httpx.request(method, direct + url, headers=headers | bearer)
    assert edge.status_code == web.status_code
    if edge.status_code != 416:
        assert edge.content == web.content
        # nginx says Accept-Ranges on whole answers; a 206 speaks for itself (RFC 9110 §15.3.7).
        names = set(SAME_EVERYWHERE) - ({"accept-ranges"} if edge.status_code == 206 else set())
        assert {h: edge.headers.get(h) for h in names} == {h: web.headers.get(h) for h in names}
    else:  # the page about it differs, what clients go by does not
        for name in ("content-range", "x-repo-commit"):
            assert edge.headers[name] == web.headers[name]
    assert edge.headers["strict-transport-security"].startswith("max-age=31536000")
    assert edge.headers["x-request-id"]
    for name in ("x-stagerelease-download", "x-accel-redirect"):
        assert name not in edge.headers
    assert len(edge.headers.get_list("x-repo-commit")) == 1


def test_a_range_that_runs_backwards_is_416_at_the_edge(site):
    """The one difference: the web process ignores it and sends the whole. RFC 9110 allows both."""
    with site.client("partner") as client:
        answer = client.get(pinned(site), headers={"Range": "bytes=9-5"})
    assert (answer.status_code, answer.headers["content-range"]) == (
        416,
        f"bytes */{len(weights(site))}",
    )


def test_refusals_pass_unchanged(site):
    with site.client("outsider") as client:
        refused = client.get(pinned(site))
        assert (refused.status_code, refused.headers["x-error-code"]) == (403, "GatedRepo")
        assert "no grant" in refused.headers["x-error-message"]
    with site.client() as client:
        assert client.get(site.big_url).status_code == 401


def hf(site, who, home, script):
    return subprocess.run(
        [sys.executable, "-c", script],
        env=site.hf_environ(who, home),
        capture_output=True,
        text=True,
        timeout=120,
    )


SNAPSHOT = "import sys, huggingface_hub as h; print(h.snapshot_download({repo!r}))"
ONE_FILE = "import huggingface_hub as h; print(h.hf_hub_download({repo!r}, 'big.safetensors'))"


def test_the_real_client_downloads_and_every_byte_is_recorded(site, tmp_path):
    done = hf(site, "partner", tmp_path, SNAPSHOT.format(repo=site.repo("partner")))
    assert done.returncode == 0, done.stderr
    got = next(tmp_path.rglob("big.safetensors"))
    assert sha256_of(got) == site.big_sha256
    assert (got.parent / "model.safetensors").read_bytes() == weights(site)
    me = site.actor("partner").id
    statement = select(Download.path, Download.completed_at).where(Download.person_id == me)
    files = {path.name for path in got.parent.iterdir() if path.name not in ("README.md",)}
    wait_for(lambda: files <= {p for p, done_at in site.rows(statement) if done_at}, 5)
    assert site.transfers("partner", "big.safetensors")[-1] == ("whole", 0, BIG)
    wait_for(lambda: site.under_way() == 0, 5)


def test_the_real_client_uploads_through_the_edge(site, tmp_path):
    """An LFS object larger than every body limit of the edge; its signed URL is logged nowhere."""
    save_file({"weight": np.zeros(2 << 20, dtype=np.float32)}, tmp_path / "new.safetensors")
    script = (
        "import huggingface_hub as h; a = h.HfApi(); "
        "a.create_repo('demo/uploaded', exist_ok=True); "
        f"print(a.upload_file(path_or_fileobj={str(tmp_path / 'new.safetensors')!r}, "
        "path_in_repo='new.safetensors', repo_id='demo/uploaded'))"
    )
    environ = site.hf_environ("release_manager", tmp_path) | {"HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = site.logs()["access.log"].splitlines()
    puts = [json.loads(line) for line in lines if '"PUT"' in line]
    assert [put["path"] for put in puts] == ["/api/uploads/…"]


# --- walls --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/internal/cuts",
        "//internal/cuts",
        "/%69nternal/cuts",
        "/internal%2Fcuts",
        "/x/../internal/cuts",
        "/_weights/../internal/cuts",
        "/internal/./cuts",
        "/internal/cuts?x=1",
        "/Internal/cuts",
        "/internal",
    ],
)
def test_the_internal_address_is_closed_from_outside(site, path):
    """Also to somebody who knows the secret."""
    assert code_of(site, path, f"X-Stagerelease-Edge: {secret(site)}") == "404"


def code_of(site: Site, path: str, header: str) -> str:
    """Return the status of a path sent exactly as it is written."""
    command = ["curl", "-s", "--path-as-is", "--cacert", site.ca, "-o", "/dev/null"]
    done = subprocess.run(
        [*command, "-H", header, "-w", "%{http_code}", site.origin + path],
        capture_output=True,
        text=True,
    )
    return done.stdout


def secret(site: Site) -> str:
    return (site.base / "secrets" / "edge_secret").read_text().strip()


def test_the_web_process_answers_the_edge_alone(site):
    def ask(**headers):
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.get(site.web + "/internal/cuts", headers=sent)

    assert ask(X_Stagerelease_Edge=secret(site)).text.isdigit()
    refused = [
        ask(),
        ask(X_Stagerelease_Edge="no"),
        ask(X_Stagerelease_Edge=""),
        ask(X_Stagerelease_Edge=secret(site), X_Forwarded_For="127.0.0.1"),
        ask(X_Stagerelease_Edge=secret(site), X_Forwarded_Proto="https"),
        ask(X_Stagerelease_Edge=secret(site), Forwarded="for=127.0.0.1"),
    ]
    assert {answer.status_code for answer in refused} == {404}


def test_weights_cannot_be_asked_for_by_their_place(site):
    digest = site.big_sha256
    for place in (
        f"/_weights/sha256/{digest[:2]}/{digest}",
        f"//_weights/sha256/{digest[:2]}/{digest}",
        f"/%5Fweights/sha256/{digest[:2]}/{digest}",
        f"/_weights%2Fsha256/{digest[:2]}/{digest}",
        f"/x/../_weights/sha256/{digest[:2]}/{digest}",
        "/_weights/",
        "/_weights/../keys/log.key",
    ):
        assert code_of(site, place, f"Authorization: Bearer {site.token('owner')}") == "404", place


def test_a_clients_own_x_accel_redirect_means_nothing(site):
    digest = site.big_sha256
    forged = {"X-Accel-Redirect": f"/_weights/sha256/{digest[:2]}/{digest}"}
    with site.client("outsider") as client:
        assert client.get("/livez", headers=forged).json() == {"ok": True}
        assert client.get(site.big_url, headers=forged).status_code == 403


def test_what_a_client_claims_about_its_way_here_is_not_believed(site):
    claims = {
        "X-Forwarded-Proto": "http",
        "X-Forwarded-For": "203.0.113.9",
        "Forwarded": "for=203.0.113.9;proto=http",
        "X-Forwarded-Host": "evil.example",
    }
    with site.client("partner") as client:
        answer = client.get("/livez", headers=claims)
        assert "strict-transport-security" in answer.headers  # still https to the web process
        listed = client.get("/api/models?limit=1", headers=claims | {"X-Probe": "1"})
    assert "evil.example" not in listed.text + str(listed.headers)
    last = json.loads(site.logs()["access.log"].splitlines()[-1])
    assert last["client"] == "127.0.0.1"


def test_a_body_beyond_reason_is_refused_at_the_edge(site):
    with site.client("partner") as client:
        assert client.post("/api/v1/tokens", content=b"x" * (3 << 20)).status_code == 413


def pieces(count: int) -> Iterator[bytes]:
    """Yield one JSON text of so many MiB, without a length in front."""
    yield b'{"a":"'
    for _ in range(count):
        yield b"x" * (1 << 20)
    yield b'"}'


@pytest.mark.parametrize("path", ["/api/uploads/ask-access", "/demo/nothing/ask-access"])
def test_a_path_that_begins_as_an_upload_is_limited_all_the_same(site, path):
    headers = {"Content-Type": "application/json"}
    with site.client() as client:
        assert client.post(path, content=pieces(8), headers=headers).status_code == 413
        assert client.post(path, content=b"{", headers=headers).status_code == 401


def test_only_uploads_go_where_uploads_go(site):
    with site.client("owner") as client:
        for method in ("GET", "POST", "DELETE"):
            assert client.request(method, "/api/uploads/up_x/secret").status_code == 403
        assert client.put("/api/uploads/up_x/secret", content=b"x").status_code == 403
        assert client.put("/api/models/a/b/commit/main", content=b"x").status_code == 403


def test_a_file_for_evidence_passes_whatever_its_size(site):
    """The route refuses it, for its own reasons and as JSON: the edge has let it through."""
    where = "/api/v1/evidence/evi_none/attachments?filename=a.bin"
    with site.client("partner") as client:
        answer = client.post(where, content=bytes(3 << 20))
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    with site.client() as client:
        assert client.post(where, content=bytes(3 << 20)).status_code == 401


def test_one_address_has_so_many_requests_at_once(site):
    """The edge says so itself; the others of this test go on."""
    conf = (site.base / "run" / "nginx.conf").read_text()
    assert "limit_conn addresses 256;" in conf


def test_plain_http_to_the_tls_port_gets_nothing(site):
    plain = site.origin.replace("https://", "http://")
    assert httpx.get(plain + "/livez").status_code == 400


def test_a_file_the_edge_cannot_read_is_said_and_counted_as_failed(site):
    blob = site.box.blobs.locate(hashlib.sha256(weights(site)).hexdigest()).path
    url = pinned(site)
    blob.chmod(0)
    try:
        with site.client("partner") as client:
            answer = client.get(url)
    finally:
        blob.chmod(0o640)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["code"] == "unavailable"
    wait_for(lambda: "could not send a permitted" in site.logs()["worker.out"], 5)
    assert ("failed", 0, 0) in site.transfers("partner", "model.safetensors")


# --- counting -----------------------------------------------------------------------------------


def test_a_client_that_leaves_is_counted_by_what_left(site):
    with site.client("researcher") as client, client.stream("GET", site.big_url) as answer:
        assert answer.status_code == 403  # the researcher has no business here
    with site.client("partner") as client, client.stream("GET", site.big_url) as answer:
        for _ in zip(range(4), answer.iter_raw(1 << 16), strict=False):
            pass
    wait_for(lambda: site.under_way() == 0, 5)
    outcome, first, sent = site.transfers("partner", "big.safetensors")[-1]
    assert (outcome, first) == ("client_left", 0)
    assert 4 << 16 <= sent < BIG


def test_a_rotated_log_and_a_restarted_worker_lose_nothing(site):
    before = len(site.transfers("partner", "config.json"))
    url = pinned(site, path="config.json")
    site.stop("worker")
    with site.client("partner") as client:
        client.get(url)
        site.edge_log.rename(site.edge_log.with_name("edge.log.1"))
        os.kill(int((site.base / "run" / "nginx.pid").read_text()), signal.SIGUSR1)
        wait_for(site.edge_log.exists, 5)
        client.get(url)
    assert len(site.transfers("partner", "config.json")) == before
    site.start("worker")
    wait_for(lambda: len(site.transfers("partner", "config.json")) == before + 2, 15)
    site.stop("worker", signal.SIGKILL)
    site.start("worker")
    time.sleep(2)
    assert len(site.transfers("partner", "config.json")) == before + 2


def hang_up(site: Site, url: str, after: float) -> None:
    """Ask for a file and reset the connection, before nginx has an answer or not long after."""
    host, port = "localhost", int(site.origin.rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(site.ca))
    plain = socket.create_connection((host, port))
    with context.wrap_socket(plain, server_hostname=host) as line:
        line.sendall(f"GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        time.sleep(after)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def test_who_hangs_up_before_the_answer_leaves_next_to_nothing(site):
    """A passage that stayed was late a day later, and then everybody's downloads were cut."""
    url = pinned(site, "public", "config.json")
    wait_for(lambda: site.under_way() == 0, 5)
    for _ in range(100):
        hang_up(site, url, 0.002)
    time.sleep(3)
    left = [row.id for row in site.rows(select(EdgePassage.id))]
    print(f"passages left of 100: {len(left)}")
    assert len(left) <= 20  # hung up in the very moment; without a look it was nearly all
    for passage_id in left:
        edge.abandon(site.box.works, passage_id)


# --- cuts ---------------------------------------------------------------------------------------


def reading(site: Site, who: str, rate: float) -> tuple[SlowReader, threading.Thread]:
    """Start a slow reader and return it once bytes flow."""
    reader = SlowReader(site, who, rate)
    thread = threading.Thread(target=reader.read, daemon=True)
    thread.start()
    wait_for(lambda: reader.got > 1 << 20, 10)
    return reader, thread


def assert_cut(reader: SlowReader, since: float) -> None:
    """The body ended short, within five seconds, and by an orderly end of the connection."""
    assert not reader.complete
    took = reader.ended_at - since
    print(f"cut after {took:.2f} s")
    assert took <= 5.0
    assert reader.error == "RemoteProtocolError"  # short body; a reset would be a ReadError


def test_decisions_that_hit_nobody_interrupt_nobody(site):
    reader, thread = reading(site, "partner", 150e6)
    watch = EdgeWatch(site.box.works)
    before = watch.cuts()
    with site.box.works.begin(OPERATOR) as work:
        identity.create_person(work, handle="bystander", display_name="Bystander")
        row, _ = identity.create_token(work, person="bystander", name="none")
    with site.box.works.begin(OPERATOR) as work:
        identity.revoke_token(work, row.id)
    thread.join(40)
    assert reader.complete
    assert watch.cuts() == before


def test_a_revoked_token_is_cut_within_five_seconds(site):
    with site.box.works.begin(OPERATOR) as work:
        token, text = identity.create_token(work, person="demo-partner", name="short-lived")
    site.document["tokens"]["second"] = text
    reader, thread = reading(site, "second", 3e6)
    revoked_at = time.monotonic()
    with site.box.works.begin(OPERATOR) as work:
        identity.revoke_token(work, token.id)
    thread.join(30)
    assert_cut(reader, revoked_at)
    wait_for(lambda: site.transfers("partner", "big.safetensors")[-1][0] == "cut", 5)


def test_a_hold_is_felt_and_the_real_client_goes_on_after_a_cut(site, tmp_path):
    """The innocent: an unmodified Hub client, cut with everybody else, ends with the right bytes.

    It is stopped (SIGSTOP) while it downloads, so that the cut surely comes in the middle.
    """
    script = ONE_FILE.format(repo=site.repo("partner"))
    innocent = subprocess.Popen(
        [sys.executable, "-c", script],
        env=site.hf_environ("other_partner", tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    def so_far():
        return sum(p.stat().st_size for p in tmp_path.rglob("*.incomplete"))

    wait_for(lambda: so_far() > 1 << 20, 30)
    innocent.send_signal(signal.SIGSTOP)
    try:
        stopped_at = so_far()
        assert 0 < stopped_at < BIG
        reader, thread = reading(site, "partner", 3e6)
        revoked_at = time.monotonic()
        revoke_grant_of(site, "partner-a")
        thread.join(30)
        assert_cut(reader, revoked_at)
        with site.client("partner") as client:
            again = client.get(site.big_url, headers={"Range": f"bytes={reader.got}-"})
        assert (again.status_code, again.headers["x-error-code"]) == (403, "GatedRepo")
        wait_for(lambda: site.transfers("partner", "big.safetensors")[-1][0] == "cut", 5)
    finally:
        innocent.send_signal(signal.SIGCONT)
    out, _ = innocent.communicate(timeout=60)
    assert innocent.returncode == 0, out
    assert sha256_of(next(tmp_path.rglob("big.safetensors"))) == site.big_sha256
    wait_for(lambda: site.under_way() == 0, 5)
    ends = site.transfers("other_partner", "big.safetensors")
    assert [outcome for outcome, _, _ in ends] == ["client_left", "whole"]
    assert ends[1][1] >= stopped_at  # by range, not from the start
    assert ends[1][1] + ends[1][2] == BIG


def test_a_hold_over_everything_cuts_everybody(site):
    reader, thread = reading(site, "other_partner", 3e6)
    laid_at = time.monotonic()
    with site.box.works.begin(site.actor("security")) as work:
        hold = releases.lay_hold(
            work, scope="everything", scope_id=None, reason="Leak", public_reason="Under review."
        )
    thread.join(30)
    assert_cut(reader, laid_at)
    with site.client("other_partner") as client:
        assert client.get(site.big_url).status_code == 403
    for who in ("security", "owner"):
        with site.box.works.begin(site.actor(who)) as work:
            releases.lift_hold(work, hold.id, reason="False alarm.")
    with site.client("other_partner") as client:
        assert client.head(site.big_url).status_code == 200


def test_when_nobody_can_be_asked_everything_is_cut(site):
    reader, thread = reading(site, "other_partner", 3e6)
    gone_at = time.monotonic()
    site.stop("web", signal.SIGKILL)
    thread.join(30)
    assert_cut(reader, gone_at)
    with site.client() as client:  # links that sign in, while nobody is there to use them up
        for path in ("/sign-in/confirm", "/enrol", "/access/confirm", "/step-up/confirm"):
            assert client.get(f"{path}?t=link-that-signs-in").status_code == 502
    site.start("web")
    with site.client("other_partner") as client:
        wait_for(lambda: reachable(client, "/readyz"), 30)
        time.sleep(2)  # until the watcher sees it too: its last cut closes idle connections
    with site.client("other_partner") as client:
        assert client.head(site.big_url).status_code == 200


def test_an_edge_without_its_watcher_ends(site):
    edge = site.processes["edge"]
    children = subprocess.run(
        ["pgrep", "-P", str(edge.pid), "-f", "watch-cuts.sh"], capture_output=True, text=True
    ).stdout.split()
    assert len(children) == 1
    os.kill(int(children[0]), signal.SIGKILL)
    assert edge.wait(10) == 1
    with pytest.raises(httpx.TransportError), site.client() as client:
        client.get("/livez")
    del site.processes["edge"]
    site.start("edge")
    with site.client() as client:
        wait_for(lambda: reachable(client, "/livez"), 10)


def reachable(client: httpx.Client, path: str) -> bool:
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


# --- last, over everything that happened above --------------------------------------------------


def test_no_token_and_no_secret_was_written_to_any_log(site):
    with site.client("partner") as client:
        client.get(f"/livez?token={site.token('partner')}")
        client.get("/api/models?search=srp_x", headers={"X-Odd": site.token("owner")})
    logs = site.logs()
    assert {"access.log", "edge.log", "web.out", "worker.out", "edge.out"} <= set(logs)
    assert len(logs["access.log"].splitlines()) > 50
    for name, text in logs.items():
        for token in (*site.document["tokens"].values(), secret(site)):
            assert token not in text, name
            assert token[4:] not in text, name
        assert "link-that-signs-in" not in text, name

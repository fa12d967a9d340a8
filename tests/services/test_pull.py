"""Mirroring from a Hub that is slow, broken, hostile or wrong."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import httpx
import pytest

from make_catalog import REPO, TINY_PARAMETERS, head_of, make_checkpoint, make_repo, stored
from stagerelease.catalog import queries
from stagerelease.catalog.pull import pull
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.digests import git_blob_sha1
from stagerelease.kernel.errors import DomainError

HUB = "https://hub.example"
COMMIT = "c" * 40


class FakeHub:
    """A Hub in memory that keeps to the protocol, until a test makes it misbehave."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)
        self.listed = {p: self._entry(p, c) for p, c in files.items()}
        self.requests: list[httpx.Request] = []
        self.trouble: list[httpx.Response | int] = []  # answers to give first; int: break there
        self.ranges = True
        self.cdn: str | None = None
        self.page = 3
        self.next_origin = HUB

    @staticmethod
    def _entry(path: str, content: bytes) -> dict:
        entry = {"type": "file", "path": path, "size": len(content)}
        if path.endswith(".safetensors"):
            oid = hashlib.sha256(content).hexdigest()
            return entry | {"oid": "0" * 40, "lfs": {"oid": oid, "size": len(content)}}
        return entry | {"oid": git_blob_sha1(content)}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path
        if path == f"/api/models/{REPO}/revision/main":
            return httpx.Response(200, json={"id": REPO, "sha": COMMIT})
        if path == f"/api/models/{REPO}/tree/{COMMIT}":
            start = int(request.url.params.get("cursor", "0"))
            entries = list(self.listed.values())
            headers = {}
            if start + self.page < len(entries):
                url = f"{self.next_origin}{path}?recursive=true&cursor={start + self.page}"
                headers["Link"] = f'<{url}>; rel="next"'
            return httpx.Response(200, json=entries[start : start + self.page], headers=headers)
        name = path.removeprefix(f"/{REPO}/resolve/{COMMIT}/").removeprefix("/cdn/")
        if self.cdn and not path.startswith("/cdn/"):
            return httpx.Response(302, headers={"Location": f"{self.cdn}/cdn/{name}"})
        return self._body(request, self.files[name])

    def _body(self, request: httpx.Request, content: bytes) -> httpx.Response:
        first = re.match(r"bytes=(\d+)-\Z", request.headers.get("range", ""))
        trouble = self.trouble.pop(0) if self.trouble else None
        if isinstance(trouble, httpx.Response):
            return trouble
        status, headers = 200, {}
        if first and self.ranges:
            start = int(first[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            status, content = 206, content[start:]

        def body():
            yield content[:trouble]
            if trouble is not None:
                raise httpx.ReadError("reset")

        return httpx.Response(status, content=body(), headers=headers)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    directory = make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")
    return {p.name: p.read_bytes() for p in sorted(directory.iterdir())}


@pytest.fixture
def hub(files) -> FakeHub:
    return FakeHub(files)


@pytest.fixture
def pulling(works, blobs, hub, tmp_path):
    make_repo(works)
    waits: list[float] = []
    staging = tmp_path / "staging"

    def run(**more):
        arguments = {
            "from_url": HUB,
            "transport": httpx.MockTransport(hub),
            "sleep": waits.append,
            "staging": staging,
        }
        try:
            return pull(works, blobs, OPERATOR, REPO, **(arguments | more))
        finally:
            assert not staging.exists() or list(staging.iterdir()) == []

    run.waits = waits
    return run


def test_a_repository_is_mirrored_bit_for_bit(works, blobs, hub, pulling, files):
    seen = []
    row = pulling(progress=lambda *step: seen.append(step))
    assert row.parameters == TINY_PARAMETERS
    assert COMMIT in row.message
    with works.begin(OPERATOR, read_only=True) as work:
        got = {f.path: f.sha256 for f in queries.files(work, row.id)}
    assert got == {p: hashlib.sha256(c).hexdigest() for p, c in files.items()}
    assert seen[-1][0] == seen[-1][1] == sum(map(len, files.values()))


def test_a_broken_transfer_goes_on_where_it_stopped(hub, pulling, files):
    hub.trouble = [0, 5, 7]
    pulling()
    ranges = [r.headers["range"] for r in hub.requests if "range" in r.headers]
    assert ranges == ["bytes=5-", "bytes=12-"]


def test_a_server_without_ranges_sends_it_all_again(hub, pulling, files):
    hub.ranges = False
    hub.trouble = [5]
    assert pulling().parameters == TINY_PARAMETERS


def test_being_told_to_wait_is_waiting(hub, pulling):
    hub.trouble = [
        httpx.Response(429, headers={"Retry-After": "7"}),
        httpx.Response(503),
        httpx.Response(429, headers={"Retry-After": "99999"}),
    ]
    pulling()
    assert pulling.waits[0] == 7
    assert max(pulling.waits) <= 60


def test_a_hub_that_stays_broken_is_given_up(works, blobs, hub, pulling):
    hub.trouble = [httpx.Response(500)] * 20
    with pytest.raises(DomainError) as refused:
        pulling()
    assert refused.value.reason == "mirror.unavailable"
    assert stored(blobs) == {}
    assert head_of(works) is None


def test_the_token_goes_home_and_nowhere_else(hub, pulling):
    hub.cdn = "https://cdn.example"
    pulling(token="hf_secret")
    sent = {(r.url.host, r.headers.get("authorization")) for r in hub.requests}
    assert sent == {("hub.example", "Bearer hf_secret"), ("cdn.example", None)}


@pytest.mark.parametrize(
    "cdn",
    ["http://cdn.example", "http://127.0.0.1:1", "https://127.0.0.1", "ftp://x", "https://u:p@x"],
)
def test_a_redirect_to_where_bytes_must_not_come_from_is_refused(hub, pulling, cdn):
    hub.cdn = cdn
    with pytest.raises(DomainError) as refused:
        pulling()
    assert refused.value.reason in ("mirror.insecure", "mirror.redirect", "mirror.url")


def test_a_redirect_in_circles_ends(hub, pulling):
    hub.trouble = []
    hub.cdn = HUB

    def circle(request: httpx.Request) -> httpx.Response:
        if "/resolve/" in request.url.path:
            return httpx.Response(302, headers={"Location": str(request.url)})
        return hub(request)

    with pytest.raises(DomainError) as refused:
        pulling(transport=httpx.MockTransport(circle))
    assert refused.value.reason == "mirror.redirect"


@pytest.mark.parametrize(
    "url", ["http://hub.example", "ftp://hub.example", "hub.example", "https://me:pw@hub.example"]
)
def test_only_https_or_this_machine(pulling, url):
    with pytest.raises(DomainError) as refused:
        pulling(from_url=url)
    assert refused.value.reason in ("mirror.insecure", "mirror.url")


@pytest.mark.parametrize("name", ["model.safetensors", "vocab.json"])
@pytest.mark.parametrize("harm", ["flip", "longer", "shorter"])
def test_bytes_that_are_not_those_announced_are_refused(works, blobs, hub, pulling, name, harm):
    content = hub.files[name]
    hub.files[name] = {
        "flip": content[:-1] + bytes([content[-1] ^ 1]),
        "longer": content + b"x",
        "shorter": content[:-1],
    }[harm]
    with pytest.raises(DomainError) as refused:
        pulling()
    assert refused.value.reason in ("mirror.digest", "mirror.size", "mirror.unavailable")
    assert stored(blobs) == {}
    assert head_of(works) is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../../etc/cron.d/x", "path.traversal"),
        ("/etc/passwd", "path.traversal"),
        ("a//b", "path.traversal"),
        (".bashrc", "path.hidden"),
        ("VOCAB.json", "path.collision"),
        ("a\r\nb", "path.characters"),
        ("pytorch_model.bin", "file.pickle"),
        ("tf_model.h5", "file.container"),
    ],
)
def test_a_listing_with_a_bad_name_is_refused_before_anything_is_fetched(
    hub, pulling, path, reason
):
    hub.listed[path] = hub._entry(path, b"x")
    hub.files[path] = b"x"
    with pytest.raises(DomainError) as refused:
        pulling()
    assert refused.value.reason == reason
    assert not any("/resolve/" in r.url.path for r in hub.requests)


def test_what_is_never_hosted_can_be_left_out_by_name(works, hub, pulling):
    for path in ("pytorch_model.bin", "tf_model.h5", ".gitattributes"):
        hub.listed[path] = hub._entry(path, b"x")
    said: list[str] = []
    row = pulling(skip_refused=True, note=said.append)
    assert row.parameters == TINY_PARAMETERS
    assert len(said) == 3
    assert not any("pytorch" in r.url.path for r in hub.requests)


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "file", "path": "a"},
        {"type": "file", "path": "a", "size": -1, "oid": "0" * 40},
        {"type": "file", "path": "a", "size": 1, "oid": "zz"},
        {"type": "file", "path": "a", "size": 1, "oid": "0" * 40, "lfs": {"oid": "x", "size": 1}},
        {"type": "file", "path": 7, "size": 1, "oid": "0" * 40},
    ],
)
def test_a_listing_without_digests_is_refused(hub, pulling, entry):
    hub.listed["a"] = entry
    with pytest.raises(DomainError) as refused:
        pulling()
    assert refused.value.reason == "mirror.answer"


def test_a_listing_that_continues_elsewhere_is_refused(hub, pulling):
    hub.next_origin = "https://evil.example"
    with pytest.raises(DomainError) as refused:
        pulling(token="hf_secret")
    assert refused.value.reason == "mirror.answer"
    assert {r.url.host for r in hub.requests} == {"hub.example"}


def test_a_gated_repository_says_so(hub, pulling):
    def gated(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            403, headers={"X-Error-Code": "GatedRepo", "X-Error-Message": "Ask first"}
        )

    with pytest.raises(DomainError, match="Ask first") as refused:
        pulling(transport=httpx.MockTransport(gated))
    assert refused.value.reason == "mirror.gated"


def test_an_announcement_larger_than_the_disk_is_refused(hub, pulling, blobs):
    hub.listed["model.safetensors"]["lfs"]["size"] = 10**15
    with pytest.raises(DomainError) as refused:
        pulling()
    assert refused.value.reason == "storage.full"
    assert not any("/resolve/" in r.url.path for r in hub.requests)


def test_mirroring_twice_changes_nothing(pulling, tmp_path: Path):
    assert pulling().id == pulling().id


def test_an_answer_that_is_packed_is_not_unpacked(hub, pulling):
    seen = []

    def packing(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["accept-encoding"])
        return httpx.Response(
            200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"\x1f\x8b")
        )

    with pytest.raises(DomainError, match="packed") as refused:
        pulling(transport=httpx.MockTransport(packing))
    assert refused.value.reason == "mirror.answer"
    assert seen == ["identity"]

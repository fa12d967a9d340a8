"""Uploads by the unmodified Hub client, and by clients that do not keep to the protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError
from sqlalchemy import select

from make_catalog import TINY_PARAMETERS, head_of, make_checkpoint, make_repo, make_staff, stored
from stagerelease.catalog import queries
from stagerelease.catalog.fsck import check
from stagerelease.downloads import days
from stagerelease.downloads.tables import Download, DownloadDay
from stagerelease.identity import queries as people
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR
from stagerelease.ledger import service as log
from stagerelease.ledger.tables import LogLeaf

# The client hands httpx its files in a way that httpx would like to be told apart.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
REPO = "acme/uploaded"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(autouse=True)
def _plain_lfs(monkeypatch):
    """What HF_HUB_DISABLE_XET=1 sets when the client is imported."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture
def token(works) -> str:
    return make_staff(works)


@pytest.fixture
def api(server, token) -> HfApi:
    return HfApi(endpoint=server.base_url, token=token)


@pytest.fixture
def http(server, token):
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=server.base_url, headers=headers, timeout=30) as client:
        yield client


def files_of(works, rev: str = "main", repo: str = REPO) -> dict[str, queries.FileRow]:
    with works.begin(OPERATOR, read_only=True) as work:
        variant = queries.load_variant(work, repo)
        head = queries.resolve_rev(work, variant.id, rev)
        return {f.path: f for f in queries.files(work, str(head))} if head else {}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_folder_goes_up_and_comes_down_bit_for_bit(api, works, blobs, checkpoint, tmp_path):
    url = api.create_repo(REPO)
    assert str(url).endswith(f"/{REPO}")
    info = api.upload_folder(repo_id=REPO, folder_path=checkpoint, commit_message="first")
    assert info.oid == head_of(works, REPO)
    files = files_of(works)
    assert {p: f.sha256 for p, f in files.items()} == {
        p.name: sha256(p.read_bytes()) for p in checkpoint.iterdir()
    }
    with works.begin(OPERATOR, read_only=True) as work:
        assert queries.load_revision(work, info.oid).parameters == TINY_PARAMETERS
    got = Path(api.snapshot_download(REPO, cache_dir=tmp_path))
    for path in checkpoint.iterdir():
        assert (got / path.name).read_bytes() == path.read_bytes()
    checked = api.verify_repo_checksums(repo_id=REPO, cache_dir=tmp_path)
    assert not checked.mismatches
    assert not checked.missing_paths
    assert check(works, blobs).ok


def test_what_staff_fetch_of_an_unreleased_revision_is_in_the_log(api, works, checkpoint, tmp_path):
    api.create_repo(REPO)
    api.upload_folder(repo_id=REPO, folder_path=checkpoint)
    for _ in range(2):  # twice within the hour is one download
        api.hf_hub_download(REPO, "config.json", cache_dir=tmp_path, force_download=True)
    deadline, sent = time.monotonic() + 10, 0
    while sent < 2 * len(checkpoint.joinpath("config.json").read_bytes()):
        assert time.monotonic() < deadline
        with works.begin(OPERATOR, read_only=True) as work:
            [download] = work.session.scalars(select(Download))
            sent = download.bytes_sent
            assert (download.track_id, download.path) == (None, "config.json")
    with works.begin(OPERATOR) as work:
        log.sequence_pending(work)
        kinds = [json.loads(body)["type"] for body in work.session.scalars(select(LogLeaf.body))]
        told = [kind for kind in kinds if kind.startswith("download.")]
        assert told == ["download.started", "download.completed"]
    assert days.count_days(works) == 0  # nobody's use of a release
    with works.begin(OPERATOR, read_only=True) as work:
        assert work.session.scalars(select(DownloadDay)).all() == []


def test_the_same_folder_again_makes_no_revision(api, works, checkpoint):
    api.create_repo(REPO)
    first = api.upload_folder(repo_id=REPO, folder_path=checkpoint)
    assert api.upload_folder(repo_id=REPO, folder_path=checkpoint).oid == first.oid
    with works.begin(OPERATOR, read_only=True) as work:
        assert len(queries.lineage(work, first.oid)) == 1


def test_the_command_line_uploads(server, token, works, checkpoint, tmp_path):
    environ = {
        **os.environ,
        "HF_ENDPOINT": server.base_url,
        "HF_TOKEN": token,
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    hf = [str(Path(sys.executable).with_name("hf")), "upload", REPO, str(checkpoint), "."]
    done = subprocess.run(hf, env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert set(files_of(works)) == {p.name for p in checkpoint.iterdir()}


def test_an_existing_repository_is_answered_with_its_address(api, http):
    api.create_repo(REPO)
    assert str(api.create_repo(REPO, exist_ok=True)).endswith(REPO)
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_repo(REPO)
    assert refused.value.response.status_code == 409
    answer = http.post("/api/repos/create", json={"name": "uploaded", "organization": "acme"})
    assert answer.status_code == 409
    assert answer.json()["url"].endswith(f"/{REPO}")


def test_a_repository_without_namespace_is_ones_own(api, works):
    assert str(api.create_repo("mine")).endswith("/rm/mine")


def test_files_are_added_replaced_and_removed(api, works, checkpoint):
    api.create_repo(REPO)
    first = api.upload_folder(repo_id=REPO, folder_path=checkpoint)
    info = api.create_commit(
        REPO,
        [
            CommitOperationAdd("README.md", b"# New card\n"),
            CommitOperationAdd("data/a.jsonl", b"{}\n"),
            CommitOperationAdd("data/b.jsonl", b"{}\n"),
            CommitOperationDelete("generation_config.json"),
        ],
        commit_message="second",
        commit_description="with a reason",
        parent_commit=first.oid,
    )
    files = files_of(works)
    assert files["README.md"].sha256 == sha256(b"# New card\n")
    assert {"data/a.jsonl", "data/b.jsonl"} < set(files)
    assert "generation_config.json" not in files
    with works.begin(OPERATOR, read_only=True) as work:
        row = queries.load_revision(work, info.oid)
    assert (row.parent_id, row.message) == (first.oid, "second\n\nwith a reason")
    api.delete_folder("data", REPO)
    assert not any(p.startswith("data/") for p in files_of(works))
    with pytest.raises(HfHubHTTPError) as refused:
        api.delete_file("nothing.txt", REPO)
    assert refused.value.response.status_code == 404


def test_a_commit_on_a_parent_that_moved_is_412(api, works, checkpoint):
    api.create_repo(REPO)
    first = api.upload_folder(repo_id=REPO, folder_path=checkpoint)
    api.upload_file(path_or_fileobj=b"1\n", path_in_repo="a.txt", repo_id=REPO)
    with pytest.raises(HfHubHTTPError) as refused:
        api.upload_file(
            path_or_fileobj=b"2\n", path_in_repo="a.txt", repo_id=REPO, parent_commit=first.oid
        )
    assert refused.value.response.status_code == 412
    assert files_of(works)["a.txt"].sha256 == sha256(b"1\n")


def test_branches_and_tags(api, works, checkpoint):
    api.create_repo(REPO)
    first = api.upload_folder(repo_id=REPO, folder_path=checkpoint)
    api.create_branch(REPO, branch="release/next")
    api.create_branch(REPO, branch="release/next", exist_ok=True)
    with pytest.raises(HfHubHTTPError) as refused:
        api.create_branch(REPO, branch="release/next")
    assert refused.value.response.status_code == 409
    api.create_tag(REPO, tag="v1")
    api.upload_file(
        path_or_fileobj=b"1\n", path_in_repo="a.txt", repo_id=REPO, revision="release/next"
    )
    assert head_of(works, REPO) == first.oid
    assert "a.txt" in files_of(works, "release/next")
    refs = api.list_repo_refs(REPO)
    assert {b.name for b in refs.branches} == {"main", "release/next"}
    assert [(t.name, t.target_commit) for t in refs.tags] == [("v1", first.oid)]
    with pytest.raises(HfHubHTTPError):
        api.upload_file(path_or_fileobj=b"1", path_in_repo="b.txt", repo_id=REPO, revision="v1")
    api.delete_tag(REPO, tag="v1")
    api.delete_branch(REPO, branch="release/next")
    with pytest.raises(HfHubHTTPError):
        api.delete_branch(REPO, branch="main")
    assert [r.name for r in api.list_repo_refs(REPO).branches] == ["main"]


def test_what_an_import_refuses_an_upload_refuses(api, works):
    api.create_repo(REPO)
    api.upload_file(path_or_fileobj=b"1", path_in_repo="a/readme", repo_id=REPO)
    before = head_of(works, REPO)
    for path, content in (
        ("pytorch_model.bin", b"anything"),
        ("notes.txt", b"\x80\x02}q\x00."),
        ("model.safetensors", (2).to_bytes(8, "little") + b"{}"),
        ("model.safetensors", b""),
        ("all.zip", b"PK\x03\x04"),
        (".env", b"SECRET=1"),
        ("A/readme", b"1"),
    ):
        with pytest.raises(HfHubHTTPError) as refused:
            api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=REPO)
        assert refused.value.response.status_code == 400, (path, refused.value)
        assert head_of(works, REPO) == before


def test_weights_that_are_a_pickle_are_refused_while_they_arrive(api, works, blobs):
    api.create_repo(REPO)
    with pytest.raises(RuntimeError) as refused:  # how the client reports a failed PUT
        api.upload_file(
            path_or_fileobj=b"\x80\x02}q\x00.", path_in_repo="model.safetensors", repo_id=REPO
        )
    assert isinstance(refused.value.__cause__, HfHubHTTPError)
    assert "pickle" in str(refused.value.__cause__)
    assert stored(blobs) == {}


def test_weights_of_another_variant_are_refused_with_both_numbers(api, works, checkpoint):
    make_repo(works, repo_id=REPO, parameters=124_439_808)
    with pytest.raises(HfHubHTTPError) as refused:
        api.upload_folder(repo_id=REPO, folder_path=checkpoint)
    assert "124,439,808" in str(refused.value)
    assert f"{TINY_PARAMETERS:,}" in str(refused.value)
    assert head_of(works, REPO) is None


def test_who_may_not_write_may_do_none_of_it(server, works, checkpoint):
    make_repo(works, repo_id=REPO)
    auditor = make_staff(works, handle="aud", role="auditor")
    for headers, status in (({}, 401), ({"Authorization": f"Bearer {auditor}"}, 403)):
        client = httpx.Client(base_url=server.base_url, headers=headers)
        with client as http:
            for path, body in (
                ("/api/repos/create", {"name": "x", "organization": "acme"}),
                ("/api/validate-yaml", {"content": ""}),
                (f"/api/models/{REPO}/preupload/main", {"files": []}),
                (f"/{REPO}.git/info/lfs/objects/batch", {"operation": "upload", "objects": []}),
                (f"/{REPO}.git/info/lfs/verify", {"oid": "0" * 64, "size": 1}),
                (f"/api/models/{REPO}/commit/main", {}),
                (f"/api/models/{REPO}/branch/x", {}),
                (f"/api/models/{REPO}/tag/main", {"tag": "x"}),
            ):
                answer = http.post(path, json=body)
                assert answer.status_code == status, path
            for path in (f"/api/models/{REPO}/branch/x", f"/api/models/{REPO}/tag/x"):
                assert http.delete(path).status_code == status, path


def batch(http, *contents: bytes) -> list[dict]:
    answer = http.post(
        f"/{REPO}.git/info/lfs/objects/batch",
        json={
            "operation": "upload",
            "transfers": ["basic"],
            "objects": [{"oid": sha256(c), "size": len(c)} for c in contents],
        },
        headers={"Content-Type": "application/vnd.git-lfs+json"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/vnd.git-lfs+json")
    return answer.json()["objects"]


def commit(http, *items: tuple[str, dict], rev: str = "main"):
    lines = [{"key": k, "value": v} for k, v in (("header", {"summary": "x"}), *items)]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return http.post(
        f"/api/models/{REPO}/commit/{rev}",
        content=body,
        headers={"Content-Type": "application/x-ndjson"},
    )


@pytest.mark.parametrize("end", ["account", "role"])
def test_an_address_ends_with_the_right_of_whom_it_was_given_to(http, works, blobs, end):
    make_repo(works, repo_id=REPO)
    (wanted,) = batch(http, b"x" * 1000)
    me = http.get("/api/whoami-v2").json()["name"]
    with works.begin(OPERATOR) as work:
        if end == "account":
            identity.disable_person(work, me)
        else:
            for role in people.roles_now(work, people.load_person(work, me).id):
                identity.end_role(work, person=me, role=role)
    refused = httpx.put(wanted["actions"]["upload"]["href"], content=b"x" * 1000)
    assert refused.status_code == 403
    assert stored(blobs) == {}


def test_an_address_takes_its_object_and_nothing_else(http, works, blobs, clock):
    make_repo(works, repo_id=REPO)
    content = b"x" * 3_000_000
    (wanted,) = batch(http, content)
    href = wanted["actions"]["upload"]["href"]
    bare = httpx.Client(timeout=30)  # no token: the address is the permission
    with bare:
        for wrong in (content[:-1], content + b"x", b"y" * len(content)):
            answer = bare.put(href, content=wrong)
            assert answer.status_code in (400, 413), answer.text
            assert stored(blobs) == {}
        assert bare.put(href[:-1] + "x", content=content).status_code == 403
        assert bare.put(href.replace("up_", "up_0"), content=content).status_code == 403
        assert bare.put(href, content=content).status_code == 200
        assert bare.put(href, content=content).status_code == 200  # a retry is no error
    assert stored(blobs) == {sha256(content): len(content)}
    oid = {"oid": sha256(content), "size": len(content)}
    assert http.post(wanted["actions"]["verify"]["href"], json=oid).status_code == 200
    oid["size"] += 1
    assert http.post(wanted["actions"]["verify"]["href"], json=oid).status_code == 404
    (again,) = batch(http, content)
    assert "actions" not in again
    (other,) = batch(http, b"other")
    clock.move(timedelta(hours=1))
    assert httpx.put(other["actions"]["upload"]["href"], content=b"other").status_code == 403


def test_sending_a_corrupt_object_again_heals_it(api, http, works, blobs, checkpoint):
    api.create_repo(REPO)
    api.upload_folder(repo_id=REPO, folder_path=checkpoint)
    content = (checkpoint / "model.safetensors").read_bytes()
    path = blobs.locate(sha256(content)).path
    path.chmod(0o600)
    path.write_bytes(b"\x00" * len(content))
    assert not check(works, blobs).ok
    (wanted,) = batch(http, content)
    href = wanted["actions"]["upload"]["href"]
    assert httpx.put(href, content=b"\x01" * len(content)).status_code == 400
    assert path.exists()  # a wrong sending takes nothing away
    assert httpx.put(href, content=content).status_code == 200
    assert path.read_bytes() == content
    assert check(works, blobs).ok


def test_a_pickle_is_refused_while_it_arrives(http, works, blobs):
    make_repo(works, repo_id=REPO)
    content = b"\x80\x04\x95" + b"\x00" * 1000
    (wanted,) = batch(http, content)
    answer = httpx.put(wanted["actions"]["upload"]["href"], content=content)
    assert answer.status_code == 400
    assert answer.json()["reason"] == "file.pickle"
    assert stored(blobs) == {}


def test_an_object_that_was_not_sent_cannot_be_committed(http, works):
    make_repo(works, repo_id=REPO)
    value = {"path": "data.jsonl", "algo": "sha256", "oid": sha256(b"never"), "size": 5}
    answer = commit(http, ("lfsFile", value))
    assert (answer.status_code, answer.json()["reason"]) == (400, "upload.object")


NONSENSE = [
    b"not json",
    b"[]",
    b'{"key": "file"}',
    b'{"key": "file", "value": {"path": "a"}}',
    b'{"key": "file", "value": {"path": "a", "content": "###", "encoding": "base64"}}',
    b'{"key": "file", "value": {"path": "../a", "content": "", "encoding": "base64"}}',
    b'{"key": "file", "value": {"path": "a", "content": "", "encoding": "utf-8"}}',
    b'{"key": "lfsFile", "value": {"path": "a", "algo": "md5", "oid": "x", "size": 1}}',
    b'{"key": "rename", "value": {}}',
    b"[" * 20_000,
]


def test_lines_that_make_no_sense_are_refused(http, works):
    make_repo(works, repo_id=REPO)
    head = b'{"key": "header", "value": {"summary": "x"}}\n'
    for line in NONSENSE:
        answer = http.post(f"/api/models/{REPO}/commit/main", content=head + line + b"\n")
        assert answer.status_code == 400, (line[:80], answer.text)
        assert head_of(works, REPO) is None


def test_a_commit_without_a_header_or_without_files_is_refused(http, works):
    make_repo(works, repo_id=REPO)
    assert http.post(f"/api/models/{REPO}/commit/main", content=b"").status_code == 400
    assert commit(http).status_code == 400


def test_a_file_beyond_ten_megabytes_does_not_fit_into_a_commit(http, works, blobs):
    make_repo(works, repo_id=REPO)
    content = base64.b64encode(b"x" * 10_000_001).decode()
    value = {"path": "a.txt", "content": content, "encoding": "base64"}
    assert commit(http, ("file", value)).status_code == 413
    assert stored(blobs) == {}


def test_readme_metadata_is_checked(http):
    def errors(content: str) -> list:
        answer = http.post("/api/validate-yaml", json={"content": content, "repoType": "model"})
        assert answer.status_code == 200
        return answer.json()["errors"]

    assert errors("# Just a card") == []
    assert errors("---\nlicense: mit\n---\n# Card") == []
    assert len(errors("---\nlicense: [mit\n---\n# Card")) == 1
    assert len(errors("---\n- a\n---\n")) == 1
    assert len(errors("---\nlicense: mit\n")) == 1

"""The unmodified Hub clients, as partners use them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from stagerelease.demo.world import CHECKPOINTS
from stagerelease.entitlements import service as entitlements
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def api(world, who=None) -> HfApi:
    return HfApi(endpoint=world.base_url, token=world.tokens[who] if who else False)


def snapshot(world, who, stage, where, **options):
    return snapshot_download(
        world.repos[stage],
        endpoint=world.base_url,
        token=world.tokens[who] if who else False,
        cache_dir=where,
        **options,
    )


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_partner_gets_every_file_bit_for_bit(world, tmp_path):
    got = Path(snapshot(world, "partner", "partner", tmp_path))
    source = CHECKPOINTS / world.repos["partner"].partition("/")[2]
    names = {p.name for p in source.iterdir()}
    assert {p.name for p in got.iterdir()} == names
    for name in names:
        assert sha256(got / name) == sha256(source / name)
    info = api(world, "partner").verify_repo_checksums(
        repo_id=world.repos["partner"], cache_dir=tmp_path
    )
    assert not info.mismatches
    assert not info.missing_paths


def test_the_partner_loads_and_generates(world, tmp_path):
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"r = {world.repos['partner']!r}\n"
        "t = AutoTokenizer.from_pretrained(r)\n"
        "m = AutoModelForCausalLM.from_pretrained(r)\n"
        "ids = t('The whale', return_tensors='pt')\n"
        "print(t.decode(m.generate(**ids, max_new_tokens=8, do_sample=False)[0]))\n"
    )
    environ = {
        **os.environ,
        "HF_ENDPOINT": world.base_url,
        "HF_TOKEN": world.tokens["partner"],
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("The whale")
    assert len(done.stdout.strip()) > len("The whale")


@pytest.mark.parametrize(
    ("who", "stage", "error"),
    [
        ("outsider", "partner", GatedRepoError),
        ("other_partner", "partner", GatedRepoError),
        ("researcher", "partner", GatedRepoError),
        ("partner", "researcher", GatedRepoError),
        (None, "partner", GatedRepoError),
        ("partner", "internal", RepositoryNotFoundError),
        ("outsider", "internal", RepositoryNotFoundError),
        (None, "internal", RepositoryNotFoundError),
    ],
)
def test_everyone_else_is_refused_in_words(world, tmp_path, who, stage, error):
    with pytest.raises(error) as refused:
        snapshot(world, who, stage, tmp_path)
    assert type(refused.value) is error
    if error is GatedRepoError:
        assert f"at the {stage} stage" in str(refused.value) or "nobody is signed in" in str(
            refused.value
        )
    with pytest.raises(error):
        hf_hub_download(
            world.repos[stage],
            "model.safetensors",
            endpoint=world.base_url,
            token=world.tokens[who] if who else False,
            cache_dir=tmp_path,
        )
    with pytest.raises(error):
        api(world, who).auth_check(world.repos[stage])


@pytest.mark.parametrize("who", ["owner", "auditor", "reviewer_a", "release_manager"])
def test_staff_may_look_at_what_is_internal(world, tmp_path, who):
    assert Path(snapshot(world, who, "internal", tmp_path, allow_patterns="*.json")).is_dir()


def test_the_public_release_needs_no_token(world, tmp_path):
    path = hf_hub_download(
        world.repos["public"],
        "config.json",
        endpoint=world.base_url,
        token=False,
        cache_dir=tmp_path,
    )
    assert Path(path).stat().st_size > 0


def test_anybody_who_may_know_of_it_may_read_the_card(world, tmp_path):
    path = hf_hub_download(
        world.repos["partner"],
        "README.md",
        endpoint=world.base_url,
        token=world.tokens["outsider"],
        cache_dir=tmp_path,
    )
    assert "miniature" in Path(path).read_text()


def test_what_is_missing_is_named_and_only_to_those_who_may_know(world):
    repo = world.repos["partner"]
    partner, outsider = api(world, "partner"), api(world, "outsider")
    with pytest.raises(RevisionNotFoundError):
        partner.model_info(repo, revision="nope")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(repo, "nope.txt", endpoint=world.base_url, token=world.tokens["partner"])
    with pytest.raises(RepositoryNotFoundError):
        partner.model_info("demo/nope")
    for ask in (
        lambda: outsider.model_info(repo, revision="nope"),
        lambda: outsider.list_repo_files(repo),
        lambda: outsider.list_repo_refs(repo),
        lambda: outsider.list_repo_commits(repo),
    ):
        with pytest.raises(GatedRepoError):
            ask()
    assert [s.rfilename for s in outsider.model_info(repo).siblings] == ["README.md"]


def test_who_am_i(world):
    me = api(world, "partner").whoami()
    assert me["name"] == "demo-partner"
    assert [o["name"] for o in me["orgs"]] == ["partner-a"]
    bad = HfApi(endpoint=world.base_url, token="hf_nonsense")
    with pytest.raises(HfHubHTTPError) as refused:
        bad.whoami()
    assert refused.value.response.status_code == 401


def test_a_listing_shows_what_the_caller_may_know(world):
    def listed(who):
        return {m.id for m in api(world, who).list_models()}

    open_repos = {world.repos[s] for s in ("public", "researcher", "partner")}
    assert listed(None) == open_repos
    assert listed("outsider") == open_repos
    assert listed("auditor") == open_repos | {world.repos["internal"]}


def test_trees_refs_commits_and_paths_agree(world):
    client, repo = api(world, "partner"), world.repos["partner"]
    info = client.model_info(repo, files_metadata=True)
    tree = {f.path: f for f in client.list_repo_tree(repo, recursive=True, expand=True)}
    assert {s.rfilename for s in info.siblings} == set(tree)
    for sibling in info.siblings:
        assert sibling.size == tree[sibling.rfilename].size
        assert sibling.blob_id == tree[sibling.rfilename].blob_id
    assert tree["model.safetensors"].lfs.sha256
    refs = client.list_repo_refs(repo)
    assert [(b.name, b.target_commit) for b in refs.branches] == [("main", info.sha)]
    assert [c.commit_id for c in client.list_repo_commits(repo)] == [info.sha]
    found = client.get_paths_info(repo, ["config.json", "nope"])
    assert [p.path for p in found] == ["config.json"]


def test_the_command_line_client_downloads_and_is_refused(world, tmp_path):
    hf = Path(sys.executable).parent / "hf"
    environ = {**os.environ, "HF_ENDPOINT": world.base_url, "HF_HOME": str(tmp_path / "home")}
    asked = [str(hf), "download", world.repos["partner"], "--local-dir"]
    done = subprocess.run(
        [*asked, str(tmp_path / "got")],
        env={**environ, "HF_TOKEN": world.tokens["partner"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got" / "model.safetensors").exists()
    refused = subprocess.run(
        [*asked, str(tmp_path / "other")],  # a directory that holds the files would be reused
        env={**environ, "HF_TOKEN": world.tokens["outsider"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode != 0
    assert "you hold no grant for it" in (refused.stderr + refused.stdout).replace("\n", " ")


def test_withdrawn_is_said_in_words(world, tmp_path):
    with world.box.works.begin(world.actor("owner")) as work:
        from stagerelease.releases import queries as releases

        track = next(t for t in releases.list_tracks(work) if t.repo_id == world.repos["partner"])
        entitlements.withdraw(work, track.id, reason="Found a leak.")
    with pytest.raises(GatedRepoError, match="withdrawn"):
        snapshot(world, "partner", "partner", tmp_path)


def test_a_revoked_token_is_a_bad_token(world, tmp_path):
    actor = world.actor("partner")
    with world.box.works.begin(OPERATOR) as work:
        identity.revoke_token(work, actor.token_id)
    with pytest.raises(HfHubHTTPError) as refused:
        snapshot(world, "partner", "partner", tmp_path)
    assert refused.value.response.status_code == 401

"""Kinds are released apart: opening one never opens another."""

from __future__ import annotations

import pytest

from stagerelease.catalog import importer
from stagerelease.catalog import service as catalog
from stagerelease.demo import world as demo
from stagerelease.releases import service as releases


def publish(world, repo_id, directory, *, track, kind=None) -> None:
    """Import a directory and take one kind of it to the public stage, by the real use cases."""
    works = world.box.works
    actors = {who: world.actor(who) for who in ("release_manager", "reviewer_a", "reviewer_b")}
    with works.begin(actors["release_manager"]) as work:
        catalog.ensure_variant(work, family_id="gpt2-mini", repo_id=repo_id, label="x")
    importer.import_directory(
        works,
        world.box.blobs,
        actors["release_manager"],
        directory=directory,
        repo_id=repo_id,
        kind=kind,
    )
    with works.begin(actors["release_manager"]) as work:
        releases.create_track(work, repo_id=repo_id, kind=track, plan="demo")
    demo._promote(works, actors, repo_id, "public")


def statuses(world, who, repo_id, *paths) -> dict[str, int]:
    with world.client(who) as client:
        return {path: client.get(f"/{repo_id}/resolve/main/{path}").status_code for path in paths}


@pytest.mark.parametrize("who", [None, "outsider", "partner"])
def test_a_public_tokenizer_does_not_open_the_weights(world, who):
    directory = demo.CHECKPOINTS / "gpt2-mini-124M"
    publish(world, "demo/tokenizer", directory, track="tokenizer")
    got = statuses(
        world, who, "demo/tokenizer", "tokenizer.json", "model.safetensors", "config.json"
    )
    assert got["tokenizer.json"] == 200
    assert got["model.safetensors"] in (401, 403, 404)
    assert got["config.json"] in (401, 403, 404)
    with world.client(who) as client:
        tree = client.get("/api/models/demo/tokenizer/tree/main", params={"recursive": True})
        assert tree.status_code in (401, 403, 404)


def test_a_public_dataset_opens_all_its_files_whatever_they_are_called(world, tmp_path):
    directory = tmp_path / "samples"
    directory.mkdir()
    for name in ("samples.jsonl", "config.json", "README.md"):
        (directory / name).write_text('{"text": "a sample"}\n')
    publish(world, "demo/samples", directory, track="output_dataset", kind="output_dataset")
    got = statuses(world, None, "demo/samples", "samples.jsonl", "config.json", "README.md")
    assert set(got.values()) == {200}
    with world.client() as client:
        tree = client.get("/api/models/demo/samples/tree/main").json()
    assert {entry["path"] for entry in tree} == {"samples.jsonl", "config.json", "README.md"}

"""A signature made offline, and what a downloader can do with it using nothing but public tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from stagerelease.demo.world import CHECKPOINTS

BIN = Path(sys.executable).parent


def tool(*command: str) -> int:
    done = subprocess.run([str(BIN / "model_signing"), *command], capture_output=True, check=False)
    return done.returncode


def download(world, repo: str, to: Path) -> Path:
    """Download a repository with the ordinary client, as a partner does."""
    environ = {
        **os.environ,
        "HF_ENDPOINT": world.base_url,
        "HF_TOKEN": world.tokens["partner"],
        "HF_HOME": str(to.with_name("cache")),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [str(BIN / "hf"), "download", repo, "--local-dir", str(to)]
    subprocess.run(command, check=True, capture_output=True, env=environ)
    return to


def test_what_is_downloaded_verifies_with_the_released_tool(world, tmp_path):
    repo = world.repos["partner"]
    key, public = tmp_path / "key.pem", tmp_path / "key.pub"
    new = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key)]
    subprocess.run(new, check=True, capture_output=True)
    show = ["openssl", "ec", "-in", str(key), "-pubout", "-out", str(public)]
    subprocess.run(show, check=True, capture_output=True)
    source = tmp_path / "source"
    shutil.copytree(CHECKPOINTS / repo.partition("/")[2], source)
    made = tmp_path / "made.json"
    signing = ("--private_key", str(key), "--signature", str(made))
    assert tool("sign", "key", str(source), *signing) == 0

    at = f"/api/v1/catalog/repos/{repo}/signatures"
    with world.client("release_manager") as client:
        bundle = {"bundle": made.read_text()}
        early = client.post(at, json=bundle)
        assert (early.status_code, early.json()["reason"]) == (422, "bundle.signature")
    with world.client("owner") as client:
        registered = client.post(
            "/api/v1/signing-keys", json={"id": "release", "pem": public.read_text()}
        )
        assert registered.status_code == 201
    with world.client("release_manager") as client:
        assert client.post(at, json=bundle).status_code == 201

    with world.client() as client:  # the key comes from anybody's look at the list of keys
        (shown,) = client.get("/api/v1/signing-keys").json()
        assert client.get(at).status_code == 401
    with world.client("partner") as client:
        (row,) = client.get(at).json()
        answer = client.get(f"{at}/{row['id']}/bundle")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.content == made.read_bytes()
    (tmp_path / "got.json").write_bytes(answer.content)
    (tmp_path / "shown.pub").write_text(shown["pem"])

    got = download(world, repo, tmp_path / "got")
    verify = (
        *("verify", "key", str(got), "--public_key", str(tmp_path / "shown.pub")),
        *("--signature", str(tmp_path / "got.json"), "--ignore-paths", str(got / ".cache")),
    )
    assert tool(*verify) == 0
    weights = got / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))
    assert tool(*verify) != 0

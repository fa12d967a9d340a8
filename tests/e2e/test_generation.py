"""Models asked through the real nginx: streams leave token by token, and a hold ends them.

nginx, two web processes and an inference process of its own, as docker-compose.yml has them; the
process computes with the small engine, so that nothing here needs torch.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from edge_site import Site, running_site, wait_for
from sqlalchemy import select

from stagerelease.engine.remote import RemoteEngine, Where
from stagerelease.inference.tables import InferenceRequest
from stagerelease.kernel.errors import Unavailable
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
STEP = 0.03


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running_site() as running:
        running.start("inference")
        # The edge's watcher polls twice a second; its first answer after polls that failed makes
        # the edge reload, which ends every stream within 1.5 s (watch-cuts.sh): let that pass.
        time.sleep(4)
        yield running


def body(site: Site, **changes: Any) -> dict[str, Any]:
    given = {"model": site.repo("partner"), "prompt": "In a", "max_tokens": 200, "seed": 1}
    return given | changes


def streamed(site: Site, **changes: Any) -> Iterator[tuple[float, Any]]:
    """Yield when each event arrived, and what it says; None at ``[DONE]``."""
    with (
        site.client("partner") as client,
        client.stream("POST", "/v1/completions", json=body(site, stream=True, **changes)) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("data: "):
                said = line.removeprefix("data: ")
                yield time.monotonic(), None if said == "[DONE]" else json.loads(said)


def ready(site: Site) -> bool:
    with site.client("partner") as client:
        model = client.get(f"/v1/models/{site.repo('partner')}").json()
    return bool(model["stagerelease"]["state"] != "away")


def test_every_token_leaves_at_once(site: Site) -> None:
    wait_for(lambda: ready(site))
    arrivals = [at for at, document in streamed(site, max_tokens=60) if document is not None]
    gaps = [after - before for before, after in itertools.pairwise(arrivals)]
    assert len(arrivals) > 30
    # Buffered, they would come in one burst at the end: no gap, or one.
    assert arrivals[-1] - arrivals[0] > 0.6 * STEP * 60
    assert sum(gap > STEP / 2 for gap in gaps) > len(gaps) / 2


def test_a_hold_ends_a_stream_behind_nginx_with_a_reason(site: Site) -> None:
    with site.box.works.begin(read_only=True) as work:
        track = next(t for t in releases.list_tracks(work) if t.repo_id == site.repo("partner"))
    documents: list[Any] = []
    laid = 0.0
    for _, document in streamed(site, max_tokens=400):
        documents.append(document)
        if len(documents) == 5:
            with site.box.works.begin(site.actor("security")) as work:
                hold = release_service.lay_hold(
                    work, scope="track", scope_id=track.id, reason="For the test."
                )
            laid = time.monotonic()
    assert time.monotonic() - laid < 2
    assert documents[-1]["error"]["code"] == "held"
    with site.client("partner") as client:
        assert client.post("/v1/completions", json=body(site)).status_code == 403
    outcomes = wait_for(
        lambda: [r[0] for r in site.rows(select(InferenceRequest.outcome)) if r[0] in ("cut",)]
    )
    assert outcomes == ["cut"]
    for who in ("security", "owner"):
        with site.box.works.begin(site.actor(who)) as work:
            release_service.lift_hold(work, hold.id, reason="It was a test.")


def test_a_client_that_hangs_up_at_nginx_stops_the_work(site: Site) -> None:
    for count, _ in enumerate(streamed(site, max_tokens=400)):
        if count == 5:
            break
    left = wait_for(
        lambda: [
            r[0]
            for r in site.rows(
                select(InferenceRequest.completion_tokens).where(
                    InferenceRequest.outcome == "client_left"
                )
            )
        ],
        5,
    )
    assert left[0] < 60


def test_a_body_too_large_has_the_right_shape(site: Site) -> None:
    with site.client("partner") as client:
        answer = client.post("/v1/completions", json=body(site, prompt="x" * 1_500_000))
    assert (answer.status_code, "error" in answer.json()) == (413, True)


def test_an_inference_process_that_is_killed_is_said_so_and_comes_back(site: Site) -> None:
    documents: list[Any] = []
    for _, document in streamed(site, max_tokens=400):
        documents.append(document)
        if len(documents) == 5:
            site.stop("inference", signal.SIGKILL)
    assert documents[-1]["error"]["code"] == "engine.away"
    with site.client("partner") as client:
        refused = client.post("/v1/completions", json=body(site))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "engine.away")
    assert refused.headers["retry-after"] == "5"
    site.start("inference")
    wait_for(lambda: ready(site))
    assert [d for _, d in streamed(site, max_tokens=4)][-1] is None


def test_an_inference_process_told_to_stop_finishes_what_runs(site: Site) -> None:
    documents: list[Any] = []
    for _, document in streamed(site, max_tokens=60):
        documents.append(document)
        if len(documents) == 5:
            site.processes["inference"].send_signal(signal.SIGTERM)
    assert documents[-1] is None
    reasons = [
        c["finish_reason"] for d in documents[:-1] for c in d["choices"] if c["finish_reason"]
    ]
    assert len(reasons) == 1
    site.processes.pop("inference").wait(15)
    site.start("inference")
    wait_for(lambda: ready(site))


# --- the command itself -------------------------------------------------------------------------


def test_the_command_listens_where_only_its_owner_may_ask() -> None:
    with tempfile.TemporaryDirectory(prefix="sr-") as directory:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("STAGERELEASE_")}
        command = [sys.executable, "-m", "stagerelease", "infer"]
        process = subprocess.Popen(
            command, env=environ | {"DATA_DIR": directory}, stderr=subprocess.PIPE
        )
        path = Path(directory) / "run" / "infer.sock"
        try:
            wait_for(path.is_socket, 60)
            assert path.stat().st_mode & 0o777 == 0o600
            transport = httpx.HTTPTransport(uds=str(path))
            with httpx.Client(transport=transport, base_url="http://infer") as client:
                wait_for(lambda: _healthy(client), 30)
                assert client.get("/v1/models").json()["object"] == "list"
        finally:
            process.terminate()
            process.communicate(timeout=30)


def _healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").json() == {"status": "ok"}
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"STAGERELEASE_INFERENCE_LISTEN": "127.0.0.1:1"}, "inference.secret"),
        ({"STAGERELEASE_INFERENCE_LISTEN": "unix:/" + "d" * 120}, "inference.socket"),
        ({"STAGERELEASE_INFERENCE_SECRET_FILE": "/none"}, "inference.secret"),
    ],
)
def test_the_command_refuses_what_is_not_safe_or_cannot_be(
    environ: dict[str, str], reason: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stagerelease", "infer"],
        env=dict(os.environ) | {"DATA_DIR": str(tmp_path)} | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"({reason})" in done.stderr


def test_a_missing_extra_is_said_with_the_command(tmp_path: Path) -> None:
    """As on a machine without torch: the process serves, and every question gets the reason."""
    hidden = tmp_path / "hidden.py"
    hidden.write_text(
        "import importlib.util as u, sys\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'torch' else real(n, *a)\n"
        "from stagerelease.cli.app import main\n"
        "sys.argv = ['stagerelease', 'infer']\n"
        "main()\n"
    )
    with tempfile.TemporaryDirectory(prefix="sr-") as directory:
        process = subprocess.Popen(
            [sys.executable, str(hidden)], env=dict(os.environ) | {"DATA_DIR": directory}
        )
        path = Path(directory) / "run" / "infer.sock"
        try:
            wait_for(path.is_socket, 60)
            remote = RemoteEngine(Where.of(f"unix:{path}"))
            with pytest.raises(Unavailable, match="inference extra is not installed") as refused:
                _ask(remote)
            assert "make inference" in refused.value.sentence
            assert refused.value.reason == "inference.extra"
        finally:
            process.terminate()
            process.wait(30)


def _ask(remote: RemoteEngine) -> None:
    import asyncio

    from stagerelease.engine.ports import Checkpoint, Job

    async def ask() -> None:
        job = Job(Checkpoint("a" * 40, "a/b", {"config.json": "0" * 64}), ("x",))
        for _ in range(100):
            try:
                async for _event in remote.generate(job):
                    pass
            except Unavailable as refused:
                if refused.reason != "engine.away":
                    raise
            await asyncio.sleep(0.1)

    asyncio.run(ask())

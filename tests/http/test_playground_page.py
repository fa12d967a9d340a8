"""The playground without scripts: what it refuses, and what it says of texts that are kept."""

from __future__ import annotations

import pytest

from browsing import browser
from live import World
from stagerelease.inference import admitting, models

KEPT = "your text is kept"


@pytest.mark.parametrize("field", ["length", "temperature", "top_k", "top_p", "seed"])
@pytest.mark.parametrize("value", ["9" * 400, "9" * 5000, "1e999", "nan", "-inf", "-1", "x", "½"])
def test_numbers_that_are_none_are_refused_in_words(world: World, field: str, value: str) -> None:
    given = {"prompt": "In a", "model": world.repos["partner"], field: value}
    with browser(world, "partner") as http:
        page = http.post("/playground", data=given)
        stream = http.post("/playground/stream", data=given)
    assert (page.status_code, stream.status_code) == (422, 422)
    assert "Give a" in page.text


def test_who_writes_is_told_whether_it_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"prompt": "In a", "model": world.repos["partner"], "length": "3"}
    with browser(world, "partner") as http:
        assert KEPT not in http.get("/playground").text
        answer = http.post("/playground", data=given)
        assert answer.headers["x-stagerelease-prompt-logging"] == "off"
        assert answer.headers["x-stagerelease-output"].startswith("machine-written")
        assert "was kept" not in answer.text
        for module in (admitting, models):
            monkeypatch.setattr(module, "prompts_are_kept", lambda *_: True)
        page = http.get("/playground").text
        assert f"(partner, {KEPT})" in page
        assert "is kept for 30 days" in page
        answer = http.post("/playground", data=given)
        assert answer.headers["x-stagerelease-prompt-logging"] == "on"
        assert "What you wrote was kept." in answer.text
        refused = http.post("/playground", data=given | {"prompt": "x" * 600})
        assert "were kept" not in refused.text
        assert refused.headers["x-stagerelease-prompt-logging"] == "on"

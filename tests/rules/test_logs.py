"""No token is written to a log, wherever in it one stands."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from stagerelease.logs import configure_logs

TOKEN = "srp_" + "a1B2" * 9


@pytest.fixture
def written(monkeypatch):
    root = logging.getLogger()
    before, level = root.handlers, root.level
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    configure_logs("info")
    yield out
    root.handlers = before
    root.setLevel(level)


def test_a_token_in_a_message_or_in_its_traceback_is_masked(written):
    log = logging.getLogger("stagerelease.delivery")
    log.error("asked with %s", TOKEN)
    try:
        raise ValueError(f"no such thing as {TOKEN}")
    except ValueError:
        log.exception("Exception in ASGI application")
    text = written.getvalue()
    assert "Traceback" in text
    assert text.count("srp_…") >= 2
    assert TOKEN not in text

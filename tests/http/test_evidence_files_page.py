"""A file chosen on a page goes straight to the store, and is refused before it is kept."""

from __future__ import annotations

import tempfile

import pytest

from browsing import browser, draft_evidence
from stagerelease.evidence import throttle


@pytest.fixture
def no_spool(monkeypatch):
    """Fail when a form is put down in the temporary directory: in a container that is memory."""

    def rollover(_):
        raise AssertionError("spooled")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rollover)


def test_a_large_file_of_a_form_is_kept_nowhere_on_the_way(world, no_spool):
    here = f"/me/evidence/{draft_evidence(world)}"
    data = bytes(range(256)) * (5 << 12)  # 5 MiB
    with browser(world, "researcher") as ada:
        sent = ada.post(
            f"{here}/attachments", data={"note": "x"}, files={"file": ("large.bin", data)}
        )
        assert sent.status_code == 303, sent.text
        assert "large.bin" in ada.get(here).text
    with world.client("researcher") as client:
        (file,) = client.get(f"/api/v1/evidence/{here.rpartition('/')[2]}").json()["attachments"]
        got = client.get(f"/api/v1/evidence/{here.rpartition('/')[2]}/attachments/{file['id']}")
    assert got.content == data


def test_what_is_refused_is_not_kept_and_is_counted(world, monkeypatch):
    here = f"/me/evidence/{draft_evidence(world)}"
    monkeypatch.setitem(throttle.LIMITS, throttle.Written.FILE, 3)
    with browser(world, "researcher") as ada:

        def attach(name: str, data: bytes) -> int:
            return ada.post(f"{here}/attachments", files={"file": (name, data)}).status_code

        assert attach("a.bin", b"first") == 303
        before = list(world.box.blobs.list_digests())
        assert attach("a.bin", b"second") == 409
        assert attach("/etc/passwd", b"third") == 422
        assert attach("a.bin", b"fourth") == 409
        assert attach("b.bin", b"fifth") == 429
    assert list(world.box.blobs.list_digests()) == before


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"file=x", "application/x-www-form-urlencoded"),
        (b"no form", "multipart/form-data; boundary=b"),
        (
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
            "multipart/form-data; boundary=b",
        ),
        (b"x", "multipart/form-data"),
        (b"", "multipart/form-data; boundary=b"),
    ],
)
def test_what_is_no_form_with_a_file_is_refused(world, body, kind):
    here = f"/me/evidence/{draft_evidence(world)}"
    with browser(world, "researcher") as ada:
        got = ada.post(f"{here}/attachments", content=body, headers={"Content-Type": kind})
    assert got.status_code == 422

"""What lets people in or stops them asks who is at the keyboard, when that was shown long ago."""

from __future__ import annotations

from datetime import timedelta

import pytest

from browsing import SAME, browser
from looks import lay_out
from stagerelease.db.epoch import read_epoch
from stagerelease.kernel.actor import OPERATOR

SIGNED = {
    "text_sha256": "0" * 64,
    "typed_name": "Olu Outsider",
    "typed_title": "Reader",
    "authorised_to_bind": "on",
    "consents_electronically": "on",
}


@pytest.mark.parametrize(
    ("who", "path", "form"),
    [
        ("security", "/staff/holds", {"scope": "everything", "reason": "A leak.", "typed": ""}),
        ("reviewer_a", "/staff/promotions/{promotion}/approve", {"comment": "Read it all."}),
        ("access_officer", "/staff/requests/{request}/approve", {"until": "2027-01-01"}),
        ("researcher", "/agreements/{version}/sign", SIGNED),
        ("researcher", "/me/grants/{grant}/declare", {"statement": "Gone.", "typed_name": "Rea"}),
        ("owner", "/staff/webhooks", {"url": "https://hooks.example.org/", "events": ""}),
        ("owner", "/staff/webhooks/whk_1/rotate", {}),
    ],
)
def test_an_old_proof_is_asked_for_again_and_what_was_typed_is_kept(world, clock, who, path, form):
    found = lay_out(world)
    at = path.format_map(found)
    with browser(world, who) as client:
        clock.move(timedelta(minutes=6))
        got = client.post(at, data=form, headers=SAME)
        assert got.status_code == 403, got.text[:500]
        assert "Show that it is you" in got.text
        for value in form.values():
            assert value in got.text


def test_a_signature_with_gaps_is_completed_before_a_proof_is_asked_for(world, clock):
    found = lay_out(world)
    with browser(world, "researcher") as client:
        clock.move(timedelta(minutes=6))
        got = client.post(f"/agreements/{found['version']}/sign", data={}, headers=SAME)
    assert (got.status_code, "Type your full name." in got.text) == (422, True)


def test_what_a_stranger_sends_makes_nobody_wait(world):
    """A writer waits for every other; the epoch, when it moves, has every decision taken anew."""

    def epoch() -> int:
        with world.box.works.begin(read_only=True) as work:
            return read_epoch(work.session.connection())

    before = epoch()
    with (
        world.client(cookies={"sr": "x" * 43, "srd": "drf_1.secret"}) as client,
        world.box.works.begin(OPERATOR, quiet=True),  # writing, the whole time
    ):
        for path in ("/sign-out", f"/models/{world.repos['public']}/request/discard"):
            assert client.post(path, headers=SAME).status_code == 303
    assert epoch() == before

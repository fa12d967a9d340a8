"""What lets people in or stops them asks who is at the keyboard, when that was shown long ago."""

from __future__ import annotations

from datetime import timedelta

import pytest

from browsing import SAME, browser
from looks import lay_out


@pytest.mark.parametrize(
    ("who", "path", "form"),
    [
        ("security", "/staff/holds", {"scope": "everything", "reason": "A leak.", "typed": ""}),
        ("reviewer_a", "/staff/promotions/{promotion}/approve", {"comment": "Read it all."}),
        ("access_officer", "/staff/requests/{request}/approve", {"until": "2027-01-01"}),
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

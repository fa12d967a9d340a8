"""The public timeline, page by page: nothing twice and nothing left out, even of one instant."""

from __future__ import annotations

from datetime import timedelta

import pytest
from make_incidents import closed, confirmed, secured
from make_partners import database_url, partnered, world

from stagerelease.incidents import service as incidents
from stagerelease.notices import service
from stagerelease.releases import service as releases

__all__ = ["database_url", "partnered", "secured", "world"]  # fixtures


def pages(world, limit):
    """Walk the timeline from the newest to the oldest."""
    found, place = [], {}
    while True:
        with world.works.begin(read_only=True) as work:
            part = service.timeline(work, limit=limit, **place)
        assert len(part) <= limit
        if not part:
            return found
        found += part
        place = {"before": part[-1].at, "before_id": part[-1].id}


@pytest.fixture
def told(secured, clock):
    """Moves, holds, liftings and words on incidents: many of them at one instant."""
    secured.climb("researcher")
    numbers = []
    for _ in range(12):  # ids of one digit and of two
        with secured.begin("sam") as work:
            scope = {"scope": "track", "scope_id": secured.track_id}
            numbers.append(releases.lay_hold(work, reason="Stop.", **scope).id)
    clock.move(timedelta(microseconds=300))  # within the millisecond that a wire shows
    for number in numbers[:4]:
        for who in ("sam", "sue"):
            with secured.begin(who) as work:
                releases.lift_hold(work, number, reason="Over.")
    closed(secured)
    number = confirmed(secured, advisory="Stop using it.").incident.id
    for n in range(3):
        with secured.begin("sam") as work:
            incidents.add_note(work, number, text=f"Word {n}.", visibility="public")
    clock.move(timedelta(days=1))
    with secured.begin("sam") as work:
        incidents.add_note(work, 1, text="An old one, spoken of again.", visibility="public")
    return secured


def test_pages_of_any_size_make_the_whole(told):
    with told.works.begin(read_only=True) as work:
        whole = service.timeline(work, limit=200)
    kinds = [entry.kind for entry in whole]
    # Each incident laid a hold of its own besides.
    assert [kinds.count(k) for k in ("release", "hold", "hold_lifted")] == [2, 14, 4]
    assert kinds.count("incident") == 2 + 4 + 1
    assert [e.place for e in whole] == sorted((e.place for e in whole), reverse=True)
    assert len({e.place for e in whole}) == len(whole)
    for limit in (1, 2, 3, 7, 50):
        assert pages(told, limit) == whole, limit


def test_an_instant_alone_leaves_out_all_that_is_of_it(told):
    with told.works.begin(read_only=True) as work:
        whole = service.timeline(work, limit=200)
        at = whole[3].at
        assert service.timeline(work, before=at, limit=200) == [e for e in whole if e.at < at]

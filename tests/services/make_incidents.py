"""What tests of incidents share: two people of security, a report, and the way to each state."""

from __future__ import annotations

from typing import Any

import pytest
from make_partners import World
from make_release import forget_jobs

from stagerelease.identity import service as identity
from stagerelease.incidents import service
from stagerelease.incidents.rows import Reported
from stagerelease.incidents.service import Links
from stagerelease.kernel.actor import OPERATOR


@pytest.fixture
def secured(world: World) -> World:
    """The world of partners, with a second person of security (``sue``) beside ``sam``."""
    with world.works.begin(OPERATOR) as work:
        identity.create_person(work, handle="sue", display_name="Sue")
        identity.assign_role(work, person="sue", role="security")
        forget_jobs(work)
        _, world.tokens["sue"] = identity.create_token(work, person="sue", name="test")
    return world


def report(world: World, who: str | None = None, **changes: Any) -> Reported:
    details: dict[str, Any] = {"text": "Your weights are on a torrent site."}
    works = world.works.begin(quiet=True) if who is None else world.begin(who, quiet=True)
    with works as work:
        return service.report(work, **(details | changes))


def triaged(world: World, *, blocking: bool = True, who: str = "sam", **changes: Any) -> int:
    number = report(world).incident_id
    details: dict[str, Any] = {
        "severity": "high",
        "blocking": blocking,
        "actor_tier": 2,
        "title": "Leaked by a partner",
        "public_summary": "Weights were found outside the release.",
        "links": Links(tracks=[world.track_id]),
    }
    with world.begin(who) as work:
        service.triage(work, number, **(details | changes))
    return number


def confirmed(world: World, *, who: str = "sam", advisory: str | None = None, **changes: Any):
    number = triaged(world, who=who, **changes)
    with world.begin(who) as work:
        return service.confirm(work, number, reason="Seen with our own eyes.", advisory=advisory)


def mitigated(world: World, **changes: Any) -> int:
    number = confirmed(world, **changes).incident.id
    with world.begin("sam") as work:
        service.mitigate(work, number, reason="The torrent is gone.")
    return number


def closed(world: World, **changes: Any) -> int:
    number = mitigated(world, **changes)
    for who in ("sam", "sue"):
        with world.begin(who) as work:
            page = service.close(work, number, outcome="Nothing more came up.")
        if page.incident.state == "closed":
            break
    return number

"""What tests of pages share: sessions for the demo's people, and forms as a browser sends them."""

from __future__ import annotations

from typing import Any

import httpx

from live import World
from stagerelease.identity import queries as people
from stagerelease.identity import sessions
from stagerelease.kernel.actor import OPERATOR

SAME = {"Sec-Fetch-Site": "same-origin"}
ANSWERS = {
    "name": "Ada Example",
    "email": "ada@university.example",
    "organisation": "University of Example",
    "role": "Postdoctoral researcher",
    "profile": "",
    "purpose": "Measure how well detectors find text of this model at several lengths.",
    "category": "detection",
    "data_use": "GRU",
    "public_output": "paper",
    "ends_on": "",
    "storage": "An encrypted volume that two named people can read.",
    "no_sharing": "on",
    "report_misuse": "on",
}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}\u202egpj.exe & \u0000"


def cookie_for(world: World, who: str) -> str:
    """Sign one of the demo's people in and return their cookie."""
    with world.box.works.begin(read_only=True) as work:
        person = people.load_person(work, world.actor(who).name)
    with world.box.works.begin(OPERATOR, quiet=True) as work:
        return sessions.open_session(work, person.id)


def browser(world: World, who: str | None = None, **options: Any) -> httpx.Client:
    """Return a client that behaves as a browser of ``who`` would, redirects left to the test."""
    cookies = {"sr": cookie_for(world, who)} if who else {}
    return httpx.Client(
        base_url=world.base_url,
        cookies=cookies,
        headers={"Accept": "text/html,application/xhtml+xml"} | SAME,
        timeout=30,
        **options,
    )

"""Pages stay fast when there is much: 1,000 tracks, 100,000 entries of the timeline."""

from __future__ import annotations

import re
import time
from datetime import timedelta
from html import unescape

import httpx
import pytest
from sqlalchemy import insert, select

from browsing import browser
from live import World
from stagerelease.catalog.tables import Revision, Variant
from stagerelease.kernel.actor import OPERATOR
from stagerelease.releases.tables import StageEvent, Track

pytestmark = [pytest.mark.e2e, pytest.mark.alone]
TRACKS, ENTRIES = 1_000, 100_000
STAGES = ("partner", "researcher", "public", "withdrawn")
LIMIT_MS = 60


def like(row) -> dict:
    return {column.key: getattr(row, column.key) for column in row.__table__.columns}


def fill(world: World) -> None:
    """Write many tracks and moves straight into the tables: making them takes hours."""
    with world.box.works.begin(OPERATOR) as work:
        session, now = work.session, work.now
        variant, revision, track = (
            like(session.scalars(select(table)).first()) for table in (Variant, Revision, Track)
        )
        rows: dict[type, list[dict]] = {Variant: [], Revision: [], Track: []}
        for n in range(TRACKS):
            ids = {"variant": f"var_{n:05}", "revision": f"{n:040x}"}
            rows[Variant].append(
                {**variant, "id": ids["variant"], "repo_id": f"many/m-{n:05}", "position": n}
            )
            rows[Revision].append(
                {**revision, "id": ids["revision"], "variant_id": ids["variant"], "parent_id": None}
            )
            rows[Track].append(
                {
                    **track,
                    "id": f"trk_{n:05}",
                    "variant_id": ids["variant"],
                    "revision_id": ids["revision"],
                    "stage": ("internal", *STAGES)[n % 5],
                    "entered_at": now - timedelta(minutes=n),
                }
            )
        for table, many in rows.items():
            session.execute(insert(table), many)
        for start in range(0, ENTRIES, 10_000):
            session.execute(
                insert(StageEvent),
                [
                    {
                        "id": f"sev_{n:06}",
                        "track_id": f"trk_{n % TRACKS:05}",
                        "from_stage": "internal",
                        "to_stage": STAGES[(n // TRACKS) % len(STAGES)],
                        "at": now - timedelta(seconds=n // 3),
                        "reason": "",
                        "leaf_idx": n,
                    }
                    for n in range(start, start + 10_000)
                ],
            )


def p95(client: httpx.Client, path: str) -> float:
    """Return the 95th percentile of the time to the first byte, in milliseconds: the best round.

    Other work on the machine makes one round slow, and never makes one fast.
    """
    rounds: list[float] = []
    while len(rounds) < 8 and min(rounds, default=LIMIT_MS + 1) > LIMIT_MS:
        times = []
        for _ in range(20):
            began = time.perf_counter()
            with client.stream("GET", path) as answer:
                next(answer.iter_raw())
                times.append((time.perf_counter() - began) * 1000)
                assert answer.status_code == 200, path
        rounds.append(sorted(times)[18])
    return min(rounds)


def test_the_first_byte_of_pages_comes_soon(world):
    fill(world)
    with httpx.Client(base_url=world.base_url, headers={"Accept": "text/html"}) as client:
        deep = "/"
        for _ in range(5):
            older = re.search(r'href="(/\?after=[^"]*)"', client.get(deep).text)
            deep = unescape(older.group(1))
        paths = ["/", deep, "/?kind=withdrawal", "/?model=many/m-00003", "/models"]
        paths += [
            "/models?after=many/m-00500",
            "/models/demo/gpt2-mini-335M",
            "/status",
            "/docs/staff",
        ]
        slow = {path: round(took, 1) for path in paths if (took := p95(client, path)) > LIMIT_MS}
    staff = ["/staff", "/staff?page=20", "/staff?q=m-0099", "/staff?show=waiting"]
    staff += ["/staff/promotions", "/staff/tracks/trk_00003", "/staff/holds", "/staff/holders"]
    staff += ["/staff/incidents", "/staff/evidence", "/staff/plans", "/staff/people"]
    with browser(world, "owner") as client:
        slow |= {path: round(took, 1) for path in staff if (took := p95(client, path)) > LIMIT_MS}
    assert slow == {}

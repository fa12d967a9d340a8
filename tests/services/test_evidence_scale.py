"""Fifty thousand pieces of evidence page by index; a small list proves the plans by default."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from make_evidence import BASELINE, WEIGHTS, add_partner
from make_release import database_url, staff, staffed, track
from sqlalchemy import event, insert, text

from stagerelease.evidence import queries, service
from stagerelease.evidence.tables import Evidence, EvidenceAuthor
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR

__all__ = ["database_url", "staff", "staffed", "track"]

THEN = datetime(2026, 2, 1, tzinfo=UTC)
STATES = ("accepted", "submitted", "accepted", "retracted", "accepted", "disputed", "draft")


def fill(works, count, *, author, organisation_id):
    """Write ``count`` rows: one in fifty about the held file, one in five hundred the holder's."""
    rows, authors = [], []
    for n in range(count):
        row = {
            "id": f"evd_{n:026d}",
            "type": ("detectability", "credibility", "benefit", "bias_probe")[n % 4],
            "title": f"Row {n}",
            "metric": "accuracy",
            "value": float(n % 100),
            "unit": "percent",
            "conditions": dict(BASELINE.conditions),
            "companions": {},
            "caveat": "",
            "subject_sha256": WEIGHTS if n % 50 == 0 else f"{n % 997:064x}",
            "subject_kind": "file",
            "fact_status": "verified",
            "source": "A source",
            "measured_at": THEN,
            "organisation_id": organisation_id if n % 500 == 7 else None,
            "author_name": "",
            "public": n % 100 == 3,
            "public_approved_at": THEN if n % 200 == 3 else None,
            "state": STATES[n % len(STATES)],
            "state_reason": "",
            "created_by": "operator",
            "created_at": THEN,
            "accepted_at": THEN,
            "version": 1,
        }
        rows.append(row)
        authors.append({"evidence_id": row["id"], "person_id": author})
    with works.begin(OPERATOR) as work:
        for at in range(0, count, 5000):
            work.session.execute(insert(Evidence), rows[at : at + 5000])
            work.session.execute(insert(EvidenceAuthor), authors[at : at + 5000])
    with works.engine.connect() as connection:  # as autovacuum and `analysis_limit` do in time
        connection.execute(text("ANALYZE"))
        connection.commit()


def pages(staff, works):
    """Return what reads pages, by who reads: each takes what it starts after."""

    def listed(who, **wanted):
        def read(after):
            with staff.begin(who, read_only=True) as work:
                return service.list_evidence(work, service.Wanted(**wanted), limit=51, after=after)

        return read

    def public(after):
        with works.begin(ANONYMOUS, read_only=True) as work:
            return service.list_evidence(work, limit=51, after=after)

    def about(after):
        with works.begin(read_only=True) as work:
            return queries.facts_about(work, [WEIGHTS])

    return {
        "staff": listed("aud"),
        "staff by state": listed("aud", state="submitted"),
        "staff by type and state": listed("aud", type="benefit", state="retracted"),
        "staff by subject": listed("aud", subject=WEIGHTS),
        "holder": listed("pia"),
        "known, holds nothing": listed("nia"),
        "public": public,
        "facts about a track": about,
    }


def sorted_times(read, starts):
    times = []
    for after in starts:
        began = time.perf_counter()
        read(after)
        times.append((time.perf_counter() - began) * 1000)
    return sorted(times)


@pytest.mark.e2e
def test_fifty_thousand_rows_page_in_time(works, staff, track):
    organisation_id = add_partner(works, staff, track.id, org="cornell", handle="pia")
    fill(works, 50_000, author=staff.id("mia"), organisation_id=organisation_id)
    starts = [None, *(f"evd_{n:026d}" for n in range(49_999, 0, -2_500))]
    p95 = {}
    for name, read in pages(staff, works).items():
        read(None)
        times = sorted_times(read, starts)
        p95[name] = times[int(len(times) * 0.95) - 1]
        print(f"{name:26} p50 {times[len(times) // 2]:7.1f} ms  p95 {p95[name]:7.1f} ms")
    assert {name: ms for name, ms in p95.items() if ms > 150} == {}


def plan_of(works, statement, parameters):
    with works.engine.connect() as connection:
        if works.engine.dialect.name == "sqlite":
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            return "\n".join(str(row[3]) for row in rows)
        rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
        return "\n".join(str(row[0]) for row in rows)


def test_no_page_of_evidence_reads_the_whole_table(works, staff, track):
    organisation_id = add_partner(works, staff, track.id, org="cornell", handle="pia")
    fill(works, 4_000, author=staff.id("mia"), organisation_id=organisation_id)
    seen = []

    @event.listens_for(works.engine, "before_cursor_execute")
    def keep(connection, cursor, statement, parameters, context, executemany):
        if statement.startswith("SELECT evidence.id"):
            seen.append((statement, parameters))

    for name, read in pages(staff, works).items():
        seen.clear()
        read("evd_99999")
        assert seen, name
        for statement, parameters in seen:
            plan = plan_of(works, statement, parameters)
            if works.engine.dialect.name == "sqlite":
                lines = [line for line in plan.splitlines() if line.startswith("SCAN evidence")]
            else:
                lines = [line for line in plan.splitlines() if "Seq Scan on evidence " in line]
            assert lines == [], f"{name}: {plan}"

"""Lists of incidents read an index in its order: no whole table, no sorting of all there is."""

from __future__ import annotations

import pytest
from make_incidents import confirmed, secured
from make_partners import database_url, partnered, world
from sqlalchemy import event, text

from stagerelease.incidents import service

__all__ = ["database_url", "partnered", "secured", "world"]  # fixtures
GROWING = ("incident", "advisory_receipt", "download", "incident_update", "incident_event")

LISTS = {
    "incidents": lambda w: service.list_incidents(w, limit=51, after=9),
    "incidents in a state": lambda w: service.list_incidents(w, state="closed", limit=51),
    "incidents of a severity": lambda w: service.list_incidents(w, severity="high", limit=51),
    "public incidents": lambda w: service.public_incidents(w, limit=51, after=1),
    "overdue": lambda w: service.overdue_advisories(w, limit=51),
    "one's own": lambda w: service.my_advisories(w, limit=51, after="adr_9"),
    "receipts": lambda w: service.advisory_receipts(w, "adv_1", limit=51, after="adr_9"),
    "an incident": lambda w: service.show_incident(w, 1),
}
SORTS = {"an incident"}  # a handful of its own rows, put in order


@pytest.mark.parametrize("name", LISTS)
def test_lists_walk_an_index(secured, name):
    secured.granted()
    confirmed(secured)
    engine = secured.works.engine
    asked: list[tuple[str, object]] = []

    def note(_conn, _cursor, statement, parameters, _context, _many):
        asked.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        with secured.begin("sam", read_only=True) as work:
            LISTS[name](work)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    plans = list(explained(engine, asked))
    assert plans
    wrong = [plan for plan in plans if whole_table(plan) or (name not in SORTS and sorts(plan))]
    assert wrong == []


def explained(engine, asked):
    postgres = engine.dialect.name == "postgresql"
    with engine.connect() as connection:
        if postgres:  # tables of three rows are read whole and sorted unless that is made dear
            for way in ("seqscan", "bitmapscan", "sort"):
                connection.execute(text(f"SET enable_{way} = off"))
        for statement, parameters in asked:
            if statement.startswith("SELECT") and any(
                f"FROM {table} " in statement.replace("\n", " ") for table in GROWING
            ):
                how = "EXPLAIN " if postgres else "EXPLAIN QUERY PLAN "
                rows = connection.exec_driver_sql(how + statement, parameters)
                yield "\n".join(str(row[-1]) for row in rows)


def whole_table(plan: str) -> bool:
    return any(
        f"Seq Scan on {table} " in line or line.strip() == f"SCAN {table}"
        for line in plan.splitlines()
        for table in GROWING
    )


def sorts(plan: str) -> bool:
    return "TEMP B-TREE FOR ORDER BY" in plan or "Sort Key" in plan

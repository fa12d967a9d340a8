"""Coordination records: who, what, when, how well established, and what talks came to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from make_release import database_url, leaves, staff, staffed, track

from stagerelease.evidence import queries, service
from stagerelease.evidence.coordinating import counts_from, read_day, write_day
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound

__all__ = ["database_url", "staff", "staffed", "track"]

OPEN_GPT2 = {
    "family_id": "gpt2-mini",
    "developer": "Brown University (Gokaslan, Cohen, Pavlick, Tellex)",
    "claim": "OpenGPT-2 1.5B weights public, about $50k",
    "kind": "replication",
    "happened_on": "2019-08-22",
    "source": "OpenGPT-2: We Replicated GPT-2 Because You Can Too",
    "fact_status": "verified",
    "size_parameters": 1_500_000_000,
}


def add(staff, who="mia", **changes):
    with staff.begin(who) as work:
        return service.add_coordination(work, **{**OPEN_GPT2, **changes})


def test_a_record_is_kept_with_its_history(works, staff, track, clock):
    before = len(leaves(works))
    row = add(staff)
    assert row.happened_on == datetime(2019, 8, 22, tzinfo=UTC)
    assert (row.status, row.happened_precision, row.created_at) == ("noted", "day", clock.now())
    with staff.begin("sam") as work:
        service.update_coordination(
            work,
            row.id,
            status="contacted",
            contacted_on="2019-08-23",
            window_ends_at=datetime(2019, 10, 1, tzinfo=UTC),
            note="A letter to the authors.",
        )
        done = service.update_coordination(work, row.id, status="closed", note="Nothing more.")
    assert done.contacted_on == datetime(2019, 8, 23, tzinfo=UTC)
    assert done.window_ends_at == datetime(2019, 10, 1, tzinfo=UTC)
    with staff.begin("aud", read_only=True) as work:
        page = service.show_record(work, row.id)
    assert [(e.from_status, e.to_status) for e in page.events] == [
        *((None, "noted"), ("noted", "contacted"), ("contacted", "closed")),
    ]
    assert leaves(works, before) == [
        *("coordination.recorded", "coordination.updated", "coordination.updated"),
    ]


@pytest.mark.parametrize(
    ("text", "at", "precision"),
    [
        ("2019-08-22", datetime(2019, 8, 22, tzinfo=UTC), "day"),
        ("2019-05", datetime(2019, 5, 1, tzinfo=UTC), "month"),
        ("2019", datetime(2019, 1, 1, tzinfo=UTC), "year"),
    ],
)
def test_a_date_is_as_exact_as_its_source(staff, track, text, at, precision):
    assert read_day(text, "happened_on") == (at, precision)
    assert write_day(at, precision) == text
    row = add(staff, happened_on=text)
    assert (row.happened_on, row.happened_precision) == (at, precision)


@pytest.mark.parametrize(
    "change",
    [
        {"happened_on": "2019-02-30"},
        {"happened_on": "22.8.2019"},
        {"happened_on": "2019-08-22T10:00"},
        {"happened_on": ""},
        {"happened_on": "0000"},
        {"happened_on": "0001"},
        {"window_ends_at": datetime(9999, 12, 31, tzinfo=timezone(timedelta(hours=-14)))},
        {"happened_on": "2030-01-01"},
        {"happened_on": "٢٠١٩"},
        {"contacted_on": "2030-01-01"},
        {"contacted_on": "soon"},
        {"window_ends_at": datetime(2019, 8, 1, tzinfo=UTC)},
        {"window_ends_at": datetime(2019, 12, 1)},
        {"developer": ""},
        {"developer": "x" * 201},
        {"claim": "\x00"},
        {"source": ""},
        {"kind": "rumour"},
        {"status": "friends"},
        {"fact_status": "sure"},
        {"size_parameters": 0},
        {"size_parameters": -1},
        {"size_parameters": 10**16},
        {"size_parameters": True},
    ],
)
def test_a_wrong_field_is_named_and_nothing_kept(works, staff, track, change):
    before = len(leaves(works))
    with pytest.raises(Invalid) as refused:
        add(staff, **change)
    assert [f.field for f in refused.value.fields] == list(change)
    assert len(leaves(works)) == before
    with works.begin(read_only=True) as work:
        assert queries.coordination_about(work, "gpt2-mini") == []


def test_who_may(works, staff, track):
    for who in ("aud", "rae", "nia"):
        with pytest.raises(Forbidden):
            add(staff, who)
    row = add(staff, "sam")
    with staff.begin("aud") as work, pytest.raises(Forbidden):
        service.update_coordination(work, row.id, status="closed")
    with staff.begin("nia", read_only=True) as work, pytest.raises(Forbidden):
        service.list_records(work)
    with staff.begin("sam") as work:
        for odd in ("cor_nothing", "\x00", ""):
            with pytest.raises(NotFound):
                service.update_coordination(work, odd, status="closed")
        with pytest.raises(Invalid):
            service.update_coordination(work, row.id)
    with pytest.raises(NotFound):
        add(staff, family_id="gpt-9")


def test_records_page_by_family(works, staff, track):
    ids = [add(staff, claim=f"Claim {n}").id for n in range(5)]
    with staff.begin("aud", read_only=True) as work:
        got, after = [], None
        while page := service.list_records(work, family_id="gpt2-mini", limit=2, after=after):
            got += [row.id for row in page]
            after = page[-1].id
        assert service.list_records(work, family_id="other") == []
        assert service.list_records(work, after="\x00") == []
        about = queries.coordination_about(work, "gpt2-mini")
    assert got == sorted(ids, reverse=True)
    assert [row.id for row in about] == sorted(ids)


# --- when a window begins, and that it is never made shorter -------------------------------------


@pytest.mark.parametrize(
    ("happened_on", "counted"),
    [
        ("2019-08-22", datetime(2019, 8, 22, tzinfo=UTC)),
        ("2019-05", datetime(2019, 6, 1, tzinfo=UTC)),
        ("2019-12", datetime(2020, 1, 1, tzinfo=UTC)),
        ("2019", datetime(2020, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_window_counts_from_the_latest_day_that_a_date_may_mean(
    staff, track, happened_on, counted
):
    assert counts_from(add(staff, happened_on=happened_on)) == counted


def test_what_happened_this_year_counts_from_when_it_was_recorded(staff, track, clock):
    for text in (f"{clock.now():%Y}", f"{clock.now():%Y-%m}"):
        row = add(staff, happened_on=text)
        assert counts_from(row) == row.created_at == clock.now()
        with pytest.raises(Invalid):  # an agreed window is over after it began
            add(staff, happened_on=text, window_ends_at=clock.now())


@pytest.mark.parametrize("text", ["2019", "2019-09"])
def test_a_contact_has_a_day(staff, track, text):
    with pytest.raises(Invalid) as refused:
        add(staff, contacted_on=text)
    assert [f.field for f in refused.value.fields] == ["contacted_on"]
    row = add(staff, contacted_on="2019-09-01")
    with staff.begin("mia") as work, pytest.raises(Invalid):
        service.update_coordination(work, row.id, contacted_on=text)


def test_a_window_may_only_be_made_longer(works, staff, track):
    agreed = datetime(2026, 6, 1, tzinfo=UTC)
    row = add(staff, contacted_on="2019-09-10", window_ends_at=agreed)
    bare = add(staff)  # its window counts from 22 August 2019
    before = len(leaves(works))
    earlier = (
        (row.id, {"contacted_on": "2019-09-09"}),
        (row.id, {"window_ends_at": agreed - timedelta(seconds=1)}),
        (row.id, {"contacted_on": "2019-09-11", "window_ends_at": agreed - timedelta(days=1)}),
        (bare.id, {"contacted_on": "2019-08-21"}),
    )
    for which, change in earlier:
        with staff.begin("mia") as work, pytest.raises(Conflict) as refused:
            service.update_coordination(work, which, **change)
        assert refused.value.reason == "coordination.earlier"
        assert "waived" in refused.value.next_step
    assert len(leaves(works)) == before
    with staff.begin("mia") as work:
        same = service.update_coordination(
            work, row.id, contacted_on="2019-09-10", window_ends_at=agreed
        )
        later = service.update_coordination(
            work, row.id, contacted_on="2019-09-11", window_ends_at=agreed + timedelta(days=1)
        )
    assert same.window_ends_at == agreed
    assert counts_from(later) == datetime(2019, 9, 11, tzinfo=UTC)

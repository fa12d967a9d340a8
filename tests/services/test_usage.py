"""Figures of use, what stands out in them, and evidence drafted from them, on a real database."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_incidents import confirmed, secured
from make_partners import database_url, partnered, world
from sqlalchemy import delete, select

from stagerelease.downloads import days
from stagerelease.downloads import service as downloads
from stagerelease.downloads.tables import Download, DownloadDay, Transfer
from stagerelease.evidence import queries as evidence
from stagerelease.evidence import service as evidence_service
from stagerelease.identity import service as identity
from stagerelease.incidents import service, watching
from stagerelease.incidents.watching import UsageRow
from stagerelease.inference.tables import InferenceRequest
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import Forbidden, Invalid, NotFound, Unauthenticated
from stagerelease.kernel.ids import new_id
from stagerelease.releases import queries as releases

__all__ = ["database_url", "partnered", "secured", "world"]  # fixtures
DAY = timedelta(days=1)


@pytest.fixture
def tokens(secured):
    """Ids of seven tokens of ann."""
    with secured.works.begin(OPERATOR) as work:
        return [identity.create_token(work, person="ann", name=f"t{n}")[0].id for n in range(7)]


def deliver(world, at, *, grant=None, size=100, path="model.safetensors", token=None, whole=True):
    """Write what one delivery leaves behind: the row that ``downloads`` writes."""
    with world.works.begin(OPERATOR) as work:
        track = releases.load_track(work, world.track_id)
        work.session.add(
            Download(
                id=new_id("dl"),
                track_id=track.id,
                grant_id=grant.id if grant else None,
                token_id=token,
                revision_id=track.revision_id,
                path=path,
                sha256="a" * 64,
                size=size,
                started_at=at,
                bytes_sent=size,
                completed_at=at if whole else None,
            )
        )


def twice(world, who, act, **options):
    """Ask before the worker made the figures of the days, and after: the answer is one."""
    with world.begin(who, read_only=True) as work:
        before = act(work, **options)
    days.count_days(world.works)
    with world.begin(who, read_only=True) as work:
        assert act(work, **options) == before
    return before


def usage(world, who="sam", **options):
    return twice(world, who, service.usage, **options)


def anomalies(world, who="sam", **options):
    return twice(world, who, service.list_anomalies, **options)


def test_who_may_see_usage(secured):
    for who in ("sam", "mia", "aud"):
        assert usage(secured, who) == []
        assert anomalies(secured, who) == []
    for who in ("rae", "olga", "ann", "rex", "oto"):
        for act in (usage, anomalies):
            with pytest.raises(Forbidden):
                act(secured, who)
        with pytest.raises(Forbidden), secured.begin(who) as work:
            service.draft_monitoring(work, track_id=secured.track_id)
    with pytest.raises(Unauthenticated), secured.works.begin(read_only=True) as work:
        service.usage(work)


def test_deliveries_are_counted_by_day_track_and_grant(secured, tokens, clock):
    grant = secured.granted()
    now = clock.now()
    deliver(secured, now, grant=grant, token=tokens[0])
    deliver(secured, now, grant=grant, token=tokens[1], size=50, whole=False)
    deliver(secured, now, grant=grant, token=tokens[1], path="config.json", size=7)
    deliver(secured, now, size=1)  # needs no grant
    deliver(secured, now - DAY, grant=grant, size=30)
    deliver(secured, now - 40 * DAY, grant=grant)
    clock.move(timedelta(seconds=1))
    rows = usage(secured)
    assert [(r.day, r.grant_id) for r in rows] == [
        (now.date(), None),
        (now.date(), grant.id),
        ((now - DAY).date(), grant.id),
    ]
    today = rows[1]
    assert (today.deliveries, today.completed, today.files, today.bytes, today.tokens) == (
        *(3, 2, 2, 157, 2),
    )
    assert len(usage(secured, since=now - 60 * DAY)) == 4
    assert usage(secured, since=now - 60 * DAY, until=now - 39 * DAY)[0].bytes == 100
    assert [r.grant_id for r in usage(secured, grant_id=grant.id)] == [grant.id] * 2
    assert len(usage(secured, track_id=secured.track_id)) == 3
    with pytest.raises(NotFound):
        usage(secured, track_id="trk_none")
    assert usage(secured, grant_id="grt_none") == []
    assert usage(secured, grant_id="\x00") == []


def test_a_body_that_ends_later_is_counted_on_the_day_its_download_began(secured, clock):
    grant = secured.granted()
    deliver(secured, clock.now(), grant=grant, size=100, whole=False)
    (before,) = usage(secured, until=clock.now() + DAY)
    assert (before.completed, before.bytes) == (0, 100)
    with secured.works.begin(OPERATOR, read_only=True) as work:
        download = work.session.scalars(select(Download.id)).one()
    clock.move(2 * DAY)
    downloads.finish(secured.works, download, first=0, sent=100, outcome="whole")
    (after,) = usage(secured)
    assert (after.day, after.completed, after.bytes) == (before.day, 1, 200)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(
        st.tuples(
            st.integers(0, 72),  # hours since the beginning
            st.booleans(),  # under the grant
            st.sampled_from(["a", "b"]),
            st.sampled_from([None, 0, 1]),
            st.sampled_from(["count", "finish", "nothing"]),
        ),
        max_size=12,
    )
)
def test_the_figures_of_days_are_those_of_the_downloads(counted, steps):
    """Whenever the worker ran, and whatever came in after it, both ways of counting agree."""
    world, grant, tokens = counted
    with world.works.begin(OPERATOR) as work:
        for table in (Transfer, DownloadDay, Download):
            work.session.execute(delete(table))
    began = world.works.clock.now()
    for hours, granted, path, token, then in steps:
        at = began + timedelta(hours=hours)
        key = None if token is None else tokens[token]
        deliver(world, at, grant=grant if granted else None, path=path, token=key, whole=False)
        if then == "count":
            days.count_days(world.works)
        elif then == "finish":
            with world.works.begin(OPERATOR, read_only=True) as work:
                first = work.session.scalars(select(Download.id).order_by(Download.id)).first()
            downloads.finish(world.works, first, first=0, sent=100, outcome="whole")
    with world.works.begin(OPERATOR, read_only=True) as work:
        rows = list(work.session.scalars(select(Download)))
        plain: dict[Any, list[Download]] = {}
        for row in rows:
            plain.setdefault((row.started_at.date(), row.grant_id), []).append(row)
        told = {
            (r.day, r.grant_id): (r.deliveries, r.completed, r.files, r.bytes, r.tokens)
            for r in service.usage(work, since=began - DAY, until=began + 5 * DAY)
        }
        assert told == {
            key: (
                len(some),
                sum(d.completed_at is not None for d in some),
                len({d.path for d in some}),
                sum(d.bytes_sent for d in some),
                len({d.token_id for d in some} - {None}),
            )
            for key, some in plain.items()
        }


@pytest.fixture
def counted(secured, tokens):
    """The world with a grant, for examples that share one database."""
    return secured, secured.granted(), tokens


def test_another_source_of_use_is_added_to_the_same_rows(secured, clock, monkeypatch):
    grant = secured.granted()
    deliver(secured, clock.now(), grant=grant, size=30)
    deliver(secured, clock.now() - DAY, grant=grant, size=5)
    clock.move(timedelta(seconds=1))
    today = clock.now().date()

    def other(work, span):
        rows = [(today, secured.track_id, None), (today, secured.track_id, grant.id)]
        return [UsageRow(*place, 1, 1, 0, 12, 1) for place in rows][: span.limit]

    monkeypatch.setattr(watching, "SOURCES", (*watching.SOURCES, other))
    with secured.begin("sam", read_only=True) as work:
        rows = service.usage(work)
        assert service.usage(work, limit=2) == rows[:2]
    assert [(r.day, r.grant_id, r.deliveries, r.bytes) for r in rows] == [
        (today, None, 1, 12),
        (today, grant.id, 2, 42),
        (today - DAY, grant.id, 1, 5),
    ]


def test_days_are_utc_days(secured, clock):
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    for at in (midnight - timedelta(microseconds=1), midnight, midnight + DAY):
        deliver(secured, at)
    assert [r.day for r in usage(secured)] == [
        date(2026, 3, 2),
        date(2026, 3, 1),
        date(2026, 2, 28),
    ]


def test_usage_is_paged_by_key(secured, clock):
    grant = secured.granted()
    for n in range(5):
        deliver(secured, clock.now() - n * DAY, grant=grant)
        deliver(secured, clock.now() - n * DAY)
    clock.move(timedelta(seconds=1))
    rows, paged, after = usage(secured), [], None
    assert len(rows) == 10
    while part := usage(secured, limit=3, after=after):
        paged += part
        after = part[-1].key
    assert paged == rows
    assert usage(secured, after="9999-12-31|a|b") == rows
    for wrong in ("", "x", "2026-99-01|a|b", "2026-03-01|\x00|b"):
        with pytest.raises(Invalid):
            usage(secured, after=wrong)


@pytest.mark.parametrize(
    ("since", "until"),
    [(0, -1), (0, 0), (-367, 0)],
)
def test_windows_that_make_no_sense_are_refused(secured, clock, since, until):
    with pytest.raises(Invalid) as refused:
        usage(secured, since=clock.now() + since * DAY, until=clock.now() + until * DAY)
    assert refused.value.reason == "usage.window"
    with pytest.raises(Invalid):
        usage(secured, since=datetime(2026, 3, 1))
    for since, until in ((datetime.min, datetime.min + DAY), (datetime.max - DAY, datetime.max)):
        with pytest.raises(Invalid):
            usage(secured, since=since.replace(tzinfo=UTC), until=until.replace(tzinfo=UTC))
    for wrong in (0, -1, 367, 10**9):
        with pytest.raises(Invalid):
            anomalies(secured, days=wrong)


def test_what_stands_out_is_found_in_the_recorded_deliveries(secured, tokens, clock):
    grant = secured.granted()
    clock.move(30 * DAY)
    for n in range(1, 6):
        deliver(secured, clock.now() - n * DAY, grant=grant)
    assert anomalies(secured) == []
    deliver(secured, clock.now(), grant=grant, size=501)
    for token in tokens:
        deliver(secured, clock.now(), grant=grant, size=0, token=token)
    clock.move(timedelta(seconds=1))
    found = anomalies(secured)
    assert {(a.rule, a.grant_id) for a in found} == {
        ("spike", grant.id),
        ("many_tokens", grant.id),
    }
    assert {a.rule: a.figures for a in found}["many_tokens"]["tokens"] == 7
    assert anomalies(secured, track_id=secured.track_id) == found
    assert anomalies(secured, limit=1) == found[:1]


def test_silence_is_seen_beyond_the_days_that_are_compared(secured, clock):
    grant = secured.granted()
    deliver(secured, clock.now(), grant=grant)
    clock.move(100 * DAY)
    deliver(secured, clock.now(), grant=grant)
    clock.move(timedelta(seconds=1))
    (found,) = anomalies(secured)
    assert (found.rule, found.figures["days_without"]) == ("after_silence", 100)
    assert found.figures["last_before"] == "2026-03-02"


def test_end_of_term_uses_the_grants_own_dates(secured, clock):
    grant = secured.granted()
    deliver(secured, clock.now() + 320 * DAY, grant=grant)
    clock.move(362 * DAY)
    deliver(secured, clock.now(), grant=grant)
    clock.move(timedelta(seconds=1))
    (found,) = anomalies(secured)
    assert found.rule == "end_of_term"
    assert found.figures["days_left"] == 3


def asked(secured, at, grant, *, number, outcome):
    """Record a request that a model answered, or (``outcome`` None) is still answering."""
    with secured.works.begin(OPERATOR, quiet=True) as work:
        work.session.add(
            InferenceRequest(
                id=f"inf_{number}",
                holder=f"grant:{grant.id}",
                grant_id=grant.id,
                track_id=secured.track_id,
                revision_id=releases.load_track(work, secured.track_id).revision_id,
                kind="completion",
                sequences=1,
                reserved_tokens=9,
                started_at=at,
                expires_at=at + DAY,
                ended_at=at if outcome else None,
                outcome=outcome,
                prompt_tokens=2,
                completion_tokens=7,
                milliseconds=5,
            )
        )


@pytest.mark.parametrize(
    ("metric", "value"),
    [("downloads", 2.0), ("anomalies", 0.0), ("incidents", 1.0), ("inference_requests", 3.0)],
)
def test_monitoring_evidence_is_drafted_from_the_figures(secured, clock, metric, value):
    grant = secured.granted()
    deliver(secured, clock.now(), grant=grant)
    deliver(secured, clock.now(), grant=grant)
    deliver(secured, clock.now(), grant=grant, whole=False)
    confirmed(secured, blocking=False)
    for number, outcome in enumerate(["completed", "completed", "cut", None]):
        asked(secured, clock.now(), grant, number=number, outcome=outcome)
    clock.move(7 * DAY)
    with secured.begin("sam") as work:
        row = service.draft_monitoring(work, track_id=secured.track_id, metric=metric)
    assert (row.state, row.type, row.metric, row.value) == (
        *("draft", "misuse_monitoring", metric, value),
    )
    assert row.conditions["window_days"] == 28
    assert "2 completed downloads, 300 bytes sent" in row.caveat
    assert "3 requests answered with 21 tokens under 1 grants" in row.caveat
    with secured.begin("sam") as work:
        submitted = evidence_service.submit(work, row.id)
        assert submitted.state == "submitted"
        authors = evidence.authors_of(work, [row.id])[row.id]
    assert authors == {secured.id("sam")}


def test_a_window_that_has_not_ended_makes_no_evidence(secured, clock):
    with pytest.raises(Invalid), secured.begin("sam") as work:
        service.draft_monitoring(
            work, track_id=secured.track_id, until=clock.now() + timedelta(seconds=1)
        )

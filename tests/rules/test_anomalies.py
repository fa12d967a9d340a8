"""What stands out in a grant's use: four rules, each at its edge."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagerelease.incidents.anomalies import (
    HISTORY_DAYS,
    RULES,
    SPIKE_DAYS,
    DayUse,
    GrantUse,
    find_anomalies,
)

TODAY = date(2026, 6, 30)
DAY = timedelta(days=1)


def day(ago, size=100, *, tokens=1, completed=1, deliveries=1):
    return DayUse(TODAY - ago * DAY, deliveries, completed, 1, size, tokens)


def use(*days, before=TODAY - 40 * DAY, begins=365, lasts=730):
    return GrantUse(
        "grt_1",
        "trk_1",
        TODAY - begins * DAY,
        TODAY - begins * DAY + lasts * DAY,
        sorted(days, key=lambda d: d.day),
        before,
    )


def rules(found):
    return [anomaly.rule for anomaly in found]


@pytest.mark.parametrize(("size", "stands_out"), [(500, False), (501, True)])
def test_a_spike_is_more_than_five_times_the_median(size, stands_out):
    found = find_anomalies(use(day(0, size), day(1), day(2), day(3)), since=TODAY)
    assert rules(found) == ["spike"] * stands_out
    if found:
        assert found[0].figures == {"bytes": 501, "median_bytes": 100, "days_compared": 3}
        assert "5.0 times the median" in found[0].sentence
        assert found[0].rule_words == RULES["spike"]


def test_a_spike_needs_days_to_compare_with():
    assert find_anomalies(use(day(0, 10**9), day(1), day(2)), since=TODAY) == []
    long_ago = use(day(0, 10**9), day(1), day(2), day(29))
    assert find_anomalies(long_ago, since=TODAY) == []
    assert rules(find_anomalies(use(day(0, 10**9), day(1), day(2), day(28)), since=TODAY))
    nothing_sent = use(day(0, 10**9), day(1, 0), day(2, 0), day(3, 0))
    assert find_anomalies(nothing_sent, since=TODAY) == []


def test_the_median_is_the_grants_own_and_one_loud_day_does_not_move_it():
    days = [day(n) for n in range(2, 20)]
    found = find_anomalies(use(day(0, 600), day(1, 10**9), *days), since=TODAY)
    assert rules(found) == ["spike"]
    assert found[0].figures["median_bytes"] == 100


@pytest.mark.parametrize(("quiet", "stands_out"), [(59, False), (60, True)])
def test_use_after_sixty_days_of_silence(quiet, stands_out):
    found = find_anomalies(use(day(0), before=TODAY - quiet * DAY), since=TODAY)
    assert rules(found) == ["after_silence"] * stands_out


@pytest.mark.parametrize(("begins", "stands_out"), [(59, False), (60, True)])
def test_a_first_use_long_after_the_grant_began(begins, stands_out):
    found = find_anomalies(use(day(0), before=None, begins=begins), since=TODAY)
    assert rules(found) == ["after_silence"] * stands_out
    if found:
        assert "since the grant began" in found[0].sentence


def test_silence_is_counted_from_the_last_use_in_the_window_too():
    assert find_anomalies(use(day(0), day(20), before=None), since=TODAY) == []


@pytest.mark.parametrize(
    ("left", "stands_out"), [(0, True), (6, True), (7, False), (-1, False), (100, False)]
)
def test_downloads_in_the_last_week_of_a_term(left, stands_out):
    found = find_anomalies(use(day(0), begins=100, lasts=100 + left), since=TODAY)
    assert rules(found) == ["end_of_term"] * stands_out


def test_a_short_grant_is_all_end_and_an_unfinished_delivery_is_none():
    assert find_anomalies(use(day(0), begins=20, lasts=27), since=TODAY) == []
    assert rules(find_anomalies(use(day(0), begins=22, lasts=28), since=TODAY)) == ["end_of_term"]
    unfinished = use(day(0, completed=0), begins=100, lasts=100)
    assert find_anomalies(unfinished, since=TODAY) == []


@pytest.mark.parametrize(("tokens", "stands_out"), [(4, False), (5, True)])
def test_many_tokens_on_one_day(tokens, stands_out):
    found = find_anomalies(use(day(0, tokens=tokens)), since=TODAY)
    assert rules(found) == ["many_tokens"] * stands_out


def test_days_before_the_window_are_compared_with_and_not_reported():
    days = [day(0), day(3, 10**6, tokens=9), day(4), day(5), day(6)]
    assert find_anomalies(use(*days), since=TODAY) == []
    assert set(rules(find_anomalies(use(*days), since=TODAY - 3 * DAY))) == {
        "spike",
        "many_tokens",
    }


DAYS = st.builds(
    day,
    st.integers(0, 60),
    st.integers(0, 10**12),
    tokens=st.integers(0, 9),
    completed=st.integers(0, 9),
    deliveries=st.integers(1, 9),
)


@given(st.lists(DAYS, max_size=12, unique_by=lambda d: d.day), st.integers(0, 60))
def test_every_finding_names_its_rule_its_day_and_its_figures(days, back):
    since = TODAY - back * DAY
    figures = {d.day: d for d in days}
    for found in find_anomalies(use(*days), since=since):
        assert found.day >= since
        assert found.day in figures
        assert found.rule_words == RULES[found.rule]
        assert found.figures
        assert str(found.day) in found.sentence


def test_nothing_used_is_nothing_to_say():
    assert find_anomalies(use(), since=TODAY) == []


def test_one_byte_is_use_and_the_days_read_reach_back_over_the_days_compared():
    small = use(day(0, 6), day(1, 1), day(2, 1), day(3, 1))
    assert rules(find_anomalies(small, since=TODAY)) == ["spike"]
    assert HISTORY_DAYS == SPIKE_DAYS + 1 == 29


def test_a_silence_names_the_last_day_before_it_or_none():
    (found,) = find_anomalies(use(day(0), before=TODAY - 70 * DAY), since=TODAY)
    assert found.figures["last_before"] == str(TODAY - 70 * DAY)
    (found,) = find_anomalies(use(day(0), before=None, begins=70), since=TODAY)
    assert found.figures["last_before"] == ""

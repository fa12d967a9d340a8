"""Instants that come in: UTC, and far from the ends of the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagerelease.cli.box import instant
from stagerelease.kernel.clock import in_range, iso
from stagerelease.kernel.errors import Invalid

ZONES = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))


@given(st.datetimes(timezones=ZONES))
def test_what_is_taken_can_be_told_and_reckoned_with_and_the_rest_is_refused_in_words(at):
    try:
        kept = in_range(at)
    except ValueError as refused:
        assert "between 1900 and 2200" in str(refused)  # noqa: PT017 (either answer is right)
        assert not 1900 < at.year < 2200
        return
    assert kept == at
    assert kept.tzinfo is UTC
    assert iso(kept + timedelta(days=36_500)).endswith("Z")


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-12:00", "0001-01-01", "2201-01-01", "soon"])
def test_the_command_line_refuses_them_too(text):
    with pytest.raises(Invalid) as refused:
        instant(text)
    assert refused.value.reason == "date"


def test_the_command_line_reads_a_date_as_its_first_instant_in_utc():
    assert instant("2026-12-31") == datetime(2026, 12, 31, tzinfo=UTC)
    assert instant("2026-12-31T18:00+02:00") == datetime(2026, 12, 31, 16, tzinfo=UTC)
    assert instant(None) is None

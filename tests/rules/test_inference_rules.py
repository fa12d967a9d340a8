"""Quotas: what is reserved, what is given back, and that no order of events exceeds a limit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagerelease.inference.prompting import chat_prompt, metadata_prompt, one_line
from stagerelease.inference.rules import (
    Limits,
    Meter,
    QuotaSpent,
    check_limits,
    fresh,
    left_of,
    most_tokens,
    overridden,
    reserve,
    settle,
)
from stagerelease.kernel.errors import Invalid

NOW = datetime(2026, 3, 2, 9, 0, 15, tzinfo=UTC)
LIMITS = Limits(
    requests_per_minute=3, tokens_per_minute=100, tokens_per_day=250, sequences=4, max_tokens=50
)


def take(
    meter: Meter, tokens: int = 10, *, at: datetime = NOW, sequences: int = 1, running: int = 0
) -> Meter:
    return reserve(meter, LIMITS, at, tokens=tokens, sequences=sequences, running=running)


def test_a_request_that_fits_exactly_is_counted() -> None:
    meter = take(fresh(NOW), 100, sequences=4)
    assert (meter.minute_requests, meter.minute_tokens, meter.day_tokens) == (1, 100, 100)
    requests, minute, day = left_of(meter, LIMITS, NOW)
    assert (requests.remaining, requests.reset) == (2, 45)
    assert (minute.remaining, minute.limit, minute.reset) == (0, 100, 45)
    assert (day.remaining, day.reset) == (150, 14 * 3600 + 59 * 60 + 45)


@pytest.mark.parametrize(
    ("meter", "asked", "reason", "wait"),
    [
        ({"minute_requests": 3}, {}, "quota.requests-minute", 45),
        ({"minute_tokens": 91}, {}, "quota.tokens-minute", 45),
        ({"day_tokens": 241}, {}, "quota.tokens-day", 53_985),
        ({}, {"running": 4}, "quota.sequences", 2),
        ({}, {"running": 1, "sequences": 4}, "quota.sequences", 2),
    ],
)
def test_each_limit_refuses_by_its_own_name(meter, asked, reason, wait) -> None:
    with pytest.raises(QuotaSpent) as refused:
        take(replace(fresh(NOW), **meter), **asked)
    assert (refused.value.reason, refused.value.retry_after) == (reason, wait)
    assert len(refused.value.left) == 3


@pytest.mark.parametrize(
    ("tokens", "sequences"), [(101, 1), (10, 5)], ids=["more than a minute", "too many at once"]
)
def test_what_could_never_be_allowed_is_said_so(tokens: int, sequences: int) -> None:
    with pytest.raises(Invalid) as refused:
        take(fresh(NOW), tokens, sequences=sequences)
    assert refused.value.reason == "quota.request"


def test_windows_begin_anew_and_never_again() -> None:
    meter = take(take(take(fresh(NOW), 30), 30), 30)
    later = NOW + timedelta(minutes=1)
    with pytest.raises(QuotaSpent):
        take(meter)
    assert take(meter, 100, at=later).minute_tokens == 100
    assert take(meter, 100, at=later).day_tokens == 190
    tomorrow = take(meter, 100, at=NOW + timedelta(days=1))
    assert (tomorrow.day_tokens, tomorrow.minute_requests) == (100, 1)
    with pytest.raises(QuotaSpent):  # a clock that stands behind begins no window again
        take(take(meter, 100, at=later), 10, at=NOW)


def test_what_was_not_used_is_given_back_where_its_window_still_runs() -> None:
    meter = take(fresh(NOW), 100)
    soon = settle(meter, NOW, reserved_at=NOW, reserved=100, used=40)
    assert (soon.minute_tokens, soon.day_tokens) == (40, 40)
    late = settle(meter, NOW + timedelta(minutes=2), reserved_at=NOW, reserved=100, used=40)
    assert (late.minute_tokens, late.day_tokens) == (0, 40)
    tomorrow = settle(meter, NOW + timedelta(days=1), reserved_at=NOW, reserved=100, used=40)
    assert (tomorrow.minute_tokens, tomorrow.day_tokens) == (0, 0)
    assert soon.minute_requests == 1  # a request was made


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),  # seconds that pass
            st.integers(1, 120),  # tokens reserved
            st.floats(0, 1),  # share of them used
            st.booleans(),  # whether it ends before the next begins
        ),
        max_size=40,
    )
)
def test_no_order_of_requests_uses_more_than_a_window_allows(steps) -> None:
    at, meter = NOW, fresh(NOW)
    open_: list[tuple[datetime, int, int]] = []
    used: dict[datetime, int] = {}
    for seconds, tokens, share, ends in steps:
        at += timedelta(seconds=seconds)
        try:
            meter = take(meter, tokens, at=at)
        except (QuotaSpent, Invalid):
            continue
        open_.append((at, tokens, int(tokens * share)))
        if ends:
            began, reserved, spent = open_.pop()
            meter = settle(meter, at, reserved_at=began, reserved=reserved, used=spent)
            minute = began.replace(second=0)
            used[minute] = used.get(minute, 0) + spent
    for began, _, spent in open_:
        minute = began.replace(second=0)
        used[minute] = used.get(minute, 0) + spent
    assert all(total <= LIMITS.tokens_per_minute for total in used.values())
    assert sum(used.values()) <= LIMITS.tokens_per_day
    assert meter.minute_tokens >= 0


def test_limits_are_overridden_by_name() -> None:
    assert overridden(LIMITS, {"sequences": 9}) == replace(LIMITS, sequences=9)
    assert check_limits({"sequences": 9, "max_tokens": None}) == {"sequences": 9}
    for bad in ({"sequences": 0}, {"sequences": True}, {"sequence": 1}, {"max_tokens": 1.5}):
        with pytest.raises(Invalid) as refused:
            check_limits(bad)
        assert refused.value.fields


def test_the_most_a_request_can_use() -> None:
    assert most_tokens([5, 7], n=2, max_tokens=10, context=None) == 5 + 7 + 2 * 2 * 10
    assert most_tokens([5000], n=1, max_tokens=10, context=1024) == 1024 + 10
    assert most_tokens([5], n=3, max_tokens=5000, context=1024) == 5 + 3 * 1024


@given(st.text(), st.text())
def test_a_field_keeps_to_its_line(title: str, author: str) -> None:
    prompt = metadata_prompt({"title": title, "author": author}, "Body\nwith lines")
    head, _, article = prompt.partition("\n\n")
    assert article == "Body\nwith lines"
    said = [one_line(text) for text in (author, title) if text]
    assert [line.partition(": ")[2] for line in head.split("\n") if line] == said
    assert all(not c.isspace() or c == " " for line in said for c in line)


def test_a_conversation_as_plain_text() -> None:
    said = [("system", "Be brief."), ("user", "Hello"), ("assistant", " Hi. "), ("user", "Who?")]
    assert chat_prompt(said) == ("Be brief.\n\nUser: Hello\nAssistant: Hi.\nUser: Who?\nAssistant:")
    assert chat_prompt([("user", "x")]) == "User: x\nAssistant:"

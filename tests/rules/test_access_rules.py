"""What may become of an access request, who may decide it, and what is said of waiting."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stagerelease.access.abuse import LIMITS, UNKNOWN_NETWORK, visitor_of
from stagerelease.access.rules import (
    CONFIRM_WITHIN,
    DECISION_WINDOW,
    DEFAULT_TERM,
    DRAFT_KEPT,
    FEW,
    LONGEST_TERM,
    MAX_ANSWER,
    MAX_EVENTS,
    MAX_FIELDS,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_REASON,
    MOVES,
    OPEN,
    REAPPLY_AFTER,
    RETURNED_FOR,
    SUBMITTED_FOR,
    Reviewing,
    State,
    Status,
    check_answers,
    check_interest,
    check_may_reapply,
    check_move,
    check_not_over,
    check_until,
    decision_times_of,
    expiry_of,
    interest,
    is_over,
    purpose_of,
    span_words,
    status_of,
)
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid
from stagerelease.partners.rules import LIVE, MAX_PURPOSE, GrantState
from stagerelease.releases.rules import check_text

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
SECOND = timedelta(seconds=1)
S = State

# The whole table, written a second time by hand: what is not here is refused.
ALLOWED = {
    (S.DRAFT, S.SUBMITTED),
    (S.DRAFT, S.WITHDRAWN),
    (S.SUBMITTED, S.IN_REVIEW),
    (S.SUBMITTED, S.APPROVED),
    (S.SUBMITTED, S.REJECTED),
    (S.SUBMITTED, S.WITHDRAWN),
    (S.SUBMITTED, S.EXPIRED),
    (S.IN_REVIEW, S.RETURNED),
    (S.IN_REVIEW, S.APPROVED),
    (S.IN_REVIEW, S.REJECTED),
    (S.IN_REVIEW, S.WITHDRAWN),
    (S.RETURNED, S.SUBMITTED),
    (S.RETURNED, S.REJECTED),
    (S.RETURNED, S.WITHDRAWN),
    (S.RETURNED, S.EXPIRED),
    (S.APPROVED, S.SUBMITTED),
    (S.APPROVED, S.REJECTED),
    (S.REJECTED, S.SUBMITTED),
    (S.REJECTED, S.APPROVED),
}


@pytest.mark.parametrize("before", list(State))
@pytest.mark.parametrize("after", list(State))
@pytest.mark.parametrize("grant", [None, *GrantState])
def test_every_move_is_in_the_table_or_refused(before, after, grant):
    status = status_of(before, grant)
    over = before is S.APPROVED and grant not in LIVE  # a grant that ended ends the request
    if (before, after) in ALLOWED and not over:
        check_move(before, after, status=status)
        return
    with pytest.raises(Conflict) as refused:
        check_move(before, after, status=status)
    assert refused.value.reason == (
        f"access.already-{status}" if before == after else f"access.{status}"
    )


def test_the_table_names_every_state_and_the_ends_lead_nowhere():
    assert set(MOVES) == set(State)
    assert {before for before in State if not MOVES[before]} == {S.WITHDRAWN, S.EXPIRED}
    assert {(a, b) for a, to in MOVES.items() for b in to} == ALLOWED
    assert {s for s in State if status_of(s, None) is Status.PENDING} == OPEN


@given(st.sampled_from(sorted(State)), st.timedeltas(timedelta(0), timedelta(days=400)))
def test_an_open_request_is_over_exactly_at_its_end(state, later):
    end = expiry_of(State(state), NOW)
    waits = {S.SUBMITTED: SUBMITTED_FOR, S.RETURNED: RETURNED_FOR}.get(State(state))
    assert end == (None if waits is None else NOW + waits)
    over = waits is not None and later >= waits
    assert is_over(state, end, NOW + later) is over
    if over:
        with pytest.raises(Conflict) as refused:
            check_not_over(state, end, NOW + later)
        assert refused.value.reason == "access.expired"
    else:
        check_not_over(state, end, NOW + later)


def test_a_decided_request_is_never_over():
    for state in set(State) - OPEN:
        assert is_over(state, NOW - SECOND, NOW) is False


def test_an_end_of_access_lies_ahead_and_within_policy():
    for good in (NOW + SECOND, NOW + LONGEST_TERM):
        assert check_until(good, NOW) == good
    for bad in (NOW, NOW - SECOND, NOW + LONGEST_TERM + SECOND, NOW.replace(tzinfo=None)):
        with pytest.raises(Invalid):
            check_until(bad, NOW)


# --- interests ----------------------------------------------------------------------------------

IDS = st.sampled_from(["a", "b", "c"])
ORGANISATIONS = st.frozensets(st.sampled_from(["x", "y", "z"]))


@given(IDS, IDS, ORGANISATIONS, ORGANISATIONS, st.booleans())
def test_nobody_decides_with_an_interest(reviewer, applicant, theirs, ours, declared):
    facts = Reviewing(reviewer, applicant, theirs, ours, declared)
    free = reviewer != applicant and not declared and not (theirs & ours)
    assert (interest(facts) is None) is free
    if free:
        check_interest(facts)
    else:
        with pytest.raises(Forbidden) as refused:
            check_interest(facts)
        assert refused.value.reason == f"access.{interest(facts)}"


def test_breaking_one_thing_alone_gives_its_own_reason():
    fine = Reviewing("a", "b", frozenset({"x"}), frozenset({"y"}), False)
    assert interest(fine) is None
    assert interest(Reviewing("b", "b", fine.reviewer_organisations)) == "own"
    assert interest(Reviewing("a", "b", declared=True)) == "conflict-declared"
    shared = frozenset({"x", "q"})
    assert interest(Reviewing("a", "b", shared, frozenset({"q"}))) == "same-organisation"


# --- how long an answer takes -------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=200))
def test_median_and_ninetieth_percentile_are_what_they_are_called(seconds):
    seconds.sort()
    found = decision_times_of(seconds)
    assert found.count == len(seconds)
    assert found.median_seconds == int(statistics.median(seconds))
    p90 = found.p90_seconds
    assert p90 in seconds
    assert sum(s <= p90 for s in seconds) >= 0.9 * len(seconds)
    below = [s for s in seconds if s < p90]
    assert len(below) < 0.9 * len(seconds)
    assert ("nine in ten" in found.sentence) is (len(seconds) >= FEW)


def test_nothing_is_claimed_of_no_decisions():
    none = decision_times_of([])
    assert (none.median_seconds, none.p90_seconds, none.count) == (None, None, 0)
    assert none.sentence == "No decision yet in the last 90 days."
    one = decision_times_of([3 * 86_400])
    assert one.sentence == "Median answer 3 days (only 1 decision in the last 90 days)."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "1 hour"), (3600, "1 hour"), (3601, "2 hours"), (48 * 3600, "48 hours")]
    + [(48 * 3600 + 1, "3 days"), (3 * 86_400, "3 days"), (3 * 86_400 + 1, "4 days")],
)
def test_spans_are_rounded_up(seconds, words):
    assert span_words(seconds) == words


# --- other words --------------------------------------------------------------------------------


@given(st.text(max_size=3000))
def test_whatever_an_applicant_wrote_a_grant_can_hold(text):
    assume(all(not "\ud800" <= c <= "\udfff" for c in text))
    purpose = purpose_of("arq_1", {"purpose": text})
    assert check_text(purpose, "purpose", limit=MAX_PURPOSE) == purpose


def test_a_purpose_is_what_was_said_or_where_to_read_it():
    assert purpose_of("arq_1", {"purpose": " Reading. "}) == "Reading."
    for nothing in ({}, {"purpose": " "}, {"purpose": ["a"]}, {"purpose": True}):
        assert purpose_of("arq_1", nothing) == "As stated in access request arq_1."
    long = purpose_of("arq_1", {"purpose": "x" * 10_000})
    assert len(long) <= MAX_PURPOSE
    assert "access request arq_1" in long


KEY = b"k" * 32


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.250", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("2001:db8:1:2::1", "2001:db8:1:ffff::1", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.7", True),
    ],
)
def test_a_visitor_is_their_network_and_no_more(one, other, same):
    assert (visitor_of(KEY, one) == visitor_of(KEY, other)) is same
    assert one not in visitor_of(KEY, one).network
    assert visitor_of(KEY, one) != visitor_of(b"q" * 32, one)


@pytest.mark.parametrize("odd", [None, "", "localhost", "a socket", "1.2.3", "\x00"])
def test_an_address_that_is_none_is_one_visitor(odd):
    assert visitor_of(KEY, odd) == UNKNOWN_NETWORK


# --- what cannot be asked, and when again --------------------------------------------------------


def test_the_terms_are_the_promised_ones():
    days = [
        td.days for td in (REAPPLY_AFTER, DRAFT_KEPT, CONFIRM_WITHIN, SUBMITTED_FOR, RETURNED_FOR)
    ]
    assert days == [30, 30, 7, 90, 30]
    assert (DEFAULT_TERM.days, DECISION_WINDOW.days, LONGEST_TERM.days) == (365, 90, 731)
    assert (MAX_FIELDS, MAX_NAME, MAX_ANSWER, MAX_REASON) == (20, 100, 2000, 200)
    assert (MAX_EVENTS, MAX_MESSAGE, FEW) == (200, 4000, 5)
    limits = [(w.value, x.address, x.network, x.everybody) for w, x in LIMITS.items()]
    assert limits == [
        ("draft", None, 20, 2000),
        ("mail", 3, 20, 1000),
        ("save", None, 600, 50000),
    ]


@pytest.mark.parametrize(
    ("answers", "field"),
    [
        ({"x" * 101: "a"}, "fields.0"),
        ({"good": "a", "": "a"}, "fields.1"),
        ({"a\nb": "a"}, "fields.0"),
        ({"a": "x" * 2001}, "a"),
        ({"a": "\x07"}, "a"),
    ],
)
def test_short_answers_have_names_and_limits(answers, field):
    with pytest.raises(Invalid) as refused:
        check_answers(answers)
    assert [error.field for error in refused.value.fields] == [field]


def test_short_answers_are_kept_trimmed():
    most = {f"f{n}": "x" * 2000 for n in range(20)}
    assert check_answers(most) == most
    assert check_answers({" a ": " b\r\nc\td "}) == {"a": "b\nc\td"}
    assert check_answers({"x" * 100: ""}) == {"x" * 100: ""}
    with pytest.raises(Invalid):
        check_answers(most | {"one more": ""})


def test_one_may_ask_again_from_the_day_that_was_said():
    check_may_reapply(NOW, reason="No.", may_reapply_after=None)
    check_may_reapply(NOW, reason="No.", may_reapply_after=NOW)
    for reason, words in (("No.", "Your request was rejected: No."), (None, "rejected.")):
        with pytest.raises(Conflict) as refused:
            check_may_reapply(NOW, reason=reason, may_reapply_after=NOW + SECOND)
        assert refused.value.sentence.endswith(words)
        assert "2 March 2026, 09:00 UTC" in (refused.value.next_step or "")


def test_a_purpose_of_exactly_the_limit_is_kept_whole():
    for n in (MAX_PURPOSE - 1, MAX_PURPOSE):
        assert purpose_of("arq_1", {"purpose": "x" * n}) == "x" * n
    assert purpose_of("arq_1", {"purpose": "x" * (MAX_PURPOSE + 1)}).endswith("arq_1.)")

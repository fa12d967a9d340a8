"""An incident's life is one table: every state × every step is decided on purpose."""

from __future__ import annotations

import itertools
import unicodedata
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagerelease.incidents import rules
from stagerelease.incidents.rules import (
    BLOCKING_STATES,
    MOVES,
    OPEN,
    ActorTier,
    Severity,
    State,
    Step,
    blocks,
    check_assessment,
    check_line,
    check_words,
    consents_to_close,
    next_state,
)
from stagerelease.kernel.errors import Conflict, Invalid
from stagerelease.kernel.networks import network_of

EXPECTED = {  # from → {step: to}; written out apart from the table it is held against
    "reported": {"triaged": "triaged"},
    "triaged": {"triaged": "triaged", "confirmed": "confirmed", "dismissed": "dismissed"},
    "confirmed": {"reassessed": "confirmed", "mitigated": "mitigated"},
    "mitigated": {"reassessed": "mitigated", "closed": "closed"},
    "closed": {"reopened": "confirmed"},
    "dismissed": {"reopened": "triaged"},
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_every_state_meets_every_step(state, step):
    to = EXPECTED[state].get(step.value)
    if to is None:
        with pytest.raises(Conflict) as refused:
            next_state(state, step, 7)
        assert "Incident 7" in refused.value.sentence
        for possible in EXPECTED[state]:
            assert possible in (refused.value.next_step or "")
    else:
        assert next_state(state, step, 7) == to


def test_the_table_is_complete():
    assert {state for state, _ in MOVES} == set(State)  # nothing is a dead end
    assert set(MOVES.values()) == set(State) - {State.REPORTED}
    assert {step for _, step in MOVES} == set(Step)
    assert State.CLOSED not in OPEN
    assert State.DISMISSED not in OPEN
    assert {State.CONFIRMED, State.MITIGATED} == BLOCKING_STATES


@given(st.lists(st.sampled_from(list(Step)), max_size=30))
def test_no_walk_closes_what_was_not_confirmed_and_mitigated_first(steps):
    state, seen = State.REPORTED, [State.REPORTED]
    for step in steps:
        try:
            state = next_state(state, step, 1)
        except Conflict:
            continue
        seen.append(state)
    for before, after in itertools.pairwise(seen):
        if after is State.CLOSED:
            assert before is State.MITIGATED
        if after is State.MITIGATED:
            assert before in BLOCKING_STATES
        if after is State.CONFIRMED:
            assert before in (State.TRIAGED, State.CONFIRMED, State.CLOSED)
        if after is State.DISMISSED:
            assert before is State.TRIAGED
    assert State.REPORTED not in seen[1:]


@given(st.sampled_from(list(State)), st.booleans())
def test_only_a_confirmed_blocking_incident_that_is_not_closed_blocks(state, blocking):
    expected = blocking and state in ("confirmed", "mitigated")
    assert blocks(state, blocking=blocking) is expected


def test_freeing_takes_two_where_stopping_takes_one():
    assert consents_to_close(blocking=True) == 2
    assert consents_to_close(blocking=False) == 1


@given(
    st.one_of(st.none(), st.text(max_size=8), st.sampled_from(list(Severity))),
    st.one_of(st.none(), st.integers(-3, 9)),
    st.booleans(),
    st.booleans(),
)
def test_an_assessment_is_usable_or_says_which_field_is_not(severity, tier, blocking, covers):
    wrong = set()
    if severity not in ("low", "medium", "high", "critical"):
        wrong.add("severity")
    if tier not in (None, 1, 2, 3):
        wrong.add("actor_tier")
    if blocking and not covers:
        wrong.add("tracks")
    details = {"severity": severity, "actor_tier": tier, "blocking": blocking, "covers": covers}
    if not wrong:
        check_assessment(**details)
        return
    with pytest.raises(Invalid) as refused:
        check_assessment(**details)
    assert {field.field for field in refused.value.fields} == wrong


def test_the_tiers_are_those_of_the_domain():
    assert [tier.value for tier in ActorTier] == [1, 2, 3]


# --- words ---------------------------------------------------------------------------------------


@given(st.text())
def test_kept_words_hide_nothing_and_lose_nothing(text):
    try:
        kept = check_words(text, "report", field="text")
    except Invalid:
        hidden = [c for c in text.strip() if unicodedata.category(c) in ("Cc", "Cf", "Cs")]
        assert not text.strip() or hidden
        return
    assert kept == kept.strip() != ""
    assert kept.encode()  # no lone surrogates
    assert len(kept) <= rules.MAX_TEXT
    for character in kept:
        hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        assert not hidden or character in "\n\t\u200c\u200d"
    visible = [c for c in text if not c.isspace()]
    assert [c for c in kept if not c.isspace()] == visible
    assert check_words(kept, "report", field="text") == kept


@pytest.mark.parametrize(
    "text",
    [
        "naïve — 日本語 — العربية — עברית",
        "family: \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "می\u200cخواهم",
        "<script>alert(1)</script>",
        "'; DROP TABLE incident; --",
        "{{ 7*7 }} ${x} %s",
        "a\tb\nc",
        "\U0001fae8 \U0001fac6 a newer emoji",
    ],
)
def test_any_script_and_any_markup_is_kept_as_written(text):
    assert check_words(text, "report", field="text") == text


@pytest.mark.parametrize("end", ["\r\n", "\r", "\u2028", "\u2029"])
def test_line_ends_of_browsers_are_taken(end):
    assert check_words(f"one{end}two", "report", field="text") == "one\ntwo"


@pytest.mark.parametrize(
    "text", ["", "   \r\n\t", "a\x00b", "a\x1b[2Jb", "a\u202eb", "\ufeffa", "a\ud800b", "a\x85b"]
)
def test_nothing_and_hidden_characters_are_refused(text):
    with pytest.raises(Invalid) as refused:
        check_words(text, "report", field="text")
    assert refused.value.fields


@pytest.mark.parametrize(("length", "fine"), [(1, True), (8_000, True), (8_001, False)])
def test_the_limit_is_exact(length, fine):
    if fine:
        assert check_words("x" * length, "report", field="text") == "x" * length
    else:
        with pytest.raises(Invalid, match="8,001 characters; at most 8,000"):
            check_words("x" * length, "report", field="text")


def test_a_line_is_one_line():
    assert check_line(" me@example.org ", "contact", field="contact", limit=320)
    with pytest.raises(Invalid, match="one line"):
        check_line("a\nb", "contact", field="contact", limit=320)


# --- networks ------------------------------------------------------------------------------------


@given(st.ip_addresses(v=4), st.integers(0, 255))
def test_neighbours_are_one_network_and_others_are_not(address, last):
    here = network_of(str(address))
    neighbour = str(address).rpartition(".")[0] + f".{last}"
    assert network_of(neighbour) == here
    assert network_of(f"::ffff:{address}") == here
    assert here.endswith(".0/24")


@given(st.ip_addresses(v=6))
def test_an_ipv6_network_is_48_bits(address):
    network = network_of(str(address))
    assert network.endswith(("/48", "/24"))
    if network.endswith("/48") and address.ipv4_mapped is None:
        assert network_of(str(type(address)(int(address) ^ ((1 << 80) - 1)))) == network


@pytest.mark.parametrize("address", [None, "", "testclient", "1.2.3", "::zz", "a" * 5000])
def test_what_is_no_address_shares_one_count(address):
    assert network_of(address) == "unknown"


def test_the_numbers_are_those_that_people_are_told():
    assert (rules.MAX_TEXT, rules.MAX_TITLE, rules.MAX_PUBLIC) == (8_000, 200, 500)
    assert (rules.MAX_ABOUT, rules.MAX_CONTACT) == (200, 320)
    per_hour = (rules.PER_NETWORK, rules.IN_ALL, rules.PER_PERSON, rules.WORDS_PER_REPORT)
    assert per_hour == (5, 60, 20, 10)
    assert timedelta(days=3) == rules.ACKNOWLEDGE_WITHIN
    assert timedelta(days=90) == rules.ACKNOWLEDGE_AT_MOST


def test_a_line_is_required_unless_it_is_said_not_to_be():
    with pytest.raises(Invalid):
        rules.check_line(" ", "title", field="title", limit=10)
    assert rules.check_line(" ", "title", field="title", required=False, limit=10) == ""

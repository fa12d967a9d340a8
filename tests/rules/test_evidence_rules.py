"""Rules of evidence: what a type must say, which state follows which, and what figures mean."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import jsonschema
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stagerelease.evidence.kinds import (
    CONDITIONS,
    FINDING,
    TYPES,
    UNJUDGED,
    allowed_conditions,
    needed_conditions,
    rank_of,
    ranks,
)
from stagerelease.evidence.measure import NewEvidence, check, read_interval, read_sampler
from stagerelease.evidence.rules import (
    MOVES,
    FactStatus,
    State,
    check_dates,
    check_move,
    describe_precision,
    precision_at,
    precisions,
)
from stagerelease.evidence.schema import evidence_types
from stagerelease.kernel.errors import Conflict, Invalid
from stagerelease.releases.gates import KINDS

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
THEN = datetime(2019, 5, 3, tzinfo=UTC)
BASELINE = NewEvidence(
    type="detectability",
    metric="accuracy",
    title="TF-IDF and logistic regression on the 1.5B model",
    subject_sha256="a" * 64,
    source="gpt-2-output-dataset, detection.md",
    fact_status="verified",
    measured_at=THEN,
    value=92.69,
    unit="percent",
    n=10_000,
    conditions={
        "detector": "TF-IDF and logistic regression",
        "sampler": "top-k 40",
        "text_length": 1024,
        "text_length_unit": "tokens",
        "text_length_basis": "at_most",
        "base_rate": 0.01,
    },
)
FOUND = NewEvidence(
    type="finetune_misuse",
    metric=FINDING,
    title="Four positions fine-tuned",
    subject_sha256="a" * 64,
    source="1.5B release",
    fact_status="verified",
    measured_at=THEN,
    verdict="feasible",
    finding="Propaganda generation is feasible.",
    conditions={"fine_tuned_on": "four extremist positions"},
)


def faults(new: NewEvidence) -> dict[str, str]:
    """Return the wrong fields of what is refused."""
    with pytest.raises(Invalid) as caught:
        check(new, NOW)
    assert caught.value.fields
    return {f.field: f.sentence for f in caught.value.fields}


def said(name: str):
    """Return a value that a condition takes."""
    condition = CONDITIONS[name]
    if condition.form == "choice":
        return condition.choices[0]
    if condition.form == "sampler":
        return "top-k 40"
    if condition.form == "share":
        return 0.01
    if condition.form == "text":
        return "something"
    return {"scale_max": 10}.get(name, condition.low or 0)


def example(type_: str, metric: str) -> NewEvidence:
    """Return evidence of this metric that is fine."""
    conditions = {name: said(name) for name in needed_conditions(type_, metric)}
    base = replace(BASELINE, type=type_, metric=metric, conditions=conditions, n=None)
    if metric == FINDING:
        verdict = TYPES[type_].scale[0]
        return replace(base, value=None, unit="", verdict=verdict, finding="Words.")
    data = TYPES[type_].metrics[metric]
    return replace(base, value=data.low or 1, unit=data.unit)


ALL = [(t, m) for t, kind in TYPES.items() for m in (*kind.metrics, FINDING)]


# --- types ---------------------------------------------------------------------------------------


def test_the_types_are_those_plans_may_ask_for():
    assert tuple(TYPES) == KINDS["evidence"].options["type"].choices


@pytest.mark.parametrize(("type_", "metric"), ALL)
def test_every_metric_can_be_said_and_its_schema_agrees(type_, metric):
    new = example(type_, metric)
    checked = check(new, NOW)
    assert checked.unit == ("verdict" if metric == FINDING else TYPES[type_].metrics[metric].unit)
    schema = evidence_types()[type_]
    jsonschema.Draft202012Validator.check_schema(schema)
    document = {
        name: value
        for name, value in {
            "type": type_,
            "metric": metric,
            "title": new.title,
            "subject_sha256": new.subject_sha256,
            "source": new.source,
            "fact_status": new.fact_status,
            "measured_at": "2019-05-03T00:00:00Z",
            "value": new.value,
            "unit": new.unit or None,
            "verdict": new.verdict,
            "finding": new.finding,
            "conditions": dict(new.conditions) or None,
        }.items()
        if value is not None
    }
    jsonschema.Draft202012Validator(schema).validate(document)
    wrong = jsonschema.Draft202012Validator(schema)
    assert not wrong.is_valid(document | {"nonsense": 1})
    assert not wrong.is_valid(document | {"metric": "nonsense"})


@pytest.mark.parametrize(
    ("type_", "metric", "name"),
    [(t, m, n) for t, m in ALL for n in needed_conditions(t, m)],
)
def test_every_needed_condition_is_needed(type_, metric, name):
    new = example(type_, metric)
    left = {key: value for key, value in new.conditions.items() if key != name}
    assert f"conditions.{name}" in faults(replace(new, conditions=left))


@pytest.mark.parametrize("name", ["sampler", "text_length"])
def test_an_accuracy_without_sampler_or_length_is_refused_in_words(name):
    left = {key: value for key, value in BASELINE.conditions.items() if key != name}
    sentence = faults(replace(BASELINE, conditions=left))[f"conditions.{name}"]
    assert f"says nothing without {name}" in sentence
    assert "record a finding in words" in sentence


def test_what_every_condition_and_metric_names_exists():
    for name, kind in TYPES.items():
        assert set(allowed_conditions(name)) <= set(CONDITIONS)
        assert set(kind.finding_needs) <= set(allowed_conditions(name))
        for metric in kind.metrics.values():
            assert set(metric.needs) <= set(allowed_conditions(name))
        assert len(set(kind.scale)) == len(kind.scale) >= 3


@pytest.mark.parametrize("type_", TYPES)
def test_verdicts_that_judge_nothing_rank_above_all_others(type_):
    known = ranks(type_)
    judged = [known[one] for one in TYPES[type_].scale]
    assert judged == sorted(judged)
    assert judged[0] == 0
    for one in (*UNJUDGED, None, "nonsense"):
        assert rank_of(type_, one) > max(judged)


# --- fields --------------------------------------------------------------------------------------


def test_a_fraction_becomes_percent():
    checked = check(
        replace(
            BASELINE,
            value=0.9269,
            unit="fraction",
            interval=(0.92, 0.93),
            interval_level=95,
            companions={"sensitivity": 0.9, "specificity": 0.95},
        ),
        NOW,
    )
    assert (checked.value, checked.unit, checked.interval) == (92.69, "percent", (92.0, 93.0))
    assert checked.companions == {"sensitivity": 90.0, "specificity": 95.0}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"unit": "seconds"}, "unit"),
        ({"unit": ""}, "unit"),
        ({"unit": "Percent"}, "unit"),
        ({"value": None}, "value"),
        ({"value": math.nan}, "value"),
        ({"value": math.inf}, "value"),
        ({"value": -math.inf}, "value"),
        ({"value": 10**400}, "value"),
        ({"value": True}, "value"),
        ({"value": "92"}, "value"),
        ({"value": 100.1}, "value"),
        ({"value": -0.1}, "value"),
        ({"value": 92.69, "unit": "fraction"}, "value"),
        ({"n": 0}, "n"),
        ({"n": -5}, "n"),
        ({"n": True}, "n"),
        ({"n": 2**60}, "n"),
        ({"interval": (90.0, 91.0), "interval_level": 95}, "interval"),
        ({"interval": (93.0, 92.0), "interval_level": 95}, "interval"),
        ({"interval": (math.nan, 93.0), "interval_level": 95}, "interval"),
        ({"interval": (92.0, 101.0), "interval_level": 95}, "interval"),
        ({"interval": (92.0, 93.0)}, "interval_level"),
        ({"interval": (92.0, 93.0), "interval_level": 100}, "interval_level"),
        ({"interval_level": 95}, "interval"),
        ({"companions": {"auroc": 1}}, "companions.auroc"),
        ({"companions": {"sensitivity": 101}}, "companions.sensitivity"),
        ({"companions": {"sensitivity": math.nan}}, "companions.sensitivity"),
        ({"verdict": "feasible"}, "verdict"),
        ({"type": "nonsense"}, "type"),
        ({"metric": "nonsense"}, "metric"),
        ({"subject_sha256": "A" * 64}, "subject_sha256"),
        ({"subject_sha256": ""}, "subject_sha256"),
        ({"fact_status": "sure"}, "fact_status"),
        ({"source": " "}, "source"),
        ({"source": "a\x00b"}, "source"),
        ({"source": "x" * 2001}, "source"),
        ({"title": ""}, "title"),
        ({"title": "\u202etxt"}, "title"),
        ({"title": "\ud800"}, "title"),
        ({"caveat": "\x1b[2J"}, "caveat"),
        ({"author_name": "x" * 201}, "author_name"),
        ({"measured_at": NOW + timedelta(seconds=1)}, "measured_at"),
        ({"measured_at": datetime(2019, 5, 3)}, "measured_at"),
        ({"valid_until": THEN}, "valid_until"),
        ({"valid_until": THEN - timedelta(days=1)}, "valid_until"),
        ({"valid_until": datetime(2030, 5, 3)}, "valid_until"),
        ({"measured_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))}, "measured_at"),
        ({"valid_until": datetime(2201, 1, 1, tzinfo=UTC)}, "valid_until"),
        ({"measured_at": datetime(1899, 12, 31, tzinfo=UTC)}, "measured_at"),
        ({"valid_until": datetime(9999, 12, 31, 23, tzinfo=UTC)}, "valid_until"),
        ({"n": 2.0}, "n"),
    ],
)
def test_a_wrong_field_is_named(change, field):
    assert field in faults(replace(BASELINE, **change))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_rate", 1),
        ("base_rate", 0),
        ("base_rate", 16),
        ("base_rate", math.nan),
        ("base_rate", "1 %"),
        ("sampler", "random"),
        ("sampler", "top-k"),
        ("sampler", 40),
        ("text_length", 0),
        ("text_length", math.inf),
        ("text_length", True),
        ("text_length", "500"),
        ("text_length", 10**400),
        ("text_length_unit", "words"),
        ("detector", ""),
        ("detector", "x" * 201),
        ("detector", "\x00"),
        ("colour", "red"),
        ("<script>", "alert(1)"),
    ],
)
def test_a_wrong_condition_is_named(name, value):
    conditions = {**BASELINE.conditions, name: value}
    assert f"conditions.{name}" in faults(replace(BASELINE, conditions=conditions))


def test_what_lies_on_an_edge_is_taken():
    for change in (
        {"n": 1},
        {"value": 0, "interval": (0, 0), "interval_level": 0.1},
        {"value": 100, "interval": (100, 100), "interval_level": 99.9},
        {"measured_at": NOW},
        {"valid_until": datetime(2200, 12, 31, tzinfo=UTC)},
        {"measured_at": datetime(1900, 1, 1, tzinfo=UTC)},
        {"title": "x" * 200, "source": "x" * 2000, "caveat": "x" * 4000},
    ):
        assert check(replace(BASELINE, **change), NOW).type == "detectability"


def test_an_interval_has_both_ends():
    assert read_interval(None, None) is None
    assert read_interval(1.0, 2.0) == (1.0, 2.0)
    for low, high, name in ((None, 2.0, "interval_low"), (1.0, None, "interval_high")):
        with pytest.raises(Invalid) as refused:
            read_interval(low, high)
        assert [f.field for f in refused.value.fields] == [name]


def test_a_range_is_said_as_it_is():
    percent = faults(replace(BASELINE, value=101))["value"]
    assert percent == "accuracy must be between 0 and 100 percent, and 101 is not."
    low = replace(example("zero_shot_eval", "perplexity"), value=0.5)
    assert faults(low)["value"] == "perplexity must be at least 1 perplexity, and 0.5 is not."
    assert "interval_level" in faults(replace(BASELINE, interval=(92, 93), interval_level=0))


def test_everything_wrong_is_said_at_once():
    wrong = faults(replace(BASELINE, title="", unit="seconds", n=0, conditions={"colour": "red"}))
    assert {"title", "unit", "n", "conditions.colour", "conditions.sampler"} <= set(wrong)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"value": 4.0}, "value"),
        ({"unit": "percent"}, "unit"),
        ({"verdict": "very bad"}, "verdict"),
        ({"verdict": None}, "verdict"),
        ({"finding": None}, "finding"),
        ({"finding": "  "}, "finding"),
        ({"companions": {"cost": 1}}, "value"),
        ({"conditions": {}}, "conditions.fine_tuned_on"),
    ],
)
def test_a_finding_is_words_and_a_verdict_and_no_number(change, field):
    assert check(FOUND, NOW).unit == "verdict"
    assert field in faults(replace(FOUND, **change))


def test_a_score_lies_on_its_scale():
    score = replace(
        BASELINE,
        type="credibility",
        metric="mean_score",
        value=6.91,
        unit="scale points",
        conditions={"scale_min": 0, "scale_max": 10},
    )
    for value in (6.91, 0, 10):
        assert check(replace(score, value=value), NOW).value == value
    assert "value" in faults(replace(score, value=10.5))
    assert "value" in faults(replace(score, value=-0.1))
    backwards = {"scale_min": 10, "scale_max": 0}
    assert "conditions.scale_max" in faults(replace(score, conditions=backwards))
    beside = {"companions": {"baseline_value": 7.0}}
    assert "conditions.baseline" in faults(replace(score, **beside))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("top-k 40", "top-k 40"),
        ("K40", "top-k 40"),
        ("top_k=40", "top-k 40"),
        ("t1", "temperature 1"),
        ("Temperature = 1.0", "temperature 1"),
        ("nucleus 0.96", "top-p 0.96"),
        ("top-k 40, temperature 0.7", "temperature 0.7, top-k 40"),
        ("temperature 0.7,top-k 40", "temperature 0.7, top-k 40"),
        ("greedy", "greedy"),
        ("mixed", "mixed"),
        ("random", None),
        ("", None),
        (",", None),
        ("top-k 40; greedy", None),
        ("k" * 10_000, None),
    ],
)
def test_a_sampler_has_one_spelling(written, meant):
    assert read_sampler(written) == meant
    if meant is not None:
        assert read_sampler(meant) == meant


@given(st.text(max_size=60))
def test_reading_a_sampler_settles(text):
    once = read_sampler(text)
    assert once is None or read_sampler(once) == once


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from([*CONDITIONS, "nonsense"]),
)
def test_no_condition_value_breaks_the_check(value, name):
    conditions = {**BASELINE.conditions, name: value}
    try:
        checked = check(replace(BASELINE, conditions=conditions), NOW).conditions
    except Invalid as refused:
        checked = {}
        named = {f.field for f in refused.fields}
    else:
        named = set()
    assert all(isinstance(one, str) or math.isfinite(one) for one in checked.values())
    assert bool(checked) != bool(named)


JUNK = (
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from([10**400, -(10**400)])
)


@given(
    st.sampled_from(ALL),
    st.fixed_dictionaries(
        {},
        optional={
            "value": JUNK,
            "n": JUNK,
            "interval": st.tuples(st.floats() | st.integers(), st.floats() | st.integers()),
            "interval_level": st.floats() | st.integers(),
            "companions": st.dictionaries(st.sampled_from(["baseline_value", "specificity"]), JUNK),
            "unit": st.sampled_from(["percent", "fraction", "", "scale points"]) | st.text(),
            "title": st.text(max_size=300),
            "verdict": st.none() | st.text(),
            "finding": st.none() | st.text(),
            "measured_at": st.datetimes(timezones=st.just(UTC)),
            "valid_until": st.none() | st.datetimes(timezones=st.just(UTC)),
        },
    ),
)
def test_no_junk_breaks_the_check_and_what_passes_is_finite(which, junk):
    try:
        checked = check(replace(example(*which), **junk), NOW)
    except Invalid as refused:
        numbers = [0.0 if refused.fields else math.nan]
    else:
        numbers = [
            checked.value,
            checked.n,
            *(checked.interval or ()),
            *checked.companions.values(),
        ]
    assert all(one is None or math.isfinite(one) for one in numbers)


@given(st.datetimes(timezones=st.just(UTC)), st.datetimes(timezones=st.just(UTC)))
def test_dates_are_taken_exactly_when_they_can_be_true(measured, until):
    meant = all(1900 <= at.year <= 2200 for at in (measured, until))
    can = meant and measured <= NOW and until > measured
    try:
        check_dates(measured, until, NOW)
    except Invalid:
        assert not can
    else:
        assert can


# --- states --------------------------------------------------------------------------------------


@pytest.mark.parametrize("now", State)
@pytest.mark.parametrize("to", State)
def test_only_listed_moves_are_possible(now, to):
    if to in MOVES[now]:
        check_move(now, to, "evd_1")
    else:
        with pytest.raises(Conflict) as refused:
            check_move(now, to, "evd_1")
        assert refused.value.reason == "evidence.state"


def test_what_has_ended_stays_ended():
    assert {s for s in State if not MOVES[s]} == {
        State.REJECTED,
        State.SUPERSEDED,
        State.RETRACTED,
    }
    assert all(State.RETRACTED in MOVES[s] or not MOVES[s] for s in State)
    assert {s for s in State if State.ACCEPTED in MOVES[s]} == {State.SUBMITTED, State.DISPUTED}


# --- precision -----------------------------------------------------------------------------------


def test_95_percent_at_one_percent_is_16_percent():
    found = precisions("accuracy", 95.0, {}, 0.01)
    assert [round(p.percent, 1) for p in found] == [16.1]
    assert describe_precision(found[0]) == (
        "At the stated base rate of 1 %, 16.1 % of alarms would be right "
        "(from the accuracy taken as both sensitivity and specificity)."
    )
    stated = precisions("sensitivity", 95.0, {"specificity": 95.0}, 0.01)
    assert stated[0].percent == found[0].percent
    assert stated[0].basis == "stated sensitivity and specificity"


def test_a_balanced_test_is_shown_beside_one_percent():
    half, one = precisions("accuracy", 95.0, {}, 0.5)
    assert (half.percent, half.stated) == (95.0, True)
    assert (round(one.percent, 1), one.stated, one.base_rate) == (16.1, False, 0.01)
    assert "At a base rate of 1 %" in describe_precision(one)


def test_figures_that_do_not_say_it_say_nothing():
    assert precisions("sensitivity", 95.0, {}, 0.01) == ()
    assert precisions("auroc", 0.9, {}, 0.01) == ()
    assert precisions("finding", None, {}, 0.01) == ()
    assert precisions("accuracy", 95.0, {}, None) == ()
    assert precisions("sensitivity", 0.0, {"specificity": 100.0}, 0.01) == ()


SHARE = st.floats(0.0, 1.0)
RATE = st.floats(1e-6, 1 - 1e-6)


@given(SHARE, SHARE, RATE)
def test_precision_is_bayes(sensitivity, specificity, rate):
    alarms = sensitivity * rate + (1 - specificity) * (1 - rate)
    assume(alarms > 1e-12)
    found = precision_at(sensitivity=sensitivity, specificity=specificity, base_rate=rate)
    assert 0 <= found <= 1
    assert found * alarms == pytest.approx(sensitivity * rate)


@given(st.floats(0.01, 1), st.floats(0.0, 0.999), RATE, RATE)
def test_precision_falls_with_the_base_rate(sensitivity, specificity, one, other):
    low, high = sorted((one, other))
    at = [
        precision_at(sensitivity=sensitivity, specificity=specificity, base_rate=b)
        for b in (low, high)
    ]
    assert at[0] <= at[1] + 1e-12


def test_the_words_of_a_status_are_the_four():
    assert tuple(FactStatus) == ("verified", "reported", "computed", "recalled")


# --- bounds, from both sides ---------------------------------------------------------------------

USERS = NewEvidence(
    type="benefit",
    metric="users",
    title="Readers it helped",
    subject_sha256="a" * 64,
    source="https://example.org/survey",
    fact_status="verified",
    measured_at=THEN,
    value=10,
    unit="count",
    conditions={"audience": "readers", "counted_from": "survey"},
)


def fields_wrong(new: NewEvidence) -> set[str]:
    """Return the fields that are wrong with a piece."""
    try:
        check(new, NOW)
    except Invalid as refused:
        return {error.field for error in refused.fields}
    return set()


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, set()),
        ({"value": 0}, set()),
        ({"value": 2**53}, set()),
        ({"value": 2**53 + 2}, {"value"}),
        ({"value": 1.5}, {"value"}),
        ({"value": -1}, {"value"}),
        ({"value": math.inf}, {"value"}),
        ({"value": 10**400}, {"value"}),
        ({"value": True}, {"value"}),
        ({"n": 1}, set()),
        ({"n": 2**53}, set()),
        ({"n": 2**53 + 1}, {"n"}),
        ({"n": 0}, {"n"}),
        ({"n": True}, {"n"}),
        ({"interval": (9.5, 10.5), "interval_level": 95}, set()),  # around a whole number
        ({"interval": (10, 10), "interval_level": 95}, set()),
        ({"interval": (10.5, 11), "interval_level": 95}, {"interval"}),
        ({"interval": (9, 9.5), "interval_level": 95}, {"interval"}),
        ({"interval": (9, 11), "interval_level": 100}, {"interval_level"}),
        ({"interval": (9, 11), "interval_level": 0}, {"interval_level"}),
        ({"interval": (9, 11)}, {"interval_level"}),
        ({"interval_level": 95}, {"interval"}),
    ],
)
def test_a_count_is_a_whole_number_and_its_interval_need_not_be(changes, wrong):
    assert fields_wrong(replace(USERS, **changes)) == wrong


@pytest.mark.parametrize(("unit", "words"), [("cows", "not in 'cows'"), (None, "none is given")])
def test_a_wrong_unit_is_said_and_a_missing_one_too(unit, words):
    with pytest.raises(Invalid) as refused:
        check(replace(USERS, unit=unit), NOW)
    (error,) = refused.value.fields
    assert error.field == "unit"
    assert words in error.sentence


def with_condition(value: object) -> NewEvidence:
    """Return a finding on who is behind a misuse: ``actor_tier`` is a whole number from 1 to 3."""
    return replace(FOUND, conditions={**FOUND.conditions, "actor_tier": value})


@pytest.mark.parametrize(
    ("value", "fine"), [(1, True), (3, True), (0, False), (4, False), (1.5, False), (True, False)]
)
def test_a_condition_is_whole_and_within_its_range(value, fine):
    assert fields_wrong(with_condition(value)) == (set() if fine else {"conditions.actor_tier"})

"""The decision rules: a case that passes exactly, with one thing broken; for every input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stagerelease.kernel.errors import Conflict, Invalid
from stagerelease.releases.gates import (
    KINDS,
    ApprovalFact,
    Facts,
    HoldFact,
    JudgementFact,
    Outcome,
    counted,
    dwell,
    evaluate,
    time_held,
    words,
)
from stagerelease.releases.ladder import GateSpec, Plan, Quorum, Stage
from stagerelease.releases.rules import (
    ENDED,
    LIFT_CONSENTS,
    MAX_EVIDENCE,
    MOVES,
    OPEN,
    REOPENED,
    REVIEWABLE,
    WAIVER_LIMIT,
    State,
    Vouched,
    blockers,
    check_move,
    check_schedule,
    check_text,
    check_waiver_end,
    expiry,
    request_hash,
    step,
)

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
HASH, OTHER = "a" * 64, "b" * 64
ROLES = ("reviewer", "second_reviewer")
FEWER = settings(max_examples=max(settings().max_examples // 5, 10))  # for tests of many cases
SECOND = timedelta(seconds=1)
spans = st.timedeltas(timedelta(0), timedelta(days=400)).map(
    lambda d: d - timedelta(microseconds=d.microseconds)
)
stretches = spans.filter(lambda d: d >= SECOND)


@st.composite
def passing(draw: st.DrawFn) -> Facts:
    """Facts that pass exactly: every limit met with nothing to spare."""
    count = draw(st.integers(1, 5))
    # Time since the stage was entered: stretches served, with a lifted hold between any two. A
    # stretch of nothing would let a hold touch an end, and moving that end would only shorten it.
    served = draw(st.just([timedelta(0)]) | st.lists(stretches, min_size=1, max_size=4))
    minimum = sum(served, timedelta(0))
    lengths = [draw(spans) for _ in served[1:]]
    entered = at = NOW - minimum - sum(lengths, timedelta(0))
    holds = []
    for stretch, length in zip(served, lengths, strict=False):
        at += stretch
        holds.append(HoldFact(len(holds) + 1, "because", at, at + length))
        at += length
    earlier = entered - draw(spans)
    served_last = draw(st.booleans())
    scheduled = draw(st.booleans())
    gates = tuple(
        GateSpec(f"m{i}", "manual", {"question": "Fit?"}) for i in range(draw(st.integers(0, 2)))
    )
    return Facts(
        at=NOW,
        track_stage="partner",
        from_stage="partner",
        target=Stage(
            name="researcher",
            audience="people",
            agreement="terms",
            minimum_dwell=minimum,
            quorum=Quorum(count, draw(st.sampled_from([("reviewer",), ROLES]))),
            not_before=draw(st.sampled_from([None, NOW, NOW - SECOND])),
            gates=gates,
        ),
        state=draw(st.sampled_from([State.IN_REVIEW, State.APPROVED, State.SCHEDULED])).value,
        requester="requester",
        request_hash=HASH,
        entered_at=earlier if served_last else entered,
        first_served_at=entered if served_last else earlier,
        approvals=tuple(
            ApprovalFact(f"p{i}", f"p{i}", HASH, True, False, frozenset({"reviewer"}))
            for i in range(count)
        ),
        judgements=tuple(
            JudgementFact(g.key, HASH, "judge", True, "yes", True, False, True) for g in gates
        ),
        holds=tuple(holds),
        scheduled_for=NOW if scheduled else None,
        expires_at=draw(st.sampled_from([None, NOW + SECOND])),
    )


def codes(facts: Facts) -> set[str]:
    return {blocker.code for blocker in blockers(facts)}


@given(passing())
def test_it_passes_exactly(facts: Facts) -> None:
    assert blockers(facts) == ()
    assert dwell(facts) == facts.target.minimum_dwell
    assert len(counted(facts)) == facts.target.quorum.count


def _one_approval(**change: object) -> Callable[[Facts], Facts]:
    def change_one(facts: Facts) -> Facts:
        first, *others = facts.approvals
        return replace(facts, approvals=(*others, replace(first, **change)))

    return change_one


def _one_judgement(**change: object) -> Callable[[Facts], Facts]:
    def change_one(facts: Facts) -> Facts:
        first, *others = facts.judgements
        return replace(facts, judgements=(*others, replace(first, **change)))

    return change_one


def _target(**change: object) -> Callable[[Facts], Facts]:
    return lambda facts: replace(facts, target=replace(facts.target, **change))


BREAKS: dict[str, tuple[Callable[[Facts], Facts], str]] = {
    "an approval less": (lambda f: replace(f, approvals=f.approvals[1:]), "gate.quorum"),
    "one more asked": (
        lambda f: _target(quorum=replace(f.target.quorum, count=f.target.quorum.count + 1))(f),
        "gate.quorum",
    ),
    "of another hash": (_one_approval(request_hash=OTHER), "gate.quorum"),
    "the request edited": (lambda f: replace(f, request_hash=OTHER), "gate.quorum"),
    "by the requester": (_one_approval(person_id="requester"), "gate.quorum"),
    "by a machine": (_one_approval(human=False), "gate.quorum"),
    "by a disabled account": (_one_approval(disabled=True), "gate.quorum"),
    "role ended": (_one_approval(roles=frozenset()), "gate.quorum"),
    "by rank": (_one_approval(roles=frozenset({"owner", "release_manager"})), "gate.quorum"),
    "a second later entered": (
        lambda f: replace(f, entered_at=max(f.entered_at, f.first_served_at or NOW) + SECOND),
        "gate.dwell",
    ),
    "a second later served": (
        lambda f: replace(f, first_served_at=max(f.entered_at, f.first_served_at or NOW) + SECOND),
        "gate.dwell",
    ),
    "nobody served": (lambda f: replace(f, first_served_at=None), "gate.dwell"),
    "a second earlier asked": (lambda f: replace(f, at=f.at - SECOND), "gate.dwell"),
    "a longer minimum": (
        lambda f: _target(minimum_dwell=f.target.minimum_dwell + SECOND)(f),
        "gate.dwell",
    ),
    "a hold": (
        lambda f: replace(f, holds=(*f.holds, HoldFact(99, "incident", NOW, None))),
        "gate.hold",
    ),
    "stage not before": (_target(not_before=NOW + SECOND), "gate.not_before"),
    "scheduled later": (lambda f: replace(f, scheduled_for=NOW + SECOND), "gate.not_before"),
    "track moved": (lambda f: replace(f, track_stage="researcher"), "stage-moved"),
    "track withdrawn": (lambda f: replace(f, track_stage="withdrawn"), "stage-moved"),
    "expired": (lambda f: replace(f, expires_at=NOW), "expired"),
    "draft": (lambda f: replace(f, state="draft"), "not-submitted"),
    "changes requested": (lambda f: replace(f, state="changes_requested"), "not-submitted"),
    **{
        f"{state} already": (lambda f, s=state: replace(f, state=s), "ended")
        for state in sorted(ENDED)
    },
    "unknown kind of gate": (_target(gates=(GateSpec("x", "luck"),)), "gate.luck"),
}
ZERO_DWELL_PASSES = {"nobody served", "a second later entered", "a second later served"}


@pytest.mark.parametrize("name", BREAKS)
@FEWER
@given(passing())
def test_one_thing_broken_blocks_and_says_what(name: str, facts: Facts) -> None:
    """Whatever else holds, breaking one input blocks, for that reason."""
    break_it, code = BREAKS[name]
    if name in ZERO_DWELL_PASSES and not facts.target.minimum_dwell:
        assert "gate.dwell" not in codes(break_it(facts))
        return
    if name == "a second earlier asked" and not facts.target.minimum_dwell:
        return  # nothing was asked of time
    found = codes(break_it(facts))
    assert code in found
    if name != "a second earlier asked":
        # Only the quorum depends on the same input as another gate: manual answers are of a hash.
        assert found <= {code, "gate.manual"} if name == "the request edited" else found == {code}


MANUAL = {
    "unanswered": lambda f: replace(f, judgements=f.judgements[1:]),
    "answered no": _one_judgement(passed=False),
    "of another request": _one_judgement(request_hash=OTHER),
    "of another gate": _one_judgement(gate="other"),
    "by the requester": _one_judgement(person_id="requester"),
}


@pytest.mark.parametrize("name", MANUAL)
@FEWER
@given(passing().filter(lambda f: f.target.gates))
def test_a_manual_gate_needs_one_yes_of_somebody_else(name: str, facts: Facts) -> None:
    assert codes(MANUAL[name](facts)) == {"gate.manual"}


@given(passing(), st.integers(1, 5))
def test_the_same_person_counts_once(facts: Facts, times: int) -> None:
    first = facts.approvals[0]
    facts = replace(facts, approvals=(first,) * times)
    assert len(counted(facts)) == 1


@given(passing())
def test_every_gate_is_shown_with_its_rule_and_its_sentence(facts: Facts) -> None:
    results = evaluate(facts)
    assert [r.key for r in results] == [
        *("dwell", "quorum", "hold", "not_before", "no_incident"),
        *(spec.key for spec in facts.target.gates),
    ]
    for result in results:
        assert result.kind in KINDS
        assert all((result.rule, result.measured, result.threshold, result.sentence))
        assert result.outcome is Outcome.PASSED


def test_a_gate_of_an_unknown_kind_is_an_error_not_a_pass() -> None:
    target = Stage("public", "everyone", gates=(GateSpec("x", "luck"),))
    facts = Facts(
        at=NOW,
        track_stage="partner",
        from_stage="partner",
        target=target,
        state="in_review",
        requester="r",
        request_hash=HASH,
        entered_at=NOW,
        first_served_at=NOW,
    )
    assert evaluate(facts)[-1].outcome is Outcome.ERROR


instants = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)).map(
    lambda d: d.replace(tzinfo=UTC, microsecond=0)
)
holds = st.builds(
    lambda a, b, active: HoldFact(1, "x", min(a, b), None if active else max(a, b)),
    instants,
    instants,
    st.booleans(),
)


@given(st.lists(holds, max_size=5), instants, instants)
def test_held_time_is_the_union_of_the_holds_in_the_window(
    over: list[HoldFact], a: datetime, b: datetime
) -> None:
    """Compared with the plainest reckoning: walk from one end of a hold to the next."""
    start, end = min(a, b), max(a, b)
    edges = sorted(
        {start, end}
        | {t for h in over for t in (h.since, h.until) if t is not None and start < t < end}
    )
    expected = sum(
        (
            right - left
            for left, right in pairwise(edges)
            if any(h.since <= left and (h.until is None or h.until >= right) for h in over)
        ),
        timedelta(0),
    )
    assert time_held(over, start, end) == expected


vouched = st.builds(
    Vouched,
    track_id=st.sampled_from(["trk_1", "trk_2"]),
    from_stage=st.sampled_from(["internal", "partner"]),
    to_stage=st.sampled_from(["partner", "researcher"]),
    manifests=st.lists(st.sampled_from([HASH, OTHER]), min_size=1, max_size=2).map(tuple),
    evidence_ids=st.lists(st.sampled_from(["e1", "e2", "e3"]), max_size=3).map(tuple),
    plan_sha256=st.sampled_from([HASH, OTHER]),
    rationale=st.sampled_from(["because", "why not"]),
    scheduled_for=st.sampled_from([None, NOW, NOW + SECOND]),
    edition=st.integers(1, 3),
)


@given(vouched, vouched)
def test_the_hash_is_of_everything_vouched_for(one: Vouched, other: Vouched) -> None:
    def meaning(v: Vouched) -> Vouched:
        return replace(
            v,
            manifests=tuple(sorted(set(v.manifests))),
            evidence_ids=tuple(sorted(set(v.evidence_ids))),
        )

    assert (request_hash(one) == request_hash(other)) == (meaning(one) == meaning(other))


@given(vouched)
def test_changing_any_one_field_changes_the_hash(one: Vouched) -> None:
    changes: dict[str, object] = {
        "track_id": "trk_9",
        "from_stage": "public",
        "to_stage": "public",
        "manifests": ("c" * 64,),
        "evidence_ids": (*one.evidence_ids, "e9"),
        "plan_sha256": "c" * 64,
        "rationale": one.rationale + ".",
        "scheduled_for": NOW + timedelta(days=9),
        "edition": one.edition + 1,
    }
    assert set(changes) == set(Vouched.__dataclass_fields__)
    digests = {request_hash(replace(one, **{k: v})) for k, v in changes.items()}
    assert len(digests | {request_hash(one)}) == len(changes) + 1


PLAN = Plan(
    "p",
    "P",
    (
        Stage("internal", "staff"),
        Stage("partner", "organisations", agreement="a"),
        Stage("public", "everyone"),
    ),
)


@pytest.mark.parametrize(
    ("stage", "to"),
    list(product(["internal", "partner", "public", "withdrawn", "?"], repeat=2)),
)
def test_a_track_moves_one_rung_up_and_nothing_else(stage: str, to: str) -> None:
    allowed = (stage, to) in {("internal", "partner"), ("partner", "public")}
    assert (step(PLAN, stage, to) is None) == allowed


@pytest.mark.parametrize(("state", "to"), list(product(State, State)))
def test_the_table_of_moves_is_the_domain_model(state: State, to: State) -> None:
    """Written out once more by hand, from the model's words, and compared pair by pair."""
    chain = ["draft", "submitted", "in_review", "approved", "scheduled", "applied"]
    expected = set(pairwise(chain)) | {
        ("in_review", "changes_requested"),
        ("changes_requested", "draft"),
        ("approved", "applied"),  # a request without a time to wait for
        *((s, "draft") for s in ("draft", "submitted", "in_review", "approved", "scheduled")),
        *((s, "rejected") for s in ("in_review", "approved", "scheduled")),
        # re-opened, because evidence it rests on was retracted or disputed
        ("submitted", "submitted"),
        *((s, "in_review") for s in ("in_review", "approved", "scheduled")),
        *((s.value, end) for s in OPEN for end in ("cancelled", "expired", "superseded")),
    }
    allowed = (state.value, to.value) in expected
    assert (to in MOVES[state]) == allowed
    if not allowed:
        with pytest.raises(Conflict) as caught:
            check_move(state.value, to)
        assert caught.value.reason == f"promotion.{state.value}"


def test_only_open_states_are_reviewed_and_ended_ones_lead_nowhere() -> None:
    assert REVIEWABLE < OPEN
    assert {s for s in State if not MOVES[s]} == ENDED


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("because", True),
        ("two\nlines\tand a tab", True),
        (" trimmed ", True),
        ("", False),
        ("   ", False),
        ("x" * 4000, True),
        ("x" * 4001, False),
        ("nul\x00", False),
        ("bell\x07", False),
        ("half a pair \ud800", False),
    ],
)
def test_texts_that_every_database_can_keep(text: str, good: bool) -> None:
    if good:
        assert check_text(text, "reason") == text.strip()
    else:
        with pytest.raises(Invalid):
            check_text(text, "reason")


def test_a_schedule_is_ahead_in_a_zone_and_kept_to_the_millisecond() -> None:
    at = NOW + timedelta(days=1, microseconds=999_001)
    assert check_schedule(at, NOW) == NOW + timedelta(days=1, milliseconds=999)
    assert check_schedule(None, NOW) is None
    last = NOW + timedelta(days=3 * 366)
    assert check_schedule(last, NOW) == last
    for bad in (NOW, NOW - SECOND, last + SECOND, at.replace(tzinfo=None)):
        with pytest.raises(Invalid):
            check_schedule(bad, NOW)


def test_a_waiver_ends_ahead_and_soon_and_is_kept_to_the_millisecond() -> None:
    at = NOW + timedelta(days=1, microseconds=999_001)
    assert check_waiver_end(at, NOW) == NOW + timedelta(days=1, milliseconds=999)
    assert check_waiver_end(NOW + timedelta(days=90), NOW) == NOW + timedelta(days=90)
    assert check_waiver_end(NOW + SECOND, NOW) == NOW + SECOND
    for bad in (
        NOW,
        NOW - SECOND,
        NOW + timedelta(days=90) + SECOND,
        at.replace(tzinfo=None),
    ):
        with pytest.raises(Invalid):
            check_waiver_end(bad, NOW)


def test_the_numbers_that_the_domain_model_and_the_manual_name() -> None:
    assert (LIFT_CONSENTS, MAX_EVIDENCE, timedelta(days=90)) == (2, 200, WAIVER_LIMIT)
    assert REOPENED == {
        State.SUBMITTED: State.SUBMITTED,
        State.IN_REVIEW: State.IN_REVIEW,
        State.APPROVED: State.IN_REVIEW,
        State.SCHEDULED: State.IN_REVIEW,
    }
    assert all(after in MOVES[before] for before, after in REOPENED.items())


def test_a_request_lives_its_plans_lifetime_after_it_could_be_applied() -> None:
    month = PLAN.request_lifetime
    assert expiry(NOW, None, PLAN) == NOW + month
    assert expiry(NOW, NOW + SECOND, PLAN) == NOW + SECOND + month


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (timedelta(0), "0 min"),
        (SECOND, "1 s"),
        (timedelta(minutes=61), "1 h 1 min"),
        (timedelta(days=14), "14 d"),
        (timedelta(days=13, hours=23, minutes=59, seconds=59), "13 d 23 h 59 min"),
        (-SECOND, "0 min"),
    ],
)
def test_time_in_words_never_rounds_up(span: timedelta, said: str) -> None:
    assert words(span) == said

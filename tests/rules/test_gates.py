"""Every gate a plan may list: a case that passes exactly, with one thing broken."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stagerelease.evidence.facts import EvidenceFact
from stagerelease.evidence.kinds import TYPES, UNJUDGED, ranks
from stagerelease.releases.gates import (
    KINDS,
    WAIVER_SIGNERS,
    ApprovalFact,
    ContactFact,
    Facts,
    GapFact,
    GateResult,
    HoldFact,
    IncidentFact,
    JudgementFact,
    Outcome,
    SignatureFact,
    SignerFact,
    WaiverFact,
    counted,
    evaluate,
    rules_of,
    specs_of,
    why_not_counted,
    why_not_heard,
)
from stagerelease.releases.ladder import GateSpec, Quorum, Stage
from stagerelease.releases.rules import blockers

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
HASH, OTHER = "a" * 64, "b" * 64
FILE, MANIFEST = "1" * 64, "2" * 64
FEWER = settings(max_examples=max(settings().max_examples // 5, 10))
STANDING = ("dwell", "quorum", "hold", "not_before", "no_incident")
ASKED: dict[str, Any] = {
    "detector": "roberta-large",
    "sampler": "top-k 40",
    "text_length": 510,
    "base_rate": 0.01,
}


def piece(id_: str = "evd_1", **change: Any) -> EvidenceFact:
    """Evidence that counts and meets the threshold of ``OPTIONS`` exactly, on its last instant."""
    return replace(
        EvidenceFact(
            id=id_,
            type="detectability",
            metric="accuracy",
            value=95.0,
            unit="percent",
            state="accepted",
            subject_sha256=FILE,
            measured_at=NOW - 30 * DAY,
            valid_until=NOW + SECOND,
            accepted_at=NOW,
            organisation_id="org_1",
            authors=frozenset({"author"}),
            interval=(95.0, 97.0),
            conditions={**ASKED, "text_length": 510.0, "language": "en"},
        ),
        **change,
    )


OPTIONS: dict[str, Any] = {
    "type": "detectability",
    "metric": "accuracy",
    "at_least": 95,
    "conditions": ASKED,
    "max_age": "P30D",
    "count": 1,
    "judged_by": "value",
}


def case(*gates: GateSpec, **change: Any) -> Facts:
    """Facts of a request into ``public`` that every standing gate lets through."""
    return replace(
        Facts(
            at=NOW,
            track_stage="partner",
            from_stage="partner",
            target=Stage("public", "everyone", quorum=Quorum(1), gates=gates),
            state="in_review",
            requester="requester",
            request_hash=HASH,
            entered_at=NOW - 90 * DAY,
            first_served_at=NOW - 90 * DAY,
            approvals=(ApprovalFact("p", "P", HASH, True, False, frozenset({"reviewer"})),),
            kind="weights",
            manifest_sha256=MANIFEST,
            subjects=frozenset({FILE, MANIFEST}),
            evidence=(piece(),),
        ),
        **change,
    )


def ask(facts: Facts, key: str) -> GateResult:
    """Return the answer of the gate ``key``."""
    return next(r for r in evaluate(facts) if r.key == key)


def detect(options: Mapping[str, Any] = OPTIONS, **change: Any) -> GateResult:
    """Ask one evidence gate about facts with something changed."""
    return ask(case(GateSpec("d", "evidence", options), **change), "d")


# --- evidence ------------------------------------------------------------------------------------


def test_evidence_passes_exactly_and_says_what_it_rests_on() -> None:
    got = detect()
    assert got.outcome is Outcome.PASSED
    assert (got.passed, got.stale, got.waivable, got.verdict) == (True, False, True, "passed")
    assert got.rule == (
        "Accepted detectability evidence with accuracy at least 95 percent under base_rate 0.01, "
        "detector roberta-large, sampler top-k 40, text_length 510, no older than 30 d."
    )
    assert got.measured == "accuracy 95 (95 to 97) percent"
    assert got.threshold == "at least 95 percent"
    assert got.sentence == "accuracy 95 (95 to 97) percent, where at least 95 percent is asked."
    (use,) = got.evidence
    assert (use.id, use.age, use.counted, use.why) == ("evd_1", "30 d", True, "It counts.")


Break = Callable[[EvidenceFact], EvidenceFact]
UNFIT: dict[str, tuple[Break, Outcome, bool, str]] = {
    # what is broken: (how, outcome, stale, a word of the reason)
    "below": (lambda e: replace(e, value=94.9), Outcome.FAILED, False, "It counts"),
    "submitted": (lambda e: replace(e, state="submitted"), Outcome.PENDING, False, "submitted"),
    "disputed": (lambda e: replace(e, state="disputed"), Outcome.PENDING, False, "disputed"),
    "retracted": (lambda e: replace(e, state="retracted"), Outcome.PENDING, False, "retracted"),
    "superseded": (lambda e: replace(e, state="superseded"), Outcome.PENDING, False, "superseded"),
    "accepted later": (
        lambda e: replace(e, accepted_at=NOW + SECOND),
        Outcome.PENDING,
        False,
        "accepted only",
    ),
    "from the future": (
        lambda e: replace(e, measured_at=NOW + SECOND),
        Outcome.PENDING,
        False,
        "has not come",
    ),
    "just expired": (lambda e: replace(e, valid_until=NOW), Outcome.PENDING, True, "valid until"),
    "a second too old": (
        lambda e: replace(e, measured_at=NOW - 30 * DAY - SECOND),
        Outcome.PENDING,
        True,
        "old, more than",
    ),
    "of another file": (
        lambda e: replace(e, subject_sha256="3" * 64),
        Outcome.PENDING,
        False,
        "no file of this track",
    ),
    "another unit": (lambda e: replace(e, unit="fraction"), Outcome.PENDING, False, "unit is"),
    "not a number": (lambda e: replace(e, value=math.nan), Outcome.ERROR, False, "It counts"),
    "infinite": (lambda e: replace(e, interval=(95, math.inf)), Outcome.ERROR, False, "It counts"),
    **{
        f"{name} otherwise": (
            lambda e, n=name: replace(e, conditions={**e.conditions, n: "other"}),
            Outcome.PENDING,
            False,
            f"{name} is other",
        )
        for name in ASKED
    },
    **{
        f"{name} unsaid": (
            lambda e, n=name: replace(
                e, conditions={k: v for k, v in e.conditions.items() if k != n}
            ),
            Outcome.INCONCLUSIVE,
            False,
            f"does not say: {name}",
        )
        for name in ASKED
    },
    "number as text": (
        lambda e: replace(e, conditions={**e.conditions, "text_length": "510"}),
        Outcome.PENDING,
        False,
        "text_length is 510, not 510",
    ),
    "one instead of true": (
        lambda e: replace(e, conditions={**e.conditions, "text_length": True}),
        Outcome.PENDING,
        False,
        "text_length is True",
    ),
    "unsaid and expired": (
        lambda e: replace(e, conditions={}, valid_until=NOW),
        Outcome.PENDING,
        False,
        "valid until",
    ),
    "unsaid and too old": (
        lambda e: replace(e, conditions={}, measured_at=NOW - 31 * DAY),
        Outcome.PENDING,
        False,
        "old, more than",
    ),
}


@pytest.mark.parametrize("name", UNFIT)
def test_one_thing_broken_in_the_evidence(name: str) -> None:
    break_it, outcome, stale, said = UNFIT[name]
    got = detect(evidence=(break_it(piece()),))
    assert (got.outcome, got.stale) == (outcome, stale)
    assert not got.passed
    assert got.verdict == ("stale" if stale else outcome.value)
    (use,) = got.evidence
    assert said in use.why
    assert use.counted == (outcome in (Outcome.FAILED, Outcome.ERROR))
    assert got.sentence.endswith(".")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("never expires", {"valid_until": None}),
        ("about the manifest", {"subject_sha256": MANIFEST}),
        ("measured now", {"measured_at": NOW}),
        ("accepted at an unknown time", {"accepted_at": None}),
        ("above", {"value": 99.0}),
        ("no interval", {"interval": None}),
        ("of nobody", {"organisation_id": None}),
    ],
)
def test_what_does_not_matter_passes(name: str, change: dict[str, Any]) -> None:
    assert detect(evidence=(piece(**change),)).outcome is Outcome.PASSED, name


@pytest.mark.parametrize("percent", range(101))
def test_a_threshold_in_another_unit_is_the_same_threshold(percent: int) -> None:
    for option in ("at_least", "at_most"):
        asked = {k: v for k, v in OPTIONS.items() if k != "at_least"}
        asked |= {option: percent / 100, "unit": "fraction"}
        exact = (piece(value=float(percent), interval=None),)
        got = detect(asked, evidence=exact)
        assert got.outcome is Outcome.PASSED
        assert got.threshold.endswith(f" {percent} percent")
        off = 0.001 if option == "at_most" else -0.001
        missed = (piece(value=percent + off, interval=None),)
        assert detect(asked, evidence=missed).outcome is Outcome.FAILED


def test_true_is_not_the_number_one() -> None:
    for asked, stated in ((1, True), (True, 1), (True, True), (0, False)):
        options = {**OPTIONS, "conditions": {"text_length": asked}}
        got = detect(options, evidence=(piece(conditions={"text_length": stated}),))
        assert got.outcome is Outcome.PENDING
    options = {**OPTIONS, "conditions": {"text_length": 1}}
    for stated, outcome in ((1.0, Outcome.PASSED), ("1", Outcome.PENDING)):
        got = detect(options, evidence=(piece(conditions={"text_length": stated}),))
        assert got.outcome is outcome


def test_evidence_of_another_type_or_metric_is_not_looked_at() -> None:
    for change in ({"type": "benefit"}, {"metric": "auroc"}):
        got = detect(evidence=(piece(**change),))
        assert (got.outcome, got.evidence) == (Outcome.PENDING, ())
        assert got.measured == "nothing that counts"
        assert got.sentence.startswith("0 of 1 pieces of accepted detectability evidence")


at_most = {**{k: v for k, v in OPTIONS.items() if k != "at_least"}, "at_most": 95}


def test_at_most_is_the_other_way_round() -> None:
    for value, outcome in ((95.0, Outcome.PASSED), (95.1, Outcome.FAILED), (9.0, Outcome.PASSED)):
        got = detect(at_most, evidence=(piece(value=value, interval=None),))
        assert (got.outcome, got.threshold) == (outcome, "at most 95 percent")


INTERVAL = {**OPTIONS, "judged_by": "interval"}


@pytest.mark.parametrize(
    ("options", "interval", "outcome"),
    [
        (INTERVAL, (95.0, 97.0), Outcome.PASSED),
        (INTERVAL, (94.9, 97.0), Outcome.INCONCLUSIVE),
        (INTERVAL, (90.0, 94.9), Outcome.FAILED),
        (INTERVAL, None, Outcome.INCONCLUSIVE),
        ({**at_most, "judged_by": "interval"}, (94.0, 95.0), Outcome.PASSED),
        ({**at_most, "judged_by": "interval"}, (94.0, 95.1), Outcome.INCONCLUSIVE),
        ({**at_most, "judged_by": "interval"}, (95.1, 96.0), Outcome.FAILED),
        (OPTIONS, (90.0, 97.0), Outcome.PASSED),  # the value alone was asked
    ],
)
def test_an_interval_across_the_threshold_asks_a_person(
    options: dict[str, Any], interval: tuple[float, float] | None, outcome: Outcome
) -> None:
    got = detect(options, evidence=(piece(value=95.0, interval=interval),))
    assert got.outcome is outcome
    said = "above" if "at_least" in options else "below"
    assert (f", its whole confidence interval {said}," in got.rule) == (
        options.get("judged_by") == "interval"
    )
    if outcome is Outcome.INCONCLUSIVE:
        assert got.sentence.startswith("The confidence interval does not settle it: accuracy 95")


def test_some_meeting_it_and_some_not_is_inconclusive_and_all_not_is_failed() -> None:
    good, bad = piece("evd_1"), piece("evd_2", value=60.0)
    got = detect(evidence=(good, bad))
    assert got.outcome is Outcome.INCONCLUSIVE
    assert got.sentence.startswith("Evidence contradicts itself: accuracy 95")
    assert detect(evidence=(bad, replace(bad, id="evd_3"))).outcome is Outcome.FAILED
    # Even where two that agree would be enough.
    got = detect({**OPTIONS, "count": 2}, evidence=(good, replace(good, id="evd_3"), bad))
    assert got.outcome is Outcome.INCONCLUSIVE


def test_as_many_pieces_from_as_many_organisations_as_asked() -> None:
    asked = {**OPTIONS, "count": 2, "distinct_organisations": 2}
    one, two = piece("evd_1"), piece("evd_2", organisation_id="org_2")
    got = detect(asked, evidence=(one, two))
    assert got.outcome is Outcome.PASSED
    assert got.rule.endswith(", 2 pieces of it, from 2 organisations.")
    got = detect(asked, evidence=(one,))
    assert (got.outcome, got.sentence) == (
        Outcome.PENDING,
        "1 of 2 pieces of accepted detectability evidence on accuracy that count.",
    )
    for other in (replace(two, organisation_id="org_1"), replace(two, organisation_id=None)):
        got = detect(asked, evidence=(one, other))
        assert (got.outcome, got.sentence) == (Outcome.PENDING, "From 1 of 2 organisations.")
    # What leaves a condition unsaid would do, if a person says so; but only if it were enough.
    unsaid = replace(two, conditions={})
    got = detect(asked, evidence=(one, unsaid))
    assert got.outcome is Outcome.INCONCLUSIVE
    assert got.sentence == "Evidence leaves a condition unsaid: evd_2."
    assert detect({**asked, "count": 3}, evidence=(one, unsaid)).outcome is Outcome.PENDING
    aged = replace(two, valid_until=NOW)
    got = detect(asked, evidence=(one, aged))
    assert (got.outcome, got.stale) == (Outcome.PENDING, True)
    assert got.sentence.endswith("Evidence there is, but too old: it is stale.")
    # Old evidence beside enough fresh evidence is nobody's concern.
    got = detect(evidence=(one, aged))
    assert (got.outcome, got.stale) == (Outcome.PASSED, False)
    assert detect(evidence=(one, unsaid)).outcome is Outcome.PASSED


FINDING = {"type": "credibility", "metric": "finding", "verdict": "less_than_human"}


@pytest.mark.parametrize("verdict", [*TYPES["credibility"].scale, *UNJUDGED])
def test_a_finding_passes_down_to_the_verdict_asked(verdict: str) -> None:
    found = piece(
        type="credibility",
        metric="finding",
        unit="verdict",
        verdict=verdict,
        value=float(ranks("credibility")[verdict]),
        interval=None,
        conditions={},
    )
    got = detect(FINDING, evidence=(found,))
    expected = Outcome.PASSED if verdict in ("not_credible", "less_than_human") else Outcome.FAILED
    assert got.outcome is (Outcome.INCONCLUSIVE if verdict in UNJUDGED else expected)
    assert got.measured == f"finding {verdict}"
    assert got.threshold == "less_than_human or better"
    if verdict in UNJUDGED:
        assert got.sentence.startswith("The verdict does not settle it")


values = st.floats(0, 100, allow_nan=False)
odd = st.fixed_dictionaries(
    {},
    optional={
        "value": values,
        "state": st.sampled_from(["accepted", "submitted", "disputed", "retracted"]),
        "subject_sha256": st.sampled_from([FILE, MANIFEST, OTHER]),
        "measured_at": st.timedeltas(-DAY, 60 * DAY).map(lambda d: NOW - d),
        "valid_until": st.none() | st.timedeltas(-DAY, DAY).map(lambda d: NOW + d),
        "conditions": st.sets(st.sampled_from(sorted(ASKED))).map(
            lambda names: {name: ASKED[name] for name in names}
        ),
        "unit": st.sampled_from(["percent", "fraction"]),
    },
)


@given(st.lists(odd, max_size=4), values)
def test_it_passes_only_on_evidence_that_counts_and_meets_it(
    changes: list[dict[str, Any]], limit: float
) -> None:
    """Invariant 4, from its words: reckoned again here, without the product's code."""
    facts = [piece(f"evd_{i}", **change) for i, change in enumerate(changes)]
    got = detect({**OPTIONS, "at_least": limit}, evidence=tuple(facts))
    good = [
        e
        for e in facts
        if e.state == "accepted"
        and e.measured_at <= NOW
        and (e.valid_until is None or e.valid_until > NOW)
        and e.subject_sha256 in (FILE, MANIFEST)
        and NOW - e.measured_at <= 30 * DAY
        and all(e.conditions.get(k) == v for k, v in ASKED.items())
        and e.unit == "percent"
    ]
    assert {use.id for use in got.evidence if use.counted} == {e.id for e in good}
    assert got.passed == (bool(good) and all(e.value >= limit for e in good))
    assert (got.outcome is Outcome.FAILED) == (bool(good) and all(e.value < limit for e in good))


# --- freshness -----------------------------------------------------------------------------------

FRESH = {"type": "misuse_monitoring", "max_age": "P30D"}


def fresh(*pieces: EvidenceFact) -> GateResult:
    return ask(case(GateSpec("f", "freshness", FRESH), evidence=pieces), "f")


def test_freshness_is_of_the_newest_that_counts() -> None:
    watched = piece(type="misuse_monitoring", metric="incidents", unit="count", value=0)
    newer = replace(watched, id="evd_2", measured_at=NOW - 2 * DAY)
    got = fresh(watched, newer, piece("evd_3", measured_at=NOW))
    assert (got.outcome, got.measured, got.stale) == (Outcome.PASSED, "2 d", False)
    assert got.sentence == "evd_2 is 2 d old."
    assert [(u.id, u.counted) for u in got.evidence] == [("evd_1", True), ("evd_2", True)]
    assert fresh(watched).outcome is Outcome.PASSED  # exactly thirty days
    old = replace(watched, measured_at=NOW - 30 * DAY - SECOND)
    got = fresh(old)
    assert (got.outcome, got.stale, got.verdict) == (Outcome.PENDING, True, "stale")
    assert got.evidence[0].why == "It is too old."
    assert not got.evidence[0].counted
    gone = fresh(replace(watched, valid_until=NOW))
    assert (gone.outcome, gone.stale) == (Outcome.PENDING, True)
    for unfit in (
        replace(watched, state="disputed"),
        replace(watched, subject_sha256=OTHER),
        replace(watched, state="disputed", valid_until=NOW),
        replace(old, state="disputed"),
    ):
        got = fresh(unfit)
        assert (got.outcome, got.stale) == (Outcome.PENDING, False)
    assert fresh().measured == "nothing that counts"


# --- use, signatures, card, contacts, people -----------------------------------------------------


def simple(kind: str, options: Mapping[str, Any], **change: Any) -> GateResult:
    return ask(case(GateSpec("g", kind, options), **change), "g")


@pytest.mark.parametrize(
    ("options", "completed", "outcome"),
    [
        ({"at_least": 3}, 3, Outcome.PASSED),
        ({"at_least": 3}, 2, Outcome.PENDING),
        ({}, 1, Outcome.PASSED),
        ({}, 0, Outcome.PENDING),
        ({}, None, Outcome.PASSED),
    ],
)
def test_the_audience_below_was_really_served(
    options: dict[str, Any], completed: int | None, outcome: Outcome
) -> None:
    got = simple("served", options, completed=completed)
    assert got.outcome is outcome
    assert got.threshold == str(options.get("at_least", 1))
    assert ("downloads by" in got.rule) == ("at_least" in options)


def test_the_manifest_is_signed_by_a_key_that_counts() -> None:
    signature = SignatureFact(MANIFEST, "key-1", NOW)
    got = simple("signed", {"keys": ("key-1", "key-2")}, signatures=(signature,))
    assert (got.outcome, got.measured) == (Outcome.PASSED, "key-1")
    assert got.rule == "The manifest is signed by key-1 or key-2."
    assert simple("signed", {}, signatures=(signature,)).outcome is Outcome.PASSED
    assert got.sentence == f"Manifest {MANIFEST[:12]}… is signed with key-1."
    assert (
        simple("signed", {}).sentence == f"No signature over manifest {MANIFEST[:12]}… is here yet."
    )
    for broken in (
        (),
        (replace(signature, manifest_sha256=OTHER),),
        (replace(signature, at=NOW + SECOND),),
        (replace(signature, key="key-3"),),
    ):
        got = simple("signed", {"keys": ("key-1", "key-2")}, signatures=broken)
        assert (got.outcome, got.measured) == (Outcome.PENDING, "no signature")


@pytest.mark.parametrize(
    ("at", "outcome"),
    [(NOW, Outcome.PASSED), (NOW + SECOND, Outcome.PENDING), (None, Outcome.PENDING)],
)
def test_the_card_is_locked(at: datetime | None, outcome: Outcome) -> None:
    got = simple("card_locked", {}, card_locked_at=at)
    assert got.outcome is outcome
    assert (got.measured == "not locked") == (outcome is Outcome.PENDING)
    assert ("not locked" in got.sentence) == (outcome is Outcome.PENDING)


WINDOW = {"window": "P30D", "at_least": 1}
CONTACT = ContactFact("crd_1", "Somebody", "contact", NOW - 30 * DAY, None)


def test_every_window_of_coordination_is_over() -> None:
    assert simple("coordination", WINDOW, coordination=(CONTACT,)).outcome is Outcome.PASSED
    longer = replace(CONTACT, window_ends_at=NOW)
    assert simple("coordination", WINDOW, coordination=(longer,)).outcome is Outcome.PASSED
    shorter = replace(CONTACT, at=NOW - 29 * DAY, window_ends_at=NOW - 5 * DAY)
    got = simple("coordination", WINDOW, coordination=(CONTACT, shorter))
    assert (got.outcome, got.due) == (Outcome.PENDING, NOW + DAY)  # the plan's, where longer
    still = replace(CONTACT, window_ends_at=NOW + SECOND)
    got = simple("coordination", WINDOW, coordination=(CONTACT, still))
    assert (got.outcome, got.due) == (Outcome.PENDING, NOW + SECOND)
    assert got.sentence.startswith("1 windows still run")
    got = simple("coordination", WINDOW)
    assert (got.outcome, got.due) == (Outcome.PENDING, None)
    assert got.rule.endswith(", and at least 1 on record.")
    assert simple("coordination", {"window": "P30D"}).outcome is Outcome.PASSED
    just_now = replace(CONTACT, at=NOW)
    assert simple("coordination", WINDOW, coordination=(just_now,)).due == NOW + 30 * DAY
    later = replace(CONTACT, at=NOW + SECOND)  # not known yet at this instant
    got = simple("coordination", WINDOW, coordination=(later,))
    assert (got.outcome, got.sentence) == (Outcome.PENDING, "0 of 1 coordination records.")
    two = {**WINDOW, "at_least": 2}
    assert simple("coordination", two, coordination=(CONTACT,)).outcome is Outcome.PENDING
    assert simple("coordination", two, coordination=(CONTACT, CONTACT)).outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("answer", "outcome", "measured"),
    [
        (None, Outcome.PENDING, "no answer"),
        (True, Outcome.PASSED, "yes"),
        (False, Outcome.FAILED, "no"),
    ],
)
def test_a_manual_gate_waits_for_its_answer(
    answer: bool | None, outcome: Outcome, measured: str
) -> None:
    said = () if answer is None else (replace(YES, gate="g", passed=answer),)
    got = simple("manual", {"question": "Fit?"}, judgements=said)
    assert (got.outcome, got.measured, got.judgement) == (
        outcome,
        measured,
        said[0] if said else None,
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"request_hash": OTHER}, "Nobody has answered"),
        ({"gate": "other"}, "Nobody has answered"),
        ({"person_id": "requester"}, "Its giver opened this request."),
        ({"human": False}, "Its giver is not a person."),
        ({"disabled": True}, "Its giver's account is disabled."),
        ({"entitled": False}, "Its giver may not decide on requests now."),
    ],
)
def test_an_answer_does_not_outlive_what_its_giver_may_do(
    change: dict[str, Any], said: str
) -> None:
    answer = replace(YES, gate="g")
    assert simple("manual", {"question": "Fit?"}, judgements=(answer,)).passed
    got = simple("manual", {"question": "Fit?"}, judgements=(replace(answer, **change),))
    assert (got.outcome, got.judgement) == (Outcome.PENDING, None)
    assert said in got.sentence
    assert why_not_heard(case(), answer) is None
    assert ("earlier edition" in str(why_not_heard(case(), replace(answer, **change)))) == (
        "request_hash" in change
    )


def test_an_incident_that_blocks_blocks_and_cannot_be_waived() -> None:
    got = ask(case(incidents=(IncidentFact(7, "high"), IncidentFact(3, "low"))), "no_incident")
    assert (got.outcome, got.waivable, got.measured) == (Outcome.FAILED, False, "2 open")
    assert got.sentence == (
        "Incident 3 (low) is open and blocks. Incident 7 (high) is open and blocks."
    )
    assert ask(case(), "no_incident").outcome is Outcome.PASSED


# --- who counts ----------------------------------------------------------------------------------


@given(st.sets(st.sampled_from("abcdef"), min_size=1), st.sets(st.sampled_from("abcdef")))
def test_authors_of_evidence_never_count(approve: set[str], wrote: set[str]) -> None:
    """Invariant 1, of all evidence the request names, whatever has become of it."""
    facts = case(
        approvals=tuple(
            ApprovalFact(p, p, HASH, True, False, frozenset({"reviewer"})) for p in sorted(approve)
        ),
        evidence=(
            piece(authors=frozenset(list(wrote)[:1])),
            piece("evd_2", authors=frozenset(wrote), state="retracted", type="benefit"),
        ),
    )
    assert {a.person_id for a in counted(facts)} == approve - wrote
    assert ask(facts, "quorum").passed == bool(approve - wrote)
    said = ask(facts, "quorum").sentence
    for person in approve & wrote:
        assert f"The approval by {person} does not count: Its giver is an author" in said


def test_what_is_said_of_a_quorum() -> None:
    yes = [replace(APPROVAL, person_id=p, name=p) for p in "cab"]
    two = replace(case().target, quorum=Quorum(2, ("reviewer", "security")))
    got = ask(case(target=two, approvals=tuple(yes)), "quorum")
    assert (got.outcome, got.measured, got.threshold) == (Outcome.PASSED, "3", "2")
    assert got.sentence == "Approved by a, b, c."
    assert got.rule == (
        "At least 2 people with the role reviewer or security, never the requester or an author "
        "of the evidence used."
    )
    old = replace(yes[1], request_hash=OTHER)
    got = ask(case(target=two, approvals=(yes[0], old)), "quorum")
    assert (got.outcome, got.sentence) == (
        Outcome.PENDING,
        "1 of 2 approvals (c); 1 more by a reviewer or security who did not open the request.",
    )
    got = ask(case(target=two, approvals=()), "quorum")
    assert got.sentence == (
        "0 of 2 approvals; 2 more by a reviewer or security who did not open the request."
    )


def test_what_is_said_of_time() -> None:
    slow = replace(case().target, minimum_dwell=30 * DAY)
    got = ask(case(target=slow), "dwell")
    assert (got.outcome, got.sentence) == (Outcome.PASSED, "Served 90 d at partner.")
    assert got.rule == "At least 30 d at partner, holds not counted."
    got = ask(case(target=slow, entered_at=NOW - DAY), "dwell")
    assert (got.outcome, got.measured) == (Outcome.PENDING, "1 d")
    assert got.sentence == "Served 1 d of 30 d at partner; 29 d to go."
    got = ask(case(target=slow, first_served_at=None), "dwell")
    assert (got.outcome, got.measured) == (Outcome.PENDING, "nobody could fetch yet")
    assert got.sentence == (
        "The audience of partner has had no chance to fetch yet, so its 30 d have not begun."
    )
    got = ask(case(first_served_at=None), "dwell")
    assert (got.outcome, got.sentence) == (Outcome.PASSED, "No minimum time is asked.")
    assert got.rule == "No minimum time at partner."
    got = ask(case(scheduled_for=NOW), "not_before")
    assert (got.outcome, got.sentence) == (
        Outcome.PASSED,
        "2 March 2026, 09:00 UTC has come.",
    )
    got = ask(case(scheduled_for=NOW + DAY), "not_before")
    assert (got.outcome, got.sentence) == (
        Outcome.PENDING,
        "Not before 3 March 2026, 09:00 UTC.",
    )
    got = ask(case(), "not_before")
    assert (got.measured, got.threshold) == ("2 March 2026, 09:00 UTC", "none")


def test_what_is_said_of_holds() -> None:
    over = HoldFact(1, "Over.", NOW - 9 * DAY, NOW - 8 * DAY)
    got = ask(case(holds=(over,)), "hold")
    assert (got.outcome, got.sentence) == (Outcome.PASSED, "No hold is active.")
    got = ask(case(holds=(over, HoldFact(2, "Harm.", NOW, None))), "hold")
    assert (got.outcome, got.measured, got.sentence) == (
        Outcome.FAILED,
        "1 active",
        "On hold (2): Harm.",
    )


APPROVAL = ApprovalFact("p", "P", HASH, True, False, frozenset({"reviewer"}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"request_hash": OTHER}, "earlier edition"),
        ({"person_id": "requester"}, "opened this request"),
        ({"person_id": "author"}, "author of evidence evd_1"),
        ({"human": False}, "not a person"),
        ({"disabled": True}, "disabled"),
        ({"roles": frozenset({"owner"})}, "does not hold the role reviewer"),
    ],
)
def test_why_an_approval_does_not_count(change: dict[str, Any], said: str) -> None:
    assert why_not_counted(case(), APPROVAL) is None
    assert said in str(why_not_counted(case(), replace(APPROVAL, **change)))


# --- judgements ----------------------------------------------------------------------------------

UNSURE: dict[str, Any] = {"evidence": (piece(conditions={}),)}
YES = JudgementFact(
    gate="d",
    request_hash=HASH,
    person_id="judge",
    passed=True,
    reason="It was top-k 40 after all.",
    human=True,
    disabled=False,
    entitled=True,
)


def test_an_inconclusive_gate_is_settled_by_one_judgement() -> None:
    asked = detect(**UNSURE)
    assert (asked.outcome, asked.judgement) == (Outcome.INCONCLUSIVE, None)
    facts = case(GateSpec("d", "evidence", OPTIONS), **UNSURE)
    (blocker,) = blockers(facts)
    assert blocker.code == "gate.evidence"
    assert blocker.sentence == (
        "d: Evidence leaves a condition unsaid: evd_1. It waits for one recorded judgement."
    )
    yes = detect(**UNSURE, judgements=(YES,))
    assert (yes.outcome, yes.found, yes.judgement) == (Outcome.PASSED, Outcome.INCONCLUSIVE, YES)
    assert yes.sentence.endswith("Judged yes: It was top-k 40 after all.")
    no = detect(**UNSURE, judgements=(replace(YES, passed=False),))
    assert (no.outcome, no.found) == (Outcome.FAILED, Outcome.INCONCLUSIVE)
    assert "Judged no" in no.sentence


@pytest.mark.parametrize(
    "broken",
    [
        replace(YES, gate="other"),
        replace(YES, request_hash=OTHER),
        replace(YES, person_id="requester"),
        replace(YES, person_id="author"),
        replace(YES, human=False),
        replace(YES, disabled=True),
        replace(YES, entitled=False),
    ],
)
def test_whose_judgement_does_not_count(broken: JudgementFact) -> None:
    assert detect(**UNSURE, judgements=(broken,)).outcome is Outcome.INCONCLUSIVE


def test_a_judgement_settles_nothing_but_inconclusive_gates() -> None:
    for change in ({"value": 1.0}, {"state": "retracted"}, {"value": math.nan}):
        evidence = (piece(**change),)
        got = detect(evidence=evidence, judgements=(YES,))
        assert got.outcome is detect(evidence=evidence).outcome
        assert not got.passed


# --- waivers -------------------------------------------------------------------------------------


def signer(person: str, **change: Any) -> SignerFact:
    return replace(SignerFact(person, person.upper(), True, False, True), **change)


WAIVER = WaiverFact(
    "wvr_1",
    "public",
    "d",
    "The lab is closed.",
    NOW,
    NOW + SECOND,
    (signer("s"), signer("t")),
)
FAILING: dict[str, Any] = {"evidence": (piece(value=1.0),)}


@pytest.mark.parametrize(
    "facts",
    [
        FAILING,
        UNSURE,
        {"evidence": ()},
        {"evidence": (piece(valid_until=NOW),)},
        {"evidence": (piece(value=math.nan),)},
        {**UNSURE, "judgements": (replace(YES, passed=False),)},
    ],
)
def test_a_waiver_lets_through_what_would_not_pass_and_hides_nothing(
    facts: dict[str, Any],
) -> None:
    without = detect(**facts)
    got = detect(**facts, waivers=(WAIVER,))
    assert (got.outcome, got.passed, got.waiver, got.verdict) == (
        Outcome.WAIVED,
        True,
        WAIVER,
        "waived",
    )
    assert got.found is without.found
    assert got.evidence == without.evidence
    assert got.sentence.startswith("Waived by S and T until 2 March 2026, 09:00 UTC: The lab")
    assert without.sentence in got.sentence


def test_what_passes_needs_no_waiver() -> None:
    got = detect(waivers=(WAIVER,))
    assert (got.outcome, got.waiver) == (Outcome.PASSED, None)


NO_WAIVER: dict[str, WaiverFact] = {
    "ended": replace(WAIVER, until=NOW),
    "not yet in force": replace(WAIVER, since=NOW + SECOND, until=NOW + DAY),
    "another stage": replace(WAIVER, stage="partner"),
    "another gate": replace(WAIVER, gate="e"),
    "one signer": replace(WAIVER, signers=(signer("s"),)),
    "the same twice": replace(WAIVER, signers=(signer("s"), signer("s"))),
    "the requester": replace(WAIVER, signers=(signer("s"), signer("requester"))),
    "a machine": replace(WAIVER, signers=(signer("s"), signer("t", human=False))),
    "a disabled account": replace(WAIVER, signers=(signer("s"), signer("t", disabled=True))),
    "no role any more": replace(WAIVER, signers=(signer("s"), signer("t", entitled=False))),
}


@pytest.mark.parametrize("name", NO_WAIVER)
def test_a_waiver_with_one_thing_broken_waives_nothing(name: str) -> None:
    broken = NO_WAIVER[name]
    got = detect(**FAILING, waivers=(broken,))
    assert (got.outcome, got.waiver) == (Outcome.FAILED, None)
    assert detect(**FAILING, waivers=(broken, WAIVER)).outcome is Outcome.WAIVED
    assert WAIVER_SIGNERS == 2


@pytest.mark.parametrize("key", STANDING)
def test_no_waiver_opens_a_gate_every_stage_has(key: str) -> None:
    """Quorum, hold, incident, dwell and dates are not a plan's to give away."""
    shut = case(
        approvals=(),
        holds=(HoldFact(1, "x", NOW - DAY, None),),
        incidents=(IncidentFact(1, "high"),),
        scheduled_for=NOW + DAY,
        first_served_at=None,
        waivers=(replace(WAIVER, gate=key),),
    )
    shut = replace(shut, target=replace(shut.target, minimum_dwell=DAY))
    got = ask(shut, key)
    assert not got.passed
    assert not got.waivable
    assert got.waiver is None


# --- the set -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduled_for", [None, NOW + DAY])
def test_a_rule_is_the_same_whatever_is_known(scheduled_for: datetime | None) -> None:
    gates = (
        GateSpec("measured", "evidence", OPTIONS),
        GateSpec("fresh", "freshness", FRESH),
        GateSpec("served", "served", {"at_least": 2}),
        GateSpec("signed", "signed", {"keys": ("key_1",)}),
        GateSpec("locked", "card_locked", {}),
        GateSpec("asked", "coordination", WINDOW),
        GateSpec("read", "manual", {"question": "Did somebody else read the card"}),
        GateSpec("other", "unheard-of", {}),
    )
    known = case(
        *gates,
        holds=(HoldFact(1, "A leak", NOW - DAY, None),),
        completed=3,
        card_locked_at=NOW - DAY,
        coordination=(CONTACT,),
        scheduled_for=scheduled_for,
    )
    target = replace(known.target, minimum_dwell=30 * DAY)
    rules = rules_of(
        target, from_stage="partner", kind="weights", at=NOW - 9 * DAY, scheduled_for=scheduled_for
    )
    assert rules == {result.key: result.rule for result in evaluate(replace(known, target=target))}
    assert len(rules) == len(STANDING) + len(gates)


def test_standing_gates_are_exactly_those_no_plan_lists_and_no_waiver_opens() -> None:
    assert tuple(k for k, gate in KINDS.items() if not gate.listed) == STANDING
    assert tuple(k for k, gate in KINDS.items() if not gate.waivable) == STANDING
    for kind, gate in KINDS.items():
        assert gate.kind == kind
        assert not (set(STANDING) & {kind}) or not gate.options


def test_a_gate_of_other_artifacts_is_not_asked() -> None:
    stage = Stage(
        "public",
        "everyone",
        gates=(
            GateSpec("w", "card_locked", {}, ("weights", "code")),
            GateSpec("s", "card_locked", {}, ("output_dataset",)),
            GateSpec("e", "card_locked"),
        ),
    )
    for kind, keys in (("weights", "we"), ("output_dataset", "se"), ("code", "we"), ("", "wse")):
        assert [s.key for s in specs_of(stage, kind)] == [*STANDING, *keys]
        facts = replace(case(), target=stage, kind=kind)
        assert [r.key for r in evaluate(facts)] == [*STANDING, *keys]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("evidence", {"type": "detectability"}),
        ("evidence", {**OPTIONS, "at_least": "95"}),
        ("evidence", {**OPTIONS, "type": "luck"}),
        ("freshness", {**FRESH, "max_age": "soon"}),
        ("coordination", {"window": "soon"}),
        ("manual", {}),
        ("served", {"at_least": "many"}),
    ],
)
def test_options_no_reader_lets_through_are_an_error_and_never_pass(
    kind: str, options: dict[str, Any]
) -> None:
    watched = piece("evd_2", type="misuse_monitoring", metric="incidents")
    got = simple(
        kind, options, evidence=(piece(type=options.get("type", "x")), watched), completed=5
    )
    assert (got.outcome, got.passed, got.waivable) == (Outcome.ERROR, False, False)


GOOD = [
    OPTIONS,
    at_most,
    INTERVAL,
    FINDING,
    {"type": "benefit", "metric": "users", "at_least": 1, "count": 100},
    {**OPTIONS, "distinct_organisations": 20},
    {**OPTIONS, "unit": "percent"},
    {**OPTIONS, "unit": "fraction", "at_least": 0.9},
    {**FINDING, "unit": "verdict"},
]
BAD = {
    "both limits": {**OPTIONS, "at_most": 99},
    "no limit": {k: v for k, v in OPTIONS.items() if k != "at_least"},
    "limit and verdict": {**FINDING, "at_most": 1},
    "infinite": {**OPTIONS, "at_least": math.inf},
    "not a number": {**at_most, "at_most": math.nan},
    "no such type": {**OPTIONS, "type": "luck"},
    "no such metric": {**OPTIONS, "metric": "luck"},
    "no such verdict": {**FINDING, "verdict": "fine"},
    "unjudged verdict": {**FINDING, "verdict": UNJUDGED[0]},
    "number of a finding": {"type": "credibility", "metric": "finding", "at_most": 1},
    "verdict of a number": {"type": "benefit", "metric": "users", "verdict": "no_benefit_seen"},
    "no such condition": {**OPTIONS, "conditions": {"weather": "fair"}},
    "another unit": {**OPTIONS, "unit": "count"},
    "unit of another metric": {**OPTIONS, "metric": "auroc", "unit": "percent"},
    "unit of a number": {**FINDING, "unit": "percent"},
    "half a piece": {**OPTIONS, "count": 1.5},
    "no piece": {**OPTIONS, "count": 0},
    "too many pieces": {**OPTIONS, "count": 101},
    "no organisation": {**OPTIONS, "distinct_organisations": 0},
    "too many organisations": {**OPTIONS, "distinct_organisations": 21},
}


@pytest.mark.parametrize("options", GOOD)
def test_options_that_fit_together(options: dict[str, Any]) -> None:
    assert KINDS["evidence"].wrong(options) is None


@pytest.mark.parametrize("name", BAD)
def test_options_that_do_not_fit_together_are_named(name: str) -> None:
    assert KINDS["evidence"].wrong(BAD[name])


@pytest.mark.parametrize(
    ("kind", "options", "good"),
    [
        ("served", {"at_least": 1}, True),
        ("served", {"at_least": 10_000}, True),
        ("served", {}, True),
        ("served", {"at_least": 0}, False),
        ("served", {"at_least": 10_001}, False),
        ("served", {"at_least": 1.0}, False),
        ("coordination", {"window": "P1D", "at_least": 0}, True),
        ("coordination", {"window": "P1D", "at_least": 100}, True),
        ("coordination", {"window": "P1D"}, True),
        ("coordination", {"window": "P1D", "at_least": -1}, False),
        ("coordination", {"window": "P1D", "at_least": 101}, False),
        ("coordination", {"window": "P1D", "at_least": 1.5}, False),
        ("signed", {}, True),
        ("manual", {"question": "?"}, True),
    ],
)
def test_numbers_within_their_range(kind: str, options: dict[str, Any], good: bool) -> None:
    assert (KINDS[kind].wrong(options) is None) == good


def test_what_a_plan_must_say_and_what_it_may_leave_out() -> None:
    required = {k: {n for n, o in g.options.items() if o.required} for k, g in KINDS.items()}
    assert {k: names for k, names in required.items() if names} == {
        "evidence": {"type", "metric"},
        "freshness": {"type", "max_age"},
        "coordination": {"window"},
        "manual": {"question"},
    }
    defaults = {
        (kind, name): option.default
        for kind, gate in KINDS.items()
        for name, option in gate.options.items()
        if option.default is not None
    }
    assert defaults == {
        ("evidence", "count"): 1,
        ("evidence", "judged_by"): "value",
        ("served", "at_least"): 1,
        ("coordination", "at_least"): 0,
    }


def test_every_kind_says_what_its_options_mean() -> None:
    for gate in KINDS.values():
        assert type(gate).__doc__
        for option in gate.options.values():
            assert option.meaning
            assert (option.kind == "choice") == bool(option.choices)
            assert not (option.required and option.default is not None)


# --- when time alone opens a gate ----------------------------------------------------------------


@FEWER
@given(st.timedeltas(timedelta(0), 50 * DAY), st.timedeltas(timedelta(0), 50 * DAY))
def test_due_is_when_dwell_passes(entered: timedelta, served: timedelta) -> None:
    facts = case(entered_at=NOW - entered, first_served_at=NOW - served)
    facts = replace(facts, target=replace(facts.target, minimum_dwell=30 * DAY))
    got = ask(facts, "dwell")
    if got.passed:
        assert got.due is None
        return
    assert got.due == NOW - min(entered, served) + 30 * DAY
    assert ask(replace(facts, at=got.due), "dwell").passed
    assert not ask(replace(facts, at=got.due - SECOND), "dwell").passed
    held = replace(facts, holds=(HoldFact(1, "x", NOW, None),))
    assert ask(held, "dwell").due is None


@FEWER
@given(st.timedeltas(timedelta(0), 50 * DAY), st.timedeltas(timedelta(0), 50 * DAY))
def test_time_in_which_nobody_could_fetch_is_taken_off(served: timedelta, gap: timedelta) -> None:
    gap = min(served, gap)
    facts = case(first_served_at=NOW - served)
    facts = replace(facts, target=replace(facts.target, minimum_dwell=30 * DAY))
    over = replace(facts, gaps=(GapFact(NOW - served, NOW - served + gap),))
    got = ask(over, "dwell")
    assert got.passed == (served - gap >= 30 * DAY)
    assert got.due == (None if got.passed else NOW + 30 * DAY - (served - gap))
    held = replace(over, holds=(HoldFact(1, "x", NOW - served, NOW - served + gap),))
    assert ask(held, "dwell") == got, "what lies under both is taken off once"
    still = ask(replace(facts, gaps=(GapFact(NOW - gap, None),)), "dwell")
    assert (still.passed, still.measured) == (got.passed, got.measured)
    if not still.passed:
        assert still.due is None
        assert still.sentence.endswith("to go. Nobody can fetch now, so no time is counted.")
        assert "Nobody" not in got.sentence


def test_due_of_a_date_is_the_date() -> None:
    got = ask(case(scheduled_for=NOW + DAY), "not_before")
    assert (got.outcome, got.due) == (Outcome.PENDING, NOW + DAY)
    assert ask(case(scheduled_for=NOW), "not_before").due is None

"""Build a caller who may download exactly, then break one thing at a time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagerelease.entitlements.rules import (
    Action,
    Decision,
    Facts,
    GrantFact,
    decide,
    governing_kind,
)

UNTIL = datetime(2027, 1, 1, tzinfo=UTC)
GRANT = GrantFact("grt_1", True, frozenset({"download"}), "active", "It is active.", UNTIL)
PARTNER = Facts(
    known=True,
    staff=False,
    scoped_out=False,
    stage="partner",
    audience="organisations",
    listed=True,
    withdrawn=False,
    agreement="model-sharing",
    holds=(),
    grants=(GRANT,),
)


def ask(facts: Facts) -> Decision:
    return decide(facts, Action.DOWNLOAD)


def test_the_case_that_passes_exactly():
    decision = ask(PARTNER)
    assert decision.allowed
    assert decision.visible
    assert (decision.reason, decision.grant_id, decision.until) == ("grant", "grt_1", UNTIL)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "delivered to partner organisations after signing the agreement 'model-sharing', and"),
        ({"agreement": None}, "delivered to partner organisations, and you hold no grant"),
        ({"audience": "people"}, "delivered to admitted researchers after signing"),
        ({"audience": "staff"}, "delivered to staff after signing"),
    ],
)
def test_who_may_have_it_and_after_what_is_said(changes, words):
    assert words in ask(replace(PARTNER, grants=(), **changes)).sentence


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"grants": ()}, "no-grant"),
        ({"grants": (), "known": False}, "anonymous"),
        ({"grants": (replace(GRANT, active=False, reason="grant.expired"),)}, "grant.expired"),
        ({"grants": (replace(GRANT, permissions=frozenset({"infer"})),)}, "grant.permission"),
        ({"holds": ("a reason.",)}, "held"),
        ({"withdrawn": True}, "withdrawn"),
        ({"scoped_out": True}, "token.scope"),
        ({"grants": (), "pending_request": True}, "request.pending"),
        ({"grants": (), "rejected_reason": "no."}, "request.rejected"),
    ],
)
def test_breaking_one_thing_refuses_with_its_own_reason_and_a_next_step(broken, reason):
    decision = ask(replace(PARTNER, **broken))
    assert not decision.allowed
    assert decision.visible  # of what is listed, everybody may be told why
    assert decision.reason == reason
    assert decision.sentence
    assert decision.next_step


def test_what_is_not_listed_does_not_exist_for_those_without_a_grant():
    internal = replace(PARTNER, stage="internal", audience="staff", listed=False, grants=())
    decision = ask(internal)
    assert (decision.allowed, decision.visible, decision.sentence) == (False, False, "")
    assert ask(replace(internal, staff=True)).allowed


def test_a_public_release_needs_nobody_and_stops_for_a_hold():
    public = replace(
        PARTNER, stage="public", audience="everyone", known=False, grants=(), scoped_out=False
    )
    assert ask(public).reason == "public"
    assert ask(replace(public, holds=("x",))).reason == "held"
    assert ask(replace(public, withdrawn=True)).reason == "withdrawn"


INFER = frozenset({"infer"})


def test_a_stage_offers_use_before_files_to_everyone():
    """What the stage gives decides for the public; staff are not bound by it."""
    public = replace(PARTNER, stage="public", audience="everyone", known=False, grants=())
    use_only = replace(public, gives=INFER)
    assert decide(use_only, Action.INFER).reason == "public"
    refused = decide(use_only, Action.DOWNLOAD)
    assert (refused.allowed, refused.visible, refused.reason) == (False, True, "stage.permission")
    assert "offered for infer, not for download" in refused.sentence
    assert refused.next_step
    assert decide(replace(use_only, gives=frozenset({"download"})), Action.INFER).allowed is False
    assert decide(replace(use_only, known=True, staff=True), Action.DOWNLOAD).reason == "staff"


def test_a_grant_never_exceeds_what_its_own_stage_gives():
    both = frozenset({"download", "infer"})
    narrow = replace(PARTNER, grants=(replace(GRANT, permissions=both, gives=INFER),))
    assert decide(narrow, Action.INFER).grant_id == "grt_1"
    refused = decide(narrow, Action.DOWNLOAD)
    assert (refused.allowed, refused.reason) == (False, "stage.permission")
    other = replace(GRANT, id="grt_2", permissions=both)
    assert decide(replace(narrow, grants=(*narrow.grants, other)), Action.DOWNLOAD).allowed


def test_a_grant_of_a_lower_stage_still_counts_where_everyone_may_only_use():
    public = replace(PARTNER, stage="public", audience="everyone", gives=INFER)
    assert decide(public, Action.DOWNLOAD).reason == "grant"
    assert decide(public, Action.INFER).reason == "public"


def test_the_grant_that_lasts_longest_is_used():
    later = replace(GRANT, id="grt_2", until=datetime(2028, 1, 1, tzinfo=UTC))
    assert ask(replace(PARTNER, grants=(GRANT, later))).grant_id == "grt_2"
    endless = replace(GRANT, id="grt_3", until=None)
    assert ask(replace(PARTNER, grants=(endless, later))).grant_id == "grt_3"


facts = st.builds(
    Facts,
    known=st.booleans(),
    staff=st.booleans(),
    scoped_out=st.booleans(),
    stage=st.sampled_from([None, "internal", "partner", "researcher", "public"]),
    audience=st.sampled_from(["staff", "organisations", "people", "everyone"]),
    listed=st.booleans(),
    withdrawn=st.booleans(),
    agreement=st.none() | st.just("model-sharing"),
    holds=st.just(()) | st.just(("held",)),
    grants=st.lists(
        st.builds(
            GrantFact,
            id=st.just("g"),
            active=st.booleans(),
            permissions=st.frozensets(st.sampled_from(["download", "infer"])),
            reason=st.just("grant.suspended"),
            sentence=st.just("It is suspended."),
            until=st.none() | st.just(UNTIL),
            gives=st.frozensets(st.sampled_from(["download", "infer"])),
        ),
        max_size=3,
    ).map(tuple),
    pending_request=st.booleans(),
    rejected_reason=st.none() | st.just("no"),
    gives=st.frozensets(st.sampled_from(["download", "infer"])),
)


@given(facts, st.sampled_from(Action))
def test_nothing_is_ever_allowed_without_a_ground_for_it(f, action):
    decision = decide(f, action)
    if decision.allowed:
        assert decision.visible
        assert not f.withdrawn
        assert not f.holds
        assert (
            (f.stage is not None and f.audience == "everyone" and action in f.gives)
            or (f.staff and not f.scoped_out)
            or any(g.active and action in g.permissions & g.gives for g in f.grants)
        )
    elif decision.visible:
        assert decision.sentence
        assert decision.next_step
    else:
        assert decision.sentence == ""  # nothing is told about what may not be known


@pytest.mark.parametrize(
    ("kind", "tracked", "governed_by"),
    [
        ("weights", {"weights"}, "weights"),
        ("tokenizer", {"weights"}, "weights"),
        ("tokenizer", {"weights", "tokenizer"}, "tokenizer"),
        ("weights", {"tokenizer"}, None),
        ("weights", {"output_dataset"}, None),
        ("detector", {"weights"}, None),
        ("code", {"output_dataset"}, "output_dataset"),
        ("code", {"tokenizer"}, None),
        ("model_card", set(), None),
    ],
)
def test_opening_one_kind_never_opens_another(kind, tracked, governed_by):
    assert governing_kind(kind, tracked) == governed_by


@given(
    st.sampled_from(["weights", "output_dataset", "detector"]),
    st.frozensets(
        st.sampled_from(["weights", "tokenizer", "model_card", "code", "output_dataset"])
    ),
)
def test_what_is_released_for_itself_is_governed_by_itself_or_by_nothing(kind, tracked):
    assert governing_kind(kind, tracked) == (kind if kind in tracked else None)

"""When a grant counts. The method: build a grant that is exactly active, break one thing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagerelease.access import forms
from stagerelease.access import rules as access
from stagerelease.kernel.errors import Conflict, Invalid
from stagerelease.partners import duo, rules
from stagerelease.partners.rules import GrantStanding, GrantState
from stagerelease.partners.texts import SHIPPED, shipped_text
from stagerelease.releases.ladder import Plan, Stage

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
TICK = timedelta(microseconds=1)
spans = st.timedeltas(min_value=TICK, max_value=timedelta(days=4000))
ends = st.none() | spans.map(lambda span: NOW + span)


@st.composite
def exactly_active(draw) -> GrantStanding:
    """A grant that counts at NOW, each of its ends as near as one microsecond."""
    audience = draw(st.integers(1, 5))
    return GrantStanding(
        at=NOW,
        state="active",
        suspended_for=None,
        valid_from=NOW - draw(st.just(timedelta(0)) | spans),
        valid_until=NOW + draw(spans),
        signature_state="in_force",
        signature_until=draw(ends),
        agreement_version_state=draw(st.sampled_from(["in_force", "superseded"])),
        audience_rank=audience,
        stage_rank=draw(st.integers(audience, 6)),
        withdrawn=False,
        membership_until=draw(ends),
        token_until=draw(ends),
        reconsent_until=draw(ends),
    )


ago = st.just(timedelta(0)) | spans
BREAKS = {
    "withdrawn": lambda s, _: (replace(s, withdrawn=True), "grant.withdrawn"),
    "pending": lambda s, _: (replace(s, state="pending"), "grant.pending"),
    "suspended": lambda s, _: (
        replace(s, state="suspended", suspended_for="decision"),
        "grant.suspended",
    ),
    "expired": lambda s, _: (replace(s, state="expired"), "grant.expired"),
    "revoked": lambda s, _: (replace(s, state="revoked"), "grant.revoked"),
    "an unknown state": lambda s, _: (replace(s, state="ACTIVE"), "grant.unknown"),
    "not begun": lambda s, d: (
        replace(s, valid_from=NOW + max(d, TICK), valid_until=NOW + max(d, TICK) + TICK),
        "grant.not-yet",
    ),
    "over": lambda s, d: (
        replace(s, valid_until=NOW - d, valid_from=NOW - d - TICK),
        "grant.expired",
    ),
    "signature pending": lambda s, _: (replace(s, signature_state="pending"), "signature.pending"),
    "signature superseded": lambda s, _: (
        replace(s, signature_state="superseded"),
        "signature.superseded",
    ),
    "signature terminated": lambda s, _: (
        replace(s, signature_state="terminated"),
        "signature.terminated",
    ),
    "signature expired": lambda s, _: (replace(s, signature_state="expired"), "signature.expired"),
    "signature over": lambda s, d: (replace(s, signature_until=NOW - d), "signature.expired"),
    "not signed again": lambda s, d: (
        replace(s, reconsent_until=NOW - d, agreement_version_state="superseded"),
        "agreement.changed",
    ),
    "version draft": lambda s, _: (
        replace(s, agreement_version_state="draft"),
        "agreement.draft",
    ),
    "version retired": lambda s, _: (
        replace(s, agreement_version_state="retired"),
        "agreement.retired",
    ),
    "stage below": lambda s, _: (replace(s, stage_rank=s.audience_rank - 1), "grant.audience"),
    "no such stage": lambda s, _: (replace(s, audience_rank=None), "grant.audience"),
    "membership over": lambda s, d: (replace(s, membership_until=NOW - d), "membership.ended"),
    "token over": lambda s, d: (replace(s, token_until=NOW - d), "token.expired"),
}


@given(exactly_active())
def test_a_grant_with_everything_in_order_counts_until_the_earliest_of_its_ends(standing):
    answer = rules.is_active(standing)
    assert answer.active
    assert answer.reason == "grant"
    known = [
        end
        for end in (
            standing.valid_until,
            standing.signature_until,
            standing.membership_until,
            standing.token_until,
            standing.reconsent_until,
        )
        if end is not None
    ]
    assert answer.until == min(known)
    assert answer.until > NOW


@pytest.mark.parametrize("what", BREAKS)
@given(standing=exactly_active(), since=ago)
def test_one_thing_amiss_is_enough_and_is_the_reason(what, standing, since):
    broken, reason = BREAKS[what](standing, since)
    answer = rules.is_active(broken)
    assert not answer.active
    assert answer.reason == reason
    assert answer.sentence.endswith(".")
    assert answer.until is None


@given(exactly_active())
def test_the_answer_flips_exactly_at_its_own_end(standing):
    until = rules.is_active(standing).until
    assert until is not None
    assert rules.is_active(replace(standing, at=until - TICK)).active
    assert not rules.is_active(replace(standing, at=until)).active


@given(st.lists(ends))
def test_the_effective_end_is_none_of_the_later_ones(given_ends):
    end = rules.effective_end(*given_ends)
    known = [e for e in given_ends if e is not None]
    assert (end is None) == (not known)
    assert end is None or (end in known and all(end <= e for e in known))


# --- the tables of moves -------------------------------------------------------------------------


def test_the_moves_of_a_grant_are_those_of_the_domain():
    moves = {(a.value, b.value) for a, to in rules.GRANT_MOVES.items() for b in to}
    assert moves == {
        ("pending", "active"),
        ("pending", "expired"),
        ("pending", "revoked"),
        ("active", "suspended"),
        ("suspended", "active"),
        ("active", "expired"),
        ("active", "revoked"),
        ("suspended", "expired"),
        ("suspended", "revoked"),
    }


@pytest.mark.parametrize("state", list(GrantState))
@pytest.mark.parametrize("to", list(GrantState))
def test_a_move_that_is_not_in_the_table_is_refused(state, to):
    if to in rules.GRANT_MOVES[state]:
        rules.check_grant_move(state, to)
    else:
        with pytest.raises(Conflict) as refused:
            rules.check_grant_move(state, to)
        assert refused.value.reason == f"grant.{state}"


@pytest.mark.parametrize("state", list(GrantState))
def test_what_has_ended_is_followed_by_a_new_grant_and_what_has_not_by_a_look(state):
    with pytest.raises(Conflict) as refused:
        rules.check_grant_move(state, GrantState.PENDING)  # nothing ever leads back there
    ended = state in (GrantState.EXPIRED, GrantState.REVOKED)
    assert ("new grant" in refused.value.next_step) == ended


def test_lifting_takes_two_and_the_times_are_those_that_people_were_told():
    assert rules.RESUME_CONSENTS == 2
    assert timedelta(days=30) == rules.RECONSENT_WITHIN
    assert timedelta(days=366) == rules.LONGEST_RECONSENT
    assert timedelta(days=2 * 365 + 1) == rules.LONGEST_GRANT
    assert (rules.MAX_PURPOSE, rules.MAX_AGREEMENT) == (2_000, 200_000)


def test_ended_signatures_and_retired_versions_stay_so():
    assert rules.SIGNATURE_MOVES[rules.SignatureState.TERMINATED] == frozenset()
    assert rules.SIGNATURE_MOVES[rules.SignatureState.SUPERSEDED] == frozenset()
    assert rules.SIGNATURE_MOVES[rules.SignatureState.PENDING] == {
        *("in_force", "superseded", "terminated", "expired")
    }
    assert rules.VERSION_MOVES[rules.VersionState.RETIRED] == frozenset()
    assert rules.VERSION_MOVES[rules.VersionState.DRAFT] == {rules.VersionState.IN_FORCE}


# --- issuing -------------------------------------------------------------------------------------

LADDER = Plan(
    slug="p",
    title="P",
    ladder=(
        Stage("internal", "staff", listed=False),
        Stage("partner", "organisations", agreement="model-sharing"),
        Stage("labs", "people", agreement="lab-terms"),
        Stage("researcher", "people", agreement="researcher-terms"),
        Stage("public", "everyone"),
    ),
)
NAMES = [stage.name for stage in LADDER.ladder]


@given(st.sampled_from(NAMES), st.sampled_from(["organisations", "people", "staff", "everyone"]))
def test_nobody_is_let_in_above_the_stage_reached_nor_where_nobody_signs(at, kind):
    for stage in rules.admitting_stages(LADDER, at, kind):
        assert stage.audience == kind
        assert stage.agreement is not None
        assert LADDER.rank(stage.name) <= LADDER.rank(at)
    if kind in ("staff", "everyone"):
        assert rules.admitting_stages(LADDER, at, kind) == ()


def test_the_lowest_stage_that_lets_a_grantee_in_comes_first():
    assert [s.name for s in rules.admitting_stages(LADDER, "public", "people")] == [
        "labs",
        "researcher",
    ]
    assert rules.admitting_stages(LADDER, "partner", "people") == ()
    for stage in ("withdrawn", "nowhere"):
        for kind in ("organisations", "people"):
            assert rules.admitting_stages(LADDER, stage, kind) == ()


@pytest.mark.parametrize(
    ("stage", "named", "code", "words"),
    [
        ("withdrawn", None, "withdrawn", "was withdrawn"),
        ("withdrawn", "partner", "withdrawn", "was withdrawn"),
        ("internal", "partner", "grant.audience", "'partner' is not a stage"),
        ("internal", None, "grant.audience", "no stage up to that"),
    ],
)
def test_why_nobody_is_let_in_is_said(stage, named, code, words):
    blocker = rules.no_stage_blocker(stage, "people", named)
    assert blocker.code == code
    assert words in blocker.sentence


@pytest.mark.parametrize("slug", ["a", "0", "model-sharing", "a_b", "x" * 32])
def test_an_agreement_is_named_by_what_a_plan_can_write(slug):
    assert rules.check_slug(slug) == slug


@pytest.mark.parametrize("slug", ["", "-a", "_a", "A", "a b", "a\n", "é", "x" * 33])
def test_other_names_of_agreements_are_refused(slug):
    with pytest.raises(Invalid):
        rules.check_slug(slug)


def test_permissions_are_some_of_what_the_stage_gives():
    stage = Stage("s", "people", agreement="a", permissions=frozenset({"download"}))
    assert rules.check_permissions(["download"], stage) == ["download"]
    for wrong in ([], ["infer"], ["download", "infer"]):
        with pytest.raises(Invalid):
            rules.check_permissions(wrong, stage)


@given(st.timedeltas(timedelta(days=-1000), timedelta(days=1000)))
def test_a_grant_ends_after_now_and_within_two_years(span):
    fits = timedelta(0) < span <= rules.LONGEST_GRANT
    if fits:
        rules.check_dates(NOW, NOW + span)
    else:
        with pytest.raises(Invalid):
            rules.check_dates(NOW, NOW + span)
    with pytest.raises(Invalid):
        rules.check_dates(NOW, (NOW + span).replace(tzinfo=None))


# --- texts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("slug", SHIPPED)
def test_shipped_texts_say_what_they_are_and_what_revocation_cannot_do(slug):
    text = shipped_text(slug)
    words = " ".join(text.replace(">", " ").replace("*", "").split())
    assert "Template." in words
    assert "not legal advice" in words
    assert "destroy every copy" in words or "destroys every copy" in words
    assert "does not, and cannot, remove files that are already on" in words
    assert rules.normal_text(text) == text, "its sha256 must be that of the file"


def test_only_shipped_texts_are_read():
    with pytest.raises(KeyError):
        shipped_text("../rules")


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=50))
def test_a_normal_text_stays_as_it_is(text):
    text = f"# {text}\r\nlast"
    once = rules.normal_text(text)
    assert rules.normal_text(once) == once
    assert once.endswith("\n")
    assert "\r" not in once


@pytest.mark.parametrize(
    "text",
    ["a b", "a\tb\nc", "a\x7eb", "a\xa0b", "a\ud7ffb", "a\ue000b", "x" * 200_000],
)
def test_texts_up_to_every_limit_are_kept(text):
    assert rules.normal_text(text) == text + "\n"


CONTROLS = ["a\x00b", "a\x1bb", "a\x1fb", "a\x7fb", "a\x9fb", "a\ud800b", "a\udfffb"]


@pytest.mark.parametrize("text", ["", " \n ", *CONTROLS, "x" * 200_001])
def test_texts_that_cannot_be_kept_are_refused(text):
    with pytest.raises(Invalid):
        rules.normal_text(text)


# --- access requests -----------------------------------------------------------------------------


@given(st.sampled_from(list(access.State)), st.sampled_from([None, *GrantState]))
def test_a_request_is_accepted_only_while_its_grant_lives(state, grant):
    status = access.status_of(state, grant)
    if status is access.Status.ACCEPTED:
        assert state == access.State.APPROVED
        assert grant in rules.LIVE
    if state in access.OPEN:
        assert status is access.Status.PENDING


def test_a_withdrawn_request_leads_nowhere():
    assert access.MOVES[access.State.WITHDRAWN] == frozenset()
    for to in access.State:
        with pytest.raises(Conflict):
            access.check_move("withdrawn", to, status=access.Status.WITHDRAWN)


@given(st.timedeltas(timedelta(days=-40), timedelta(days=40)))
def test_a_rejected_applicant_waits_for_the_date_they_were_told(span):
    if span > timedelta(0):
        with pytest.raises(Conflict) as refused:
            access.check_may_reapply(NOW, reason="No purpose.", may_reapply_after=NOW + span)
        assert refused.value.reason == "access.rejected"
        assert "No purpose." in refused.value.sentence
    else:
        access.check_may_reapply(NOW, reason="No purpose.", may_reapply_after=NOW + span)


@pytest.mark.parametrize(
    "answers",
    [
        {str(n): "x" for n in range(21)},
        {"a": "x" * 2001},
        {"": "x"},
        {"n" * 101: "x"},
        {"a": "x\x00"},
        {"a\nb": "x"},
    ],
)
def test_answers_beyond_the_limits_are_refused(answers):
    with pytest.raises(Invalid):
        access.check_answers(answers)


def test_answers_at_the_limits_are_kept():
    answers = {f"{n:0100}": "é" * 2000 for n in range(20)}
    assert access.check_answers(answers) == answers


# --- Data Use Ontology codes ---------------------------------------------------------------------


@given(st.lists(st.sampled_from(sorted(duo.DUO_CODES)), max_size=duo.MAX_CODES))
def test_known_codes_pass_in_order_unless_two_contradict(codes):
    contradicting = any(pair <= set(codes) for pair in duo.CONTRADICTIONS)
    if contradicting:
        with pytest.raises(Invalid):
            duo.check_duo(codes)
        return
    assert duo.check_duo(codes) == sorted(set(codes))
    assert [one.code for one in duo.uses(sorted(set(codes)))] == sorted(set(codes))


@pytest.mark.parametrize("codes", [["NCX"], ["ncu"], ["NCU", ""], ["NCU"] * 21, ["NRES", "NCU"]])
def test_codes_that_are_unknown_too_many_or_contradict_are_refused(codes):
    with pytest.raises(Invalid) as caught:
        duo.check_duo(codes)
    assert caught.value.reason == "agreement.duo"


def test_each_code_has_a_term_of_its_own_and_the_ones_we_ask_for_are_there():
    terms = [one.term for one in duo.DUO_CODES.values()]
    assert len(set(terms)) == len(terms) == 23
    ncu = duo.DUO_CODES["NCU"]
    assert (ncu.term, ncu.label, ncu.modifier) == ("DUO:0000046", "non-commercial use only", True)
    assert set(forms.PURPOSES) < set(duo.DUO_CODES)  # applicants choose from the same table

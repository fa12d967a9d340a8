"""Evidence decides, people sign: gates on evidence, waivers and retraction, on a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from make_release import (
    database_url,
    leaves,
    log_size,
    make_grant,
    make_track,
    staff,
    staffed,
    stage_of,
)
from sqlalchemy import event, select, update

from stagerelease.catalog import queries as catalog
from stagerelease.catalog.tables import ManifestSignature, ModelCardLock, SigningKey
from stagerelease.downloads.tables import Download
from stagerelease.evidence import service as evidence
from stagerelease.evidence.service import NewEvidence
from stagerelease.evidence.tables import Evidence
from stagerelease.identity import service as identity
from stagerelease.incidents.tables import Incident, IncidentFamily, IncidentTrack
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import Blocked, Conflict, Forbidden, Invalid, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger.tables import LogDetail, LogLeaf
from stagerelease.partners.tables import Grant
from stagerelease.releases import queries, service
from stagerelease.releases.tables import Approval, Promotion, StageEvent, Waiver

__all__ = ["database_url", "staff", "staffed"]  # fixtures
DAY = timedelta(days=1)
REPO = "gpt2-mini/measured"
WEIGHTS = "b" * 64
PLAN = """
plan: measured
title: Measured
request_lifetime: P60D
stages:
  - {name: internal, audience: staff}
  - name: partner
    audience: organisations
    agreement: model-sharing
    gates:
      - kind: evidence
        key: detectable
        type: detectability
        metric: accuracy
        at_least: 90
        max_age: P90D
        conditions: {detector: roberta, sampler: top-k 40, text_length: 510}
  - name: public
    audience: everyone
    gates:
      - {kind: served}
      - {kind: coordination, window: P30D}
"""
CONDITIONS = {
    "detector": "roberta",
    "sampler": "top-k 40",
    "text_length": 510,
    "text_length_unit": "tokens",
    "base_rate": 0.01,
}


@pytest.fixture
def track(works):
    return make_track(works, repo_id=REPO, plan=PLAN, salt="b")


def figures(clock, **change):
    """Return evidence on how well texts of the track's weights are told from others."""
    return NewEvidence(
        **{
            "type": "detectability",
            "metric": "accuracy",
            "title": "Detection at full length",
            "subject_sha256": WEIGHTS,
            "source": "https://example.org/report",
            "fact_status": "verified",
            "measured_at": clock.now() - DAY,
            "valid_until": clock.now() + 30 * DAY,
            "value": 95.0,
            "unit": "percent",
            "conditions": CONDITIONS,
            **change,
        }
    )


def measure(staff, clock, *, who="sam", accept="sue", **change):
    """Hand evidence in as ``who`` and accept it as ``accept`` (not at all when None)."""
    with staff.begin(who) as work:
        row = evidence.hand_in(work, figures(clock, **change))
    if accept is not None:
        with staff.begin(accept) as work:
            evidence.accept(work, row.id)
    return row.id


def ask(staff, track, *, to="partner", who="mia", **options):
    with staff.begin(who) as work:
        return service.open_promotion(work, track_id=track.id, to=to, rationale="Ready.", **options)


def approve(staff, request, *reviewers):
    for who in reviewers:
        with staff.begin(who) as work:
            request = service.approve(work, request.id, request_hash=request.request_hash)
    return request


def apply(staff, request):
    with staff.begin("mia") as work:
        return service.apply(work, request.id)


def blocked(staff, request):
    with pytest.raises(Blocked) as caught:
        apply(staff, request)
    return {b.code for b in caught.value.blockers}


def page(staff, request):
    with staff.begin("aud", read_only=True) as work:
        return service.facts_page(work, request.id)


def gate(staff, request, key="detectable"):
    return next(g for g in page(staff, request).gates if g.key == key)


def reload(staff, request):
    return page(staff, request).promotion


def refused(reason, error=Forbidden):
    @contextmanager
    def check() -> Iterator[None]:
        with pytest.raises(error) as caught:
            yield
        assert caught.value.reason == reason

    return check()


# --- naming evidence -----------------------------------------------------------------------------


def test_a_request_rests_on_all_accepted_evidence_unless_told_otherwise(staff, track, clock):
    first = measure(staff, clock)
    waiting = measure(staff, clock, accept=None)
    of_another = measure(staff, clock, subject_sha256="a" * 64)  # the other track's weights
    request = ask(staff, track)
    assert request.evidence_ids == (first,)
    with staff.begin("sue") as work:
        evidence.accept(work, waiting)
    shown = page(staff, request)
    assert [(e.id, e.named, e.counts) for e in shown.evidence] == [
        (first, True, True),
        (waiting, False, False),
    ]
    assert shown.evidence[1].why == "The request does not name it."
    with staff.begin("mia") as work:
        edited = service.edit_promotion(work, request.id, evidence_ids=[waiting, first])
    assert edited.evidence_ids == tuple(sorted([first, waiting]))
    assert (edited.state, edited.request_hash == request.request_hash) == ("draft", False)
    for wrong in (of_another, "evd_none", "nul\x00"):
        with refused("evidence.unfit", Invalid), staff.begin("mia") as work:
            service.edit_promotion(work, request.id, evidence_ids=[first, wrong])
    with pytest.raises(Invalid) as caught, staff.begin("mia") as work:
        service.edit_promotion(work, request.id, evidence_ids=[waiting, first])
    assert caught.value.reason == "edit.empty"
    with refused("evidence.many", Invalid):
        ask(staff, track, evidence_ids=[f"evd_{i}" for i in range(201)])
    assert ask(staff, track, evidence_ids=[]).evidence_ids == ()


def test_evidence_not_accepted_is_not_named(staff, track, clock):
    waiting = measure(staff, clock, accept=None)
    with pytest.raises(Invalid) as caught:
        ask(staff, track, evidence_ids=[waiting])
    assert [f.field for f in caught.value.fields] == ["evidence_ids.0"]
    assert "submitted, not accepted" in caught.value.sentence
    request = ask(staff, track)
    assert request.evidence_ids == ()
    assert gate(staff, request).outcome == "pending"
    with staff.begin("sue") as work:  # and what is accepted later does not slip in
        evidence.accept(work, waiting)
    assert gate(staff, request).outcome == "pending"
    approve(staff, request, "rae", "rob")
    assert blocked(staff, request) == {"gate.evidence"}


def test_evidence_carries_a_release(works, staff, track, clock):
    named = measure(staff, clock)
    request = approve(staff, ask(staff, track), "rae", "rob")
    got = gate(staff, request)
    assert (got.outcome, got.measured, got.threshold) == (
        "passed",
        "accuracy 95 percent",
        "at least 90 percent",
    )
    assert [(use.id, use.age, use.counted) for use in got.evidence] == [(named, "1 d", True)]
    assert apply(staff, request).state == "applied"
    assert stage_of(works, track.id) == "partner"


@pytest.mark.parametrize(
    ("later", "stale"), [(29 * DAY, False), (30 * DAY, True), (89 * DAY, True)]
)
def test_evidence_ages_between_approval_and_application(staff, track, clock, later, stale):
    measure(staff, clock)
    request = approve(staff, ask(staff, track), "rae", "rob")
    clock.move(later)
    if stale:
        assert gate(staff, request).verdict == "stale"
        assert "gate.evidence" in blocked(staff, request)
    else:
        assert apply(staff, request).state == "applied"


@pytest.mark.parametrize("state", ["disputed", "superseded", "retracted"])
def test_what_is_not_accepted_any_more_counts_no_more(works, staff, track, clock, state):
    """Even when it got there by another door than the one that re-opens requests."""
    named = measure(staff, clock)
    request = approve(staff, ask(staff, track), "rae", "rob")
    if state == "superseded":
        new = measure(staff, clock, value=80.0, accept=None, who="sam")
        with works.begin(OPERATOR) as work:
            work.session.execute(
                update(Evidence).where(Evidence.id == new).values(supersedes_id=named)
            )
        with staff.begin("sue") as work:
            evidence.accept(work, new)
    else:
        with staff.begin("sue") as work:
            getattr(evidence, {"disputed": "dispute", "retracted": "retract"}[state])(
                work, named, reason="Wrong."
            )
    assert gate(staff, request).outcome == "pending"
    assert f"It is {state}" in gate(staff, request).evidence[0].why
    assert blocked(staff, request) == {"gate.evidence"}


def test_what_is_about_another_kind_of_file_says_nothing_of_this_one(works, staff, track, clock):
    """A card or a tokenizer lies beside the weights, and beside those of other variants."""
    about_card = measure(staff, clock, subject_sha256="c" * 64)  # README.md of the same revision
    assert ask(staff, track).evidence_ids == ()
    with refused("evidence.unfit", Invalid):
        ask(staff, track, evidence_ids=[about_card])
    with works.begin(OPERATOR) as work:
        manifest = catalog.load_revision(work, track.revision_id).manifest_sha256
        card = service.create_track(work, repo_id=REPO, kind="model_card", plan="measured")
    about_all = measure(staff, clock, subject_sha256=manifest)
    assert ask(staff, track).evidence_ids == (about_all,)
    assert set(ask(staff, card).evidence_ids) == {about_card, about_all}
    # A request that named it before this was asked for is held to it when it is decided on.
    request = approve(staff, ask(staff, track, evidence_ids=[about_all]), "rae", "rob")
    with works.begin(OPERATOR) as work:
        work.session.execute(
            update(Promotion).where(Promotion.id == request.id).values(evidence_ids=[about_card])
        )
    assert "which is no file of this track" in gate(staff, request).evidence[0].why
    assert blocked(staff, request) == {"gate.evidence"}


# --- superseding ---------------------------------------------------------------------------------


def supersede(staff, clock, old, *, accept="sue", **change):
    """Hand in evidence that supersedes ``old``, and accept it as staff's pages do."""
    with staff.begin("sam") as work:
        row = evidence.hand_in(work, figures(clock, **change), supersedes=old)
    with staff.begin(accept) as work:
        return service.accept_evidence(work, row.id).id


@pytest.mark.parametrize("disputed", [False, True])
def test_superseding_what_a_request_rests_on_re_opens_it(works, staff, track, clock, disputed):
    """A piece that blocks is not put out of the way by another that says worse."""
    good, bad = measure(staff, clock), measure(staff, clock, value=70.0)
    request = approve(staff, ask(staff, track, evidence_ids=[good, bad]), "rae", "rob")
    untouched = approve(staff, ask(staff, track, evidence_ids=[good]), "rae", "rob")
    assert gate(staff, request).outcome == "inconclusive"
    if disputed:
        with staff.begin("sue") as work:
            service.dispute_evidence(work, bad, reason="Wrong split.")
        request = approve(staff, reload(staff, request), "rae", "rob")
    before = log_size(works)
    worse = supersede(staff, clock, bad, value=60.0)
    now = reload(staff, request)
    assert (now.state, now.request_hash == request.request_hash) == ("in_review", False)
    assert blocked(staff, request) == {"gate.quorum"}
    assert leaves(works, before) == [
        *("evidence.drafted", "evidence.submitted"),
        *("evidence.superseded", "evidence.accepted", "promotion.reopened"),
    ]
    assert reload(staff, untouched).request_hash == untouched.request_hash
    assert worse in {e.id for e in page(staff, request).evidence if not e.named}


def test_what_ended_before_it_is_superseded_re_opens_nothing_again(staff, track, clock):
    old = measure(staff, clock)
    with staff.begin("sam") as work:
        row = evidence.hand_in(work, figures(clock), supersedes=old)
    request = approve(staff, ask(staff, track), "rae", "rob")
    with staff.begin("sue") as work:
        service.retract_evidence(work, old, reason="A bug.")
    request = reload(staff, request)
    with staff.begin("sue") as work:
        assert service.accept_evidence(work, row.id).state == "accepted"
    assert reload(staff, request).request_hash == request.request_hash


# --- who may decide ------------------------------------------------------------------------------


def test_the_page_says_since_when_each_may_decide_and_who_saw_to_it(works, staff, track, clock):
    """An owner who makes up a reviewer must not pass unseen by those who approve beside them."""
    request = ask(staff, track)
    clock.move(timedelta(days=3))
    with works.begin(OPERATOR) as work:
        identity.create_person(work, handle="own", display_name="Own")
        identity.assign_role(work, person="own", role="owner")
        _, text = identity.create_token(work, person="own", name="x")
    with works.begin() as work:
        work.actor = identity.authenticate(work, text)
        identity.create_person(work, handle="puppet", display_name="Puppet")
        identity.assign_role(work, person="puppet", role="reviewer")
        given = work.now
    deciders = {d.person: (d.since, d.given_by) for d in page(staff, request).deciders}
    assert deciders["puppet"] == (given, "own")
    assert deciders["rob"][0] < given - timedelta(days=2)
    assert deciders["rob"][1] is None


# --- authors -------------------------------------------------------------------------------------


def test_an_author_of_the_evidence_neither_approves_nor_counts(works, staff, track, clock):
    named = measure(staff, clock, who="rae", accept="rob")
    request = ask(staff, track)
    with refused("promotion.evidence-author"):
        approve(staff, request, "rae")
    assert page(staff, request).approvals == ()
    deciders = {d.person: (d.may, d.why) for d in page(staff, request).deciders}
    assert deciders["rae"] == (
        False,
        f"Its giver is an author of evidence {named}, which this request rests on.",
    )
    assert deciders["roy"] == (True, "May approve.")
    assert not deciders["bot"][0]
    request = approve(staff, request, "roy")
    # An approval that is there all the same, by whatever way, does not count.
    with works.begin(OPERATOR) as work:
        work.session.add(
            Approval(
                id=new_id("apv"),
                promotion_id=request.id,
                person_id=staff.id("rae"),
                roles=["reviewer"],
                request_hash=request.request_hash,
                verdict="approve",
                comment="",
                at=work.now,
                leaf_idx=0,
            )
        )
    assert blocked(staff, request) == {"gate.quorum"}
    assert "approval by rae does not count" in gate(staff, request, "quorum").sentence
    request = approve(staff, request, "rob")  # who accepted it wrote none of it
    assert request.state == "approved"
    deciders = {d.person: d.why for d in page(staff, request).deciders}
    assert deciders["rob"] == "Has approved this request already."
    assert apply(staff, request).state == "applied"


def test_an_author_may_still_object(staff, track, clock):
    measure(staff, clock, who="rae", accept="rob")
    request = ask(staff, track)
    with staff.begin("rae") as work:
        row = service.reject(work, request.id, request_hash=request.request_hash, comment="No.")
    assert row.state == "rejected"


# --- inconclusive --------------------------------------------------------------------------------


def judge(staff, request, who, *, passed=True, key="detectable"):
    with staff.begin(who) as work:
        return service.judge(
            work,
            request.id,
            gate=key,
            passed=passed,
            reason="They told us by letter.",
            request_hash=request.request_hash,
        )


def unsure(staff, clock, **change):
    """Two figures that contradict each other."""
    return [measure(staff, clock, **change), measure(staff, clock, value=50.0, **change)]


def test_an_inconclusive_gate_asks_one_person_once(works, staff, track, clock):
    unsure(staff, clock)
    request = ask(staff, track)
    assert gate(staff, request).outcome == "inconclusive"
    request = approve(staff, request, "rae", "rob")
    assert blocked(staff, request) == {"gate.evidence"}
    with pytest.raises(Forbidden):  # not the requester, whatever their roles
        judge(staff, request, "mia")
    with refused("gate.unknown", NotFound):
        judge(staff, request, "roy", key="quorum")
    size = log_size(works)
    judge(staff, request, "roy")
    assert leaves(works, size) == ["review.judgement"]
    got = gate(staff, request)
    assert (got.outcome, got.found) == ("passed", "inconclusive")
    for who in ("roy", "rae"):
        with refused("gate.answered", Conflict):
            judge(staff, request, who, passed=False)
    assert apply(staff, request).state == "applied"


def test_a_no_is_as_final_as_a_yes_until_the_request_changes(staff, track, clock):
    named = unsure(staff, clock)
    request = approve(staff, ask(staff, track), "rae", "rob")
    judge(staff, request, "roy", passed=False)
    assert gate(staff, request).outcome == "failed"
    with refused("gate.answered", Conflict):
        judge(staff, request, "rae")
    with staff.begin("mia") as work:
        service.edit_promotion(work, request.id, evidence_ids=named, rationale="Look again.")
        request = service.resubmit(work, request.id)
    assert gate(staff, request).outcome == "inconclusive"  # of a new hash: it asks again
    judge(staff, request, "rae")
    assert gate(staff, request).outcome == "passed"


def test_nobody_is_asked_what_is_clear(staff, track, clock):
    measure(staff, clock)
    request = ask(staff, track)
    with refused("gate.not-asked", Conflict):
        judge(staff, request, "roy", passed=False)
    assert gate(staff, request).outcome == "passed"


def test_an_author_does_not_judge_what_their_evidence_leaves_open(staff, track, clock):
    unsure(staff, clock, who="rae", accept="rob")
    request = ask(staff, track)
    with refused("promotion.evidence-author"):
        judge(staff, request, "rae")
    judge(staff, request, "rob")
    assert gate(staff, request).outcome == "passed"


# --- waivers -------------------------------------------------------------------------------------


def propose(staff, track, clock, *, who="sam", days=10, **change):
    asked = {
        "track_id": track.id,
        "stage": "partner",
        "gate": "detectable",
        "reason": "The lab is closed until May.",
        "ends_at": clock.now() + days * DAY,
        **change,
    }
    with staff.begin(who) as work:
        return service.propose_waiver(work, **asked)


def sign(staff, waiver, who):
    with staff.begin(who) as work:
        return service.sign_waiver(work, waiver.id)


def test_two_people_waive_a_gate_and_everybody_sees_it_for_ever(works, staff, track, clock):
    size = log_size(works)
    request = approve(staff, ask(staff, track), "rae", "rob")
    waiver = propose(staff, track, clock)
    assert waiver.state == "pending"
    assert gate(staff, request).outcome == "pending"
    with refused("waiver.signed", Conflict):
        sign(staff, waiver, "sam")
    waiver = sign(staff, waiver, "sue")
    assert (waiver.state, [s.person for s in waiver.signatures]) == ("in_force", ["sam", "sue"])
    with refused("waiver.in-force", Conflict):
        sign(staff, waiver, "roy")
    assert [t for t in leaves(works, size) if t.startswith("waiver")] == [
        "waiver.proposed",
        "waiver.signed",
    ]
    got = gate(staff, request)
    assert (got.outcome, got.found) == ("waived", "pending")
    assert got.sentence.startswith("Waived by sam and sue until ")
    assert apply(staff, request).state == "applied"
    with staff.begin("aud", read_only=True) as work:
        moved = service.show_track(work, track.id).events[-1]
        told = [
            job.payload["facts"]["until"]
            for job in work.session.execute(select(Job)).scalars()
            if job.payload.get("event") == "waiver.signed"
        ]
        leaf = work.session.execute(
            select(LogLeaf.body).where(LogLeaf.idx == moved.leaf_idx)
        ).scalar_one()
    (waived,) = moved.waived
    assert (waived["gate"], waived["reason"], waived["waiver"]) == (
        "detectable",
        "The lab is closed until May.",
        waiver.id,
    )
    assert json.loads(leaf)["type"] == "track.promoted"
    assert len(told) == 1
    clock.move(11 * DAY)
    shown = page(staff, request)
    assert [(w.id, w.state) for w in shown.waivers] == [(waiver.id, "ended")]
    with staff.begin("aud", read_only=True) as work:
        assert [w.id for w in service.list_waivers(work, track_id=track.id)] == [waiver.id]
        assert service.show_waiver(work, waiver.id).state == "ended"


@pytest.mark.parametrize("key", ["quorum", "hold", "no_incident", "dwell", "not_before"])
def test_some_gates_are_never_waived_and_it_says_so(staff, track, clock, key):
    with pytest.raises(Forbidden) as caught:
        propose(staff, track, clock, gate=key)
    assert caught.value.reason == "waiver.never"
    assert f"The gate {key} cannot be waived" in caught.value.sentence


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"gate": "luck"}, NotFound, "gate.unknown"),
        ({"stage": "moon"}, NotFound, "waiver.stage"),
        ({"stage": "public"}, NotFound, "gate.unknown"),
        ({"track_id": "trk_none"}, NotFound, "track.unknown"),
        ({"reason": " "}, Invalid, "text.malformed"),
        ({"days": 91}, Invalid, "waiver.range"),
        ({"days": 0}, Invalid, "waiver.range"),
    ],
)
def test_a_waiver_names_one_gate_of_one_stage_and_a_near_end(
    works, staff, track, clock, change, error, reason
):
    size = log_size(works)
    with refused(reason, error):
        propose(staff, track, clock, **change)
    assert log_size(works) == size
    assert propose(staff, track, clock, days=90).state == "pending"


def test_who_signs_a_waiver(works, staff, track, clock):
    for who in ("mia", "aud", "ola", "operator", "nia"):
        with pytest.raises(Forbidden):
            propose(staff, track, clock, who=who)
    with refused("human.needed"):
        propose(staff, track, clock, who="bot")
    ask(staff, track, who="max")  # a reviewer too, and now a requester
    with refused("waiver.requester"):
        propose(staff, track, clock, who="max")
    waiver = propose(staff, track, clock)
    with refused("waiver.requester"):
        sign(staff, waiver, "max")
    with refused("human.needed"):
        sign(staff, waiver, "bot")
    with refused("waiver.unknown", NotFound), staff.begin("sue") as work:
        service.sign_waiver(work, "nul\x00")


def test_a_requester_who_signed_before_asking_does_not_count(staff, track, clock):
    waiver = sign(staff, propose(staff, track, clock), "max")
    assert waiver.state == "in_force"
    assert gate(staff, ask(staff, track)).outcome == "waived"
    mine = approve(staff, ask(staff, track, who="max"), "rae", "rob")
    assert gate(staff, mine).outcome == "pending"
    assert blocked(staff, mine) == {"gate.evidence"}


def test_a_waiver_ends_at_its_date_inside_the_applying_transaction(staff, track, clock):
    request = approve(staff, ask(staff, track), "rae", "rob")
    sign(staff, propose(staff, track, clock, days=10), "sue")
    clock.move(10 * DAY - timedelta(milliseconds=1))
    assert gate(staff, request).outcome == "waived"
    clock.move(timedelta(milliseconds=1))
    assert blocked(staff, request) == {"gate.evidence"}
    waiver = propose(staff, track, clock)
    clock.move(10 * DAY)
    with refused("waiver.ended", Conflict):
        sign(staff, waiver, "sue")


def test_a_waiver_rests_on_its_signers_as_they_are(works, staff, track, clock):
    request = approve(staff, ask(staff, track), "rae", "rob")
    sign(staff, propose(staff, track, clock), "sue")
    assert gate(staff, request).outcome == "waived"
    with works.begin(OPERATOR) as work:
        identity.end_role(work, person="sam", role="security")
    assert gate(staff, request).outcome == "pending"
    assert blocked(staff, request) == {"gate.evidence"}
    waiver = propose(staff, track, clock, who="roy")
    with works.begin(OPERATOR) as work:
        identity.disable_person(work, "roy")
    assert sign(staff, waiver, "sue").state == "pending"  # a third is waited for
    assert sign(staff, waiver, "rob").state == "in_force"
    assert gate(staff, request).outcome == "waived"


def test_one_person_ends_a_waiver_early(works, staff, track, clock):
    request = approve(staff, ask(staff, track), "rae", "rob")
    waiver = sign(staff, propose(staff, track, clock), "sue")
    clock.move(DAY)
    with staff.begin("roy") as work:
        ended = service.end_waiver(work, waiver.id, reason="The lab is open again.")
    assert (ended.state, ended.end_reason) == ("ended", "The lab is open again.")
    assert leaves(works)[-1] == "waiver.ended"
    assert blocked(staff, request) == {"gate.evidence"}
    for act in (
        lambda work: service.end_waiver(work, waiver.id, reason="Again."),
        lambda work: service.sign_waiver(work, waiver.id),
    ):
        with refused("waiver.ended", Conflict), staff.begin("rob") as work:
            act(work)
    with staff.begin("aud", read_only=True) as work:
        assert work.session.get(Waiver, waiver.id).reason == "The lab is closed until May."


def test_waivers_page_by_key(staff, track, clock):
    made = [propose(staff, track, clock, reason=f"Because {i}.").id for i in range(5)]
    with staff.begin("aud", read_only=True) as work:
        first = service.list_waivers(work, limit=2)
        rest = service.list_waivers(work, after=first[-1].id, limit=9)
        with refused("waiver.id", Invalid):
            service.list_waivers(work, after="nul\x00")
    assert sorted(made) == [w.id for w in (*first, *rest)]


# --- retraction ----------------------------------------------------------------------------------


def take(staff, evidence_id, how="retract_evidence", who="sue"):
    with staff.begin(who) as work:
        return getattr(service, how)(work, evidence_id, reason="The samples were mixed up.")


@pytest.mark.parametrize("how", ["retract_evidence", "dispute_evidence"])
@pytest.mark.parametrize(
    ("approvals", "scheduled", "before"),
    [((), 0, "submitted"), (("rae",), 0, "in_review"), (("rae", "rob"), 0, "approved"),
     (("rae", "rob"), 5, "scheduled")],
)  # fmt: skip
def test_taking_evidence_away_reopens_every_unapplied_request(
    works, staff, track, clock, how, approvals, scheduled, before
):
    named = measure(staff, clock)
    when = clock.now() + scheduled * DAY if scheduled else None
    request = approve(staff, ask(staff, track, scheduled_for=when), *approvals)
    assert request.state == before
    size = log_size(works)
    taken = take(staff, named, how)
    assert taken.reopened == (request.id,)
    now = reload(staff, request)
    assert now.state == ("submitted" if before == "submitted" else "in_review")
    assert now.request_hash != request.request_hash
    assert now.evidence_ids == (named,)  # the requester's words are the requester's to change
    assert leaves(works, size) == [f"evidence.{taken.state}", "promotion.reopened"]
    assert not any(a.current for a in page(staff, request).approvals)
    assert {"gate.quorum", "gate.evidence"} <= blocked(staff, request)
    with staff.begin("aud", read_only=True) as work:
        told = [j.payload for j in work.session.execute(select(Job)).scalars()]
    facts = next(p["facts"] for p in told if p.get("event") == "promotion.reopened")
    assert facts["reason"] == f"Evidence {named} was {taken.state}: The samples were mixed up."
    assert "detail" not in facts


def test_only_requests_that_used_it_are_reopened(staff, track, clock):
    one, two = measure(staff, clock), measure(staff, clock)
    using = ask(staff, track, evidence_ids=[one, two])
    other = approve(staff, ask(staff, track, evidence_ids=[two]), "rae")
    draft = ask(staff, track, draft=True, evidence_ids=[one])
    ended = ask(staff, track, evidence_ids=[one])
    with staff.begin("mia") as work:
        service.cancel(work, ended.id)
    assert take(staff, one).reopened == (using.id,)
    assert reload(staff, other).request_hash == other.request_hash
    assert reload(staff, draft) == draft
    assert reload(staff, ended).state == "cancelled"


def test_what_was_applied_stays_applied(works, staff, track, clock):
    named = measure(staff, clock)
    request = apply(staff, approve(staff, ask(staff, track), "rae", "rob"))
    assert take(staff, named).reopened == ()
    assert reload(staff, request).state == "applied"
    assert stage_of(works, track.id) == "partner"


def test_judgements_of_a_reopened_request_are_void_too(staff, track, clock):
    named = unsure(staff, clock)
    third = measure(staff, clock, value=20.0)
    request = ask(staff, track)
    judge(staff, request, "roy")
    assert gate(staff, request).outcome == "passed"
    take(staff, third)
    request = reload(staff, request)
    assert set(named) < set(request.evidence_ids)
    assert gate(staff, request).outcome == "inconclusive"
    judge(staff, request, "roy", passed=False)


def test_a_refused_retraction_changes_nothing(works, staff, track, clock):
    named = measure(staff, clock)
    request = approve(staff, ask(staff, track), "rae", "rob")
    size = log_size(works)
    for who in ("aud", "nia"):
        with pytest.raises(Forbidden):
            take(staff, named, who=who)
    with pytest.raises(NotFound):
        take(staff, "evd_none")
    take(staff, named)
    with pytest.raises(Conflict):
        take(staff, named)
    assert log_size(works) == size + 2
    assert reload(staff, request).edition == 2


def test_approvals_after_the_reopening_carry_the_same_request(staff, track, clock):
    """With other evidence that does: taken away, named anew, approved again, applied."""
    bad = measure(staff, clock)
    request = approve(staff, ask(staff, track), "rae", "rob")
    take(staff, bad)
    good = measure(staff, clock)
    with staff.begin("mia") as work:
        service.edit_promotion(work, request.id, evidence_ids=[good])
        request = service.resubmit(work, request.id)
    assert apply(staff, approve(staff, request, "rae", "rob")).state == "applied"


# --- incidents and the audience ------------------------------------------------------------------


def incident(works, track, *, scope="listed", state="confirmed", blocking=True, link="track"):
    with works.begin(OPERATOR) as work:
        row = Incident(
            state=state,
            severity="high",
            blocking=blocking,
            scope=scope,
            reported_at=work.now,
            state_since=work.now,
        )
        work.session.add(row)
        work.session.flush()
        if link == "track":
            work.session.add(IncidentTrack(incident_id=row.id, track_id=track.id))
        if link == "family":
            work.session.add(IncidentFamily(incident_id=row.id, family_id=track.family_id))
        return row.id


@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        ({}, True),
        ({"state": "mitigated"}, True),
        ({"link": "family"}, True),
        ({"link": "none", "scope": "everything"}, True),
        ({"link": "none"}, False),
        ({"blocking": False}, False),
        *[({"state": s}, False) for s in ("reported", "triaged", "dismissed", "closed")],
    ],
)
def test_an_open_blocking_incident_blocks_what_it_covers(
    works, staff, track, clock, options, blocks
):
    measure(staff, clock)
    request = approve(staff, ask(staff, track), "rae", "rob")
    incident(works, track, **options)
    elsewhere = make_track(works, repo_id="other/one", plan=PLAN, salt="d")
    incident(works, elsewhere)
    incident(works, elsewhere, link="family")
    if blocks:
        assert blocked(staff, request) == {"gate.no_incident"}
    else:
        assert apply(staff, request).state == "applied"


def test_the_audience_below_really_fetched_it(works, staff, track, clock):
    measure(staff, clock)
    apply(staff, approve(staff, ask(staff, track), "rae", "rob"))
    request = approve(staff, ask(staff, track, to="public"), "rae", "rob")
    assert blocked(staff, request) == {"gate.served"}
    make_grant(works, track.id, "partner", staff.id("nia"))
    make_grant(works, track.id, "public", staff.id("aud"))

    def fetch(audience, done):
        with works.begin(OPERATOR) as work:
            grant = work.session.execute(
                select(Grant.id).where(Grant.track_id == track.id, Grant.audience == audience)
            ).scalar_one()
            work.session.add(
                Download(
                    id=new_id("dow"),
                    track_id=track.id,
                    grant_id=grant,
                    person_id=staff.id("nia"),
                    revision_id=track.revision_id,
                    path="model.safetensors",
                    sha256=WEIGHTS,
                    size=9,
                    started_at=work.now,
                    bytes_sent=9,
                    completed_at=work.now + done if done is not None else None,
                )
            )

    fetch("public", timedelta(0))  # not the audience below
    fetch("partner", None)  # not complete
    fetch("partner", DAY)  # not yet
    assert blocked(staff, request) == {"gate.served"}
    clock.move(DAY)
    got = gate(staff, request, "served")
    assert (got.outcome, got.measured) == ("passed", "1")
    assert apply(staff, request).state == "applied"


# --- what is signed, locked and told -------------------------------------------------------------

ATTESTED = """
plan: attested
title: Attested
stages:
  - {name: internal, audience: staff}
  - name: partner
    audience: organisations
    agreement: model-sharing
    gates:
      - {kind: card_locked}
      - {kind: signed, keys: [key-1]}
      - {kind: coordination, window: P30D, at_least: 1}
      - {kind: freshness, type: misuse_monitoring, max_age: P10D, artifacts: [code]}
"""


def attest(works, track, *, key="key-1", compromised=False):
    with works.begin(OPERATOR) as work:
        revision = catalog.load_revision(work, track.revision_id)
        common = {"at": work.now, "leaf_idx": 0}
        card = next(f for f in catalog.files(work, revision.id) if f.path == "README.md")
        work.session.add(
            SigningKey(
                id=key,
                pem="x",
                pem_sha256=new_id("k"),
                curve="p256",
                added_by="operator",
                added_at=work.now,
                compromised=compromised,
                leaf_idx=0,
            )
        )
        work.session.flush()
        work.session.add(
            ModelCardLock(
                id=new_id("mcl"),
                variant_id=revision.variant_id,
                revision_id=revision.id,
                path=card.path,
                sha256=card.sha256,
                locked_by="operator",
                **common,
            )
        )
        work.session.add(
            ManifestSignature(
                id=new_id("msg"),
                revision_id=revision.id,
                manifest_sha256=revision.manifest_sha256,
                key_id=key,
                bundle_sha256=card.sha256,
                bundle_size=1,
                signed_by="operator",
                **common,
            )
        )


def tell(staff, happened_on, *, window_ends_at=None):
    with staff.begin("mia") as work:
        evidence.add_coordination(
            work,
            family_id="gpt2-mini",
            developer="Another laboratory",
            claim="They build one too.",
            kind="contact",
            happened_on=happened_on,
            source="https://example.org/letter",
            fact_status="verified",
            window_ends_at=window_ends_at,
        )


def test_signed_locked_and_told(works, staff, clock):
    track = make_track(works, repo_id=REPO, plan=ATTESTED, salt="b")
    request = approve(staff, ask(staff, track), "rae", "rob")
    asked = {"gate.card_locked", "gate.signed", "gate.coordination"}  # code is another track
    assert blocked(staff, request) == asked
    attest(works, track)
    told = f"{clock.now() - 20 * DAY:%Y-%m-%d}"
    tell(staff, told, window_ends_at=clock.now() + 15 * DAY)
    assert blocked(staff, request) == {"gate.coordination"}
    assert gate(staff, request, "coordination").due == clock.now() + 15 * DAY
    assert gate(staff, request, "signed").measured == "key-1"
    clock.move(15 * DAY - timedelta(seconds=1))
    assert blocked(staff, request) == {"gate.coordination"}
    clock.move(timedelta(seconds=1))
    assert apply(staff, request).state == "applied"


def test_a_date_that_is_not_exact_opens_no_window_early(works, staff, clock):
    track = make_track(works, repo_id=REPO, plan=ATTESTED, salt="b")
    attest(works, track)
    request = approve(staff, ask(staff, track), "rae", "rob")
    tell(staff, f"{clock.now():%Y}")
    assert blocked(staff, request) == {"gate.coordination"}
    due = gate(staff, request, "coordination").due
    assert due is not None
    clock.set(due - timedelta(seconds=1))
    assert blocked(staff, request) == {"gate.coordination"}
    clock.set(due)
    assert gate(staff, request, "coordination").outcome == "passed"


@pytest.mark.parametrize("broken", [{"key": "key-2"}, {"compromised": True}])
def test_a_signature_of_another_or_a_compromised_key_signs_nothing(works, staff, clock, broken):
    track = make_track(works, repo_id=REPO, plan=ATTESTED, salt="b")
    request = approve(staff, ask(staff, track), "rae", "rob")
    attest(works, track, **broken)
    tell(staff, f"{clock.now() - 40 * DAY:%Y-%m-%d}")
    assert blocked(staff, request) == {"gate.signed"}


# --- the log, and the cost of looking ------------------------------------------------------------


def test_the_decision_is_logged_with_what_it_rested_on(works, staff, track, clock):
    named = unsure(staff, clock)
    request = approve(staff, ask(staff, track), "rae", "rob")
    judge(staff, request, "roy")
    apply(staff, request)
    with works.begin(read_only=True) as work:
        bodies = work.session.execute(select(LogDetail.body)).scalars()
        said = [json.loads(body).get("detail", json.loads(body)) for body in bodies]
        assert work.session.execute(select(StageEvent.waived)).scalars().all()[-1] == []
    applied = next(d for d in said if "gates" in d)
    logged = next(g for g in applied["gates"] if g["key"] == "detectable")
    assert logged["evidence"] == sorted(named)
    assert logged["judged_by"] == staff.id("roy")
    assert applied["approved_by"] == sorted([staff.id("rae"), staff.id("rob")])


def test_a_page_of_facts_takes_few_statements_however_much_there_is(works, staff, track, clock):
    def statements():
        seen = []
        with staff.begin("aud", read_only=True) as work:
            connection = work.session.connection()
            event.listen(connection, "before_cursor_execute", lambda *a: seen.append(a[2:4]))
            service.facts_page(work, request.id)
            if not work.is_postgres:
                for sql, values in list(seen):
                    plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values)
                    assert not [row[3] for row in plan if row[3].startswith("SCAN")], sql
        return len([1 for sql, _ in seen if not sql.startswith("EXPLAIN")])

    named = [measure(staff, clock) for _ in range(2)]
    request = approve(staff, ask(staff, track), "rae")
    sign(staff, propose(staff, track, clock), "sue")
    few = statements()
    assert few <= 17
    named += [measure(staff, clock) for _ in range(6)]
    with staff.begin("mia") as work:
        service.edit_promotion(work, request.id, evidence_ids=named)
        request = service.resubmit(work, request.id)
    approve(staff, request, "rae", "rob", "roy")
    sign(staff, propose(staff, track, clock), "sue")
    assert statements() == few


def test_a_track_is_read_with_its_plan(works, track):
    with works.begin(read_only=True) as work:
        (spec,) = queries.plan_of(work, track.plan_version_id).stage("partner").gates
    assert spec.options["conditions"]["text_length"] == 510

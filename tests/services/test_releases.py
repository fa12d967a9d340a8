"""Release control through its services, on a real database."""

from __future__ import annotations

from datetime import timedelta

import pytest
from make_release import (
    PLAN,
    REPO,
    database_url,
    leaves,
    log_size,
    make_grant,
    make_track,
    staff,
    staffed,
    stage_of,
    track,
)
from sqlalchemy import select, update

from databases import START
from stagerelease.identity import service as identity
from stagerelease.identity.tables import Person
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.kernel.errors import (
    Blocked,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Stale,
    Unauthenticated,
)
from stagerelease.kernel.ids import new_id
from stagerelease.releases import queries, service
from stagerelease.releases.tables import Promotion

__all__ = ["database_url", "staff", "staffed", "track"]  # fixtures
DAY = timedelta(days=1)


def open_request(staff, track_id, *, to="partner", who="mia", **options):
    with staff.begin(who) as work:
        return service.open_promotion(work, track_id=track_id, to=to, rationale="Ready.", **options)


def approve(staff, request, *reviewers):
    for who in reviewers:
        with staff.begin(who) as work:
            request = service.approve(work, request.id, request_hash=request.request_hash)
    return request


def apply(staff, request, *, who="mia"):
    with staff.begin(who) as work:
        return service.apply(work, request.id)


def blocked(staff, request, *, who="mia"):
    with pytest.raises(Blocked) as caught:
        apply(staff, request, who=who)
    return {b.code for b in caught.value.blockers}


def page(staff, request):
    with staff.begin("aud", read_only=True) as work:
        return service.facts_page(work, request.id)


def at_partner(staff, track):
    return apply(staff, approve(staff, open_request(staff, track.id), "rae", "rob"))


# --- plans and tracks ----------------------------------------------------------------------------


def test_a_track_starts_at_the_lowest_stage_on_record(works, staff, track):
    assert track.stage == "internal"
    assert leaves(works)[-1] == "track.created"
    with staff.begin("aud", read_only=True) as work:
        shown = service.show_track(work, track.id)
    assert [(e.from_stage, e.to_stage) for e in shown.events] == [(None, "internal")]
    assert shown.events[0].leaf_idx == log_size(works) - 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"repo_id": "gpt2-mini/none"}, NotFound),
        ({"repo_id": "nul\x00"}, NotFound),
        ({"revision": "f" * 40}, NotFound),
        ({"kind": "detector"}, Invalid),
        ({"kind": "luck"}, Invalid),
        ({}, Conflict),
    ],
)
def test_a_track_needs_a_revision_of_its_repository_with_that_kind(staff, track, change, error):
    """What would be a second track of the same weights; only the change differs."""
    before = log_size(staff.works)
    with pytest.raises(error), staff.begin("mia") as work:
        service.create_track(work, **{"repo_id": REPO, "plan": "ours"} | change)
    assert log_size(staff.works) == before


def test_a_revision_of_another_repository_is_not_found_in_this_one(works, staff, track):
    other = make_track(works, repo_id="gpt2-mini/two", salt="b")
    with pytest.raises(NotFound), staff.begin("mia") as work:
        service.create_track(work, repo_id=REPO, revision=other.revision_id, kind="model_card")


def test_kinds_of_one_revision_are_released_apart(works, staff, track):
    with staff.begin("mia") as work:
        card = service.create_track(work, repo_id=REPO, kind="model_card", plan="ours")
    at_partner(staff, card)
    assert stage_of(works, card.id) == "partner"
    assert stage_of(works, track.id) == "internal"


# --- a request's way -----------------------------------------------------------------------------


def test_from_opening_to_the_next_stage(works, staff, track):
    before = log_size(works)
    request = open_request(staff, track.id)
    assert request.state == "submitted"
    request = approve(staff, request, "rae")
    assert request.state == "in_review"
    assert blocked(staff, request) == {"gate.quorum"}
    request = approve(staff, request, "rob")
    assert request.state == "approved"
    request = apply(staff, request)
    assert request.state == "applied"
    assert stage_of(works, track.id) == "partner"
    assert leaves(works, before) == [
        "promotion.opened",
        "promotion.submitted",
        "promotion.in_review",
        "review.approval",
        "review.approval",
        "promotion.approved",
        "promotion.applied",
        "track.promoted",
    ]
    with staff.begin("aud", read_only=True) as work:
        event = service.show_track(work, track.id).events[-1]
        jobs = work.session.execute(select(Job.kind, Job.payload).order_by(Job.id)).all()
        job = next(j for j in jobs if j.kind == "releases.announce")
        told = [j.payload["event"] for j in jobs if j.kind == "notices.deliver"]
    assert sorted(told) == ["promotion.applied", "promotion.approved", "promotion.submitted"]
    assert (event.from_stage, event.to_stage) == ("internal", "partner")
    assert (event.promotion_id, event.leaf_idx) == (request.id, log_size(works) - 1)
    service.announce(works, job.payload)  # reads what the event says, and may run again
    service.announce(works, job.payload)


def test_the_page_shows_every_gate_in_words(staff, track):
    at_partner(staff, track)
    shown = page(staff, open_request(staff, track.id, to="public"))
    assert [(g.key, g.outcome) for g in shown.gates] == [
        ("dwell", "pending"),
        ("quorum", "pending"),
        ("hold", "passed"),
        ("not_before", "passed"),
        ("no_incident", "passed"),
        ("card-read", "pending"),
    ]
    assert {b.code for b in shown.blockers} == {"gate.dwell", "gate.quorum", "gate.manual"}
    with staff.begin("aud", read_only=True) as work:
        asked = service.what_blocks(work, track.id, "public")
    assert [g.outcome for g in asked] == [g.outcome for g in shown.gates]
    with staff.begin("aud", read_only=True) as work, pytest.raises(Blocked):
        service.what_blocks(work, track.id, "internal")


@pytest.mark.parametrize("to", ["public", "internal", "withdrawn", "nowhere"])
def test_one_rung_at_a_time(staff, track, to):
    with pytest.raises(Blocked) as caught:
        open_request(staff, track.id, to=to)
    assert [b.code for b in caught.value.blockers] == ["no-such-move"]


def test_any_edit_makes_a_new_hash_and_voids_approvals(staff, track):
    request = approve(staff, open_request(staff, track.id), "rae", "rob")
    with staff.begin("mia") as work:
        edited = service.edit_promotion(work, request.id, rationale="Readier.")
    assert edited.state == "draft"
    assert blocked(staff, edited) == {"not-submitted", "gate.quorum"}
    with staff.begin("mia") as work:
        edited = service.resubmit(work, request.id)
    assert blocked(staff, edited) == {"gate.quorum"}
    with pytest.raises(Stale), staff.begin("roy") as work:
        service.approve(work, request.id, request_hash=request.request_hash)
    # Back to the first words: still a new hash, so the first approvals do not come back.
    with staff.begin("mia") as work:
        service.edit_promotion(work, request.id, rationale="Ready.")
        back = service.resubmit(work, request.id)
    assert len({request.request_hash, edited.request_hash, back.request_hash}) == 3
    assert blocked(staff, back) == {"gate.quorum"}
    assert [a.current for a in page(staff, back).approvals] == [False, False]
    assert apply(staff, approve(staff, back, "rae", "rob")).state == "applied"


def test_submitting_again_what_is_submitted_does_not_put_its_end_off(staff, track, clock):
    request = open_request(staff, track.id)
    clock.move(20 * DAY)
    for act in (lambda: None, lambda: approve(staff, request, "rae"), lambda: None):
        act()
        with pytest.raises(Conflict), staff.begin("mia") as work:
            service.resubmit(work, request.id)
    assert page(staff, request).promotion.expires_at == request.expires_at
    clock.move(10 * DAY)
    assert blocked(staff, request) >= {"expired"}
    with pytest.raises(Conflict), staff.begin("mia") as work:
        service.resubmit(work, request.id)


def test_an_edit_that_changes_nothing_or_is_by_another_is_refused(staff, track):
    request = open_request(staff, track.id)
    with pytest.raises(Invalid), staff.begin("mia") as work:
        service.edit_promotion(work, request.id, rationale="Ready.")
    with pytest.raises(Forbidden), staff.begin("max") as work:
        service.edit_promotion(work, request.id, rationale="Mine.")
    with pytest.raises(Stale), staff.begin("mia") as work:
        service.edit_promotion(work, request.id, rationale="Other.", request_hash="0" * 64)
    assert page(staff, request).promotion.request_hash == request.request_hash


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("max", "promotion.own"),  # the requester, who is a reviewer too
        ("bot", "human.needed"),  # a service account with the role
        ("operator", "permission.promotion:decide"),
        ("ola", "permission.promotion:decide"),  # rank never counts
        ("aud", "permission.promotion:decide"),
        ("nia", "permission.promotion:decide"),
    ],
)
def test_who_can_never_approve(staff, track, who, reason):
    request = open_request(staff, track.id, who="max")
    with pytest.raises(Forbidden) as caught:
        approve(staff, request, who)
    assert caught.value.reason == reason
    assert approve(staff, request, "rae").state == "in_review"


def test_nobody_approves_twice_and_who_approved_may_still_reject(staff, track):
    request = approve(staff, open_request(staff, track.id), "rae")
    with pytest.raises(Conflict) as caught:
        approve(staff, request, "rae")
    assert caught.value.reason == "promotion.decided"
    with staff.begin("rae") as work:
        ended = service.reject(
            work, request.id, request_hash=request.request_hash, comment="On reflection, no."
        )
    assert (ended.state, ended.end_reason) == ("rejected", "On reflection, no.")
    assert blocked(staff, request) == {"ended"}


def test_changes_are_asked_for_made_and_approved(staff, track):
    request = open_request(staff, track.id)
    with staff.begin("rae") as work:
        asked = service.request_changes(
            work, request.id, request_hash=request.request_hash, comment="Say why."
        )
    assert asked.state == "changes_requested"
    with pytest.raises(Conflict):
        approve(staff, asked, "rob")
    with pytest.raises(Conflict), staff.begin("mia") as work:
        service.resubmit(work, request.id)  # not before it is edited
    with staff.begin("mia") as work:
        service.edit_promotion(work, request.id, rationale="Because.")
        again = service.resubmit(work, request.id)
    assert apply(staff, approve(staff, again, "rae", "rob")).state == "applied"


@pytest.mark.parametrize("how", ["role ended", "disabled", "became a service account"])
def test_an_approver_is_asked_again_when_it_is_applied(works, staff, track, how):
    """The same approved request; only what became of an approver differs."""
    request = approve(staff, open_request(staff, track.id), "rae", "rob")
    with works.begin(OPERATOR) as work:
        if how == "role ended":
            identity.end_role(work, person="rob", role="reviewer")
        elif how == "disabled":
            identity.disable_person(work, "rob")
        else:
            work.session.execute(
                update(Person).where(Person.handle == "rob").values(kind="service")
            )
    assert blocked(staff, request) == {"gate.quorum"}
    assert apply(staff, approve(staff, request, "roy")).state == "applied"


def test_a_role_given_back_makes_the_quorum_whole(works, staff, track):
    request = approve(staff, open_request(staff, track.id), "rae")
    with works.begin(OPERATOR) as work:
        identity.end_role(work, person="rae", role="reviewer")
    request = approve(staff, request, "rob")
    assert request.state == "in_review"
    assert blocked(staff, request) == {"gate.quorum"}
    with works.begin(OPERATOR) as work:
        identity.assign_role(work, person="rae", role="reviewer")
    before = log_size(works)
    assert apply(staff, request).state == "applied"
    assert leaves(works, before)[:2] == ["promotion.approved", "promotion.applied"]


def test_a_role_with_an_end_date_counts_until_then(works, staff, track, clock):
    with works.begin(OPERATOR) as work:
        identity.end_role(work, person="rob", role="reviewer")
        identity.assign_role(work, person="rob", role="reviewer", ends_at=clock.now() + DAY)
    request = approve(staff, open_request(staff, track.id), "rae", "rob")
    clock.move(DAY)
    assert blocked(staff, request) == {"gate.quorum"}


def test_the_first_applied_request_supersedes_the_others(works, staff, track):
    winner = approve(staff, open_request(staff, track.id), "rae", "rob")
    loser = approve(staff, open_request(staff, track.id, who="max"), "rae", "rob")
    untouched = open_request(staff, track.id)
    apply(staff, winner)
    assert blocked(staff, loser) == {"ended"}
    for request in (loser, untouched):
        ended = page(staff, request).promotion
        assert (ended.state, ended.ended_at is not None) == ("superseded", True)
    assert leaves(works).count("track.promoted") == 1


def test_a_manual_gate_is_answered_once_by_somebody_else(works, staff, track, clock):
    at_partner(staff, track)
    make_grant(works, track.id, "partner", staff.id("nia"))
    clock.move(14 * DAY)
    request = approve(staff, open_request(staff, track.id, to="public", who="max"), "rae", "rob")
    assert blocked(staff, request) == {"gate.manual"}

    def judge(who, *, passed=True, gate="card-read", **options):
        with staff.begin(who) as work:
            return service.judge(
                work, request.id, gate=gate, passed=passed, reason="I read it.", **options
            )

    for who, error in (("max", Forbidden), ("mia", Forbidden), ("operator", Forbidden)):
        with pytest.raises(error):
            judge(who)
    with pytest.raises(NotFound):
        judge("roy", gate="quorum")
    with pytest.raises(Stale):
        judge("roy", request_hash="0" * 64)
    judge("roy", passed=False)
    with pytest.raises(Conflict):
        judge("rae")
    assert blocked(staff, request) == {"gate.manual"}
    with staff.begin("max") as work:  # an edit asks everything again
        service.edit_promotion(work, request.id, rationale="With a better card.")
        request = service.resubmit(work, request.id)
    judge("rae")
    assert apply(staff, approve(staff, request, "rae", "rob")).state == "applied"


@pytest.mark.parametrize("gone", ["role", "account"])
def test_an_answer_counts_while_its_giver_may_give_it(works, staff, track, clock, gone):
    at_partner(staff, track)
    make_grant(works, track.id, "partner", staff.id("nia"))
    clock.move(14 * DAY)

    def judged(request):
        with staff.begin("roy") as work:
            service.judge(work, request.id, gate="card-read", passed=True, reason="I read it.")
        return approve(staff, request, "rae", "rob")

    request = judged(open_request(staff, track.id, to="public"))
    with works.begin(OPERATOR) as work:
        if gone == "role":
            identity.end_role(work, person="roy", role="reviewer")
        else:
            identity.disable_person(work, "roy")
    assert blocked(staff, request) == {"gate.manual"}
    with staff.begin("rae") as work, pytest.raises(Conflict, match="answered already"):
        service.judge(work, request.id, gate="card-read", passed=True, reason="I read it.")
    with staff.begin("mia") as work:  # an edit asks everything anew
        service.edit_promotion(work, request.id, rationale="Read again.")
        request = service.resubmit(work, request.id)
    with staff.begin("rae") as work:
        service.judge(work, request.id, gate="card-read", passed=True, reason="I read it.")
    assert apply(staff, approve(staff, request, "rae", "rob")).state == "applied"


# --- time ----------------------------------------------------------------------------------------


@pytest.fixture
def towards_public(works, staff, track):
    """A request for public that waits for nothing but time."""
    at_partner(staff, track)
    request = approve(staff, open_request(staff, track.id, to="public"), "rae", "rob")
    with staff.begin("roy") as work:
        service.judge(work, request.id, gate="card-read", passed=True, reason="Read.")
    return request


def test_dwell_counts_from_when_the_audience_could_fetch(
    works, staff, track, towards_public, clock
):
    clock.move(20 * DAY)
    assert blocked(staff, towards_public) == {"gate.dwell"}
    make_grant(works, track.id, "internal", staff.id("nia"))  # not this stage's audience
    make_grant(works, track.id, "partner", staff.id("nia"), state="pending")  # never let in
    starts = clock.now() + DAY
    make_grant(works, track.id, "partner", staff.id("nia"), starts=starts)
    assert page(staff, towards_public).gates[0].measured == "nobody could fetch yet"
    clock.move(15 * DAY - timedelta(seconds=1))
    # The request would expire first: what is looked at is the gate.
    gate = page(staff, towards_public).gates[0]
    assert (gate.outcome, gate.measured) == ("pending", "13 d 23 h 59 min")
    clock.move(timedelta(seconds=1))
    assert page(staff, towards_public).gates[0].outcome == "passed"


@pytest.mark.parametrize("scope", ["track", "family", "everything"])
def test_time_under_a_hold_is_not_served_time(works, staff, track, towards_public, clock, scope):
    make_grant(works, track.id, "partner", staff.id("nia"))
    scope_id = {"track": track.id, "family": track.family_id, "everything": None}[scope]
    clock.move(10 * DAY)
    with staff.begin("sam") as work:
        hold = service.lay_hold(work, scope=scope, scope_id=scope_id, reason="Incident.")
    clock.move(5 * DAY)
    assert blocked(staff, towards_public) == {"gate.hold", "gate.dwell"}
    for who in ("sam", "sue"):
        with staff.begin(who) as work:
            service.lift_hold(work, hold.id, reason="Over.")
    assert blocked(staff, towards_public) == {"gate.dwell"}
    clock.move(4 * DAY)
    assert apply(staff, towards_public).state == "applied"


def test_a_hold_over_another_track_or_family_stops_nothing_here(works, staff, track):
    other = make_track(works, repo_id="other-family/two", salt="b")
    request = approve(staff, open_request(staff, track.id), "rae", "rob")
    with staff.begin("sam") as work:
        service.lay_hold(work, scope="track", scope_id=other.id, reason="There.")
        service.lay_hold(work, scope="family", scope_id="other-family", reason="There.")
        assert queries.active_holds(work, track_ids=[track.id]) == []
        assert len(queries.active_holds(work, track_ids=[track.id, other.id])) == 2
    assert apply(staff, request).state == "applied"


def test_a_scheduled_request_waits_for_its_time_and_is_checked_again(works, staff, track, clock):
    due = clock.now() + 3 * DAY
    request = approve(staff, open_request(staff, track.id, scheduled_for=due), "rae", "rob")
    assert request.state == "scheduled"
    assert blocked(staff, request) == {"gate.not_before"}

    def run_due():
        with works.begin(SYSTEM) as work:
            return service.apply_due(work)

    clock.set(due - timedelta(seconds=1))
    assert run_due() == []
    clock.set(due)
    with works.begin(OPERATOR) as work:
        identity.end_role(work, person="rob", role="reviewer")
    assert run_due() == []  # checked again: an approver is gone
    assert page(staff, request).promotion.state == "scheduled"
    approve(staff, request, "roy")
    assert run_due() == [request.id]
    assert run_due() == []
    assert stage_of(works, track.id) == "partner"


def test_due_requests_of_one_track_yield_one_winner(works, staff, track, clock):
    due = clock.now() + DAY
    both = [
        approve(staff, open_request(staff, track.id, scheduled_for=due), "rae", "rob")
        for _ in range(2)
    ]
    clock.set(due)
    with works.begin(SYSTEM) as work:
        assert service.apply_due(work) == [both[0].id]
    assert page(staff, both[1]).promotion.state == "superseded"


def test_a_request_expires_at_use_and_by_the_sweeper(works, staff, track, clock):
    request = approve(staff, open_request(staff, track.id), "rae", "rob")
    fresh = approve(staff, open_request(staff, track.id), "rae")
    clock.move(30 * DAY)
    assert blocked(staff, request) == {"expired"}
    with pytest.raises(Conflict) as caught:
        approve(staff, fresh, "rob")
    assert caught.value.reason == "promotion.expired"
    with works.begin(SYSTEM) as work:
        assert service.promotions_due(work)
        assert service.expire_stale(work) == [request.id, fresh.id]
        assert service.expire_stale(work) == []
        assert not service.promotions_due(work)
    assert page(staff, request).promotion.state == "expired"


def test_a_schedule_in_the_past_or_far_away_is_refused(staff, track, clock):
    for when in (clock.now(), clock.now() - DAY, clock.now() + 2000 * DAY):
        with pytest.raises(Invalid):
            open_request(staff, track.id, scheduled_for=when)


# --- holds and withdrawal ------------------------------------------------------------------------


def lay(staff, who="sam", **where):
    with staff.begin(who) as work:
        return service.lay_hold(
            work, **{"scope": "everything", "scope_id": None} | where, reason="Incident."
        )


def test_one_person_lays_a_hold_two_lift_it(works, staff, track):
    before = log_size(works)
    hold = lay(staff, who="mia")
    with staff.begin("sam") as work:
        half = service.lift_hold(work, hold.id, reason="Looked at it.")
    assert half.lifted_at is None
    with pytest.raises(Conflict) as caught, staff.begin("sam") as work:
        service.lift_hold(work, hold.id, reason="Again.")
    assert caught.value.reason == "hold.consented"
    with staff.begin("ola") as work:
        assert service.lift_hold(work, hold.id, reason="So did I.").lifted_at is not None
    with pytest.raises(Conflict), staff.begin("sue") as work:
        service.lift_hold(work, hold.id, reason="Late.")
    assert leaves(works, before) == [
        "hold.laid",
        "hold.lift_consented",
        "hold.lift_consented",
        "hold.lifted",
    ]
    with staff.begin("aud", read_only=True) as work:
        shown = service.show_hold(work, hold.id)
        assert service.list_holds(work, active=True) == []
        assert [h.id for h in service.list_holds(work, active=False)] == [hold.id]
    assert [c.reason for c in shown.consents] == ["Looked at it.", "So did I."]
    assert shown.leaf_idx == before


def test_a_consent_counts_only_while_its_giver_may_lift(works, staff, track):
    hold = lay(staff)
    with staff.begin("sam") as work:
        service.lift_hold(work, hold.id, reason="Fine.")
    with works.begin(OPERATOR) as work:
        identity.end_role(work, person="sam", role="security")
    with staff.begin("sue") as work:
        assert service.lift_hold(work, hold.id, reason="Fine.").lifted_at is None
    with staff.begin("ola") as work:
        assert service.lift_hold(work, hold.id, reason="Fine.").lifted_at is not None


@pytest.mark.parametrize("who", ["operator", "mia", "rae", "nia"])
def test_who_cannot_lift_a_hold(staff, track, who):
    hold = lay(staff)
    with pytest.raises(Forbidden), staff.begin(who) as work:
        service.lift_hold(work, hold.id, reason="Fine.")


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ({"scope": "track", "scope_id": None}, Invalid),
        ({"scope": "everything", "scope_id": "gpt2-mini"}, Invalid),
        ({"scope": "world"}, Invalid),
        ({"scope": "track", "scope_id": "trk_none"}, NotFound),
        ({"scope": "family", "scope_id": "none"}, NotFound),
    ],
)
def test_a_hold_covers_something_that_is_there(staff, track, where, error):
    with pytest.raises(error):
        lay(staff, **where)


def test_withdrawing_needs_one_person_and_ends_open_requests(works, staff, track):
    with pytest.raises(Conflict), staff.begin("sam") as work:
        service.withdraw_track(work, track.id, "Too early.")
    at_partner(staff, track)
    request = approve(staff, open_request(staff, track.id, to="public"), "rae", "rob")
    lay(staff)  # a hold does not stand in the way of stopping harm
    with pytest.raises(Forbidden), staff.begin("rae") as work:
        service.withdraw_track(work, track.id, "No.")
    with staff.begin("sam") as work:
        assert service.withdraw_track(work, track.id, "Harm.").stage == "withdrawn"
    assert page(staff, request).promotion.state == "superseded"
    assert leaves(works)[-2:] == ["promotion.superseded", "track.withdrawn"]
    with pytest.raises(Conflict), staff.begin("sam") as work:
        service.withdraw_track(work, track.id, "Twice.")
    with pytest.raises(Blocked) as caught:
        open_request(staff, track.id, to="public")
    assert [b.code for b in caught.value.blockers] == ["withdrawn"]


# --- who, what is shown, and nothing half done ---------------------------------------------------


def test_a_dry_run_says_what_would_happen_and_does_nothing(works, staff, track):
    request = approve(staff, open_request(staff, track.id), "rae", "rob")
    before = log_size(works)
    with staff.begin("mia", dry_run=True) as work:
        assert service.apply(work, request.id).state == "applied"
    assert (stage_of(works, track.id), log_size(works)) == ("internal", before)


def test_a_refused_act_leaves_no_trace(works, staff, track):
    request = approve(staff, open_request(staff, track.id), "rae")
    before = (log_size(works), page(staff, request))
    blocked(staff, request)
    for who in ("rae", "bot", "nia"):
        with pytest.raises((Conflict, Forbidden)):
            approve(staff, request, who)
    assert (log_size(works), page(staff, request)) == before


ACTS = {
    "propose_plan": (lambda w, _: service.propose_plan(w, PLAN, rationale="x"), "plan:apply"),
    "consent": (lambda w, _: service.consent_to_plan(w, 1, sha256="x"), "plan:consent"),
    "cancel_proposal": (lambda w, _: service.cancel_proposal(w, 1, reason="x"), "plan:apply"),
    "show_proposal": (lambda w, _: service.show_proposal(w, 1), "plan:read"),
    "diff_versions": (lambda w, _: service.diff_versions(w, "ours", 1), "plan:read"),
    "expire_proposals": (lambda w, _: service.expire_proposals(w), "plan:apply"),
    "proposals_due": (lambda w, _: service.proposals_due(w), "plan:apply"),
    "plan_in_force": (lambda w, _: service.plan_in_force(w, "demo"), "plan:read"),
    "list_proposals": (lambda w, _: service.list_proposals(w), "plan:read"),
    "simulate": (lambda w, t: service.simulate(w, t, "partner"), "promotion:read"),
    "lint": (lambda w, _: service.lint(w, PLAN), "plan:read"),
    "create_track": (lambda w, _: service.create_track(w, repo_id=REPO), "track:create"),
    "open": (
        lambda w, t: service.open_promotion(w, track_id=t, to="partner", rationale="x"),
        "promotion:open",
    ),
    "edit": (lambda w, _: service.edit_promotion(w, 1, rationale="x"), "promotion:open"),
    "resubmit": (lambda w, _: service.resubmit(w, 1), "promotion:open"),
    "cancel": (lambda w, _: service.cancel(w, 1), "promotion:open"),
    "approve": (lambda w, _: service.approve(w, 1, request_hash="x"), "promotion:decide"),
    "reject": (
        lambda w, _: service.reject(w, 1, request_hash="x", comment="x"),
        "promotion:decide",
    ),
    "request_changes": (
        lambda w, _: service.request_changes(w, 1, request_hash="x", comment="x"),
        "promotion:decide",
    ),
    "judge": (
        lambda w, _: service.judge(w, 1, gate="g", passed=True, reason="x"),
        "promotion:decide",
    ),
    "apply": (lambda w, _: service.apply(w, 1), "promotion:apply"),
    "apply_due": (lambda w, _: service.apply_due(w), "promotion:apply"),
    "promotions_due": (lambda w, _: service.promotions_due(w), "promotion:apply"),
    "expire_stale": (lambda w, _: service.expire_stale(w), "promotion:apply"),
    "withdraw": (lambda w, t: service.withdraw_track(w, t, "x"), "release:withdraw"),
    "lay_hold": (
        lambda w, _: service.lay_hold(w, scope="everything", scope_id=None, reason="x"),
        "hold:lay",
    ),
    "lift_hold": (lambda w, _: service.lift_hold(w, 1, reason="x"), "hold:lift"),
    "facts_page": (lambda w, _: service.facts_page(w, 1), "promotion:read"),
    "what_blocks": (lambda w, t: service.what_blocks(w, t, "partner"), "promotion:read"),
    "list_promotions": (lambda w, _: service.list_promotions(w), "promotion:read"),
    "show_track": (lambda w, t: service.show_track(w, t), "track:read"),
    "list_tracks": (lambda w, _: service.list_tracks(w), "track:read"),
    "board": (lambda w, _: service.board(w), "track:read"),
    "waiting_for_me": (lambda w, _: service.waiting_for_me(w), "promotion:read"),
    "list_holds": (lambda w, _: service.list_holds(w), "track:read"),
    "show_hold": (lambda w, _: service.show_hold(w, 1), "track:read"),
    "list_plans": (lambda w, _: service.list_plans(w), "plan:read"),
    "show_plan": (lambda w, _: service.show_plan(w, "ours"), "plan:read"),
    "propose_waiver": (
        lambda w, t: service.propose_waiver(
            w, track_id=t, stage="public", gate="card-read", reason="x", ends_at=START
        ),
        "waiver:sign",
    ),
    "sign_waiver": (lambda w, _: service.sign_waiver(w, "wvr_1"), "waiver:sign"),
    "end_waiver": (lambda w, _: service.end_waiver(w, "wvr_1", reason="x"), "waiver:sign"),
    "show_waiver": (lambda w, _: service.show_waiver(w, "wvr_1"), "promotion:read"),
    "list_waivers": (lambda w, _: service.list_waivers(w), "promotion:read"),
    "retract_evidence": (
        lambda w, _: service.retract_evidence(w, "evd_1", reason="x"),
        "evidence:submit",
    ),
    "dispute_evidence": (
        lambda w, _: service.dispute_evidence(w, "evd_1", reason="x"),
        "evidence:submit",
    ),
    "accept_evidence": (lambda w, _: service.accept_evidence(w, "evd_1"), "evidence:decide"),
}


def test_every_use_case_asks_first(works, staff, track):
    """Someone known without a role is refused by permission; nobody known must sign in first."""
    assert set(service.__all__) - {"announce", "shipped_schema"} == {
        {
            "open": "open_promotion",
            "edit": "edit_promotion",
            "withdraw": "withdraw_track",
            "consent": "consent_to_plan",
        }.get(name, name)
        for name in ACTS
    }
    nia = staff.actor("nia")
    for act, permission in ACTS.values():
        with pytest.raises(Forbidden) as caught, works.begin(nia) as work:
            act(work, track.id)
        assert caught.value.reason == f"permission.{permission}"
        with pytest.raises(Unauthenticated), works.begin() as work:
            act(work, track.id)


@pytest.mark.parametrize("who", ["operator", "bot"])
def test_only_a_person_opens_a_request(works, staff, track, who):
    """Whoever runs a machine, or the host, could approve what it asks for."""
    with works.begin(OPERATOR) as work:
        identity.assign_role(work, person="bot", role="release_manager")
    with pytest.raises(Forbidden) as caught:
        open_request(staff, track.id, who=who)
    assert caught.value.reason == "human.needed"
    assert apply(staff, approve(staff, open_request(staff, track.id), "rae", "rob"), who="bot")


@pytest.mark.parametrize("who", ["operator", "bot"])
def test_a_machine_neither_edits_nor_submits_a_request(works, staff, track, who):
    request = open_request(staff, track.id)
    bot = staff.id("bot")
    with works.begin(OPERATOR) as work:
        identity.assign_role(work, person="bot", role="release_manager")
        work.session.execute(
            update(Promotion).where(Promotion.id == request.id).values(requester_id=bot)
        )
    for act in (
        lambda work: service.edit_promotion(work, request.id, rationale="Mine."),
        lambda work: service.resubmit(work, request.id),
    ):
        with pytest.raises(Forbidden) as caught, staff.begin(who) as work:
            act(work)
        assert caught.value.reason == "human.needed"


@pytest.mark.parametrize("number", [0, -1, 999, 2**31, 2**80])
def test_numbers_that_name_nothing_are_not_found(staff, track, number):
    with pytest.raises(NotFound), staff.begin("ola") as work:
        service.apply(work, number)
    with pytest.raises(NotFound), staff.begin("ola") as work:
        service.lift_hold(work, number, reason="x")
    for name in ("nul\x00", "x" * 300, "ü"):
        with pytest.raises(NotFound), staff.begin("ola") as work:
            service.withdraw_track(work, name, "x")


def test_the_board_says_where_everything_is(works, staff, track):
    def cells():
        with staff.begin("aud", read_only=True) as work:
            shown = service.board(work)
        assert shown.stages == ("internal", "partner", "public")
        return [(cell.mark, cell.words) for cell in shown.rows[0].cells]

    assert cells() == [("✓", "here"), ("—", "not yet"), ("—", "not yet")]
    request = approve(staff, open_request(staff, track.id), "rae")
    asked = f"request {request.id}, in review: 1 of 2 approvals"
    assert cells()[1] == ("◐", asked)
    hold = lay(staff)
    assert cells()[:2] == [("✗", "here, on hold"), ("✗", f"{asked}, on hold")]
    for who in ("sam", "sue"):
        with staff.begin(who) as work:
            service.lift_hold(work, hold.id, reason="Over.")
    apply(staff, approve(staff, request, "rob"))
    assert cells() == [("✓", "passed"), ("✓", "here"), ("—", "not yet")]
    with staff.begin("sam") as work:
        service.withdraw_track(work, track.id, "Harm.")
    assert cells() == [("✗", "withdrawn"), ("✗", "withdrawn"), ("—", "not yet")]


def test_lists_are_filtered(works, staff, track):
    at_partner(staff, track)
    waiting = open_request(staff, track.id, to="public")
    with staff.begin("aud", read_only=True) as work:
        assert [t.id for t in service.list_tracks(work, stage="partner")] == [track.id]
        assert service.list_tracks(work, stage="internal") == []
        assert service.list_tracks(work, stage="nul\x00") == []
        rows = service.list_promotions(work, track_id=track.id, state="submitted")
        assert [p.id for p in rows] == [waiting.id]
        assert service.list_promotions(work, track_id="nul\x00") == []
        with pytest.raises(Invalid):
            service.list_promotions(work, state="lost")


def test_a_state_changed_behind_its_back_cannot_skip_the_gates(works, staff, track):
    """Even a row that claims to be approved is judged by its approvals, not by its word."""
    request = open_request(staff, track.id)
    with works.begin(OPERATOR) as work:
        work.session.execute(
            update(Promotion).where(Promotion.id == request.id).values(state="approved")
        )
    assert blocked(staff, request) == {"gate.quorum"}


def test_ids_look_like_what_they_name(staff, track):
    assert track.id.startswith("trk_")
    assert len(track.id) == len(new_id("trk"))


@pytest.mark.parametrize("what", ["role", "waiver"])
def test_what_ended_before_the_locks_were_held_does_not_count(works, staff, clock, what):
    """A Work began, waited for its locks, and meanwhile a role or a waiver came to its end."""
    ends = clock.now() + timedelta(seconds=3)
    manual = PLAN.replace("plan: ours", "plan: waived").replace(
        "agreement: model-sharing}",
        "agreement: model-sharing, gates: [{kind: manual, key: read, question: Read}]}",
    )
    other = make_track(works, repo_id="gpt2-mini/waived", plan=manual, salt="e")
    if what == "role":
        with works.begin(OPERATOR) as work:
            identity.end_role(work, person="rob", role="reviewer")
            identity.assign_role(work, person="rob", role="reviewer", ends_at=ends)
    last = ends if what == "waiver" else ends + DAY
    with staff.begin("sam") as work:
        waiver = service.propose_waiver(
            work, track_id=other.id, stage="partner", gate="read", reason="Lost.", ends_at=last
        )
    with staff.begin("sue") as work:
        service.sign_waiver(work, waiver.id)
    request = approve(staff, open_request(staff, other.id), "rae", "rob")
    with pytest.raises(Blocked) as caught, staff.begin("mia") as work:
        clock.move(timedelta(seconds=5))
        service.apply(work, request.id)
    expected = {"role": "gate.quorum", "waiver": "gate.manual"}[what]
    assert {b.code for b in caught.value.blockers} == {expected}


def test_an_instant_of_a_work_never_goes_back(works, clock):
    with works.begin(OPERATOR) as work:
        began = work.now
        clock.move(-DAY)
        assert work.refresh_now() == began
        clock.move(2 * DAY)
        assert work.refresh_now() == work.now == began + DAY

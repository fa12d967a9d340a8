"""Access requests through their services, on a real database."""

from __future__ import annotations

from datetime import timedelta

import pytest
from make_partners import REPO, World, database_url, partnered, world
from test_partners import allowed, last_leaves

from stagerelease.access import service
from stagerelease.access.rules import REAPPLY_AFTER, Status
from stagerelease.entitlements import service as entitlements
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR
from stagerelease.kernel.errors import (
    Blocked,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Unauthenticated,
)
from stagerelease.partners import queries as papers
from stagerelease.partners import service as partners
from stagerelease.releases import service as release_service

__all__ = ["database_url", "partnered", "world"]  # fixtures
DAY = timedelta(days=1)
ANSWERS = {"Affiliation": "A lab", "purpose": "Telling machine text from human text."}


@pytest.fixture
def open_world(world: World) -> World:
    """The track is at the researcher stage; nobody has signed."""
    world.climb("researcher")
    return world


def ask(world: World, who: str, **answers: str):
    with world.begin(who) as work:
        return service.submit(work, repo_id=REPO, answers=answers or ANSWERS)


def reject(work, request_id, **options):
    """Reject for a reason, where the reason is not what is tried."""
    return service.reject(work, request_id, **({"reason": "No."} | options))


def act(world: World, who: str, call, request_id: str, **options):
    with world.begin(who) as work:
        return call(work, request_id, **options)


# --- asking --------------------------------------------------------------------------------------


def test_asking_again_while_a_request_waits_changes_nothing(open_world):
    first = ask(open_world, "rex")
    assert (first.status, first.state, first.answers) == (Status.PENDING, "submitted", ANSWERS)
    before = last_leaves(open_world)
    assert before[0][0] == "access_request.submitted"
    assert "A lab" not in str(before), "the log commits to answers by digest"
    again = ask(open_world, "rex", other="words")
    assert again == first
    assert last_leaves(open_world) == before
    assert ask(open_world, "ron").id != first.id


def test_nobody_asks_for_what_they_may_not_know_of_or_need_not_ask_for(world):
    for repo in (REPO, "gpt2-mini/none", "\x00"):
        with pytest.raises(NotFound), world.begin("rex") as work:
            service.submit(work, repo_id=repo, answers={})
    with pytest.raises(Conflict) as refused, world.begin("aud") as work:
        service.submit(work, repo_id=REPO, answers={})
    assert refused.value.reason == "access.granted"
    world.climb("public")
    with pytest.raises(Conflict) as refused:
        ask(world, "rex")
    assert refused.value.reason == "access.not-gated"


def test_nobody_asks_for_a_withdrawn_release(open_world):
    with open_world.begin("mia") as work:
        entitlements.withdraw(work, open_world.track_id, reason="Leaked.")
    with pytest.raises(Conflict) as refused:
        ask(open_world, "rex")
    assert refused.value.reason == "access.withdrawn"


def test_only_people_ask(open_world):
    for who in ("bot", "operator"):
        with pytest.raises(Forbidden):
            ask(open_world, who)
    with open_world.works.begin(ANONYMOUS) as work, pytest.raises(Unauthenticated):
        service.submit(work, repo_id=REPO, answers={})


def test_answers_have_limits(open_world):
    with pytest.raises(Invalid):
        ask(open_world, "rex", **{f"f{n}": "x" for n in range(21)})
    with pytest.raises(Invalid) as refused:
        ask(open_world, "rex", purpose="x" * 2001)
    assert refused.value.fields[0].field == "purpose"
    assert len(ask(open_world, "rex", **{f"f{n}": "x" * 2000 for n in range(20)}).answers) == 20


def test_a_request_is_seen_by_its_applicant_and_staff(open_world):
    request = ask(open_world, "rex")
    for who in ("rex", "olga", "aud"):
        with open_world.begin(who, read_only=True) as work:
            page = service.show_request(work, request.id)
            assert [e.to_state for e in page.events] == ["submitted"]
            assert [row.id for row in service.list_requests(work, repo_id=REPO)] == [request.id]
    with open_world.begin("ron", read_only=True) as work:
        assert service.list_requests(work) == []
        for missing in (request.id, "arq_x", "\x00"):
            with pytest.raises(NotFound):
                service.show_request(work, missing)
    for call in (service.accept, reject, service.reopen, service.withdraw):
        with pytest.raises(NotFound):
            act(open_world, "ron", call, request.id)
    for call in (service.accept, reject, service.reopen):
        for who in ("rex", "mia", "aud"):
            with pytest.raises(Forbidden):
                act(open_world, who, call, request.id)


def test_one_takes_back_ones_own_waiting_request_and_may_ask_again(open_world):
    request = ask(open_world, "rex")
    with pytest.raises(Forbidden):
        act(open_world, "olga", service.withdraw, request.id)
    assert act(open_world, "rex", service.withdraw, request.id).status is Status.WITHDRAWN
    with pytest.raises(Conflict):
        act(open_world, "rex", service.withdraw, request.id)
    with pytest.raises(NotFound), open_world.begin("olga") as work:
        service.find_for(work, repo_id=REPO, handle="rex")
    assert ask(open_world, "rex").id != request.id


# --- deciding ------------------------------------------------------------------------------------


def test_accepting_issues_a_grant_for_a_year_on_the_applicants_signature(open_world, clock):
    signature = open_world.sign("rex", "researcher-terms")
    request = ask(open_world, "rex")
    row = act(open_world, "olga", service.accept, request.id)
    assert (row.status, row.decided_by) == (Status.ACCEPTED, open_world.id("olga"))
    grant = open_world.grant(row.grant_id)
    assert (grant.person_id, grant.audience) == (open_world.id("rex"), "researcher")
    assert grant.permissions == {"download"}
    assert grant.purpose == ANSWERS["purpose"]
    assert grant.signature_id == signature.id
    assert grant.valid_until == clock.now() + timedelta(days=365)
    assert allowed(open_world, "rex") == (True, "grant")
    assert [leaf for leaf, _ in last_leaves(open_world, 2)] == [
        "access_request.accepted",
        "grant.issued",
    ]
    for call, options in ((service.accept, {}), (service.decide, {"status": Status.ACCEPTED})):
        with pytest.raises(Conflict) as refused:
            act(open_world, "olga", call, request.id, **options)
        assert refused.value.reason == "access.already-accepted"
    with pytest.raises(Conflict) as refused:
        ask(open_world, "rex")
    assert refused.value.reason == "access.granted"


def test_accepting_a_member_lets_their_organisation_in_on_its_signature(open_world):
    open_world.sign("ann", "model-sharing", organisation="lab-a")
    row = act(open_world, "olga", service.accept, ask(open_world, "art").id)
    grant = open_world.grant(row.grant_id)
    assert (grant.person_id, grant.audience) == (None, "partner")
    assert grant.organisation_id == open_world.organisation("art")
    assert allowed(open_world, "art") == (True, "grant")


def test_accepting_who_has_signed_nothing_says_so_and_what_to_do(open_world):
    for who, step in (
        ("rex", "Ask them to read and sign it"),
        ("oto", "Give them the role researcher, then ask them"),
    ):
        request = ask(open_world, who)
        with pytest.raises(Conflict) as refused:
            act(open_world, "olga", service.accept, request.id)
        assert refused.value.reason == "access.no-signature"
        assert f"{who} has not signed 'Researcher Terms'" in refused.value.sentence
        assert refused.value.next_step is not None
        assert refused.value.next_step.startswith(step)
        with open_world.begin(who, read_only=True) as work:
            assert service.show_request(work, request.id).request.status is Status.PENDING


def test_at_the_partner_stage_an_organisation_must_have_signed(world):
    world.climb("partner")
    member, stranger = ask(world, "art"), ask(world, "rex")
    world.sign("rex", "researcher-terms")
    with pytest.raises(Conflict) as refused:
        act(world, "olga", service.accept, member.id)
    assert refused.value.reason == "access.no-signature"
    assert "No organisation that art belongs to has signed" in refused.value.sentence
    with pytest.raises(Conflict) as refused:
        act(world, "olga", service.accept, stranger.id)
    assert refused.value.reason == "access.no-stage"


def test_nothing_is_accepted_while_a_hold_lasts(open_world):
    open_world.sign("rex", "researcher-terms")
    request = ask(open_world, "rex")
    with open_world.begin("sam") as work:
        release_service.lay_hold(work, scope="everything", scope_id=None, reason="Leak.")
    with pytest.raises(Blocked) as refused:
        act(open_world, "olga", service.accept, request.id)
    assert [b.code for b in refused.value.blockers] == ["held"]


def test_nobody_decides_their_own_access(open_world):
    request = ask(open_world, "rex")
    with open_world.works.begin(OPERATOR) as work:
        identity.assign_role(work, person="rex", role="access_officer")
    for call in (service.accept, reject):
        with pytest.raises(Forbidden) as refused:
            act(open_world, "rex", call, request.id)
        assert refused.value.reason == "access.own"
    with pytest.raises(Forbidden), open_world.begin("rex") as work:
        service.grant(work, repo_id=REPO, handle="rex")


def test_a_rejection_carries_a_reason_and_a_date_that_is_kept(open_world, clock):
    request = ask(open_world, "rex")
    with pytest.raises(Invalid):
        act(open_world, "olga", service.reject, request.id, reason="x" * 201)
    row = act(open_world, "olga", service.reject, request.id, reason="No purpose.")
    assert (row.status, row.reason) == (Status.REJECTED, "No purpose.")
    assert row.may_reapply_after == clock.now() + REAPPLY_AFTER
    with open_world.begin("rex", read_only=True) as work:
        assert service.show_request(work, request.id).events[-1].comment == "No purpose."
    clock.move(REAPPLY_AFTER - DAY)
    with pytest.raises(Conflict) as refused:
        ask(open_world, "rex")
    assert refused.value.reason == "access.rejected"
    assert "No purpose." in refused.value.sentence
    clock.move(DAY)
    again = ask(open_world, "rex")
    assert (again.id != request.id, again.status) == (True, Status.PENDING)


def test_access_is_lost_when_an_acceptance_is_taken_back(open_world):
    open_world.sign("rex", "researcher-terms")
    request = ask(open_world, "rex")
    first = act(open_world, "olga", service.accept, request.id)
    row = act(open_world, "olga", service.reopen, request.id)
    assert (row.status, row.grant_id, row.decided_by) == (Status.PENDING, None, None)
    assert open_world.grant(first.grant_id).state == "revoked"
    assert allowed(open_world, "rex")[0] is False
    second = act(open_world, "olga", service.accept, request.id)
    assert second.grant_id != first.grant_id
    assert allowed(open_world, "rex") == (False, "grant.pending"), "letting in again takes two"
    with open_world.begin("otto") as work:
        partners.consent_to_grant(work, second.grant_id)
    assert allowed(open_world, "rex") == (True, "grant")
    gone = act(open_world, "olga", service.reject, request.id, reason="After all, no.")
    assert gone.status is Status.REJECTED
    assert open_world.grant(second.grant_id).state == "revoked"
    back = act(open_world, "olga", service.decide, request.id, status=Status.ACCEPTED)
    assert back.status is Status.ACCEPTED


def test_a_request_whose_grant_has_ended_is_over_and_one_may_ask_again(open_world):
    open_world.sign("rex", "researcher-terms")
    request = ask(open_world, "rex")
    row = act(open_world, "olga", service.accept, request.id)
    with open_world.begin("sam") as work:
        partners.suspend_grant(work, row.grant_id, reason="Looking.")
    with pytest.raises(Conflict) as refused:
        ask(open_world, "rex")
    assert "suspended" in refused.value.sentence
    with open_world.begin("sam") as work:
        partners.revoke_grant(work, row.grant_id, reason="Terms broken.")
    with open_world.begin("olga", read_only=True) as work:
        assert service.list_requests(work, status=Status.ACCEPTED) == []
        assert [r.id for r in service.list_requests(work, status=Status.ENDED)] == [request.id]
    with pytest.raises(Conflict):
        act(open_world, "olga", reject, request.id)
    assert ask(open_world, "rex").status is Status.PENDING


def test_requests_are_listed_by_status(open_world):
    open_world.sign("rex", "researcher-terms")
    waiting = ask(open_world, "ron")
    accepted = act(open_world, "olga", service.accept, ask(open_world, "rex").id)
    rejected = act(open_world, "olga", service.reject, ask(open_world, "oto").id, reason="No.")
    with open_world.begin("olga", read_only=True) as work:
        listed = {
            status: [row.handle for row in service.list_requests(work, repo_id=REPO, status=status)]
            for status in Status
        }
        with pytest.raises(NotFound):
            service.list_requests(work, repo_id="gpt2-mini/none")
    assert listed[Status.PENDING] == [waiting.handle]
    assert listed[Status.ACCEPTED] == [accepted.handle]
    assert listed[Status.REJECTED] == [rejected.handle]


def test_a_reviewer_names_the_applicant_or_the_request(open_world):
    request = ask(open_world, "rex")
    with open_world.begin("olga") as work:
        for named in ({"handle": "rex"}, {"request_id": request.id}):
            assert service.find_for(work, repo_id=REPO, **named).id == request.id
        for missing in ({"handle": "ron"}, {"handle": "nobody"}, {"request_id": "arq_x"}):
            with pytest.raises(NotFound):
                service.find_for(work, repo_id=REPO, **missing)
        for wrong in ({}, {"handle": "rex", "request_id": request.id}):
            with pytest.raises(Invalid):
                service.find_for(work, repo_id=REPO, **wrong)
    with pytest.raises(Forbidden), open_world.begin("mia") as work:
        service.find_for(work, repo_id=REPO, handle="rex")


# --- without a request ---------------------------------------------------------------------------


def test_somebody_who_has_not_asked_is_let_in(open_world):
    open_world.sign("rex", "researcher-terms")
    with open_world.begin("olga") as work:
        row = service.grant(work, repo_id=REPO, handle="rex")
    assert row.status is Status.ACCEPTED
    assert allowed(open_world, "rex") == (True, "grant")
    with open_world.begin("rex", read_only=True) as work:
        events = service.show_request(work, row.id).events
    assert [(e.to_state, e.comment) for e in events] == [
        ("approved", "Admitted without a request.")
    ]
    with pytest.raises(Conflict) as refused, open_world.begin("olga") as work:
        service.grant(work, repo_id=REPO, handle="rex")
    assert refused.value.reason == "access.granted"
    with pytest.raises(NotFound), open_world.begin("olga") as work:
        service.grant(work, repo_id=REPO, handle="nobody")


def test_letting_somebody_in_answers_their_waiting_request(open_world):
    open_world.sign("rex", "researcher-terms")
    request = ask(open_world, "rex")
    with open_world.begin("olga") as work:
        assert service.grant(work, repo_id=REPO, handle="rex").id == request.id


def test_a_refused_admission_leaves_no_request_behind(open_world):
    with pytest.raises(Conflict), open_world.begin("olga") as work:
        service.grant(work, repo_id=REPO, handle="rex")
    with open_world.begin("olga", read_only=True) as work:
        assert service.list_requests(work) == []
        assert papers.list_grants(work) == []

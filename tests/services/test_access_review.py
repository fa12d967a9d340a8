"""Reviewing access requests through the services, on a real database."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from make_partners import REPO, World, database_url, partnered, world
from sqlalchemy import select
from test_partners import allowed, last_leaves

from stagerelease.access import service
from stagerelease.access.rules import (
    LONGEST_TERM,
    MAX_EVENTS,
    MAX_MESSAGE,
    RETURNED_FOR,
    SUBMITTED_FOR,
    Status,
)
from stagerelease.identity import service as identity
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR, SYSTEM
from stagerelease.kernel.errors import (
    Conflict,
    DomainError,
    Forbidden,
    Invalid,
    NotFound,
    Stale,
    Unauthenticated,
)
from stagerelease.ledger.tables import LogDetail

__all__ = ["database_url", "partnered", "world"]  # fixtures
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
ANSWERS = {"organisation": "A lab of secrets", "purpose": "Telling machine text apart."}


@pytest.fixture
def open_world(world: World) -> World:
    """The track is at the researcher stage; nobody has signed; olga and otto review."""
    world.climb("researcher")
    return world


def asked(world: World, who: str = "rex"):
    with world.begin(who) as work:
        return service.submit(work, repo_id=REPO, answers=ANSWERS)


def reject(work, request_id, **options):
    """Reject for a reason, where the reason is not what is tried."""
    return service.reject(work, request_id, **({"reason": "No."} | options))


def act(world: World, who: str, call, request_id: str, **options):
    with world.begin(who) as work:
        return call(work, request_id, **options)


def page(world: World, who: str, request_id: str):
    with world.begin(who, read_only=True) as work:
        return service.request_page(work, request_id)


def notices(world: World, subject: str | None = None) -> list[dict]:
    """Return what was emitted, oldest first."""
    with world.works.begin(read_only=True) as work:
        rows = work.session.execute(
            select(Job.payload).where(Job.kind == "notices.deliver").order_by(Job.id)
        ).scalars()
        return [p for p in rows if subject in (None, p["subject"])]


def sweep(world: World) -> int:
    with world.works.begin(SYSTEM) as work:
        return service.sweep_over(work)


# --- taking up ----------------------------------------------------------------------------------


def test_taking_a_request_up_puts_it_into_review_once(open_world):
    request = asked(open_world)
    row = act(open_world, "olga", service.assign, request.id)
    assert (row.state, row.assignee, row.expires_at) == ("in_review", "olga", None)
    assert act(open_world, "olga", service.assign, request.id) == row
    row = act(open_world, "olga", service.assign, request.id, assignee="otto")
    assert (row.state, row.assignee) == ("in_review", "otto")
    events = page(open_world, "rex", request.id).events
    assert [(e.kind, e.to_state, e.by) for e in events] == [
        ("submitted", "submitted", "applicant"),
        ("assigned", "in_review", "staff"),
        ("assigned", "in_review", "staff"),
    ]
    told = [(n["event"], n["people"]) for n in notices(open_world)]
    assert told[-1] == ("request.assigned", [open_world.id("otto")])


def test_only_who_decides_requests_reviews_them(open_world):
    request = asked(open_world)
    for who in ("rex", "mia", "aud", "rae"):
        with pytest.raises(Forbidden):
            act(open_world, who, service.assign, request.id)
    with pytest.raises(NotFound):
        act(open_world, "ron", service.assign, request.id)
    for wrong in ("mia", "rex", "bot"):
        with pytest.raises((Invalid, Forbidden)):
            act(open_world, "olga", service.assign, request.id, assignee=wrong)
    for missing in ("nobody", "\x00"):
        with pytest.raises(NotFound):
            act(open_world, "olga", service.assign, request.id, assignee=missing)
    with pytest.raises(Forbidden):
        act(open_world, "operator", service.assign, request.id)
    assert page(open_world, "olga", request.id).request.state == "submitted"


def test_two_reviewers_at_once_are_told_that_it_moved(open_world):
    request = asked(open_world)
    seen = page(open_world, "otto", request.id).request.version
    act(open_world, "olga", service.reject, request.id, reason="No.", seen=seen)
    for call, options in (
        (service.approve, {}),
        (service.reject, {"reason": "Also no."}),
        (service.assign, {}),
        (service.ask, {"question": "Why?"}),
    ):
        with pytest.raises(Stale):
            act(open_world, "otto", call, request.id, seen=seen, **options)
    for call, options in (
        (service.reject, {"reason": "Also no."}),
        (service.assign, {}),
        (service.ask, {"question": "Why?"}),
    ):
        with pytest.raises(Conflict):
            act(open_world, "otto", call, request.id, **options)


def test_of_two_decisions_at_the_same_moment_one_counts(open_world):
    open_world.sign("rex", "researcher-terms")
    request = asked(open_world)
    barrier, results = threading.Barrier(2), []

    def decide(who: str, call, options: dict) -> None:
        actor = open_world.actor(who)
        barrier.wait()
        try:
            with open_world.works.begin(actor) as work:
                results.append(call(work, request.id, seen=request.version, **options).state)
        except DomainError as error:
            results.append(error.reason)

    threads = [
        threading.Thread(target=decide, args=("olga", service.approve, {})),
        threading.Thread(target=decide, args=("otto", service.reject, {"reason": "No."})),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    won = [r for r in results if r in ("approved", "rejected")]
    assert len(results) == 2
    assert len(won) == 1
    final = page(open_world, "rex", request.id)
    assert final.request.state == won[0]
    assert [e.to_state for e in final.events] == ["submitted", won[0]]


# --- questions ----------------------------------------------------------------------------------


def test_a_question_goes_back_and_its_answer_returns(open_world, clock):
    request = asked(open_world)
    row = act(open_world, "olga", service.ask, request.id, question="Which <b>texts</b>?")
    assert (row.state, row.assignee) == ("returned", "olga")
    assert row.expires_at == clock.now() + RETURNED_FOR
    assert row.status is Status.PENDING
    with pytest.raises(Conflict):
        act(open_world, "otto", service.approve, request.id)
    clock.move(DAY)
    row = act(
        open_world,
        "rex",
        service.reply,
        request.id,
        message="English ones.",
        answers={"purpose": "Telling English machine text from human text."},
    )
    assert (row.state, row.assignee) == ("submitted", None), "who reviews it is for staff"
    assert page(open_world, "otto", request.id).request.assignee == "olga"
    assert row.answers["purpose"] == "Telling English machine text from human text."
    assert row.answers["organisation"] == ANSWERS["organisation"]
    assert row.submitted_at == request.submitted_at
    events = page(open_world, "rex", request.id).events
    assert [(e.kind, e.comment) for e in events] == [
        ("submitted", ""),
        ("assigned", ""),
        ("question", "Which <b>texts</b>?"),
        ("answered", "English ones."),
    ]
    assert open_world.id("olga") not in str(page(open_world, "rex", request.id))
    assert open_world.id("olga") in str(page(open_world, "aud", request.id))
    told = [(n["event"], n["people"]) for n in notices(open_world)][-2:]
    assert told == [
        ("request.question", [open_world.id("rex")]),
        ("request.answered", [open_world.id("olga")]),
    ]


def test_an_answer_that_is_wrong_changes_nothing(open_world):
    request = asked(open_world)
    act(open_world, "olga", service.ask, request.id, question="Where?")
    for message, answers, field in (
        ("Here.", {"purpose": "short"}, "purpose"),
        ("Here.", {"unknown": "x"}, "unknown"),
        ("Here.", {"email": "nonsense"}, "email"),
    ):
        with pytest.raises(Invalid) as refused:
            act(open_world, "rex", service.reply, request.id, message=message, answers=answers)
        assert [e.field for e in refused.value.fields] == [field]
    for message in ("", " ", "x" * (MAX_MESSAGE + 1), "\x00"):
        with pytest.raises(Invalid):
            act(open_world, "rex", service.reply, request.id, message=message)
    row = page(open_world, "rex", request.id).request
    assert (row.state, row.answers) == ("returned", ANSWERS)


def test_only_the_applicant_answers_and_only_while_somebody_reads(open_world):
    request = asked(open_world)
    for who, error in (("olga", Forbidden), ("ron", NotFound), ("mia", Forbidden)):
        with pytest.raises(error):
            act(open_world, who, service.reply, request.id, message="Hello.")
    row = act(open_world, "rex", service.reply, request.id, message="One thing more.")
    assert row.state == "submitted"
    act(open_world, "olga", service.reject, request.id, reason="No.")
    with pytest.raises(Conflict) as refused:
        act(open_world, "rex", service.reply, request.id, message="But why?")
    assert refused.value.reason == "access.rejected"


def test_a_thread_has_an_end(open_world, monkeypatch):
    request = asked(open_world)
    monkeypatch.setattr("stagerelease.access.moving.MAX_EVENTS", 3)
    for _ in range(2):
        act(open_world, "rex", service.reply, request.id, message="Hello?")
    with pytest.raises(Conflict) as refused:
        act(open_world, "rex", service.reply, request.id, message="Hello?")
    assert refused.value.reason == "access.thread-full"
    assert MAX_EVENTS == 200
    act(open_world, "olga", service.reject, request.id, reason="Enough.")


# --- notes and conflicts ------------------------------------------------------------------------


def test_notes_are_for_staff_alone(open_world):
    request = asked(open_world)
    act(open_world, "olga", service.add_note, request.id, text="I met them; seems fine.")
    shown = page(open_world, "aud", request.id)
    assert [(n.author, n.text) for n in shown.notes] == [("olga", "I met them; seems fine.")]
    theirs = page(open_world, "rex", request.id)
    assert theirs.notes == ()
    assert theirs.conflicts == ()
    assert "I met them" not in str(theirs)
    for who, error in (("rex", Forbidden), ("mia", Forbidden), ("ron", NotFound)):
        with pytest.raises(error):
            act(open_world, who, service.add_note, request.id, text="x")
    assert last_leaves(open_world, 1)[0][0] == "access_request.noted"


def test_staff_who_ask_see_no_notes_on_themselves(open_world):
    with open_world.works.begin(OPERATOR) as work:
        identity.assign_role(work, person="rex", role="access_officer")
    open_world.climb("researcher")
    with open_world.works.begin(OPERATOR) as work:
        identity.end_role(work, person="rex", role="access_officer")
    request = asked(open_world)
    act(open_world, "olga", service.add_note, request.id, text="A word.")
    with open_world.works.begin(OPERATOR) as work:
        identity.assign_role(work, person="rex", role="access_officer")
    assert page(open_world, "rex", request.id).notes == ()
    for call, options in (
        (service.assign, {}),
        (service.ask, {"question": "Me?"}),
        (service.approve, {}),
        (reject, {}),
        (service.add_note, {"text": "x"}),
    ):
        with pytest.raises(Forbidden) as refused:
            act(open_world, "rex", call, request.id, **options)
        assert refused.value.reason == "access.own"


def test_a_declared_conflict_keeps_a_reviewer_out_for_good(open_world):
    open_world.sign("rex", "researcher-terms")
    request = asked(open_world)
    act(open_world, "olga", service.assign, request.id)
    first = act(open_world, "olga", service.declare_conflict, request.id, reason="My cousin.")
    assert (first.handle, first.declared) == ("olga", True)
    again = act(open_world, "olga", service.declare_conflict, request.id, reason="Again.")
    assert again == first
    assert page(open_world, "otto", request.id).request.assignee is None
    for call, options in (
        (service.assign, {}),
        (service.ask, {"question": "?"}),
        (service.approve, {}),
        (service.accept, {}),
        (service.reject, {"reason": "No."}),
        (service.decide, {"status": Status.ACCEPTED}),
    ):
        with pytest.raises(Forbidden) as refused:
            act(open_world, "olga", call, request.id, **options)
        assert refused.value.reason == "access.conflict-declared"
    with pytest.raises(Forbidden):
        act(open_world, "otto", service.assign, request.id, assignee="olga")
    with pytest.raises(Forbidden), open_world.begin("olga") as work:
        service.grant(work, repo_id=REPO, handle="rex")
    shown = page(open_world, "otto", request.id).conflicts
    assert [(c.handle, c.reason, c.declared) for c in shown] == [("olga", "My cousin.", True)]
    row = act(open_world, "otto", service.approve, request.id)
    assert row.state == "approved"
    with pytest.raises(Conflict):
        act(open_world, "otto", service.declare_conflict, request.id, reason="Late.")
    with pytest.raises(Forbidden):
        act(open_world, "olga", service.reopen, request.id)


def test_nobody_decides_on_a_colleague(open_world):
    with open_world.works.begin(OPERATOR) as work:
        identity.add_member(work, organisation="lab-a", person="olga", role="partner_member")
    open_world.sign("ann", "model-sharing", organisation="lab-a")
    request = asked(open_world, "art")
    for call in (service.approve, reject, service.assign):
        with pytest.raises(Forbidden) as refused:
            act(open_world, "olga", call, request.id)
        assert refused.value.reason == "access.same-organisation"
    shown = page(open_world, "olga", request.id).conflicts
    assert [(c.handle, c.declared) for c in shown] == [("olga", False)]
    with pytest.raises(Forbidden), open_world.begin("olga") as work:
        service.grant(work, repo_id=REPO, handle="art")
    assert act(open_world, "otto", service.approve, request.id).state == "approved"


# --- deciding -----------------------------------------------------------------------------------


def test_an_end_of_access_is_bounded_by_policy(open_world, clock):
    open_world.sign("rex", "researcher-terms")
    request = asked(open_world)
    for bad in (clock.now(), clock.now() - DAY, clock.now() + LONGEST_TERM + SECOND):
        with pytest.raises(Invalid):
            act(open_world, "olga", service.approve, request.id, until=bad)
    until = clock.now() + LONGEST_TERM
    row = act(open_world, "olga", service.approve, request.id, until=until, comment="Welcome.")
    assert open_world.grant(row.grant_id).valid_until == until
    assert page(open_world, "rex", request.id).events[-1].comment == "Welcome."
    told = notices(open_world, f"access_request:{request.id}")[-1]
    assert (told["event"], told["people"]) == ("request.approved", [open_world.id("rex")])
    assert (told["facts"]["must_sign"], told["facts"]["grant"]) == (False, row.grant_id)


def test_a_rejection_says_why_and_when_to_ask_again(open_world, clock):
    request = asked(open_world)
    for nothing in ("", "  "):
        with pytest.raises(Invalid) as refused:
            act(open_world, "olga", service.reject, request.id, reason=nothing)
        assert refused.value.reason == "access.reason"
        assert [f.field for f in refused.value.fields] == ["reason"]
    for bad in (clock.now() - SECOND, clock.now() + timedelta(days=367)):
        with pytest.raises(Invalid):
            act(open_world, "olga", reject, request.id, may_reapply_after=bad)
    when = clock.now() + 10 * DAY
    row = act(
        open_world, "olga", service.reject, request.id, reason="Not yet.", may_reapply_after=when
    )
    assert (row.reason, row.may_reapply_after) == ("Not yet.", when)
    told = notices(open_world, f"access_request:{request.id}")[-1]
    assert (told["event"], told["facts"]["reason"]) == ("request.rejected", "Not yet.")
    clock.set(when)
    assert asked(open_world).id != request.id


def test_the_log_holds_no_word_of_anybody(open_world):
    request = asked(open_world)
    act(open_world, "olga", service.ask, request.id, question="A question in secret words?")
    act(open_world, "rex", service.reply, request.id, message="An answer in secret words.")
    act(open_world, "otto", service.add_note, request.id, text="A note in secret words.")
    act(open_world, "otto", service.declare_conflict, request.id, reason="Secret words too.")
    act(open_world, "olga", service.reject, request.id, reason="No, in secret words.")
    with open_world.works.begin(read_only=True) as work:
        details = work.session.execute(select(LogDetail.body)).scalars()
        whole = b"\n".join(details).decode()
    assert "answers_sha256" in whole
    assert "secret" not in whole.lower()
    assert '"rex"' not in whole


# --- over ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("returned", "wait"), [(False, SUBMITTED_FOR), (True, RETURNED_FOR)])
def test_waiting_too_long_ends_a_request_at_its_instant_and_is_told_once(
    open_world, clock, returned, wait
):
    open_world.sign("rex", "researcher-terms")
    request = asked(open_world)
    if returned:
        act(open_world, "olga", service.ask, request.id, question="Still there?")
    clock.move(wait - SECOND)
    with open_world.works.begin(read_only=True) as work:
        assert service.sweep_due(work) is False
    clock.move(SECOND)
    who, call = ("rex", service.reply) if returned else ("olga", service.approve)
    with pytest.raises(Conflict) as refused:
        act(open_world, who, call, request.id, **({"message": "Yes!"} if returned else {}))
    assert refused.value.reason == "access.expired", "enforced at use, before any sweep"
    with open_world.works.begin(read_only=True) as work:
        assert service.sweep_due(work) is True
    assert [sweep(open_world), sweep(open_world)] == [1, 0]
    shown = page(open_world, "rex", request.id)
    assert (shown.request.state, shown.request.status) == ("expired", Status.WITHDRAWN)
    assert [e.to_state for e in shown.events].count("expired") == 1
    assert shown.events[-1].by == "system"
    told = [n for n in notices(open_world) if n["event"] == "request.expired"]
    assert [n["people"] for n in told] == [[open_world.id("rex")]]
    assert asked(open_world).id != request.id


def test_one_may_ask_again_before_the_sweep_has_come(open_world, clock):
    request = asked(open_world)
    clock.move(SUBMITTED_FOR)
    again = asked(open_world)
    assert again.id != request.id
    assert sweep(open_world) == 1
    assert page(open_world, "rex", again.id).request.state == "submitted"


def test_in_review_nothing_is_over(open_world, clock):
    request = asked(open_world)
    act(open_world, "olga", service.assign, request.id)
    clock.move(3 * SUBMITTED_FOR)
    assert sweep(open_world) == 0
    assert act(open_world, "olga", service.reject, request.id, reason="No.").state == "rejected"


# --- the queue ----------------------------------------------------------------------------------


def queued(world: World, who: str = "olga", **options):
    with world.begin(who, read_only=True) as work:
        return service.queue(work, **options)


def test_the_queue_is_oldest_first_filtered_and_paged_by_key(open_world, clock):
    ids = []
    for who in ("rex", "ron", "oto", "art", "bea"):
        ids.append(asked(open_world, who).id)
        clock.move(DAY)
    act(open_world, "olga", service.assign, ids[1])
    act(open_world, "olga", service.ask, ids[2], question="?")
    act(open_world, "olga", service.reject, ids[4], reason="No.")
    whole = queued(open_world)
    assert [q.request.id for q in whole.rows] == ids[:4]
    assert [q.age_seconds for q in whole.rows] == [d * 86_400 for d in (5, 4, 3, 2)]
    assert whole.waiting == {"submitted": 2, "in_review": 1, "returned": 1}
    assert (whole.next, whole.times.count) == (None, 1)
    first = queued(open_world, limit=2)
    assert (len(first.rows), first.next) == (2, ids[1])
    act(open_world, "olga", service.reject, ids[0], reason="Gone meanwhile.")
    assert [q.request.id for q in queued(open_world, limit=2, after=first.next).rows] == ids[2:4]
    assert [q.request.id for q in queued(open_world, assignee="me").rows] == ids[1:3]
    assert [q.request.id for q in queued(open_world, assignee="olga").rows] == ids[1:3]
    assert [q.request.id for q in queued(open_world, assignee="nobody").rows] == [ids[3]]
    assert [q.request.id for q in queued(open_world, states=["rejected"]).rows] == [ids[0], ids[4]]
    older = queued(open_world, older_than=3 * DAY)
    assert [q.request.id for q in older.rows] == [ids[1]]
    assert len(queued(open_world, repo_id=REPO).rows) == 3
    assert queued(open_world, after="arq_none").rows == ()
    for wrong in ({"states": ["nonsense"]}, {"limit": 0}, {"limit": 201}):
        with pytest.raises(Invalid):
            queued(open_world, **wrong)
    for missing in ({"repo_id": "no/ne"}, {"assignee": "nobody-here"}, {"assignee": "\x00"}):
        with pytest.raises(NotFound):
            queued(open_world, **missing)


def test_the_queue_is_for_staff(open_world):
    for who in ("rex", "ann"):
        with pytest.raises(Forbidden):
            queued(open_world, who)
    with open_world.works.begin(ANONYMOUS) as work, pytest.raises(Unauthenticated):
        service.queue(work)


def test_how_long_answers_take_is_counted_and_said(open_world, clock):
    with open_world.works.begin(ANONYMOUS, read_only=True) as work:
        assert service.decision_times(work).count == 0
    open_world.sign("ann", "model-sharing", organisation="lab-a")
    with open_world.begin("olga") as work:  # nobody waited for this one
        service.grant(work, repo_id=REPO, handle="art")
    for who, wait in (("rex", 1), ("ron", 3), ("oto", 8)):
        request = asked(open_world, who)
        clock.move(wait * DAY)
        act(open_world, "olga", service.reject, request.id, reason="No.")
    with open_world.works.begin(ANONYMOUS, read_only=True) as work:
        times = service.decision_times(work)
    assert (times.count, times.median_seconds, times.p90_seconds) == (3, 3 * 86_400, 8 * 86_400)
    assert times.sentence == "Median answer 3 days (only 3 decisions in the last 90 days)."
    act(open_world, "olga", service.reopen, request.id)
    clock.move(80 * DAY)
    with open_world.works.begin(ANONYMOUS, read_only=True) as work:
        assert service.decision_times(work).count == 1, "the oldest fell out, one was taken back"


# --- approval before the signature ---------------------------------------------------------------


@pytest.mark.parametrize("call", [service.approve, service.decide])
def test_an_approval_waits_for_the_signature_and_begins_with_it(open_world, call):
    request = asked(open_world, "oto")  # has no role yet
    options = {"status": Status.ACCEPTED} if call is service.decide else {}
    row = act(open_world, "olga", call, request.id, **options)
    assert (row.state, row.grant_state, row.status) == ("approved", "pending", Status.ACCEPTED)
    assert allowed(open_world, "oto")[0] is False
    assert "researcher" in open_world.actor("oto").roles
    told = notices(open_world, f"access_request:{request.id}")[-1]
    assert (told["event"], told["people"]) == ("request.approved", [open_world.id("oto")])
    assert told["facts"]["link_path"] == "/agreements/researcher-terms/sign"
    assert told["facts"]["must_sign"] is True
    open_world.sign("oto", "researcher-terms")
    assert page(open_world, "oto", request.id).request.grant_state == "active"
    assert allowed(open_world, "oto")[0] is True


def test_an_approved_member_waits_for_their_administrator(world):
    world.climb("partner")
    request = asked(world, "art")
    row = act(world, "olga", service.approve, request.id)
    assert row.grant_state == "pending"
    told = notices(world, f"access_request:{request.id}")[-1]
    assert told["facts"]["next"].startswith("It begins when an administrator")
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert allowed(world, "art")[0] is True


def test_an_approval_that_was_never_signed_can_be_taken_back(open_world):
    request = asked(open_world)
    act(open_world, "olga", service.approve, request.id)
    row = act(open_world, "olga", service.reject, request.id, reason="After all, no.")
    assert (row.state, row.grant_state) == ("rejected", "revoked")
    open_world.sign("rex", "researcher-terms")
    assert allowed(open_world, "rex")[0] is False

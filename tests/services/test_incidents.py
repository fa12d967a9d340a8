"""Incidents through their services, on a real database: from the first word to closing."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_incidents import closed, confirmed, mitigated, report, secured, triaged
from make_partners import database_url, partnered, world
from sqlalchemy import select

from stagerelease.entitlements import service as entitlements
from stagerelease.identity import service as identity
from stagerelease.incidents import queries, service
from stagerelease.incidents.service import Links
from stagerelease.incidents.tables import Incident, IncidentHold
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import (
    Blocked,
    Conflict,
    DomainError,
    Forbidden,
    Invalid,
    NotFound,
    Unauthenticated,
)
from stagerelease.ledger.tables import LogDetail, LogLeaf
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service

__all__ = ["database_url", "partnered", "secured", "world"]  # fixtures


def state_of(world, number):
    with world.works.begin(read_only=True) as work:
        return queries.load_incident(work, number).state


def log_types(world, since=0):
    with world.works.begin(read_only=True) as work:
        bodies = work.session.execute(
            select(LogLeaf.body).where(LogLeaf.idx >= since).order_by(LogLeaf.idx)
        ).scalars()
        return [json.loads(body)["type"] for body in bodies]


def events(world):
    with world.works.begin(read_only=True) as work:
        jobs = work.session.execute(select(Job.payload).where(Job.kind == "notices.deliver"))
        return [payload for (payload,) in jobs]


def allowed(world, who):
    with world.works.begin(world.actor(who), read_only=True) as work:
        return entitlements.see(work, work.actor, "gpt2-mini/one").decision


# --- who may ------------------------------------------------------------------------------------

ACTS = {
    "triage": lambda w, n: service.triage(w, n, severity="low", blocking=False),
    "reassess": lambda w, n: service.reassess(w, n, reason="Why."),
    "confirm": lambda w, n: service.confirm(w, n, reason="Why."),
    "dismiss": lambda w, n: service.dismiss(w, n, reason="Why."),
    "mitigate": lambda w, n: service.mitigate(w, n, reason="Why."),
    "close": lambda w, n: service.close(w, n, outcome="Done."),
    "reopen": lambda w, n: service.reopen(w, n, reason="Why."),
    "note": lambda w, n: service.add_note(w, n, text="A word."),
    "advisory": lambda w, n: service.send_advisory(w, n, text="A word."),
    "erase": lambda w, n: service.erase_report(w, n, reason="Asked."),
}


@pytest.mark.parametrize("act", ACTS)
def test_only_who_handles_incidents_does(secured, act):
    number = triaged(secured)
    for who in ("mia", "rae", "olga", "aud", "ann", "rex"):
        with pytest.raises(Forbidden), secured.begin(who) as work:
            ACTS[act](work, number)
    with pytest.raises(Unauthenticated), secured.works.begin() as work:
        ACTS[act](work, number)
    assert state_of(secured, number) == "triaged"


def test_staff_read_and_others_do_not(secured):
    number = report(secured, contact="me@example.org").incident_id
    for who, contact in (("aud", None), ("mia", None), ("sam", "me@example.org")):
        with secured.begin(who, read_only=True) as work:
            page = service.show_incident(work, number)
            assert service.list_incidents(work)[0].id == number
        assert page.report.contact == contact
        assert page.report.has_contact
    for who in ("ann", "rex", "oto"):
        with pytest.raises(Forbidden), secured.begin(who, read_only=True) as work:
            service.show_incident(work, number)
        with pytest.raises(Forbidden), secured.begin(who, read_only=True) as work:
            service.list_incidents(work)


# --- confirming ---------------------------------------------------------------------------------


def test_confirming_a_blocking_incident_stops_everybody_in_the_same_transaction(secured):
    secured.granted()
    assert allowed(secured, "ann").allowed
    number = triaged(secured)
    assert allowed(secured, "ann").allowed  # triage stops nothing
    since = len(log_types(secured))
    with secured.begin("sam") as work:
        page = service.confirm(work, number, reason="Seen.")
        inside = entitlements.see(work, secured.actor("ann"), "gpt2-mini/one").decision
    assert not inside.allowed
    assert inside.reason == "held"
    for who in ("ann", "art", "rex", "oto", "mia", "sam"):
        if (decision := allowed(secured, who)).visible:
            assert not decision.allowed, who
            assert f"incident {number}" in decision.sentence
    (hold,) = page.holds
    assert (hold.scope, hold.scope_id) == ("track", secured.track_id)
    assert page.holds_active == (hold.id,)
    assert log_types(secured, since) == ["advisory.sent", "hold.laid", "incident.confirmed"]


@pytest.mark.parametrize(
    ("links", "scopes"),
    [
        (lambda w: Links(everything=True), [("everything", None)]),
        (lambda w: Links(families=["gpt2-mini"]), [("family", "gpt2-mini")]),
        (lambda w: Links(tracks=[w.track_id]), [("track", "$")]),
        (
            lambda w: Links(tracks=[w.track_id], families=["gpt2-mini"]),
            [("family", "gpt2-mini"), ("track", "$")],
        ),
    ],
)
def test_one_hold_for_each_thing_covered(secured, links, scopes):
    secured.granted()
    page = confirmed(secured, links=links(secured))
    wanted = [(s, secured.track_id if i == "$" else i) for s, i in scopes]
    assert [(hold.scope, hold.scope_id) for hold in page.holds] == wanted
    assert not allowed(secured, "ann").allowed


def test_one_that_does_not_block_stops_nothing_and_tells_nobody_unless_asked(secured):
    secured.granted()
    page = confirmed(secured, blocking=False)
    assert page.holds == ()
    assert page.advisories == ()
    assert allowed(secured, "ann").allowed
    page = confirmed(secured, blocking=False, advisory="Keep your eyes open.")
    assert page.advisories[0].text == "Keep your eyes open."
    assert allowed(secured, "ann").allowed


def test_a_failure_leaves_nothing_half_done(secured):
    secured.granted()
    number = triaged(secured)
    before = log_types(secured)
    with pytest.raises(RuntimeError), secured.begin("sam") as work:
        service.confirm(work, number, reason="Seen.")
        raise RuntimeError("the power went")
    assert state_of(secured, number) == "triaged"
    assert allowed(secured, "ann").allowed
    assert log_types(secured) == before
    assert not [e for e in events(secured) if e["event"] in ("incident.confirmed", "advisory.sent")]


def test_a_blocking_incident_covers_something_and_has_a_severity(secured):
    number = report(secured).incident_id
    with pytest.raises(Invalid) as refused, secured.begin("sam") as work:
        service.triage(work, number, severity="high", blocking=True)
    assert [f.field for f in refused.value.fields] == ["tracks"]
    with pytest.raises(Invalid) as refused, secured.begin("sam") as work:
        service.triage(work, number, severity="dire", blocking=False, actor_tier=4)
    assert [f.field for f in refused.value.fields] == ["severity", "actor_tier"]
    with pytest.raises(Conflict), secured.begin("sam") as work:
        service.confirm(work, number, reason="At once.")


@pytest.mark.parametrize(
    "links",
    [
        Links(tracks=["trk_none"]),
        Links(families=["none"]),
        Links(grants=["grt_none"]),
        Links(evidence=["evd_none"]),
        Links(tracks=["x" * 5000]),
        Links(families=["\x00"]),
        Links(grants=["💥"]),
    ],
)
def test_what_is_named_must_be_there(secured, links):
    number = report(secured).incident_id
    with pytest.raises(NotFound), secured.begin("sam") as work:
        service.triage(work, number, severity="low", blocking=False, links=links)
    with pytest.raises(Invalid), secured.begin("sam") as work:
        service.triage(
            work, number, severity="low", blocking=False, links=Links(grants=["g"] * 201)
        )


def test_triage_again_replaces_what_was_said(secured):
    grant = secured.granted()
    number = triaged(secured, links=Links(tracks=[secured.track_id], grants=[grant.id]))
    with secured.begin("sue") as work:
        service.triage(
            work, number, severity="low", blocking=False, links=Links(families=["gpt2-mini"])
        )
    with secured.begin("aud", read_only=True) as work:
        page = service.show_incident(work, number)
    assert (page.incident.severity, page.incident.blocking) == ("low", False)
    assert (page.tracks, page.families, page.grants) == ((), ("gpt2-mini",), ())
    assert [e.to_state for e in page.events] == ["reported", "triaged", "triaged"]


def test_while_it_is_open_nothing_is_promoted(secured):
    secured.climb("partner")
    number = mitigated(secured)
    with secured.begin("sam") as work:
        (hold,) = service.show_incident(work, number).holds
    for who in ("sam", "sue"):
        with secured.begin(who) as work:
            release_service.lift_hold(work, hold.id, reason="To see the gate alone.")
    with pytest.raises(Blocked) as refused:
        secured.climb("researcher")
    assert any("incident" in blocker.code for blocker in refused.value.blockers)
    for who in ("sam", "sue"):
        with secured.begin(who) as work:
            service.close(work, number, outcome="Over.")
    with secured.begin("mia") as work:  # the request that was blocked goes through now
        (waits,) = release_service.list_promotions(work, state="approved")
        release_service.apply(work, waits.id)
        assert releases.load_track(work, secured.track_id).stage == "researcher"


# --- reassessing --------------------------------------------------------------------------------


def test_what_turns_out_to_be_covered_too_is_stopped_at_once(secured):
    secured.granted()
    number = confirmed(secured).incident.id
    with secured.begin("sam") as work:
        page = service.reassess(work, number, reason="It spread.", links=Links(everything=True))
    assert [hold.scope for hold in page.holds] == ["track", "everything"]
    assert page.tracks == (secured.track_id,)  # what was covered stays covered
    assert page.incident.scope == "everything"
    assert len(page.advisories) == 2


def test_one_that_turns_out_to_block_stops_at_once_and_never_the_other_way(secured):
    secured.granted()
    number = confirmed(secured, blocking=False).incident.id
    with secured.begin("sam") as work:
        page = service.reassess(work, number, reason="Worse.", blocking=True, severity="critical")
    assert page.incident.blocking
    assert page.incident.severity == "critical"
    assert len(page.holds) == 1
    assert not allowed(secured, "ann").allowed
    with pytest.raises(Conflict) as refused, secured.begin("sam") as work:
        service.reassess(work, number, reason="Let go.", blocking=False)
    assert refused.value.reason == "incident.frees"


# --- closing ------------------------------------------------------------------------------------


def test_closing_a_blocking_incident_takes_two_people_who_say_the_same(secured):
    number = mitigated(secured)
    with secured.begin("sam") as work:
        page = service.close(work, number, outcome="Contained.", public_outcome="It is over.")
    assert page.incident.state == "mitigated"
    assert [c.person_id for c in page.consents] == [secured.id("sam")]
    with pytest.raises(Conflict) as refused, secured.begin("sam") as work:
        service.close(work, number, outcome="Contained.", public_outcome="It is over.")
    assert refused.value.reason == "incident.consented"
    with secured.begin("sue") as work:  # other words are another proposal
        page = service.close(work, number, outcome="Contained, I think.")
    assert page.incident.state == "mitigated"
    with secured.begin("sue") as work:
        page = service.close(work, number, outcome="Contained.", public_outcome="It is over.")
    assert page.incident.state == "closed"
    assert page.incident.outcome == "Contained."
    assert page.incident.public_outcome == "It is over."


def test_closing_lifts_no_hold_and_says_which_stay(secured):
    secured.granted()
    number = closed(secured)
    with secured.begin("sam", read_only=True) as work:
        page = service.show_incident(work, number)
    assert page.incident.state == "closed"
    assert len(page.holds_active) == 1
    assert not allowed(secured, "ann").allowed
    for who in ("sam", "sue"):
        with secured.begin(who) as work:
            release_service.lift_hold(work, page.holds_active[0], reason="Over.")
    assert allowed(secured, "ann").allowed
    with secured.begin("sam", read_only=True) as work:
        assert service.show_incident(work, number).holds_active == ()


def test_a_consent_counts_while_its_giver_may_still_give_it(secured):
    number = mitigated(secured)
    with secured.begin("sam") as work:
        service.close(work, number, outcome="Over.")
    with secured.works.begin(OPERATOR) as work:
        identity.end_role(work, person="sam", role="security")
    with secured.begin("sue") as work:
        page = service.close(work, number, outcome="Over.")
    assert page.incident.state == "mitigated"


def test_neither_shell_nor_service_account_stands_for_a_person(secured):
    number = mitigated(secured)
    with secured.works.begin(OPERATOR) as work:
        identity.assign_role(work, person="bot", role="security")
    with pytest.raises(Forbidden), secured.works.begin(OPERATOR) as work:
        service.close(work, number, outcome="Over.")
    with pytest.raises(Forbidden), secured.begin("bot") as work:
        service.close(work, number, outcome="Over.")


def test_a_step_in_between_voids_the_consents(secured):
    number = mitigated(secured)
    with secured.begin("sam") as work:
        service.close(work, number, outcome="Over.")
    with secured.begin("sam") as work:
        service.reassess(work, number, reason="Not so fast.", severity="critical")
    with secured.begin("sue") as work:
        page = service.close(work, number, outcome="Over.")
    assert page.incident.state == "mitigated"
    with secured.begin("sam") as work:
        assert service.close(work, number, outcome="Over.").incident.state == "closed"


def test_one_that_does_not_block_closes_by_one(secured):
    number = mitigated(secured, blocking=False)
    with secured.begin("sam") as work:
        assert service.close(work, number, outcome="Over.").incident.state == "closed"


# --- re-opening ---------------------------------------------------------------------------------


def test_reopening_a_blocking_incident_lays_the_hold_again(secured):
    secured.granted()
    number = closed(secured)
    with secured.begin("sam", read_only=True) as work:
        (first,) = service.show_incident(work, number).holds_active
    for who in ("sam", "sue"):
        with secured.begin(who) as work:
            release_service.lift_hold(work, first, reason="Over.")
    assert allowed(secured, "ann").allowed
    with secured.begin("sue") as work:
        page = service.reopen(work, number, reason="It is back.")
    assert page.incident.state == "confirmed"
    assert page.incident.closed_at is None
    assert [hold.id for hold in page.holds if hold.lifted_at is None] == [page.holds[-1].id]
    assert page.holds[-1].id != first
    assert not allowed(secured, "ann").allowed
    assert len(page.advisories) == 2


def test_a_hold_that_still_stands_is_not_laid_twice(secured):
    number = closed(secured)
    with secured.begin("sam") as work:
        page = service.reopen(work, number, reason="It is back.")
    assert len(page.holds) == 1
    with secured.works.begin(read_only=True) as work:
        assert len(list(work.session.execute(select(IncidentHold)))) == 1


def test_a_dismissed_report_is_triaged_again_when_it_is_reopened(secured):
    reported = report(secured)
    with secured.begin("sam") as work:
        service.triage(work, reported.incident_id, severity="low", blocking=False)
        service.dismiss(work, reported.incident_id, reason="A joke.", reply="This is a parody.")
    with secured.works.begin(read_only=True) as work:
        seen = service.follow(work, reported.reference)
    assert seen.state == "dismissed"
    assert [(u.by, u.text) for u in seen.updates] == [("staff", "This is a parody.")]
    with secured.begin("sam") as work:
        page = service.reopen(work, reported.incident_id, reason="No joke.")
    assert page.incident.state == "triaged"
    assert page.holds == ()


# --- what is told and written down --------------------------------------------------------------


def test_every_step_is_told_and_logged_in_the_same_transaction(secured):
    secured.granted()
    number = closed(secured)
    with secured.begin("sam") as work:
        service.reopen(work, number, reason="Back.")
    told = [e["event"] for e in events(secured) if e["subject"] == f"incident:{number}"]
    assert told == [
        "incident.reported",
        "incident.triaged",
        "incident.confirmed",
        "incident.mitigated",
        "incident.closed",
        "incident.reopened",
    ]
    logged = [t for t in log_types(secured) if t.startswith(("incident.", "advisory."))]
    assert logged == [
        "incident.reported",
        "incident.triaged",
        "advisory.sent",
        "incident.confirmed",
        "incident.mitigated",
        "incident.close_consented",
        "incident.close_consented",
        "incident.closed",
        "advisory.sent",
        "incident.reopened",
    ]
    with secured.begin("aud", read_only=True) as work:
        page = service.show_incident(work, number)
    assert [event.leaf_idx for event in page.events] == sorted(e.leaf_idx for e in page.events)


SECRET = "who-reported@example.org"


def test_no_contact_and_no_words_of_the_reporter_reach_log_or_notices(secured):
    reported = report(secured, text="Ann of Lab-A sells them.", contact=SECRET, about="one")
    with secured.works.begin(quiet=True) as work:
        service.add_words(work, reported.reference, text="Here is her number: 555-0199.")
    confirmed(secured)
    with secured.works.begin(read_only=True) as work:
        everything = b"".join(
            [
                *work.session.execute(select(LogLeaf.body)).scalars(),
                *work.session.execute(select(LogDetail.body)).scalars(),
                *(
                    json.dumps(p).encode()
                    for p in work.session.execute(select(Job.payload)).scalars()
                ),
            ]
        )
    for word in (SECRET, "sells them", "555-0199", reported.reference):
        assert word.encode() not in everything


def test_steps_out_of_order_are_refused_and_change_nothing(secured):
    number = report(secured).incident_id
    for act in ("confirm", "dismiss", "mitigate", "close", "reopen", "reassess", "advisory"):
        before = log_types(secured)
        with pytest.raises(Conflict), secured.begin("sam") as work:
            ACTS[act](work, number)
        assert log_types(secured) == before
        assert state_of(secured, number) == "reported"
    for unknown in (0, -1, 999, 2**31, 2**63):
        for act in ACTS.values():
            with pytest.raises(NotFound), secured.begin("sam") as work:
                act(work, unknown)


def test_lists_are_paged_and_narrowed(secured):
    numbers = [report(secured, "sam").incident_id for _ in range(5)]
    with secured.begin("sam") as work:
        service.triage(work, numbers[2], severity="high", blocking=False)
        rows = service.list_incidents(work, limit=2)
        assert [row.id for row in rows] == [numbers[4], numbers[3]]
        rows = service.list_incidents(work, limit=2, after=rows[-1].id)
        assert [row.id for row in rows] == [numbers[2], numbers[1]]
        assert [r.id for r in service.list_incidents(work, state="triaged")] == [numbers[2]]
        assert [r.id for r in service.list_incidents(work, severity="high")] == [numbers[2]]
        assert len(service.list_incidents(work, state="open")) == 5
        for wrong in ({"state": "lost"}, {"severity": "dire"}):
            with pytest.raises(Invalid):
                service.list_incidents(work, **wrong)


def test_an_incident_can_be_tried_dry(secured):
    secured.granted()
    number = triaged(secured)
    with secured.begin("sam", dry_run=True) as work:
        assert service.confirm(work, number, reason="Try.").holds_active
    assert state_of(secured, number) == "triaged"
    assert allowed(secured, "ann").allowed
    with secured.works.begin(read_only=True) as work:
        assert work.session.execute(select(Incident.confirmed_at)).scalar_one() is None


def test_gated_sentence_names_the_incident(secured):
    secured.granted()
    number = confirmed(secured).incident.id
    sentence = allowed(secured, "ann").sentence
    assert sentence == (
        f"This release is on hold: Stopped because of incident {number}. "
        "Weights were found outside the release."
    )


# --- at the same time ---------------------------------------------------------------------------


def at_once(*acts):
    """Run acts in threads; return what each gave or how it was refused."""
    results: list[object] = [None] * len(acts)

    def run(index, act):
        try:
            results[index] = act()
        except DomainError as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_confirmed_twice_at_once_it_is_confirmed_once(secured):
    secured.granted()
    number = triaged(secured)

    def act(who):
        with secured.begin(who) as work:
            return service.confirm(work, number, reason="Seen.")

    results = at_once(lambda: act("sam"), lambda: act("sue"))
    assert sum(isinstance(r, Conflict) for r in results) == 1
    with secured.begin("aud", read_only=True) as work:
        page = service.show_incident(work, number)
    assert (len(page.holds), len(page.advisories)) == (1, 1)
    assert [e.to_state for e in page.events].count("confirmed") == 1


def test_two_who_close_at_once_close_it_once(secured):
    number = mitigated(secured)

    def act(who):
        with secured.begin(who) as work:
            return service.close(work, number, outcome="Over.").incident.state

    assert sorted(at_once(lambda: act("sam"), lambda: act("sue"))) == ["closed", "mitigated"]
    assert log_types(secured).count("incident.closed") == 1


def test_a_promotion_and_a_confirmation_at_once_end_in_order(secured):
    """Either the promotion is applied before the hold is in the log, or it is refused."""
    secured.climb("partner")
    with secured.begin("mia") as work:
        request = release_service.open_promotion(
            work, track_id=secured.track_id, to="researcher", rationale="Ready."
        )
    for who in ("rae", "rob"):
        with secured.begin(who) as work:
            release_service.approve(work, request.id, request_hash=request.request_hash)
    number = triaged(secured)

    def apply():
        with secured.begin("mia") as work:
            return release_service.apply(work, request.id)

    def confirm():
        with secured.begin("sam") as work:
            return service.confirm(work, number, reason="Seen.")

    applied, _ = at_once(apply, confirm)
    types = log_types(secured)
    assert "hold.laid" in types
    if isinstance(applied, DomainError):
        assert isinstance(applied, Blocked)
        assert types.count("promotion.applied") == 1  # the one to the partner stage
    else:
        last = len(types) - 1 - types[::-1].index("promotion.applied")
        assert last < types.index("hold.laid")


# --- any walk -----------------------------------------------------------------------------------

PEOPLE = ("sam", "sue", "aud", "ann")


class Walk:
    """What must be true of one incident, kept apart from the code that is held against it."""

    def __init__(self, number):
        self.number, self.state, self.blocking = number, "reported", False
        self.consents: set[str] = set()
        self.lifted: dict[int, set[str]] = {}

    def expect(self, act, who):
        """Return whether ``act`` by ``who`` goes through, and move on if it does."""
        allowed_in = {
            "triage": ("reported", "triaged"),
            "confirm": ("triaged",),
            "dismiss": ("triaged",),
            "reassess": ("confirmed", "mitigated"),
            "mitigate": ("confirmed",),
            "close": ("mitigated",),
            "reopen": ("closed", "dismissed"),
        }[act]
        if who not in ("sam", "sue") or self.state not in allowed_in:
            return False
        if act == "close" and self.blocking:
            if who in self.consents:
                return False
            self.consents.add(who)
            if len(self.consents) == 2:
                self.state = "closed"
            return True
        self.consents = set()
        self.state = {
            "triage": "triaged",
            "confirm": "confirmed",
            "dismiss": "dismissed",
            "reassess": self.state,
            "mitigate": "mitigated",
            "close": "closed",
            "reopen": "confirmed" if self.state == "closed" else "triaged",
        }[act]
        return True


def run_act(world, who, act, walk, blocking):
    with world.begin(who) as work:
        if act == "triage":
            links = Links(tracks=[world.track_id])
            service.triage(work, walk.number, severity="low", blocking=blocking, links=links)
        elif act == "close":
            service.close(work, walk.number, outcome="Over.")
        elif act == "lift":
            for hold in queries.holds_of(work, walk.number, active=True):
                release_service.lift_hold(work, hold.id, reason="Enough.")
        else:
            getattr(service, act)(work, walk.number, reason="Because.")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["triage", "confirm", "reassess", "mitigate", "close", "reopen", "lift"]),
        st.sampled_from(PEOPLE),
        st.booleans(),
    ),
    max_size=14,
)
USUAL = [("triage", "sam", True), ("confirm", "sam", True), ("mitigate", "sam", True)]


@settings(max_examples=12)
@given(st.sampled_from([[], USUAL[:1], USUAL[:2], USUAL]), STEPS)
def test_any_walk_stops_when_it_must_and_is_freed_by_two_only(secured, start, steps):
    with secured.works.begin(OPERATOR, quiet=True) as work:
        walk = Walk(service.report(work, text="Look.").incident_id)
    for act, who, blocking in [*start, *steps]:
        if act == "lift":
            try:
                run_act(secured, who, act, walk, blocking)
            except DomainError:
                continue
            with secured.works.begin(read_only=True) as work:
                for hold in queries.holds_of(work, walk.number, active=False):
                    walk.lifted.setdefault(hold.id, set()).add(who)
            continue
        fine = walk.expect(act, who)
        if fine:
            run_act(secured, who, act, walk, blocking)
            walk.blocking = blocking if act == "triage" else walk.blocking
        else:
            with pytest.raises(DomainError):
                run_act(secured, who, act, walk, blocking)
        with secured.works.begin(read_only=True) as work:
            row = queries.load_incident(work, walk.number)
            assert (row.state, row.blocking) == (walk.state, walk.blocking)
            for hold in queries.holds_of(work, walk.number):
                if hold.lifted_at is not None:
                    assert len(walk.lifted[hold.id]) >= 2
            if fine and act in ("confirm", "reopen") and row.blocking and row.state == "confirmed":
                assert queries.holds_of(work, walk.number, active=True)
            if row.confirmed_at is None:
                assert not queries.holds_of(work, walk.number)

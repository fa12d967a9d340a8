"""A material change suspends exactly the right grants at its deadline; signing again mends it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from make_partners import YEAR, database_url, partnered, world
from test_grant_ends import sweep, told
from test_partners import allowed

from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from stagerelease.partners import queries, service
from stagerelease.partners.rules import RECONSENT_WITHIN

__all__ = ["database_url", "partnered", "world"]  # fixtures
DAY = timedelta(days=1)


@pytest.fixture
def labs(world):
    """Both laboratories signed and hold a grant for a year; so does a researcher, on own terms."""
    world.climb("researcher")
    grants = {}
    for lab, admin in (("lab-a", "ann"), ("lab-b", "bea")):
        world.sign(admin, "model-sharing", organisation=lab)
        grants[lab] = world.issue(organisation=lab).id
    world.sign("rex", "researcher-terms")
    grants["rex"] = world.issue(person="rex").id
    return grants


def states(world, grants):
    return {name: world.grant(grant_id).state for name, grant_id in grants.items()}


def test_exactly_those_who_did_not_sign_again_are_suspended_at_the_deadline(world, labs, clock):
    world.redraft("model-sharing", text="Materially new.")
    deadline = clock.now() + RECONSENT_WITHIN
    sweep(world)
    assert set(states(world, labs).values()) == {"active"}
    clock.move(3 * DAY)
    world.sign("bea", "model-sharing", organisation="lab-b")
    clock.set(deadline - timedelta(seconds=1))
    assert allowed(world, "ann") == (True, "grant")
    clock.set(deadline)
    assert allowed(world, "ann") == (False, "agreement.changed"), "by the clock, before any sweep"
    assert allowed(world, "bea") == (True, "grant")
    assert allowed(world, "rex") == (True, "grant")
    sweep(world)
    sweep(world)
    assert states(world, labs) == {"lab-a": "suspended", "lab-b": "active", "rex": "active"}
    assert world.grant(labs["lab-a"]).suspended_for == "reconsent"
    assert [n["subject"] for n in told(world, "grant.suspended")] == [f"grant:{labs['lab-a']}"]


def test_signing_the_new_version_lets_in_again_by_itself(world, labs, clock):
    world.redraft("model-sharing", text="Materially new.")
    clock.move(RECONSENT_WITHIN + DAY)
    sweep(world)
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert states(world, labs)["lab-a"] == "active"
    assert allowed(world, "ann") == (True, "grant")
    with world.begin("sam") as work:  # what a person decided is lifted by people only
        service.suspend_grant(work, labs["lab-a"], reason="Looking.")
    world.redraft("model-sharing", text="Newer still.")
    clock.move(RECONSENT_WITHIN + DAY)
    sweep(world)
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert world.grant(labs["lab-a"]).suspended_for == "decision"


def test_a_decision_on_top_of_a_missed_deadline_is_not_lifted_by_signing(world, labs, clock):
    world.redraft("model-sharing", text="Materially new.")
    clock.move(RECONSENT_WITHIN + DAY)
    sweep(world)
    with world.begin("sam") as work:
        row = service.suspend_grant(work, labs["lab-a"], reason="A leak is looked into.")
    assert (row.state, row.suspended_for) == ("suspended", "decision")
    with pytest.raises(Conflict), world.begin("sam") as work:
        service.suspend_grant(work, labs["lab-a"], reason="Again.")
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert states(world, labs)["lab-a"] == "suspended", "two people lift what one decided"
    assert allowed(world, "ann") == (False, "grant.suspended")
    for who, state in (("sam", "suspended"), ("olga", "active")):
        with world.begin(who) as work:
            assert service.resume_grant(work, labs["lab-a"]).state == state


def test_a_consent_to_lift_one_suspension_does_not_lift_a_later_decision(world, labs):
    with world.begin("olga") as work:
        service.terminate_signature(work, world.grant(labs["lab-a"]).signature_id, "They left.")
    world.sign("ann", "model-sharing", organisation="lab-a")
    with world.begin("olga") as work:
        service.resume_grant(work, labs["lab-a"])
    with world.begin("sam") as work:
        service.suspend_grant(work, labs["lab-a"], reason="A leak.")
    with world.begin("otto") as work:
        assert service.resume_grant(work, labs["lab-a"]).state == "suspended"
    with world.begin("olga") as work:
        assert service.resume_grant(work, labs["lab-a"]).state == "active"


def test_holders_are_warned_three_times_before_the_deadline(world, labs, clock):
    world.redraft("model-sharing", text="Materially new.")
    assert len(told(world, "agreement.published")) == 2
    for _ in range(32):
        sweep(world)
        clock.move(DAY)
    days = [n["facts"]["days"] for n in told(world, "agreement.reconsent_due")]
    assert sorted(days) == [1, 1, 7, 7, 30, 30]


def test_an_immaterial_version_changes_nothing_for_holders(world, labs, clock):
    world.redraft("model-sharing", text="A comma.", material=False)
    clock.move(200 * DAY)
    sweep(world)
    assert states(world, labs)["lab-a"] == "active"
    assert allowed(world, "ann") == (True, "grant")
    with world.begin("olga") as work:
        row = service.draft_version(work, agreement="model-sharing", text="B.", material=False)
        with pytest.raises(Invalid):
            service.publish_version(work, row.id, reconsent_until=work.now + DAY)


def test_the_publisher_chooses_the_deadline_within_a_year(world, labs, clock):
    with world.begin("olga") as work:
        row = service.draft_version(work, agreement="model-sharing", text="New.")
    for wrong in (clock.now(), clock.now() + 400 * DAY):
        with world.begin("olga") as work, pytest.raises(Invalid):
            service.publish_version(work, row.id, reconsent_until=wrong)
    with world.begin("olga") as work:
        done = service.publish_version(work, row.id, reconsent_until=work.now + 90 * DAY)
    assert done.reconsent_until == clock.now() + 90 * DAY
    with world.begin("ann", read_only=True) as work:
        mine = queries.list_signatures(work, organisation_ids=work.actor.organisations)
    assert mine[0].reconsent_until == done.reconsent_until


def test_a_difference_is_shown_by_line_and_by_word(world, labs):
    world.redraft("model-sharing", text="One two three.\nFour.")
    world.redraft("model-sharing", text="One two 3.\nFour.")
    with world.begin("olga", read_only=True) as work:
        found = service.diff_versions(work, "model-sharing", 2, 3)
    assert "-One two three." in found.lines
    assert "+One two 3." in found.lines
    assert ("drop", "three.") in found.words
    with world.begin("rex", read_only=True) as work, pytest.raises(NotFound):
        service.diff_versions(work, "model-sharing", 1, 3)


# --- grants that wait ----------------------------------------------------------------------------


def test_a_grant_that_waits_for_a_signature_begins_with_it(world, clock):
    world.climb("researcher")
    grant = world.issue(person="rex", await_signature=True)
    assert (grant.state, grant.awaits_agreement, grant.signature_id) == (
        "pending",
        "researcher-terms",
        None,
    )
    assert allowed(world, "rex") == (False, "grant.pending")
    world.sign("ron", "researcher-terms")
    assert allowed(world, "rex") == (False, "grant.pending"), "somebody else's signature"
    world.sign("rex", "researcher-terms")
    row = world.grant(grant.id)
    assert (row.state, row.awaits_agreement) == ("active", None)
    assert row.signature_id is not None
    assert allowed(world, "rex") == (True, "grant")
    with world.begin("rex", read_only=True) as work:
        events = [e.to_state for e in service.show_grant(work, grant.id).events]
    assert events == ["pending", "active"]


def test_a_waiting_grant_can_be_revoked_and_ends_on_its_date(world, clock):
    world.climb("researcher")
    first = world.issue(person="rex", await_signature=True)
    with world.begin("sam") as work:
        service.revoke_grant(work, first.id, reason="No.")
    second = world.issue(person="ron", await_signature=True, valid_until=clock.now() + 5 * DAY)
    clock.move(6 * DAY)
    sweep(world)
    assert world.grant(second.id).state == "expired"
    world.sign("ron", "researcher-terms")
    assert world.grant(second.id).state == "expired"


def test_letting_in_again_after_a_revocation_takes_two(world):
    grant = world.granted()
    with world.begin("sam") as work:
        service.revoke_grant(work, grant.id, reason="Terms broken.")
    again = world.issue()
    assert (again.state, again.awaits_consent) == ("pending", True)
    assert allowed(world, "ann") == (False, "grant.pending")
    for who, wrong in (("olga", Conflict), ("sam", Forbidden), ("mia", Forbidden)):
        with pytest.raises(wrong), world.begin(who) as work:
            service.consent_to_grant(work, again.id)
    with pytest.raises(Conflict), world.begin("otto") as work:
        service.resume_grant(work, again.id)  # it was never suspended
    with world.begin("otto") as work:
        assert service.consent_to_grant(work, again.id).state == "active"
    assert allowed(world, "ann") == (True, "grant")
    with pytest.raises(Conflict), world.begin("otto") as work:
        service.consent_to_grant(work, again.id)
    with world.begin("olga") as work:  # the newest was not revoked: a renewal is one person's act
        row = service.renew_grant(work, again.id, valid_until=work.now + YEAR)
    assert row.grant.state == "active"

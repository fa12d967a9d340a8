"""What one person stopped, one person does not undo: revoked, suspended, terminated, renewed."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta

import pytest
from make_partners import YEAR, database_url, partnered, world
from test_grant_ends import sweep
from test_partners import allowed

from stagerelease.access import service as access
from stagerelease.entitlements import service as entitlements
from stagerelease.evidence.holding import held_digests
from stagerelease.identity import rosters
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import Blocked, Conflict, Forbidden
from stagerelease.partners import service as partners
from stagerelease.partners.rules import RECONSENT_WITHIN

__all__ = ["database_url", "partnered", "world"]  # fixtures

DAY = timedelta(days=1)
NEVER, IN = (False, "grant.pending"), (True, "grant")


def revoke(world, grant):
    with world.begin("sam") as work:
        return partners.revoke_grant(work, grant.id, reason="It leaked.")


def suspend(world, grant):
    with world.begin("sam") as work:
        return partners.suspend_grant(work, grant.id, reason="Looking into it.")


def renew(world, grant, **changes):
    with world.begin("olga") as work:
        until = work.now + 2 * YEAR
        return partners.renew_grant(work, grant.id, **({"valid_until": until} | changes)).grant


def consent(world, grant, who="otto"):
    with world.begin(who) as work:
        return partners.consent_to_grant(work, grant.id)


def resume(world, grant, *people):
    for who in people:
        with world.begin(who) as work:
            partners.resume_grant(work, grant.id)
    return world.grant(grant.id)


@contextmanager
def raising(reason, wrong=Forbidden):
    """Expect that what is inside is refused for ``reason``."""
    with pytest.raises(wrong) as found:
        yield
    assert found.value.reason == reason


@contextmanager
def refused(world, who, reason, wrong=Conflict):
    """Open a Work of ``who`` in which something has to be refused for ``reason``."""
    with raising(reason, wrong), world.begin(who) as work:
        yield work


def enrol(world, who, role="partner_member"):
    with world.works.begin(OPERATOR) as work:
        identity.add_member(work, organisation="lab-a", person=who, role=role)


# --- letting in again ----------------------------------------------------------------------------


def test_a_grant_that_only_waited_does_not_hide_a_revocation(world, clock):
    revoke(world, world.granted())
    for _ in range(2):
        short = world.issue(valid_until=clock.now() + timedelta(seconds=1))
        assert (short.state, short.awaits_consent) == ("pending", True)
        clock.move(timedelta(seconds=2))
    third = world.issue()
    assert (third.state, third.awaits_consent, allowed(world, "art")) == ("pending", True, NEVER)
    fourth = renew(world, third)
    assert (fourth.state, fourth.awaits_consent) == ("pending", True)
    assert consent(world, third).state == "active"
    assert allowed(world, "art") == IN


def test_once_two_have_let_in_again_it_is_one_persons_act(world, clock):
    revoke(world, world.granted())
    second = world.issue(valid_until=clock.now() + 2 * DAY)
    consent(world, second)
    clock.move(2 * DAY)
    assert world.issue().state == "active"


@pytest.mark.parametrize("swept", [True, False])
def test_a_suspension_by_decision_outlives_the_grants_date(world, clock, swept):
    world.climb("partner")
    world.sign("ann", "model-sharing", organisation="lab-a")
    grant = world.issue(valid_until=clock.now() + 2 * DAY)
    suspend(world, grant)
    clock.move(2 * DAY)
    if swept:
        sweep(world)
        row = world.grant(grant.id)
        assert (row.state, row.suspended_for) == ("expired", "decision")
    with refused(world, "olga", "grant.suspended") as work:
        partners.renew_grant(work, grant.id, valid_until=work.now + YEAR)
    again = world.issue()
    assert (again.state, again.awaits_consent) == ("pending", True)
    assert not allowed(world, "art")[0]
    consent(world, again)
    assert allowed(world, "art") == IN


def test_a_suspension_that_two_lifted_asks_for_nobody_later(world, clock):
    world.climb("partner")
    world.sign("ann", "model-sharing", organisation="lab-a")
    grant = world.issue(valid_until=clock.now() + 2 * DAY)
    suspend(world, grant)
    assert resume(world, grant, "sam", "olga").state == "active"
    clock.move(2 * DAY)
    assert renew(world, grant).state == "active"


def test_a_missed_new_text_alone_asks_for_nobody_later(world, clock):
    world.climb("partner")
    world.sign("ann", "model-sharing", organisation="lab-a")
    grant = world.issue(valid_until=clock.now() + RECONSENT_WITHIN + 2 * DAY)
    world.redraft("model-sharing")
    clock.move(RECONSENT_WITHIN)
    sweep(world)
    clock.move(2 * DAY)
    sweep(world)
    assert world.grant(grant.id).suspended_for == "reconsent"
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert renew(world, grant).state == "active"


# --- renewals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [0, 1])
@pytest.mark.parametrize("how", [revoke, suspend, "given up"])
def test_a_grant_and_its_renewal_are_stopped_together(world, named, how):
    grant = world.granted()
    pair = [grant, renew(world, grant)]
    if how == "given up":
        with world.begin("ann") as work:
            partners.give_up_grant(work, pair[named].id)
    else:
        how(world, pair[named])
    state = "suspended" if how is suspend else "revoked"
    assert [world.grant(one.id).state for one in pair] == [state, state]
    assert not allowed(world, "art")[0]
    if how is suspend:
        with pytest.raises(Blocked):
            world.issue()
        assert resume(world, pair[1], "sam", "olga").state == "active"
        assert allowed(world, "art") == IN


def test_somebody_elses_grant_is_not_stopped_with_it(world):
    grant = world.granted()
    world.sign("bea", "model-sharing", organisation="lab-b")
    other = world.issue(organisation="lab-b")
    revoke(world, grant)
    assert world.grant(other.id).state == "active"


@pytest.mark.parametrize("how", ["suspended", "terminated"])
def test_a_renewal_that_waits_asks_for_consent_once_the_old_one_is_stopped(world, clock, how):
    world.climb("partner")
    short = clock.now() + 5 * DAY
    world.sign("ann", "model-sharing", organisation="lab-a", valid_until=short)
    grant = world.issue()
    clock.move(5 * DAY)  # its signature has ended
    waiting = world.issue(renewed_from=grant.id, await_signature=True)
    assert (waiting.state, waiting.awaits_consent) == ("pending", False)
    if how == "suspended":
        suspend(world, grant)
    else:
        with world.begin("sam") as work:
            partners.terminate_signature(work, grant.signature_id, "They leaked it.")
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert world.grant(waiting.id).awaits_consent
    assert not allowed(world, "art")[0]
    consent(world, waiting)
    assert allowed(world, "art") == IN


# --- signatures ----------------------------------------------------------------------------------


def test_a_terminated_signatures_grant_waits_for_two_even_after_a_missed_deadline(world, clock):
    grant = world.granted()
    world.redraft("model-sharing", text="Materially new.")
    clock.move(RECONSENT_WITHIN + DAY)
    sweep(world)
    assert world.grant(grant.id).suspended_for == "reconsent"
    with world.begin("sam") as work:
        partners.terminate_signature(work, grant.signature_id, "They leaked it.")
    assert world.grant(grant.id).suspended_for == "terms"
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert world.grant(grant.id).state == "suspended"
    assert resume(world, grant, "sam", "olga").state == "active"


def test_what_waits_for_a_new_text_is_suspended_by_a_withdrawal_too(world, clock):
    grant = world.granted()
    world.redraft("model-sharing", text="Materially new.")
    clock.move(RECONSENT_WITHIN + DAY)
    sweep(world)
    with world.begin("mia") as work:
        entitlements.withdraw(work, world.track_id, reason="Harm.")
    world.sign("ann", "model-sharing", organisation="lab-a")
    row = world.grant(grant.id)
    assert (row.state, row.suspended_for) == ("suspended", "withdrawal")


def test_signing_begins_no_grant_on_a_withdrawn_release(world):
    world.climb("partner")
    grant = world.issue(await_signature=True)
    with world.begin("mia") as work:
        entitlements.withdraw(work, world.track_id, reason="Harm.")
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert world.grant(grant.id).state == "pending"


def test_signing_begins_no_grant_whose_date_has_passed(world, clock):
    world.climb("partner")
    grant = world.issue(await_signature=True, valid_until=clock.now() + DAY)
    clock.move(DAY)  # no sweep has said so
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert world.grant(grant.id).state == "pending"


def test_nobody_consents_to_what_rests_on_a_terminated_signature(world):
    grant = world.granted()
    revoke(world, grant)
    again = world.issue()
    with world.begin("sam") as work:
        partners.terminate_signature(work, grant.signature_id, "They leaked it.")
    with refused(world, "otto", "signature.terminated") as work:
        partners.consent_to_grant(work, again.id)
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert (world.grant(again.id).state, allowed(world, "art")) == ("pending", NEVER)
    consent(world, again)
    assert allowed(world, "art") == IN


def test_consent_may_come_before_the_signature(world):
    world.climb("partner")
    first = world.issue(await_signature=True)
    revoke(world, first)
    again = world.issue(await_signature=True)
    assert consent(world, again).state == "pending"
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert allowed(world, "art") == IN


def test_a_late_countersignature_does_not_replace_what_was_signed_since(world):
    def publish(text):
        with world.begin("olga") as work:
            row = partners.draft_version(
                work, agreement="model-sharing", text=text, needs_countersignature=True
            )
            partners.publish_version(work, row.id)

    def states():
        with world.begin("otto", read_only=True) as work:
            return {row.version: row.state for row in partners.list_signatures(work)}

    world.climb("partner")
    publish("Second text.")
    second = world.sign("ann", "model-sharing", organisation="lab-a")
    publish("Third text.")
    third = world.sign("ann", "model-sharing", organisation="lab-a")
    with refused(world, "otto", "signature.newer") as work:
        partners.countersign(work, second.id)
    assert states() == {2: "pending", 3: "pending"}
    with world.begin("otto") as work:
        partners.countersign(work, third.id)
    assert states() == {2: "superseded", 3: "in_force"}


def test_an_older_signature_may_be_countersigned_while_no_newer_one_counts(world):
    with world.begin("olga") as work:
        row = partners.draft_version(
            work, agreement="model-sharing", text="Second.", needs_countersignature=True
        )
        partners.publish_version(work, row.id)
    second = world.sign("ann", "model-sharing", organisation="lab-a")
    world.redraft("model-sharing", text="Third.")
    third = world.sign("bea", "model-sharing", organisation="lab-b")
    assert third.state == "in_force", "somebody else's says nothing of this party"
    with world.begin("otto") as work:
        assert partners.countersign(work, second.id).state == "in_force"


def test_what_a_holder_may_read_of_evidence_ends_with_their_access(world, clock):
    grant = world.granted()

    def held():
        with world.begin("art", read_only=True) as work:
            mine = {"person_id": work.actor.id, "organisations": work.actor.organisations}
            return bool(held_digests(work, **mine))

    assert held()
    world.redraft("model-sharing", text="Materially new.")
    clock.move(RECONSENT_WITHIN - timedelta(seconds=1))
    assert (held(), allowed(world, "art")[0]) == (True, True)
    clock.move(timedelta(seconds=1))
    assert (held(), allowed(world, "art")) == (False, (False, "agreement.changed"))
    assert world.grant(grant.id).state == "active", "the sweep has not come by yet"
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert (held(), allowed(world, "art")[0]) == (True, True)


# --- one's own interest --------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["partner_member", "partner_admin"])
def test_nobody_lets_their_own_organisation_in(world, role):
    world.climb("partner")
    enrol(world, "olga", role)
    signer = "olga" if role == "partner_admin" else "ann"
    world.sign(signer, "model-sharing", organisation="lab-a")
    with raising("grant.same-organisation"):
        world.issue("olga")
    grant = world.issue("otto")
    with refused(world, "olga", "grant.same-organisation", Forbidden) as work:
        partners.renew_grant(work, grant.id, valid_until=work.now + YEAR)


def test_who_left_the_roster_has_no_interest_any_more(world):
    enrol(world, "olga")
    with world.works.begin(OPERATOR) as work:
        rosters.end_membership(work, organisation="lab-a", person="olga")
    assert world.granted().state == "active"


def test_nobody_lets_a_colleague_in(world):
    world.climb("researcher")
    for who in ("olga", "rex"):
        enrol(world, who)
    world.sign("rex", "researcher-terms")
    with raising("grant.same-organisation"):
        world.issue("olga", person="rex")


def test_the_second_persons_consent_is_a_strangers(world):
    revoke(world, world.granted())
    enrol(world, "otto")
    again = world.issue()
    with refused(world, "otto", "grant.same-organisation", Forbidden) as work:
        partners.consent_to_grant(work, again.id)


def test_a_holder_is_not_one_of_the_two_who_resume(world):
    world.climb("researcher")
    with world.works.begin(OPERATOR) as work:
        identity.assign_role(work, person="rex", role="access_officer")
    world.sign("rex", "researcher-terms")
    grant = world.issue(person="rex")
    suspend(world, grant)
    with refused(world, "rex", "grant.own", Forbidden) as work:
        partners.resume_grant(work, grant.id)
    assert resume(world, grant, "olga").state == "suspended"


@pytest.mark.parametrize("through", ["themselves", "organisation"])
def test_a_declared_conflict_holds_wherever_one_lets_in(world, through):
    world.climb("researcher")
    applicant = "rex" if through == "themselves" else "art"
    whom = {"person": "rex"} if through == "themselves" else {}
    world.sign("rex", "researcher-terms")
    world.sign("ann", "model-sharing", organisation="lab-a")
    with world.begin(applicant) as work:
        request = access.submit(work, repo_id="gpt2-mini/one", answers={"purpose": "x"})
    with world.begin("olga") as work:
        access.declare_conflict(work, request.id, reason="My husband.")
    with raising("grant.conflict-declared"):
        world.issue("olga", **whom)
    grant = world.issue("otto", **whom)
    suspend(world, grant)
    with refused(world, "olga", "grant.conflict-declared", Forbidden) as work:
        partners.resume_grant(work, grant.id)
    world.sign("bea", "model-sharing", organisation="lab-b")
    assert world.issue("olga", organisation="lab-b").state == "active"


@contextmanager
def narrow(world, who, *scopes):
    """Open a Work of ``who`` with a token made for ``scopes`` alone."""
    with world.begin(who) as work:
        _, text = identity.create_token(work, person=who, name="narrow", scopes=scopes)
    with world.works.begin(OPERATOR) as work:
        work.actor = identity.authenticate(work, text)
        yield work


@pytest.mark.parametrize(
    "act",
    [
        lambda work, grant: partners.attest_destruction(
            work, grant.id, "All gone.", typed_name="Ann Lab"
        ),
        lambda work, grant: partners.give_up_grant(work, grant.id),
        lambda work, grant: partners.ask_renewal(work, grant.id, message="One more year."),
    ],
    ids=["attest", "give up", "ask renewal"],
)
@pytest.mark.parametrize("scope", ["download", "read"])
def test_a_narrow_token_declares_nothing_in_its_persons_name(world, act, scope):
    grant = world.granted()
    with raising("token.scope"), narrow(world, "ann", scope) as work:
        act(work, grant)
    assert world.grant(grant.id) == grant

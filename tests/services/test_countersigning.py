"""Signatures that wait for the publisher's; rosters with dates; and deadlines under any history."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from datetime import timedelta

import pytest
from make_partners import YEAR, database_url, partnered, world
from test_documents import document, words_of
from test_grant_ends import sweep, told
from test_partners import allowed

from logbook import sign
from stagerelease.identity import service as identity
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from stagerelease.partners import queries, service
from stagerelease.partners.rules import RECONSENT_WITHIN

__all__ = ["database_url", "partnered", "world"]  # fixtures
DAY = timedelta(days=1)


def publish(world, agreement="model-sharing", *, text="Signed by both.", **options):
    with world.begin("olga") as work:
        row = service.draft_version(
            work, agreement=agreement, text=text, needs_countersignature=True, **options
        )
        return service.publish_version(work, row.id)


def countersign(world, signature_id, who="otto"):
    with world.begin(who) as work:
        return service.countersign(work, signature_id)


def state_of(world, signature_id):
    with world.works.begin(read_only=True) as work:
        row = queries.find_signature(work, signature_id)
    assert row is not None
    return row.state


# --- countersignatures ---------------------------------------------------------------------------


def test_a_signature_that_needs_two_sides_counts_from_the_second(world):
    world.climb("partner")
    publish(world)
    row = world.sign("ann", "model-sharing", organisation="lab-a")
    assert row.state == "pending"
    grant = world.issue(await_signature=True)
    assert (grant.state, grant.awaits_agreement) == ("pending", "model-sharing")
    with pytest.raises(Conflict) as caught:
        world.sign("ann", "model-sharing", organisation="lab-a")
    assert caught.value.reason == "signature.exists"
    assert "Not yet." in words_of(document(world, "ann", row.id).content)
    assert allowed(world, "ann") == (False, "grant.pending")
    done = countersign(world, row.id)
    assert (done.state, done.countersigned_by) == ("in_force", world.id("otto"))
    assert world.grant(grant.id).state == "active"
    assert world.grant(grant.id).signature_id == row.id
    assert allowed(world, "ann") == (True, "grant")
    assert f"#{done.countersign_leaf_idx}" in words_of(document(world, "ann", row.id).content)
    sign(world.works)
    receipt = json.loads(document(world, "ann", row.id, "receipt").content)
    second = receipt["countersignature"]
    leaf = json.loads(base64.b64decode(second["leaf"]))
    assert (leaf["type"], leaf["prev_state"]) == ("signature.countersigned", "pending")
    assert hashlib.sha256(second["detail"].encode()).hexdigest() == leaf["detail_sha256"]


def test_until_both_have_signed_the_older_signature_goes_on(world, clock):
    grant = world.granted()
    old = grant.signature_id
    publish(world)
    new = world.sign("ann", "model-sharing", organisation="lab-a")
    assert state_of(world, old) == "in_force"
    assert world.grant(grant.id).signature_id == old
    clock.move(RECONSENT_WITHIN)
    sweep(world)
    assert world.grant(grant.id).suspended_for == "reconsent", "the deadline is for both sides"
    countersign(world, new.id)
    assert (state_of(world, old), state_of(world, new.id)) == ("superseded", "in_force")
    row = world.grant(grant.id)
    assert (row.state, row.signature_id) == ("active", new.id)


def test_a_pending_signature_is_put_in_force_only_while_it_would_count(world, clock):
    publish(world)
    late = world.sign("ann", "model-sharing", organisation="lab-a")
    short = world.sign(
        "bea", "model-sharing", organisation="lab-b", valid_until=clock.now() + 5 * DAY
    )
    world.redraft("model-sharing", text="Newer.")
    clock.move(RECONSENT_WITHIN)
    for row in (late, short):
        with pytest.raises(Conflict) as caught:
            countersign(world, row.id)
        assert caught.value.reason == "signature.late"
    sweep(world)
    assert state_of(world, short.id) == "expired"
    assert len(told(world, "signature.expired")) == 1
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert state_of(world, late.id) == "superseded"
    with pytest.raises(Conflict) as caught:
        countersign(world, late.id)
    assert caught.value.reason == "signature.superseded"


def test_nobody_signs_for_both_sides_and_a_waiting_one_can_be_taken_back(world):
    publish(world, "researcher-terms")
    row = world.sign("rex", "researcher-terms")
    for who in ("rex", "sam"):
        with pytest.raises(Forbidden):
            countersign(world, row.id, who)
    with world.begin("rex") as work:
        service.terminate_signature(work, row.id, "I changed my mind.")
    with pytest.raises(Conflict):
        countersign(world, row.id)
    assert world.sign("rex", "researcher-terms").state == "pending"


def test_an_agreement_can_begin_to_ask_for_it_without_a_new_word(world):
    with world.begin("olga", read_only=True) as work:
        row, text = service.show_version(work, "model-sharing")
    again = publish(world, text=text, material=False)
    assert (again.text_sha256, again.needs_countersignature) == (row.text_sha256, True)
    with pytest.raises(Conflict):
        publish(world, text=text)


# --- rosters -------------------------------------------------------------------------------------


def roster(world, who="olga", slug="lab-a", **options):
    with world.begin(who, read_only=True) as work:
        return identity.list_roster(work, slug, **options)


def test_a_roster_is_shown_at_any_instant_and_an_end_is_told_once(world, clock):
    start = clock.now()
    assert [row.handle for row in roster(world, "art")] == ["ann", "art"]
    clock.move(10 * DAY)
    with world.begin("ann") as work:  # an administrator looks after the own roster
        (ended,) = identity.end_membership(work, organisation="lab-a", person="art")
    assert (ended.ends_at, ended.current) == (clock.now(), False)
    with world.begin("operator") as work:
        identity.end_membership(work, organisation="lab-b", person="bea", at=clock.now() + 5 * DAY)
    assert [row.handle for row in roster(world, slug="lab-b")] == ["bea"]
    for _ in range(8):
        clock.move(DAY)
        sweep(world)
    assert roster(world, slug="lab-b") == []
    assert [row.handle for row in roster(world)] == ["ann"]
    assert [row.handle for row in roster(world, at=start)] == ["ann", "art"]
    every = roster(world, everything=True)
    assert [(row.handle, row.current) for row in every] == [("ann", True), ("art", False)]
    assert len(told(world, "membership.ended")) == 2


def test_a_roster_is_for_staff_and_for_those_on_it(world, clock):
    for who in ("bea", "rex"):
        with pytest.raises(NotFound):
            roster(world, who)
        with pytest.raises(NotFound), world.begin(who) as work:
            identity.end_membership(work, organisation="lab-a", person="art")
    with pytest.raises(Forbidden), world.begin("art") as work:
        identity.end_membership(work, organisation="lab-a", person="ann")
    with pytest.raises(NotFound), world.begin("ann") as work:
        identity.end_membership(work, organisation="lab-a", person="bea")
    with pytest.raises(Invalid), world.begin("ann") as work:
        identity.end_membership(
            work, organisation="lab-a", person="art", at=clock.now() - timedelta(seconds=1)
        )


# --- any history ---------------------------------------------------------------------------------

TERMS = {"ann": "model-sharing", "bea": "model-sharing", "rex": "researcher-terms"}
TERMS["ron"] = "researcher-terms"
ACTS = ["publish", "publish", "sign", "sign", "wait", "wait", "wait", "wait", "sweep"]
HOUSES = {"ann": "lab-a", "bea": "lab-b"}


@pytest.mark.parametrize("seed", range(4))
def test_a_material_change_suspends_exactly_the_right_grants_at_its_deadline(world, clock, seed):
    """Two organisations and two people, versions of both kinds, in an order drawn by chance."""
    chance = random.Random(seed)
    world.climb("researcher")
    grants, signed, due, version = {}, {}, {}, dict.fromkeys(TERMS.values(), 1)
    for who, terms in TERMS.items():
        world.sign(who, terms, organisation=HOUSES.get(who))
        whom = {"organisation": HOUSES[who]} if who in HOUSES else {"person": who}
        grants[who] = world.issue(valid_until=clock.now() + YEAR, **whom).id
        signed[who], due[who] = 1, None
    suspended, ever = set(), set()
    for turn in range(28):
        act = (
            "publish"
            if turn < 3
            else chance.choice(["publish", "sign", "sign", "wait", "wait", "sweep"])
        )
        who = chance.choice(sorted(TERMS))
        terms = TERMS[who]
        if act == "publish":
            material = chance.random() < 0.7
            version[terms] += 1
            world.redraft(terms, text=f"Version {version[terms]}.", material=material)
            for other in (w for w in TERMS if TERMS[w] == terms and material):
                due[other] = min(due[other] or clock.now() + YEAR, clock.now() + RECONSENT_WITHIN)
        elif act == "sign" and signed[who] < version[terms]:
            world.sign(who, terms, organisation=HOUSES.get(who))
            signed[who], due[who] = version[terms], None
            suspended.discard(who)
        elif act == "wait":
            clock.move(chance.randint(5, 12) * DAY)
        elif act == "sweep":
            sweep(world)
            suspended |= {w for w in TERMS if due[w] is not None and due[w] <= clock.now()}
            ever |= suspended
        for one in TERMS:
            late = due[one] is not None and due[one] <= clock.now()
            assert allowed(world, one)[0] is not late, (one, act)
            assert (world.grant(grants[one]).state == "suspended") == (one in suspended), one
    assert ever, "this history suspends somebody, or it shows nothing"

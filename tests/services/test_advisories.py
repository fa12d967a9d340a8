"""Advisories: every holder is told, each receipt is acknowledged once, by whom and when."""

from __future__ import annotations

from datetime import timedelta

import pytest
from make_incidents import confirmed, report, secured, triaged
from make_partners import database_url, partnered, world
from sqlalchemy import select

from stagerelease.identity import service as identity
from stagerelease.incidents import service
from stagerelease.incidents.service import Links
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from stagerelease.partners import service as partners

__all__ = ["database_url", "partnered", "secured", "world"]  # fixtures
DAY = timedelta(days=1)


@pytest.fixture
def held(secured):
    """Lab-a, lab-b and rex hold grants on the track."""
    secured.climb("partner")
    for who, slug in (("ann", "lab-a"), ("bea", "lab-b")):
        secured.sign(who, "model-sharing", organisation=slug)
    secured.issue(organisation="lab-a")
    secured.lab_b = secured.issue(organisation="lab-b")
    secured.climb("researcher")
    secured.sign("rex", "researcher-terms")
    secured.rex = secured.issue(person="rex")
    return secured


def mine(world, who, **options):
    with world.begin(who, read_only=True) as work:
        return service.my_advisories(work, **options)


def test_every_holder_of_active_or_suspended_grants_is_told_once(held):
    with held.begin("olga") as work:
        partners.suspend_grant(work, held.lab_b.id, reason="A question.")
        partners.revoke_grant(work, held.rex.id, reason="Over.")
    page = confirmed(held)
    assert [(a.holders, a.acknowledged) for a in page.advisories] == [(2, 0)]
    for who, count in (("ann", 1), ("art", 1), ("bea", 1), ("rex", 0), ("ron", 0)):
        assert len(mine(held, who)) == count, who
    (receipt,) = mine(held, "ann")
    assert receipt.organisation_id == held.organisation("ann")
    assert len(receipt.grant_ids) == 1
    assert "Incident" in receipt.text
    assert "stopped" in receipt.text
    with held.works.begin(read_only=True) as work:
        payloads = work.session.execute(select(Job.payload)).scalars()
        (told,) = [p for p in payloads if p.get("event") == "advisory.sent"]
    expected = sorted([held.organisation("ann"), held.organisation("bea")])
    assert (told["organisations"], told["people"]) == (expected, [])


@pytest.mark.parametrize(
    "links", [Links(everything=True), Links(families=["gpt2-mini"])], ids=["everything", "family"]
)
def test_holders_of_whatever_is_covered_are_told(held, links):
    assert confirmed(held, links=links).advisories[0].holders == 3


def test_with_no_holders_there_is_no_advisory(secured):
    page = confirmed(secured)
    assert page.advisories == ()
    with pytest.raises(Conflict) as refused, secured.begin("sam") as work:
        service.send_advisory(work, page.incident.id, text="Hello?")
    assert refused.value.reason == "advisory.nobody"


def test_any_member_acknowledges_for_their_organisation_once(held, clock):
    confirmed(held)
    (receipt,) = mine(held, "ann")
    clock.move(timedelta(hours=2))
    with held.begin("art") as work:
        done = service.acknowledge(work, receipt.id)
    assert done.acknowledged_by == held.id("art")
    assert done.acknowledged_at == clock.now()
    clock.move(timedelta(hours=1))
    with held.begin("ann") as work:  # again changes nothing
        again = service.acknowledge(work, receipt.id)
    assert again == done


def test_nobody_acknowledges_for_others(held):
    confirmed(held)
    (lab_a,) = mine(held, "ann")
    (rex,) = mine(held, "rex")
    for who, receipt in (
        ("bea", lab_a),
        ("rex", lab_a),
        ("sam", lab_a),
        ("oto", lab_a),
        ("ann", rex),
        ("ron", rex),
    ):
        with pytest.raises(NotFound), held.begin(who) as work:
            service.acknowledge(work, receipt.id)
    with pytest.raises(NotFound), held.works.begin(OPERATOR) as work:
        service.acknowledge(work, rex.id)
    with pytest.raises(Unauthenticated), held.works.begin() as work:
        service.acknowledge(work, rex.id)
    with pytest.raises(Unauthenticated), held.works.begin() as work:
        service.my_advisories(work)
    for odd in ("", "adr_none", "\x00", "é", "x" * 900):
        with pytest.raises(NotFound), held.begin("rex") as work:
            service.acknowledge(work, odd)


def test_who_left_the_organisation_cannot_acknowledge_for_it(held):
    confirmed(held)
    (receipt,) = mine(held, "art")
    with held.works.begin(OPERATOR) as work:
        identity.end_membership(work, organisation="lab-a", person="art")
    assert mine(held, "art") == []
    with pytest.raises(NotFound), held.begin("art") as work:
        service.acknowledge(work, receipt.id)


def test_a_download_token_does_not_acknowledge(held):
    confirmed(held)
    (receipt,) = mine(held, "rex")
    with held.works.begin(OPERATOR) as work:
        _, held.tokens["rex"] = identity.create_token(
            work, person="rex", name="ci", scopes=("download",)
        )
    with pytest.raises(Forbidden) as refused, held.begin("rex") as work:
        service.acknowledge(work, receipt.id)
    assert refused.value.reason == "token.scope"


def test_what_is_not_acknowledged_in_time_is_listed_for_staff(held, clock):
    confirmed(held)
    with held.begin("rex") as work:
        service.acknowledge(work, mine(held, "rex")[0].id)
    clock.move(3 * DAY - timedelta(seconds=1))
    with held.begin("aud", read_only=True) as work:
        assert service.overdue_advisories(work) == []
    clock.move(timedelta(seconds=1))
    with held.begin("aud", read_only=True) as work:
        late = service.overdue_advisories(work)
        assert len(late) == 2
        assert all(row.overdue for row in late)
        (first,) = service.overdue_advisories(work, limit=1)
        (second,) = service.overdue_advisories(work, limit=1, after=first.id)
        assert [first.id, second.id] == [row.id for row in late]
        assert service.overdue_advisories(work, after="adr_none") == []
    for who in ("ann", "rex"):
        with pytest.raises(Forbidden), held.begin(who, read_only=True) as work:
            service.overdue_advisories(work)


def test_staff_see_whom_an_advisory_went_to_page_by_page(held):
    page = confirmed(held)
    (advisory,) = page.advisories
    with held.begin("aud", read_only=True) as work:
        rows = service.advisory_receipts(work, advisory.id)
        assert len(rows) == 3
        again = service.advisory_receipts(work, advisory.id, limit=2)
        again += service.advisory_receipts(work, advisory.id, limit=2, after=again[-1].id)
    assert again == rows
    with pytest.raises(Forbidden), held.begin("ann", read_only=True) as work:
        service.advisory_receipts(work, advisory.id)


def test_ones_own_list_is_paged_newest_first_over_person_and_organisations(held, clock):
    with held.works.begin(OPERATOR) as work:
        identity.add_member(work, organisation="lab-a", person="rex", role="partner_member")
    for _ in range(2):
        confirmed(held, blocking=False, advisory="Look after your copies.")
        clock.move(DAY)
    rows = mine(held, "rex")
    assert len(rows) == 4
    assert [r.id for r in rows] == sorted((r.id for r in rows), reverse=True)
    paged, after = [], None
    while part := mine(held, "rex", limit=1, after=after):
        paged += part
        after = part[-1].id
    assert paged == rows


def test_an_advisory_is_sent_of_confirmed_incidents_only_and_in_bounds(held):
    number = report(held).incident_id
    with pytest.raises(Conflict), held.begin("sam") as work:
        service.send_advisory(work, number, text="A rumour.")
    number = triaged(held)
    for within in (timedelta(0), 91 * DAY, -DAY):
        with pytest.raises(Invalid), held.begin("sam") as work:
            service.confirm(work, number, reason="Seen.", acknowledge_within=within)
    with pytest.raises(Invalid), held.begin("sam") as work:
        service.confirm(work, number, reason="Seen.", advisory=" ")
    page = confirmed(held)
    with held.begin("sue") as work:
        row = service.send_advisory(work, page.incident.id, text="More is known.")
    assert row.holders == 3
    assert mine(held, "rex")[0].text == "More is known."

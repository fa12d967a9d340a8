"""A person is erased: nothing here says who it was, and what they signed and decided stands."""

from __future__ import annotations

import pytest
from make_incidents import secured
from make_partners import REPO, YEAR, database_url, partnered, world
from sqlalchemy import func, select

from stagerelease.access import service as access
from stagerelease.db.base import Base
from stagerelease.erasing.service import erase_person
from stagerelease.identity import entering, queries, sessions, sweeping
from stagerelease.identity import service as identity
from stagerelease.incidents import service as incidents
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR, SYSTEM
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound, Unauthenticated
from stagerelease.ledger import fsck
from stagerelease.ledger import queries as ledger
from stagerelease.ledger import service as log
from stagerelease.notices.delivering import deliver
from stagerelease.partners import service as partners
from stagerelease.partners.tables import Grant, Signature
from stagerelease.releases.tables import Approval

__all__ = ["database_url", "partnered", "secured", "world"]  # fixtures

HANDLE, NAME, EMAIL, TYPED = (
    "zebedee-q",
    "Zébédée Quill",
    "zq@quill.example",
    "Dr Z. K. Quillfeather",
)
WHO = (HANDLE, NAME, EMAIL, TYPED)
WHY = "Asked by letter."


def traces(world):
    """Return the tables in which anything says who it was."""
    found = set()
    with world.works.begin(read_only=True) as work:
        for table in Base.metadata.sorted_tables:
            for row in work.session.execute(select(table)):
                if any(name.lower() in repr(tuple(row)).lower() for name in WHO):
                    found.add(table.name)
    return found


def tell_everybody(world):
    """Write the notices that wait to be written."""
    with world.works.begin(SYSTEM) as work:
        waiting = select(Job.payload).where(Job.kind == "notices.deliver")
        payloads = work.session.scalars(waiting).all()
    for payload in payloads:
        deliver(world.works, payload, has_mail=True)


@pytest.fixture
def zebedee(secured):
    """Somebody who left traces everywhere: a reviewer once, then a partner and a researcher."""
    world = secured
    with world.works.begin(OPERATOR) as work:
        identity.create_person(work, handle=HANDLE, display_name=NAME, email=EMAIL)
        for role in ("reviewer", "researcher"):
            identity.assign_role(work, person=HANDLE, role=role)
        identity.add_member(work, organisation="lab-b", person=HANDLE, role="partner_admin")
        _, world.tokens[HANDLE] = identity.create_token(work, person=HANDLE, name=f"{NAME}'s own")
    world.climb("researcher")
    world.sign(HANDLE, "model-sharing", organisation="lab-b", typed_name=TYPED)
    world.sign(HANDLE, "researcher-terms", typed_name=TYPED, client_address="203.0.113.9")
    given = world.issue(person=HANDLE)
    with world.works.begin(OPERATOR) as work:
        identity.end_role(work, person=HANDLE, role="reviewer")
    with world.begin("sam") as work:
        partners.revoke_grant(work, given.id, reason="For a while.")
    with world.begin(HANDLE) as work:
        partners.attest_destruction(work, given.id, "All destroyed.", typed_name=TYPED)
        access.submit(work, repo_id=REPO, answers={"purpose": f"I am {NAME}, {EMAIL}."})
        incidents.report(work, text="They are on a forum.", contact=EMAIL)
        log.enqueue_bulk(work, type="download.started", subject="download:dl_1", detail={})
    with world.works.begin(ANONYMOUS) as work:
        entering.ask_to_sign_in(work, EMAIL, network="x")
    with world.works.begin(OPERATOR) as work:
        sessions.open_session(work, queries.load_person(work, HANDLE).id)
    tell_everybody(world)
    return world


def erase(world, who="operator", handle=HANDLE, reason=WHY, **options):
    with world.begin(who, **options) as work:
        return erase_person(work, handle, reason=reason)


def test_nothing_says_who_it_was_any_more(zebedee):
    before = traces(zebedee)
    assert {"person", "signature", "access_request", "incident_report", "mail_link"} <= before
    assert {"notice", "job", "log_detail", "api_token", "destruction_attestation"} <= before
    erase(zebedee)
    assert traces(zebedee) == set()


def test_what_they_signed_and_decided_stands_and_the_log_verifies(zebedee):
    person_id = zebedee.id(HANDLE)
    with zebedee.works.begin(read_only=True) as work:
        size, root = ledger.log_size(work), ledger.root_at(work, ledger.log_size(work))
        approvals = work.session.scalar(select(func.count()).select_from(Approval))
    done = erase(zebedee)
    assert (done.id, done.signatures_kept, done.requests_withdrawn) == (person_id, 2, 1)
    with zebedee.begin("aud", read_only=True) as work:
        assert fsck.verify_all(work) == []
        assert ledger.root_at(work, size) == root
        rows = work.session.scalars(select(Signature).where(Signature.person_id == person_id)).all()
        assert {row.typed_name for row in rows} == {done.pseudonym}
        assert work.session.scalar(select(func.count()).select_from(Approval)) == approvals
        person = queries.load_person(work, person_id)
        assert (person.handle, person.display_name, person.email) == (*[done.pseudonym] * 2, None)
        entries = ledger.entries(work, start=0, limit=ledger.log_size(work))
        assert entries[-1].leaf["type"] == "person.erased"
        for entry in entries:  # no entry can be opened to them, of before or of the erasure
            for who in (entry.leaf["actor"], entry.leaf["subject"]):
                assert ledger.reveal(work, who) not in (person_id, f"person:{person_id}")
        assert not log.has_pending(work)
        assert {s.typed_name for s in partners.list_signatures(work)} == {done.pseudonym}


def test_every_way_in_has_ended_with_every_role_and_grant(zebedee, clock):
    person_id = zebedee.id(HANDLE)
    with zebedee.works.begin(OPERATOR) as work:
        cookie = sessions.open_session(work, person_id)
    erase(zebedee)
    with pytest.raises(Unauthenticated):
        zebedee.actor(HANDLE)
    with zebedee.works.begin() as work:
        with pytest.raises(Unauthenticated):
            sessions.authenticate_session(work, cookie)
        assert queries.roles_now(work, person_id) == {}
        assert queries.memberships_now(work, person_id) == []
        mine = select(Grant.state).where(Grant.person_id == person_id)
        assert set(work.session.scalars(mine)) <= {"revoked", "expired"}
    assert len(traces(zebedee)) == 0
    clock.move(YEAR)  # and no sweep tells of ends that were told
    with zebedee.works.begin(SYSTEM) as work:
        assert not sweeping.ends_due(work)


def test_a_dry_run_changes_nothing(zebedee):
    before = traces(zebedee)
    assert erase(zebedee, dry_run=True).pseudonym.startswith("erased-")
    assert traces(zebedee) == before
    assert zebedee.actor(HANDLE).roles


def test_who_may_and_whom(zebedee):
    with zebedee.works.begin(OPERATOR) as work:
        for handle in ("ola", "oda"):
            identity.create_person(work, handle=handle, display_name=handle)
            _, zebedee.tokens[handle] = identity.create_token(work, person=handle, name="x")
        identity.assign_role(work, person="ola", role="owner")
    for who in ("aud", "mia", "olga", HANDLE):
        with pytest.raises(Forbidden):
            erase(zebedee, who)
    for reason in ("", f"{NAME} asked.", f"Asked by {EMAIL}", f"for {HANDLE.upper()}."):
        with pytest.raises(Invalid):
            erase(zebedee, "ola", reason=reason)
    with pytest.raises(Conflict) as refused:
        erase(zebedee, "ola", "ola")
    assert refused.value.reason == "erase.self"
    with pytest.raises(Conflict) as refused:
        erase(zebedee, "operator", "ola")
    assert refused.value.reason == "erase.last-owner"
    with zebedee.begin("ola") as work:
        identity.assign_role(work, person="oda", role="owner")
    assert erase(zebedee, "oda", "ola").pseudonym
    done = erase(zebedee, "oda")
    with pytest.raises(NotFound):
        erase(zebedee, "oda")
    with pytest.raises(Conflict) as refused:
        erase(zebedee, "oda", done.pseudonym)
    assert refused.value.reason == "erase.again"

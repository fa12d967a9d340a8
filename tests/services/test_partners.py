"""Agreements, signatures and grants through their services, on a real database."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from make_partners import (
    REPO,
    YEAR,
    World,
    add_download,
    database_url,
    partnered,
    world,
)
from sqlalchemy import event, select

from stagerelease.catalog import queries as catalog
from stagerelease.entitlements import service as entitlements
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR, SYSTEM
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import (
    Blocked,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Stale,
    Unauthenticated,
)
from stagerelease.ledger.tables import LogDetail, LogLeaf
from stagerelease.partners import queries, service
from stagerelease.partners.texts import shipped_text
from stagerelease.releases import service as release_service

__all__ = ["database_url", "partnered", "world"]  # fixtures
DAY = timedelta(days=1)


def allowed(world: World, who: str) -> tuple[bool, str]:
    """Ask the one authorize() whether ``who`` may download, and why (not)."""
    with world.begin(who, read_only=True) as work:
        variant = catalog.load_variant(work, REPO)
        revision = catalog.load_revision(work, str(catalog.find_ref(work, variant.id, "main")))
        decision = entitlements.authorize(
            work, work.actor, variant=variant, revision=revision
        ).decision
        return decision.allowed, decision.reason


def last_leaves(world: World, count: int = 1) -> list[tuple[str, dict]]:
    """Return type and detail of the newest leaves, newest first."""
    with world.works.begin(read_only=True) as work:
        bodies = work.session.execute(
            select(LogLeaf.body).order_by(LogLeaf.idx.desc()).limit(count)
        ).scalars()
        found = []
        for body in bodies:
            leaf = json.loads(body)
            detail = work.session.get_one(LogDetail, leaf["detail_sha256"])
            found.append((leaf["type"], json.loads(detail.body)["detail"]))
        return found


# --- agreements ----------------------------------------------------------------------------------


def test_a_version_is_named_by_the_sha256_of_its_text(world):
    with world.begin("rex", read_only=True) as work:
        row, text = service.show_version(work, "researcher-terms")
    assert text == shipped_text("researcher-terms")
    assert row.text_sha256 == sha256_hex(text.encode())


def test_publishing_supersedes_and_reports_signatures_on_a_materially_older_text(world):
    signed = world.sign("rex", "researcher-terms")
    world.redraft("researcher-terms", material=False, text="A comma moved.")
    with world.begin("olga", read_only=True) as work:
        assert service.list_outdated(work, "researcher-terms") == []
    second = world.redraft("researcher-terms", text="Much stricter.")
    with world.begin("olga", read_only=True) as work:
        outdated = service.list_outdated(work, "researcher-terms")
        states = [row.state for row in queries.list_versions(work, agreement="researcher-terms")]
        current = queries.find_in_force(work, "researcher-terms")
    assert [row.id for row in outdated] == [signed.id]
    assert outdated[0].state == "in_force", "it stays in force for now"
    assert states == ["in_force", "superseded", "superseded"]
    assert current is not None
    assert current.id == second


def test_a_version_is_published_once_and_never_behind_a_later_one(world):
    with world.begin("olga") as work:
        early = service.draft_version(work, agreement="researcher-terms", text="Two.")
        late = service.draft_version(work, agreement="researcher-terms", text="Three.")
        service.publish_version(work, late.id)
    for version_id, reason in (
        (early.id, "agreement.later-in-force"),
        (late.id, "agreement.in_force"),
    ):
        with pytest.raises(Conflict) as refused, world.begin("olga") as work:
            service.publish_version(work, version_id)
        assert refused.value.reason == reason


def test_a_text_that_is_in_force_is_not_drafted_again(world):
    text = shipped_text("model-sharing").replace("\n", "\r\n")
    with pytest.raises(Conflict) as refused, world.begin("olga") as work:
        service.draft_version(work, agreement="model-sharing", text=text)
    assert refused.value.reason == "agreement.unchanged"


def test_drafts_are_for_staff_and_texts_in_force_for_anybody_known(world):
    with world.begin("olga") as work:
        service.draft_version(work, agreement="researcher-terms", text="Two.")
    with world.begin("oto", read_only=True) as work:
        assert {row.version for row in service.list_agreements(work)} == {1}
        with pytest.raises(NotFound):
            service.show_version(work, "researcher-terms", 2)
    with world.begin("aud", read_only=True) as work:
        assert service.show_version(work, "researcher-terms", 2)[1] == "Two.\n"
        assert len(service.list_agreements(work)) == 3
    with world.works.begin(ANONYMOUS, read_only=True) as work, pytest.raises(Unauthenticated):
        service.list_agreements(work)


def test_who_signed_a_text_may_read_it_for_ever(world):
    world.sign("rex", "researcher-terms")
    world.redraft("researcher-terms")
    with world.begin("rex", read_only=True) as work:
        assert service.show_version(work, "researcher-terms", 1)[0].state == "superseded"
    with world.begin("ron", read_only=True) as work, pytest.raises(NotFound):
        service.show_version(work, "researcher-terms", 1)


@pytest.mark.parametrize("who", ["rex", "ann", "mia", "rae", "sam", "aud"])
def test_only_who_may_publish_agreements_does(world, who):
    with pytest.raises(Forbidden), world.begin(who) as work:
        service.create_agreement(work, slug="mine", title="Mine")


# --- signing -------------------------------------------------------------------------------------


def test_a_signature_is_in_force_at_once_and_leaves_its_evidence_in_the_log(world, clock):
    row = world.sign("ann", "model-sharing", organisation="lab-a", client_address="198.51.100.7")
    assert (row.state, row.organisation_id) == ("in_force", world.organisation("ann"))
    [(leaf, detail)] = last_leaves(world)
    assert leaf == "signature.signed"
    assert detail["text_sha256"] == row.text_sha256
    assert detail["method"] == "token"
    assert detail["token"] == world.actor("ann").token_id
    assert detail["signed_at"] == clock.now().strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert detail["authorised_to_bind"] is detail["consents_electronically"] is True
    assert detail["address_sha256"] == sha256_hex(f"{row.id}\n198.51.100.7".encode())
    assert "198.51.100.7" not in json.dumps(detail)


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"text_sha256": "0" * 64}, Stale, "signature.text"),
        ({"version_id": "agv_nothing"}, NotFound, "agreement.unknown"),
        ({"authorised_to_bind": False}, Invalid, "signature.declarations"),
        ({"consents_electronically": False}, Invalid, "signature.declarations"),
        ({"consents_electronically": 1}, Invalid, "signature.declarations"),
        ({"typed_name": "  "}, Invalid, "text.malformed"),
        ({"typed_title": "x" * 201}, Invalid, "text.malformed"),
        ({"organisation": "lab-b"}, NotFound, "organisation.unknown"),
        ({"organisation": "nowhere"}, NotFound, "organisation.unknown"),
    ],
)
def test_one_thing_amiss_and_nothing_is_signed(world, changes, error, reason):
    with pytest.raises(error) as refused:
        world.sign("ann", "model-sharing", **({"organisation": "lab-a"} | changes))
    assert refused.value.reason == reason
    with world.begin("olga", read_only=True) as work:
        assert service.list_signatures(work) == []
    world.sign("ann", "model-sharing", organisation="lab-a")  # the same, unbroken


def test_only_an_administrator_on_the_roster_now_signs_for_an_organisation(world, clock):
    with world.works.begin(OPERATOR) as work:
        identity.assign_role(work, person="art", role="researcher")
    with pytest.raises(Forbidden) as refused:
        world.sign("art", "model-sharing", organisation="lab-a")
    assert refused.value.reason == "signature.not-admin"
    before = world.actor("ann")  # as a process may have kept it
    with world.works.begin(OPERATOR) as work:
        identity.end_membership(work, organisation="lab-a", person="ann")
    clock.move(DAY)
    with world.works.begin(read_only=True) as work:
        current = queries.find_in_force(work, "model-sharing")
    details = {
        "version_id": current.id,
        "text_sha256": current.text_sha256,
        "typed_name": "Ann",
        "typed_title": "Once head",
        "authorised_to_bind": True,
        "consents_electronically": True,
        "organisation": "lab-a",
    }
    with pytest.raises(NotFound), world.works.begin(before) as work:
        service.sign(work, **details)


@pytest.mark.parametrize("who", ["operator", "bot", "oto", "olga"])
def test_only_a_human_who_may_sign_does(world, who):
    with pytest.raises(Forbidden):
        world.sign(who, "researcher-terms")


def test_a_version_that_has_moved_on_is_not_signed(world):
    with world.begin("rex", read_only=True) as work:
        seen, _ = service.show_version(work, "researcher-terms")
    world.redraft("researcher-terms")
    with pytest.raises(Stale) as refused:
        world.sign("rex", "researcher-terms", version_id=seen.id, text_sha256=seen.text_sha256)
    assert refused.value.reason == "agreement.superseded"


def test_the_same_party_signs_a_version_once(world):
    world.sign("rex", "researcher-terms")
    with pytest.raises(Conflict):
        world.sign("rex", "researcher-terms")
    world.sign("ron", "researcher-terms")


def test_a_new_signature_supersedes_the_old_and_its_grants_rest_on_the_new(world):
    grant = world.granted()
    world.redraft("model-sharing")
    assert allowed(world, "art") == (True, "grant"), "the old version still binds"
    renewed = world.sign("ann", "model-sharing", organisation="lab-a")
    now = world.grant(grant.id)
    assert (now.signature_id, now.state) == (renewed.id, "active")
    with world.begin("ann", read_only=True) as work:
        states = {row.id: row.state for row in service.list_signatures(work)}
    assert states == {grant.signature_id: "superseded", renewed.id: "in_force"}
    assert allowed(world, "art") == (True, "grant")


def test_signatures_are_seen_by_staff_and_by_the_party(world):
    row = world.sign("ann", "model-sharing", organisation="lab-a")
    for who in ("ann", "art", "olga", "aud"):
        with world.begin(who, read_only=True) as work:
            assert service.show_signature(work, row.id).id == row.id
            assert [s.id for s in service.list_signatures(work)] == [row.id]
    for who in ("bea", "rex", "oto"):
        with world.begin(who, read_only=True) as work:
            assert service.list_signatures(work) == []
            with pytest.raises(NotFound):
                service.show_signature(work, row.id)


def test_a_countersignature_comes_from_the_other_side_and_once(world):
    row = world.sign("ann", "model-sharing", organisation="lab-a")
    for who, error in (("ann", Forbidden), ("bea", NotFound), ("operator", Forbidden)):
        with pytest.raises(error), world.begin(who) as work:
            service.countersign(work, row.id)
    with world.works.begin(OPERATOR) as work:
        identity.add_member(work, organisation="lab-a", person="otto", role="partner_member")
    with pytest.raises(Forbidden) as refused, world.begin("otto") as work:
        service.countersign(work, row.id)
    assert refused.value.reason == "signature.both-sides"
    with world.begin("olga") as work:
        done = service.countersign(work, row.id)
    assert (done.countersigned_by, done.state) == (world.id("olga"), "in_force")
    with pytest.raises(Conflict), world.begin("olga") as work:
        service.countersign(work, row.id)


@pytest.mark.parametrize("who", ["olga", "sam", "ann"])
def test_a_terminated_signature_suspends_what_rests_on_it_in_the_same_transaction(world, who):
    grant = world.granted()
    with world.begin(who) as work:
        row = service.terminate_signature(work, grant.signature_id, "They left.")
    assert row.state == "terminated"
    now = world.grant(grant.id)
    assert (now.state, now.suspended_for) == ("suspended", "terms")
    assert allowed(world, "art") == (False, "grant.suspended")
    [(leaf, detail), (first, _)] = last_leaves(world, 2)
    assert (leaf, first) == ("signature.terminated", "grant.suspended")
    assert detail["suspended"] == [grant.id]
    with pytest.raises(Conflict), world.begin("olga") as work:
        service.terminate_signature(work, grant.signature_id, "Again.")


@pytest.mark.parametrize(
    ("who", "error"), [("art", Forbidden), ("mia", Forbidden), ("bea", NotFound)]
)
def test_others_do_not_terminate_a_signature(world, who, error):
    row = world.sign("ann", "model-sharing", organisation="lab-a")
    with pytest.raises(error), world.begin(who) as work:
        service.terminate_signature(work, row.id, "No.")


def test_a_dry_run_leaves_nothing(world):
    grant = world.granted()
    before = last_leaves(world)
    with world.begin("olga", dry_run=True) as work:
        service.terminate_signature(work, grant.signature_id, "Trying.")
        assert queries.load_grant(work, grant.id).state == "suspended"
    assert world.grant(grant.id).state == "active"
    assert last_leaves(world) == before


# --- issuing -------------------------------------------------------------------------------------


def test_a_grant_lets_the_roster_in_and_nobody_else(world):
    grant = world.granted()
    assert (grant.state, grant.audience) == ("active", "partner")
    assert grant.permissions == {"download"}
    assert allowed(world, "ann") == allowed(world, "art") == (True, "grant")
    assert allowed(world, "bea") == (False, "no-grant")
    with world.begin("ann", read_only=True) as work:
        page = service.show_grant(work, grant.id)
    assert [(e.from_state, e.to_state) for e in page.events] == [
        (None, "pending"),
        ("pending", "active"),
    ]
    assert page.standing.active
    assert page.attestation is None


def blockers(world: World, **changes) -> set[str]:
    with pytest.raises(Blocked) as refused:
        world.issue(**changes)
    return {blocker.code for blocker in refused.value.blockers}


def test_nobody_is_let_in_before_the_stage_that_admits_them(world):
    world.sign("ann", "model-sharing", organisation="lab-a")
    world.sign("rex", "researcher-terms")
    assert blockers(world) == {"grant.audience"}
    world.climb("partner")
    assert blockers(world, person="rex") == {"grant.audience"}
    assert blockers(world, audience="researcher") == {"grant.audience"}
    assert blockers(world, audience="internal") == {"grant.audience"}
    world.issue()
    world.climb("researcher")
    assert world.issue(person="rex").audience == "researcher"
    assert blockers(world, organisation="lab-b", audience="researcher") == {"grant.audience"}


def test_nothing_is_granted_without_the_grantees_own_signature_in_force(world):
    world.climb("partner")
    assert blockers(world) == {"signature.missing"}
    other = world.sign("bea", "model-sharing", organisation="lab-b")
    wrong = world.sign("ann", "researcher-terms", organisation="lab-a")
    own = world.sign("ann", "model-sharing")  # for herself, not for lab-a
    assert blockers(world) == {"signature.missing"}
    for signature in (other, wrong, own):
        with pytest.raises(Invalid) as refused:
            world.issue(signature_id=signature.id)
        assert refused.value.reason == "grant.signature"
    right = world.sign("ann", "model-sharing", organisation="lab-a")
    assert world.issue(signature_id=right.id).signature_id == right.id


def test_a_signature_that_has_run_out_carries_nothing(world, clock):
    world.climb("partner")
    until = clock.now() + DAY
    world.sign("ann", "model-sharing", organisation="lab-a", valid_until=until)
    grant = world.issue()
    with world.begin("ann", read_only=True) as work:
        assert service.show_grant(work, grant.id).standing.until == until
    clock.set(until)
    assert allowed(world, "ann") == (False, "signature.expired")
    assert blockers(world, organisation="lab-a", renewed_from=grant.id) == {"signature.missing"}


def test_a_hold_and_a_withdrawal_stop_issuing(world):
    world.climb("partner")
    world.sign("ann", "model-sharing", organisation="lab-a")
    with world.begin("sam") as work:
        release_service.lay_hold(
            work, scope="track", scope_id=world.track_id, reason="Leak.", public_reason="Looking."
        )
    assert blockers(world) == {"held"}
    with world.begin("mia") as work:
        entitlements.withdraw(work, world.track_id, reason="Leaked.")
    assert blockers(world) == {"withdrawn"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"purpose": " "}, "text.malformed"),
        ({"purpose": "x" * 2001}, "text.malformed"),
        ({"permissions": ["train"]}, "grant.permissions"),
        ({"permissions": []}, "grant.permissions"),
        ({"organisation": None}, "grant.grantee"),
        ({"organisation": "lab-a", "person": "rex"}, "grant.grantee"),
    ],
)
def test_a_malformed_grant_is_not_issued(world, changes, reason):
    world.climb("partner")
    world.sign("ann", "model-sharing", organisation="lab-a")
    with pytest.raises(Invalid) as refused:
        world.issue(**changes)
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("days", "fits"), [(-1, False), (0, False), (1, True), (731, True), (732, False)]
)
def test_a_grant_ends_and_not_too_late(world, clock, days, fits):
    world.climb("partner")
    world.sign("ann", "model-sharing", organisation="lab-a")
    until = clock.now() + timedelta(days=days)
    if fits:
        assert world.issue(valid_until=until).valid_until == until
    else:
        with pytest.raises(Invalid):
            world.issue(valid_until=until)


def test_a_second_grant_is_a_renewal_that_names_the_first(world, clock):
    first = world.granted()
    assert blockers(world) == {"grant.exists"}
    clock.move(YEAR - DAY)
    second = world.issue(renewed_from=first.id)
    assert second.renewed_from_id == first.id
    with pytest.raises(Invalid):
        world.issue(organisation="lab-b", renewed_from=first.id)
    clock.move(2 * DAY)
    assert allowed(world, "art") == (True, "grant")


def test_a_suspended_grant_is_not_sidestepped_by_a_new_one(world):
    grant = world.granted()
    with world.begin("sam") as work:
        service.suspend_grant(work, grant.id, reason="Looking.")
    assert blockers(world) == blockers(world, renewed_from=grant.id) == {"grant.suspended"}


def test_who_may_not_issue_does_not_and_nobody_issues_to_themselves(world):
    world.climb("researcher")
    world.sign("ann", "model-sharing", organisation="lab-a")
    for who in ("ann", "mia", "rae", "sam", "aud", "oto"):
        with pytest.raises(Forbidden):
            world.issue(who)
    with world.works.begin(OPERATOR) as work:
        identity.assign_role(work, person="olga", role="researcher")
    world.sign("olga", "researcher-terms")
    with pytest.raises(Forbidden) as refused:
        world.issue("olga", person="olga")
    assert refused.value.reason == "grant.own"
    world.issue("otto", person="olga")


# --- seeing --------------------------------------------------------------------------------------


def test_a_grant_is_unknown_to_others_and_forbidden_to_those_who_only_hold_it(world):
    grant = world.granted()
    for who, error in (
        ("bea", NotFound),
        ("oto", NotFound),
        ("art", Forbidden),
        ("mia", Forbidden),
    ):
        with pytest.raises(error), world.begin(who) as work:
            service.suspend_grant(work, grant.id, reason="No.")
    with world.works.begin(ANONYMOUS) as work, pytest.raises(Unauthenticated):
        service.suspend_grant(work, grant.id, reason="No.")
    with world.begin("bea", read_only=True) as work:
        assert service.list_grants(work) == []
        for missing in (grant.id, "grt_x", "\x00"):
            with pytest.raises(NotFound):
                service.show_grant(work, missing)
    with world.begin("art", read_only=True) as work:
        assert [row.id for row in service.list_grants(work, state="active")] == [grant.id]
        assert service.list_grants(work, state="revoked") == []


def test_deliveries_are_seen_by_administrators_and_by_who_fetched(world, clock):
    grant = world.granted()
    mine = add_download(world.works, grant, world.id("art"), at=clock.now())
    theirs = add_download(world.works, grant, world.id("ann"), at=clock.now() + DAY)
    seen = {}
    for who in ("art", "ann", "olga"):
        with world.begin(who, read_only=True) as work:
            seen[who] = [row.download_id for row in service.list_deliveries(work, grant.id)]
    assert seen == {"art": [mine], "ann": [mine, theirs], "olga": [mine, theirs]}


def test_grants_for_is_one_statement(world):
    grant = world.granted()
    statements = []
    with world.begin("art", read_only=True) as work:
        work.session.connection()
        actor = work.actor
        listen = (work.session.get_bind().engine, "before_cursor_execute")
        note = lambda *args: statements.append(args[2])  # noqa: E731
        event.listen(*listen, note)
        try:
            rows = queries.grants_for(
                work,
                person_id=actor.id,
                organisation_ids=actor.organisations,
                track_ids=[world.track_id],
            )
            nobody = queries.grants_for(
                work, person_id=actor.id, organisation_ids=(), track_ids=[world.track_id]
            )
        finally:
            event.remove(*listen, note)
    assert len(statements) == 2, "one for each call"
    assert nobody == []
    assert [row.grant for row in rows] == [grant]
    assert (rows[0].signature_state, rows[0].agreement_slug) == ("in_force", "model-sharing")
    assert (rows[0].agreement_version_state, rows[0].signature_until) == ("in_force", None)


# --- stopping ------------------------------------------------------------------------------------


def test_suspending_needs_one_person_and_resuming_two(world):
    grant = world.granted()
    with world.begin("sam") as work:
        service.suspend_grant(work, grant.id, reason="Looking.")
    assert allowed(world, "art") == (False, "grant.suspended")
    for who, error in (("operator", Forbidden), ("mia", Forbidden), ("ann", Forbidden)):
        with pytest.raises(error), world.begin(who) as work:
            service.resume_grant(work, grant.id)
    with world.begin("sam") as work:
        assert service.resume_grant(work, grant.id).state == "suspended"
    with pytest.raises(Conflict) as refused, world.begin("sam") as work:
        service.resume_grant(work, grant.id)
    assert refused.value.reason == "grant.consented"
    assert allowed(world, "art")[0] is False
    with world.begin("olga") as work:
        assert service.resume_grant(work, grant.id).state == "active"
    assert allowed(world, "art") == (True, "grant")


def test_a_consent_belongs_to_one_suspension_and_to_who_may_still_give_it(world):
    grant = world.granted()
    for _ in range(2):  # the consent given in the first round does not count in the second
        with world.begin("sam") as work:
            service.suspend_grant(work, grant.id, reason="Looking.")
        with world.begin("sam") as work:
            assert service.resume_grant(work, grant.id).state == "suspended"
        with world.begin("olga") as work:
            assert service.resume_grant(work, grant.id).state == "active"
    with world.begin("olga") as work:
        service.suspend_grant(work, grant.id, reason="Once more.")
        service.resume_grant(work, grant.id)
    with world.works.begin(OPERATOR) as work:
        identity.end_role(work, person="olga", role="access_officer")
    with world.begin("sam") as work:
        assert service.resume_grant(work, grant.id).state == "suspended"
    with world.begin("otto") as work:
        assert service.resume_grant(work, grant.id).state == "active"


def test_resuming_what_would_let_nobody_in_is_refused(world):
    grant = world.granted()
    with world.begin("olga") as work:
        service.terminate_signature(work, grant.signature_id, "They left.")
    with pytest.raises(Conflict) as refused, world.begin("sam") as work:
        service.resume_grant(work, grant.id)
    assert refused.value.reason == "signature.terminated"
    world.sign("ann", "model-sharing", organisation="lab-a")
    assert world.grant(grant.id).state == "suspended", "signing again resumes nothing by itself"
    for who in ("sam", "olga"):
        with world.begin(who) as work:
            service.resume_grant(work, grant.id)
    assert allowed(world, "art") == (True, "grant")


def test_a_decision_on_an_older_version_is_stale(world):
    grant = world.granted()
    with world.begin("sam") as work:
        service.suspend_grant(work, grant.id, reason="Looking.", seen=grant.version)
    for act in (
        lambda work: service.revoke_grant(work, grant.id, reason="No.", seen=grant.version),
        lambda work: service.resume_grant(work, grant.id, seen=grant.version),
    ):
        with pytest.raises(Stale), world.begin("olga") as work:
            act(work)


def test_revoking_ends_it_lists_what_was_delivered_and_asks_for_destruction(world, clock):
    grant = world.granted()
    add_download(world.works, grant, world.id("art"), at=clock.now())
    with world.begin("olga") as work:
        row = service.revoke_grant(work, grant.id, reason="Terms broken.")
    assert (row.state, row.ended_at) == ("revoked", clock.now())
    assert allowed(world, "art") == (False, "grant.revoked")
    [(leaf, detail)] = last_leaves(world)
    assert leaf == "grant.revoked"
    with world.begin("ann", read_only=True) as work:
        page = service.show_grant(work, grant.id)
    assert page.attestation is not None
    assert list(page.attestation.delivered) == detail["delivered"]
    [file] = page.attestation.delivered
    assert (file["path"], file["bytes"], file["completed"]) == ("model.safetensors", 9, True)
    for act in (service.revoke_grant, service.suspend_grant):
        with pytest.raises(Conflict), world.begin("olga") as work:
            act(work, grant.id, reason="Again.")
    with pytest.raises(Conflict), world.begin("olga") as work:
        service.resume_grant(work, grant.id)


def test_the_holder_declares_destruction_once(world, clock):
    grant = world.granted()
    with pytest.raises(Conflict) as refused, world.begin("ann") as work:
        service.attest_destruction(work, grant.id, "Nothing yet.", typed_name="Ann Other")
    assert refused.value.reason == "attestation.not-open"
    with world.begin("olga") as work:
        service.revoke_grant(work, grant.id, reason="Terms broken.")
    for who, error in (("art", Forbidden), ("olga", Forbidden), ("bea", NotFound)):
        with pytest.raises(error), world.begin(who) as work:
            service.attest_destruction(work, grant.id, "Done.", typed_name="Ann Other")
    with world.begin("ann") as work:
        row = service.attest_destruction(
            work, grant.id, "Every copy is gone.", typed_name="Ann Other"
        )
    assert (row.attested_by, row.attested_at) == (world.id("ann"), clock.now())
    assert row.leaf_idx is not None
    with pytest.raises(Conflict), world.begin("ann") as work:
        service.attest_destruction(work, grant.id, "Twice.", typed_name="Ann Other")
    with world.begin("olga", read_only=True) as work:
        assert service.show_grant(work, grant.id).events[-1].reason == "Every copy is gone."


def test_withdrawing_suspends_every_grant_in_the_same_transaction(world):
    grant = world.granted()
    world.climb("researcher")
    world.sign("rex", "researcher-terms")
    other = world.issue(person="rex")
    with world.begin("mia") as work:
        entitlements.withdraw(work, world.track_id, reason="Leaked.")
    for grant_id in (grant.id, other.id):
        row = world.grant(grant_id)
        assert (row.state, row.suspended_for) == ("suspended", "withdrawal")
    with pytest.raises(Conflict) as refused, world.begin("olga") as work:
        service.resume_grant(work, grant.id)
    assert refused.value.reason == "grant.withdrawn"
    with pytest.raises(Forbidden), world.begin("olga") as work:
        service.suspend_for_withdrawal(work, world.track_id)


def test_retiring_a_version_suspends_what_rests_on_it(world):
    grant = world.granted()
    with world.begin("olga", read_only=True) as work:
        first = queries.find_in_force(work, "model-sharing")
    with pytest.raises(Conflict), world.begin("olga") as work:
        service.retire_version(work, first.id)
    world.redraft("model-sharing")
    with world.begin("olga") as work:
        assert service.retire_version(work, first.id).state == "retired"
    assert world.grant(grant.id).suspended_for == "terms"
    assert blockers(world, organisation="lab-b") == {"signature.missing"}


# --- ends ----------------------------------------------------------------------------------------


def test_the_clock_stops_a_grant_before_any_sweeper_does(world, clock):
    grant = world.granted()
    clock.set(grant.valid_until)
    assert world.grant(grant.id).state == "active"
    assert allowed(world, "art") == (False, "grant.expired")


def test_the_sweeper_announces_ends_once(world, clock):
    grant = world.granted()
    with world.works.begin(SYSTEM) as work:
        assert not service.sweep_due(work)
        assert service.sweep_expired(work) == 0
    clock.set(grant.valid_until)
    with world.works.begin(SYSTEM) as work:
        assert service.sweep_due(work)
        assert service.sweep_expired(work) == 1
        assert not service.sweep_due(work)
    row = world.grant(grant.id)
    assert (row.state, row.ended_at) == ("expired", grant.valid_until)
    assert last_leaves(world)[0][0] == "grant.expired"
    with world.works.begin(SYSTEM) as work:
        assert service.sweep_expired(work) == 0
    with pytest.raises(Forbidden), world.begin("ann") as work:
        service.sweep_expired(work)


def test_a_signature_that_runs_out_is_announced_and_suspends_its_grants(world, clock):
    world.climb("partner")
    until = clock.now() + DAY
    row = world.sign("ann", "model-sharing", organisation="lab-a", valid_until=until)
    grant = world.issue()
    clock.set(until)
    with world.works.begin(SYSTEM) as work:
        assert service.sweep_expired(work) == 1
    with world.begin("ann", read_only=True) as work:
        assert service.show_signature(work, row.id).state == "expired"
    assert world.grant(grant.id).suspended_for == "terms"
    again = world.sign("ann", "model-sharing", organisation="lab-a")
    assert world.grant(grant.id).signature_id == again.id


def test_holders_are_those_let_in_at_an_instant(world, clock):
    grant = world.granted()
    start = clock.now()
    clock.move(DAY)
    with world.begin("olga") as work:
        service.suspend_grant(work, grant.id, reason="Looking.")

    def held(at=None, **options):
        with world.begin("aud", read_only=True) as work:
            rows = service.holders_report(work, at=at, track_id=world.track_id, **options)
        return [(row.grant_id, row.state) for row in rows]

    assert held(state="active") == []
    assert held() == [(grant.id, "suspended")]
    assert held(start) == held(start, state="active") == [(grant.id, "active")]
    assert held(start - DAY) == []
    with world.begin("olga") as work:
        service.revoke_grant(work, grant.id, reason="Enough.")
    assert held(clock.now(), state="active") == []
    assert held(start, state="active") == [(grant.id, "active")]

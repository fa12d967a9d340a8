"""Two people at once: whoever comes second sees what the first did, or is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from make_partners import REPO, YEAR, World, database_url, partnered, world

from stagerelease.access import service as access
from stagerelease.access.rules import Status
from stagerelease.entitlements import service as entitlements
from stagerelease.kernel.errors import DomainError
from stagerelease.partners import queries, service

__all__ = ["database_url", "partnered", "world"]  # fixtures


def at_once(*acts: Callable[[], object]) -> list[object]:
    """Run every act in its own thread, let loose together; return results or refusals in order."""
    gate = threading.Barrier(len(acts))
    results: list[object] = [None] * len(acts)

    def run(number: int, act: Callable[[], object]) -> None:
        gate.wait()
        try:
            results[number] = act()
        except DomainError as refused:
            results[number] = refused

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return results


def by(world: World, who: str, act: Callable[..., object]) -> Callable[[], object]:
    """Bind an act to a person, whose token is read before the race begins."""
    actor = world.actor(who)

    def run() -> object:
        with world.works.begin(actor) as work:
            return act(work)

    return run


def issue(world: World, **changes) -> Callable[..., object]:
    details = {"track_id": world.track_id, "organisation": "lab-a", "purpose": "Measuring."}
    return lambda work: service.issue_grant(
        work, **(details | {"valid_until": work.now + YEAR} | changes)
    )


def refusals(results: list[object]) -> list[DomainError]:
    return [result for result in results if isinstance(result, DomainError)]


def test_two_officers_issue_one_grant(world):
    world.climb("partner")
    world.sign("ann", "model-sharing", organisation="lab-a")
    results = at_once(by(world, "olga", issue(world)), by(world, "otto", issue(world)))
    assert len(refusals(results)) == 1
    with world.works.begin(read_only=True) as work:
        assert len(queries.list_grants(work)) == 1


def test_one_applicant_sends_one_request(world):
    world.climb("researcher")
    ask = by(world, "rex", lambda work: access.submit(work, repo_id=REPO, answers={}))
    results = at_once(*[ask] * 4)
    assert refusals(results) == []
    assert len({row.id for row in results}) == 1


def test_two_consents_given_at_once_resume(world):
    grant = world.granted()
    with world.begin("sam") as work:
        service.suspend_grant(work, grant.id, reason="Looking.")
    results = at_once(
        *[
            by(world, who, lambda work: service.resume_grant(work, grant.id))
            for who in ("olga", "otto")
        ]
    )
    assert refusals(results) == []
    assert world.grant(grant.id).state == "active"
    with world.works.begin(read_only=True) as work:
        states = [e.to_state for e in queries.grant_events(work, grant.id)]
    assert states.count("active") == 2, "issued once, resumed once"


def test_one_person_consenting_twice_at_once_does_not_count_twice(world):
    grant = world.granted()
    with world.begin("sam") as work:
        service.suspend_grant(work, grant.id, reason="Looking.")
    consent = by(world, "olga", lambda work: service.resume_grant(work, grant.id))
    assert len(refusals(at_once(consent, consent))) == 1
    assert world.grant(grant.id).state == "suspended"


@pytest.mark.parametrize("how", ["terminate", "withdraw", "retire"])
def test_no_grant_stays_active_past_what_it_rests_on(world, how):
    world.climb("partner")
    signature = world.sign("ann", "model-sharing", organisation="lab-a")
    world.redraft("model-sharing", material=False)  # the signed version is superseded, and binds
    old = signature.agreement_version_id
    stop = {
        "retire": ("otto", lambda w: service.retire_version(w, old)),
        "terminate": ("sam", lambda w: service.terminate_signature(w, signature.id, "Left.")),
        "withdraw": ("mia", lambda w: entitlements.withdraw(w, world.track_id, reason="Leak.")),
    }[how]
    results = at_once(by(world, *stop), by(world, "olga", issue(world)))
    assert not isinstance(results[0], DomainError)
    with world.works.begin(read_only=True) as work:
        assert [g.state for g in queries.list_grants(work)] in ([], ["suspended"])


@pytest.mark.parametrize("how", ["suspend", "revoke", "revoke all"])
def test_no_renewal_slips_past_who_stops_its_grant(world, how):
    grant = world.granted()
    stop = {
        "suspend": lambda work: service.suspend_grant(work, grant.id, reason="Leak."),
        "revoke": lambda work: service.revoke_grant(work, grant.id, reason="Leak."),
        "revoke all": lambda work: service.revoke_organisation(work, "lab-a", reason="Leak."),
    }[how]
    results = at_once(
        by(world, "sam", stop),
        by(
            world,
            "olga",
            lambda work: service.renew_grant(work, grant.id, valid_until=work.now + 2 * YEAR),
        ),
    )
    assert not isinstance(results[0], DomainError), results[0]
    with world.works.begin(read_only=True) as work:
        assert "active" not in [g.state for g in queries.list_grants(work)]


def test_a_resumption_does_not_slip_past_a_withdrawal(world):
    grant = world.granted()
    with world.begin("sam") as work:
        service.suspend_grant(work, grant.id, reason="Looking.")
        service.resume_grant(work, grant.id)
    results = at_once(
        by(world, "olga", lambda work: service.resume_grant(work, grant.id)),
        by(world, "mia", lambda work: entitlements.withdraw(work, world.track_id, reason="Leak.")),
    )
    assert not isinstance(results[1], DomainError), results[1]
    assert world.grant(grant.id).state == "suspended"


def test_an_acceptance_and_a_rejection_at_once_leave_one_truth(world):
    world.climb("researcher")
    world.sign("rex", "researcher-terms")
    with world.begin("rex") as work:
        request = access.submit(work, repo_id=REPO, answers={})
    at_once(
        by(world, "olga", lambda work: access.accept(work, request.id)),
        by(world, "otto", lambda work: access.reject(work, request.id, reason="No.")),
    )
    with world.begin("olga", read_only=True) as work:
        row = access.show_request(work, request.id).request
        states = [g.state for g in queries.list_grants(work)]
    if row.status is Status.ACCEPTED:  # rejected, then accepted: both moves are allowed
        assert states == ["active"]
    else:
        assert row.status is Status.REJECTED
        assert states in ([], ["revoked"])


def test_a_late_countersignature_and_a_newer_signature_leave_one_in_force(world):
    with world.begin("olga") as work:
        row = service.draft_version(
            work, agreement="model-sharing", text="Both sign.", needs_countersignature=True
        )
        service.publish_version(work, row.id)
    waiting = world.sign("ann", "model-sharing", organisation="lab-a")
    world.redraft("model-sharing", text="Newer.")
    with world.begin("ann", read_only=True) as work:
        newer = queries.find_in_force(work, "model-sharing")
    assert newer is not None
    declared = {"authorised_to_bind": True, "consents_electronically": True}

    def sign(work):
        return service.sign(
            work,
            version_id=newer.id,
            text_sha256=newer.text_sha256,
            typed_name="Ann",
            typed_title="Head",
            organisation="lab-a",
            **declared,
        )

    results = at_once(
        by(world, "otto", lambda work: service.countersign(work, waiting.id)),
        by(world, "ann", sign),
    )
    assert not isinstance(results[1], DomainError)
    assert [r.reason for r in refusals(results)] in ([], ["signature.superseded"])
    with world.works.begin(read_only=True) as work:
        rows = queries.list_signatures(work, organisation_ids=[waiting.organisation_id])
    assert [(r.version, r.state) for r in rows if r.state == "in_force"] == [(3, "in_force")]
    assert {r.state for r in rows} == {"in_force", "superseded"}

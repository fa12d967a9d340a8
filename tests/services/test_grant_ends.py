"""Grants that end: warned of, announced once, renewed, revoked; and who held what, when."""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta

import pytest
from make_partners import YEAR, add_download, database_url, partnered, world
from sqlalchemy import select

from stagerelease.identity import service as identity
from stagerelease.identity import sweeping
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, Unauthenticated
from stagerelease.ledger.tables import LogLeaf
from stagerelease.partners import service
from stagerelease.partners.renewing import word_changes

__all__ = ["database_url", "partnered", "world"]  # fixtures

DAY = timedelta(days=1)


def sweep(world) -> None:
    """Run what the worker runs by the clock, until nothing is due."""
    for _ in range(50):
        with world.works.begin(SYSTEM) as work:
            due = (
                service.sweep_due(work),
                sweeping.ends_due(work),
                service.warnings_due(work),
            )
            if not any(due):
                return
            service.sweep_expired(work)
            sweeping.announce_ends(work)
            service.warn_of_ends(work)
    raise AssertionError("the sweep never comes to rest")


def told(world, event: str) -> list[dict]:
    """Return what was handed to the notices of that event, oldest first."""
    with world.works.begin(read_only=True) as work:
        jobs = work.session.scalars(select(Job).where(Job.kind == "notices.deliver"))
        found = [job.payload for job in jobs if job.payload["event"] == event]
    return sorted(found, key=lambda payload: payload["at"])


def logged(world) -> Counter[str]:
    """Return how many leaves of each type the log has (whom each is about is salted there)."""
    with world.works.begin(read_only=True) as work:
        bodies = work.session.scalars(select(LogLeaf.body))
        return Counter(json.loads(body)["type"] for body in bodies)


def test_a_holder_is_warned_three_times_and_each_time_once(world, clock):
    grant = world.granted()
    for _ in range(366):
        sweep(world)
        sweep(world)
        clock.move(DAY)
    assert [n["facts"]["days"] for n in told(world, "grant.expiring")] == [30, 7, 1]
    first = told(world, "grant.expiring")[0]
    assert first["organisations"] == [world.organisation("ann")]
    assert first["roles"] == ["access_officer"]
    assert first["subject"] == f"grant:{grant.id}"
    assert [n["roles"] for n in told(world, "grant.expiring")[1:]] == [[], []]
    sweep(world)
    assert world.grant(grant.id).state == "expired"
    assert len(told(world, "grant.expired")) == 1


def test_a_short_grant_gets_the_warnings_that_lie_ahead(world, clock):
    world.climb("partner")
    world.sign("ann", "model-sharing", organisation="lab-a")
    world.issue(valid_until=clock.now() + 3 * DAY)
    sweep(world)
    assert [n["facts"]["days"] for n in told(world, "grant.expiring")] == [7]
    clock.move(2 * DAY + timedelta(hours=1))
    sweep(world)
    assert [n["facts"]["days"] for n in told(world, "grant.expiring")] == [7, 1]


def test_the_signature_that_ends_first_is_what_is_warned_of(world, clock):
    world.climb("partner")
    until = clock.now() + 20 * DAY
    world.sign("ann", "model-sharing", organisation="lab-a", valid_until=until)
    world.issue()
    sweep(world)
    (notice,) = told(world, "grant.expiring")
    assert notice["facts"]["days"] == 30
    assert notice["facts"]["until"].startswith(until.strftime("%Y-%m-%dT%H:%M"))


def test_ten_years_give_one_event_for_each_end_and_no_access_after_it(world, clock):
    """Grants, memberships, tokens, roles and signatures, ending on odd days over ten years."""
    world.climb("partner")
    world.sign("ann", "model-sharing", organisation="lab-a")
    start = clock.now()
    ends: dict[str, object] = {}
    for day in range(0, 3650, 73):
        clock.set(start + day * DAY)
        with world.works.begin(OPERATOR) as work:
            token, text = identity.create_token(
                work, person="art", name=f"t{day}", expires_at=work.now + 50 * DAY
            )
            ends[f"token:{token.id}"] = ("token.expired", text, work.now + 50 * DAY)
            identity.assign_role(work, person="oto", role="auditor", ends_at=work.now + 40 * DAY)
            identity.add_member(
                work,
                organisation="lab-b",
                person="oto",
                role="partner_member",
                starts_at=work.now,
                ends_at=work.now + 30 * DAY,
            )
        if day % 365 == 0:
            row = world.issue(valid_until=clock.now() + 300 * DAY)
            ends[f"grant:{row.id}"] = ("grant.expired", None, clock.now() + 300 * DAY)
        for _ in range(3):
            sweep(world)
        for subject, (_, text, end) in ends.items():
            if text is not None:
                with world.works.begin(read_only=True) as work:
                    if clock.now() < end:
                        identity.authenticate(work, text)
                    else:
                        with pytest.raises(Unauthenticated):
                            identity.authenticate(work, text)
            elif clock.now() >= end:
                assert world.grant(subject.removeprefix("grant:")).state == "expired"
    clock.set(start + 11 * YEAR)
    sweep(world)
    sweep(world)
    kinds = Counter(kind for kind, _, _ in ends.values())
    seen = logged(world)
    assert {kind: seen[kind] for kind in kinds} == kinds
    assert (seen["role.ended"], seen["membership.ended"]) == (50, 50)
    assert len(told(world, "membership.ended")) == 50
    announced = Counter(n["subject"] for kind in kinds for n in told(world, kind))
    assert announced == Counter(ends.keys())


# --- renewing and revoking -----------------------------------------------------------------------


def test_a_renewal_names_the_old_and_shows_what_changed(world, clock):
    old = world.granted()
    clock.move(300 * DAY)
    with world.begin("olga") as work:
        done = service.renew_grant(
            work,
            old.id,
            valid_until=work.now + YEAR,
            purpose="Measuring detectability after fine-tuning.",
        )
    assert (done.renews.id, done.grant.renewed_from_id) == (old.id, old.id)
    assert done.purpose == (
        ("keep", "Measuring "),
        ("drop", "detectability."),
        ("add", "detectability after fine-tuning."),
    )
    assert (done.grant.audience, done.grant.permissions) == (old.audience, old.permissions)
    with world.begin("ann", read_only=True) as work:
        assert service.renewal_of(work, done.grant.id) == done
        assert service.renewal_of(work, old.id) is None
    assert [n["subject"] for n in told(world, "grant.renewed")] == [f"grant:{done.grant.id}"]
    with world.begin("olga") as work:
        service.revoke_grant(work, done.grant.id, reason="Broken.")
    with pytest.raises(Conflict), world.begin("olga") as work:
        service.renew_grant(work, done.grant.id, valid_until=work.now + YEAR)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("a b", "a b"),
        ("a b c", "a x c"),
        ("one", "two"),
        ("a  b\nc", "a b c d"),
        ("", "x"),
    ],
)
def test_word_changes_give_both_texts_back(old, new):
    runs = word_changes(old, new)
    assert "".join(words for kind, words in runs if kind != "add") == old
    assert "".join(words for kind, words in runs if kind != "drop") == new


def test_revoking_an_organisation_ends_all_it_holds_and_lists_the_bytes(world, clock):
    grant = world.granted()
    add_download(world.works, grant, world.id("art"), at=clock.now())
    with pytest.raises(Forbidden), world.begin("mia") as work:
        service.revoke_organisation(work, "lab-a", reason="No.")
    with world.begin("sam") as work:
        (row,) = service.revoke_organisation(work, "lab-a", reason="Terms broken.")
        assert row.state == "revoked"
        assert service.revoke_organisation(work, "lab-a", reason="Again.") == []
    with world.begin("olga", read_only=True) as work:
        (asked,) = service.list_attestations(work)
    assert [f["path"] for f in asked.delivered] == ["model.safetensors"]
    with world.begin("ann") as work:
        service.attest_destruction(work, grant.id, "All gone.", typed_name="Ann Other")
    with world.begin("olga", read_only=True) as work:
        assert service.list_attestations(work) == []
        assert service.show_grant(work, grant.id).attestation.typed_name == "Ann Other"
    (notice,) = told(world, "attestation.signed")
    assert notice["roles"] == ["access_officer", "security"]


# --- who held what -------------------------------------------------------------------------------


def held(world, at=None, **options):
    with world.begin("aud", read_only=True) as work:
        rows = service.holders_report(work, at=at, **options)
    return [(row.holder, row.state) for row in rows]


def test_the_report_tells_any_past_instant(world, clock):
    before = clock.now()
    clock.move(DAY)
    grant = world.granted()
    issued = clock.now()
    clock.move(DAY)
    with world.begin("sam") as work:
        service.suspend_grant(work, grant.id, reason="Looking.")
    suspended = clock.now()
    clock.move(DAY)
    for who in ("sam", "olga"):
        with world.begin(who) as work:
            service.resume_grant(work, grant.id)
    resumed = clock.now()
    clock.move(2 * YEAR)
    assert held(world, before) == []
    name = "Lab-A"
    assert held(world, issued) == [(name, "active")]
    assert held(world, suspended) == [(name, "suspended")]
    assert held(world, resumed) == [(name, "active")]
    assert held(world) == [(name, "expired")], "by the clock, before any sweep"
    assert held(world, suspended, state="active") == []
    assert held(world, suspended, state="suspended", organisation="lab-a") == [(name, "suspended")]
    assert held(world, organisation="lab-b") == []
    sweep(world)
    assert held(world, state="expired", track_id=world.track_id) == [(name, "expired")]
    with pytest.raises(Invalid):
        held(world, clock.now() + DAY)
    with pytest.raises(Forbidden), world.begin("ann", read_only=True) as work:
        service.holders_report(work)


def test_the_report_pages_by_grant(world, clock):
    world.climb("partner")
    for lab, admin in (("lab-a", "ann"), ("lab-b", "bea")):
        world.sign(admin, "model-sharing", organisation=lab)
        world.issue(organisation=lab)
    with world.begin("aud", read_only=True) as work:
        first = service.holders_report(work, limit=1)
        second = service.holders_report(work, limit=1, after=first[0].grant_id)
        assert service.holders_report(work, limit=1, after=second[0].grant_id) == []
        assert [r.id for r in service.list_grants(work, limit=1)] == [second[0].grant_id]
        older = service.list_grants(work, limit=1, after=second[0].grant_id)
        assert [r.id for r in older] == [first[0].grant_id]

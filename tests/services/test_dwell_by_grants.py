"""Time served is time in which somebody of the audience could fetch what the track is about."""

from __future__ import annotations

from datetime import timedelta

import pytest
from make_partners import World, database_url, partnered, world
from make_release import make_revision
from sqlalchemy import select

from stagerelease.downloads import service as downloads
from stagerelease.downloads.tables import Download
from stagerelease.kernel.actor import OPERATOR
from stagerelease.partners import service as partners
from stagerelease.partners.rules import RECONSENT_WITHIN
from stagerelease.releases import service as releases
from stagerelease.releases.planning import record_version

__all__ = ["database_url", "partnered", "world"]  # fixtures

DAY = timedelta(days=1)
REPO = "gpt2-mini/slow"
NOBODY = "nobody could fetch yet"
PLAN = """
plan: slow
title: A month with partners
stages:
  - {name: internal, audience: staff}
  - name: partner
    audience: organisations
    agreement: model-sharing
    permissions: [download, infer]
  - name: researcher
    audience: people
    agreement: researcher-terms
    minimum_dwell: P30D
    gates: [{kind: served}]
  - {name: public, audience: everyone}
"""


@pytest.fixture
def slow(world):
    """The same people, and a track at partner whose next stage asks for 30 days and a download."""
    with world.works.begin(OPERATOR) as work:
        record_version(work, PLAN)
        make_revision(work, REPO, salt="f")
        track = releases.create_track(work, repo_id=REPO, plan="slow")
    made = World(world.works, world.tokens, track.id)
    made.climb("partner")
    return made


def gate(slow, key="dwell"):
    with slow.begin("mia") as work:
        found = releases.what_blocks(work, slow.track_id, "researcher")
    return next(one for one in found if one.key == key)


def served(slow):
    """Return what the dwell gate measured."""
    return gate(slow).measured


def revoke(slow, grant_id):
    with slow.begin("olga") as work:
        partners.revoke_grant(work, grant_id, reason="It leaked.")


def test_a_grant_counts_from_its_signature_and_not_from_its_issue(slow, clock):
    slow.issue(await_signature=True)
    clock.move(30 * DAY)
    assert served(slow) == NOBODY
    slow.sign("ann", "model-sharing", organisation="lab-a")
    assert served(slow) == "0 min"
    clock.move(30 * DAY - timedelta(seconds=1))
    assert gate(slow).outcome == "pending"
    clock.move(timedelta(seconds=1))
    assert gate(slow).outcome == "passed"


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_a_grant_that_was_never_active_begins_nothing(slow, clock, how):
    grant = slow.issue(await_signature=True, valid_until=clock.now() + 2 * DAY)
    if how == "revoked":
        revoke(slow, grant.id)
    clock.move(30 * DAY)
    assert served(slow) == NOBODY
    with slow.begin("operator") as work:
        partners.sweep_expired(work)
    assert slow.grant(grant.id).state == how
    assert served(slow) == NOBODY


def test_who_may_only_ask_the_model_fetches_nothing(slow, clock):
    slow.sign("ann", "model-sharing", organisation="lab-a")
    slow.issue(permissions=("infer",))
    clock.move(30 * DAY)
    assert served(slow) == NOBODY


def test_time_in_which_nobody_could_fetch_is_not_counted(slow, clock):
    slow.sign("ann", "model-sharing", organisation="lab-a")
    slow.sign("bea", "model-sharing", organisation="lab-b")
    first = slow.issue()
    revoke(slow, first.id)
    clock.move(30 * DAY)
    got = gate(slow)
    assert (got.outcome, got.measured, got.due) == ("pending", "0 min", None)
    assert got.sentence == (
        "Served 0 min of 30 d at partner; 30 d to go. Nobody can fetch now, so no time is counted."
    )
    second = slow.issue(organisation="lab-b")
    clock.move(4 * DAY)
    with slow.begin("sam") as work:
        partners.suspend_grant(work, second.id, reason="Looking.")
    clock.move(3 * DAY)
    assert served(slow) == "4 d"
    for who in ("sam", "olga"):
        with slow.begin(who) as work:
            partners.resume_grant(work, second.id)
    assert gate(slow).due == clock.now() + 26 * DAY
    clock.move(26 * DAY)
    assert gate(slow).outcome == "passed"


def test_two_grants_at_once_count_once(slow, clock):
    slow.sign("ann", "model-sharing", organisation="lab-a")
    slow.sign("bea", "model-sharing", organisation="lab-b")
    slow.issue(valid_until=clock.now() + 10 * DAY)
    clock.move(5 * DAY)
    slow.issue(organisation="lab-b", valid_until=clock.now() + 2 * DAY)
    clock.move(20 * DAY)  # no sweep has told of either end
    assert served(slow) == "10 d"


@pytest.mark.parametrize("how", ["signature", "reconsent"])
def test_the_clock_ends_time_served_as_it_ends_use(slow, clock, how):
    until = clock.now() + RECONSENT_WITHIN if how == "signature" else None
    slow.sign("ann", "model-sharing", organisation="lab-a", valid_until=until)
    slow.issue()
    if how == "reconsent":
        slow.redraft("model-sharing")
    clock.move(RECONSENT_WITHIN + 9 * DAY)
    assert served(slow) == "30 d"


def test_a_file_of_another_kind_is_not_what_is_released(slow):
    slow.sign("ann", "model-sharing", organisation="lab-a")
    slow.issue()

    def fetch(path):
        with slow.begin("art") as work:
            ticket = downloads.prepare(work, repo_id=REPO, rev="main", path=path, record=True)
        downloads.finish(
            slow.works, ticket.download_id, first=0, sent=ticket.copy.size, outcome="whole"
        )

    fetch("README.md")
    with slow.works.begin(read_only=True) as work:
        row = work.session.execute(select(Download.grant_id, Download.completed_at)).one()
    assert None not in row
    assert gate(slow, "served").outcome == "pending"
    fetch("model.safetensors")
    assert gate(slow, "served").outcome == "passed"

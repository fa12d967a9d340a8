"""What is withdrawn or held: nothing of it is delivered, and nobody learns of it by that."""

from __future__ import annotations

import pytest
from make_incidents import confirmed, secured
from make_partners import REPO, World, database_url, partnered, world
from make_release import make_revision

from stagerelease.downloads import service as downloads
from stagerelease.entitlements import service as entitlements
from stagerelease.incidents import service as incidents
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR
from stagerelease.kernel.errors import Gated, NotFound
from stagerelease.notices.feed import timeline
from stagerelease.releases import service as releases
from stagerelease.releases.planning import record_version
from stagerelease.reports import service as reports

__all__ = ["database_url", "partnered", "secured", "world"]  # fixtures
UNLISTED = "gpt2-mini/quiet"
QUIET = """
plan: quiet
title: Quiet
stages:
  - {name: internal, audience: staff}
  - {name: partner, audience: organisations, agreement: model-sharing, listed: false}
  - {name: public, audience: everyone}
"""


@pytest.fixture
def quiet(world) -> World:
    """The same people, and a track that reached partners at a stage that is not listed."""
    with world.works.begin(OPERATOR) as work:
        record_version(work, QUIET)
        make_revision(work, UNLISTED, salt="9")
        track = releases.create_track(work, repo_id=UNLISTED, plan="quiet")
    found = World(world.works, world.tokens, track.id)
    found.climb("partner")
    return found


def answer(world, who, repo, path):
    """Return the reason of the decision on one file; ``hidden`` when there is none to know of."""
    with world.works.begin(ANONYMOUS) as work:
        if who is not None:
            work.actor = world.actor(who)
        try:
            ticket = downloads.prepare(work, repo_id=repo, rev="main", path=path, record=False)
        except NotFound:
            return "hidden"
        except Gated as refused:
            return refused.reason if refused.sentence else "no words"
        return f"served:{ticket.decision.reason}"


def withdraw(world):
    with world.begin("mia") as work:
        entitlements.withdraw(work, world.track_id, reason="A leak at a partner.")


def told_to_all(world):
    """Return whether report, incidents and timeline name the track to everybody."""
    with world.works.begin(ANONYMOUS, read_only=True) as work:
        try:
            reports.build(work, world.track_id)
            report = True
        except NotFound:
            report = False
        incident = incidents.public_incidents(work)[0]
        moves = {entry.repo_id for entry in timeline(work)}
    return report, incident.tracks, UNLISTED in moves or REPO in moves


def test_withdrawing_what_was_never_announced_does_not_announce_it(quiet):
    quiet.sign("ann", "model-sharing", organisation="lab-a")
    quiet.issue()
    confirmed(quiet, blocking=False)
    for path in ("README.md", "model.safetensors", "none.bin"):
        assert answer(quiet, None, UNLISTED, path) == "hidden"
    withdraw(quiet)
    for path in ("README.md", "model.safetensors", "none.bin"):
        assert answer(quiet, None, UNLISTED, path) == "hidden"
        assert answer(quiet, "rex", UNLISTED, path) == "hidden"  # an account, and no grant
    assert told_to_all(quiet) == (False, 0, False)
    # who was let in is told what became of it, and so are staff
    assert answer(quiet, "art", UNLISTED, "model.safetensors") == "withdrawn"
    assert answer(quiet, "aud", UNLISTED, "model.safetensors") == "withdrawn"


def test_withdrawing_what_was_announced_says_so_to_everybody(world):
    world.climb("partner")
    confirmed(world, blocking=False)
    withdraw(world)
    assert answer(world, None, REPO, "model.safetensors") == "withdrawn"
    assert told_to_all(world) == (True, 1, True)


def test_no_file_of_it_is_delivered_not_even_the_card(secured):
    world = secured
    world.climb("partner")
    assert answer(world, None, REPO, "README.md") == "served:anonymous"
    with world.begin("sam") as work:
        hold = releases.lay_hold(work, scope="track", scope_id=world.track_id, reason="Leaked.")
    for who in (None, "rex", "aud"):
        assert answer(world, who, REPO, "README.md") == "held"
    for who in ("sam", "sue"):
        with world.begin(who) as work:
            releases.lift_hold(work, hold.id, reason="Over.")
    assert answer(world, None, REPO, "README.md") == "served:anonymous"
    withdraw(world)
    for who in (None, "rex", "aud"):
        assert answer(world, who, REPO, "README.md") == "withdrawn"


@pytest.mark.parametrize("scope", ["everything", "family"])
def test_a_wide_hold_stops_what_is_on_no_track_too(world, scope):
    with world.works.begin(OPERATOR) as work:
        make_revision(work, "gpt2-mini/free", salt="e")
        make_revision(work, "other/free", salt="f")
    assert answer(world, "aud", "gpt2-mini/free", "model.safetensors") == "served:staff"
    with world.begin("sam") as work:
        scope_id = "gpt2-mini" if scope == "family" else None
        releases.lay_hold(work, scope=scope, scope_id=scope_id, reason="Stop.")
    assert answer(world, "aud", "gpt2-mini/free", "model.safetensors") == "held"
    assert answer(world, None, "gpt2-mini/free", "model.safetensors") == "hidden"
    beside = "held" if scope == "everything" else "served:staff"
    assert answer(world, "aud", "other/free", "model.safetensors") == beside

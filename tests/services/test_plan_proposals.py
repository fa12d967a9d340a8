"""Changing a plan takes two people, simulation changes nothing, and lint knows who is here."""

from __future__ import annotations

from datetime import timedelta

import pytest
from make_release import (
    PLAN,
    REPO,
    database_url,
    leaves,
    log_size,
    make_revision,
    staff,
    staffed,
    track,
)

from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.kernel.errors import Blocked, Conflict, Forbidden, Invalid, NotFound, Stale
from stagerelease.releases import queries, service
from stagerelease.releases.ladder import shipped_source
from stagerelease.releases.planning import record_version
from stagerelease.releases.proposing import LIFETIME

__all__ = ["database_url", "staff", "staffed", "track"]  # fixtures

SHORTER = PLAN.replace("P14D", "P7D")
DAY = timedelta(days=1)


def propose(staff, source=SHORTER, *, who="mia"):
    with staff.begin(who) as work:
        return service.propose_plan(work, source, rationale="Evidence came sooner.")


def consent(staff, proposal, *, who="rae", sha256=None):
    with staff.begin(who) as work:
        return service.consent_to_plan(work, proposal.id, sha256=sha256 or proposal.sha256)


def newest(staff):
    with staff.begin("aud", read_only=True) as work:
        return service.show_plan(work, "ours").version


def test_a_second_person_makes_a_proposal_the_next_version(works, staff):
    before = log_size(works)
    proposal = propose(staff)
    assert (proposal.state, proposal.missing, newest(staff)) == ("pending", 1, 1)
    assert [(c.where, c.before, c.after, c.effect) for c in proposal.changes] == [
        ("Stage public, minimum_dwell", "P14D", "P7D", "loosens")
    ]
    done = consent(staff, proposal)
    assert (done.state, done.missing, newest(staff)) == ("applied", 0, 2)
    assert [c.person for c in done.consents] == ["rae"]
    assert leaves(works, before) == ["plan.proposed", "plan.consented", "plan.applied"]
    with staff.begin("aud", read_only=True) as work:
        found = service.diff_versions(work, "ours", 1)
        assert [c.sentence for c in found] == [c.sentence for c in proposal.changes]
        assert [p.id for p in service.list_proposals(work, state="applied")] == [proposal.id]


def test_nobody_changes_a_plan_alone(staff):
    proposal = propose(staff, who="max")  # a manager who is a reviewer too
    for who, wrong in (
        ("max", Conflict),
        ("nia", Forbidden),
        ("ola", Forbidden),
        ("bot", Forbidden),
    ):
        with pytest.raises(wrong):
            consent(staff, proposal, who=who)
    assert newest(staff) == 1


def test_a_shell_on_the_host_counts_as_nobody(staff):
    proposal = propose(staff, who="operator")
    assert proposal.missing == 2
    assert consent(staff, proposal, who="rae").missing == 1
    with pytest.raises(Conflict):
        consent(staff, proposal, who="rae")
    with pytest.raises(Forbidden):
        consent(staff, proposal, who="operator")
    assert newest(staff) == 1
    assert consent(staff, proposal, who="rob").state == "applied"


def test_consent_is_to_one_source_on_one_base(staff):
    first, second = propose(staff), propose(staff, PLAN.replace("P14D", "P21D"))
    with pytest.raises(Stale):
        consent(staff, first, sha256=second.sha256)
    consent(staff, first)
    with pytest.raises(Stale) as caught:
        consent(staff, second)
    assert caught.value.reason == "proposal.base"


def test_a_proposal_ends_by_its_date_by_word_or_by_being_applied(works, staff, clock):
    cancelled, old = propose(staff), propose(staff)
    with staff.begin("mia") as work:
        assert service.cancel_proposal(work, cancelled.id, reason="No.").state == "cancelled"
    with pytest.raises(Conflict):
        consent(staff, cancelled)
    clock.move(LIFETIME)
    with pytest.raises(Conflict) as caught:  # the clock decides, the sweeper only says so
        consent(staff, old)
    assert caught.value.reason == "proposal.expired"
    before = log_size(works)
    with works.begin(SYSTEM) as work:
        assert service.proposals_due(work)
        assert service.expire_proposals(work) == 1
        assert service.expire_proposals(work) == 0
    assert leaves(works, before) == ["plan.expired"]
    with pytest.raises(NotFound):
        consent(staff, type("Gone", (), {"id": 999, "sha256": "a" * 64}))


def test_what_says_nothing_new_or_nothing_at_all_is_refused(staff):
    with pytest.raises(Conflict) as caught:
        propose(staff, PLAN)
    assert caught.value.reason == "plan.unchanged"
    with pytest.raises(Invalid):
        propose(staff, "plan: [")
    with staff.begin("mia") as work, pytest.raises(Invalid):
        service.propose_plan(work, SHORTER, rationale=" ")


def test_a_shipped_plan_unchanged_needs_no_second_person(staff):
    row = propose(staff, shipped_source("demo"))
    assert (row.state, row.missing) == ("applied", 0)
    changed = propose(staff, shipped_source("demo") + "# changed\n")
    assert (changed.state, changed.missing) == ("pending", 1)


def test_a_shipped_plan_does_not_undo_alone_what_two_people_changed(staff):
    source = shipped_source("demo")
    propose(staff, source)
    consent(staff, propose(staff, source + "# changed\n"))
    back = propose(staff, source, who="max")
    assert (back.state, back.missing) == ("pending", 1)
    with staff.begin("aud", read_only=True) as work:
        assert service.show_plan(work, "demo").version == 2
    assert consent(staff, back).state == "applied"
    # And it stays so: what people changed once is theirs.
    assert propose(staff, source + "# again\n").state == "pending"


@pytest.mark.parametrize("gone", ["role", "account"])
@pytest.mark.parametrize("who", ["mia", "rae"])
def test_people_stand_behind_a_plan_while_they_may(works, staff, who, gone):
    """The proposer, or one who consented, leaves before there are enough."""
    proposal = propose(staff, who="mia" if who == "mia" else "operator")
    if who == "rae":
        assert consent(staff, proposal).missing == 1
    with works.begin(OPERATOR) as work:
        if gone == "account":
            identity.disable_person(work, who)
        else:
            role = {"mia": "release_manager", "rae": "reviewer"}[who]
            identity.end_role(work, person=who, role=role)
    with staff.begin("aud", read_only=True) as work:
        assert service.show_proposal(work, proposal.id).missing == 2
    assert consent(staff, proposal, who="rob").state == "pending"
    assert newest(staff) == 1
    assert consent(staff, proposal, who="roy").state == "applied"


def test_a_track_keeps_the_plan_version_it_was_created_under(staff, track):
    consent(staff, propose(staff, PLAN.replace("P14D", "P0D")))
    with staff.begin("aud", read_only=True) as work:
        stage = queries.plan_of(work, track.plan_version_id).stage("public")
    assert stage.minimum_dwell == 14 * DAY


# --- simulation and lint -------------------------------------------------------------------------


def simulate(staff, track, to="partner", **options):
    with staff.begin("aud", read_only=True) as work:
        return service.simulate(work, track.id, to, **options)


def test_a_simulation_says_when_it_could_first_go(works, staff, track, clock):
    assert simulate(staff, track).first_at == clock.now()
    later = PLAN.replace(
        "agreement: model-sharing}", "agreement: model-sharing, not_before: 2100-01-01}"
    )
    assert simulate(staff, track, source=later).never == ("not_before",)
    due = clock.now() + 5 * DAY + timedelta(seconds=7)
    dated = PLAN.replace(
        "agreement: model-sharing}",
        f"agreement: model-sharing, not_before: '{due.strftime('%Y-%m-%dT%H:%M:%SZ')}'}}",
    )
    found = simulate(staff, track, source=dated)
    assert abs(found.first_at - due) <= timedelta(seconds=1)
    assert found.asked == ("quorum",)
    at = simulate(staff, track, source=dated, at=due + DAY)
    assert [g.key for g in at.gates if not g.passed] == ["quorum"]
    with pytest.raises(Blocked):
        simulate(staff, track, "public")
    for at in (clock.now() - DAY, clock.now() + 2000 * DAY):
        with pytest.raises(Invalid):
            simulate(staff, track, at=at)


def test_a_hold_is_never_waited_for(staff, track):
    with staff.begin("sam") as work:
        service.lay_hold(work, scope="track", scope_id=track.id, reason="Incident.")
    found = simulate(staff, track)
    assert (found.first_at, found.never) == (None, ("hold",))


def test_lint_knows_how_many_could_approve(staff):
    many = PLAN.replace(
        "    minimum_dwell: P14D", "    quorum: {count: 9}\n    minimum_dwell: P14D"
    )
    with staff.begin("aud", read_only=True) as work:
        assert service.lint(work, PLAN) == ()
        (found,) = service.lint(work, many)
    line = 1 + many[: many.index("quorum")].count("\n")
    assert (found.line, found.severity, found.field) == (line, "warning", "stages.2.quorum")
    assert "asks for 9 people, and 4 hold reviewer" in found.sentence


def test_recording_a_version_twice_records_it_once(works, staff):
    with works.begin(SYSTEM) as work:
        again = record_version(work, PLAN)
        assert again.version == 1
        make_revision(work, "gpt2-mini/two", salt="b")
    with staff.begin("mia") as work:
        shipped = service.create_track(work, repo_id="gpt2-mini/two")
        assert queries.plan_of(work, shipped.plan_version_id).slug == "default"
        with pytest.raises(NotFound):
            service.create_track(work, repo_id=REPO, plan="nobodys", kind="model_card")

"""Two people decide on the same evidence at once: one of them does, and nothing is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from make_evidence import accepted, hand_in
from make_release import database_url, leaves, staff, staffed, track

from stagerelease.evidence import service
from stagerelease.kernel.errors import Conflict, Forbidden, Unavailable
from stagerelease.releases import service as releases

__all__ = ["database_url", "staff", "staffed", "track"]


def at_once(staff, *acts):
    """Do each ``(who, act)`` in its own thread at the same moment; return what came of each."""
    gate = Barrier(len(acts))

    def one(who, act):
        gate.wait(10)
        try:
            with staff.begin(who) as work:
                return act(work).state
        except (Conflict, Forbidden, Unavailable) as refused:
            return type(refused).__name__

    with ThreadPoolExecutor(len(acts)) as pool:
        return [f.result(30) for f in [pool.submit(one, who, act) for who, act in acts]]


def test_accepted_or_rejected_and_never_both(works, staff, track):
    for _ in range(5):
        row = hand_in(staff)
        before = len(leaves(works))
        came = at_once(
            staff,
            ("rae", lambda work, id=row.id: service.accept(work, id)),
            ("rob", lambda work, id=row.id: service.reject(work, id, reason="No.")),
        )
        assert sorted(came)[0] == "Conflict"
        assert len(leaves(works)) == before + 1


def test_accepted_while_it_is_retracted_ends_retracted_or_refused(works, staff, track):
    for _ in range(5):
        row = hand_in(staff)
        came = at_once(
            staff,
            ("rae", lambda work, id=row.id: service.accept(work, id)),
            ("mia", lambda work, id=row.id: service.retract(work, id, reason="A bug.")),
        )
        with staff.begin("aud", read_only=True) as work:
            state = service.show_evidence(work, row.id).evidence.state
        assert came in (
            ["accepted", "retracted"],
            ["Conflict", "retracted"],
            ["accepted", "Conflict"],
        )
        assert state == ("retracted" if came[1] == "retracted" else "accepted")


def test_two_that_supersede_one_do_not_deadlock(works, staff, track):
    old = accepted(staff)
    one, two = hand_in(staff, supersedes=old.id), hand_in(staff, supersedes=old.id)
    came = at_once(
        staff,
        ("rae", lambda work: releases.accept_evidence(work, one.id)),
        ("rob", lambda work: releases.accept_evidence(work, two.id)),
        ("sam", lambda work: releases.retract_evidence(work, old.id, reason="Wrong.")),
    )
    assert "Unavailable" not in came
    with staff.begin("aud", read_only=True) as work:
        assert service.show_evidence(work, old.id).evidence.state in ("superseded", "retracted")

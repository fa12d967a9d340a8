"""Jobs are enqueued with the change, run at least once, and fail in the open."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from stagerelease.jobs.outbox import enqueue
from stagerelease.jobs.runner import claim, run_one
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import SYSTEM


def states(works):
    with works.begin(read_only=True) as work:
        return [(j.state, j.attempts) for j in work.session.execute(select(Job)).scalars()]


def test_a_job_exists_only_if_its_transaction_commits(works):
    with pytest.raises(RuntimeError), works.begin(SYSTEM) as work:
        enqueue(work, "k", {})
        raise RuntimeError
    assert states(works) == []
    with works.begin(SYSTEM) as work:
        enqueue(work, "k", {"n": 1})
    seen = []
    assert run_one(works, {"k": lambda _, payload: seen.append(payload["n"])}, "w")
    assert seen == [1]
    assert states(works) == [("done", 1)]
    assert not run_one(works, {}, "w")


def test_a_failure_is_tried_again_later_and_given_up_visibly(works, clock):
    def fail(_works, _payload):
        raise ValueError("broken")

    with works.begin(SYSTEM) as work:
        enqueue(work, "k", {}, max_attempts=2)
    assert run_one(works, {"k": fail}, "w")
    assert not run_one(works, {"k": fail}, "w")
    clock.move(timedelta(minutes=1))
    assert run_one(works, {"k": fail}, "w")
    assert states(works) == [("failed", 2)]
    with works.begin(read_only=True) as work:
        assert "broken" in work.session.execute(select(Job.last_error)).scalar_one()


def test_a_worker_that_dies_loses_its_lease_and_not_the_job(works, clock):
    with works.begin(SYSTEM) as work:
        enqueue(work, "k", {})
    with works.begin(SYSTEM) as work:
        assert claim(work, "dead") is not None
    assert not run_one(works, {"k": lambda *_: None}, "w")
    clock.move(timedelta(minutes=2))
    assert run_one(works, {"k": lambda *_: None}, "w")
    assert states(works) == [("done", 2)]

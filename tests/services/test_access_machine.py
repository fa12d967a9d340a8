"""No sequence of acts lets anybody in who was not approved, or loses a step.

A model, written from the domain's words and sharing no rule with the product, says before each act
what comes of it: the new state, or the reason of the refusal. Hypothesis looks for a sequence where
the product disagrees.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from make_partners import REPO, World, database_url, partnered, world
from sqlalchemy import select
from test_access_review import notices
from test_partners import allowed

from databases import START, copy_database, execute
from stagerelease.access import service
from stagerelease.access.tables import AccessRequest, AccessRequestEvent
from stagerelease.db.engine import make_engine
from stagerelease.db.work import Works
from stagerelease.kernel.actor import SYSTEM
from stagerelease.kernel.clock import SetClock
from stagerelease.kernel.errors import DomainError

__all__ = ["database_url", "partnered", "world"]  # fixtures
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
DAY = timedelta(days=1)
YEAR = timedelta(days=364)
OPEN = {"submitted", "in_review", "returned"}
_NUMBERS = itertools.count()


@dataclass
class Model:
    """One request of rex as the domain says it goes; None before there is any."""

    now: datetime = START
    state: str | None = None
    ends: datetime | None = None
    assignee: str | None = None
    conflicted: set[str] = field(default_factory=set)
    reapply: datetime | None = None
    steps: int = 0
    revoked: bool = False  # a grant was taken back: a new one needs a second person's consent

    @property
    def over(self) -> bool:
        return self.ends is not None and self.now >= self.ends

    def go(self, state: str) -> None:
        self.state, self.steps = state, self.steps + 1
        days = {"submitted": 90, "returned": 30}.get(state)
        self.ends = self.now + days * DAY if days else None

    def submit(self) -> str | None:
        if self.state in OPEN and not self.over:
            return None  # the one that waits is returned
        if self.state == "approved":
            return "access.granted"
        if self.state == "rejected" and self.reapply is not None and self.now < self.reapply:
            return "access.rejected"
        self.__init__(now=self.now, revoked=self.revoked)  # another request
        self.go("submitted")
        return None

    def refuse(self, who: str) -> str | None:
        if self.over:
            return "access.expired"
        return "access.conflict-declared" if who in self.conflicted else None

    def assign(self, who: str) -> str | None:
        if (no := self.refuse(who)) is not None:
            return no
        if self.state not in OPEN:
            return self.closed()
        if self.assignee == who:
            return None
        self.assignee = who
        if self.state == "submitted":
            self.go("in_review")
        else:
            self.steps += 1
        return None

    def closed(self) -> str:
        words = {"approved": "accepted", "expired": "withdrawn"}
        return f"access.{words.get(self.state or '', self.state)}"

    def ask(self, who: str) -> str | None:
        if (no := self.refuse(who)) is not None:
            return no
        if self.state == "returned":
            return "access.already-pending"
        if self.state not in OPEN:
            return self.closed()
        if self.state == "submitted":
            self.assignee = who
            self.steps += 1
        self.go("returned")
        return None

    def reply(self) -> str | None:
        if self.over:
            return "access.expired"
        if self.state not in OPEN:
            return self.closed()
        if self.state == "returned":
            self.go("submitted")
        else:
            self.steps += 1
        return None

    def withdraw(self) -> str | None:
        if self.over:
            return "access.expired"
        if self.state == "withdrawn":
            return "access.already-withdrawn"
        if self.state not in OPEN:
            return self.closed()
        self.go("withdrawn")
        return None

    def approve(self, who: str) -> str | None:
        if (no := self.refuse(who)) is not None:
            return no
        if self.state == "approved":
            return "access.already-accepted"
        if self.state == "returned":
            return "access.pending"
        if self.state in ("withdrawn", "expired"):
            return self.closed()
        self.go("approved")
        return None

    def reject(self, who: str) -> str | None:
        if (no := self.refuse(who)) is not None:
            return no
        if self.state == "rejected":
            return "access.already-rejected"
        if self.state in ("withdrawn", "expired"):
            return self.closed()
        self.revoked |= self.state == "approved"
        self.go("rejected")
        self.reapply = self.now + 30 * DAY
        return None

    def reopen(self, who: str) -> str | None:
        if (no := self.refuse(who)) is not None:
            return no
        if self.state in OPEN:
            return "access.pending" if self.state == "in_review" else "access.already-pending"
        if self.state in ("withdrawn", "expired"):
            return self.closed()
        self.revoked |= self.state == "approved"
        self.go("submitted")
        return None

    def declare(self, who: str) -> str | None:
        if self.over:
            return "access.expired"
        if who in self.conflicted:
            return None
        if self.state not in OPEN:
            return "access.decided"
        self.conflicted.add(who)
        if self.assignee == who:
            self.assignee = None
        return None

    def sweep(self) -> None:
        if self.over:
            self.go("expired")


STEPS = st.one_of(
    st.tuples(
        st.sampled_from(["assign", "ask", "approve", "reject", "reopen", "declare"]),
        st.sampled_from(["olga", "otto"]),
    ),
    st.tuples(st.sampled_from(["submit", "reply", "withdraw", "sweep"]), st.just("rex")),
    st.tuples(st.just("wait"), st.sampled_from([1, 29, 30, 31, 90])),
)
OPTIONS: dict[str, dict[str, Any]] = {
    "ask": {"question": "Why?"},
    "reject": {"reason": "No."},
    "reply": {"message": "Because."},
    "declare": {"reason": "A friend."},
}
CALLS: dict[str, Any] = {
    "assign": service.assign,
    "ask": service.ask,
    "approve": service.approve,
    "reject": service.reject,
    "reopen": service.reopen,
    "declare": service.declare_conflict,
    "reply": service.reply,
    "withdraw": service.withdraw,
}


class Run:
    """One sequence, in the product and in the model."""

    def __init__(self, world: World, clock: SetClock) -> None:
        self.world, self.clock, self.model, self.request = world, clock, Model(), ""

    def act(self, what: str, who: Any) -> str | None:
        """Do one step in the product and return the reason of its refusal, None when it went."""
        if what == "wait":
            self.clock.move(who * DAY)
            return None
        try:
            if what == "sweep":
                with self.world.works.begin(SYSTEM) as work:
                    service.sweep_over(work)
            elif what == "submit":
                with self.world.begin("rex") as work:
                    row = service.submit(work, repo_id=REPO, answers={"purpose": "Reading."})
                    self.request = row.id
            else:
                with self.world.begin(who) as work:
                    CALLS[what](work, self.request, **OPTIONS.get(what, {}))
        except DomainError as error:
            return error.reason
        return None

    def expect(self, what: str, who: Any) -> str | None:
        """Do one step in the model and return what it expects."""
        if what == "wait":
            self.model.now += who * DAY
            return None
        if what in ("submit", "reply", "withdraw", "sweep"):
            return getattr(self.model, what)()
        return getattr(self.model, what)(who)

    def agree(self) -> None:
        """Compare what is stored, told and let in with the model."""
        with self.world.works.begin(read_only=True) as work:
            row = work.session.get(AccessRequest, self.request)
            assert row is not None
            assert row.state == self.model.state
            assert row.expires_at == self.model.ends
            events = list(
                work.session.execute(
                    select(AccessRequestEvent.from_state, AccessRequestEvent.to_state)
                    .where(AccessRequestEvent.request_id == self.request)
                    .order_by(AccessRequestEvent.leaf_idx)
                )
            )
        assert len(events) == self.model.steps
        assert [e.from_state for e in events[1:]] == [e.to_state for e in events[:-1]]
        assert [e.to_state for e in events].count("expired") <= 1
        inside = self.model.state == "approved" and not self.model.revoked
        assert allowed(self.world, "rex")[0] is inside


@contextmanager
def copied(partnered: Any, source: str, directory: Path) -> Iterator[str]:
    """Give the URL of a private copy of the world that ``source`` names."""
    name = f"m{os.getpid()}_{next(_NUMBERS)}"
    if partnered.server is None:
        target = directory / f"{name}.sqlite3"
        shutil.copy(source.removeprefix("sqlite:///"), target)
        yield f"sqlite:///{target}"
        target.unlink()
        return
    admin = make_engine(partnered.server.database("postgres"), pool_size=1)
    copy_database(admin, name, source.rpartition("/")[2])
    try:
        yield partnered.server.database(name)
    finally:
        execute(admin, f"DROP DATABASE {name} WITH (FORCE)")
        admin.dispose()


@pytest.mark.timeout(3600 if DEEP else 300)
def test_no_sequence_disagrees_with_the_model(world, partnered, database_url, tmp_path):
    world.climb("researcher")
    world.sign("rex", "researcher-terms")
    world.works.engine.dispose()  # the last connection leaves everything in the file
    few = 4 if partnered.server is not None else 15

    @settings(
        max_examples=500 if DEEP else few,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(STEPS, min_size=10, max_size=25))
    def walk(steps: list[tuple[str, Any]]) -> None:
        with copied(partnered, database_url, tmp_path) as url:
            engine, clock = make_engine(url, pool_size=2), SetClock(START)
            run = Run(World(Works(engine, clock), dict(world.tokens), world.track_id), clock)
            try:
                for what, who in [("submit", "rex"), *steps]:
                    if what == "wait" and clock.now() + who * DAY > START + YEAR:
                        continue  # grants and signatures have ends of their own
                    expected = run.expect(what, who)
                    assert (what, who, run.act(what, who)) == (what, who, expected)
                    run.agree()
                ended = [n for n in notices(run.world) if n["event"] == "request.expired"]
                subjects = [n["subject"] for n in ended]
                assert len(subjects) == len(set(subjects))
            finally:
                engine.dispose()

    walk()

"""No sequence of acts skips a gate, a quorum, a hold or the log.

A model, written from the domain's words and sharing no code with the product, says before each act
whether it may succeed, what would block it, and which entries the log gains. Hypothesis looks for a
sequence where the product disagrees, through the services and through the JSON face.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from drivers import Driver, HttpDriver, ServiceDriver
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from make_release import Staff, Staffed, leaves_of, log_size, make_grant, staffed
from sqlalchemy import select

from databases import START
from live import make_box, serve_in_thread
from stagerelease.db.engine import make_engine
from stagerelease.db.work import Works
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.kernel.clock import SetClock
from stagerelease.releases import queries, service
from stagerelease.releases.tables import Promotion

__all__ = ["staffed"]  # a fixture
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
pytestmark = pytest.mark.timeout(7200 if DEEP else 600)
LADDER = ["internal", "partner", "public"]
DWELL = timedelta(days=14)  # asked of public
LIFETIME = timedelta(days=30)
MANAGERS = ("mia", "max")
REVIEWERS = ("max", "rae", "rob", "roy")
LAYERS = ("mia", "max", "sam", "sue", "ola")
LIFTERS = ("sam", "sue", "ola")
APPLIERS = ("mia", "max", "ola")
WITHDRAWERS = ("mia", "max", "sam", "sue", "ola")
EVERYBODY = (*MANAGERS, "rae", "rob", "roy", "sam", "sue", "ola", "aud", "nia", "bot")
OPEN = {"draft", "submitted", "in_review", "changes_requested", "approved", "scheduled"}
UNDER_REVIEW = {"submitted", "in_review", "approved", "scheduled"}
people = st.sampled_from((*MANAGERS, *REVIEWERS, *EVERYBODY))
pick = st.integers(0, 5)


@dataclass
class Request:
    """A promotion request as the model knows it."""

    number: int
    requester: str
    from_stage: str
    to: str
    hash: str
    state: str
    expires: datetime
    scheduled: datetime | None = None
    approvals: set[str] = field(default_factory=set)  # of the present hash
    answer: bool | None = None  # to the manual gate, of the present hash
    old_hashes: list[str] = field(default_factory=list)


@dataclass
class Hold:
    """A hold as the model knows it."""

    number: int
    consents: set[str] = field(default_factory=set)
    active: bool = True


class Promoting(RuleBasedStateMachine):
    """One track, its requests, the people around it, and time."""

    make_driver: Callable[[ExitStack], tuple[Driver, Works, Staff, SetClock]]
    track_id: str

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.driver, self.works, self.staff, self.clock = type(self).make_driver(self.stack)
        self.stage = "internal"
        self.path = ["internal"]
        self.served = timedelta(0)  # at this stage, by its audience, not under a hold
        self.let_in = True  # staff are always in
        self.grants = 0
        self.roles = {handle: {"reviewer"} for handle in (*REVIEWERS, "bot")}
        self.requests: list[Request] = []
        self.holds: list[Hold] = []
        self.seen = log_size(self.works)
        self.looked_at = self.now
        self.expected: list[str] = []  # entries the log must have gained, in order

    def teardown(self) -> None:
        self.driver.close()
        self.stack.close()

    # --- what the model knows --------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return self.clock.now()

    @property
    def held(self) -> bool:
        return any(hold.active for hold in self.holds)

    def counted(self, request: Request) -> set[str]:
        return {who for who in request.approvals if "reviewer" in self.roles[who]}

    def blockers(self, request: Request) -> set[str]:
        """Say, from the words of the domain model, what keeps this from being applied."""
        if request.state not in OPEN:
            return {"ended"}
        found = set()
        if self.stage != request.from_stage:
            found.add("stage-moved")
        if self.now >= request.expires:
            found.add("expired")
        if request.state in ("draft", "changes_requested"):
            found.add("not-submitted")
        if request.to == "public":
            if self.served < DWELL:
                found.add("gate.dwell")
            if request.answer is not True:
                found.add("gate.manual")
        if len(self.counted(request)) < 2:
            found.add("gate.quorum")
        if self.held:
            found.add("gate.hold")
        if request.scheduled is not None and self.now < request.scheduled:
            found.add("gate.not_before")
        return found

    def arrive(self, stage: str) -> None:
        self.stage = stage
        self.path.append(stage)
        self.served = timedelta(0)
        self.let_in = stage != "partner"  # partners are let in one by one

    def supersede(self, request: Request | None = None) -> None:
        for other in self.requests:
            if other is not request and other.state in OPEN:
                other.state = "superseded"
                self.expected.append("promotion.superseded")

    def applied(self, request: Request) -> None:
        if request.state in ("submitted", "in_review"):
            self.expected.append("promotion.approved")
        request.state = "applied"
        self.expected.append("promotion.applied")
        self.supersede(request)
        self.expected.append("track.promoted")
        self.arrive(request.to)

    def reviewable(self, who: str, request: Request, digest: str) -> str | None:
        """Return the code of the refusal that a reviewer's act meets, None when it may go on."""
        if "reviewer" not in self.roles.get(who, set()) or who in ("bot", request.requester):
            return "forbidden"
        if request.state not in OPEN or self.now >= request.expires:
            return "conflict"
        if digest != request.hash:
            return "stale"
        return None if request.state in UNDER_REVIEW else "conflict"

    def begin_review(self, request: Request) -> None:
        if request.state == "submitted":
            request.state = "in_review"
            self.expected.append("promotion.in_review")

    def chosen(self, which: int) -> Request:
        return self.requests[-1 - which % len(self.requests)]  # the newest most often

    def schedule(self, days: int | None) -> datetime | None:
        return None if days is None else self.now + timedelta(days=days)

    # --- requests --------------------------------------------------------------------------------

    @initialize(far=st.integers(0, 6))
    def start(self, far: int) -> None:
        """Begin anywhere on the way up, having come there by the same acts."""
        self.open("mia", "next", None)
        for _ in range(far):
            self.go_on()

    @precondition(lambda self: self.stage in LADDER[:-1] and not self.held)
    @rule()
    def go_on(self) -> None:
        """Do the next thing that brings the track up, so that sequences get far."""
        ready = [
            (back, r)
            for back, r in enumerate(reversed(self.requests))
            if r.state in UNDER_REVIEW and r.from_stage == self.stage and self.now < r.expires
        ]
        if not ready and any(r.state == "draft" for r in self.requests):
            self.resubmit(1, 0)
            return
        if not ready:
            self.open("mia", "next", None)
            return
        back, request = ready[0]
        missing = self.blockers(request)
        if "gate.quorum" in missing:
            for who in ("rae", "rob", "roy", "max"):
                if len(self.counted(request)) < 2 and who not in request.approvals:
                    self.approve(who, back, False)
        elif "gate.manual" in missing and request.answer is None:
            self.judge("roy", back, True)
        elif "gate.dwell" in missing and not self.let_in:
            self.let_a_partner_in()
        elif missing & {"gate.dwell", "gate.not_before"}:
            self.wait(24 * 7, False)
        elif missing:
            self.cancel("mia", back)
        else:
            self.apply("mia", back)

    @rule(who=people, to=st.sampled_from(["next", *LADDER]), days=st.none() | st.integers(1, 9))
    def open(self, who: str, to: str, days: int | None) -> None:
        rung = LADDER.index(self.stage) + 1 if self.stage in LADDER else 9
        above = LADDER[rung] if rung < len(LADDER) else None
        to = (above or "public") if to == "next" else to
        when = self.schedule(days)
        body = {"scheduled_for": when} if when else {}
        answer = self.driver.act(
            who, "open_promotion", track_id=self.track_id, to=to, rationale="Ready.", **body
        )
        if who not in (*MANAGERS, "ola"):
            assert answer.code == "forbidden"
        elif to != above:
            assert answer.code == "blocked"
        else:
            self.expected += ["promotion.opened", "promotion.submitted"]
            self.requests.append(
                Request(
                    number=answer["id"],
                    requester=who,
                    from_stage=self.stage,
                    to=to,
                    hash=answer["request_hash"],
                    state="submitted",
                    expires=(when or self.now) + LIFETIME,
                    scheduled=when,
                )
            )

    @precondition(lambda self: self.requests)
    @rule(other=st.integers(0, 4), which=pick, days=st.none() | st.integers(1, 9))
    def edit(self, other: int, which: int, days: int | None) -> None:
        request = self.chosen(which)
        who = request.requester if other else "max"
        when = self.schedule(days)
        body = {"scheduled_for": when} if when else {"unschedule": True}
        answer = self.driver.act(
            who,
            "edit_promotion",
            request.number,
            request_hash=request.hash,
            rationale=f"Ready, {len(request.old_hashes)}.",
            **body,
        )
        if who != request.requester:
            assert answer.code == "forbidden"
        elif request.state not in OPEN or self.now >= request.expires:
            assert answer.code == "conflict"
        else:
            self.expected.append("promotion.edited")
            assert answer["request_hash"] not in {request.hash, *request.old_hashes}
            request.old_hashes.append(request.hash)
            request.hash = answer["request_hash"]
            request.state = "draft"
            request.scheduled = when
            request.approvals, request.answer = set(), None

    @precondition(lambda self: any(r.state == "draft" for r in self.requests))
    @rule(other=st.integers(0, 4), which=pick)
    def resubmit(self, other: int, which: int) -> None:
        drafts = [r for r in self.requests if r.state == "draft"]
        request = drafts[-1 - which % len(drafts)]
        who = request.requester if other else "max"
        answer = self.driver.act(who, "resubmit", request.number)
        if who != request.requester:
            assert answer.code == "forbidden"
        elif self.now >= request.expires:
            assert answer.code == "conflict"
        elif request.scheduled is not None and request.scheduled <= self.now:
            assert answer.code == "invalid"
        else:
            assert answer["state"] == "submitted"
            self.expected.append("promotion.submitted")
            request.state = "submitted"
            request.expires = (request.scheduled or self.now) + LIFETIME

    @precondition(lambda self: self.requests)
    @rule(who=people, which=pick, old=st.booleans())
    def approve(self, who: str, which: int, old: bool) -> None:
        request = self.chosen(which)
        digest = request.old_hashes[-1] if old and request.old_hashes else request.hash
        answer = self.driver.act(who, "approve", request.number, request_hash=digest)
        refused = self.reviewable(who, request, digest)
        if refused is None and who in request.approvals:
            refused = "conflict"
        assert answer.code == refused
        if refused is None:
            self.begin_review(request)
            request.approvals.add(who)
            self.expected.append("review.approval")
            if request.state == "in_review" and len(self.counted(request)) >= 2:
                request.state = "approved"
                self.expected.append("promotion.approved")
                if request.scheduled is not None and request.scheduled > self.now:
                    request.state = "scheduled"
                    self.expected.append("promotion.scheduled")

    @precondition(lambda self: self.requests)
    @rule(who=people, which=pick, verdict=st.sampled_from(["reject", "request_changes"]))
    def object(self, who: str, which: int, verdict: str) -> None:
        request = self.chosen(which)
        answer = self.driver.act(
            who, verdict, request.number, request_hash=request.hash, comment="No."
        )
        refused = self.reviewable(who, request, request.hash)
        if (
            refused is None
            and verdict == "request_changes"
            and request.state in (*("approved", "scheduled"),)
        ):
            refused = "conflict"
        assert answer.code == refused
        if refused is None:
            self.begin_review(request)
            if verdict == "reject":
                self.expected += ["review.rejection", "promotion.rejected"]
                request.state = "rejected"
            else:
                self.expected += ["review.change-request", "promotion.changes_requested"]
                request.state = "changes_requested"

    @precondition(lambda self: self.requests)
    @rule(who=people, which=pick, passed=st.sampled_from([True, True, False]))
    def judge(self, who: str, which: int, passed: bool) -> None:
        request = self.chosen(which)
        answer = self.driver.act(
            who,
            "judge",
            request.number,
            gate="card-read",
            passed=passed,
            reason="I read it.",
            request_hash=request.hash,
        )
        refused = self.reviewable(who, request, request.hash)
        if refused is None and request.to != "public":
            refused = "not-found"
        elif refused is None and request.answer is not None:
            refused = "conflict"
        assert answer.code == refused
        if refused is None:
            self.begin_review(request)
            self.expected.append("review.judgement")
            request.answer = passed

    @precondition(lambda self: self.requests)
    @rule(who=st.sampled_from(["mia", "rae"]), which=pick)
    def cancel(self, who: str, which: int) -> None:
        request = self.chosen(which)
        answer = self.driver.act(who, "cancel", request.number, reason="Not now.")
        if who not in MANAGERS:
            assert answer.code == "forbidden"
        elif request.state not in OPEN:
            assert answer.code == "conflict"
        else:
            assert answer["state"] == "cancelled"
            request.state = "cancelled"
            self.expected.append("promotion.cancelled")

    @precondition(lambda self: self.requests)
    @rule(who=people, which=pick)
    def apply(self, who: str, which: int) -> None:
        request = self.chosen(which)
        found = self.blockers(request)
        answer = self.driver.act(who, "apply", request.number)
        if who not in APPLIERS:
            assert answer.code == "forbidden"
        elif found:
            assert (answer.code, answer.blockers) == ("blocked", found)
        else:
            assert answer["state"] == "applied"
            self.applied(request)

    @precondition(lambda self: any(not self.blockers(r) for r in self.requests))
    @rule()
    def apply_what_may_be(self) -> None:
        """Do not leave it to chance that what may be applied is."""
        ready = next(i for i, r in enumerate(reversed(self.requests)) if not self.blockers(r))
        self.apply("mia", ready)

    # --- around the requests ---------------------------------------------------------------------

    @rule(who=people, scope=st.sampled_from(["track", "family", "everything"]))
    def lay(self, who: str, scope: str) -> None:
        scope_id = {"track": self.track_id, "family": "gpt2-mini", "everything": None}[scope]
        answer = self.driver.act(
            who, "lay_hold", scope=scope, scope_id=scope_id, reason="Incident."
        )
        if who not in LAYERS:
            assert answer.code == "forbidden"
        else:
            self.expected.append("hold.laid")
            self.holds.append(Hold(answer["id"]))

    @precondition(lambda self: self.holds)
    @rule(who=st.sampled_from([*LIFTERS, "mia"]), which=pick)
    def lift(self, who: str, which: int) -> None:
        hold = self.holds[-1 - which % len(self.holds)]
        answer = self.driver.act(who, "lift_hold", hold.number, reason="Over.")
        if who not in LIFTERS:
            assert answer.code == "forbidden"
        elif not hold.active or who in hold.consents:
            assert answer.code == "conflict"
        else:
            self.expected.append("hold.lift_consented")
            hold.consents.add(who)
            hold.active = len(hold.consents) < 2
            assert (answer["lifted_at"] is None) == hold.active
            if not hold.active:
                self.expected.append("hold.lifted")

    @precondition(lambda self: self.held)
    @rule()
    def lift_all(self) -> None:
        """Let sequences come out from under their holds."""
        for back in range(len(self.holds)):
            for who in LIFTERS:
                if self.holds[-1 - back].active:
                    self.lift(who, back)

    @rule(who=st.sampled_from([*WITHDRAWERS, "rae"]), sure=st.integers(0, 9))
    def withdraw(self, who: str, sure: int) -> None:
        if sure != 0 and self.stage != "internal":
            return  # rarely, or no sequence gets far
        answer = self.driver.act(who, "withdraw_track", self.track_id, reason="Harm.")
        if who not in WITHDRAWERS:
            assert answer.code == "forbidden"
        elif self.stage in ("internal", "withdrawn"):
            assert answer.code == "conflict"
        else:
            self.supersede()
            self.expected.append("track.withdrawn")
            self.expected += ["grant.suspended"] * self.grants
            self.arrive("withdrawn")

    @rule(span=st.sampled_from([1, 60, 24, 24 * 5, 24 * 14, 24 * 14]), again=st.booleans())
    def wait(self, span: int, again: bool) -> None:
        delta = timedelta(hours=span * (1 + again))
        self.clock.move(delta)
        if self.let_in and not self.held:
            self.served += delta

    @precondition(lambda self: self.stage == "partner" and not self.let_in)
    @rule()
    def let_a_partner_in(self) -> None:
        make_grant(self.works, self.track_id, "partner", self.staff.id("nia"))
        self.let_in = True
        self.grants += 1

    @rule(who=st.sampled_from(["rae", "rob", "bot"]))
    def end_role(self, who: str) -> None:
        with self.works.begin(OPERATOR) as work:
            if "reviewer" in self.roles[who]:
                identity.end_role(work, person=who, role="reviewer")
                self.roles[who].discard("reviewer")
                self.expected.append("role.ended")
            else:
                identity.assign_role(work, person=who, role="reviewer")
                self.roles[who].add("reviewer")
                self.expected.append("role.assigned")

    @rule()
    def run_the_worker(self) -> None:
        """Apply what is due, expire what is over."""
        due = [r for r in self.requests if r.state == "scheduled" and r.scheduled <= self.now]
        done = []
        for request in due:
            if not self.blockers(request):
                self.applied(request)
                done.append(request.number)
        with self.works.begin(SYSTEM) as work:
            assert service.apply_due(work) == done
        over = [r for r in self.requests if r.state in OPEN and r.expires <= self.now]
        for request in over:
            request.state = "expired"
            self.expected.append("promotion.expired")
        with self.works.begin(SYSTEM) as work:
            assert service.expire_stale(work) == [r.number for r in over]

    # --- and after every act ---------------------------------------------------------------------

    @invariant()
    def everything_is_where_the_model_says_and_on_record(self) -> None:
        with self.works.begin(OPERATOR, read_only=True) as work:
            track = queries.load_track(work, self.track_id)
            events = queries.stage_events(work, self.track_id)
            rows = dict(work.session.execute(select(Promotion.id, Promotion.state)).all())
            active = [hold.id for hold in queries.active_holds(work)]
            gained = leaves_of(work, self.seen)
            if self.requests and (gained or self.now != self.looked_at):
                number = self.requests[-1].number
                page = service.facts_page(work, number)
                assert {b.code for b in page.blockers} == self.blockers(self.requests[-1])
        assert gained == self.expected
        self.looked_at = self.now
        self.seen += len(gained)
        self.expected = []
        assert track.stage == self.stage
        assert [event.to_stage for event in events] == self.path
        assert rows == {request.number: request.state for request in self.requests}
        assert active == [hold.number for hold in self.holds if hold.active]
        applied = [r for r in self.requests if r.state == "applied"]
        promoted = [e for e in events if e.promotion_id is not None]
        assert [e.promotion_id for e in promoted] == sorted(r.number for r in applied)


def run(machine: type[Promoting], *, examples: int, steps: int, shrink: bool = True) -> None:
    """Look for a sequence that disagrees; ``shrink`` it, where replaying thousands is cheap."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: thousands of commits, and none needs a disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as path:
        yield Path(path)


def test_through_the_services(staffed: Staffed, room: Path) -> None:
    with staffed.copied(room) as url:
        engine = make_engine(url)  # one for all examples: what it compiled once stays compiled

        class ThroughServices(Promoting):
            track_id = staffed.track_id

            @staticmethod
            def make_driver(stack: ExitStack) -> tuple[Driver, Works, Staff, SetClock]:
                stack.callback(engine.dispose)
                staffed.restore(url)
                clock = SetClock(START)
                works = Works(engine, clock)
                staff = Staff(works, dict(staffed.tokens))
                return ServiceDriver(staff), works, staff, clock

        few = 40 if staffed.server is None else 15  # PostgreSQL takes a second to copy a database
        run(ThroughServices, examples=200 if DEEP else few, steps=50 if DEEP else 30)


def test_through_the_json_face(staffed: Staffed, room: Path) -> None:
    class ThroughHttp(Promoting):
        track_id = staffed.track_id

        @staticmethod
        def make_driver(stack: ExitStack) -> tuple[Driver, Works, Staff, SetClock]:
            clock = SetClock(START)
            url = stack.enter_context(staffed.copied(room))
            box = make_box(room / "data", url, clock)
            stack.callback(box.works.engine.dispose)
            server, stop = serve_in_thread(box)
            stack.callback(stop)
            driver = HttpDriver(server.base_url, dict(staffed.tokens))
            return driver, box.works, Staff(box.works, dict(staffed.tokens)), clock

    run(ThroughHttp, examples=200 if DEEP else 10, steps=50 if DEEP else 30, shrink=False)

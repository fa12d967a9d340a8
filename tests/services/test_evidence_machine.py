"""The same model as in ``test_promotion_machine``, with evidence, judgements, waivers, retraction.

The way into ``public`` also asks for evidence. The model says of each piece whether it counts, of
each person whether they wrote it, of each waiver whether it helps; it shares no code with the
product, and Hypothesis looks for a sequence where the two disagree.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from drivers import Driver, ServiceDriver
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from make_release import Staff, Staffed, log_size, make_grant, make_track, staffed
from test_promotion_machine import (
    DWELL,
    EVERYBODY,
    OPEN,
    UNDER_REVIEW,
    Promoting,
    Request,
    people,
    pick,
    room,
    run,
)

from databases import START
from stagerelease.db.engine import make_engine
from stagerelease.db.work import Works
from stagerelease.evidence import service as evidence
from stagerelease.evidence.service import NewEvidence
from stagerelease.kernel.clock import SetClock
from stagerelease.releases import facts

__all__ = ["room", "staffed"]  # fixtures
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
pytestmark = pytest.mark.timeout(7200 if DEEP else 600)
PLAN = """
plan: weighed
title: Weighed
request_lifetime: P30D
stages:
  - {name: internal, audience: staff}
  - {name: partner, audience: organisations, agreement: model-sharing}
  - name: public
    audience: everyone
    minimum_dwell: P14D
    gates:
      - {kind: manual, key: card-read, question: Did somebody else read the card}
      - kind: evidence
        key: useful
        type: benefit
        metric: users
        at_least: 10
        max_age: P40D
        conditions: {audience: readers}
"""
VALID = timedelta(days=50)
MAX_AGE = timedelta(days=40)
SIGNERS = ("max", "rae", "rob", "roy", "sam", "sue")
ROLED = {"max": "reviewer", "rae": "reviewer", "rob": "reviewer", "roy": "reviewer"}


@dataclass
class Piece:
    """A piece of evidence as the model knows it."""

    id: str
    author: str
    enough: bool
    measured: datetime
    state: str = "accepted"

    def counts(self, now: datetime) -> bool:
        return (
            self.state == "accepted"
            and now < self.measured + VALID
            and now - self.measured <= MAX_AGE
        )


@dataclass
class Waiver:
    """A waiver as the model knows it."""

    id: str
    ends: datetime
    signers: set[str] = field(default_factory=set)
    in_force: bool = False


class Weighing(Promoting):
    """One track whose last step rests on evidence."""

    def __init__(self) -> None:
        super().__init__()
        self.track_id = make_track(self.works, repo_id="gpt2-mini/two", plan=PLAN, salt="b").id
        self.seen = log_size(self.works)
        self.pieces: dict[str, Piece] = {}
        self.rests_on: dict[int, set[str]] = {}  # by number of the request
        self.judged: dict[tuple[int, str], bool] = {}  # by number and hash
        self.waivers: list[Waiver] = []

    # --- what the model knows --------------------------------------------------------------------

    def wrote(self, request: Request) -> set[str]:
        return {self.pieces[e].author for e in self.rests_on[request.number]}

    def counted(self, request: Request) -> set[str]:
        return super().counted(request) - self.wrote(request)

    def measured(self, request: Request) -> str:
        """Say what the evidence alone tells: passed, failed, inconclusive or pending."""
        pieces = [self.pieces[e] for e in self.rests_on[request.number]]
        told = {piece.enough for piece in pieces if piece.counts(self.now)}
        return {
            frozenset(): "pending",
            frozenset({True}): "passed",
            frozenset({False}): "failed",
        }.get(frozenset(told), "inconclusive")

    def signs(self, who: str) -> bool:
        return "reviewer" in self.roles[who] if who in ROLED else True

    def waived(self, request: Request) -> bool:
        return any(
            waiver.in_force
            and self.now < waiver.ends
            and len({w for w in waiver.signers if self.signs(w)} - {request.requester}) >= 2
            for waiver in self.waivers
        )

    def blockers(self, request: Request) -> set[str]:
        found = super().blockers(request)
        if "ended" in found or request.to != "public":
            return found
        said = self.measured(request)
        if said == "inconclusive" and self.judged.get((request.number, request.hash)):
            said = "passed"
        return found if said == "passed" or self.waived(request) else found | {"gate.evidence"}

    # --- evidence --------------------------------------------------------------------------------

    @initialize(far=st.integers(2, 8))
    def start(self, far: int) -> None:
        """Begin further up than the other machine does: evidence matters on the last step."""
        self.open("mia", "next", None)
        for _ in range(far):
            self.go_on()

    @precondition(lambda self: self.stage in ("internal", "partner") and not self.held)
    @rule()
    def go_on(self) -> None:
        if self.stage == "partner" and not any(
            p.counts(self.now) and p.enough for p in self.pieces.values()
        ):
            self.measure("sam", True)
        super().go_on()

    @rule(who=st.sampled_from(["sam", "sam", "roy"]), enough=st.sampled_from([True, True, False]))
    def measure(self, who: str, enough: bool) -> None:
        new = NewEvidence(
            type="benefit",
            metric="users",
            title="Readers it helped",
            subject_sha256="b" * 64,
            source="https://example.org/survey",
            fact_status="verified",
            measured_at=self.now,
            valid_until=self.now + VALID,
            value=10 if enough else 9,
            unit="count",
            conditions={"audience": "readers", "counted_from": "survey"},
        )
        with self.staff.begin(who) as work:
            row = evidence.hand_in(work, new)
        with self.staff.begin("sue") as work:
            evidence.accept(work, row.id)
        self.expected += ["evidence.drafted", "evidence.submitted", "evidence.accepted"]
        self.pieces[row.id] = Piece(row.id, who, enough, self.now)

    @precondition(lambda self: self.pieces)
    @rule(
        who=st.sampled_from(["sue", "sam", "mia", "aud", "nia"]),
        which=pick,
        act=st.sampled_from(["retract", "dispute"]),
        sure=st.integers(0, 2),
    )
    def take(self, who: str, which: int, act: str, sure: int) -> None:
        piece = list(self.pieces.values())[-1 - which % len(self.pieces)]
        if sure:
            return  # now and then, or nothing rests on anything for long
        became = {"retract": "retracted", "dispute": "disputed"}[act]
        answer = self.driver.act(who, f"{act}_evidence", piece.id, reason="Mixed up.")
        if who in ("aud", "nia"):
            assert answer.code == "forbidden"
        elif piece.state == "retracted" or piece.state == became:
            assert answer.code == "conflict"
        else:
            piece.state = became
            self.expected.append(f"evidence.{became}")
            touched = [
                r
                for r in self.requests
                if r.state in UNDER_REVIEW and piece.id in self.rests_on[r.number]
            ]
            assert answer["reopened"] == [r.number for r in touched]
            for request in touched:
                self.reopened(request)

    def reopened(self, request: Request) -> None:
        with self.staff.begin("aud", read_only=True) as work:
            digest = facts.load_promotion(work, request.number).request_hash
        assert digest not in {request.hash, *request.old_hashes}
        request.old_hashes.append(request.hash)
        request.hash = digest
        request.state = "submitted" if request.state == "submitted" else "in_review"
        request.approvals, request.answer = set(), None
        self.expected.append("promotion.reopened")

    @precondition(lambda self: any(p.state == "disputed" for p in self.pieces.values()))
    @rule()
    def resolve(self) -> None:
        piece = next(p for p in self.pieces.values() if p.state == "disputed")
        with self.staff.begin("max") as work:
            answer = evidence.resolve(work, piece.id, reason="Looked at again.")
        assert answer.state == piece.state.replace("disputed", "accepted")
        piece.state = "accepted"
        self.expected.append("evidence.resolved")

    # --- requests --------------------------------------------------------------------------------

    @rule(who=people, to=st.sampled_from(["next", "public"]), days=st.none() | st.integers(1, 9))
    def open(self, who: str, to: str, days: int | None) -> None:
        before = len(self.requests)
        super().open(who, to, days)
        if len(self.requests) > before:
            accepted = {p.id for p in self.pieces.values() if p.state == "accepted"}
            self.rests_on[self.requests[-1].number] = accepted

    @precondition(lambda self: self.requests)
    @rule(who=people, which=pick, old=st.booleans())
    def approve(self, who: str, which: int, old: bool) -> None:
        request = self.chosen(which)
        digest = request.old_hashes[-1] if old and request.old_hashes else request.hash
        wrote = who in self.wrote(request)
        if wrote and self.reviewable(who, request, digest) is None:
            answer = self.driver.act(who, "approve", request.number, request_hash=digest)
            assert answer.code == "forbidden"
            return
        super().approve(who, which, old)

    @precondition(lambda self: any(r.to == "public" for r in self.requests))
    @rule(who=people, which=pick, passed=st.sampled_from([True, True, False]))
    def judge_evidence(self, who: str, which: int, passed: bool) -> None:
        request = self.chosen(which)
        answer = self.driver.act(
            who,
            "judge",
            request.number,
            gate="useful",
            passed=passed,
            reason="By letter.",
            request_hash=request.hash,
        )
        refused = self.reviewable(who, request, request.hash)
        key = (request.number, request.hash)
        if refused is None and request.to != "public":
            refused = "not-found"
        elif refused is None and (key in self.judged or self.measured(request) != "inconclusive"):
            refused = "conflict"
        elif refused is None and who in self.wrote(request):
            refused = "forbidden"
        assert answer.code == refused
        if refused is None:
            self.begin_review(request)
            self.expected.append("review.judgement")
            self.judged[key] = passed

    # --- waivers ---------------------------------------------------------------------------------

    def requests_of(self, who: str) -> bool:
        return any(
            r.requester == who and r.to == "public" and r.state in OPEN for r in self.requests
        )

    def may_sign(self, who: str) -> bool:
        return who in SIGNERS and self.signs(who) and not self.requests_of(who)

    @rule(who=st.sampled_from([*SIGNERS, *EVERYBODY]), days=st.integers(1, 90))
    def propose(self, who: str, days: int) -> None:
        ends = self.now + timedelta(days=days)
        answer = self.driver.act(
            who,
            "propose_waiver",
            track_id=self.track_id,
            stage="public",
            gate="useful",
            reason="No survey this year.",
            ends_at=ends,
        )
        if not self.may_sign(who):
            assert answer.code == "forbidden"
        else:
            self.expected.append("waiver.proposed")
            self.waivers.append(Waiver(answer["id"], ends, {who}))

    @precondition(lambda self: self.waivers)
    @rule(who=st.sampled_from([*SIGNERS, "mia", "bot"]), which=pick)
    def sign(self, who: str, which: int) -> None:
        waiver = self.waivers[-1 - which % len(self.waivers)]
        answer = self.driver.act(who, "sign_waiver", waiver.id)
        if who not in SIGNERS or not self.signs(who):
            assert answer.code == "forbidden"
        elif self.now >= waiver.ends or waiver.in_force or who in waiver.signers:
            assert answer.code == "conflict"
        elif self.requests_of(who):
            assert answer.code == "forbidden"
        else:
            waiver.in_force = 1 + sum(self.signs(w) for w in waiver.signers) >= 2
            waiver.signers.add(who)
            self.expected.append("waiver.signed" if waiver.in_force else "waiver.cosigned")

    @precondition(lambda self: self.waivers)
    @rule(who=st.sampled_from(["roy", "mia"]), which=pick, sure=st.integers(0, 2))
    def end(self, who: str, which: int, sure: int) -> None:
        waiver = self.waivers[-1 - which % len(self.waivers)]
        if sure:
            return
        answer = self.driver.act(who, "end_waiver", waiver.id, reason="There is a survey.")
        if who == "mia":
            assert answer.code == "forbidden"
        elif self.now >= waiver.ends:
            assert answer.code == "conflict"
        else:
            self.expected.append("waiver.ended")
            waiver.ends = self.now

    # --- not left to chance ----------------------------------------------------------------------

    @precondition(lambda self: self.stage == "partner" and not self.held)
    @rule()
    def come_near(self) -> None:
        """Serve the partners long enough, and have the newest request into public approved."""
        if not self.let_in:
            self.let_a_partner_in()
        while self.served < DWELL:
            self.wait(24 * 7, False)
        if not any(r.to == "public" and r.state in UNDER_REVIEW for r in self.requests):
            self.open("mia", "next", None)
        for _ in range(2):
            self.go_on()

    @precondition(lambda self: self.stage == "partner")
    @rule(agree=st.booleans(), then=st.lists(st.sampled_from(["judge", "waive", "take", "near"])))
    def ask_anew(self, agree: bool, then: list[str]) -> None:
        """Open a request on evidence that agrees, or contradicts itself, and go on from there."""
        self.measure("sam", True)
        if not agree:
            self.measure("sam", False)
        self.open("mia", "next", None)
        steps = {
            "judge": lambda: self.settle(True),
            "waive": lambda: self.waive("sam", "sue"),
            "take": lambda: self.take_the_newest("dispute"),
            "near": self.come_near,
        }
        for step in then:
            if self.stage == "partner" and (step != "near" or not self.held):
                steps[step]()

    @precondition(lambda self: self.stage == "partner" and self.pieces)
    @rule(passed=st.sampled_from([True, True, False]))
    def settle(self, passed: bool) -> None:
        """Have what is inconclusive judged."""
        for back, request in enumerate(reversed(self.requests)):
            waits = request.to == "public" and request.state in UNDER_REVIEW
            if waits and self.measured(request) == "inconclusive":
                self.judge_evidence("roy", back, passed)

    @precondition(lambda self: self.stage == "partner")
    @rule(first=st.sampled_from(["sam", "roy"]), second=st.sampled_from(["sue", "rae", "max"]))
    def waive(self, first: str, second: str) -> None:
        """Have a waiver signed by two."""
        before = len(self.waivers)
        self.propose(first, 60)
        if len(self.waivers) > before:
            self.sign(second, 0)

    @precondition(lambda self: self.pieces)
    @rule(act=st.sampled_from(["retract", "dispute"]))
    def take_the_newest(self, act: str) -> None:
        """Take away what most rests on."""
        self.take("sue", 0, act, 0)

    @precondition(lambda self: self.stage == "partner" and not self.let_in)
    @rule()
    def let_a_partner_in(self) -> None:
        make_grant(self.works, self.track_id, "partner", self.staff.id("nia"))
        self.let_in = True
        self.grants += 1


def test_evidence_waivers_and_retraction(staffed: Staffed, room: Path) -> None:
    with staffed.copied(room) as url:
        engine = make_engine(url)  # one for all examples: what it compiled once stays compiled

        class ThroughServices(Weighing):
            track_id = staffed.track_id

            @staticmethod
            def make_driver(stack: ExitStack) -> tuple[Driver, Works, Staff, SetClock]:
                stack.callback(engine.dispose)
                staffed.restore(url)
                clock = SetClock(START)
                works = Works(engine, clock)
                staff = Staff(works, dict(staffed.tokens))
                return ServiceDriver(staff), works, staff, clock

        few = 30 if staffed.server is None else 10
        run(ThroughServices, examples=200 if DEEP else few, steps=50 if DEEP else 30)

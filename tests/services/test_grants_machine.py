"""No sequence of acts lets anybody in who may not be: agreements, grants, incidents, holds, time.

A model, written from the domain's words and sharing no code with the product, says before each act
whether it may succeed and, after each, who may have the bytes. Hypothesis looks for a sequence
where the product disagrees.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from make_partners import Partnered, World, partnered
from test_partners import allowed

from databases import START
from stagerelease.db.engine import make_engine
from stagerelease.db.work import Works
from stagerelease.identity import service as identity
from stagerelease.identity import sweeping
from stagerelease.incidents import service as incidents
from stagerelease.incidents.covering import Links
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.kernel.clock import SetClock
from stagerelease.kernel.errors import DomainError
from stagerelease.ledger import fsck
from stagerelease.partners import service
from stagerelease.releases import service as releases

__all__ = ["partnered"]  # a fixture
pytestmark = pytest.mark.timeout(3600)
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
DAY = timedelta(days=1)
RECONSENT = timedelta(days=30)
PARTIES = ("lab-a", "lab-b", "rex")
SIGNERS = {"lab-a": "ann", "lab-b": "bea", "rex": "rex"}
TERMS = {"lab-a": "model-sharing", "lab-b": "model-sharing", "rex": "researcher-terms"}
RESUMERS = ("sam", "olga", "otto")
LIVE = ("pending", "active", "suspended")
parties = st.sampled_from(PARTIES)
days = st.integers(1, 80)


@dataclass
class Paper:
    """A signature as the model knows it."""

    id: str
    version: int
    until: datetime | None
    reconsent: datetime | None = None
    state: str = "in_force"

    def counts(self, now: datetime) -> bool:
        ends = [end for end in (self.until, self.reconsent) if end is not None]
        return self.state == "in_force" and all(now < end for end in ends)


@dataclass
class Held:
    """A grant as the model knows it."""

    id: str
    party: str
    until: datetime
    paper: Paper | None
    state: str
    why: str | None = None
    unsigned: bool = False
    unconsented: bool = False
    consents: set[str] = field(default_factory=set)
    began: int = -1  # at which act it began, was stopped last, was issued or consented to last
    stopped: int = -1
    step: int = -1

    def stop(self, act: int, state: str, why: str) -> None:
        self.state, self.why, self.stopped, self.consents = state, why, act, set()

    def takes_two(self) -> bool:
        """Whether only two people let its holder in again, were it the last thing that was."""
        return self.state == "revoked" or self.why in ("decision", "terms")


class Granting(RuleBasedStateMachine):
    """One release that partners and researchers may have, and everything their access rests on."""

    template: Partnered

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.clock = SetClock(START)
        template = type(self).template
        place = Path(self.stack.enter_context(TemporaryDirectory()))
        engine = make_engine(self.stack.enter_context(template.copied(place)), pool_size=2)
        self.stack.callback(engine.dispose)
        laid = template.world
        self.world = World(Works(engine, self.clock), dict(laid.tokens), laid.track_id)
        self.world.climb("researcher")
        with self.world.works.begin(OPERATOR) as work:
            identity.assign_role(work, person="otto", role="security")
        self.papers: dict[str, list[Paper]] = {party: [] for party in PARTIES}
        self.versions = dict.fromkeys(TERMS.values(), 1)
        self.grants: list[Held] = []
        self.holds: dict[int, set[str]] = {}
        self.acts = 0

    def teardown(self) -> None:
        with self.stack, self.world.works.begin(read_only=True) as work:
            assert fsck.verify_all(work, vkey=None) == []  # of every step: a log only grows

    # --- what the model knows --------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return self.clock.now()

    def may(self, party: str) -> bool:
        return not self.holds and any(
            g.party == party
            and g.state == "active"
            and self.now < g.until
            and g.paper is not None
            and g.paper.counts(self.now)
            for g in self.grants
        )

    def attempt(self, fine: bool, act: Any, who: str) -> Any:
        """Do ``act`` as ``who``: it succeeds exactly when the model says so."""
        self.acts += 1
        if not fine:
            with pytest.raises(DomainError), self.world.begin(who) as work:
                act(work)
            return None
        with self.world.begin(who) as work:
            return act(work)

    # --- acts ------------------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        assert not self.may("lab-a")

    @rule(party=parties, lasts=st.none() | days)
    def sign(self, party: str, lasts: int | None) -> None:
        papers, terms = self.papers[party], TERMS[party]
        current = self.versions[terms]
        until = self.now + lasts * DAY if lasts else None
        fine = not any(
            p.state == "in_force"
            and p.version == current
            and (p.until is None or self.now < p.until)
            for p in papers
        )
        self.acts += 1
        options = {"organisation": None if party == "rex" else party, "valid_until": until}
        if not fine:
            with pytest.raises(DomainError):
                self.world.sign(SIGNERS[party], terms, **options)
            return
        row = self.world.sign(SIGNERS[party], terms, **options)
        new = Paper(row.id, current, until)
        for grant in self.grants:
            if grant.party != party or grant.state not in LIVE or self.now >= grant.until:
                continue
            if grant.unsigned:
                grant.paper, grant.unsigned = new, False
                stops = [g.stopped for g in self.grants if g.party == party and g.takes_two()]
                grant.unconsented |= any(stop > grant.step for stop in stops)
                if not grant.unconsented:
                    grant.state, grant.began = "active", self.acts
            elif grant.paper is not None:
                grant.paper = new
                if grant.state == "suspended" and grant.why == "reconsent":
                    grant.state, grant.why = "active", None
        for paper in papers:
            if paper.state == "in_force":
                paper.state = "superseded"
        papers.append(new)

    @rule(party=parties)
    def terminate(self, party: str) -> None:
        papers = [p for p in self.papers[party] if p.state == "in_force"]
        if not papers:
            return
        paper = papers[-1]
        self.attempt(True, lambda w: service.terminate_signature(w, paper.id, "It is over."), "sam")
        self.end_paper(paper, "terminated")

    def end_paper(self, paper: Paper, state: str) -> None:
        paper.state = state
        for grant in self.grants:
            waits = grant.state == "suspended" and grant.why == "reconsent"
            if grant.paper is paper and (grant.state == "active" or waits):
                grant.stop(self.acts, "suspended", "terms")

    @rule(terms=st.sampled_from(sorted(set(TERMS.values()))), material=st.booleans())
    def redraft(self, terms: str, material: bool) -> None:
        self.versions[terms] += 1
        text = f"Version {self.versions[terms]}."
        self.world.redraft(terms, text=text, material=material)
        if not material:
            return
        for party in PARTIES:
            for paper in self.papers[party]:
                if TERMS[party] == terms and paper.state == "in_force":
                    deadline = self.now + RECONSENT
                    paper.reconsent = min(paper.reconsent or deadline, deadline)

    @rule(party=parties, lasts=days)
    def issue(self, party: str, lasts: int) -> None:
        mine = [g for g in self.grants if g.party == party]
        live = [g for g in mine if g.state in LIVE and self.now < g.until]
        signed = next((p for p in reversed(self.papers[party]) if p.counts(self.now)), None)
        stops = [g.stopped for g in mine if g.takes_two()]
        again = bool(stops) and max(stops) > max(g.began for g in mine)
        whom = {"person": "rex"} if party == "rex" else {"organisation": party}
        until = self.now + lasts * DAY
        row = self.attempt(
            not self.holds and not live,
            lambda w: service.issue_grant(
                w,
                track_id=self.world.track_id,
                purpose="Study.",
                valid_until=until,
                await_signature=True,
                **whom,
            ),
            "olga",
        )
        if row is not None:
            state = "pending" if signed is None or again else "active"
            new = Held(row.id, party, until, signed, state, None, signed is None, again)
            new.step = self.acts
            new.began = self.acts if state == "active" else -1
            self.grants.append(new)

    @precondition(lambda self: self.grants)
    @rule(pick=st.integers(0, 5), act=st.sampled_from(["suspend", "revoke"]))
    def stop(self, pick: int, act: str) -> None:
        grant = self.grants[pick % len(self.grants)]
        stoppable = grant.state == "active" or (
            grant.state == "suspended" and grant.why != "decision"
        )
        fine = stoppable if act == "suspend" else grant.state in LIVE
        do = service.suspend_grant if act == "suspend" else service.revoke_grant
        self.attempt(fine, lambda w: do(w, grant.id, reason="Because."), "sam")
        if fine:
            grant.stop(self.acts, "suspended" if act == "suspend" else "revoked", "decision")

    @precondition(lambda self: self.grants)
    @rule(pick=st.integers(0, 5), who=st.sampled_from(RESUMERS))
    def resume(self, pick: int, who: str) -> None:
        grant = self.grants[pick % len(self.grants)]
        worth = grant.paper is not None and grant.paper.counts(self.now) and self.now < grant.until
        fine = grant.state == "suspended" and worth and who not in grant.consents
        self.attempt(fine, lambda w: service.resume_grant(w, grant.id), who)
        if fine:
            grant.consents.add(who)
            if len(grant.consents) >= 2:
                grant.state, grant.why = "active", None

    @precondition(lambda self: self.grants)
    @rule(pick=st.integers(0, 5), who=st.sampled_from(["olga", "otto", "sam"]))
    def consent(self, pick: int, who: str) -> None:
        grant = self.grants[pick % len(self.grants)]
        begins = self.now < grant.until and (grant.unsigned or grant.paper.counts(self.now))
        fine = grant.state == "pending" and grant.unconsented and who == "otto" and begins
        self.attempt(fine, lambda w: service.consent_to_grant(w, grant.id), who)
        if fine:
            grant.unconsented, grant.step = False, self.acts
            if not grant.unsigned:
                grant.state, grant.began = "active", self.acts

    @rule(through_incident=st.booleans())
    def hold(self, through_incident: bool) -> None:
        if len(self.holds) > 1:
            return
        track = self.world.track_id
        if not through_incident:
            row = self.attempt(
                True,
                lambda w: releases.lay_hold(w, scope="track", scope_id=track, reason="Stop."),
                "sam",
            )
            self.holds[row.id] = set()
            return
        with self.world.works.begin() as work:
            number = incidents.report(work, text="It leaked.").incident_id
        links = Links(tracks=[track])
        with self.world.begin("sam") as work:
            incidents.triage(
                work,
                number,
                severity="high",
                blocking=True,
                actor_tier=None,
                title="A leak",
                public_summary="",
                links=links,
                reason="Seen.",
            )
        with self.world.begin("sam") as work:
            page = incidents.confirm(work, number, reason="Confirmed.")
        self.holds |= {hold: set() for hold in page.holds_active}

    @precondition(lambda self: self.holds)
    @rule(who=st.sampled_from(["sam", "otto", "olga"]))
    def lift(self, who: str) -> None:
        number, consents = next(iter(self.holds.items()))
        fine = who != "olga" and who not in consents
        self.attempt(fine, lambda w: releases.lift_hold(w, number, reason="Over."), who)
        if fine:
            consents.add(who)
            if len(consents) == 2:
                del self.holds[number]

    @rule(count=st.integers(1, 40))
    def wait(self, count: int) -> None:
        self.clock.move(count * DAY)

    @rule()
    def sweep(self) -> None:
        self.acts += 1
        with self.world.works.begin(SYSTEM) as work:
            service.sweep_expired(work)
            sweeping.announce_ends(work)
            service.warn_of_ends(work)
        for grant in self.grants:
            if grant.state in LIVE and self.now >= grant.until:
                grant.state = "expired"
        for papers in self.papers.values():
            for paper in papers:
                if paper.state != "in_force":
                    continue
                if paper.until is not None and self.now >= paper.until:
                    self.end_paper(paper, "expired")
                elif paper.reconsent is not None and self.now >= paper.reconsent:
                    for grant in self.grants:
                        if grant.paper is paper and grant.state == "active":
                            grant.stop(self.acts, "suspended", "reconsent")

    # --- what always holds -----------------------------------------------------------------------

    @invariant()
    def bytes_are_for_those_the_model_names(self) -> None:
        for party, who in (*SIGNERS.items(), ("lab-a", "art")):
            assert allowed(self.world, who)[0] == self.may(party), f"{who} of {party}"
        assert allowed(self.world, "oto")[0] is False

    @invariant()
    def states_are_as_the_model_says(self) -> None:
        for grant in self.grants:
            row = self.world.grant(grant.id)
            assert row.state == grant.state, grant
            if row.state == "suspended":
                assert row.suspended_for == grant.why, grant


def test_no_sequence_lets_in_who_may_not_be(partnered: Partnered) -> None:
    """Nobody has the bytes but whom grant, signature, dates, holds and consents all let in."""

    class Here(Granting):
        template = partnered

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=200 if DEEP else 10 if partnered.server is None else 4,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

"""One machine over the whole of governance: what holds between its parts, after every act.

The other machines predict one part each, exactly. This one lets plans, evidence, waivers,
promotions, holds, incidents, agreements, access requests and grants act on each other, and reads
the rows after each act: whether somebody may have the bytes, and whether something may be applied,
is worked out from the rows by the words of the domain model, sharing no rule with the product.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from make_partners import Partnered, World, partnered
from make_release import make_revision
from sqlalchemy import func, select

from databases import START
from stagerelease.access import service as access
from stagerelease.access.tables import AccessRequest
from stagerelease.catalog import queries as catalog
from stagerelease.db.engine import make_engine
from stagerelease.db.work import Work, Works
from stagerelease.downloads import service as downloads
from stagerelease.downloads.tables import Download
from stagerelease.entitlements import service as entitlements
from stagerelease.evidence import service as evidence
from stagerelease.evidence.service import NewEvidence
from stagerelease.evidence.tables import Evidence, EvidenceAuthor
from stagerelease.identity import service as identity
from stagerelease.identity import sweeping
from stagerelease.incidents import service as incidents
from stagerelease.incidents.covering import Links
from stagerelease.incidents.tables import Incident
from stagerelease.jobs.tables import Job
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.kernel.clock import SetClock
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import DomainError
from stagerelease.ledger import fsck
from stagerelease.ledger.tables import LogLeaf
from stagerelease.notices import service as notices
from stagerelease.partners import service as partners
from stagerelease.partners.tables import (
    Agreement,
    AgreementVersion,
    DestructionAttestation,
    Grant,
    GrantResume,
    Signature,
)
from stagerelease.releases import service as releases
from stagerelease.releases.planning import record_version
from stagerelease.releases.tables import (
    Approval,
    Hold,
    HoldLift,
    PlanConsent,
    PlanProposal,
    PlanVersion,
    Promotion,
    Track,
    Waiver,
    WaiverSignature,
)

__all__ = ["partnered"]  # a fixture
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
pytestmark = pytest.mark.timeout(7200 if DEEP else 600)
REPO = "gpt2-mini/two"
WEIGHTS = "b" * 64
PLAN = """
plan: joined
title: Joined, {edition}
request_lifetime: P30D
stages:
  - {{name: internal, audience: staff}}
  - {{name: partner, audience: organisations, agreement: model-sharing}}
  - name: researcher
    audience: people
    agreement: researcher-terms
    gates:
      - kind: evidence
        key: useful
        type: benefit
        metric: users
        at_least: 10
        conditions: {{audience: readers}}
"""
LADDER = ("internal", "partner", "researcher")
DAY = timedelta(days=1)
VALID = timedelta(days=60)
REVIEWERS = ("mia", "rae", "rob", "roy")  # mia asks for promotions, too
SIGNERS = {"ann": "lab-a", "bea": "lab-b", "rex": None, "ron": None}
HOLDERS = (*SIGNERS, "art", "oto")
TERMS = ("model-sharing", "researcher-terms")
STATES = (Promotion, Evidence, Grant, Signature, AccessRequest, Incident, PlanProposal)
COUNTED = (*STATES, Hold, HoldLift, Waiver, WaiverSignature, Approval, PlanVersion, PlanConsent)
pick = st.integers(0, 6)


class Joined(RuleBasedStateMachine):
    """One release under its own plan, with everybody who has a part in it."""

    template: Partnered
    did: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.clock = SetClock(START)
        place = Path(self.stack.enter_context(TemporaryDirectory()))
        engine = make_engine(self.stack.enter_context(self.template.copied(place)), pool_size=2)
        self.stack.callback(engine.dispose)
        self.world = World(Works(engine, self.clock), dict(self.template.world.tokens))
        with self.world.works.begin(OPERATOR) as work:
            identity.create_person(work, handle="roy", display_name="Roy")
            _, self.world.tokens["roy"] = identity.create_token(work, person="roy", name="test")
            for reviewer in ("roy", "mia"):
                identity.assign_role(work, person=reviewer, role="reviewer")
            identity.assign_role(work, person="otto", role="security")
            record_version(work, PLAN.format(edition=1))
            make_revision(work, REPO, salt="b")
            self.track = releases.create_track(work, repo_id=REPO, plan="joined").id
        self.world.track_id = self.track
        self.ids = {who: self.world.id(who) for who in (*HOLDERS, *REVIEWERS)}
        self.labs = {SIGNERS[who]: self.world.organisation(who) for who in ("ann", "bea")}
        self.edition = 1
        self.kept: dict[str, int] = {}

    def teardown(self) -> None:
        with self.stack, self.world.works.begin(read_only=True) as work:
            assert fsck.verify_all(work, vkey=None) == []  # of every step: a log only grows

    @property
    def now(self) -> datetime:
        return self.clock.now()

    # --- one act, and what must be true of any ----------------------------------------------------

    def picture(self) -> tuple[object, ...]:
        """Return what an act may change: how many rows and leaves, and every state."""
        with self.world.works.begin(read_only=True) as work:
            counts = [
                work.session.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (*COUNTED, LogLeaf, Job)
            ]
            states = [
                work.session.execute(select(table.id, table.state).order_by(table.id)).all()
                for table in STATES
            ]
        return counts, states

    def leaves(self) -> int:
        with self.world.works.begin(read_only=True) as work:
            return work.session.execute(select(func.count()).select_from(LogLeaf)).scalar_one()

    def attempt(self, name: str, who: str, act: Callable[[Work], Any]) -> Any:
        """Do it: then the log has it too; or be refused: then nothing at all has changed (15)."""
        before, size = self.picture(), self.leaves()
        try:
            with self.world.begin(who) as work:
                done = act(work)
        except DomainError:
            assert self.picture() == before, f"{name} by {who} was refused and left something"
            return None
        assert self.leaves() > size, f"{name} by {who} is not in the log"
        self.did[name] += 1
        return done

    def rows(self, work: Work, table: Any) -> list[Any]:
        return list(work.session.scalars(select(table).order_by(table.id)))

    def newest(self, table: Any, back: int, *conditions: Any) -> Any:
        """Return the id of a row, counted from the newest, or None."""
        with self.world.works.begin(read_only=True) as work:
            ids = work.session.scalars(
                select(table.id).where(*conditions).order_by(table.id.desc())
            ).all()
        return ids[back % len(ids)] if ids else None

    # --- what the rows say, in the words of the domain --------------------------------------------

    def held(self, work: Work) -> bool:
        holds = any(hold.lifted_at is None for hold in self.rows(work, Hold))
        return holds or any(
            one.blocking and one.state in ("confirmed", "mitigated")
            for one in self.rows(work, Incident)
        )

    def counts(self, piece: Evidence) -> bool:
        """Evidence counts only if accepted, in its time, and about these files (4)."""
        in_time = piece.measured_at <= self.now and (
            piece.valid_until is None or self.now < piece.valid_until
        )
        return piece.state == "accepted" and in_time and piece.subject_sha256 == WEIGHTS

    def gate_passed(self, work: Work, request: Promotion) -> bool:
        if request.to_stage != "researcher":
            return True
        pieces = [work.session.get_one(Evidence, e) for e in request.evidence_ids]
        told = {float(piece.value) >= 10 for piece in pieces if self.counts(piece)}
        if told == {True}:
            return True
        for waiver in self.rows(work, Waiver):
            signers = work.session.scalars(
                select(WaiverSignature.person_id).where(WaiverSignature.waiver_id == waiver.id)
            )
            in_force = (
                waiver.signed_at is not None
                and waiver.ended_at is None
                and self.now < waiver.ends_at
            )
            if in_force and len(set(signers) - {request.requester_id}) >= 2:
                return True
        return False

    def approvers(self, work: Work, request: Promotion) -> set[str]:
        """Distinct reviewers of exactly this request, without who asks and who wrote (1, 2)."""
        wrote = work.session.scalars(
            select(EvidenceAuthor.person_id).where(
                EvidenceAuthor.evidence_id.in_(request.evidence_ids)
            )
        )
        agreed = work.session.scalars(
            select(Approval.person_id).where(
                Approval.promotion_id == request.id,
                Approval.request_hash == request.request_hash,
                Approval.verdict == "approve",
            )
        )
        reviewers = {self.ids[who] for who in REVIEWERS}
        return (set(agreed) & reviewers) - set(wrote) - {request.requester_id}

    def may_apply(self, work: Work, request: Promotion) -> bool:
        track = work.session.get_one(Track, self.track)
        return (
            request.state in ("submitted", "in_review", "approved")
            and request.from_stage == track.stage
            and request.expires_at is not None
            and self.now < request.expires_at
            and not self.held(work)
            and len(self.approvers(work, request)) >= 2
            and self.gate_passed(work, request)
        )

    def rests(self, work: Work, grant: Grant) -> bool:
        """A grant is active only while it rests on a signature in force (7)."""
        if grant.signature_id is None:
            return False
        paper = work.session.get_one(Signature, grant.signature_id)
        ends = [e for e in (paper.valid_until, paper.reconsent_until) if e is not None]
        return paper.state == "in_force" and all(self.now < end for end in ends)

    def lets_in(self, work: Work, grant: Grant) -> bool:
        track = work.session.get_one(Track, self.track)
        return (
            grant.state == "active"
            and self.now < grant.valid_until
            and self.rests(work, grant)
            and track.stage in LADDER
            and LADDER.index(grant.audience) <= LADDER.index(track.stage)
            and not self.held(work)
        )

    def may(self, work: Work, who: str) -> bool:
        lab = "lab-a" if who == "art" else SIGNERS.get(who)
        mine = Grant.person_id == self.ids[who]
        if lab is not None:
            mine = mine | (Grant.organisation_id == self.labs[lab])
        grants = work.session.scalars(select(Grant).where(mine, Grant.track_id == self.track))
        return any(self.lets_in(work, grant) for grant in grants)

    # --- plans ------------------------------------------------------------------------------------

    @rule(who=st.sampled_from(["mia", "rae", "oto", "operator"]))
    def propose_plan(self, who: str) -> None:
        self.edition += 1
        source = PLAN.format(edition=self.edition)
        self.attempt(
            "plan proposed", who, lambda w: releases.propose_plan(w, source, rationale="Clearer.")
        )

    @rule(who=st.sampled_from(["mia", "rae", "rob", "otto"]), back=pick)
    def consent_to_plan(self, who: str, back: int) -> None:
        number = self.newest(PlanProposal, back, PlanProposal.state == "pending")
        if number is None:
            return
        with self.world.works.begin(read_only=True) as work:
            digest = work.session.get_one(PlanProposal, number).sha256
        self.attempt(
            "plan consented", who, lambda w: releases.consent_to_plan(w, number, sha256=digest)
        )

    # --- evidence and waivers ---------------------------------------------------------------------

    @rule(who=st.sampled_from(["sam", "rae"]), enough=st.sampled_from([True, True, False]))
    def measure(self, who: str, enough: bool) -> None:
        new = NewEvidence(
            type="benefit",
            metric="users",
            title="Readers it helped",
            subject_sha256=WEIGHTS,
            source="https://example.org/survey",
            fact_status="verified",
            measured_at=self.now,
            valid_until=self.now + VALID,
            value=10 if enough else 9,
            unit="count",
            conditions={"audience": "readers", "counted_from": "survey"},
        )
        row = self.attempt("evidence submitted", who, lambda w: evidence.hand_in(w, new))
        if row is not None:
            self.attempt("evidence accepted", "roy", lambda w: evidence.accept(w, row.id))

    @rule(back=pick, act=st.sampled_from(["retract_evidence", "dispute_evidence"]))
    def take_away(self, back: int, act: str) -> None:
        piece = self.newest(Evidence, back, Evidence.state == "accepted")
        if piece is not None:
            do = getattr(releases, act)
            self.attempt("evidence taken away", "rob", lambda w: do(w, piece, reason="Mixed up."))

    @rule(who=st.sampled_from(["sam", "rae", "mia"]), lasts=st.integers(1, 60))
    def propose_waiver(self, who: str, lasts: int) -> None:
        self.attempt(
            "waiver proposed",
            who,
            lambda w: releases.propose_waiver(
                w,
                track_id=self.track,
                stage="researcher",
                gate="useful",
                reason="No survey this year.",
                ends_at=self.now + lasts * DAY,
            ),
        )

    @rule(who=st.sampled_from(["sam", "rae", "rob", "mia"]), back=pick)
    def sign_waiver(self, who: str, back: int) -> None:
        waiver = self.newest(Waiver, back)
        if waiver is not None:
            self.attempt("waiver signed", who, lambda w: releases.sign_waiver(w, waiver))

    # --- promotion --------------------------------------------------------------------------------

    @rule(who=st.sampled_from(["mia", "mia", "rae"]))
    def open(self, who: str) -> None:
        with self.world.works.begin(read_only=True) as work:
            stage = work.session.get_one(Track, self.track).stage
        above = LADDER[LADDER.index(stage) + 1 :] if stage in LADDER else ()
        if above:
            self.attempt(
                "promotion opened",
                who,
                lambda w: releases.open_promotion(
                    w, track_id=self.track, to=above[0], rationale="Ready."
                ),
            )

    @rule(who=st.sampled_from([*REVIEWERS, "sam"]), back=pick)
    def approve(self, who: str, back: int) -> None:
        request = self.newest(Promotion, back)
        if request is None:
            return
        with self.world.works.begin(read_only=True) as work:
            digest = work.session.get_one(Promotion, request).request_hash
        self.attempt(
            "promotion approved",
            who,
            lambda w: releases.approve(w, request, request_hash=digest, comment="Read."),
        )

    @rule(back=pick)
    def edit(self, back: int) -> None:
        request = self.newest(Promotion, back)
        if request is None:
            return
        with self.world.works.begin(read_only=True) as work:
            digest = work.session.get_one(Promotion, request).request_hash

        def again(work: Work) -> object:
            releases.edit_promotion(
                work, request, request_hash=digest, rationale="Readier.", unschedule=True
            )
            return releases.resubmit(work, request)

        self.attempt("promotion edited", "mia", again)

    @rule(back=pick)
    def apply(self, back: int) -> None:
        """It is applied exactly when the rows say that it may be (1 to 4)."""
        request = self.newest(Promotion, back)
        if request is None:
            return
        with self.world.works.begin(read_only=True) as work:
            row = work.session.get_one(Promotion, request)
            may, to = self.may_apply(work, row), row.to_stage
        done = self.attempt("promotion applied", "mia", lambda w: releases.apply(w, request))
        assert (done is not None) == may
        if done is not None:
            self.did[f"applied to {to}"] += 1

    @rule()
    def climb(self) -> None:
        """Do what a promotion needs, so that sequences get far."""
        self.measure("sam", True)
        self.open("mia")
        for who in ("rob", "roy"):
            self.approve(who, 0)
        self.apply(0)

    # --- stopping ---------------------------------------------------------------------------------

    @rule(scope=st.sampled_from(["track", "family", "everything"]))
    def lay(self, scope: str) -> None:
        scope_id = {"track": self.track, "family": "gpt2-mini", "everything": None}[scope]
        self.attempt(
            "hold laid",
            "sam",
            lambda w: releases.lay_hold(w, scope=scope, scope_id=scope_id, reason="Stop."),
        )

    @rule()
    def confirm_incident(self) -> None:
        self.clock.move(timedelta(hours=1))  # so many reports an hour are taken from one network
        with self.world.works.begin(quiet=True) as work:
            number = incidents.report(work, text="It leaked.").incident_id
        with self.world.begin("sam") as work:
            incidents.triage(
                work,
                number,
                severity="high",
                blocking=True,
                actor_tier=2,
                title="A leak",
                public_summary="",
                links=Links(tracks=[self.track]),
                reason="Seen.",
            )
        done = self.attempt(
            "incident confirmed", "sam", lambda w: incidents.confirm(w, number, reason="Seen.")
        )
        with self.world.works.begin(read_only=True) as work:
            assert done is not None
            assert not any(self.may(work, who) for who in HOLDERS)  # a blocking one lays a hold

    @rule(who=st.sampled_from(["sam", "otto"]), back=pick)
    def close_incident(self, who: str, back: int) -> None:
        number = self.newest(Incident, back, Incident.state.in_(["confirmed", "mitigated"]))
        if number is None:
            return
        self.attempt("incident mitigated", who, lambda w: incidents.mitigate(w, number, reason="-"))
        self.attempt(
            "incident closing", who, lambda w: incidents.close(w, number, outcome="It is over.")
        )

    @rule(who=st.sampled_from(["sam", "otto", "olga"]), back=pick)
    def lift(self, who: str, back: int) -> None:
        hold = self.newest(Hold, back, Hold.lifted_at.is_(None))
        if hold is not None:
            self.attempt("hold lifting", who, lambda w: releases.lift_hold(w, hold, reason="Over."))

    @rule()
    def clear_the_way(self) -> None:
        """Let sequences come out from under their holds: two people close, and two lift."""
        for _ in range(3):
            for who in ("sam", "otto"):
                self.close_incident(who, 0)
                self.lift(who, 0)

    @rule(sure=st.integers(0, 19))
    def withdraw(self, sure: int) -> None:
        if sure == 0:
            self.attempt(
                "track withdrawn",
                "mia",
                lambda w: entitlements.withdraw(w, self.track, reason="Harm."),
            )

    # --- agreements -------------------------------------------------------------------------------

    @rule(who=st.sampled_from(list(SIGNERS)), lasts=st.none() | st.integers(5, 90))
    def sign(self, who: str, lasts: int | None) -> None:
        lab = SIGNERS[who]
        terms = "model-sharing" if lab else "researcher-terms"
        with self.world.works.begin(read_only=True) as work:
            version = work.session.execute(
                select(AgreementVersion)
                .join(Agreement, Agreement.id == AgreementVersion.agreement_id)
                .where(Agreement.slug == terms, AgreementVersion.state == "in_force")
            ).scalar_one()
            details = {"version_id": version.id, "text_sha256": version.text_sha256}
        self.attempt(
            "agreement signed",
            who,
            lambda w: partners.sign(
                w,
                **details,
                organisation=lab,
                typed_name=who,
                typed_title="Head",
                authorised_to_bind=True,
                consents_electronically=True,
                valid_until=None if lasts is None else self.now + lasts * DAY,
            ),
        )

    @rule(terms=st.sampled_from(TERMS), material=st.booleans())
    def redraft(self, terms: str, material: bool) -> None:
        def publish(work: Work) -> object:
            text = f"As of {self.now:%Y-%m-%d}, {sha256_hex(str(self.picture()).encode())}."
            row = partners.draft_version(work, agreement=terms, text=text, material=material)
            return partners.publish_version(work, row.id)

        self.attempt("agreement changed", "olga", publish)

    @rule(back=pick)
    def terminate(self, back: int) -> None:
        paper = self.newest(Signature, back, Signature.state == "in_force")
        if paper is not None:
            self.attempt(
                "signature ended", "olga", lambda w: partners.terminate_signature(w, paper, "Over.")
            )

    # --- access requests and grants ---------------------------------------------------------------

    @rule(who=st.sampled_from(["rex", "ron", "oto"]))
    def ask(self, who: str) -> None:
        waits = self.newest(
            AccessRequest,
            0,
            AccessRequest.applicant_id == self.ids[who],
            AccessRequest.state.in_(["submitted", "in_review", "returned"]),
        )
        if waits is None:
            self.attempt(
                "access asked",
                who,
                lambda w: access.submit(w, repo_id=REPO, answers={"purpose": "Reading."}),
            )

    @rule(
        who=st.sampled_from(["olga", "otto"]), back=pick, yes=st.sampled_from([True, True, False])
    )
    def decide(self, who: str, back: int, yes: bool) -> None:
        request = self.newest(
            AccessRequest, back, AccessRequest.state.in_(["submitted", "in_review", "returned"])
        )
        if request is None:
            return
        if yes:
            self.attempt("access approved", who, lambda w: access.approve(w, request))
        else:
            self.attempt(
                "access rejected", who, lambda w: access.reject(w, request, reason="Say more.")
            )

    @rule(lab=st.sampled_from(["lab-a", "lab-b"]), lasts=st.integers(1, 80))
    def issue(self, lab: str, lasts: int) -> None:
        self.attempt(
            "grant issued",
            "olga",
            lambda w: partners.issue_grant(
                w,
                track_id=self.track,
                organisation=lab,
                purpose="Study.",
                valid_until=self.now + lasts * DAY,
                await_signature=True,
            ),
        )

    @rule(back=pick, act=st.sampled_from(["suspend_grant", "suspend_grant", "revoke_grant"]))
    def stop(self, back: int, act: str) -> None:
        grant = self.newest(Grant, back, Grant.state.in_(["active", "suspended", "pending"]))
        if grant is not None:
            do = getattr(partners, act)
            self.attempt(act, "sam", lambda w: do(w, grant, reason="Because."))

    @rule(who=st.sampled_from(["ann", "art", "rex"]))
    def deliver(self, who: str) -> None:
        """Begin a download, as far as this person may, and have it begun again: one delivery."""
        with self.world.works.begin(read_only=True) as work:
            may = self.may(work, who)
        found = []
        for _ in range(2):
            try:
                with self.world.begin(who) as work:
                    ticket = downloads.prepare(
                        work, repo_id=REPO, rev="main", path="model.safetensors", record=True
                    )
            except DomainError:
                assert not may
                return
            found.append((ticket.download_id, ticket.decision.grant_id))
        assert may
        assert found[0] == found[1]  # under the same grant (13)
        self.did["delivered"] += 1

    @rule(who=st.sampled_from(["sam", "otto", "olga"]), back=pick)
    def resume(self, who: str, back: int) -> None:
        grant = self.newest(Grant, back, Grant.state == "suspended")
        if grant is None:
            return
        done = self.attempt("grant resuming", who, lambda w: partners.resume_grant(w, grant))
        if done is not None and done.state == "active":
            self.did["grant resumed"] += 1
            with self.world.works.begin(read_only=True) as work:
                consents = work.session.scalars(
                    select(GrantResume.person_id).where(GrantResume.grant_id == grant)
                )
                assert len(set(consents)) >= 2  # lifting takes two (14)

    @rule(who=st.sampled_from(["olga", "otto"]), back=pick)
    def consent_to_grant(self, who: str, back: int) -> None:
        grant = self.newest(Grant, back, Grant.awaits_consent.is_(True), Grant.state == "pending")
        if grant is not None:
            self.attempt("grant consented", who, lambda w: partners.consent_to_grant(w, grant))

    # --- time -------------------------------------------------------------------------------------

    @rule(days=st.integers(1, 35), swept=st.booleans())
    def wait(self, days: int, swept: bool) -> None:
        self.clock.move(days * DAY)
        if swept:
            self.sweep()

    @rule()
    def sweep(self) -> None:
        with self.world.works.begin(SYSTEM) as work:
            partners.sweep_expired(work)
            sweeping.announce_ends(work)
            partners.warn_of_ends(work)
            access.sweep_over(work)
            releases.apply_due(work)
            releases.expire_stale(work)
            releases.expire_proposals(work)

    # --- and after every act ----------------------------------------------------------------------

    @initialize(far=st.integers(0, 2))
    def begin(self, far: int) -> None:
        for _ in range(far):
            self.climb()

    @invariant()
    def bytes_are_for_those_whom_the_rows_let_in(self) -> None:
        for who in HOLDERS:
            with self.world.begin(who, read_only=True) as work:
                may = self.may(work, who)
                variant = catalog.load_variant(work, REPO)
                head = str(catalog.find_ref(work, variant.id, "main"))
                revision = catalog.load_revision(work, head)
                decision = entitlements.authorize(
                    work, work.actor, variant=variant, revision=revision
                ).decision
            assert decision.allowed == may, f"{who}: {decision.reason}"
            self.did["somebody let in"] += may

    @invariant()
    def what_was_decided_was_decided_by_enough(self) -> None:
        with self.world.works.begin(read_only=True) as work:
            for request in self.rows(work, Promotion):
                if request.state == "applied":
                    assert len(self.approvers(work, request)) >= 2
            for hold in self.rows(work, Hold):
                lifted = work.session.scalars(
                    select(HoldLift.person_id).where(HoldLift.hold_id == hold.id)
                )
                assert hold.lifted_at is None or len(set(lifted)) >= 2
            for waiver in self.rows(work, Waiver):
                signed = work.session.scalars(
                    select(WaiverSignature.person_id).where(WaiverSignature.waiver_id == waiver.id)
                )
                assert waiver.signed_at is None or len(set(signed)) >= 2

    @invariant()
    def plans_changed_by_two_and_never_in_place(self) -> None:
        with self.world.works.begin(read_only=True) as work:
            versions = work.session.scalars(
                select(PlanVersion)
                .where(PlanVersion.slug == "joined")
                .order_by(PlanVersion.version)
            ).all()
            assert [v.version for v in versions] == list(range(1, len(versions) + 1))
            assert work.session.get_one(Track, self.track).plan_version_id == versions[0].id
            for version in versions:
                assert sha256_hex(version.source.encode()) == version.sha256
                if version.version == 1:
                    continue
                proposal = work.session.scalars(
                    select(PlanProposal).where(PlanProposal.plan_version_id == version.id)
                ).one()
                consents = work.session.scalars(
                    select(PlanConsent).where(PlanConsent.proposal_id == proposal.id)
                ).all()
                behind = {c.person_id for c in consents if c.sha256 == version.sha256}
                people = set(self.ids.values()) | {self.world.id("otto")}
                assert len((behind | {proposal.proposed_by}) & people) >= 2

    @invariant()
    def a_revocation_lists_every_byte_delivered(self) -> None:
        """And asks for its destruction, once; nothing else does (11)."""
        with self.world.works.begin(read_only=True) as work:
            asked = {one.grant_id: one for one in self.rows(work, DestructionAttestation)}
            revoked = {g.id for g in self.rows(work, Grant) if g.state == "revoked"}
            assert set(asked) == revoked
            for grant_id, one in asked.items():
                delivered = work.session.scalars(
                    select(Download.id).where(Download.grant_id == grant_id)
                )
                assert {entry["download"] for entry in one.delivered} == set(delivered)
            self.did["bytes listed"] += any(one.delivered for one in asked.values())

    @invariant()
    def nothing_signed_or_decided_is_ever_gone(self) -> None:
        """Rows of what was said and done only grow in number (12)."""
        with self.world.works.begin(read_only=True) as work:
            now = {
                table.__tablename__: work.session.execute(
                    select(func.count()).select_from(table)
                ).scalar_one()
                for table in (*COUNTED, LogLeaf, DestructionAttestation)
            }
        assert all(now[name] >= count for name, count in self.kept.items())
        self.kept = now

    @invariant()
    def the_public_reads_what_was_done_and_no_private_word(self) -> None:
        """Applied moves, holds and incidents in public words; nobody's name, no reason (16)."""
        with self.world.works.begin(read_only=True) as work:
            entries = notices.timeline(work, limit=200)
            told = repr(entries) + repr(incidents.public_incidents(work))
            stage = work.session.get_one(Track, self.track).stage
            applied = sum(r.state == "applied" for r in self.rows(work, Promotion))
        for word in ("Stop.", "Seen.", "Because.", "Harm.", "It leaked", "Ready", "Over.", "lab-"):
            assert word not in told, word
        for who in (*HOLDERS, *REVIEWERS, "sam", "olga", "otto"):
            assert who.title() not in told
        moves = [entry for entry in entries if entry.kind == "release"]
        assert len(moves) == (0 if stage == "internal" else applied)

    @invariant()
    def grants_are_never_above_their_track(self) -> None:
        with self.world.works.begin(read_only=True) as work:
            stage = work.session.get_one(Track, self.track).stage
            for grant in self.rows(work, Grant):
                if stage == "withdrawn":
                    assert grant.state != "active"  # (6)
                else:
                    assert LADDER.index(grant.audience) <= LADDER.index(stage)
                if grant.state == "active":
                    assert grant.signature_id is not None
                    assert not grant.awaits_consent


WALK: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("propose_plan", ("mia",)),
    ("consent_to_plan", ("mia", 0)),
    ("consent_to_plan", ("rae", 0)),
    ("climb", ()),
    ("sign", ("ann", None)),
    ("issue", ("lab-a", 80)),
    ("deliver", ("art",)),
    ("open", ("mia",)),
    ("approve", ("mia", 0)),
    ("approve", ("rob", 0)),
    ("approve", ("rob", 0)),
    ("apply", (0,)),
    ("approve", ("roy", 0)),
    ("take_away", (0, "retract_evidence")),
    ("apply", (0,)),
    ("propose_waiver", ("sam", 60)),
    ("sign_waiver", ("rae", 0)),
    ("approve", ("rob", 0)),
    ("edit", (0,)),
    ("apply", (0,)),
    ("approve", ("rob", 0)),
    ("approve", ("rae", 0)),
    ("lay", ("track",)),
    ("apply", (0,)),
    ("clear_the_way", ()),
    ("apply", (0,)),
    ("ask", ("rex",)),
    ("decide", ("olga", 0, True)),
    ("sign", ("rex", None)),
    ("confirm_incident", ()),
    ("clear_the_way", ()),
    ("redraft", ("model-sharing", True)),
    ("wait", (31, False)),
    ("sweep", ()),
    ("sign", ("ann", None)),
    ("stop", (0, "suspend_grant")),
    ("resume", ("sam", 0)),
    ("resume", ("sam", 0)),
    ("resume", ("otto", 0)),
    ("stop", (0, "revoke_grant")),
    ("ask", ("ron",)),
    ("decide", ("otto", 0, False)),
    ("terminate", (0,)),
    ("stop", (1, "revoke_grant")),
    ("withdraw", (0,)),
)
"""Every part once, with refusals on the way: so that nothing below holds of nothing."""
WALKED = {
    *("plan proposed", "plan consented", "evidence submitted", "evidence accepted"),
    *("evidence taken away", "waiver proposed", "waiver signed", "promotion edited"),
    *("applied to partner", "applied to researcher", "hold laid", "hold lifting"),
    *("incident confirmed", "incident closing", "agreement signed", "agreement changed"),
    *("access asked", "access approved", "access rejected", "grant issued", "suspend_grant"),
    *("grant resumed", "revoke_grant", "signature ended", "track withdrawn", "somebody let in"),
    *("delivered", "bytes listed"),
}


def of(partnered: Partnered) -> type[Joined]:
    class Here(Joined):
        template = partnered
        did = Counter()

    return Here


def test_a_walk_through_every_part(partnered: Partnered) -> None:
    machine = of(partnered)()
    checks = [getattr(machine, name) for name in dir(Joined) if is_invariant(name)]
    assert len(checks) == 7
    try:
        for name, arguments in WALK:
            getattr(machine, name)(*arguments)
            for check in checks:
                check()
    finally:
        machine.teardown()
    assert {name for name, times in machine.did.items() if times} >= WALKED


def is_invariant(name: str) -> bool:
    return hasattr(getattr(Joined, name), "hypothesis_stateful_invariant")


def test_no_sequence_breaks_what_holds_between_the_parts(partnered: Partnered) -> None:
    run_state_machine_as_test(
        of(partnered),
        settings=settings(
            max_examples=200 if DEEP else 6 if partnered.server is None else 2,
            stateful_step_count=50 if DEEP else 25,
            deadline=None,
            phases=[Phase.generate, Phase.shrink] if DEEP else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )

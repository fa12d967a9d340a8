"""What a report says of evidence, waivers, holds and incidents, to each audience."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete

from stagerelease.catalog import service as catalog
from stagerelease.evidence import service as evidence
from stagerelease.evidence.measure import NewEvidence
from stagerelease.incidents import service as incidents
from stagerelease.incidents.covering import Links
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR
from stagerelease.ledger.signer import load_or_create_signer
from stagerelease.ledger.tables import LogDetail
from stagerelease.releases import service as release_service
from stagerelease.replay.stage import Stage
from stagerelease.reports.rendering import document, render
from stagerelease.reports.service import build

PLAN = """
plan: told
title: Told
stages:
  - {name: internal, audience: staff}
  - name: public
    audience: everyone
    gates:
      - {kind: evidence, key: shown, type: detectability, metric: accuracy, at_least: 50}
      - {kind: evidence, key: kept, type: bias_probe, metric: finding, verdict: some_difference}
      - {kind: freshness, key: watched, type: misuse_monitoring, max_age: P30D}
"""
AT = datetime(2026, 4, 1, 12, tzinfo=UTC)


@pytest.fixture
def stage(works, blobs, clock, tmp_path) -> Stage:
    """Role accounts, one repository, one plan."""
    made = Stage(works, blobs, load_or_create_signer(tmp_path / "key", "t.example/log"), clock)
    clock.set(AT - timedelta(days=10))
    with works.begin(OPERATOR) as work:
        catalog.ensure_family(work, family_id="fam", name="Family")
        catalog.ensure_variant(work, family_id="fam", repo_id="acme/model", label="one")
    for handle, role in (
        ("release-manager", "release_manager"),
        ("reviewer-1", "reviewer"),
        ("reviewer-2", "reviewer"),
        ("security", "security"),
        ("security-2", "security"),
    ):
        made.role(handle, role, handle)
    made.plan(PLAN, why="For a test.")
    return made


@pytest.fixture
def track(stage: Stage) -> str:
    """A public track: one figure shown, one finding kept, one gate waived, a hold, an incident."""
    files = {"README.md": ("model_card", "# Card\n"), "W.md": ("weights", "No weights.\n")}
    revision = stage.revision("acme/model", files, message="First")
    track = stage.track("acme/model", revision, "weights", "told")
    subject = stage.manifest(track)
    used = [stage.evidence(figure(subject)), stage.evidence(finding(subject))]
    for waiver_gate in ("watched", "shown"):  # the second one is never needed
        with stage.begin("reviewer-1") as work:
            row = release_service.propose_waiver(
                work,
                track_id=track,
                stage="public",
                gate=waiver_gate,
                reason=f"WAIVED {waiver_gate}",
                ends_at=AT + timedelta(days=5),
            )
        with stage.begin("security") as work:
            release_service.sign_waiver(work, row.id)
    stage.promote(track, "public", at=AT, why="INTERNAL rationale", rests_on=used)
    stage.clock.set(AT + timedelta(days=1))
    with stage.begin("security") as work:
        release_service.lay_hold(
            work, scope="track", scope_id=track, reason="INTERNAL hold", public_reason="Public hold"
        )
    trouble(stage, track)
    stage.clock.set(AT + timedelta(days=9))
    stage.checkpoint()
    return track


def figure(subject: str) -> NewEvidence:
    return NewEvidence(
        type="detectability",
        metric="accuracy",
        title="Shown figure",
        subject_sha256=subject,
        source="A public paper",
        fact_status="reported",
        measured_at=AT - timedelta(days=20),
        value=95.0,
        unit="percent",
        conditions={
            "detector": "ours",
            "sampler": "top-k 40",
            "text_length": 500,
            "text_length_unit": "characters",
            "base_rate": 0.5,
        },
        public=True,
    )


def finding(subject: str) -> NewEvidence:
    return NewEvidence(
        type="bias_probe",
        metric="finding",
        title="INTERNAL finding",
        subject_sha256=subject,
        source="INTERNAL memo",
        fact_status="verified",
        measured_at=AT - timedelta(days=20),
        verdict="some_difference",
        finding="INTERNAL words",
    )


def trouble(stage: Stage, track: str) -> None:
    """One incident confirmed, one only reported."""
    for confirm in (True, False):
        with stage.works.begin(ANONYMOUS) as work:
            number = incidents.report(work, text="INTERNAL report").incident_id
        with stage.begin("security") as work:
            incidents.triage(
                work,
                number,
                severity="low",
                blocking=False,
                title="INTERNAL incident",
                public_summary="Public summary" if confirm else "INTERNAL summary",
                links=Links(tracks=(track,)),
            )
            if confirm:
                incidents.confirm(work, number, reason="INTERNAL reason")


def made(stage: Stage, track: str, audience: str = "public"):
    who = OPERATOR if audience == "full" else ANONYMOUS
    with stage.works.begin(who, read_only=True) as work:
        return build(work, track, audience=audience, vkey=stage.signer.vkey)


def test_the_public_report_holds_nothing_internal(stage, track):
    report = made(stage, track)
    assert "INTERNAL" not in json.dumps(document(report))
    assert "INTERNAL" not in render(report, "html").decode()
    gates = {gate.key: gate for gate in report.moves[-1].gates}
    assert (gates["shown"].measured, gates["shown"].withheld) == ("accuracy 95 percent", 0)
    assert (gates["kept"].measured, gates["kept"].withheld) == ("not public", 1)
    assert (gates["watched"].outcome, gates["quorum"].measured) == ("waived", "2")
    assert [line.title for line in report.evidence] == ["Shown figure"]
    assert report.evidence_withheld == 1
    assert [w.reason for w in report.waivers] == ["WAIVED watched"]
    assert report.waivers[0].signers == ("reviewer", "security")
    assert report.waivers[0].state == "ended"  # shown for ever
    assert [h.reason for h in report.holds] == ["Public hold"]
    assert [i.title for i in report.incidents] == ["Public summary"]
    assert report.contacts == ()
    assert report.ahead_gates == ()


def test_the_full_report_holds_all_of_it(stage, track):
    report = made(stage, track, "full")
    assert report.moves[-1].rationale == "INTERNAL rationale"
    gates = {gate.key: gate for gate in report.moves[-1].gates}
    assert gates["kept"].measured == "finding some_difference"
    assert {line.title for line in report.evidence} == {"Shown figure", "INTERNAL finding"}
    assert {w.reason for w in report.waivers} == {"WAIVED watched", "WAIVED shown"}
    assert {s for w in report.waivers for s in w.signers} == {"reviewer-1", "security"}
    assert [h.reason for h in report.holds] == ["INTERNAL hold"]
    assert [i.title for i in report.incidents] == ["INTERNAL incident"] * 2
    for form in ("html", "pdf", "json"):
        assert render(report, form) == render(report, form)


def test_a_figure_never_stands_without_its_base_rate(stage, track):
    (line,) = made(stage, track).evidence
    assert ("base rate", "0.5") in line.conditions
    assert any("base rate of 1 %, 16.1 % of alarms would be right" in s for s in line.beside)
    page = render(made(stage, track), "html").decode()
    assert "16.1 % of alarms" in page


def test_evidence_retracted_afterwards_is_shown_as_retracted(stage, track):
    (line,) = made(stage, track).evidence
    with stage.begin("release-manager") as work:
        evidence.retract(work, line.id, reason="INTERNAL: it was wrong.")
    report = made(stage, track)
    assert [e.state for e in report.evidence] == ["retracted"]
    gates = {gate.key: gate for gate in report.moves[-1].gates}
    assert gates["shown"].outcome == "passed"  # as it was decided then
    assert "INTERNAL" not in json.dumps(document(report))


def test_an_erased_decision_is_said_to_be(stage, track):
    with stage.works.begin(OPERATOR) as work:
        work.session.execute(delete(LogDetail))
    report = made(stage, track)
    assert report.moves[-1].gates == ()
    assert report.moves[-1].approvals == ()
    assert "its gates are not on record" in render(report, "html").decode()
    assert report.log.unsigned == ()

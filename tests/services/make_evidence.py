"""Evidence for tests, about the files of the small world of ``make_release``."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from make_release import Staff, make_grant
from sqlalchemy import update

from stagerelease.db.work import Works
from stagerelease.evidence import service
from stagerelease.evidence.queries import EvidenceRow
from stagerelease.evidence.service import NewEvidence
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR
from stagerelease.partners.tables import Grant

WEIGHTS = "a" * 64  # model.safetensors of make_release's revision
CARD = "c" * 64
THEN = datetime(2026, 2, 1, tzinfo=UTC)
BASELINE = NewEvidence(
    type="detectability",
    metric="accuracy",
    title="TF-IDF and logistic regression",
    subject_sha256=WEIGHTS,
    source="gpt-2-output-dataset, detection.md",
    fact_status="verified",
    measured_at=THEN,
    value=95.0,
    unit="percent",
    n=10_000,
    interval=(94.5, 95.5),
    interval_level=95,
    conditions={
        "detector": "TF-IDF and logistic regression",
        "sampler": "top-k 40",
        "text_length": 1024,
        "text_length_unit": "tokens",
        "base_rate": 0.01,
    },
)
FOUND = NewEvidence(
    type="finetune_misuse",
    metric="finding",
    title="Four positions fine-tuned",
    subject_sha256=WEIGHTS,
    source="GPT-2: 1.5B Release",
    fact_status="verified",
    measured_at=THEN,
    verdict="feasible",
    finding="Propaganda generation is feasible; experts get grounds for suspicion.",
    conditions={"fine_tuned_on": "four extremist positions"},
    author_name="Middlebury CTEC",
)


def hand_in(staff: Staff, who: str = "mia", new: NewEvidence = BASELINE, **changes: Any):
    """Submit evidence as ``who``; ``changes`` are of the evidence or of whose it is."""
    placed = {k: changes.pop(k) for k in ("organisation", "authors", "supersedes") if k in changes}
    with staff.begin(who) as work:
        return service.hand_in(work, replace(new, **changes), **placed)


def accepted(staff: Staff, who: str = "mia", by: str = "rae", **changes: Any) -> EvidenceRow:
    """Submit evidence as ``who`` and accept it as ``by``."""
    row = hand_in(staff, who, **changes)
    with staff.begin(by) as work:
        return service.accept(work, row.id)


def add_partner(works: Works, staff: Staff, track_id: str, *, org: str, handle: str) -> str:
    """Add an organisation with one member and a grant of its own on the track; return its id."""
    with works.begin(OPERATOR) as work:
        organisation_id = identity.create_organisation(work, slug=org, name=org.title()).id
        identity.create_person(work, handle=handle, display_name=handle)
        identity.add_member(work, organisation=org, person=handle, role="partner_member")
        _, staff.tokens[handle] = identity.create_token(work, person=handle, name="test")
    person_id = staff.id(handle)
    make_grant(works, track_id, "partner", person_id)
    with works.begin(OPERATOR) as work:
        work.session.execute(
            update(Grant)
            .where(Grant.person_id == person_id)
            .values(person_id=None, organisation_id=organisation_id)
        )
    return organisation_id


DAY = timedelta(days=1)

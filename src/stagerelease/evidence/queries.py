"""Reads of evidence and coordination records, as frozen rows.

Nothing here decides who may see what: ``reading`` does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select

from stagerelease.catalog.tables import Revision, RevisionFile
from stagerelease.db.work import Work
from stagerelease.evidence.facts import EvidenceFact
from stagerelease.evidence.kinds import FINDING, rank_of
from stagerelease.evidence.rules import ESTABLISHED, State
from stagerelease.evidence.tables import (
    CoordinationEvent,
    CoordinationRecord,
    Evidence,
    EvidenceAttachment,
    EvidenceAuthor,
    EvidenceEvent,
)
from stagerelease.identity.tables import Organisation, Person
from stagerelease.kernel.errors import NotFound

MOST_PARAMETERS = 500  # of one statement, below every driver's limit


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """A piece of evidence. ``value`` is None for a finding, which has a ``verdict`` instead."""

    id: str
    type: str
    title: str
    metric: str
    value: float | None
    unit: str
    n: int | None
    interval_low: float | None
    interval_high: float | None
    interval_level: float | None
    conditions: Mapping[str, Any]
    companions: Mapping[str, Any]
    verdict: str | None
    finding: str | None
    caveat: str
    subject_sha256: str
    subject_kind: str
    fact_status: str
    source: str
    measured_at: datetime
    valid_until: datetime | None
    organisation_id: str | None
    author_name: str
    public: bool
    public_approved_by: str | None
    public_approved_at: datetime | None
    supersedes_id: str | None
    state: str
    state_reason: str
    created_by: str
    created_at: datetime
    submitted_at: datetime | None
    accepted_at: datetime | None
    accepted_by: str | None

    @property
    def established(self) -> bool:
        """Tell whether it may be stated as a fact: accepted, and not on somebody's word alone."""
        return self.state == State.ACCEPTED and self.fact_status in ESTABLISHED


@dataclass(frozen=True, slots=True)
class EvidenceEventRow:
    """Something that happened to a piece of evidence."""

    id: str
    from_state: str | None
    to_state: str
    reason: str
    actor_id: str
    at: datetime
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class AttachmentRow:
    """A file attached to evidence."""

    id: str
    evidence_id: str
    filename: str
    sha256: str
    size: int
    added_by: str
    added_at: datetime


@dataclass(frozen=True, slots=True)
class CoordinationRow:
    """Another developer's replication, contact, similar release or disclosure."""

    id: str
    family_id: str
    developer: str
    claim: str
    kind: str
    size_parameters: int | None
    status: str
    happened_on: datetime  # midnight UTC of the first day it may have been
    happened_precision: str  # day | month | year
    contacted_on: datetime | None
    window_ends_at: datetime | None
    source: str
    fact_status: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class CoordinationEventRow:
    """A change of a coordination record."""

    id: str
    record_id: str
    from_status: str | None
    to_status: str
    note: str
    actor_id: str
    at: datetime
    leaf_idx: int


EVIDENCE: Select[*tuple[Any, ...]] = select(
    *(getattr(Evidence, name) for name in EvidenceRow.__dataclass_fields__)
)
_COORDINATION: Select[*tuple[Any, ...]] = select(
    *(getattr(CoordinationRecord, name) for name in CoordinationRow.__dataclass_fields__)
)


def storable(text: str) -> bool:
    """Tell whether ``text`` could be an identifier in the database at all."""
    return 0 < len(text) <= 200 and text.isascii() and text.isprintable()


def find_evidence(work: Work, evidence_id: str) -> EvidenceRow | None:
    """Return the evidence of that id, or None."""
    if not storable(evidence_id):
        return None
    row = work.session.execute(EVIDENCE.where(Evidence.id == evidence_id)).one_or_none()
    return EvidenceRow(*row) if row else None


def load_evidence(work: Work, evidence_id: str) -> EvidenceRow:
    """Return the evidence of that id.

    Raises:
        NotFound: there is none.
    """
    row = find_evidence(work, evidence_id)
    if row is None:
        raise NotFound(f"There is no evidence {evidence_id!r}.", reason="evidence.unknown")
    return row


def authors_of(work: Work, evidence_ids: Collection[str]) -> dict[str, frozenset[str]]:
    """Return the person ids of the authors of each of these pieces of evidence.

    The account that entered it is one of them, whoever is named.
    """
    found: dict[str, set[str]] = {one: set() for one in evidence_ids}
    for part in _parts(evidence_ids):
        named = select(EvidenceAuthor.evidence_id, EvidenceAuthor.person_id).where(
            EvidenceAuthor.evidence_id.in_(part)
        )
        entered = (
            select(Evidence.id, Person.id)
            .join(Person, Person.id == Evidence.created_by)
            .where(Evidence.id.in_(part))
        )
        for evidence_id, person_id in work.session.execute(named.union(entered)):
            found[evidence_id].add(person_id)
    return {one: frozenset(people) for one, people in found.items()}


def facts_of(work: Work, ids: Collection[str]) -> list[EvidenceFact]:
    """Return what decisions may know of these pieces of evidence, by id; unknown ids are left out.

    Drafts are among them: their state says so.
    """
    rows: list[EvidenceRow] = []
    for part in _parts({one for one in ids if storable(one)}):
        rows += [
            EvidenceRow(*row) for row in work.session.execute(EVIDENCE.where(Evidence.id.in_(part)))
        ]
    return _facts(work, rows)


def facts_about(work: Work, digests: Collection[str]) -> list[EvidenceFact]:
    """Return all evidence but drafts whose subject is one of these digests, by id."""
    rows: list[EvidenceRow] = []
    for part in _parts({one for one in digests if storable(one)}):
        statement = EVIDENCE.where(Evidence.subject_sha256.in_(part), Evidence.state != "draft")
        rows += [EvidenceRow(*row) for row in work.session.execute(statement)]
    return _facts(work, rows)


def _facts(work: Work, rows: list[EvidenceRow]) -> list[EvidenceFact]:
    authors = authors_of(work, [row.id for row in rows])
    return [fact_of(row, authors[row.id]) for row in sorted(rows, key=lambda row: row.id)]


def fact_of(row: EvidenceRow, authors: frozenset[str]) -> EvidenceFact:
    """Return a row as decisions see it; a finding's value is the rank of its verdict."""
    value = row.value
    if row.metric == FINDING or value is None:
        value = float(rank_of(row.type, row.verdict))
    interval = None
    if row.interval_low is not None and row.interval_high is not None:
        interval = (row.interval_low, row.interval_high)
    return EvidenceFact(
        id=row.id,
        type=row.type,
        metric=row.metric,
        value=value,
        unit=row.unit,
        state=row.state,
        subject_sha256=row.subject_sha256,
        measured_at=row.measured_at,
        valid_until=row.valid_until,
        accepted_at=row.accepted_at,
        organisation_id=row.organisation_id,
        authors=authors,
        n=row.n,
        interval=interval,
        conditions=dict(row.conditions),
        title=row.title,
        companions=dict(row.companions),
        verdict=row.verdict,
        finding=row.finding or "",
        caveat=row.caveat,
        fact_status=row.fact_status,
        source=row.source,
        author_name=row.author_name,
        public=row.public,
    )


def events_of(work: Work, evidence_id: str) -> list[EvidenceEventRow]:
    """Return everything that happened to a piece of evidence, oldest first."""
    rows = work.session.execute(
        select(*(getattr(EvidenceEvent, n) for n in EvidenceEventRow.__dataclass_fields__))
        .where(EvidenceEvent.evidence_id == evidence_id)
        .order_by(EvidenceEvent.leaf_idx, EvidenceEvent.id)
    )
    return [EvidenceEventRow(*row) for row in rows]


_ATTACHMENT: Select[*tuple[Any, ...]] = select(
    *(getattr(EvidenceAttachment, n) for n in AttachmentRow.__dataclass_fields__)
)


def attachments_of(work: Work, evidence_id: str) -> list[AttachmentRow]:
    """Return the files attached to a piece of evidence, oldest first."""
    rows = work.session.execute(
        _ATTACHMENT.where(EvidenceAttachment.evidence_id == evidence_id).order_by(
            EvidenceAttachment.id
        )
    )
    return [AttachmentRow(*row) for row in rows]


def load_attachment(work: Work, evidence_id: str, attachment_id: str) -> AttachmentRow:
    """Return one attached file.

    Raises:
        NotFound: there is none of that id on this piece of evidence.
    """
    row = None
    if storable(attachment_id):
        row = work.session.execute(
            _ATTACHMENT.where(
                EvidenceAttachment.id == attachment_id,
                EvidenceAttachment.evidence_id == evidence_id,
            )
        ).one_or_none()
    if row is None:
        raise NotFound(
            f"{evidence_id} has no attachment {attachment_id!r}.", reason="attachment.unknown"
        )
    return AttachmentRow(*row)


def organisation_name(work: Work, organisation_id: str | None) -> str | None:
    """Return the name of an organisation, or None."""
    if organisation_id is None:
        return None
    return work.session.execute(
        select(Organisation.name).where(Organisation.id == organisation_id)
    ).scalar_one_or_none()


def find_subject(work: Work, sha256: str) -> str | None:
    """Return what a digest names here: ``manifest`` of a revision, ``file`` of one, or None."""
    if work.session.execute(
        select(Revision.id).where(Revision.manifest_sha256 == sha256).limit(1)
    ).first():
        return "manifest"
    if work.session.execute(
        select(RevisionFile.sha256).where(RevisionFile.sha256 == sha256).limit(1)
    ).first():
        return "file"
    return None


def _parts(values: Collection[str]) -> list[list[str]]:
    ordered = sorted(values)
    return [ordered[i : i + MOST_PARAMETERS] for i in range(0, len(ordered), MOST_PARAMETERS)]


# --- coordination --------------------------------------------------------------------------------


def coordination_about(work: Work, family_id: str) -> list[CoordinationRow]:
    """Return every coordination record about a family, in the order they were entered."""
    rows = work.session.execute(
        _COORDINATION.where(CoordinationRecord.family_id == family_id).order_by(
            CoordinationRecord.id
        )
    )
    return [CoordinationRow(*row) for row in rows]


def list_coordination(
    work: Work, *, family_id: str | None = None, limit: int = 50, after: str | None = None
) -> list[CoordinationRow]:
    """Return at most ``limit`` records entered before the one called ``after``, newest first."""
    statement = _COORDINATION.order_by(CoordinationRecord.id.desc()).limit(limit)
    for value in (family_id, after):
        if value is not None and not storable(value):
            return []
    if family_id is not None:
        statement = statement.where(CoordinationRecord.family_id == family_id)
    if after is not None:
        statement = statement.where(CoordinationRecord.id < after)
    return [CoordinationRow(*row) for row in work.session.execute(statement)]


def load_coordination(work: Work, record_id: str) -> CoordinationRow:
    """Return one coordination record.

    Raises:
        NotFound: there is none.
    """
    row = None
    if storable(record_id):
        row = work.session.execute(
            _COORDINATION.where(CoordinationRecord.id == record_id)
        ).one_or_none()
    if row is None:
        raise NotFound(
            f"There is no coordination record {record_id!r}.", reason="coordination.unknown"
        )
    return CoordinationRow(*row)


def coordination_events(work: Work, record_id: str) -> list[CoordinationEventRow]:
    """Return every change of a coordination record, oldest first."""
    rows = work.session.execute(
        select(*(getattr(CoordinationEvent, n) for n in CoordinationEventRow.__dataclass_fields__))
        .where(CoordinationEvent.record_id == record_id)
        .order_by(CoordinationEvent.leaf_idx, CoordinationEvent.id)
    )
    return [CoordinationEventRow(*row) for row in rows]


def written_by(work: Work, person_ids: Collection[str]) -> set[str]:
    """Return the ids of all evidence that one of these people is an author of, or entered."""
    named = select(EvidenceAuthor.evidence_id).where(EvidenceAuthor.person_id.in_(person_ids))
    entered = select(Evidence.id).where(Evidence.created_by.in_(person_ids))
    return set(work.session.scalars(named.union(entered)))

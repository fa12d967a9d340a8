"""Writing evidence down and handing it in: by staff, and by holders about tracks they hold."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import or_, select

from stagerelease.db.work import Work
from stagerelease.evidence import queries
from stagerelease.evidence.holding import held_digests
from stagerelease.evidence.humans import accountable
from stagerelease.evidence.measure import NewEvidence, check
from stagerelease.evidence.moving import lock, move, record
from stagerelease.evidence.queries import EvidenceRow, storable
from stagerelease.evidence.rules import STANDING, State, check_dates
from stagerelease.evidence.tables import Evidence, EvidenceAuthor
from stagerelease.evidence.throttle import Written, spend
from stagerelease.identity import queries as people
from stagerelease.identity.rules import Permission, is_staff, require
from stagerelease.identity.tables import Membership
from stagerelease.kernel.canonical import canonical_sha256
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import (
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    Stale,
)
from stagerelease.kernel.ids import new_id

_WORDS = (
    *("type", "title", "metric", "value", "unit", "n", "interval_level", "conditions"),
    *("companions", "verdict", "finding", "caveat", "subject_sha256", "fact_status", "source"),
    *("measured_at", "valid_until", "author_name", "public"),
)


def draft(
    work: Work,
    new: NewEvidence,
    *,
    organisation: str | None = None,
    authors: Collection[str] = (),
    supersedes: str | None = None,
) -> EvidenceRow:
    """Write evidence down as a draft that only its authors and staff see.

    The human who writes it is always among its authors. ``authors`` are handles: staff may name
    anybody, others members of ``organisation``, which defaults to the only one they belong to.

    Raises:
        Unauthenticated, Forbidden: the caller submits no evidence, or not about this subject.
        Invalid: with every field that is wrong.
        NotFound: no such organisation, person, or evidence to supersede.
        TooMany: the caller, who is not staff, wrote too much this hour.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    spend(work, Written.PIECE)
    checked = check(new, work.now)
    subject_kind = _subject_kind(work, checked.subject_sha256)
    organisation_id = _organisation(work, organisation)
    writers = _authors(work, authors, organisation_id)
    _check_supersedes(work, supersedes, checked.type)
    evidence = Evidence(
        id=new_id("evd"),
        **_values(checked),
        subject_kind=subject_kind,
        organisation_id=organisation_id,
        supersedes_id=supersedes,
        state=State.DRAFT,
        state_reason="",
        created_by=work.actor.id,
        created_at=work.now,
    )
    work.session.add(evidence)
    work.session.flush()
    _write_authors(work, evidence.id, writers)
    return record(work, evidence, "drafted", before=None)


def edit(
    work: Work,
    evidence_id: str,
    new: NewEvidence,
    *,
    organisation: str | None = None,
    authors: Collection[str] = (),
    supersedes: str | None = None,
    seen: str | None = None,
) -> EvidenceRow:
    """Replace the words of a draft; what has been submitted never changes.

    Whoever is an author of it already stays one, named or not: else one of two could write the
    other out of it, who would then approve on it. A draft that names somebody wrongly is retracted
    and written anew.

    ``seen`` is the ``content_sha256`` of the draft that the caller changed: with it, nothing that
    another author wrote meanwhile is written over unread.

    Raises:
        NotFound: no such evidence, or not the caller's. Conflict: it is no draft any more.
        Stale: it is not the draft that was ``seen``.
        Invalid, Forbidden, TooMany: see ``draft``.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    evidence = lock_own(work, evidence_id)
    row = open_draft(work, evidence_id)
    if seen is not None and seen != content_sha256(row):
        raise Stale(
            f"{evidence.id} was changed after you opened it.",
            reason="evidence.draft",
            next_step="Look at it as it is now, then save again what is to stand.",
        )
    spend(work, Written.PIECE)
    checked = check(new, work.now)
    evidence.subject_kind = _subject_kind(work, checked.subject_sha256)
    organisation_id = _organisation(work, organisation)
    writers = _authors(work, authors, organisation_id)
    _check_supersedes(work, supersedes, checked.type, own_id=evidence.id)
    for name, value in _values(checked).items():
        setattr(evidence, name, value)
    evidence.organisation_id = organisation_id
    evidence.supersedes_id = supersedes
    _write_authors(work, evidence.id, writers)
    return record(work, evidence, "edited", before=State.DRAFT)


def open_draft(work: Work, evidence_id: str) -> EvidenceRow:
    """Return the caller's own draft, which they may still change.

    Raises:
        Unauthenticated, Forbidden: the caller submits no evidence.
        NotFound: no such evidence, or not the caller's. Conflict: it is no draft any more.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    row = load_own(work, evidence_id)
    if row.state != State.DRAFT:
        raise Conflict(
            f"{row.id} is {row.state}; only drafts change.",
            reason="evidence.state",
            next_step="Submit new evidence that supersedes it.",
        )
    return row


def submit(work: Work, evidence_id: str) -> EvidenceRow:
    """Hand a draft in, to be decided on by staff who did not write it.

    Whoever hands it in answers for it and is one of its authors. A machine, or a shell on the host,
    may write drafts that name a person, who reads and submits them: else whoever runs it would
    decide on what they wrote themselves.

    Raises:
        NotFound: no such draft, or not the caller's. Conflict: it was submitted already.
        Invalid, Forbidden: it could not be written down today (dates, subject, a grant that ended);
            not a person.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    evidence = lock_own(work, evidence_id)
    _write_authors(work, evidence.id, [accountable(work, "submit evidence")])
    before = evidence.state
    move(evidence, State.SUBMITTED, reason="")
    check_dates(evidence.measured_at, evidence.valid_until, work.now)
    _subject_kind(work, evidence.subject_sha256)
    evidence.submitted_at = work.now
    work.session.flush()
    row = queries.load_evidence(work, evidence.id)
    return record(
        work, evidence, "submitted", before=before, detail={"content_sha256": content_sha256(row)}
    )


def hand_in(
    work: Work,
    new: NewEvidence,
    *,
    organisation: str | None = None,
    authors: Collection[str] = (),
    supersedes: str | None = None,
) -> EvidenceRow:
    """Write evidence down and submit it at once. Raises what ``draft`` and ``submit`` raise."""
    row = draft(work, new, organisation=organisation, authors=authors, supersedes=supersedes)
    return submit(work, row.id)


def lock_own(work: Work, evidence_id: str) -> Evidence:
    """Return the caller's own evidence, locked.

    Raises:
        NotFound: there is none of that id that the caller wrote or entered.
    """
    load_own(work, evidence_id)  # first: who may not know of it locks nothing
    return lock(work, evidence_id)


def load_own(work: Work, evidence_id: str) -> EvidenceRow:
    """Return the caller's own evidence, without a lock. Raises what ``lock_own`` raises."""
    row = queries.load_evidence(work, evidence_id)
    if (
        work.actor.id != row.created_by
        and work.actor.id not in queries.authors_of(work, [row.id])[row.id]
    ):
        raise NotFound(f"There is no evidence {evidence_id!r} of yours.", reason="evidence.unknown")
    return row


def content_sha256(row: EvidenceRow) -> str:
    """Return the digest of the words and figures of a piece of evidence, as the log commits to."""
    document: dict[str, Any] = {name: getattr(row, name) for name in _WORDS}
    document["measured_at"] = iso(row.measured_at)
    document["valid_until"] = iso(row.valid_until) if row.valid_until else None
    document["interval"] = [row.interval_low, row.interval_high]
    return canonical_sha256(document)


def seen_sha256(work: Work, row: EvidenceRow) -> str:
    """Return the digest of a piece of evidence with its files: what was there to be judged."""
    files = [[one.filename, one.sha256] for one in queries.attachments_of(work, row.id)]
    return canonical_sha256({"content_sha256": content_sha256(row), "files": sorted(files)})


# --- parts ---------------------------------------------------------------------------------------


def _values(new: NewEvidence) -> dict[str, Any]:
    low, high = new.interval if new.interval is not None else (None, None)
    values = {name: getattr(new, name) for name in _WORDS}
    values["conditions"], values["companions"] = dict(new.conditions), dict(new.companions)
    return values | {"interval_low": low, "interval_high": high}


def _subject_kind(work: Work, sha256: str) -> str:
    """Return what the subject is; others than staff must hold a grant on it."""
    kind = queries.find_subject(work, sha256)
    if not is_staff(work.actor):
        held = held_digests(work, person_id=work.actor.id, organisations=work.actor.organisations)
        if kind is None or sha256 not in held:
            raise Forbidden(
                "You hold no active grant on a track with that file or manifest.",
                reason="evidence.not-held",
                next_step="Name the digest of a file, or of the manifest, of a track you hold.",
            )
    if kind is None:
        sentence = f"{sha256} is neither a file nor a manifest of any revision here."
        raise Invalid(
            sentence,
            reason="evidence.subject",
            next_step="'stagerelease repo files' shows the digests of a revision.",
            fields=[FieldError("subject_sha256", sentence)],
        )
    return kind


def _organisation(work: Work, named: str | None) -> str | None:
    if named is None:
        ours = work.actor.organisations
        return next(iter(ours)) if len(ours) == 1 and not is_staff(work.actor) else None
    if not storable(named):
        raise NotFound("There is no such organisation.", reason="organisation.unknown")
    row = people.find_organisation(work, named)
    may = is_staff(work.actor) or (row is not None and row.id in work.actor.organisations)
    if row is None or not may:
        raise NotFound(f"You belong to no organisation {named!r}.", reason="organisation.unknown")
    return row.id


def _authors(work: Work, handles: Collection[str], organisation_id: str | None) -> frozenset[str]:
    found = {work.actor.id} if work.actor.is_human else set()
    for handle in handles:
        person = people.find_person(work, handle) if storable(handle) else None
        if person is None or not _may_name(work, person.id, organisation_id):
            sentence = f"There is no author {handle!r:.80} whom you could name."
            raise Invalid(
                sentence, reason="evidence.author", fields=[FieldError("authors", sentence)]
            )
        found.add(person.id)
    return frozenset(found)


def _may_name(work: Work, person_id: str, organisation_id: str | None) -> bool:
    """Tell whether the caller may name this author: nobody shuts a stranger out of a quorum."""
    if is_staff(work.actor) or person_id == work.actor.id:
        return True
    if organisation_id is None:
        return False
    line = work.session.execute(
        select(Membership.id)
        .where(
            Membership.person_id == person_id,
            Membership.organisation_id == organisation_id,
            Membership.starts_at <= work.now,
            or_(Membership.ends_at.is_(None), Membership.ends_at > work.now),
        )
        .limit(1)
    ).first()
    return line is not None


def _write_authors(work: Work, evidence_id: str, people_ids: Collection[str]) -> None:
    """Add authors to those the evidence has."""
    known = work.session.scalars(
        select(EvidenceAuthor.person_id).where(EvidenceAuthor.evidence_id == evidence_id)
    )
    for person_id in sorted(set(people_ids) - set(known)):
        work.session.add(EvidenceAuthor(evidence_id=evidence_id, person_id=person_id))
    work.session.flush()


def _check_supersedes(
    work: Work, old_id: str | None, type_: str, *, own_id: str | None = None
) -> None:
    """Refuse a supersession of nothing, of another type, or of what the caller did not write."""
    if old_id is None:
        return
    old = queries.find_evidence(work, old_id)
    fault = None
    may = old is not None and (is_staff(work.actor) or work.actor.id in _writers(work, old))
    if old is None or not may or old.id == own_id:
        fault = f"There is no evidence {old_id!r:.80} that you could supersede."
    elif old.type != type_:
        fault = f"{old.id} is {old.type}; {type_} cannot supersede it."
    elif old.state not in STANDING:
        fault = f"{old.id} is {old.state}; only accepted or disputed evidence is superseded."
    if fault is not None:
        raise Invalid(fault, reason="evidence.supersedes", fields=[FieldError("supersedes", fault)])


def _writers(work: Work, row: EvidenceRow) -> frozenset[str]:
    authors = queries.authors_of(work, [row.id])[row.id]
    ours = row.organisation_id is not None and row.organisation_id in work.actor.organisations
    return authors | ({work.actor.id} if ours else set())

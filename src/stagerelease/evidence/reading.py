"""Who may see which evidence, and the pages that show it.

Staff who read evidence see all of it. A holder sees their own, and what was accepted about tracks
they hold. Everybody else sees what was accepted, marked public, and either used in an applied
promotion to a listed stage or approved for the public; and of that, no person's name.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, exists, or_, select

from stagerelease.db.work import Work
from stagerelease.evidence import queries
from stagerelease.evidence.holding import held_digests, used_in_listed
from stagerelease.evidence.kinds import TYPES
from stagerelease.evidence.queries import (
    EVIDENCE,
    AttachmentRow,
    EvidenceEventRow,
    EvidenceRow,
    storable,
)
from stagerelease.evidence.rules import Precision, State, describe_precision, precisions
from stagerelease.evidence.submitting import seen_sha256
from stagerelease.evidence.tables import Evidence, EvidenceAuthor
from stagerelease.identity.rules import Permission, authorize
from stagerelease.kernel.errors import FieldError, Invalid, NotFound, Unauthenticated

_DETECTOR_TYPE = "detectability"


@dataclass(frozen=True, slots=True)
class EvidencePage:
    """A piece of evidence with its authors, its history, its files and what its figures mean."""

    evidence: EvidenceRow
    authors: tuple[str, ...]  # person ids; empty for those who may not know
    organisation: str | None
    events: tuple[EvidenceEventRow, ...]
    attachments: tuple[AttachmentRow, ...]
    precision: tuple[Precision, ...]
    beside: tuple[str, ...]  # sentences that stand beside the claim
    superseded_by: str | None
    seen_sha256: str  # of its words and files, for whoever decides on it; empty for others


def reads_all(work: Work) -> bool:
    """Tell whether the caller may read all evidence."""
    return authorize(work.actor, Permission.EVIDENCE_READ).allowed


def _shown_to_all(work: Work) -> ColumnElement[bool]:
    return and_(
        Evidence.public.is_(True),
        Evidence.state == State.ACCEPTED,
        or_(Evidence.public_approved_at.is_not(None), Evidence.id.in_(used_in_listed(work))),
    )


def _own(work: Work) -> ColumnElement[bool]:
    mine = exists().where(
        EvidenceAuthor.evidence_id == Evidence.id, EvidenceAuthor.person_id == work.actor.id
    )
    if not work.actor.organisations:
        return mine
    ours = and_(
        Evidence.organisation_id.in_(sorted(work.actor.organisations)),
        Evidence.state != State.DRAFT,
    )
    return or_(mine, ours)


def _holders_own(work: Work) -> ColumnElement[bool] | None:
    """Return what the caller sees as somebody known; None for nobody, or too narrow a token."""
    scopes = work.actor.scopes
    if not work.actor.is_human or not (scopes is None or scopes & {"all", "read"}):
        return None
    held = held_digests(work, person_id=work.actor.id, organisations=work.actor.organisations)
    own = _own(work)
    if not held:
        return own
    about = and_(Evidence.state == State.ACCEPTED, Evidence.subject_sha256.in_(sorted(held)))
    return or_(own, about)


def visible(work: Work) -> ColumnElement[bool] | None:
    """Return the condition on evidence that the caller may see; None when all of it."""
    if reads_all(work):
        return None
    own = _holders_own(work)
    shown = _shown_to_all(work)
    return shown if own is None else or_(own, shown)


def load_visible(work: Work, evidence_id: str) -> EvidenceRow:
    """Return evidence that the caller may see, without people's names where they may not be known.

    Raises:
        Unauthenticated: nobody is known, and all may not see it, if it is there at all.
        NotFound: there is none, or the caller may not know of it.
    """
    row = None
    if storable(evidence_id):
        statement = EVIDENCE.where(Evidence.id == evidence_id)
        may = visible(work)
        if may is not None:
            statement = statement.where(may)
        found = work.session.execute(statement).one_or_none()
        row = EvidenceRow(*found) if found else None
    if row is None and not work.actor.known:
        raise Unauthenticated(
            "There is no evidence of that id that is shown to all.",
            reason="evidence.not-public",
            next_step="Send an API token as a bearer token.",
        )
    if row is None:
        raise NotFound(f"There is no evidence {evidence_id!r}.", reason="evidence.unknown")
    return row


def knows_people(work: Work, row: EvidenceRow, authors: Collection[str]) -> bool:
    """Tell whether the caller may learn which people wrote and judged this evidence."""
    return (
        reads_all(work)
        or work.actor.id in authors
        or (row.organisation_id is not None and row.organisation_id in work.actor.organisations)
    )


def without_people(row: EvidenceRow) -> EvidenceRow:
    """Return the row as it may be shown to all: no person, no partner, no reason of staff."""
    return replace(
        row,
        created_by="",
        accepted_by=None,
        public_approved_by=None,
        organisation_id=None,
        supersedes_id=None,
        state_reason="",
    )


def files_of(work: Work, row: EvidenceRow) -> tuple[AttachmentRow, ...]:
    """Return the files of evidence the caller sees; the public needs somebody's approval for them.

    That an applied promotion used it shows its figures to all, and not what is attached.
    """
    if row.public_approved_at is None and _seen_only_as_public(work, row):
        return ()
    return tuple(queries.attachments_of(work, row.id))


def _seen_only_as_public(work: Work, row: EvidenceRow) -> bool:
    if reads_all(work):
        return False
    own = _holders_own(work)
    if own is None:
        return True
    statement = select(Evidence.id).where(Evidence.id == row.id, own)
    return work.session.execute(statement).first() is None


def show_evidence(work: Work, evidence_id: str) -> EvidencePage:
    """Return everything about a piece of evidence that the caller may know.

    Raises:
        NotFound: there is none, or the caller may not know of it.
    """
    row = load_visible(work, evidence_id)
    authors = queries.authors_of(work, [row.id])[row.id]
    open_to = knows_people(work, row, authors)
    figures = precisions_of(row)
    return EvidencePage(
        evidence=row if open_to else without_people(row),
        authors=tuple(sorted(authors)) if open_to else (),
        organisation=queries.organisation_name(work, row.organisation_id) if open_to else None,
        events=tuple(queries.events_of(work, row.id)) if open_to else (),
        attachments=tuple(
            one if open_to else replace(one, added_by="") for one in files_of(work, row)
        ),
        precision=figures,
        beside=beside(row),
        superseded_by=_superseded_by(work, row) if open_to else None,
        seen_sha256=seen_sha256(work, row) if reads_all(work) else "",
    )


def _superseded_by(work: Work, row: EvidenceRow) -> str | None:
    statement = select(Evidence.id).where(
        Evidence.supersedes_id == row.id, Evidence.accepted_at.is_not(None)
    )
    return work.session.execute(statement.order_by(Evidence.accepted_at)).scalars().first()


def precisions_of(row: EvidenceRow) -> tuple[Precision, ...]:
    """Return what a detector's alarm is worth; nothing for other evidence."""
    if row.type != _DETECTOR_TYPE:
        return ()
    return precisions(row.metric, row.value, row.companions, row.conditions.get("base_rate"))


def beside(row: EvidenceRow) -> tuple[str, ...]:
    """Return the sentences that stand beside a claim wherever it is shown."""
    said = [describe_precision(one) for one in precisions_of(row)]
    if row.fact_status == "reported":
        said.append("Reported by its source; the primary record was not read here.")
    elif row.fact_status == "recalled":
        said.append("Not established: nobody has re-checked it.")
    if row.caveat:
        said.append(row.caveat)
    return tuple(said)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to list: each field narrows."""

    state: str | None = None
    type: str | None = None
    metric: str | None = None
    subject: str | None = None
    organisation: str | None = None


def list_evidence(
    work: Work, wanted: Wanted | None = None, *, limit: int = 50, after: str | None = None
) -> list[EvidenceRow]:
    """Return at most ``limit`` pieces of evidence the caller may see, entered before ``after``.

    Newest first; ``after`` is the id of the last one seen.

    Raises:
        Invalid: a state or type that does not exist.
    """
    wanted = wanted or Wanted()
    _check_wanted(wanted)
    statement = _narrow(EVIDENCE, wanted).order_by(Evidence.id.desc()).limit(limit)
    if after is not None:
        if not storable(after):
            return []
        statement = statement.where(Evidence.id < after)
    may = visible(work)
    if may is not None:
        if wanted.organisation not in (None, *work.actor.organisations):
            return []  # whose evidence it is, is not for all to ask
        statement = statement.where(may)
    rows = [EvidenceRow(*row) for row in work.session.execute(statement)]
    if may is None:
        return rows
    authors = queries.authors_of(work, [row.id for row in rows])
    return [
        row if knows_people(work, row, authors[row.id]) else without_people(row) for row in rows
    ]


def _narrow(statement: Select[Any], wanted: Wanted) -> Select[Any]:
    for col, value in (
        (Evidence.state, wanted.state),
        (Evidence.type, wanted.type),
        (Evidence.metric, wanted.metric),
        (Evidence.subject_sha256, wanted.subject),
        (Evidence.organisation_id, wanted.organisation),
    ):
        if value is not None:
            statement = statement.where(col == value)
    return statement


def _check_wanted(wanted: Wanted) -> None:
    for name, value, known in (
        ("state", wanted.state, tuple(State)),
        ("type", wanted.type, tuple(TYPES)),
    ):
        if value is not None and value not in known:
            sentence = f"A {name} is one of {', '.join(known)}."
            raise Invalid(sentence, reason="evidence.list", fields=[FieldError(name, sentence)])
    for name in ("metric", "subject", "organisation"):
        value = getattr(wanted, name)
        if value is not None and not storable(value):
            sentence = f"That cannot be the {name} of any evidence."
            raise Invalid(sentence, reason="evidence.list", fields=[FieldError(name, sentence)])

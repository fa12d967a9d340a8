"""The page of facts of a promotion request: every gate with its evidence, and who may decide."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import or_, select
from sqlalchemy.orm import aliased

from stagerelease.db.work import Work
from stagerelease.evidence.facts import EvidenceFact
from stagerelease.identity.rules import Permission, require
from stagerelease.identity.tables import Person, RoleAssignment
from stagerelease.releases import facts, rules
from stagerelease.releases.facts import DeciderRow, FactsPage, NamedEvidenceRow
from stagerelease.releases.gates import (
    ApprovalFact,
    Facts,
    evaluate,
    not_counting,
    why_not_counted,
    words,
)

MOST = 200  # rows of people, and of evidence not named: the page is read by a person


def facts_page(work: Work, promotion_id: int) -> FactsPage:
    """Return a request with every gate, everything that blocks it, and who said and may say what.

    Raises:
        NotFound: there is no such request.
    """
    require(work.actor, Permission.PROMOTION_READ)
    known = facts.gather_all(work, promotion_id)
    seen = known.facts
    results = evaluate(seen)
    return FactsPage(
        promotion=known.promotion,
        track=known.track,
        gates=results,
        blockers=rules.blockers(seen, results),
        approvals=known.approvals,
        judgements=known.judgements,
        holds=tuple(hold for hold in known.holds if hold.lifted_at is None),
        waivers=known.waivers,
        evidence=_evidence(work, known),
        deciders=_deciders(work, seen),
    )


def _evidence(work: Work, known: facts.Gathered) -> tuple[NamedEvidenceRow, ...]:
    """Return what the request names, then accepted evidence about its track that it leaves out."""
    seen = known.facts
    named = {found.id for found in seen.evidence}
    left_out = [
        found
        for found in facts.about(work, known.track, subjects=seen.subjects)
        if found.id not in named and found.state == "accepted"
    ]
    rows = [_row(found, seen, named=True) for found in seen.evidence]
    return tuple(rows + [_row(found, seen, named=False) for found in left_out[:MOST]])


def _row(found: EvidenceFact, seen: Facts, *, named: bool) -> NamedEvidenceRow:
    why = not_counting(found, seen) if named else "The request does not name it."
    return NamedEvidenceRow(
        id=found.id,
        type=found.type,
        title=found.title,
        metric=found.metric,
        value=found.value,
        unit=found.unit,
        verdict=found.verdict,
        fact_status=found.fact_status,
        state=found.state,
        measured_at=found.measured_at,
        valid_until=found.valid_until,
        age=words(seen.at - found.measured_at),
        named=named,
        counts=why is None,
        why=why or "It counts.",
    )


def _deciders(work: Work, seen: Facts) -> tuple[DeciderRow, ...]:
    """Return who holds a role of the quorum now: who may still approve, who may not, and why."""
    giver = aliased(Person)
    rows = work.session.execute(
        select(
            *(Person.id, Person.handle, Person.kind, Person.disabled_at),
            *(RoleAssignment.role, RoleAssignment.starts_at, giver.handle),
        )
        .join(RoleAssignment, RoleAssignment.person_id == Person.id)
        .outerjoin(giver, giver.id == RoleAssignment.given_by)
        .where(
            RoleAssignment.role.in_(seen.target.quorum.roles),
            RoleAssignment.starts_at <= work.now,
            or_(RoleAssignment.ends_at.is_(None), RoleAssignment.ends_at > work.now),
        )
        .order_by(Person.handle, RoleAssignment.role)
        .limit(MOST)
    )
    people: dict[str, ApprovalFact] = {}
    given: dict[str, tuple[datetime, str | None]] = {}
    for person_id, handle, kind, disabled_at, role, since, by in rows:
        if person_id not in given or given[person_id][0] < since:
            given[person_id] = since, by
        held = people[person_id].roles if person_id in people else frozenset()
        people[person_id] = ApprovalFact(
            person_id=person_id,
            name=handle,
            request_hash=seen.request_hash,
            human=kind == "human",
            disabled=disabled_at is not None,
            roles=held | {role},
        )
    return tuple(_decider(seen, person, *given[person.person_id]) for person in people.values())


def _decider(
    seen: Facts, person: ApprovalFact, since: datetime, given_by: str | None
) -> DeciderRow:
    why = why_not_counted(seen, person)
    if why is None and any(
        given.person_id == person.person_id and given.request_hash == seen.request_hash
        for given in seen.approvals
    ):
        why = "Has approved this request already."
    return DeciderRow(
        person_id=person.person_id,
        person=person.name,
        roles=tuple(sorted(person.roles)),
        since=since,
        given_by=given_by,
        may=why is None,
        why=why or "May approve.",
    )

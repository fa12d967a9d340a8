"""Changing a plan takes two people: one proposes a source, another consents to exactly that one.

A plan decides who will be let in, so a changed plan is as grave as a promotion. Shipped plans,
unchanged, need nobody: they came with the product and say what they say to everyone. Over one that
people changed, a shipped plan is a change like any other: it would undo what two consented to.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.identity.rules import ROLE_PERMISSIONS, Permission, Role, require
from stagerelease.identity.tables import Person
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.clock import iso
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import Conflict, Invalid, NotFound, Stale
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.releases import queries
from stagerelease.releases.differing import Change, differences
from stagerelease.releases.humans import accountable
from stagerelease.releases.people import Standing, standing
from stagerelease.releases.planning import all_shipped, is_shipped, record_version
from stagerelease.releases.plans import parse_plan
from stagerelease.releases.queries import MAX_ID, PlanRow
from stagerelease.releases.rules import check_text
from stagerelease.releases.tables import PlanConsent, PlanProposal

CONSENTS = 2
"""People behind a changed plan, its proposer among them when that is a person."""

_MAY_PROPOSE = frozenset(r for r in Role if Permission.PLAN_APPLY in ROLE_PERMISSIONS[r])
_MAY_CONSENT = frozenset(r for r in Role if Permission.PLAN_CONSENT in ROLE_PERMISSIONS[r])

LIFETIME = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class ConsentRow:
    """One person's consent."""

    person_id: str
    person: str
    comment: str
    at: datetime
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class ProposalRow:
    """A proposed plan: its source, what it changes, and who stands behind it."""

    id: int
    slug: str
    base_version: int | None
    sha256: str
    source: str
    rationale: str
    proposed_by: str
    state: str
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    plan_version_id: str | None
    leaf_idx: int
    changes: tuple[Change, ...]
    consents: tuple[ConsentRow, ...]
    missing: int


def propose_plan(work: Work, source: str, *, rationale: str) -> ProposalRow:
    """Propose a source as the next version of the plan it names.

    One that comes with the product is so at once, unless people made a version of that plan.

    Raises:
        Invalid: it is not a plan (``fields`` names every mistake), or no rationale is given.
        Conflict: it says what the newest version says.
    """
    require(work.actor, Permission.PLAN_APPLY)
    rationale = check_text(rationale, "rationale")
    plan = parse_plan(source)
    newest = queries.find_plan(work, plan.slug)
    digest = sha256_hex(source.encode())
    if newest is not None and newest.sha256 == digest:
        raise Conflict(
            f"This is version {newest.version} of {plan.slug} already.", reason="plan.unchanged"
        )
    proposal = PlanProposal(
        slug=plan.slug,
        base_version=newest.version if newest else None,
        source=source,
        sha256=digest,
        rationale=rationale,
        proposed_by=work.actor.id,
        state="pending",
        created_at=work.now,
        expires_at=work.now + LIFETIME,
        leaf_idx=-1,
    )
    work.session.add(proposal)
    work.session.flush()  # its number is given by the database
    proposal.leaf_idx = ledger.append(
        work,
        type="plan.proposed",
        subject=f"plan_proposal:{proposal.id}",
        new_state="pending",
        detail={"slug": plan.slug, "sha256": digest, "rationale": rationale},
    )
    if is_shipped(source) and all_shipped(work, plan.slug):
        _apply(work, proposal)
    else:
        emit(
            work,
            "plan.proposed",
            subject=f"plan_proposal:{proposal.id}",
            roles=("reviewer", "release_manager"),
            facts={"slug": plan.slug, "title": plan.title, "rationale": rationale},
        )
    work.session.flush()
    return _row(work, proposal)


def _lock(work: Work, proposal_id: int) -> PlanProposal:
    found = None
    if 0 < proposal_id <= MAX_ID:
        found = work.session.execute(
            select(PlanProposal).where(PlanProposal.id == proposal_id).with_for_update()
        ).scalar_one_or_none()
    if found is None:
        raise NotFound(f"There is no plan proposal {proposal_id}.", reason="proposal.unknown")
    return found


def _check_pending(work: Work, proposal: PlanProposal) -> None:
    if proposal.state != "pending" or work.now >= proposal.expires_at:
        state = proposal.state if proposal.state != "pending" else "expired"
        raise Conflict(
            f"The plan proposal is {state}.",
            reason=f"proposal.{state}",
            next_step="Propose the plan again.",
        )


def _moved_on(slug: str) -> Stale:
    return Stale(
        f"{slug} has a newer version than the one this proposal changes.",
        reason="proposal.base",
        next_step="Propose it again, on top of the newest version.",
    )


def consent_to_plan(work: Work, proposal_id: int, *, sha256: str, comment: str = "") -> ProposalRow:
    """Consent to a proposed source; with enough people behind it, it is the next version at once.

    ``sha256`` is that of the source the consenter read. Proposer and consenters count while they
    may still do what they did.

    Raises:
        Forbidden: not a person, or not allowed.
        Stale: another source than the one proposed, or the plan has moved on since.
        Conflict: the proposer, somebody who consented already, or a proposal that is over.
    """
    require(work.actor, Permission.PLAN_CONSENT)
    comment = check_text(comment, "comment", required=False)
    proposal = _lock(work, proposal_id)
    person = accountable(work, "consent to a plan")
    before = {consent.person_id for consent in _consents(work, proposal)}
    who = standing(work, sorted({proposal.proposed_by, person, *before}), lock=True)
    _check_pending(work, proposal)
    if sha256 != proposal.sha256:
        raise Stale("The proposal is of another source.", reason="proposal.source")
    if person == proposal.proposed_by:
        raise Conflict(
            "You proposed this plan; somebody else has to consent.", reason="proposal.own"
        )
    newest = queries.find_plan(work, proposal.slug)
    if (newest.version if newest else None) != proposal.base_version:
        raise _moved_on(proposal.slug)
    leaf = ledger.append(
        work,
        type="plan.consented",
        subject=f"plan_proposal:{proposal.id}",
        detail={"sha256": sha256, "comment": comment},
    )
    work.session.add(
        PlanConsent(
            id=new_id("pcn"),
            proposal_id=proposal.id,
            person_id=person,
            sha256=sha256,
            comment=comment,
            at=work.now,
            leaf_idx=leaf,
        )
    )
    work.session.flush()  # a second consent of the same person shows here
    if _missing(proposal, {*before, person}, who) == 0:
        _apply(work, proposal)
    return _row(work, proposal)


def _apply(work: Work, proposal: PlanProposal) -> PlanRow:
    applied = record_version(work, proposal.source)
    if applied.version != (proposal.base_version or 0) + 1:  # another was applied this moment
        raise _moved_on(proposal.slug)
    proposal.state = "applied"
    proposal.ended_at = work.now
    proposal.plan_version_id = applied.id
    emit(
        work,
        "plan.applied",
        subject=f"plan:{applied.slug}:{applied.version}",
        roles=("reviewer", "release_manager", "auditor"),
        facts={"slug": applied.slug, "version": applied.version, "sha256": applied.sha256},
    )
    work.session.flush()
    return applied


def cancel_proposal(work: Work, proposal_id: int, *, reason: str) -> ProposalRow:
    """End a pending proposal; whoever may propose plans may end one."""
    require(work.actor, Permission.PLAN_APPLY)
    reason = check_text(reason, "reason")
    proposal = _lock(work, proposal_id)
    _check_pending(work, proposal)
    proposal.state, proposal.ended_at = "cancelled", work.now
    ledger.append(
        work,
        type="plan.cancelled",
        subject=f"plan_proposal:{proposal.id}",
        prev_state="pending",
        new_state="cancelled",
        detail={"reason": reason},
    )
    work.session.flush()
    return _row(work, proposal)


def expire_proposals(work: Work) -> int:
    """End the proposals whose time is over, one log entry each; return how many."""
    require(work.actor, Permission.PLAN_APPLY)
    due = work.session.scalars(
        select(PlanProposal)
        .where(PlanProposal.state == "pending", PlanProposal.expires_at <= work.now)
        .order_by(PlanProposal.id)
        .with_for_update(skip_locked=True)
    ).all()
    for proposal in due:
        proposal.state, proposal.ended_at = "expired", work.now
        ledger.append(
            work,
            type="plan.expired",
            subject=f"plan_proposal:{proposal.id}",
            prev_state="pending",
            new_state="expired",
            detail={"expired_at": iso(proposal.expires_at)},
        )
    return len(due)


def proposals_due(work: Work) -> bool:
    """Tell whether a proposal's time is over that nobody has said so of."""
    require(work.actor, Permission.PLAN_APPLY)
    statement = select(PlanProposal.id).where(
        PlanProposal.state == "pending", PlanProposal.expires_at <= work.now
    )
    return work.session.execute(statement.limit(1)).first() is not None


def show_proposal(work: Work, proposal_id: int) -> ProposalRow:
    """Return a proposal with what it changes to somebody who may read plans."""
    require(work.actor, Permission.PLAN_READ)
    found = work.session.get(PlanProposal, proposal_id) if 0 < proposal_id <= MAX_ID else None
    if found is None:
        raise NotFound(f"There is no plan proposal {proposal_id}.", reason="proposal.unknown")
    return _row(work, found)


def list_proposals(work: Work, *, state: str | None = None) -> list[ProposalRow]:
    """Return proposals, newest first, to somebody who may read plans.

    Raises:
        Invalid: there is no such state.
    """
    require(work.actor, Permission.PLAN_READ)
    if state is not None and state not in ("pending", "applied", "cancelled", "expired"):
        raise Invalid(f"There is no state {state!r}.", reason="proposal.state")
    statement = select(PlanProposal).order_by(PlanProposal.id.desc()).limit(500)
    if state is not None:
        statement = statement.where(PlanProposal.state == state)
    return [_row(work, proposal) for proposal in work.session.scalars(statement)]


def _consents(work: Work, proposal: PlanProposal) -> tuple[ConsentRow, ...]:
    rows = work.session.execute(
        select(
            PlanConsent.person_id,
            Person.handle,
            PlanConsent.comment,
            PlanConsent.at,
            PlanConsent.leaf_idx,
        )
        .join(Person, Person.id == PlanConsent.person_id)
        .where(PlanConsent.proposal_id == proposal.id)
        .order_by(PlanConsent.leaf_idx)
    )
    return tuple(ConsentRow(*row) for row in rows)


def _missing(proposal: PlanProposal, consenters: Collection[str], who: dict[str, Standing]) -> int:
    """Return how many more people have to consent, as those behind it stand now.

    A shell on the host, or a machine, is nobody who answers for a plan; nor is somebody whose
    account is disabled, or who may not propose, or consent, any more.
    """

    def counts(person_id: str, roles: frozenset[Role]) -> bool:
        _, human, disabled, held = who.get(person_id, ("", False, True, frozenset()))
        return human and not disabled and bool(held & roles)

    behind = sum(counts(person_id, _MAY_CONSENT) for person_id in consenters)
    return max(CONSENTS - behind - counts(proposal.proposed_by, _MAY_PROPOSE), 0)


def _still_missing(work: Work, proposal: PlanProposal, consents: Collection[ConsentRow]) -> int:
    if proposal.state != "pending":
        return 0
    people = {consent.person_id for consent in consents}
    return _missing(proposal, people, standing(work, sorted({proposal.proposed_by, *people})))


def _row(work: Work, proposal: PlanProposal) -> ProposalRow:
    base = (
        queries.find_plan(work, proposal.slug, proposal.base_version)
        if proposal.base_version
        else None
    )
    changes = (
        differences(parse_plan(base.source), parse_plan(proposal.source))
        if base is not None
        else ()
    )
    consents = _consents(work, proposal)
    return ProposalRow(
        id=proposal.id,
        slug=proposal.slug,
        base_version=proposal.base_version,
        sha256=proposal.sha256,
        source=proposal.source,
        rationale=proposal.rationale,
        proposed_by=proposal.proposed_by,
        state=proposal.state,
        created_at=proposal.created_at,
        expires_at=proposal.expires_at,
        ended_at=proposal.ended_at,
        plan_version_id=proposal.plan_version_id,
        leaf_idx=proposal.leaf_idx,
        changes=changes,
        consents=consents,
        missing=_still_missing(work, proposal, consents),
    )

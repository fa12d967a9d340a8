"""What people are at the instant of a decision, and what their words are worth by it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.identity.rules import ROLE_PERMISSIONS, Permission, Role
from stagerelease.identity.tables import Person, RoleAssignment
from stagerelease.releases.gates import ApprovalFact, JudgementFact, SignerFact, WaiverFact
from stagerelease.releases.requests import ApprovalRow, JudgementRow
from stagerelease.releases.waiver_rows import WaiverRow

MAY_WAIVE = frozenset(r for r in Role if Permission.WAIVER_SIGN in ROLE_PERMISSIONS[r])
MAY_DECIDE = frozenset(r for r in Role if Permission.PROMOTION_DECIDE in ROLE_PERMISSIONS[r])
Standing = tuple[str, bool, bool, frozenset[str]]


def standing(work: Work, person_ids: Collection[str], *, lock: bool = False) -> dict[str, Standing]:
    """Return ``(handle, human, disabled, roles at work.now)`` of people.

    ``lock`` keeps their accounts and roles as they are until this Work ends, so that a role cannot
    end between being read here and the decision that rests on it. One that ended while the lock was
    waited for is over: the clock is read again once it is held.
    """
    people = select(Person.id, Person.handle, Person.kind, Person.disabled_at).where(
        Person.id.in_(person_ids)
    )
    roles = select(
        RoleAssignment.person_id,
        RoleAssignment.role,
        RoleAssignment.starts_at,
        RoleAssignment.ends_at,
    ).where(RoleAssignment.person_id.in_(person_ids))
    if lock:
        people = people.order_by(Person.id).with_for_update(read=True)
        roles = roles.order_by(RoleAssignment.id).with_for_update(read=True)
    accounts = work.session.execute(people).all()
    assigned = work.session.execute(roles).all()
    if lock:
        work.refresh_now()
    held: dict[str, set[str]] = {}
    for person_id, role, starts_at, ends_at in assigned:
        if starts_at <= work.now and (ends_at is None or ends_at > work.now):
            held.setdefault(person_id, set()).add(role)
    return {
        p.id: (
            p.handle,
            p.kind == "human",
            p.disabled_at is not None,
            frozenset(held.get(p.id, ())),
        )
        for p in accounts
    }


def approval_facts(
    approvals: Sequence[ApprovalRow], who: dict[str, Standing]
) -> tuple[ApprovalFact, ...]:
    """Return the approvals among these verdicts, each with what its giver is now."""
    return tuple(
        ApprovalFact(
            person_id=given.person_id,
            name=who[given.person_id][0],
            request_hash=given.request_hash,
            human=who[given.person_id][1],
            disabled=who[given.person_id][2],
            roles=who[given.person_id][3],
        )
        for given in approvals
        if given.verdict == "approve"
    )


def judgement_facts(
    judgements: Sequence[JudgementRow], who: dict[str, Standing]
) -> tuple[JudgementFact, ...]:
    """Return the answers to gates, each with what its giver is now."""
    return tuple(
        JudgementFact(
            gate=said.gate,
            request_hash=said.request_hash,
            person_id=said.person_id,
            passed=said.passed,
            reason=said.reason,
            human=who[said.person_id][1],
            disabled=who[said.person_id][2],
            entitled=bool(who[said.person_id][3] & MAY_DECIDE),
        )
        for said in judgements
    )


def waiver_facts(waivers: Sequence[WaiverRow], who: dict[str, Standing]) -> tuple[WaiverFact, ...]:
    """Return the waivers that two people signed, each signer with what they are now."""
    return tuple(
        WaiverFact(
            id=waiver.id,
            stage=waiver.stage,
            gate=waiver.gate,
            reason=waiver.reason,
            since=waiver.signed_at,
            until=waiver.until,
            signers=tuple(
                SignerFact(
                    person_id=signature.person_id,
                    name=who[signature.person_id][0],
                    human=who[signature.person_id][1],
                    disabled=who[signature.person_id][2],
                    entitled=bool(who[signature.person_id][3] & MAY_WAIVE),
                )
                for signature in waiver.signatures
            ),
        )
        for waiver in waivers
        if waiver.signed_at is not None
    )

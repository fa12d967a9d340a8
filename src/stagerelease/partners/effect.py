"""A signature comes into force: it takes the place of the party's older ones, and grants follow it.

Two acts lead here: signing a text that asks for no countersignature, and countersigning one that
does. Every row that changes is locked by the caller, through the functions here, before the log is.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, select

from stagerelease.db.work import Work
from stagerelease.ledger import service as ledger
from stagerelease.partners.consenting import activate_pending
from stagerelease.partners.moving import lock_grants, move, note, standing_if_active
from stagerelease.partners.queries import AgreementVersionRow
from stagerelease.partners.rules import LASTING, LIVE, GrantState, SignatureState, Suspension
from stagerelease.partners.stops import stopped_since
from stagerelease.partners.tables import AgreementVersion, Grant, Signature


def lock_version_state(work: Work, version_id: str) -> str:
    """Return the state of an agreement version, kept so until this Work ends."""
    return work.session.execute(
        select(AgreementVersion.state)
        .where(AgreementVersion.id == version_id)
        .with_for_update(key_share=True)  # two signatures of one party come one after the other
    ).scalar_one()


def lock_party(work: Work, version: AgreementVersionRow, of: Signature) -> list[Signature]:
    """Return every signature of the same party on any version of the agreement, locked."""
    party: ColumnElement[bool] = and_(
        Signature.person_id == of.person_id, Signature.organisation_id.is_(None)
    )
    if of.organisation_id is not None:
        party = Signature.organisation_id == of.organisation_id
    rows = work.session.execute(
        select(Signature)
        .join(AgreementVersion, AgreementVersion.id == Signature.agreement_version_id)
        .where(AgreementVersion.agreement_id == version.agreement_id, party)
        .order_by(Signature.id)
        .with_for_update(of=Signature, key_share=True)
        .execution_options(populate_existing=True)
    )
    return list(rows.scalars())


def on_newer_versions(
    work: Work, version: AgreementVersionRow, party: Sequence[Signature]
) -> list[Signature]:
    """Return those of a party's signatures that are on a later version than this one."""
    later = set(
        work.session.scalars(
            select(AgreementVersion.id).where(
                AgreementVersion.agreement_id == version.agreement_id,
                AgreementVersion.version > version.version,
            )
        )
    )
    return [signature for signature in party if signature.agreement_version_id in later]


def lock_affected(
    work: Work, version: AgreementVersionRow, new: Signature, older: Sequence[Signature]
) -> list[Grant]:
    """Return the live grants that rest on the older signatures or wait for the new one, locked."""
    party = Grant.person_id == new.person_id
    if new.organisation_id is not None:
        party = Grant.organisation_id == new.organisation_id
    lasts = Grant.valid_until > work.now  # what is over by its date is left as it was
    waiting = and_(
        party, Grant.state == GrantState.PENDING, Grant.awaits_agreement == version.agreement
    )
    resting = and_(Grant.signature_id.in_([s.id for s in older]), Grant.state.in_(sorted(LIVE)))
    return lock_grants(work, lasts & (waiting | resting))


def bring_in_force(
    work: Work, new: Signature, older: Sequence[Signature], grants: Sequence[Grant]
) -> None:
    """Put ``new``, which is logged as in force, in the place of ``older``; move ``grants`` to it.

    Grants that were suspended only because the new version was not signed in time count again:
    no person's decision is lifted there, for the one condition they waited for is met. Those that
    only waited for this signature begin, unless their grantee was stopped while they waited: that
    takes a second person's consent. Others that are suspended stay so.
    """
    _supersede(work, older, by=new)
    for grant in [g for g in grants if g.awaits_agreement is not None]:
        _begin_signed(work, grant, new)
    for grant in [g for g in grants if g.signature_id != new.id]:
        grant.signature_id = new.id
        note(
            work,
            grant,
            event="signature_renewed",
            before=grant.state,
            reason=f"It rests on the signature {new.id} now.",
            detail={"signature": new.id},
        )
        waited = grant.suspended_for == Suspension.RECONSENT
        if waited and standing_if_active(work, grant.id).active:
            move(
                work,
                grant,
                GrantState.ACTIVE,
                event="resumed",
                reason="The new version of the agreement is signed.",
            )


def _begin_signed(work: Work, grant: Grant, new: Signature) -> None:
    grant.signature_id, grant.awaits_agreement = new.id, None
    if not grant.awaits_consent and stopped_since(work, grant):
        grant.awaits_consent = True
        note(
            work,
            grant,
            event="consent_asked",
            before=grant.state,
            reason="Access was stopped while it waited: a second person has to consent.",
        )
    activate_pending(work, grant)


def _supersede(work: Work, older: Sequence[Signature], *, by: Signature) -> None:
    for signature in older:
        if signature.state not in LASTING or signature.id == by.id:
            continue
        before = signature.state
        signature.state = SignatureState.SUPERSEDED
        signature.ended_at = work.now
        ledger.append(
            work,
            type="signature.superseded",
            subject=f"signature:{signature.id}",
            prev_state=before,
            new_state=SignatureState.SUPERSEDED,
            detail={"by": by.id},
        )

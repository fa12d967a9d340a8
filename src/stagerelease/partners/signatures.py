"""Signatures after they were made: shown, countersigned, ended; and what that does to grants."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.actor import Actor
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, Forbidden, NotFound
from stagerelease.ledger import service as ledger
from stagerelease.partners import queries
from stagerelease.partners.effect import (
    bring_in_force,
    lock_affected,
    lock_party,
    lock_version_state,
    on_newer_versions,
)
from stagerelease.partners.moving import require_known, suspend_for_terms
from stagerelease.partners.queries import SignatureRow
from stagerelease.partners.rules import ACCEPTED_VERSIONS, SIGNATURE_MOVES, SignatureState
from stagerelease.partners.tables import Signature
from stagerelease.releases.humans import accountable
from stagerelease.releases.rules import check_text


def counts(work: Work, signature: Signature) -> bool:
    """Tell whether a signature is in force now."""
    return signature.state == SignatureState.IN_FORCE and (
        signature.valid_until is None or signature.valid_until > work.now
    )


def awaits_countersignature(work: Work, signature: Signature) -> bool:
    """Tell whether a countersignature given now would bring a signature in force."""
    ends = (signature.valid_until, signature.reconsent_until)
    return signature.state == SignatureState.PENDING and all(
        end is None or end > work.now for end in ends
    )


def load_signature(work: Work, signature_id: str) -> SignatureRow:
    """Return a signature by its id.

    Raises:
        NotFound: there is none.
    """
    row = queries.find_signature(work, signature_id)
    if row is None:
        raise NotFound(f"There is no signature {signature_id!r}.", reason="signature.unknown")
    return row


def _may_see(actor: Actor, signature: SignatureRow) -> bool:
    if authorize(actor, Permission.AGREEMENT_READ).allowed:
        return True
    return actor.is_human and (
        signature.person_id == actor.id or signature.organisation_id in actor.organisations
    )


def show_signature(work: Work, signature_id: str) -> SignatureRow:
    """Return a signature to staff, to who made it, and to the organisation it binds.

    Raises:
        Unauthenticated: nobody is known.
        NotFound: there is none, or the caller may not know of it.
    """
    require_known(work.actor)
    row = queries.find_signature(work, signature_id)
    if row is None or not _may_see(work.actor, row):
        raise NotFound(f"There is no signature {signature_id!r}.", reason="signature.unknown")
    return row


def list_signatures(work: Work) -> list[SignatureRow]:
    """Return signatures, newest first: all to staff, to others those they may know of.

    Raises:
        Unauthenticated: nobody is known.
    """
    require_known(work.actor)
    if authorize(work.actor, Permission.AGREEMENT_READ).allowed:
        return queries.list_signatures(work)
    return queries.list_signatures(
        work, person_id=work.actor.id, organisation_ids=work.actor.organisations
    )


# --- after signing -------------------------------------------------------------------------------


def _lock(work: Work, signature_id: str) -> Signature:
    return work.session.execute(
        select(Signature)
        .where(Signature.id == signature_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).scalar_one()


def countersign(work: Work, signature_id: str) -> SignatureRow:
    """Sign for the publisher beside a signature in force, or bring a pending one in force by it.

    A pending one takes the place of the party's older signatures (``effect.bring_in_force``).

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Forbidden: not a human, or the signer themselves or of the same organisation.
        Conflict: it has ended, its time to be signed again is over, its version is not accepted any
            more, it is countersigned already, or the party has signed a later version.
    """
    row = show_signature(work, signature_id)
    require(work.actor, Permission.AGREEMENT_PUBLISH)
    me = accountable(work, "countersign")
    if row.person_id == me or row.organisation_id in work.actor.organisations:
        raise Forbidden(
            "Nobody signs for both sides of an agreement.",
            reason="signature.both-sides",
            next_step="Ask another access officer.",
        )
    version = queries.find_version(work, row.agreement_version_id)
    if version is None:
        raise NotFound("There is no such agreement version.", reason="agreement.unknown")
    state = lock_version_state(work, version.id)
    party = lock_party(work, version, _peek(work, row.id))
    signature = next(one for one in party if one.id == row.id)
    _check_countersignable(work, signature, state)
    begins = signature.state == SignatureState.PENDING
    newer = on_newer_versions(work, version, party)
    if begins:
        _refuse_outdated(work, newer)
    older = [one for one in party if one.id != row.id and one not in newer] if begins else []
    grants = lock_affected(work, version, signature, older) if begins else []
    _countersign(work, signature, me)
    if begins:
        bring_in_force(work, signature, older, grants)
    effect = "It is in force now." if begins else "It was in force before."
    _tell(work, signature, "countersigned", effect=effect)
    work.session.flush()  # the row returned is read back
    return load_signature(work, row.id)


def _peek(work: Work, signature_id: str) -> Signature:
    """Return a signature that is known to exist, for the ids in it that never change."""
    return work.session.get_one(Signature, signature_id)


def _check_countersignable(work: Work, signature: Signature, version_state: str) -> None:
    if signature.countersigned_at is not None:
        raise Conflict("It is countersigned already.", reason="signature.countersigned")
    if counts(work, signature):
        return
    again = "Ask the party to sign the version in force."
    if signature.state != SignatureState.PENDING:
        raise Conflict(
            f"The signature is {signature.state}; it is not countersigned any more.",
            reason=f"signature.{signature.state}",
            next_step=again,
        )
    if version_state not in ACCEPTED_VERSIONS or not awaits_countersignature(work, signature):
        raise Conflict(
            "The signature waited too long: it has ended, or its text is not accepted any more.",
            reason="signature.late",
            next_step=again,
        )


def _refuse_outdated(work: Work, newer: Sequence[Signature]) -> None:
    """Return only if none of these later signatures waits or is in force: it says what holds now.

    Raises:
        Conflict: one does.
    """
    for other in newer:
        if counts(work, other) or awaits_countersignature(work, other):
            raise Conflict(
                f"The party has signed a later version: {other.id} "
                f"{'is in force' if counts(work, other) else 'waits for its countersignature'}.",
                reason="signature.newer",
                next_step="Countersign that one.",
            )


def _countersign(work: Work, signature: Signature, me: str) -> None:
    before = signature.state
    signature.state = SignatureState.IN_FORCE
    signature.countersigned_by = me
    signature.countersigned_at = work.now
    work.session.flush()  # a lost race shows before the log is locked
    signature.countersign_leaf_idx = ledger.append(
        work,
        type="signature.countersigned",
        subject=f"signature:{signature.id}",
        prev_state=before,
        new_state=signature.state,
        detail={
            "signature": signature.id,
            "person": me,
            "text_sha256": signature.text_sha256,
            "signed_leaf": signature.leaf_idx,
            "token": work.actor.token_id,
            "countersigned_at": iso(work.now),
        },
    )


def terminate_signature(work: Work, signature_id: str, reason: str) -> SignatureRow:
    """End a signature now; every grant that rests on it is suspended in the same transaction.

    Staff who may stop grants do this, and the party itself: who signed for themselves, or an
    administrator of the organisation.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Forbidden: they know of it, and may not end it.
        Conflict: it has ended already.
    """
    row = show_signature(work, signature_id)
    own = work.actor.is_human and (
        row.organisation_id in work.actor.administers
        if row.organisation_id is not None
        else row.person_id == work.actor.id
    )
    staff = authorize(work.actor, Permission.GRANT_STOP).allowed
    require(work.actor, Permission.AGREEMENT_SIGN if own and not staff else Permission.GRANT_STOP)
    reason = check_text(reason, "reason", limit=1000)
    signature = _lock(work, row.id)
    end_signature(work, signature, SignatureState.TERMINATED, reason=reason)
    return load_signature(work, row.id)


def end_signature(work: Work, signature: Signature, to: SignatureState, *, reason: str) -> None:
    """End a locked signature and suspend what rests on it.

    Raises:
        Conflict: it has ended already.
    """
    before = SignatureState(signature.state)
    if to not in SIGNATURE_MOVES[before]:
        raise Conflict(f"The signature is {before} already.", reason=f"signature.{before}")
    signature.state = to
    signature.ended_at = work.now
    suspended = suspend_for_terms(
        work,
        signature_ids=[signature.id],
        reason=f"The signature it rests on is {to}: {reason}",
    )
    ledger.append(
        work,
        type=f"signature.{to.value}",
        subject=f"signature:{signature.id}",
        prev_state=before.value,
        new_state=to.value,
        detail={"reason": reason, "suspended": list(suspended)},
    )
    _tell(work, signature, to.value, reason=reason)


def _tell(work: Work, signature: Signature, event: str, **facts: str) -> None:
    row = queries.find_signature(work, signature.id)
    if row is None:
        return
    emit(
        work,
        f"signature.{event}",
        subject=f"signature:{signature.id}",
        people=[signature.person_id],
        organisations=[signature.organisation_id] if signature.organisation_id else (),
        facts={
            "signature": row.id,
            "agreement": row.agreement,
            "version": row.version,
            "until": iso(row.valid_until) if row.valid_until else None,
            "link_path": f"/signatures/{row.id}",
            **facts,
        },
    )

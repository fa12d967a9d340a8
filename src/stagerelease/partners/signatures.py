"""Signatures after they were made: shown, countersigned, ended; and what that does to grants."""

from __future__ import annotations

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.actor import Actor
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, Forbidden, NotFound
from stagerelease.ledger import service as ledger
from stagerelease.partners import queries
from stagerelease.partners.moving import require_known, suspend_for_terms
from stagerelease.partners.queries import SignatureRow
from stagerelease.partners.rules import SIGNATURE_MOVES, SignatureState
from stagerelease.partners.tables import Signature
from stagerelease.releases.humans import accountable
from stagerelease.releases.rules import check_text


def counts(work: Work, signature: Signature) -> bool:
    """Tell whether a signature is in force now."""
    return signature.state == SignatureState.IN_FORCE and (
        signature.valid_until is None or signature.valid_until > work.now
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
    """Sign for the publisher beside a signature in force.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Forbidden: not a human, or the signer themselves or of the same organisation.
        Conflict: it is not in force, or countersigned already.
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
    signature = _lock(work, row.id)
    if not counts(work, signature):
        raise Conflict(
            f"The signature is {signature.state}; only one in force is countersigned.",
            reason=f"signature.{signature.state}",
        )
    if signature.countersigned_at is not None:
        raise Conflict("It is countersigned already.", reason="signature.countersigned")
    signature.countersigned_by = me
    signature.countersigned_at = work.now
    ledger.append(
        work,
        type="signature.countersigned",
        subject=f"signature:{signature.id}",
        prev_state=signature.state,
        new_state=signature.state,
        detail={"person": me, "text_sha256": signature.text_sha256, "token": work.actor.token_id},
    )
    _tell(work, signature, "countersigned")
    return load_signature(work, row.id)


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

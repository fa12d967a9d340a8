"""Announces ends that have passed. Nothing waits for this: every use compares with the clock."""

from __future__ import annotations

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.clock import iso
from stagerelease.partners.amending import reconsents_due, sweep_reconsents
from stagerelease.partners.moving import lock_grants
from stagerelease.partners.rules import LASTING, LIVE, SignatureState
from stagerelease.partners.signatures import end_signature
from stagerelease.partners.stopping import CAN_EXPIRE, expire_grants
from stagerelease.partners.tables import Grant, Signature

BATCH = 200
"""Rows moved in one Work, so that a sweep never holds the log for long."""


_GRANTS_OVER = Grant.state.in_(CAN_EXPIRE)
_SIGNATURES_OVER = Signature.state.in_(LASTING)


def sweep_due(work: Work) -> bool:
    """Tell whether any end has passed unannounced; asks without taking a lock."""
    over = (
        select(Grant.id).where(_GRANTS_OVER, Grant.valid_until <= work.now),
        select(Signature.id).where(_SIGNATURES_OVER, Signature.valid_until <= work.now),
    )
    ended = any(work.session.execute(s.limit(1)).first() is not None for s in over)
    return ended or reconsents_due(work)


def sweep_expired(work: Work) -> int:
    """Mark signatures and grants whose end has passed as expired, with events; return how many.

    Grants that rest on an expired signature are suspended. At most ``BATCH`` of each at a time.
    """
    require(work.actor, Permission.GRANT_STOP)
    rows = work.session.execute(
        select(Signature)
        .where(_SIGNATURES_OVER, Signature.valid_until <= work.now)
        .order_by(Signature.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True, key_share=True)
    )
    signatures = list(rows.scalars())
    over = select(Grant.id).where(_GRANTS_OVER, Grant.valid_until <= work.now)
    ids = work.session.execute(over.order_by(Grant.id).limit(BATCH)).scalars()
    # All grants that either end touches are locked at once, before the log is.
    resting = Grant.signature_id.in_([s.id for s in signatures]) & Grant.state.in_(sorted(LIVE))
    locked = lock_grants(work, Grant.id.in_(list(ids)) | resting)
    # Grants first: one that is over by its own date expires rather than being suspended.
    expired = expire_grants(work, locked)
    for signature in signatures:
        until = iso(signature.valid_until) if signature.valid_until else "its date"
        end_signature(work, signature, SignatureState.EXPIRED, reason=f"it ended at {until}.")
    return expired + len(signatures) + sweep_reconsents(work)

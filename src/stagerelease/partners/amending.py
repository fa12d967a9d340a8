"""When an agreement changes materially: by when to sign again, who is told, what stops if not.

The deadline is written on each signature that the new version outdates, so that use compares one
date with the clock (invariants 7, 8 and 9); the sweep only says what the clock has done.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, or_, select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.clock import iso, said
from stagerelease.kernel.errors import Invalid
from stagerelease.partners import queries
from stagerelease.partners.moving import suspend_all
from stagerelease.partners.renewing import word_changes
from stagerelease.partners.rules import (
    LASTING,
    LONGEST_RECONSENT,
    RECONSENT_WITHIN,
    GrantState,
    SignatureState,
    Suspension,
)
from stagerelease.partners.tables import Agreement, AgreementVersion, Grant, Signature
from stagerelease.partners.warning import WARNING_DAYS

BATCH = 200


@dataclass(frozen=True, slots=True)
class Amendment:
    """What changes from one version to another: unified lines, and runs of kept or changed words.

    ``words`` holds ``(keep | drop | add, text)``.
    """

    agreement: str
    old: int
    new: int
    material: bool
    lines: tuple[str, ...]
    words: tuple[tuple[str, str], ...]


def difference(
    agreement: str, old: tuple[int, str], new: tuple[int, str], *, material: bool
) -> Amendment:
    """Return what changes from one ``(version, text)`` to another."""
    lines = difflib.unified_diff(
        old[1].splitlines(),
        new[1].splitlines(),
        f"{agreement} version {old[0]}",
        f"{agreement} version {new[0]}",
        lineterm="",
    )
    return Amendment(
        agreement, old[0], new[0], material, tuple(lines), word_changes(old[1], new[1])
    )


def deadline_of(material: bool, asked: datetime | None, now: datetime) -> datetime | None:
    """Return by when a version published ``now`` has to be signed again; None: never.

    Raises:
        Invalid: the date asked for is past, too far away, without a zone, or for a version that
            changes nothing of substance.
    """
    if not material:
        if asked is not None:
            raise Invalid(
                "The version is not material: signatures on older ones go on as they are.",
                reason="agreement.not-material",
            )
        return None
    if asked is None:
        return now + RECONSENT_WITHIN
    if asked.tzinfo is None or not now < asked <= now + LONGEST_RECONSENT:
        raise Invalid(
            "Holders sign again after now and within a year, by a date with its zone.",
            reason="agreement.reconsent",
        )
    return asked


def outdate(work: Work, version: AgreementVersion) -> list[Signature]:
    """Write the deadline of ``version`` on every signature on an older one; return them.

    Those in force, and those that wait for their countersignature: it would come too late after.

    A deadline that a signature has already stays if it is sooner.
    """
    older = work.session.scalars(
        select(Signature)
        .join(AgreementVersion, AgreementVersion.id == Signature.agreement_version_id)
        .where(
            AgreementVersion.agreement_id == version.agreement_id,
            AgreementVersion.version < version.version,
            Signature.state.in_(LASTING),
        )
        .order_by(Signature.id)
        .with_for_update(of=Signature, key_share=True)
    ).all()
    for signature in older:
        sooner = signature.reconsent_until
        if sooner is None or (version.reconsent_until and version.reconsent_until < sooner):
            signature.reconsent_until = version.reconsent_until
            signature.reconsent_warned = None
    return list(older)


def tell_of_publishing(
    work: Work, version: AgreementVersion, outdated: Sequence[Signature]
) -> None:
    """Tell those whose signatures a new version outdates."""
    agreement = work.session.get_one(Agreement, version.agreement_id)
    for signature in outdated:
        emit(
            work,
            "agreement.published",
            subject=f"signature:{signature.id}",
            people=_people(signature),
            organisations=_organisations(signature),
            facts={
                "agreement": agreement.slug,
                "title": agreement.title,
                "version": version.version,
                "until": iso(version.reconsent_until) if version.reconsent_until else None,
                "consequence": "Grants that rest on the old version stop counting at "
                f"{said(version.reconsent_until)} unless it is signed."
                if version.reconsent_until
                else "",
                "link_path": f"/agreements/{version.id}/sign",
            },
        )


def _people(signature: Signature) -> list[str]:
    return [] if signature.organisation_id else [signature.person_id]


def _organisations(signature: Signature) -> list[str]:
    return [signature.organisation_id] if signature.organisation_id else []


# --- the deadline --------------------------------------------------------------------------------


def _passed(work: Work) -> Any:
    """Match active grants that rest on a signature whose time to be renewed is over."""
    late = select(Signature.id).where(
        Signature.reconsent_until <= work.now, Signature.state == SignatureState.IN_FORCE
    )
    return and_(Grant.state == GrantState.ACTIVE, Grant.signature_id.in_(late))


def _unwarned(work: Work) -> Any:
    due = [
        and_(
            Signature.reconsent_until <= work.now + timedelta(days=days),
            or_(Signature.reconsent_warned.is_(None), Signature.reconsent_warned > days),
        )
        for days in WARNING_DAYS
    ]
    return and_(
        Signature.state == SignatureState.IN_FORCE,
        Signature.reconsent_until > work.now,
        or_(*due),
    )


def reconsents_due(work: Work) -> bool:
    """Tell whether a deadline has passed unannounced or comes near; takes no lock."""
    asked = (select(Grant.id).where(_passed(work)), select(Signature.id).where(_unwarned(work)))
    return any(work.session.execute(s.limit(1)).first() is not None for s in asked)


def sweep_reconsents(work: Work) -> int:
    """Suspend what rests on signatures that were not renewed in time, and warn of what comes.

    Returns how many grants were suspended.
    """
    require(work.actor, Permission.GRANT_STOP)
    suspended = suspend_all(
        work,
        _passed(work),
        why=Suspension.RECONSENT,
        reason="The agreement changed materially, and its new version was not signed in time.",
    )
    rows = work.session.scalars(
        select(Signature)
        .where(_unwarned(work))
        .order_by(Signature.id)
        .limit(BATCH)
        .with_for_update(skip_locked=True, key_share=True)
    ).all()
    for signature in rows:
        _warn(work, signature)
    work.session.flush()
    return len(suspended)


def _warn(work: Work, signature: Signature) -> None:
    deadline = signature.reconsent_until
    row = queries.find_signature(work, signature.id)
    if deadline is None or row is None:
        return
    left = deadline - work.now
    signature.reconsent_warned = min(d for d in WARNING_DAYS if left <= timedelta(days=d))
    current = queries.find_in_force(work, row.agreement)
    emit(
        work,
        "agreement.reconsent_due",
        subject=f"signature:{signature.id}",
        people=_people(signature),
        organisations=_organisations(signature),
        facts={
            "agreement": row.agreement,
            "title": current.title if current else row.agreement,
            "until": iso(deadline),
            "days": signature.reconsent_warned,
            "link_path": f"/agreements/{current.id}/sign" if current else "",
        },
    )

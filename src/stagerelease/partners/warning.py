"""Warns holders before their grant ends: 30, 7 and 1 day ahead, each once, from the earliest end.

The end that is warned of is the earliest of what this slice knows (the grant's own date and its
signature's): invariant 8 says that is when access stops.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, or_, select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.clock import iso
from stagerelease.partners.rules import GrantState
from stagerelease.partners.tables import Grant, Signature
from stagerelease.releases import queries as releases

WARNING_DAYS = (30, 7, 1)
BATCH = 200


def _end() -> Any:
    """Return the earlier of a grant's own end and its signature's."""
    sooner = and_(Signature.valid_until.is_not(None), Signature.valid_until < Grant.valid_until)
    return case((sooner, Signature.valid_until), else_=Grant.valid_until)


def _unwarned(work: Work) -> ColumnElement[bool]:
    """Match live grants whose end is nearer than a warning they have not had."""
    end = _end()
    return and_(
        Grant.state == GrantState.ACTIVE,
        or_(
            Grant.valid_until <= work.now + timedelta(days=WARNING_DAYS[0]),
            Signature.valid_until <= work.now + timedelta(days=WARNING_DAYS[0]),
        ),
        end > work.now,
        or_(
            *(
                and_(
                    end <= work.now + timedelta(days=days),
                    or_(Grant.warned_days.is_(None), Grant.warned_days > days),
                )
                for days in WARNING_DAYS
            )
        ),
    )


def _due(work: Work) -> Any:
    return (
        select(Grant, _end().label("end"))
        .outerjoin(Signature, Signature.id == Grant.signature_id)
        .where(_unwarned(work))
    )


def warnings_due(work: Work) -> bool:
    """Tell whether a holder has to be warned; takes no lock."""
    return work.session.execute(_due(work).with_only_columns(Grant.id).limit(1)).first() is not None


def warn_of_ends(work: Work) -> int:
    """Tell holders and access officers of ends that come near; return how many were told.

    A grant that lasts less than 30 days gets the warnings that still lie ahead of it, never two at
    once: the nearest counts for the farther ones.
    """
    require(work.actor, Permission.GRANT_STOP)
    rows = work.session.execute(
        _due(work)
        .order_by(Grant.id)
        .limit(BATCH)
        .with_for_update(of=Grant, skip_locked=True, key_share=True)
    ).all()
    for grant, end in rows:
        left = end - work.now
        grant.warned_days = min(d for d in WARNING_DAYS if left <= timedelta(days=d))
        track = releases.load_track(work, grant.track_id)
        emit(
            work,
            "grant.expiring",
            subject=f"grant:{grant.id}",
            people=[grant.person_id] if grant.person_id else (),
            organisations=[grant.organisation_id] if grant.organisation_id else (),
            roles=("access_officer",) if grant.warned_days == WARNING_DAYS[0] else (),
            facts={
                "grant": grant.id,
                "repo_id": track.repo_id,
                "stage": grant.audience,
                "until": iso(end),
                "days": grant.warned_days,
            },
        )
    work.session.flush()
    return len(rows)

"""What release decisions must know of the floors above: read as plain SQL, never imported.

Grants live in ``partners``, above this slice. The one fact needed from there is when a stage's
audience could first fetch. This module must never write.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, column, func, select, table

from stagerelease.db.types import UtcDateTime
from stagerelease.db.work import Work

_GRANT = table(
    "access_grant",
    column("track_id", String),
    column("audience", String),
    column("state", String),
    column("valid_from", UtcDateTime()),
)


def first_grant(work: Work, track_id: str, audience: str) -> datetime | None:
    """Return when the earliest grant of ``audience`` (a stage's name) on this track began.

    A grant that was never activated let nobody in; one that begins later has let nobody in yet.
    """
    first: datetime | None = work.session.execute(
        select(func.min(_GRANT.c.valid_from, type_=UtcDateTime())).where(
            _GRANT.c.track_id == track_id,
            _GRANT.c.audience == audience,
            _GRANT.c.state != "pending",
            _GRANT.c.valid_from <= work.now,
        )
    ).scalar_one()
    return first

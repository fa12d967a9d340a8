"""Prompts, where a plan says that they are kept: as little as serves an inquiry, and not for long.

A stage with ``prompt_logging`` keeps what its callers ask, never what they are answered, and every
answer and the list of models tell them so. Prompts have a table of their own, so that erasing them
touches nothing else; reading them is an entry in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.inference import queries
from stagerelease.inference.queries import PromptRow
from stagerelease.inference.tables import InferencePrompt
from stagerelease.ledger import service as ledger

BETWEEN = "\n\x1e\n"
"""Stands between the prompts of one request (RECORD SEPARATOR)."""


def keep(work: Work, request_id: str, prompts: Sequence[str], *, kept_for: timedelta) -> None:
    """Keep what one request asked, in its own transaction's Work.

    All of it, which a request's body bounds: what stood behind a limit could be said unseen.
    """
    text = BETWEEN.join(prompts)
    work.session.add(
        InferencePrompt(
            request_id=request_id,
            prompt=text.replace("\x00", "\ufffd"),  # PostgreSQL keeps no NUL
            kept_at=work.now,
            erase_at=work.now + kept_for,
        )
    )


def read_prompts(
    work: Work, *, reason: str, grant_id: str | None = None, limit: int, after: str | None = None
) -> list[PromptRow]:
    """Return kept prompts to those who look into incidents; who looked and why is on record."""
    require(work.actor, Permission.INCIDENT_MANAGE)
    rows = queries.list_prompts(work, grant_id=grant_id, limit=limit, after=after)
    ledger.append(
        work,
        type="inference.prompts_read",
        subject=f"grant:{grant_id}" if grant_id is not None else "inference",
        detail={"requests": [row.request_id for row in rows], "reason": reason},
    )
    return rows


def prompts_due(work: Work) -> bool:
    """Tell whether kept prompts are to be erased; takes no lock."""
    due = select(InferencePrompt.request_id).where(InferencePrompt.erase_at <= work.now)
    return work.session.execute(due.limit(1)).first() is not None


def erase_prompts(work: Work) -> None:
    """Erase the prompts whose time is over."""
    work.session.execute(delete(InferencePrompt).where(InferencePrompt.erase_at <= work.now))

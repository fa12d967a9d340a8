"""Who may stand for a decision: a person, present as themselves, never an account of a machine."""

from __future__ import annotations

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.identity.tables import Person
from stagerelease.kernel.errors import Forbidden


def accountable(work: Work, act: str) -> str:
    """Return the id of the human who acts, and keep their account as it is until this Work ends.

    ``act`` completes "Only a person may …".

    Raises:
        Forbidden: the operator, the system, a service account or a disabled account.
    """
    row = None
    if work.actor.is_human:
        row = work.session.execute(
            select(Person.id, Person.kind, Person.disabled_at)
            .where(Person.id == work.actor.id)
            .with_for_update(read=True)
        ).one_or_none()
    if row is None or row.kind != "human":
        raise Forbidden(
            f"Only a person may {act}: {work.actor.name} is not a human's own account.",
            reason="human.needed",
            next_step="Sign in as yourself, with a personal token.",
        )
    if row.disabled_at is not None:
        raise Forbidden("This account is disabled.", reason="account.disabled")
    return str(row.id)

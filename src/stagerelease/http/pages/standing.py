"""What the top and the foot of every page say: what is on hold, and how the log stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from stagerelease.db.work import Work
from stagerelease.ledger import notes
from stagerelease.ledger import queries as ledger
from stagerelease.notices.standing import HeldLine, holds_in_public


@dataclass(frozen=True, slots=True)
class Standing:
    """How the service stands at one instant. ``root`` is 8 hex digits, empty before any signing."""

    at: datetime
    log_size: int
    root: str
    signed_at: datetime | None
    holds: tuple[HeldLine, ...]

    @property
    def age(self) -> float:
        """Return how many seconds old the newest signed checkpoint is."""
        return (self.at - self.signed_at).total_seconds() if self.signed_at else 0.0


def standing_of(work: Work) -> Standing:
    """Return how the service stands now: three short reads."""
    newest = ledger.latest_checkpoint(work)
    root = ""
    if newest is not None:
        root = notes.parse_checkpoint(notes.parse_note(newest.note).text).root.hex()[:8]
    return Standing(
        at=work.now,
        log_size=newest.size if newest else 0,
        root=root,
        signed_at=newest.created_at if newest else None,
        holds=holds_in_public(work),
    )

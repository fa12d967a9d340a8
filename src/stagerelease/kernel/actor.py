"""Who is behind a use case: a value, read once per Work, carrying no connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class ActorKind(StrEnum):
    """What sort of caller this is."""

    ANONYMOUS = "anonymous"
    PERSON = "person"
    OPERATOR = "operator"  # somebody with a shell on the host, through the CLI
    SYSTEM = "system"  # the worker and scheduled jobs


@dataclass(frozen=True, slots=True)
class Actor:
    """A caller as known at one instant.

    ``until`` is the earliest end among the token and the roles and memberships used, or None.
    ``scopes`` is None for a caller not limited by a token's scopes.
    """

    kind: ActorKind
    id: str
    name: str
    roles: frozenset[str] = frozenset()
    organisations: frozenset[str] = frozenset()
    administers: frozenset[str] = frozenset()
    token_id: str | None = None
    session_id: str | None = None
    scopes: frozenset[str] | None = None
    until: datetime | None = None
    membership_ends: tuple[tuple[str, datetime | None], ...] = field(default=())

    @property
    def known(self) -> bool:
        """Tell whether anybody at all is behind this."""
        return self.kind is not ActorKind.ANONYMOUS

    @property
    def is_human(self) -> bool:
        """Tell whether a distinct human is accountable, as approvals and signatures demand."""
        return self.kind is ActorKind.PERSON


ANONYMOUS = Actor(kind=ActorKind.ANONYMOUS, id="anonymous", name="anonymous")
OPERATOR = Actor(kind=ActorKind.OPERATOR, id="operator", name="local operator")
SYSTEM = Actor(kind=ActorKind.SYSTEM, id="system", name="system")

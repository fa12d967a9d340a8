"""What this slice's reads return: frozen rows that carry no connection."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from stagerelease.releases.queries import HoldRow


@dataclass(frozen=True, slots=True)
class IncidentRow:
    """An incident as staff see it in a list."""

    id: int
    state: str
    severity: str | None
    blocking: bool
    actor_tier: int | None
    scope: str
    title: str
    public_summary: str
    outcome: str
    public_outcome: str
    reported_at: datetime
    state_since: datetime
    confirmed_at: datetime | None
    closed_at: datetime | None
    version: int


@dataclass(frozen=True, slots=True)
class ReportRow:
    """What was reported. ``contact`` is None to whoever does not handle incidents."""

    text: str
    about: str
    contact: str | None
    has_contact: bool
    reporter_id: str | None
    erased_at: datetime | None


@dataclass(frozen=True, slots=True)
class EventRow:
    """A step of an incident."""

    id: str
    from_state: str | None
    to_state: str
    reason: str
    actor_id: str
    at: datetime
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class UpdateRow:
    """A dated word on an incident; ``written_by`` is ``staff`` or ``reporter``."""

    id: str
    incident_id: int
    visibility: str
    written_by: str
    author_id: str
    text: str
    at: datetime
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class CloseConsentRow:
    """A consent to close a blocking incident with this outcome, still waiting for another."""

    person_id: str
    outcome: str
    public_outcome: str
    outcome_sha256: str
    at: datetime
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class AdvisoryRow:
    """An advisory, to how many holders it went and how many of them acknowledged it."""

    id: str
    incident_id: int
    text: str
    sent_at: datetime
    sent_by: str
    due_at: datetime
    holders: int
    acknowledged: int
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """An advisory to one holder; ``overdue`` as of the instant it was read."""

    id: str
    advisory_id: str
    incident_id: int
    organisation_id: str | None
    person_id: str | None
    grant_ids: tuple[str, ...]
    text: str
    sent_at: datetime
    due_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    overdue: bool


@dataclass(frozen=True, slots=True)
class IncidentPage:
    """Everything staff know of an incident. ``holds`` are those laid for it, lifted ones too."""

    incident: IncidentRow
    report: ReportRow
    tracks: tuple[str, ...]
    families: tuple[str, ...]
    grants: tuple[str, ...]
    evidence: tuple[str, ...]
    holds: tuple[HoldRow, ...]
    events: tuple[EventRow, ...]
    updates: tuple[UpdateRow, ...]
    advisories: tuple[AdvisoryRow, ...]
    consents: tuple[CloseConsentRow, ...]

    @property
    def holds_active(self) -> tuple[int, ...]:
        """Return the holds laid for it that still stop deliveries, whatever its state."""
        return tuple(hold.id for hold in self.holds if hold.lifted_at is None)


@dataclass(frozen=True, slots=True)
class Reported:
    """A report taken. ``reference`` is shown this once and opens the report's state."""

    incident_id: int
    reference: str
    reported_at: datetime


@dataclass(frozen=True, slots=True)
class FollowUpdate:
    """A word the reporter may read: their own, or one meant for them or for everybody."""

    by: str  # you | staff
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class FollowRow:
    """An incident as its reporter may see it."""

    incident_id: int
    state: str
    reported_at: datetime
    state_since: datetime
    public_summary: str
    public_outcome: str
    text: str
    has_contact: bool
    updates: tuple[FollowUpdate, ...]


@dataclass(frozen=True, slots=True)
class PublicUpdate:
    """A word for everybody; who wrote it is not said."""

    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class PublicIncident:
    """A confirmed incident as everybody may read it: no names, no partners, counts only."""

    id: int
    state: str
    severity: str
    blocking: bool
    everything: bool
    tracks: int  # of what it covers, those that everybody may know of
    families: int
    repos: tuple[str, ...]  # theirs
    holds_active: int
    holders_told: int  # by the last advisory
    holders_acknowledged: int
    summary: str
    outcome: str
    confirmed_at: datetime
    state_since: datetime
    closed_at: datetime | None
    updates: tuple[PublicUpdate, ...]

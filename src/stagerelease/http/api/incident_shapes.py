"""The bodies of the incident routes: what comes in, and what goes out to whom."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stagerelease.http.wire import In, Instant, Out
from stagerelease.incidents.service import Links

Words = Annotated[str, Field(min_length=1, max_length=8000)]
MaybeWords = Annotated[str, Field(max_length=8000)]
Title = Annotated[str, Field(max_length=200)]
Public = Annotated[str, Field(max_length=500)]
Severity = Literal["low", "medium", "high", "critical"]
Tier = Annotated[int, Field(ge=1, le=3)]
Id = Annotated[str, Field(min_length=1, max_length=64)]
Ids = Annotated[list[Id], Field(max_length=200)]
Reference = Annotated[str, Field(min_length=1, max_length=100)]
Days = Annotated[int, Field(ge=1, le=90)]


class ReportIn(In):
    """What somebody saw. Nothing but ``text`` is needed, and no account."""

    text: Words
    about: Annotated[str, Field(max_length=200)] = ""
    contact: Annotated[str, Field(max_length=320)] | None = None


class FollowIn(In):
    """The reference that was shown when the report was taken."""

    reference: Reference


class WordsIn(FollowIn):
    """Words to add to a report."""

    text: Words


class LinksIn(In):
    """What an incident covers, whose grants it is about, what evidence it rests on."""

    everything: bool = False
    tracks: Ids = Field(default_factory=list)
    families: Ids = Field(default_factory=list)
    grants: Ids = Field(default_factory=list)
    evidence: Ids = Field(default_factory=list)

    def links(self) -> Links:
        """Return them as the use cases take them."""
        return Links(self.everything, self.tracks, self.families, self.grants, self.evidence)


class TriageIn(LinksIn):
    """An assessment. ``public_summary`` is what everybody reads once it is confirmed."""

    severity: Severity
    blocking: bool
    actor_tier: Tier | None = None
    title: Title = ""
    public_summary: Public = ""
    reason: MaybeWords = ""


class ReassessIn(LinksIn):
    """What more is known of a confirmed incident; what is left out stays."""

    reason: Words
    severity: Severity | None = None
    blocking: bool | None = None
    actor_tier: Tier | None = None
    title: Title | None = None
    public_summary: Public | None = None
    advisory: Words | None = None


class ConfirmIn(In):
    """Why it is confirmed, and what holders are told (default words for a blocking one)."""

    reason: Words
    advisory: Words | None = None
    acknowledge_within_days: Days = 3


class DismissIn(In):
    """Why it is no incident; ``reply`` is put to the reporter."""

    reason: Words
    reply: MaybeWords = ""


class ReasonIn(In):
    """Why."""

    reason: Words


class CloseIn(In):
    """The outcome; two people say the same to close a blocking incident."""

    outcome: Words
    public_outcome: Public = ""


class UpdateIn(In):
    """A word for the thread: private unless said otherwise."""

    text: Words
    visibility: Literal["private", "reporter", "public"] = "private"


class AdvisoryIn(In):
    """Words to every holder of what the incident covers."""

    text: Words
    acknowledge_within_days: Days = 3


class EraseIn(In):
    """Why the reporter's contact is erased, and whether their words are as well."""

    reason: Words
    words: bool = False


class ReportedOut(Out):
    """A report taken. Keep ``reference``: it is shown only now."""

    incident_id: int
    reference: str
    reported_at: Instant


class FollowUpdateOut(Out):
    """A word the reporter may read."""

    by: str
    text: str
    at: Instant


class FollowOut(Out):
    """A report as its reporter may see it."""

    incident_id: int
    state: str
    reported_at: Instant
    state_since: Instant
    public_summary: str
    public_outcome: str
    text: str
    has_contact: bool
    updates: list[FollowUpdateOut]


class IncidentOut(Out):
    """An incident, to staff."""

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
    reported_at: Instant
    state_since: Instant
    confirmed_at: Instant | None
    closed_at: Instant | None
    version: int


class ReportOut(Out):
    """What was reported; ``contact`` only to who handles incidents."""

    text: str
    about: str
    contact: str | None
    has_contact: bool
    reporter_id: str | None
    erased_at: Instant | None


class HoldLaidOut(Out):
    """A hold laid for an incident; it stands until two people lift it."""

    id: int
    scope: str
    scope_id: str | None
    laid_at: Instant
    lifted_at: Instant | None


class EventOut(Out):
    """A step."""

    from_state: str | None
    to_state: str
    reason: str
    actor_id: str
    at: Instant
    leaf_idx: int


class UpdateOut(Out):
    """A word on the thread."""

    id: str
    visibility: str
    written_by: str
    author_id: str
    text: str
    at: Instant
    leaf_idx: int


class AdvisoryOut(Out):
    """An advisory and how many of its holders acknowledged it."""

    id: str
    incident_id: int
    text: str
    sent_at: Instant
    sent_by: str
    due_at: Instant
    holders: int
    acknowledged: int
    leaf_idx: int


class CloseConsentOut(Out):
    """A consent to close with exactly this outcome."""

    person_id: str
    outcome: str
    public_outcome: str
    at: Instant
    leaf_idx: int


class IncidentPageOut(Out):
    """Everything staff know of an incident."""

    incident: IncidentOut
    report: ReportOut
    tracks: list[str]
    families: list[str]
    grants: list[str]
    evidence: list[str]
    holds: list[HoldLaidOut]
    holds_active: list[int]
    events: list[EventOut]
    updates: list[UpdateOut]
    advisories: list[AdvisoryOut]
    consents: list[CloseConsentOut]


class PublicUpdateOut(Out):
    """A public word."""

    text: str
    at: Instant


class PublicIncidentOut(Out):
    """A confirmed incident as everybody may read it."""

    id: int
    state: str
    severity: str
    blocking: bool
    everything: bool
    tracks: int
    families: int
    repos: list[str]
    holds_active: int
    holders_told: int
    holders_acknowledged: int
    summary: str
    outcome: str
    confirmed_at: Instant
    state_since: Instant
    closed_at: Instant | None
    updates: list[PublicUpdateOut]


class ReceiptOut(Out):
    """An advisory to one holder."""

    id: str
    advisory_id: str
    incident_id: int
    organisation_id: str | None
    person_id: str | None
    grant_ids: list[str]
    text: str
    sent_at: Instant
    due_at: Instant
    acknowledged_at: Instant | None
    acknowledged_by: str | None
    overdue: bool

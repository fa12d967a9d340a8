"""Incidents, what they cover and rest on, their reports, status threads, and advisories."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from stagerelease.db.base import Base
from stagerelease.evidence import tables as evidence_tables  # noqa: F401 (evidence is linked)
from stagerelease.partners import tables as partner_tables  # noqa: F401 (grants are linked)


class Incident(Base):
    """Something reported to be wrong, and what became of it. Never deleted.

    ``title`` and ``outcome`` are for staff; the ``public_`` fields are for everybody.
    """

    __tablename__ = "incident"
    __table_args__ = (
        Index("ix_incident_state", "state", "id"),
        Index("ix_incident_severity", "severity", "id"),
        Index("ix_incident_blocking", "blocking", "state"),
        Index("ix_incident_confirmed_at", "confirmed_at", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    state: Mapped[str] = mapped_column(String(16))
    severity: Mapped[str | None] = mapped_column(String(16))  # none before somebody looked
    blocking: Mapped[bool] = mapped_column(default=False)
    actor_tier: Mapped[int | None]  # 1 curious, 2 skilled and resourced, 3 advanced persistent
    scope: Mapped[str] = mapped_column(String(16))  # listed | everything
    title: Mapped[str] = mapped_column(String(200), default="")
    public_summary: Mapped[str] = mapped_column(String(500), default="")
    outcome: Mapped[str] = mapped_column(Text, default="")
    public_outcome: Mapped[str] = mapped_column(String(500), default="")
    reported_at: Mapped[datetime]
    state_since: Mapped[datetime]
    confirmed_at: Mapped[datetime | None]  # the first time
    closed_at: Mapped[datetime | None]  # the last time
    version: Mapped[int] = mapped_column(default=1)

    __mapper_args__ = {"version_id_col": version}


class IncidentReport(Base):
    """What the reporter said and how to reach them: personal, and erasable apart from the rest.

    ``secret_sha256`` opens the report to whoever holds the reference that was shown once.
    """

    __tablename__ = "incident_report"

    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id"), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    about: Mapped[str] = mapped_column(String(200), default="")
    contact: Mapped[str | None] = mapped_column(String(320))
    reporter_id: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    secret_sha256: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    erased_at: Mapped[datetime | None]


class IncidentTrack(Base):
    """A track that an incident covers."""

    __tablename__ = "incident_track"
    __table_args__ = (Index("ix_incident_track_track_id", "track_id"),)

    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id"), primary_key=True)
    track_id: Mapped[str] = mapped_column(ForeignKey("track.id"), primary_key=True)


class IncidentFamily(Base):
    """A family that an incident covers, with every track of it."""

    __tablename__ = "incident_family"
    __table_args__ = (Index("ix_incident_family_family_id", "family_id"),)

    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id"), primary_key=True)
    family_id: Mapped[str] = mapped_column(ForeignKey("family.id"), primary_key=True)


class IncidentGrant(Base):
    """A grant that an incident has to do with."""

    __tablename__ = "incident_grant"
    __table_args__ = (Index("ix_incident_grant_grant_id", "grant_id"),)

    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id"), primary_key=True)
    grant_id: Mapped[str] = mapped_column(ForeignKey("access_grant.id"), primary_key=True)


class IncidentEvidence(Base):
    """Evidence that an incident rests on."""

    __tablename__ = "incident_evidence"
    __table_args__ = (Index("ix_incident_evidence_evidence_id", "evidence_id"),)

    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id"), primary_key=True)
    evidence_id: Mapped[str] = mapped_column(ForeignKey("evidence.id"), primary_key=True)


class IncidentHold(Base):
    """A hold that was laid because of an incident. Closing the incident does not lift it."""

    __tablename__ = "incident_hold"
    __table_args__ = (Index("ix_incident_hold_hold_id", "hold_id"),)

    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id"), primary_key=True)
    hold_id: Mapped[int] = mapped_column(ForeignKey("hold.id"), primary_key=True)


class IncidentEvent(Base):
    """A step of an incident: who moved it, when and why. Never deleted."""

    __tablename__ = "incident_event"
    __table_args__ = (Index("ix_incident_event_incident_id", "incident_id", "leaf_idx"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id"))
    from_state: Mapped[str | None] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    actor_id: Mapped[str] = mapped_column(String(40))
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class IncidentUpdate(Base):
    """A dated word on an incident, for staff, for its reporter too, or for everybody."""

    __tablename__ = "incident_update"
    __table_args__ = (Index("ix_incident_update_incident_id", "incident_id", "visibility", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id"))
    visibility: Mapped[str] = mapped_column(String(16))  # private | reporter | public
    written_by: Mapped[str] = mapped_column(String(16))  # staff | reporter
    author_id: Mapped[str] = mapped_column(String(40))
    text: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class IncidentCloseConsent(Base):
    """One person's consent to close a blocking incident with exactly one outcome.

    ``round`` is the event the closing would end: what happens in between voids the consents.
    """

    __tablename__ = "incident_close_consent"
    __table_args__ = (UniqueConstraint("incident_id", "round", "outcome_sha256", "person_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id"))
    round: Mapped[str] = mapped_column(String(40))
    outcome: Mapped[str] = mapped_column(Text)
    public_outcome: Mapped[str] = mapped_column(String(500))
    outcome_sha256: Mapped[str] = mapped_column(String(64))
    person_id: Mapped[str] = mapped_column(ForeignKey("person.id"))
    at: Mapped[datetime]
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class IncidentThrottleSalt(Base):
    """What an hour's digests are salted with; deleted with them, so nobody can undo them later."""

    __tablename__ = "incident_throttle_salt"

    hour: Mapped[datetime] = mapped_column(primary_key=True)
    salt: Mapped[bytes] = mapped_column(LargeBinary(32))


class Advisory(Base):
    """Words sent to every holder of what an incident covers. Never changed once sent."""

    __tablename__ = "advisory"
    __table_args__ = (Index("ix_advisory_incident_id", "incident_id", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    incident_id: Mapped[int] = mapped_column(ForeignKey("incident.id"))
    text: Mapped[str] = mapped_column(Text)
    sent_at: Mapped[datetime]
    sent_by: Mapped[str] = mapped_column(String(40))
    due_at: Mapped[datetime]  # when every holder is asked to have acknowledged it
    leaf_idx: Mapped[int] = mapped_column(BigInteger)


class AdvisoryReceipt(Base):
    """One holder of an advisory, and who acknowledged it for them and when. Never deleted."""

    __tablename__ = "advisory_receipt"
    __table_args__ = (
        CheckConstraint(
            "(organisation_id IS NULL) <> (person_id IS NULL)", name="exactly_one_holder"
        ),
        # With the acknowledgement, so that counting them reads the index alone.
        Index("ix_advisory_receipt_advisory_id", "advisory_id", "id", "acknowledged_at"),
        Index("ix_advisory_receipt_organisation_id", "organisation_id", "id"),
        Index("ix_advisory_receipt_person_id", "person_id", "id"),
        Index(
            "ix_advisory_receipt_overdue",
            *("due_at", "id"),
            sqlite_where=text("acknowledged_at IS NULL"),
            postgresql_where=text("acknowledged_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    advisory_id: Mapped[str] = mapped_column(ForeignKey("advisory.id"))
    organisation_id: Mapped[str | None] = mapped_column(ForeignKey("organisation.id"))
    person_id: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    grant_ids: Mapped[list[str]]
    due_at: Mapped[datetime]
    acknowledged_at: Mapped[datetime | None]
    acknowledged_by: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    leaf_idx: Mapped[int | None] = mapped_column(BigInteger)  # of the acknowledgement

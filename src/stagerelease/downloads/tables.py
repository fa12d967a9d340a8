"""Downloads (one recipient, one file, one hour) and the transfers that carried their bytes."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from stagerelease.db.base import Base


class Download(Base):
    """A delivery of one file to one recipient. Ranges within the hour belong to the same one."""

    __tablename__ = "download"
    __table_args__ = (
        Index("ix_download_recipient", "person_id", "sha256", "started_at"),
        Index("ix_download_grant_id", "grant_id", "started_at"),
        Index("ix_download_track_id", "track_id", "started_at"),
        Index(
            "ix_download_uncounted",
            *("started_at", "id"),
            sqlite_where=text("counted_at IS NULL"),
            postgresql_where=text("counted_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    track_id: Mapped[str | None] = mapped_column(ForeignKey("track.id"))  # None: unreleased
    grant_id: Mapped[str | None] = mapped_column(ForeignKey("access_grant.id"))
    person_id: Mapped[str | None] = mapped_column(ForeignKey("person.id"))
    token_id: Mapped[str | None] = mapped_column(ForeignKey("api_token.id"))
    revision_id: Mapped[str] = mapped_column(ForeignKey("revision.id"))
    path: Mapped[str] = mapped_column(String(400))
    sha256: Mapped[str] = mapped_column(String(64))  # of the bytes this recipient gets
    size: Mapped[int] = mapped_column(BigInteger)
    started_at: Mapped[datetime]
    bytes_sent: Mapped[int] = mapped_column(BigInteger, default=0)
    # What of the file has left, as runs [from, to) in order; None until the first body ends.
    covered: Mapped[list[list[int]] | None] = mapped_column(JSON)
    completed_at: Mapped[datetime | None]
    counted_at: Mapped[datetime | None]  # None: its day's figures have to be made anew


class DownloadDay(Base):
    """The figures of one UTC day of one grant on one track, made from its downloads.

    ``id`` is ``day|track|grant``; ``grant_id`` is None for what needs no grant. ``deliveries``
    began that day, ``completed`` of them in full; ``files`` are different paths, ``tokens``
    different API tokens.
    """

    __tablename__ = "download_day"
    __table_args__ = (
        Index("ix_download_day_day", "day", "track_id", "grant_id"),
        Index("ix_download_day_track_id", "track_id", "day"),
        Index("ix_download_day_grant_id", "grant_id", "day"),
    )

    id: Mapped[str] = mapped_column(String(96), primary_key=True)
    day: Mapped[date]
    track_id: Mapped[str] = mapped_column(ForeignKey("track.id"))
    grant_id: Mapped[str | None] = mapped_column(ForeignKey("access_grant.id"))
    deliveries: Mapped[int]
    completed: Mapped[int]
    files: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    tokens: Mapped[int]


class Transfer(Base):
    """One response body of a download: the range asked, the bytes that left, how it ended."""

    __tablename__ = "transfer"
    __table_args__ = (Index("ix_transfer_download_id", "download_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    download_id: Mapped[str] = mapped_column(ForeignKey("download.id"))
    first_byte: Mapped[int] = mapped_column(BigInteger)
    last_byte: Mapped[int] = mapped_column(BigInteger)
    bytes_sent: Mapped[int] = mapped_column(BigInteger)
    outcome: Mapped[str] = mapped_column(String(16))  # whole | client_left | cut
    at: Mapped[datetime]


class EdgePassage(Base):
    """One answer handed to the edge, whose bytes may be leaving: gone once the edge's log tells.

    It holds what is needed to ask again, without a bearer, whether the bytes may go on. One row
    per answer, not per download: two tokens of one person may share a download, and the end of
    either must be felt by its own answers.
    """

    __tablename__ = "edge_passage"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    download_id: Mapped[str | None] = mapped_column(ForeignKey("download.id"))
    token_id: Mapped[str | None] = mapped_column(ForeignKey("api_token.id"))  # None: anonymous
    repo_id: Mapped[str] = mapped_column(String(140))
    revision_id: Mapped[str] = mapped_column(ForeignKey("revision.id"))
    path: Mapped[str] = mapped_column(String(400))
    sha256: Mapped[str] = mapped_column(String(64))
    started_at: Mapped[datetime]
    cut_at: Mapped[datetime | None]


class EdgeCuts(Base):
    """How often the edge was told to cut; at most one row, ``id = 1``. It only grows."""

    __tablename__ = "edge_cuts"

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


class EdgeLog(Base):
    """How far one file of the edge's log was read; a file is known by its first line's digest."""

    __tablename__ = "edge_log"

    fingerprint: Mapped[str] = mapped_column(String(64), primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger)
    read_at: Mapped[datetime]

"""What belongs to no slice: counts that limit how often something is done."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from stagerelease.db.base import Base


class HourlyCount(Base):
    """How often something was done in one hour. Keys hold digests, never an address."""

    __tablename__ = "hourly_count"
    __table_args__ = (Index("ix_hourly_count_hour", "hour"),)

    key: Mapped[str] = mapped_column(String(96), primary_key=True)
    hour: Mapped[datetime] = mapped_column(primary_key=True)
    count: Mapped[int]

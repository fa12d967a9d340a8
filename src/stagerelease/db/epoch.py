"""A counter that moves whenever anything an access decision depends on may have changed.

Web processes compare it to know that decisions taken a moment ago, and downloads in flight, still
stand. It is advanced by every writing Work unless that Work declares itself ``quiet`` (usage
records only), so forgetting to advance it is not possible.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Connection, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from stagerelease.db.base import Base


class AccessEpoch(Base):
    """One row, ``id = 1``."""

    __tablename__ = "access_epoch"

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger)


_READ = select(AccessEpoch.value).where(AccessEpoch.id == 1)


def read_epoch(connection: Connection) -> int:
    """Return the present value."""
    return int(connection.execute(_READ).scalar_one())


def advance_epoch(session: Session) -> None:
    """Move the counter on, inside this transaction."""
    session.execute(
        update(AccessEpoch).where(AccessEpoch.id == 1).values(value=AccessEpoch.value + 1)
    )

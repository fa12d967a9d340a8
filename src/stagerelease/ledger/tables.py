"""The log (RFC 6962 tree), its signed checkpoints, and the erasable side tables it commits to."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from stagerelease.db.base import Base


class LogLeaf(Base):
    """One entry: canonical JSON and its leaf hash. Never updated, never deleted."""

    __tablename__ = "log_leaf"

    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    hash: Mapped[bytes] = mapped_column(LargeBinary(32))


class LogNode(Base):
    """The hash of one complete subtree: ``level`` ≥ 1 covers leaves ``idx·2^level …``."""

    __tablename__ = "log_node"

    level: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    idx: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[bytes] = mapped_column(LargeBinary(32))


class LogHead(Base):
    """One row: how many leaves there are, and the roots of the complete subtrees, largest first."""

    __tablename__ = "log_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    size: Mapped[int] = mapped_column(BigInteger)
    frontier: Mapped[bytes] = mapped_column(LargeBinary)


class LogCheckpoint(Base):
    """A signed tree head in C2SP tlog-checkpoint form."""

    __tablename__ = "log_checkpoint"

    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    note: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]


class LogPending(Base):
    """A bulk event (download, token use) waiting ≤ 1 s for the sequencer."""

    __tablename__ = "log_pending"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    event: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class LogCommitment(Base):
    """What a salted commitment in a leaf stands for. Deleting the row erases; the log stands."""

    __tablename__ = "log_commitment"

    commitment: Mapped[str] = mapped_column(String(64), primary_key=True)
    salt: Mapped[bytes] = mapped_column(LargeBinary(32))
    value: Mapped[str] = mapped_column(String(400), index=True)


class LogDetail(Base):
    """The detail a leaf commits to by digest; erasable."""

    __tablename__ = "log_detail"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)

"""One use case, one transaction, one instant. Only ``Works.begin`` commits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from stagerelease.db.engine import WRITES
from stagerelease.db.epoch import advance_epoch
from stagerelease.kernel.actor import ANONYMOUS, Actor
from stagerelease.kernel.clock import Clock, SystemClock
from stagerelease.kernel.errors import Conflict, Unavailable


@dataclass(slots=True)
class Work:
    """A transaction under way: its session, its instant, and who acts in it.

    The instant moves only by ``refresh_now``, while locks are taken and before anything is decided.
    """

    session: Session
    now: datetime
    clock: Clock
    actor: Actor = ANONYMOUS
    read_only: bool = False
    dry_run: bool = False

    def refresh_now(self) -> datetime:
        """Read the clock again, never backwards; call it once the locks of a decision are held.

        Whoever waited for a lock must not decide at an instant before what the one it waited for
        has done: a role that ended meanwhile would count as held.
        """
        self.now = max(self.now, self.clock.now())
        return self.now

    @property
    def is_postgres(self) -> bool:
        """Tell which of the two databases this is."""
        return self.session.get_bind().dialect.name == "postgresql"


class Works:
    """The door to every Work. Holds the engine and the clock; nothing else opens a session."""

    def __init__(self, engine: Engine, clock: Clock | None = None) -> None:
        self.engine = engine
        self.clock = clock or SystemClock()

    @contextmanager
    def begin(
        self,
        actor: Actor = ANONYMOUS,
        *,
        read_only: bool = False,
        quiet: bool = False,
        dry_run: bool = False,
    ) -> Iterator[Work]:
        """Open a Work; commit when the block ends, roll back when it raises.

        ``read_only`` takes no write lock and never commits. ``quiet`` records usage and changes
        nothing that access depends on. ``dry_run`` runs everything and rolls back.

        Raises:
            Conflict: a uniqueness rule or a concurrent change got in the way; nothing was done.
            Unavailable: the database is locked or away; nothing was done.
        """
        with self.engine.connect() as bare:
            connection = bare.execution_options(**{WRITES: not read_only})
            session = Session(bind=connection, expire_on_commit=False, autoflush=True)
            try:
                # The transaction first, then the clock: a writer that waited for SQLite's lock
                # must not decide at an instant before what the one it waited for has done.
                session.connection()
                work = Work(
                    session,
                    self.clock.now(),
                    self.clock,
                    actor,
                    read_only=read_only,
                    dry_run=dry_run,
                )
                yield work
                if read_only or dry_run:
                    session.rollback()
                else:
                    session.flush()
                    if not quiet:
                        advance_epoch(session)
                    session.commit()
            except (IntegrityError, StaleDataError) as error:
                raise Conflict(
                    "Somebody changed the same thing a moment ago, or it exists already.",
                    reason="conflict.concurrent",
                    next_step="Look at its present state and try again.",
                ) from error
            except OperationalError as error:
                raise Unavailable("The database did not answer in time.") from error
            finally:
                session.close()  # rolls back whatever was not committed

"""Delivery by the edge: what nginx may be sending, what it really sent, and whom to cut.

With ``STAGERELEASE_DELIVERY=accel`` this process only permits; nginx sends. Each permitted answer
is a *passage*: a row made with the decision, removed when the edge's log tells how it ended. The
log may be read twice, in any order, by several workers: a line counts only while its passage is
there. Passages still there are what must be cut when their permission ends. This module must not
send bytes, and must not trust the log for anything but counting.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

import structlog
from sqlalchemy import ColumnElement, CursorResult, delete, func, select, update

from stagerelease.db.epoch import read_epoch
from stagerelease.db.work import Work, Works
from stagerelease.downloads import service as downloads
from stagerelease.downloads.rules import Passed, read_line
from stagerelease.downloads.service import Again, Ticket, never
from stagerelease.downloads.tables import EdgeCuts, EdgeLog, EdgePassage
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import ANONYMOUS, SYSTEM
from stagerelease.kernel.errors import DomainError
from stagerelease.kernel.ids import new_id

log = structlog.get_logger(__name__)

LONGEST = timedelta(hours=24)
"""No answer may take longer at the edge: the client goes on by range. Bounds what a lost line
leaves behind, and means that every answer in flight is known here. The cut that ends such an
answer ends every other too, so that it comes once a day at most, whatever was left behind."""
UNDER_WAY_FOR_SURE = timedelta(minutes=5)
"""Older than this, a passage was handed to nginx or never will be: a cut has ended it."""
LOOK_AGAIN = timedelta(seconds=60)
"""How often every passage is looked at though nothing was decided meanwhile."""
OVERLAP = timedelta(seconds=15)
"""How long before a look a passage may have been permitted and not have been seen by it."""
KEPT = timedelta(days=7)
"""How long a passage that was cut waits for its line, and a position of a vanished log is kept."""
MARKED_AT_ONCE = 1000
BATCH = 1 << 18  # bytes of log handled in one transaction
FIRST_LINE = 4096


def prepare(
    work: Work, *, repo_id: str, rev: str, path: str, record: bool, again: Again = never
) -> Ticket:
    """Decide as ``downloads.prepare`` does, and note in the same transaction that bytes may flow.

    Raises:
        NotFound: as ``downloads.prepare``.
        Gated: as ``downloads.prepare``.
    """
    ticket = downloads.prepare(
        work, repo_id=repo_id, rev=rev, path=path, record=record, again=again
    )
    if ticket.download_id is None and ticket.path in downloads.OPEN_FILES:
        return ticket  # open to all who may know of it: nothing to count, nobody to cut
    work.session.flush()  # the passage refers to the download
    passage = EdgePassage(
        id=new_id("psg"),
        download_id=ticket.download_id,
        token_id=work.actor.token_id,
        repo_id=ticket.repo_id,
        revision_id=ticket.commit,
        path=ticket.path,
        sha256=ticket.copy.sha256,
        started_at=work.now,
    )
    work.session.add(passage)
    return replace(ticket, passage_id=passage.id)


def abandon(works: Works, passage_id: str) -> None:
    """Forget a passage whose answer never reached the edge: no bytes flow, no line will tell."""
    with works.begin(SYSTEM, quiet=True) as work:
        work.session.execute(delete(EdgePassage).where(EdgePassage.id == passage_id))


# --- whom to cut --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked again for a passage; the parallel ranges of one download ask the same."""

    token_id: str | None
    repo_id: str
    revision_id: str
    path: str
    sha256: str


class EdgeWatch:
    """Counts the cuts the edge must make, for whoever polls it; one for each web process.

    What was allowed under an access epoch is not asked again under the same one before its time
    ends: until then a poll looks at what is new, however many passages there are. Nothing else is
    remembered, so any process may answer any poll.
    """

    def __init__(self, works: Works) -> None:
        self._works = works
        self._stands: dict[Question, tuple[int, datetime | None]] = {}
        self._whole: tuple[int, datetime] | None = None  # epoch and time of the last whole look
        self._looked: datetime | None = None
        self._lock = threading.Lock()

    def cuts(self) -> int:
        """Return the count of cuts; larger than before when a passage under way was refused.

        Raises:
            Unavailable: the database cannot be asked; whoever polls must then cut everything.
        """
        with self._lock:
            with self._works.begin(SYSTEM, read_only=True) as work:
                refused, late = self._look(work)
                count = work.session.execute(_COUNT).scalar_one_or_none() or 0
                now = work.now
            if not refused and not late:
                return count
            self._whole = None  # if the cut fails, the next look finds the same
            return _cut(self._works, refused, now, late=late)

    def _look(self, work: Work) -> tuple[set[Question], bool]:
        """Return what may not go on, and whether something has been under way for too long."""
        epoch, now = read_epoch(work.session.connection()), work.now
        whole = self._whole is None or self._must_look_again(epoch, now)
        statement = _ASKED
        if not whole and self._looked is not None:
            statement = statement.where(EdgePassage.started_at >= self._looked - OVERLAP)
        found = {Question(*row[:5]): row[5] for row in work.session.execute(statement)}
        stands = {} if whole else dict(self._stands)
        for question in found:
            known = self._stands.get(question)
            if known is None or known[0] != epoch or (known[1] is not None and known[1] <= now):
                allowed, until = still_allowed(work, question)
                known = (epoch, until) if allowed else None
            if known is not None:
                stands[question] = known
        self._stands, self._looked = stands, now
        if whole:
            self._whole = (epoch, now)
        refused = {question for question in found if question not in stands}
        return refused, any(first < now - LONGEST for first in found.values())

    def _must_look_again(self, epoch: int, now: datetime) -> bool:
        ends = [until for _, until in self._stands.values() if until is not None]
        return (
            self._whole is None
            or self._whole[0] != epoch
            or not self._whole[1] <= now < self._whole[1] + LOOK_AGAIN
            or any(end <= now for end in ends)
        )


_COUNT = select(EdgeCuts.value).where(EdgeCuts.id == 1)
_QUESTION = (
    EdgePassage.token_id,
    EdgePassage.repo_id,
    EdgePassage.revision_id,
    EdgePassage.path,
    EdgePassage.sha256,
)
_ASKED = (
    select(*_QUESTION, func.min(EdgePassage.started_at))
    .where(EdgePassage.cut_at.is_(None))
    .group_by(*_QUESTION)
)


def still_allowed(work: Work, question: Question) -> tuple[bool, datetime | None]:
    """Decide anew, for the holder of the token a passage was permitted to; say until when."""
    try:
        work.actor = ANONYMOUS
        if question.token_id is not None:
            work.actor = identity.actor_of_token(work, question.token_id)
        again = downloads.prepare(
            work,
            repo_id=question.repo_id,
            rev=question.revision_id,
            path=question.path,
            record=False,
        )
    except DomainError:
        return False, None
    finally:
        work.actor = SYSTEM
    same = again.commit == question.revision_id and again.copy.sha256 == question.sha256
    return same, again.until


def _cut(works: Works, refused: set[Question], asked_at: datetime, *, late: bool) -> int:
    """Mark passages as cut; return the count, moved on if one of them was not marked before.

    When it is for one that took too long, all that a cut surely ends are marked with it: what was
    left behind by clients that hung up too soon then asks for no cut of its own.
    """
    with works.begin(SYSTEM, quiet=True) as work:
        cuts = work.session.get(EdgeCuts, 1, with_for_update=True)
        if cuts is None:
            cuts = EdgeCuts(id=1, value=0)
            work.session.add(cuts)
        marked = sum(_mark(work, EdgePassage.id.in_(ids)) for ids in _of(work, refused, asked_at))
        if late and _is_late(work):
            marked += _mark(work, EdgePassage.started_at < work.now - UNDER_WAY_FOR_SURE)
        if not marked:
            return cuts.value  # another process saw it first
        cuts.value += 1
        work.session.execute(
            delete(EdgePassage).where(
                EdgePassage.cut_at < work.now - KEPT, EdgePassage.cut_at.is_not(None)
            )
        )
        log.info("downloads at the edge are cut", passages=marked, count=cuts.value)
        return cuts.value


def _of(work: Work, refused: set[Question], asked_at: datetime) -> Iterator[list[str]]:
    """Yield the ids of what was under way when it was refused, so many at once."""
    if not refused:
        return
    rows = work.session.execute(
        select(EdgePassage.id, *_QUESTION).where(
            EdgePassage.cut_at.is_(None), EdgePassage.started_at <= asked_at
        )
    )
    ids = [row[0] for row in rows if Question(*row[1:]) in refused]
    for at in range(0, len(ids), MARKED_AT_ONCE):
        yield ids[at : at + MARKED_AT_ONCE]


def _is_late(work: Work) -> bool:
    first = select(func.min(EdgePassage.started_at)).where(EdgePassage.cut_at.is_(None))
    found = work.session.execute(first).scalar_one_or_none()
    return found is not None and found < work.now - LONGEST


def _mark(work: Work, these: ColumnElement[bool]) -> int:
    statement = update(EdgePassage).where(these, EdgePassage.cut_at.is_(None))
    done = work.session.execute(
        statement.values(cut_at=work.now).execution_options(synchronize_session=False)
    )
    return cast("CursorResult[object]", done).rowcount


# --- what was really sent -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of the edge's log, known by its first line whatever it is called by now."""

    path: Path
    fingerprint: str
    size: int


def read_log(works: Works, path: Path) -> int:
    """Count what the edge's log tells since last time; return the number of lines read.

    Rotated files beside ``path`` (``path.1`` …) are read to their ends too, in any order. Each
    passage counts once, however often its line is met. A line without its end waits.

    Raises:
        Unavailable: the database cannot be asked; nothing is lost.
    """
    files = list(_files(path))
    if not files:
        return 0
    with works.begin(SYSTEM, read_only=True) as work:
        rows = work.session.execute(select(EdgeLog.fingerprint, EdgeLog.position))
        known = {row.fingerprint: row.position for row in rows}
    handled = 0
    for file in files:
        if file.size > known.get(file.fingerprint, 0):
            handled += _read_on(works, file)
    return handled


def _files(path: Path) -> Iterator[LogFile]:
    for candidate in [path, *sorted(path.parent.glob(path.name + ".[0-9]*"))]:
        try:
            with candidate.open("rb") as reader:
                first = reader.readline(FIRST_LINE)
                size = reader.seek(0, 2)
        except FileNotFoundError:  # rotated between the listing and the look
            continue
        if first.endswith(b"\n"):
            yield LogFile(candidate, hashlib.sha256(first).hexdigest(), size)


def _read_on(works: Works, file: LogFile) -> int:
    handled = 0
    with file.path.open("rb") as reader:
        if hashlib.sha256(reader.readline(FIRST_LINE)).hexdigest() != file.fingerprint:
            return 0  # renamed meanwhile; the next look finds it
        while True:
            with works.begin(SYSTEM, quiet=True) as work:
                place = _place(work, file.fingerprint)
                reader.seek(place.position)
                lines, read = _whole_lines(reader.read(BATCH))
                if not read:
                    return handled
                _count(work, lines)
                place.position += read
                place.read_at = work.now
                handled += len(lines)


def _place(work: Work, fingerprint: str) -> EdgeLog:
    place = work.session.get(EdgeLog, fingerprint, with_for_update=True)
    if place is None:
        place = EdgeLog(fingerprint=fingerprint, position=0, read_at=work.now)
        work.session.add(place)
        work.session.execute(delete(EdgeLog).where(EdgeLog.read_at < work.now - KEPT))
    return place


def _whole_lines(data: bytes) -> tuple[list[bytes], int]:
    """Return the lines that have their end, and how many bytes they take."""
    end = data.rfind(b"\n") + 1
    if not end and len(data) == BATCH:
        return [data], BATCH  # no line of ours is that long: step over it
    return data[:end].splitlines(), end


def _count(work: Work, lines: Iterable[bytes]) -> None:
    for line in lines:
        try:
            passed = read_line(line)
        except ValueError as error:
            log.warning("a line of the edge's log was skipped", why=str(error), length=len(line))
            continue
        passage = work.session.get(EdgePassage, passed.passage_id, with_for_update=True)
        if passage is not None:
            _settle(work, passage, passed)


def _settle(work: Work, passage: EdgePassage, passed: Passed) -> None:
    outcome = passed.outcome
    if outcome == "client_left" and passage.cut_at is not None:
        outcome = "cut"
    if passed.status in (403, 404) or passed.status >= 500:
        log.error("the edge could not send a permitted file", status=passed.status)
    work.session.delete(passage)
    if passage.download_id is not None:
        downloads.record_transfer(
            work,
            passage.download_id,
            first=passed.first,
            sent=passed.sent,
            outcome=outcome,
            transfer_id="xfr" + passage.id.removeprefix("psg"),
        )

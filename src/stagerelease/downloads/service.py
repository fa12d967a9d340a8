"""A permitted request becomes a recorded delivery; the bytes flow after the Work has ended.

Ranges that one recipient asks of one file within ``SAME_DOWNLOAD`` belong to one download, so a
resumed or parallel download is one entry of the log: started once, completed once. Who is not known
is recognised only by what the process that answers remembers (``again``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import and_, select

from stagerelease.catalog import queries as catalog
from stagerelease.db.epoch import read_epoch
from stagerelease.db.work import Work, Works
from stagerelease.downloads.copies import Copy, copy_for
from stagerelease.downloads.rules import Runs, cover, is_whole
from stagerelease.downloads.tables import Download, Transfer
from stagerelease.entitlements import service as entitlements
from stagerelease.entitlements.rules import STOPPED, Decision
from stagerelease.entitlements.service import refuse as refuse
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import ANONYMOUS, SYSTEM
from stagerelease.kernel.errors import DomainError, NotFound, Unavailable
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger

SAME_DOWNLOAD = timedelta(hours=1)
OPEN_FILES = frozenset({"README.md", "LICENSE", "LICENSE.md", "LICENSE.txt"})
"""Root files that anyone may read who may know of the repository (as the public Hub does)."""


Again = Callable[[int], str | None]


def never(_size: int) -> None:
    """Say that a request of somebody who is not known goes on with nothing."""


def is_open(decision: Decision, path: str) -> bool:
    """Tell whether a file needs no entitlement, only that the caller may know of the repository.

    While a release is held or withdrawn no file of it is delivered; its page still says what it is.
    """
    return path in OPEN_FILES and decision.visible and decision.reason not in STOPPED


@dataclass(frozen=True, slots=True)
class Ticket:
    """A permitted answer about one file: everything a face needs, nothing of the database.

    ``download_id`` is None for a HEAD and for the openly readable root files: those record
    nothing. ``epoch`` is the access epoch the decision was taken under.
    """

    repo_id: str
    commit: str
    path: str
    copy: Copy
    decision: Decision
    epoch: int
    recorded: bool
    token_id: str | None = None
    download_id: str | None = None
    passage_id: str | None = None  # set when the edge sends the bytes

    @property
    def until(self) -> datetime | None:
        """Return when the decision must be asked again at the latest."""
        return self.decision.until


class FileMissing(NotFound):
    """The revision is there and open to the caller; the file is not. Carries the commit."""

    code = "file-not-found"
    title = "There is no such file"

    def __init__(self, sentence: str, *, commit: str) -> None:
        super().__init__(sentence)
        self.commit = commit


def prepare(
    work: Work, *, repo_id: str, rev: str, path: str, record: bool, again: Again = never
) -> Ticket:
    """Decide on one file for ``work.actor``; with ``record``, write that a delivery begins.

    ``again`` is asked, when nobody is known to ask, which download this one may go on with; it is
    given the file's size. What it says is looked at, not trusted.

    Raises:
        NotFound: the repository is not visible (reason ``repo``), or the revision is unknown.
        FileMissing: the caller may have the revision, and it holds no such file.
        Gated: the caller may not have it; says why and what to do next.
    """
    epoch = read_epoch(work.session.connection())
    entitled = entitlements.see(work, work.actor, repo_id, rev, path=path)
    openly = is_open(entitled.decision, path)
    if not entitled.decision.allowed and not openly:
        raise refuse(entitled.decision, work.actor)
    file = entitled.file
    if file is None:
        if not entitled.decision.allowed:
            raise refuse(entitled.decision, work.actor)
        raise FileMissing(
            f"There is no file {path!r} in {repo_id} at {entitled.revision.id[:8]}.",
            commit=entitled.revision.id,
        )
    blob = catalog.find_blob(work, file.sha256)
    if blob is not None and blob.corrupt_at is not None:
        raise Unavailable(
            f"The stored copy of {path!r} does not verify, so it is not delivered.",
            retry_after=3600,
            reason="blob.corrupt",
        )
    ticket = Ticket(
        repo_id=entitled.variant.repo_id,
        commit=entitled.revision.id,
        path=path,
        copy=copy_for(file, entitled.decision),
        decision=entitled.decision,
        epoch=epoch,
        token_id=work.actor.token_id,
        recorded=record and entitled.decision.allowed,
    )
    if not ticket.recorded:
        return ticket
    track_id = entitled.track.id if entitled.track else None
    download_id = _going_on(work, ticket, track_id, again) or _begin(work, ticket, track_id)
    return replace(ticket, download_id=download_id)


def _going_on(work: Work, ticket: Ticket, track_id: str | None, again: Again) -> str | None:
    """Return the download that this request goes on with, or None when it is a new one."""
    if work.actor.is_human:
        whose = Download.person_id == work.actor.id
    elif (earlier := again(ticket.copy.size)) is not None:
        whose = and_(Download.id == earlier, Download.person_id.is_(None))
    else:
        return None
    return work.session.execute(
        select(Download.id)
        .where(
            whose,
            Download.sha256 == ticket.copy.sha256,
            Download.track_id.is_not_distinct_from(track_id),
            Download.path == ticket.path,
            Download.grant_id.is_not_distinct_from(ticket.decision.grant_id),
            Download.started_at > work.now - SAME_DOWNLOAD,
        )
        .order_by(Download.started_at.desc())
        .limit(1)
    ).scalar_one_or_none()


def _begin(work: Work, ticket: Ticket, track_id: str | None) -> str:
    """Record that a download begins, and return its id.

    What staff fetch of a revision that is on no track is in the log as well; it is nobody's use of
    a release, so no day's figures count it.
    """
    download = Download(
        id=new_id("dl"),
        track_id=track_id,
        grant_id=ticket.decision.grant_id,
        person_id=work.actor.id if work.actor.is_human else None,
        token_id=work.actor.token_id,
        revision_id=ticket.commit,
        path=ticket.path,
        sha256=ticket.copy.sha256,
        size=ticket.copy.size,
        started_at=work.now,
        bytes_sent=0,
        counted_at=work.now if track_id is None else None,
    )
    work.session.add(download)
    ledger.enqueue_bulk(
        work,
        type="download.started",
        subject=f"download:{download.id}",
        detail={
            "track": track_id,
            "grant": ticket.decision.grant_id,
            "revision": ticket.commit,
            "path": ticket.path,
            "sha256": ticket.copy.sha256,
            "rule": ticket.decision.reason,
        },
    )
    return download.id


def finish(works: Works, download_id: str, *, first: int, sent: int, outcome: str) -> None:
    """Record how one body of a download ended; note completion once every byte has left.

    ``outcome`` is ``whole``, ``client_left``, ``cut`` or ``failed`` (no byte could be sent, or the
    stored bytes could not be read); ``sent`` counts bytes from ``first``.
    """
    with works.begin(SYSTEM, quiet=True) as work:
        record_transfer(work, download_id, first=first, sent=sent, outcome=outcome)


def record_transfer(
    work: Work,
    download_id: str,
    *,
    first: int,
    sent: int,
    outcome: str,
    transfer_id: str | None = None,
) -> None:
    """Record, inside a quiet Work, how one body of a download ended (see ``finish``)."""
    download = work.session.get_one(Download, download_id, with_for_update=True)
    if download.completed_at is None:
        download.covered = _covered(work, download, first, sent)
    work.session.add(
        Transfer(
            id=transfer_id or new_id("xfr"),
            download_id=download_id,
            first_byte=first,
            last_byte=first + sent - 1,  # before ``first`` when nothing was sent
            bytes_sent=sent,
            outcome=outcome,
            at=work.now,
        )
    )
    download.bytes_sent += sent
    if download.track_id is not None:
        download.counted_at = None
    if outcome == "cut":
        _note(work, download, "download.cut", sent)
    if download.completed_at is None and is_whole(download.covered or [], download.size):
        download.completed_at = work.now
        _note(work, download, "download.completed", download.bytes_sent)


def _note(work: Work, download: Download, event: str, sent: int) -> None:
    ledger.enqueue_bulk(
        work,
        type=event,
        subject=f"download:{download.id}",
        actor=download.person_id or ANONYMOUS.id,
        detail={"sha256": download.sha256, "bytes": sent, "path": download.path},
    )


def _covered(work: Work, download: Download, first: int, sent: int) -> Runs:
    """Return what of the file has left, with a body just noted.

    What earlier bodies carried stands on the download; of one that began under an earlier version
    it is read from them.
    """
    if download.covered is not None:
        return cover(download.covered, first, sent)
    rows = work.session.execute(
        select(Transfer.first_byte, Transfer.bytes_sent).where(
            Transfer.download_id == download.id, Transfer.bytes_sent > 0
        )
    )
    runs: Runs = []
    for earlier in rows:
        runs = cover(runs, *earlier)
    return cover(runs, first, sent)


def recheck(works: Works, ticket: Ticket) -> tuple[bool, datetime | None]:
    """Ask again, now, whether a download in flight may go on; return that and until when."""
    with works.begin(ANONYMOUS, read_only=True) as work:
        try:
            if ticket.token_id is not None:
                work.actor = identity.actor_of_token(work, ticket.token_id)
            again = prepare(
                work, repo_id=ticket.repo_id, rev=ticket.commit, path=ticket.path, record=False
            )
        except DomainError:
            return False, None
        same = again.commit == ticket.commit and again.copy.sha256 == ticket.copy.sha256
        return same, again.until

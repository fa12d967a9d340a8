"""Files attached to evidence: kept by digest, served as downloads and never inline.

No Work is open while bytes flow. Who may attach is asked, and counted, before the first byte;
asked again when the last has come, before the store keeps anything; and again under the row's lock.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from sqlalchemy import func, select

from stagerelease.catalog import queries as catalog
from stagerelease.catalog.stored import note_healed, refer
from stagerelease.db.work import Work
from stagerelease.evidence import queries
from stagerelease.evidence.moving import lock
from stagerelease.evidence.queries import AttachmentRow
from stagerelease.evidence.reading import files_of, load_visible
from stagerelease.evidence.rules import State
from stagerelease.evidence.submitting import load_own
from stagerelease.evidence.tables import EvidenceAttachment
from stagerelease.evidence.throttle import Written, check_room, spend
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.digests import is_sha256
from stagerelease.kernel.errors import (
    Conflict,
    Corrupt,
    FieldError,
    Invalid,
    NotFound,
    TooLarge,
)
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.storage.ports import BlobStore, BlobWriter, StoredBlob

MOST_ATTACHMENTS = 50
MAX_FILENAME = 150  # characters; 200 bytes are what every file system takes with our suffixes
_OPEN_STATES = (State.DRAFT, State.SUBMITTED)
_NO_FILENAME = '/\\:*?"<>|'


def check_filename(filename: str) -> str:
    """Return a name that is one plain file name everywhere.

    Raises:
        Invalid: empty, long, a path, hidden, or with what file systems or headers refuse.
    """
    name = filename.strip()
    plain = name.isprintable() and not any(c in _NO_FILENAME for c in name)
    if not 1 <= len(name) <= MAX_FILENAME or not plain or name.startswith(".") or name[-1] == ".":
        sentence = (
            f"An attachment's name has 1 to {MAX_FILENAME} printable characters, none of "
            f"{_NO_FILENAME}, and neither begins nor ends with a dot."
        )
        raise Invalid(sentence, reason="attachment.name", fields=[FieldError("filename", sentence)])
    try:
        name.encode()
    except UnicodeEncodeError as error:
        sentence = "An attachment's name must be whole Unicode characters."
        raise Invalid(
            sentence, reason="attachment.name", fields=[FieldError("filename", sentence)]
        ) from error
    return name


def check_may_attach(work: Work, evidence_id: str) -> None:
    """Return only if the caller may attach a file to evidence that is still open.

    Raises:
        Unauthenticated, Forbidden, NotFound: not the caller's evidence.
        Conflict: it is decided on, or has as many files as it can.
        TooMany: the caller, who is not staff, attached too many files this hour.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    check_room(work, Written.FILE)
    _check_open(work, evidence_id)


def begin_attaching(work: Work, evidence_id: str, *, filename: str, sha256: str | None) -> None:
    """Count one file for the caller, before its first byte; the bytes are what costs.

    Raises:
        Invalid: a name or digest of the wrong form; else see ``check_may_attach``.
        Conflict: the evidence has a file of that name with other bytes than ``sha256``.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    name = check_filename(filename)
    if sha256 is not None and not is_sha256(sha256):
        sentence = "A digest is 64 lower-case hex digits."
        raise Invalid(sentence, reason="attachment.digest", fields=[FieldError("sha256", sentence)])
    _check_open(work, evidence_id)
    if sha256 is not None:
        _find_same(work, evidence_id, name, sha256)
    spend(work, Written.FILE)


def check_may_keep(work: Work, evidence_id: str, *, filename: str, sha256: str) -> None:
    """Return only if bytes that have come would be attached now, so that others are not kept.

    Raises: as ``note_attached``.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    _check_open(work, evidence_id)
    _find_same(work, evidence_id, check_filename(filename), sha256)


def _check_open(work: Work, evidence_id: str) -> None:
    evidence = load_own(work, evidence_id)
    if evidence.state not in _OPEN_STATES:
        raise Conflict(
            f"{evidence.id} is {evidence.state}; what was decided on keeps the files it had.",
            reason="attachment.closed",
            next_step="Submit new evidence that supersedes it, with the file.",
        )
    count = work.session.execute(
        select(func.count())
        .select_from(EvidenceAttachment)
        .where(EvidenceAttachment.evidence_id == evidence.id)
    ).scalar_one()
    if count >= MOST_ATTACHMENTS:
        raise Conflict(
            f"{evidence.id} has {MOST_ATTACHMENTS} files, which is the most it can have.",
            reason="attachment.count",
        )


def _find_same(work: Work, evidence_id: str, name: str, sha256: str) -> AttachmentRow | None:
    """Return the file that is attached already, under this name with these bytes.

    Raises:
        Conflict: one of this name has others.
    """
    for one in queries.attachments_of(work, evidence_id):
        if one.filename == name:
            if one.sha256 == sha256:
                return one
            raise Conflict(
                f"{evidence_id} has another file called {name!r}.",
                reason="attachment.exists",
                next_step="Give this one another name.",
            )
    return None


class Receiver:
    """Takes one file piece by piece. Leaving it without ``finish`` leaves nothing."""

    def __init__(self, blobs: BlobStore, *, limit: int) -> None:
        self._blobs = blobs
        self._limit = limit
        self._writer: BlobWriter | None = None

    def __enter__(self) -> Self:
        self._writer = self._blobs.writer()
        self._writer.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.__exit__(kind, error, trace)

    def write(self, data: bytes) -> None:
        """Append ``data``.

        Raises:
            TooLarge: the file outgrows the limit; nothing is kept.
        """
        writer = self._open()
        if writer.size + len(data) > self._limit:
            raise TooLarge(
                f"An attachment has at most {self._limit:,} bytes.",
                reason="attachment.size",
                next_step="Publish the file elsewhere and name it in the source, with its digest.",
            )
        writer.write(data)

    @property
    def sha256(self) -> str:
        """Return the digest of what has come so far."""
        return self._open().sha256

    def finish(self, sha256: str | None) -> StoredBlob:
        """Make the file durable and return what it is.

        Raises:
            Invalid: no bytes came, or others than ``sha256`` announced; nothing is kept.
        """
        writer = self._open()
        if writer.size == 0:
            raise Invalid("The attachment has no bytes.", reason="attachment.empty")
        return writer.commit(sha256)

    def _open(self) -> BlobWriter:
        if self._writer is None:
            raise RuntimeError("a receiver is used inside its block")
        return self._writer


def note_attached(
    work: Work, blobs: BlobStore, evidence_id: str, *, filename: str, stored: StoredBlob
) -> AttachmentRow:
    """Attach a file that is durable in the store; the same bytes under the same name only once.

    Raises:
        see ``check_may_attach``; Conflict: another file has that name.
        Unavailable: the bytes are not in the store any more.
    """
    lock(work, evidence_id)
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    name = check_filename(filename)
    _check_open(work, evidence_id)
    same = _find_same(work, evidence_id, name, stored.sha256)
    if same is not None:
        return same
    known = catalog.find_blob(work, stored.sha256)
    refer(work, stored.sha256, size=stored.size, owner=f"evidence:{evidence_id}", blobs=blobs)
    row = EvidenceAttachment(
        id=new_id("att"),
        evidence_id=evidence_id,
        filename=name,
        sha256=stored.sha256,
        size=stored.size,
        added_by=work.actor.id,
        added_at=work.now,
    )
    work.session.add(row)
    work.session.flush()
    if known is not None and known.corrupt_at is not None:
        note_healed(work, stored.sha256)
    ledger.append(
        work,
        type="evidence.attached",
        subject=f"evidence:{evidence_id}",
        detail={"sha256": stored.sha256, "size": stored.size},
    )
    return queries.load_attachment(work, evidence_id, row.id)


def open_attachment(work: Work, evidence_id: str, attachment_id: str) -> AttachmentRow:
    """Return a file that the caller may download now.

    Raises:
        NotFound: no such file, or evidence the caller may not know of.
        Corrupt: the stored bytes are known to be others than these.
    """
    evidence = load_visible(work, evidence_id)
    row = next((one for one in files_of(work, evidence) if one.id == attachment_id), None)
    if row is None:
        raise NotFound(
            f"{evidence_id} has no attachment {attachment_id!r:.80}.", reason="attachment.unknown"
        )
    blob = catalog.find_blob(work, row.sha256)
    if blob is None or blob.corrupt_at is not None:
        raise Corrupt(
            f"The stored bytes of {row.filename!r} are not those that were attached.",
            reason="attachment.corrupt",
            next_step="Ask an operator to restore it from a backup.",
        )
    return row

"""Checks that what the database says is in the store really is, byte for byte, and tidies up.

Anything a revision or a ``blob_reference`` (attachments, documents, signatures of other slices)
refers to is never deleted, whatever its state: it is marked and reported. What nothing refers to
(partials of dead writers, files without a row, rows that nobody names) is
cleared with ``repair`` once it is older than a grace, so that imports under way are left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import and_, delete, exists, insert, select, update

from stagerelease.catalog import queries
from stagerelease.catalog.rules import NewFile, manifest_sha256, revision_id
from stagerelease.catalog.tables import (
    Blob,
    BlobReference,
    Revision,
    RevisionFile,
    UploadTicket,
)
from stagerelease.db.work import Work, Works
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.actor import SYSTEM, Actor
from stagerelease.kernel.clock import Clock, SystemClock
from stagerelease.kernel.digests import git_blob_sha1, lfs_pointer
from stagerelease.kernel.errors import Conflict, DomainError
from stagerelease.storage.ports import BlobStore, LocalBlob

GRACE = timedelta(hours=1)
PAGE = 100
Progress = Callable[[int, int, str], None]
"""Told bytes done, bytes in all, and what is being read."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not verify: a stable code, what it is about, and a sentence."""

    code: str
    subject: str
    sentence: str


@dataclass(slots=True)
class FsckReport:
    """What a check found. ``ok`` is about what revisions refer to; leftovers are not errors."""

    repaired: bool
    blobs: int = 0
    bytes: int = 0
    revisions: int = 0
    findings: list[Finding] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    unreferenced: list[str] = field(default_factory=list)
    partials: int = 0
    cleared: int = 0

    @property
    def ok(self) -> bool:
        """Tell whether everything that revisions refer to verifies."""
        return not self.findings

    def find(self, code: str, subject: str, sentence: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(code, subject, sentence))


def check(
    works: Works,
    blobs: BlobStore,
    *,
    repair: bool = False,
    grace: timedelta = GRACE,
    progress: Progress | None = None,
    actor: Actor = SYSTEM,
    file_clock: Clock | None = None,
) -> FsckReport:
    """Read every stored byte and every manifest again and say what does not verify.

    Marks on each blob when it was last found whole or corrupt. With ``repair``, clears what nothing
    refers to and is older than ``grace``. ``file_clock`` tells the time that files are stamped in.

    Raises:
        Forbidden: the actor may not read (or, to repair, change) the catalog.
    """
    require(actor, Permission.CATALOG_WRITE if repair else Permission.CATALOG_READ_INTERNAL)
    report = FsckReport(repaired=repair)
    before = (file_clock or SystemClock()).now() - grace
    _partials(blobs, report, before=before, repair=repair)
    _unreferenced(works, blobs, report, grace=grace, repair=repair)
    _orphans(works, blobs, report, before=before, repair=repair)
    _contents(works, blobs, report, progress)
    _manifests(works, blobs, report)
    return report


def _partials(blobs: BlobStore, report: FsckReport, *, before: datetime, repair: bool) -> None:
    report.partials = len(blobs.list_partials(before))
    if repair:
        report.cleared += len(blobs.clear_partials(before))


_UNREFERENCED = and_(
    ~exists().where(RevisionFile.sha256 == Blob.sha256),
    ~exists().where(BlobReference.sha256 == Blob.sha256),
)


def _unreferenced(
    works: Works, blobs: BlobStore, report: FsckReport, *, grace: timedelta, repair: bool
) -> None:
    with works.begin(SYSTEM, read_only=True) as work:
        waiting = exists().where(
            UploadTicket.sha256 == Blob.sha256, UploadTicket.expires_at > work.now
        )
        statement = select(Blob.sha256).where(
            _UNREFERENCED,
            Blob.created_at <= work.now - grace,
        )
        if grace > timedelta(0):  # an upload that may still be committed
            statement = statement.where(~waiting)
        report.unreferenced = list(work.session.execute(statement.order_by(Blob.sha256)).scalars())
    if not repair:
        return
    for digest in report.unreferenced:
        report.cleared += _clear_row(works, blobs, digest)


def _clear_row(works: Works, blobs: BlobStore, digest: str) -> int:
    """Delete a row that nothing refers to, and then its bytes, while holding the row."""
    try:
        with works.begin(SYSTEM, quiet=True) as work:
            gone = work.session.execute(
                delete(Blob).where(Blob.sha256 == digest, _UNREFERENCED).returning(Blob.sha256)
            ).all()
            if gone:
                blobs.delete(digest)
            return len(gone)
    except Conflict:
        return 0  # a revision took it at this very moment; it stays


def _orphans(
    works: Works, blobs: BlobStore, report: FsckReport, *, before: datetime, repair: bool
) -> None:
    page: list[str] = []
    for digest in blobs.list_digests():
        page.append(digest)
        if len(page) == 500:
            _orphans_of(works, blobs, report, page, before)
            page = []
    _orphans_of(works, blobs, report, page, before)
    if repair:
        for digest in report.orphans:
            report.cleared += _clear_orphan(works, blobs, digest)


def _orphans_of(
    works: Works, blobs: BlobStore, report: FsckReport, page: list[str], before: datetime
) -> None:
    with works.begin(SYSTEM, read_only=True) as work:
        known = queries.find_blobs(work, page)
    report.orphans += [d for d in page if d not in known and _stored_before(blobs, d, before)]


def _stored_before(blobs: BlobStore, digest: str, before: datetime) -> bool:
    try:
        located = blobs.locate(digest)
    except DomainError:
        return False
    if not isinstance(located, LocalBlob):
        return False  # its age is not known here, and nothing young may be cleared
    return datetime.fromtimestamp(located.path.stat().st_mtime, UTC) <= before


def _clear_orphan(works: Works, blobs: BlobStore, digest: str) -> int:
    """Remove bytes without a row, while holding the place where their row would be.

    An import that wants to write that row waits for us, and then looks at the store again.
    """
    try:
        with works.begin(SYSTEM, quiet=True) as work:
            if queries.find_blob(work, digest) is not None:
                return 0
            row = {"sha256": digest, "size": 0, "created_at": work.now}
            work.session.execute(insert(Blob), [row])
            blobs.delete(digest)
            work.session.execute(delete(Blob).where(Blob.sha256 == digest))
            return 1
    except Conflict:
        return 0  # somebody recorded it at this very moment; it stays


def _contents(
    works: Works, blobs: BlobStore, report: FsckReport, progress: Progress | None
) -> None:
    with works.begin(SYSTEM, read_only=True) as work:
        rows = [
            (sha256, size)
            for sha256, size in work.session.execute(
                select(Blob.sha256, Blob.size).order_by(Blob.sha256)
            )
        ]
    total = sum(size for _, size in rows)
    for start in range(0, len(rows), PAGE):
        verdicts = {}
        for digest, size in rows[start : start + PAGE]:
            verdicts[digest] = _verify(blobs, report, digest, size, total, progress)
            report.blobs += 1
            report.bytes += size
        _mark(works, verdicts)


def _verify(
    blobs: BlobStore,
    report: FsckReport,
    digest: str,
    size: int,
    total: int,
    progress: Progress | None,
) -> bool:
    def step(done: int) -> None:
        if progress is not None:
            progress(report.bytes + done, total, digest[:12])

    if not blobs.has(digest):
        report.find("blob.missing", digest, f"The {size:,} bytes of {digest} are not in the store.")
        return False
    stored = blobs.size(digest)
    if stored != size:
        sentence = f"{digest} has {stored:,} bytes in the store, and {size:,} on record."
        report.find("blob.size", digest, sentence)
        return False
    if not blobs.verify(digest, step):
        report.find("blob.corrupt", digest, f"The bytes stored as {digest} hash to something else.")
        return False
    return True


def _mark(works: Works, verdicts: dict[str, bool]) -> None:
    with works.begin(SYSTEM, quiet=True) as work:
        for whole in (True, False):
            digests = [digest for digest, verdict in verdicts.items() if verdict is whole]
            values = (
                {"verified_at": work.now, "corrupt_at": None} if whole else {"corrupt_at": work.now}
            )
            work.session.execute(update(Blob).where(Blob.sha256.in_(digests)).values(**values))


def _manifests(works: Works, blobs: BlobStore, report: FsckReport) -> None:
    with works.begin(SYSTEM, read_only=True) as work:
        ids = list(work.session.execute(select(Revision.id).order_by(Revision.id)).scalars())
    for one in ids:
        with works.begin(SYSTEM, read_only=True) as work:
            files = _revision(work, report, one)
        report.revisions += 1
        for file in files:
            _git_id(blobs, report, file)


def _revision(work: Work, report: FsckReport, id: str) -> list[queries.FileRow]:
    row = queries.load_revision(work, id)
    files = queries.files(work, id)
    known = queries.find_blobs(work, sorted({f.sha256 for f in files}))
    listed = [NewFile(f.path, f.size, f.sha256, f.git_oid, f.lfs, f.kind) for f in files]
    if manifest_sha256(listed) != row.manifest_sha256:
        report.find("revision.manifest", id, f"The files of {id} are not those it committed to.")
    named = revision_id(
        variant_id=row.variant_id,
        parent_id=row.parent_id,
        message=row.message,
        created_at=row.created_at,
        manifest=row.manifest_sha256,
    )
    if named != id:
        report.find("revision.id", id, f"{id} is not the id of what its row says ({named}).")
    wrong = [f for f in files if f.sha256 not in known or known[f.sha256].size != f.size]
    if wrong or sum(f.size for f in files) != row.total_bytes:
        report.find("revision.size", id, f"The sizes on record for {id} do not agree.")
    return files


def _git_id(blobs: BlobStore, report: FsckReport, file: queries.FileRow) -> None:
    if file.lfs:
        right = git_blob_sha1(lfs_pointer(file.sha256, file.size)) == file.git_oid
    elif any(f.subject == file.sha256 for f in report.findings):
        return  # its bytes are known to be wrong or missing
    else:
        with blobs.open(file.sha256) as reader:
            right = git_blob_sha1(reader.read()) == file.git_oid
    if not right:
        subject = f"{file.revision_id}:{file.path}"
        report.find("file.git-oid", subject, f"The git id on record for {subject} is wrong.")

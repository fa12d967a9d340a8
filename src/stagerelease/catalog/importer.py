"""Imports a directory in Hub layout as a revision.

Everything that can be refused is refused before a byte is copied. Each file is then read once, and
hashed while it is copied into the store; the rows follow in one transaction. A process killed at
any point leaves no half revision and holds no lock: at most partials and blobs without a row, which
``fsck`` clears.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from stagerelease.catalog import checkpoint, queries, service, stored
from stagerelease.catalog.directory import Found, Note, check_heads, opened, scan
from stagerelease.catalog.queries import RevisionRow, VariantRow
from stagerelease.catalog.rules import (
    NewFile,
    check_kind,
    check_message,
    is_lfs,
    kind_of,
    manifest_sha256,
)
from stagerelease.db.work import Work, Works
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.actor import Actor
from stagerelease.kernel.digests import git_blob_sha1, lfs_pointer
from stagerelease.kernel.errors import Stale, Unavailable
from stagerelease.storage.ports import BlobStore

Progress = Callable[[int, int, str], None]
"""Told bytes done, bytes in all, and the file being read."""
BUFFER = 1 << 20
MARGIN = 64_000_000
ATTEMPTS = 5
WEIGHT_KINDS = frozenset({"output_dataset", "detector"})


def silent(sentence: str) -> None:
    """Tell nobody."""


def import_directory(
    works: Works,
    blobs: BlobStore,
    actor: Actor,
    *,
    directory: Path,
    repo_id: str,
    message: str = "",
    progress: Progress | None = None,
    kind: str | None = None,
    note: Note = silent,
    room: Callable[[], int] | None = None,
) -> RevisionRow:
    """Import ``directory`` onto ``main`` of ``repo_id`` and return the revision.

    A directory equal to the head of ``main`` changes nothing: its revision is returned, and
    ``note`` is told. ``kind`` makes every file of the revision of that artifact kind; otherwise
    each file's name decides. ``room`` tells the free bytes of the store.

    Raises:
        Invalid: something in the directory may not be hosted, or is not what the variant is.
        Conflict: a file changed while it was read.
        Unavailable: the store has no room.
    """
    require(actor, Permission.CATALOG_WRITE)
    if kind is not None:
        check_kind(kind)
    message = check_message(message or f"Import of {directory.name}")
    with works.begin(actor, read_only=True) as work:
        variant = queries.load_variant(work, repo_id)
        architecture = queries.architecture_of(work, variant.id)
    found = scan(directory, note=note)
    check_heads(directory, found)
    parameters = _judge(directory, found, variant, architecture, kind)
    _check_room(found, room)
    files = _copy(blobs, directory, found, kind=kind, progress=progress)
    row = _record(works, blobs, actor, variant, files, message, parameters, note)
    _heal(works, blobs, actor, directory, found, files, note)
    return row


def _judge(
    directory: Path,
    found: Sequence[Found],
    variant: VariantRow,
    architecture: Mapping[str, Any] | None,
    kind: str | None,
) -> int | None:
    by_path = {f.path: f for f in found}

    @contextmanager
    def open_one(path: str) -> Iterator[BinaryIO]:
        with opened(directory, by_path[path]) as reader:
            yield reader

    is_model = kind not in WEIGHT_KINDS
    return checkpoint.judge(
        {f.path: f.size for f in found},
        open_one,
        stated=variant.parameters if is_model else None,
        architecture=architecture,
        is_model=is_model,
    )


def _check_room(found: Sequence[Found], room: Callable[[], int] | None) -> None:
    if room is None:
        return
    need, free = sum(f.size for f in found) + MARGIN, room()
    if need > free:
        raise Unavailable(
            f"The import needs {need:,} bytes, and the store has {free:,} free.",
            reason="storage.full",
            retry_after=3600,
        )


def room_of(directory: Path) -> Callable[[], int]:
    """Return a teller of the free bytes of the file system that holds ``directory``."""
    return lambda: shutil.disk_usage(directory).free


def _copy(
    blobs: BlobStore,
    directory: Path,
    found: Sequence[Found],
    *,
    kind: str | None,
    progress: Progress | None,
) -> list[NewFile]:
    total, done = sum(f.size for f in found), 0
    files = []
    for one in found:

        def step(have: int, before: int = done, path: str = one.path) -> None:
            if progress is not None:
                progress(before + have, total, path)

        files.append(_copy_one(blobs, directory, one, kind or kind_of(one.path), step))
        done += one.size
    return files


def _copy_one(
    blobs: BlobStore, directory: Path, found: Found, kind: str, step: Callable[[int], None]
) -> NewFile:
    lfs = is_lfs(found.path, found.size)
    git = hashlib.sha1(b"blob %d\x00" % found.size, usedforsecurity=False)
    buffer = bytearray(BUFFER)
    view = memoryview(buffer)
    with blobs.writer() as writer:
        with opened(directory, found) as reader:
            while count := reader.readinto(buffer):
                writer.write(view[:count])
                if not lfs:
                    git.update(view[:count])
                step(writer.size)
        blob = writer.commit()  # only after ``opened`` saw that the file did not change
    oid = git_blob_sha1(lfs_pointer(blob.sha256, blob.size)) if lfs else git.hexdigest()
    return NewFile(found.path, blob.size, blob.sha256, oid, lfs, kind)


def _record(
    works: Works,
    blobs: BlobStore,
    actor: Actor,
    variant: VariantRow,
    files: Sequence[NewFile],
    message: str,
    parameters: int | None,
    note: Note,
) -> RevisionRow:
    for _ in range(ATTEMPTS):  # another import may move main between our read and our lock
        try:
            with works.begin(actor) as work:
                head = queries.find_ref(work, variant.id, "main")
                same = _same_as(work, head, files)
                if same is not None:
                    note(f"{variant.repo_id} holds exactly this already, as {same.id[:8]}.")
                    return same
                return service.record_revision(
                    work,
                    variant_id=variant.id,
                    files=files,
                    message=message,
                    parent_id=head,
                    parameters=parameters,
                    blobs=blobs,
                )
        except Stale:
            continue
    raise Unavailable(f"main of {variant.repo_id} keeps moving.", reason="ref.moved")


def _same_as(work: Work, head: str | None, files: Sequence[NewFile]) -> RevisionRow | None:
    """Return the head if it has exactly these files, of these kinds."""
    if head is None:
        return None
    row = queries.load_revision(work, head)
    if row.manifest_sha256 != manifest_sha256(files):
        return None
    kinds = {f.path: f.kind for f in queries.files(work, head)}
    return row if kinds == {f.path: f.kind for f in files} else None


def _heal(
    works: Works,
    blobs: BlobStore,
    actor: Actor,
    directory: Path,
    found: Sequence[Found],
    files: Sequence[NewFile],
    note: Note,
) -> None:
    """Replace stored bytes that are known to be corrupt by the whole ones just imported.

    A store keeps the first copy of a blob, so the bad one has to go before the good one can come.
    """
    with works.begin(actor, read_only=True) as work:
        known = queries.find_blobs(work, sorted({f.sha256 for f in files}))
    bad = {digest for digest, row in known.items() if row.corrupt_at is not None}
    for one, file in zip(found, files, strict=True):
        if file.sha256 not in bad:
            continue
        bad.discard(file.sha256)
        if not (blobs.has(file.sha256) and blobs.verify(file.sha256)):
            blobs.delete(file.sha256)
            again = _copy_one(blobs, directory, one, file.kind, lambda _: None)
            if again.sha256 != file.sha256:
                raise Unavailable(f"{file.path!r} changed; import it again.", reason="file.changed")
        with works.begin(actor, quiet=True) as work:
            stored.note_healed(work, file.sha256)
        note(f"The stored copy of {file.path} was corrupt and has been replaced.")

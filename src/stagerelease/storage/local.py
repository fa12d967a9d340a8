"""The blob store on a local file system: one directory, one file per digest.

Layout, below ``root``::

    sha256/ab/abcd…ef     whole blobs, named by their digest, mode 0640, never written again
    partial/<uuid>        what writers are writing, and what dead writers left

A blob appears by ``link(2)`` from a partial that has been synced, so whatever the moment of a
crash there is no blob or a whole one, plus at most a partial that ``clear_partials`` removes.
Paths are built from validated digests only; nothing a caller names reaches the file system.
This module must not be imported by anything but bootstrap and tests.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from stagerelease.kernel.digests import is_sha256
from stagerelease.kernel.errors import Invalid, NotFound, Unavailable
from stagerelease.storage.ports import LocalBlob, Partial, Progress, StoredBlob

_FILE_MODE = 0o640  # the group is nginx's when it sends the bytes
_DIRECTORY_MODE = 0o750
_CHUNK = 1 << 20
# Whole aligned writes of this size let the file system keep a blob in huge pages, which halves
# what a later delivery spends on mapping it (see storage.windows).
_GATHER = 4 << 20


class LocalBlobStore:
    """Keeps blobs below one directory of one file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._blobs = root / "sha256"
        self._partials = root / "partial"
        with _answering("be prepared"):
            for directory in (root, self._blobs, self._partials):
                _make_directory(directory)

    @property
    def root(self) -> Path:
        """Return the directory that holds everything, for a web server that sends the files."""
        return self._root

    def writer(self) -> LocalBlobWriter:
        """Return a writer for one new blob."""
        return LocalBlobWriter(blobs=self._blobs, partials=self._partials)

    def locate(self, sha256: str) -> LocalBlob:
        """Say which file holds the bytes."""
        path = _path(self._blobs, sha256)
        return LocalBlob(path=path, size=self._stat(path, sha256).st_size)

    def open(self, sha256: str) -> BinaryIO:
        """Return the blob as a seekable binary reader."""
        path = _path(self._blobs, sha256)
        with _answering("be read"):
            try:
                return os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb")
            except FileNotFoundError:
                raise _missing(sha256) from None

    def has(self, sha256: str) -> bool:
        """Tell whether the whole blob is stored."""
        return self.size_of(sha256) is not None

    def size(self, sha256: str) -> int:
        """Return the number of bytes of a stored blob."""
        return self._stat(_path(self._blobs, sha256), sha256).st_size

    def size_of(self, sha256: str) -> int | None:
        """Return the number of bytes of a blob, or None when it is not stored."""
        try:
            return self.size(sha256)
        except NotFound:
            return None

    def delete(self, sha256: str) -> None:
        """Remove the blob's name; open readers keep the bytes until they close."""
        path = _path(self._blobs, sha256)
        with _answering("be deleted from"):
            try:
                path.unlink()
            except FileNotFoundError:
                return
            _sync_directory(path.parent)

    def list_digests(self) -> Iterator[str]:
        """Yield every stored digest, ascending, one directory in memory at a time."""
        with _answering("be listed"):
            shards = sorted(name for name in os.listdir(self._blobs) if len(name) == 2)
        for shard in shards:
            with _answering("be listed"):
                names = sorted(os.listdir(self._blobs / shard))
            yield from (name for name in names if is_sha256(name) and name.startswith(shard))

    def list_partials(self, older_than: datetime) -> list[Partial]:
        """Return partials last written before ``older_than``, dead or alive, oldest first."""
        found = []
        with _answering("be listed"), os.scandir(self._partials) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # its writer finished while we were looking
                    continue
                at = datetime.fromtimestamp(status.st_mtime, UTC)
                if at < older_than:
                    found.append(Partial(name=entry.name, size=status.st_size, modified_at=at))
        return sorted(found, key=lambda partial: (partial.modified_at, partial.name))

    def clear_partials(self, older_than: datetime) -> list[Partial]:
        """Remove old partials that no living writer holds, however slow that writer may be."""
        cleared = []
        for partial in self.list_partials(older_than):
            with _answering("be tidied"), suppress(FileNotFoundError):
                if _remove_unless_held(self._partials / partial.name):
                    cleared.append(partial)
        return cleared

    def verify(self, sha256: str, progress: Progress | None = None) -> bool:
        """Read every byte again and tell whether it still hashes to its name."""
        digest = hashlib.sha256()
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        done = 0
        with self.open(sha256) as reader, _answering("be read"):
            # A check must not push what people download out of memory (Linux 6.3 heeds this).
            os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_NOREUSE)
            while count := os.readv(reader.fileno(), [view]):
                digest.update(view[:count])
                done += count
                if progress is not None:
                    progress(done)
        return digest.hexdigest() == sha256

    def _stat(self, path: Path, sha256: str) -> os.stat_result:
        with _answering("be read"):
            try:
                status = path.lstat()
            except FileNotFoundError:
                raise _missing(sha256) from None
        if not stat.S_ISREG(status.st_mode):
            raise Unavailable(f"What is stored as {sha256} is not a regular file.")
        return status


class LocalBlobWriter:
    """Writes one blob into a partial file, which it keeps locked for as long as it lives."""

    def __init__(self, *, blobs: Path, partials: Path) -> None:
        self._blobs = blobs
        self._path = partials / uuid.uuid4().hex
        self._digest = hashlib.sha256()
        self._size = 0
        self._gathered = memoryview(bytearray(_GATHER))
        self._held = 0  # bytes of it that wait to be written
        self._descriptor = -1

    @property
    def size(self) -> int:
        """Return the number of bytes taken so far."""
        return self._size

    @property
    def sha256(self) -> str:
        """Return the digest of the bytes taken so far."""
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with _answering("be written to"):
            self._descriptor = os.open(self._path, flags, _FILE_MODE)
            os.fchmod(self._descriptor, _FILE_MODE)  # whatever the umask says
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        with suppress(FileNotFoundError):
            self._path.unlink()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append ``data`` and hash it."""
        rest = memoryview(data).cast("B")
        self._digest.update(rest)
        self._size += len(rest)
        while rest:
            count = min(len(rest), _GATHER - self._held)
            self._gathered[self._held : self._held + count] = rest[:count]
            self._held += count
            rest = rest[count:]
            if self._held == _GATHER:
                self._flush()

    def _flush(self) -> None:
        rest = self._gathered[: self._held]
        self._held = 0
        with _answering("be written to"):
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def commit(self, expected_sha256: str | None = None) -> StoredBlob:
        """Sync the bytes, give them their name, sync the name."""
        sha256 = self.sha256
        if expected_sha256 is not None and sha256 != expected_sha256:
            raise Invalid(
                f"The bytes hash to {sha256}, and {expected_sha256} was announced.",
                reason="blob.digest-mismatch",
                next_step="Send the file again; it changed or was damaged on the way.",
            )
        target = _path(self._blobs, sha256)
        self._flush()
        with _answering("be written to"):
            os.fsync(self._descriptor)
            _make_directory(target.parent)
            self._place(target)
            _sync_directory(target.parent)
        return StoredBlob(sha256=sha256, size=self._size)

    def _place(self, target: Path) -> None:
        try:
            os.link(self._path, target, follow_symlinks=False)
        except FileExistsError:
            # Same digest, same bytes: the first copy stays. One of another length was damaged
            # after it was stored, and is healed by what we have just hashed.
            if target.lstat().st_size != self._size:
                os.replace(self._path, target)


@contextmanager
def _answering(deed: str) -> Iterator[None]:
    """Turn what the file system refuses into a sentence an operator can act on."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"The blob store could not {deed}: {os.strerror(error.errno or 0)}.",
            reason="storage.unavailable",
        ) from error


def _missing(sha256: str) -> NotFound:
    return NotFound(f"No blob {sha256} is stored.", reason="blob.not-found")


def _path(blobs: Path, sha256: str) -> Path:
    if not is_sha256(sha256):
        raise Invalid("A blob is named by 64 lower-case hex digits.", reason="blob.name")
    return blobs / sha256[:2] / sha256


def _make_directory(path: Path) -> None:
    """Make ``path`` durable with our mode; one that exists keeps the mode its operator chose."""
    try:
        path.mkdir(mode=_DIRECTORY_MODE, parents=True)
    except FileExistsError:
        return
    path.chmod(_DIRECTORY_MODE)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_unless_held(path: Path) -> bool:
    """Unlink ``path`` unless a living writer has it locked; the kernel frees a dead one's lock."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink()
        return True
    finally:
        os.close(descriptor)

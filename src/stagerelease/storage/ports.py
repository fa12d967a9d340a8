"""What the rest of the house may ask of a place that keeps bytes, whichever place it is.

A blob is named by the SHA-256 of its bytes and never changes. A store answers "bytes here" or
"go there", never both: callers branch on what ``locate`` returns and on nothing else. This module
must not know any adapter, and no adapter's habits (paths, buckets) may leak into its signatures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

Progress = Callable[[int], None]
"""Told the number of bytes done so far."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """What a commit put in place: the digest computed while writing, and the number of bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class LocalBlob:
    """Bytes here: a regular file this process may open, with exactly ``size`` bytes."""

    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class RemoteBlob:
    """Go there: a short-lived signed URL. It is a credential: never log it, never store it."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Partial:
    """What an unfinished or abandoned writer left: an opaque name, bytes so far, last written."""

    name: str
    size: int
    modified_at: datetime


class BlobWriter(Protocol):
    """One blob on its way in. A context manager: leaving it without ``commit`` leaves nothing."""

    @property
    def size(self) -> int:
        """Return the number of bytes written so far."""
        ...

    @property
    def sha256(self) -> str:
        """Return the digest of the bytes written so far: what ``commit`` would call them."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append ``data``, hashing it on the way: the bytes are never read a second time.

        Raises:
            Unavailable: the store has no room or does not answer.
        """
        ...

    def commit(self, expected_sha256: str | None = None) -> StoredBlob:
        """Put the whole blob in place, durably, and say what it is.

        When this returns the bytes survive a power cut. Content already stored is kept once.

        Raises:
            Invalid: the bytes do not hash to ``expected_sha256``; nothing was stored.
            Unavailable: the store has no room or does not answer; nothing was stored.
        """
        ...


class BlobStore(Protocol):
    """A place that keeps blobs. Every method may block; none holds a database connection.

    A digest that is not 64 lower-case hex digits is ``Invalid`` everywhere; a place that cannot
    be reached is ``Unavailable``.
    """

    def writer(self) -> BlobWriter:
        """Return a writer for one new blob."""
        ...

    def locate(self, sha256: str) -> LocalBlob | RemoteBlob:
        """Say where the bytes are: here, or at a URL that works for a short while.

        Raises:
            NotFound: no such blob is stored.
        """
        ...

    def open(self, sha256: str) -> BinaryIO:
        """Return the blob as a seekable binary reader, to be closed by the caller.

        Raises:
            NotFound: no such blob is stored.
        """
        ...

    def has(self, sha256: str) -> bool:
        """Tell whether the whole blob is stored."""
        ...

    def size(self, sha256: str) -> int:
        """Return the number of bytes of a stored blob.

        Raises:
            NotFound: no such blob is stored.
        """
        ...

    def size_of(self, sha256: str) -> int | None:
        """Return the number of bytes of a blob, or None when it is not stored."""
        ...

    def delete(self, sha256: str) -> None:
        """Make the blob be gone; one that is absent already is no error, so this can be retried.

        Readers that have it open finish undisturbed where the adapter can promise that.
        """
        ...

    def list_digests(self) -> Iterator[str]:
        """Yield the digest of every stored blob, in ascending order."""
        ...

    def list_partials(self, older_than: datetime) -> list[Partial]:
        """Return what writers left unfinished and have not touched since ``older_than``."""
        ...

    def clear_partials(self, older_than: datetime) -> list[Partial]:
        """Remove those partials whose writer is dead, and return the ones removed."""
        ...

    def verify(self, sha256: str, progress: Progress | None = None) -> bool:
        """Read every byte again and tell whether it still hashes to its name.

        Raises:
            NotFound: no such blob is stored.
        """
        ...

"""Digests by name: which hash, which spelling, what is well formed."""

from __future__ import annotations

import hashlib
import re

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")


def is_sha256(text: str) -> bool:
    """Tell whether ``text`` is 64 lower-case hex digits."""
    return _SHA256.match(text) is not None


def is_commit(text: str) -> bool:
    """Tell whether ``text`` is 40 lower-case hex digits."""
    return _COMMIT.match(text) is not None


def sha256_hex(data: bytes) -> str:
    """Return the 64-hex SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def git_blob_sha1(data: bytes) -> str:
    """Return git's object id of a blob with these bytes (SHA-1 over ``blob <size>\\0`` + data)."""
    head = b"blob %d\x00" % len(data)
    return hashlib.sha1(head + data, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the Git LFS pointer file for a blob (git-lfs specification v1)."""
    head = "version https://git-lfs.github.com/spec/v1"
    return f"{head}\noid sha256:{sha256}\nsize {size}\n".encode()

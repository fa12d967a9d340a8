"""Which bytes a recipient gets. The one function that decides sha256, size and ETag.

Today every recipient gets the canonical bytes. Each recipient's own marked copy is served by
changing ``copy_for`` alone: faces, ranges, ETags and records all follow what it returns.
"""

from __future__ import annotations

from dataclasses import dataclass

from stagerelease.catalog.queries import FileRow
from stagerelease.entitlements.rules import Decision


@dataclass(frozen=True, slots=True)
class Copy:
    """The bytes one recipient gets of one file.

    ``etag`` is unquoted: the sha256 of an LFS file, the git blob id of a small one, since Hub
    clients name their cache files by it.
    """

    sha256: str
    size: int
    etag: str
    git_oid: str
    lfs: bool


def copy_for(file: FileRow, decision: Decision) -> Copy:  # noqa: ARG001 (the recipient's seam)
    """Return which bytes the recipient of ``decision`` gets of ``file``."""
    return Copy(
        sha256=file.sha256,
        size=file.size,
        etag=file.sha256 if file.lfs else file.git_oid,
        git_oid=file.git_oid,
        lfs=file.lfs,
    )

"""A commit in the manner of Hub clients: lines become a draft, a draft becomes a revision.

Small files arrive inside the lines and go straight to the store; large ones were sent before and
are named by digest. The resulting set of files is judged exactly like an imported directory.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any, BinaryIO

from stagerelease.catalog import checkpoint, queries, service
from stagerelease.catalog.headers import parse_header
from stagerelease.catalog.queries import RevisionRow, VariantRow
from stagerelease.catalog.rules import (
    HEAD_BYTES,
    MAX_FILES,
    REGULAR_LIMIT,
    NewFile,
    check_content,
    check_name,
    check_path,
    check_paths,
    check_ref,
    is_lfs,
    is_safetensors,
    kind_of,
    manifest_sha256,
    whole_kind,
)
from stagerelease.catalog.uploads import Begin, load_writable
from stagerelease.db.work import Work
from stagerelease.kernel.digests import git_blob_sha1, is_sha256, lfs_pointer
from stagerelease.kernel.errors import Invalid, NotFound, Stale, TooLarge, Unavailable
from stagerelease.storage.ports import BlobStore

LONGEST_LINE = 14_000_000  # 10 MB as base64, and the line around it
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Put:
    """Add or replace a file. ``size`` None: as large as the stored object is."""

    path: str
    sha256: str
    size: int | None
    git_oid: str | None  # known when the bytes came in the line


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove a file, or a folder with all below it."""

    path: str
    folder: bool


class Draft:
    """The lines of a commit as they come in; contents are in the store once a line is added."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self.message = ""
        self.parent: str | None = None
        self.operations: list[Put | Remove] = []

    def add_line(self, line: bytes) -> None:
        """Understand one line and store what it carries.

        Raises:
            Invalid: not the protocol's JSON, or a file that is never hosted.
            TooLarge: a file or the number of operations is beyond its limit.
        """
        if not line.strip():
            return
        if len(line) > LONGEST_LINE or len(self.operations) >= 2 * MAX_FILES:
            raise TooLarge("A commit has too much in it.", reason="upload.size")
        key, value = _parse(line)
        if key == "header":
            self._header(value)
        elif key == "file":
            self._file(value)
        elif key == "lfsFile":
            self._link(value)
        elif key in ("deletedFile", "deletedFolder"):
            path = check_path(_text(value, "path").rstrip("/"))
            self.operations.append(Remove(path, folder=key == "deletedFolder"))
        else:
            raise Invalid(f"There is no operation {key[:40]!r}.", reason="commit.line")

    def _header(self, value: Mapping[str, Any]) -> None:
        description = value.get("description") or ""
        self.message = f"{_text(value, 'summary')}\n\n{description}".strip()
        parent = value.get("parentCommit")
        self.parent = parent if isinstance(parent, str) and parent else None

    def _file(self, value: Mapping[str, Any]) -> None:
        path = check_path(_text(value, "path"))
        check_name(path)
        if value.get("encoding", "base64") != "base64":
            raise Invalid(f"The content of {path!r} is not base64.", reason="commit.line")
        try:
            content = base64.b64decode(_text(value, "content", empty=True), validate=True)
        except (ValueError, binascii.Error) as error:
            raise Invalid(
                f"The content of {path!r} is not base64.", reason="commit.line"
            ) from error
        if len(content) > REGULAR_LIMIT:
            raise TooLarge(f"{path!r} is larger than 10 MB.", reason="upload.size")
        check_content(path, content[:HEAD_BYTES])
        if is_safetensors(path):  # large ones are judged at commit; this one is here already
            parse_header(BytesIO(content), len(content))
        with self._blobs.writer() as writer:
            writer.write(content)
            stored = writer.commit()
        self.operations.append(Put(path, stored.sha256, stored.size, git_blob_sha1(content)))

    def _link(self, value: Mapping[str, Any]) -> None:
        path = check_path(_text(value, "path"))
        check_name(path)
        oid, size = _text(value, "oid"), value.get("size")
        if value.get("algo") != "sha256" or not is_sha256(oid):
            raise Invalid(f"The object of {path!r} is not named by SHA-256.", reason="commit.line")
        self.operations.append(Put(path, oid, size if isinstance(size, int) else None, None))


def _parse(line: bytes) -> tuple[str, Mapping[str, Any]]:
    try:
        item = json.loads(line)
        key, value = item["key"], item["value"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Invalid("A line of the commit cannot be read.", reason="commit.line") from error
    if not isinstance(key, str) or not isinstance(value, dict):
        raise Invalid("A line of the commit cannot be read.", reason="commit.line")
    return key, value


def _text(value: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not (text or empty):
        raise Invalid(f"A line of the commit has no {name!r}.", reason="commit.line")
    return text


def commit(
    begin: Begin, blobs: BlobStore, *, repo_id: str, branch: str, draft: Draft
) -> RevisionRow:
    """Record ``draft`` on top of ``branch`` and return its revision (the head, if nothing changes).

    Raises:
        Stale: the draft names a parent that is not the branch's head (any more).
        Invalid: what results cannot be published. NotFound: it removes what is not there.
    """
    check_ref(branch)
    if not draft.message:
        raise Invalid("The commit has no header with a summary.", reason="commit.header")
    for _ in range(ATTEMPTS):
        with begin(read_only=True) as work:
            variant = load_writable(work, repo_id)
            head = queries.find_ref(work, variant.id, branch)
            _check_parent(draft, head, branch)
            files = _apply(work, blobs, draft, head)
            architecture = queries.architecture_of(work, variant.id)
        parameters = _judge(blobs, variant, architecture, files)
        try:
            with begin() as work:
                load_writable(work, repo_id)
                return _record(work, blobs, variant, files, draft, branch, head, parameters)
        except Stale:
            if draft.parent is not None:
                raise
    raise Unavailable(f"{branch} of {repo_id} keeps moving.", reason="ref.moved")


def _check_parent(draft: Draft, head: str | None, branch: str) -> None:
    if draft.parent is not None and draft.parent != head:
        raise Stale(
            f"{branch} stands at {head[:8] if head else 'nothing'}, not at {draft.parent[:8]}.",
            reason="ref.moved",
            next_step="Fetch its present state and commit again.",
        )


def _apply(work: Work, blobs: BlobStore, draft: Draft, head: str | None) -> list[NewFile]:
    base = queries.files(work, head) if head else []
    files = {f.path: NewFile(f.path, f.size, f.sha256, f.git_oid, f.lfs, f.kind) for f in base}
    special = whole_kind(f.kind for f in base)
    digests = sorted({op.sha256 for op in draft.operations if isinstance(op, Put)})
    known = queries.find_blobs(work, digests)
    for operation in draft.operations:
        if isinstance(operation, Remove):
            _remove(files, operation)
            continue
        size = operation.size
        if operation.git_oid is None:  # an object sent before: the record says what it is
            row = known.get(operation.sha256)
            if row is None or (size is not None and size != row.size):
                raise Invalid(
                    f"The object of {operation.path!r} has not been uploaded.",
                    reason="upload.object",
                    next_step="Run the upload again.",
                )
            size = row.size
        file = _put(blobs, operation, int(size or 0))
        files[file.path] = replace(file, kind=special) if special else file
    check_paths(files)
    return list(files.values())


def _remove(files: dict[str, NewFile], operation: Remove) -> None:
    below = f"{operation.path}/"
    gone = [p for p in files if operation.folder and p.startswith(below)]
    if not operation.folder and operation.path in files:
        gone = [operation.path]
    if not gone:
        raise NotFound(
            f"A file with this name doesn't exist: {operation.path!r}.",  # clients look for this
            reason="file.unknown",
        )
    for path in gone:
        del files[path]


def _put(blobs: BlobStore, operation: Put, size: int) -> NewFile:
    path, lfs = operation.path, is_lfs(operation.path, size)
    with blobs.open(operation.sha256) as reader:
        content = reader.read(HEAD_BYTES)
        check_content(path, content)
        if lfs:
            git_oid = git_blob_sha1(lfs_pointer(operation.sha256, size))
        else:
            git_oid = operation.git_oid or git_blob_sha1(content + reader.read())
    return NewFile(path, size, operation.sha256, git_oid, lfs, kind_of(path))


def _judge(
    blobs: BlobStore,
    variant: VariantRow,
    architecture: Mapping[str, Any] | None,
    files: list[NewFile],
) -> int | None:
    digests = {f.path: f.sha256 for f in files}

    @contextmanager
    def opened(path: str) -> Iterator[BinaryIO]:
        with blobs.open(digests[path]) as reader:
            yield reader

    return checkpoint.judge(
        {f.path: f.size for f in files},
        opened,
        stated=None if whole_kind(f.kind for f in files) else variant.parameters,
        architecture=architecture,
        is_model=whole_kind(f.kind for f in files) is None,
    )


def _record(
    work: Work,
    blobs: BlobStore,
    variant: VariantRow,
    files: list[NewFile],
    draft: Draft,
    branch: str,
    head: str | None,
    parameters: int | None,
) -> RevisionRow:
    before = queries.revision(work, head) if head else None
    if before is not None and before.manifest_sha256 == manifest_sha256(files):
        return before
    return service.record_revision(
        work,
        variant_id=variant.id,
        files=files,
        message=draft.message,
        parent_id=head,
        ref=branch,
        parameters=parameters,
        blobs=blobs,
    )

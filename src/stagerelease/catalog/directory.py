"""Reads a directory somebody hands us, trusting nothing in it.

Every file is reached component by component without following links, is a regular file, and is
looked at before and after it is read: what was checked is what is copied. Writes nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from stagerelease.catalog.rules import (
    HEAD_BYTES,
    MAX_FILES,
    SKIPPED,
    check_content,
    check_name,
    check_path,
    check_paths,
)
from stagerelease.kernel.errors import Conflict, Invalid

Note = Callable[[str], None]
"""Told a sentence for the person who waits: what was left out, and why."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file below a directory and how it looked when it was checked."""

    path: str
    size: int
    stamp: tuple[int, ...]  # device, inode, size, mtime and ctime in ns


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def scan(directory: Path, *, note: Note) -> list[Found]:
    """Return the files below ``directory``, by path; each may be published as far as names tell.

    Git's and download tools' own top-level directories are left out and noted.

    Raises:
        Invalid: not a directory, empty, or it holds a link, a special file, a hidden file, a name
            that is never hosted, or names that collide. One refused file refuses the whole.
    """
    if not directory.is_dir():
        raise Invalid(f"{directory} is not a directory.", reason="directory")
    found = sorted(_walk(directory, "", note), key=lambda f: f.path)
    check_paths(f.path for f in found)
    return found


def _walk(directory: Path, prefix: str, note: Note, depth: int = 0) -> Iterator[Found]:
    if depth > MAX_FILES:  # unreachable on any path within MAX_PATH; a guard against recursion
        raise Invalid("The directories are nested too deeply.", reason="path.length")
    count = 0
    with os.scandir(directory / prefix) as entries:
        for entry in entries:
            count += 1
            if count > MAX_FILES:
                raise Invalid(
                    f"There are more than {MAX_FILES:,} files, the most one revision takes.",
                    reason="files.too-many",
                )
            path = prefix + entry.name
            if not prefix and entry.name in SKIPPED:
                note(f"Left out {entry.name}: it belongs to the tool that made this directory.")
                continue
            check_path(path)
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                raise Invalid(
                    f"{path!r} is a symbolic link, and links are not followed.",
                    reason="file.link",
                    next_step="Put the file itself there (cp -L).",
                )
            if stat.S_ISDIR(status.st_mode):
                yield from _walk(directory, f"{path}/", note, depth + 1)
            elif stat.S_ISREG(status.st_mode):
                check_name(path)
                yield Found(path, status.st_size, _stamp(status))
            else:
                raise Invalid(
                    f"{path!r} is not a regular file (a pipe, socket or device).",
                    reason="file.special",
                )


@contextmanager
def opened(directory: Path, found: Found) -> Iterator[BufferedReader]:
    """Open a found file for reading; on the way out look that it did not change meanwhile.

    Raises:
        Conflict: it is not (any more) the file that was found.
    """
    descriptor = _open_below(directory, found.path)
    with os.fdopen(descriptor, "rb") as reader:
        _same(found, descriptor)
        yield reader
        _same(found, descriptor)


def _same(found: Found, descriptor: int) -> None:
    if _stamp(os.fstat(descriptor)) != found.stamp:
        raise Conflict(
            f"{found.path!r} changed while it was being read.",
            reason="file.changed",
            next_step="Wait until whatever writes it is done, and import again.",
        )


def _open_below(directory: Path, path: str) -> int:
    """Open ``path`` below ``directory`` without following a link in any component."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    here = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        parts = path.split("/")
        for part in parts[:-1]:
            below = os.open(part, flags | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        return os.open(parts[-1], flags, dir_fd=here)
    except OSError as error:
        raise Conflict(
            f"{path!r} could not be opened: {os.strerror(error.errno or 0)}.",
            reason="file.changed",
            next_step="Look at the directory's permissions and that nothing else writes to it.",
        ) from error
    finally:
        os.close(here)


def check_heads(directory: Path, found: list[Found]) -> None:
    """Return only if no file's first bytes are those of something never hosted.

    Raises:
        Invalid: one is.
    """
    for file in found:
        with opened(directory, file) as reader:
            check_content(file.path, reader.read(HEAD_BYTES))

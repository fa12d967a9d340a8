"""Mirrors a repository from another Hub-compatible endpoint into the catalog.

The files are staged in a private directory and then imported like any other directory, by the same
function under the same refusals: what comes from a network gets no shortcut.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from stagerelease.catalog import queries
from stagerelease.catalog.directory import Note
from stagerelease.catalog.importer import Progress, import_directory, silent
from stagerelease.catalog.mirror import Mirror, Remote
from stagerelease.catalog.queries import RevisionRow
from stagerelease.catalog.rules import SKIPPED, check_name, check_paths, check_repo_id
from stagerelease.db.work import Works
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.actor import Actor
from stagerelease.kernel.errors import Invalid, Unavailable
from stagerelease.storage.ports import BlobStore

MARGIN = 64_000_000


def pull(
    works: Works,
    blobs: BlobStore,
    actor: Actor,
    repo_id: str,
    *,
    from_url: str,
    token: str | None = None,
    revision: str = "main",
    progress: Progress | None = None,
    source_repo: str | None = None,
    staging: Path | None = None,
    skip_refused: bool = False,
    kind: str | None = None,
    note: Note = silent,
    sleep: Callable[[float], None] = time.sleep,
    transport: httpx.BaseTransport | None = None,
) -> RevisionRow:
    """Mirror ``revision`` of a repository elsewhere onto ``main`` of ``repo_id`` here.

    ``source_repo`` is its name over there when it differs. ``staging`` is where files wait (a
    temporary directory when None). ``skip_refused`` leaves out files that are never hosted here,
    naming each, instead of refusing the whole.

    Raises:
        Invalid: the endpoint is not HTTPS or this machine, or a file may not be hosted.
        Corrupt: what came is not what was announced. Unavailable: no room, or it failed too often.
    """
    require(actor, Permission.CATALOG_WRITE)
    source = check_repo_id(source_repo or repo_id)
    with works.begin(actor, read_only=True) as work:
        queries.load_variant(work, repo_id)
    if staging is not None:
        staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    mirror = Mirror(from_url, source, token=token, sleep=sleep, transport=transport)
    with mirror, tempfile.TemporaryDirectory(prefix="pull-", dir=staging) as directory:
        commit = mirror.commit(revision)
        files = _wanted(mirror.files(commit), skip_refused=skip_refused, note=note)
        _check_room(Path(directory), sum(f.size for f in files))
        _fetch(mirror, commit, files, Path(directory), progress)
        return import_directory(
            works,
            blobs,
            actor,
            directory=Path(directory),
            repo_id=repo_id,
            message=f"Mirror of {source} at {commit} from {from_url}",
            progress=progress,
            kind=kind,
            note=note,
        )


def _wanted(files: Sequence[Remote], *, skip_refused: bool, note: Note) -> list[Remote]:
    wanted = []
    for file in files:
        if file.path.partition("/")[0] in SKIPPED:
            note(f"Left out {file.path}: it belongs to the tool that made the repository.")
            continue
        try:
            check_name(file.path)
        except Invalid as refused:
            if not skip_refused:
                raise
            note(f"Left out {file.path}: {refused.sentence}")
            continue
        wanted.append(file)
    check_paths(file.path for file in wanted)  # before any of them names a place on our disk
    return wanted


def _check_room(directory: Path, size: int) -> None:
    free = shutil.disk_usage(directory).free
    if size + MARGIN > free:
        raise Unavailable(
            f"The files have {size:,} bytes, and {free:,} are free in {directory.parent}.",
            reason="storage.full",
            retry_after=3600,
        )


def _fetch(
    mirror: Mirror,
    commit: str,
    files: Sequence[Remote],
    directory: Path,
    progress: Progress | None,
) -> None:
    total, done = sum(f.size for f in files), 0
    for file in files:
        target = directory / file.path
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = done

        def step(have: int, before: int = before, path: str = file.path) -> None:
            if progress is not None:
                progress(before + have, total, path)

        mirror.fetch(commit, file, target, progress=step)
        done += file.size

"""Windows over local files: right bytes from every state of memory, and a bounded page table."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stagerelease.kernel.errors import Corrupt, NotFound
from stagerelease.storage import windows
from stagerelease.storage.windows import COLD, WINDOW, CopiedReader, MappedReader, Windows

SIZE = 5 * WINDOW + 4097


@pytest.fixture
def file() -> Iterator[Path]:
    """Give a file on a disk: what lies in memory anyway cannot be forgotten by the kernel."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        path = Path(directory) / "blob"
        path.write_bytes(os.urandom(SIZE))
        yield path


def read_all(reader: MappedReader | CopiedReader, start: int, end: int) -> bytes:
    parts = []
    while start < end:
        length = reader.span(start, end)
        view = reader.ready(start, length)
        parts.append(view if view is not None else reader.load(start, length))
        start += length
    return b"".join(parts)


def mapped_kilobytes(path: Path) -> int:
    """Return how much of ``path`` is in this process's page table."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ")[0]:
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def touch(view: memoryview) -> None:
    sum(view[::4096])


@pytest.mark.parametrize("kind", ["mapped", "copied"])
@pytest.mark.parametrize("state", ["hot", "cold", "silent kernel"])
def test_any_part_reads_back_exactly(file, kind, state, monkeypatch):
    data = file.read_bytes()
    if state == "silent kernel":  # neither cachestat nor mincore nor RWF_NOWAIT to go by
        monkeypatch.setattr(MappedReader, "_is_resident", lambda *_: False)
        monkeypatch.setattr(CopiedReader, "_peek", lambda *_: None)
    reader = Windows().open(file, SIZE) if kind == "mapped" else CopiedReader(file, SIZE)
    for start, end in [
        (0, SIZE),
        (1, 2),
        (WINDOW - 1, WINDOW + 1),
        (4096, SIZE - 1),
        (SIZE - 1, SIZE),
    ]:
        if state == "cold":
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
        assert read_all(reader, start, end) == data[start:end]
    reader.close()


def test_what_is_not_in_memory_is_not_ready_and_what_was_loaded_is_after_a_while(file):
    reader = Windows().open(file, SIZE)
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    assert reader.ready(0, WINDOW) is None
    reader.load(0, WINDOW)
    assert reader.ready(0, WINDOW) is None  # the kernel may still be reading ahead
    file.read_bytes()
    reader._open().cold_until -= COLD
    assert reader.ready(0, WINDOW) is not None
    reader.close()


def test_the_page_table_stays_within_the_budget_and_evicted_slices_stay_valid(file):
    data = file.read_bytes()
    shared = Windows(budget=2 * WINDOW)
    readers = [shared.open(file, SIZE) for _ in range(3)]
    assert shared.open_files == 1
    held = []
    for reader in readers:
        for start in range(0, SIZE, WINDOW):
            view = reader.ready(start, min(WINDOW, SIZE - start))
            assert view is not None
            reader.passing(start)
            touch(view)
            held.append((start, view))
            assert mapped_kilobytes(file) <= 2 * WINDOW // 1024 + 64
    for reader in readers:
        reader.close()
    assert shared.open_files == 0
    assert all(view == data[start : start + len(view)] for start, view in held)
    del held, view
    assert mapped_kilobytes(file) == 0


@pytest.mark.parametrize("kind", ["mapped", "copied"])
def test_a_file_cut_short_is_said_to_be_corrupt(file, kind):
    reader = Windows().open(file, SIZE) if kind == "mapped" else CopiedReader(file, SIZE)
    os.truncate(file, WINDOW + 10)
    with pytest.raises(Corrupt):
        reader.ready(WINDOW, WINDOW)
    with pytest.raises(Corrupt):
        reader.load(WINDOW, WINDOW)
    reader.close()
    with pytest.raises(Corrupt):
        windows.CopiedReader(file, SIZE)
    file.unlink()
    with pytest.raises(NotFound):
        Windows().open(file, SIZE)

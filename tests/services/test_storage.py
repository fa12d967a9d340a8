"""The local blob store: names are digests, commits are whole, crashes leave nothing half."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stagerelease.kernel.errors import Invalid, NotFound, Unavailable
from stagerelease.storage.local import LocalBlobStore
from stagerelease.storage.ports import BlobStore, LocalBlob, RemoteBlob

ABSENT = "0" * 64
FUTURE = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "store")


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(store: BlobStore, data: bytes, step: int = 1 << 20) -> str:
    with store.writer() as writer:
        for start in range(0, len(data), step):
            writer.write(data[start : start + step])
        return writer.commit().sha256


def files(store: LocalBlobStore) -> list[Path]:
    return sorted(path for path in store.root.rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [0, 1, 4095, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, (9 << 20) + 7])
@pytest.mark.parametrize("step", [1 << 20, 3_333_333, 64 << 20])
def test_what_goes_in_comes_out_under_its_digest(store, size, step):
    data = os.urandom(size)
    with store.writer() as writer:
        for start in range(0, size, step):
            writer.write(memoryview(data)[start : start + step])
        assert writer.size == size
        stored = writer.commit(sha(data))
    assert (stored.sha256, stored.size) == (sha(data), size)
    located = store.locate(stored.sha256)
    assert isinstance(located, LocalBlob)
    assert located.size == size == store.size(stored.sha256) == store.size_of(stored.sha256)
    assert located.path.read_bytes() == data
    with store.open(stored.sha256) as reader:
        reader.seek(size // 2)
        assert reader.read() == data[size // 2 :]
    assert store.verify(stored.sha256)
    assert files(store) == [located.path]


def test_files_and_directories_are_readable_by_the_group_only(store):
    before = os.umask(0o077)
    try:
        path = store.locate(put(store, b"weights")).path
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    for directory in (path.parent, path.parent.parent, store.root):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o750


def test_leaving_without_commit_leaves_nothing(store):
    with store.writer() as writer:
        writer.write(b"x" * (5 << 20))
        assert len(files(store)) == 1
    assert files(store) == []
    with pytest.raises(TypeError), store.writer() as writer:
        writer.write("not bytes")
    assert files(store) == []


def test_bytes_that_are_not_what_was_announced_are_refused(store):
    with store.writer() as writer:
        writer.write(b"these")
        with pytest.raises(Invalid, match=sha(b"these")):
            writer.commit(sha(b"those"))
    assert files(store) == []


def test_two_writers_of_the_same_bytes_end_with_one_copy(store):
    data = os.urandom(3 << 20)
    barrier = threading.Barrier(4)

    def write() -> None:
        with store.writer() as writer:
            writer.write(data)
            barrier.wait()
            assert writer.commit().sha256 == sha(data)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(store) == [store.locate(sha(data)).path]
    assert store.locate(sha(data)).path.stat().st_nlink == 1
    assert store.verify(sha(data))


def test_storing_again_heals_a_truncated_blob_and_keeps_a_good_one(store):
    digest = put(store, b"abcdef")
    path = store.locate(digest).path
    inode = path.stat().st_ino
    put(store, b"abcdef")
    assert path.stat().st_ino == inode
    os.truncate(path, 3)
    put(store, b"abcdef")
    assert path.read_bytes() == b"abcdef"


@pytest.mark.parametrize(
    "name", ["", "a" * 63, "a" * 65, "A" * 64, "../" * 21 + "a", "g" * 64, "a" * 64 + "\n"]
)
def test_only_digests_are_names(store, name):
    for call in (store.locate, store.open, store.has, store.size, store.delete, store.verify):
        with pytest.raises(Invalid):
            call(name)


def test_what_is_absent_is_said_to_be_absent(store):
    for call in (store.locate, store.open, store.size, store.verify):
        with pytest.raises(NotFound):
            call(ABSENT)
    assert not store.has(ABSENT)
    assert store.size_of(ABSENT) is None
    store.delete(ABSENT)  # deleting is something one may repeat


def test_a_link_in_the_place_of_a_blob_is_not_followed(store, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    digest = put(store, b"x")
    path = store.locate(digest).path
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(Unavailable):
        store.locate(digest)
    with pytest.raises(Unavailable):
        store.open(digest)


def test_delete_lets_open_readers_finish(store):
    digest = put(store, b"to the end")
    with store.open(digest) as reader:
        store.delete(digest)
        assert not store.has(digest)
        assert reader.read() == b"to the end"


def test_digests_are_listed_in_order(store):
    digests = [put(store, str(number).encode()) for number in range(50)]
    (store.root / "sha256" / "ab").mkdir(exist_ok=True)
    (store.root / "sha256" / "ab" / "README").write_text("not a blob")
    assert list(store.list_digests()) == sorted(digests)


def test_verify_finds_one_flipped_bit_and_tells_how_far_it_is(store):
    data = bytearray(os.urandom((2 << 20) + 5))
    digest = put(store, bytes(data))
    seen: list[int] = []
    assert store.verify(digest, seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(data)
    with store.locate(digest).path.open("r+b") as file:
        file.seek(len(data) - 1)
        file.write(bytes([data[-1] ^ 1]))
    assert not store.verify(digest)


def test_partials_of_dead_writers_go_and_those_of_living_ones_stay(store):
    dead = store.root / "partial" / "feedface"
    dead.write_bytes(b"left behind")
    long_ago = time.time() - 100_000
    os.utime(dead, (long_ago, long_ago))
    with store.writer() as writer:
        writer.write(b"slow")
        (living,) = [path for path in files(store) if path != dead]
        os.utime(living, (long_ago, long_ago))
        limit = datetime.now(UTC) - timedelta(days=1)
        assert {p.name for p in store.list_partials(limit)} == {dead.name, living.name}
        assert store.list_partials(limit - timedelta(days=30)) == []
        (cleared,) = store.clear_partials(limit)
        assert (cleared.name, cleared.size) == ("feedface", 11)
        assert writer.commit().sha256 == sha(b"slow")
    assert [path.name for path in files(store)] == [sha(b"slow")]


def test_a_full_disk_is_a_sentence_and_not_a_traceback(store, monkeypatch):
    def no_room(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with store.writer() as writer:
        writer.write(b"x" * 10)
        monkeypatch.setattr(os, "write", no_room)
        with pytest.raises(Unavailable, match="No space left"):
            writer.commit()
    monkeypatch.undo()
    assert files(store) == []


def test_a_signed_url_is_not_in_a_representation():
    assert "secret" not in repr(RemoteBlob(url="https://bucket.example/x?signature=secret"))


WRITER = """
import os, sys
from pathlib import Path
from stagerelease.storage.local import LocalBlobStore
store = LocalBlobStore(Path(sys.argv[1]))
block = os.urandom(1 << 16)
print("ready", flush=True)
while True:
    with store.writer() as writer:
        for number in range(70):
            writer.write(os.urandom(8) + block)
        writer.commit()
"""


def test_kill_minus_nine_at_any_moment_leaves_whole_blobs_and_clearable_partials(tmp_path):
    """Twenty kills at different moments of a writer that does nothing but write and commit."""
    root = tmp_path / "store"
    left_behind = 0
    for kill in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.003 * kill)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        partials = list((root / "partial").iterdir())
        left_behind += len(partials)
        assert len(partials) <= 1
        store = LocalBlobStore(root)
        assert len(store.clear_partials(FUTURE)) == len(partials)
        assert list((root / "partial").iterdir()) == []
    found = list(store.list_digests())
    assert all(store.verify(digest) for digest in found)
    # The test has seen both sides: kills in the middle of a blob, and blobs that got through.
    assert left_behind > 0
    assert found

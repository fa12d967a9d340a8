"""Reads local files for a server loop: at memory speed when hot, and never waiting when cold.

Two readers with one shape. ``MappedReader`` hands out slices of a shared memory map, copied once,
by the kernel, from the page cache to the socket. ``CopiedReader`` hands out plain buffers, for
everything that would touch the bytes in user space first (TLS, other servers).

Both answer ``ready`` on the loop (a view, or None when the disk would be waited for) and ``load``
in a thread. What this module must not do is let user space touch a mapped page: the kernel turns a
page that a truncation took away into an error code, user space gets SIGBUS and the process dies.

Windows of all maps together stay within a budget, because mapped pages count as resident memory;
taking a window out of the page table loses nothing, it is mapped again when it is touched.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

from stagerelease.kernel.errors import Corrupt, NotFound

WINDOW = 2 << 20
"""Most bytes of one mapped slice, and the grid slices lie on. Larger writes wake clients less."""
COPY = 512 << 10
"""Most bytes of one copied slice."""
COLD = 0.1
"""Seconds after a read from disk in which a file is read in threads only: touching pages while the
kernel reads ahead would wait for it, or start the next read-ahead, on the loop."""
BUDGET = 48 << 20
"""Bytes of all windows kept in the page table."""


_PAGE = mmap.PAGESIZE
_MADV_DONTNEED = 4

_libc = ctypes.PyDLL(None)  # keeps the interpreter's lock: these calls never wait
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
_CACHESTAT = 451  # Linux 6.5, one number on every architecture


_CacheStat = ctypes.c_uint64 * 5  # cached, dirty, in writeback, evicted, recently evicted


class Reader(Protocol):
    """One body's way through one file. ``load`` and ``close`` belong in a thread."""

    def span(self, offset: int, end: int) -> int:
        """Return how many bytes to ask for at ``offset`` when reading up to ``end``."""
        ...

    def ready(self, offset: int, length: int) -> memoryview | None:
        """Return the bytes when they are in memory, else None. Never waits for the disk.

        Raises:
            Corrupt: the file is shorter than it was.
        """
        ...

    def load(self, offset: int, length: int) -> memoryview:
        """Return the bytes, waiting for the disk.

        Raises:
            Corrupt: the file is shorter than it was.
        """
        ...

    def passing(self, offset: int) -> None:
        """Note that the slice at ``offset`` is handed on now, and all before it have left."""
        ...

    def close(self) -> None:
        """Let go of the file; slices already handed out stay valid."""
        ...


class _Map:
    """One file mapped once, however many bodies read it."""

    def __init__(self, key: tuple[int, int, int], descriptor: int, status: os.stat_result) -> None:
        self.key = key
        self.descriptor = descriptor
        self.users = 0
        self.has_cachestat = True
        self.cold_until = 0.0  # monotonic
        whole = mmap.mmap(descriptor, status.st_size, access=mmap.ACCESS_READ)
        self.address = _address(whole)
        self.view: memoryview | None = memoryview(whole)
        # Of a file this process neither owns nor may write, mincore(2) says that all is resident.
        self.trusts_mincore = status.st_uid == os.geteuid() or os.access(
            f"/proc/self/fd/{descriptor}", os.W_OK
        )


class Windows:
    """The maps of this process and the windows of them that are in its page table."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._most = max(1, budget // WINDOW)
        self._maps: dict[tuple[int, int, int], _Map] = {}
        self._recent: OrderedDict[tuple[_Map, int], None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def open_files(self) -> int:
        """Return how many files are mapped now."""
        return len(self._maps)

    def open(self, path: Path, size: int) -> MappedReader:
        """Return a reader of the non-empty file at ``path``. Blocks: call it in a thread.

        Raises:
            NotFound: the file is gone.
            Corrupt: the file is shorter than ``size``.
        """
        descriptor, status = _open(path, size)
        key = (status.st_dev, status.st_ino, status.st_size)
        with self._lock:
            found = self._maps.get(key)
            if found is None:
                found = self._maps[key] = _Map(key, descriptor, status)
            else:
                os.close(descriptor)
            found.users += 1
        return MappedReader(self, found)

    def note(self, of: _Map, index: int) -> None:
        """Remember that a window is touched now, and drop the one untouched longest."""
        with self._lock:
            self._recent[of, index] = None
            self._recent.move_to_end((of, index))
            if len(self._recent) > self._most:
                (old, place), _ = self._recent.popitem(last=False)
                _drop(old, place)

    def leave(self, of: _Map, index: int) -> None:
        """Drop a window that was dropped before and touched again by a slow connection."""
        with self._lock:
            if (of, index) not in self._recent:
                _drop(of, index)

    def release(self, of: _Map) -> None:
        """Count one reader less; the last one closes the file and lets the map go."""
        with self._lock:
            of.users -= 1
            if of.users:
                return
            del self._maps[of.key]
            for entry in [entry for entry in self._recent if entry[0] is of]:
                del self._recent[entry]
        os.close(of.descriptor)
        of.view = None  # unmapped when the last slice of it has left its socket


def _drop(of: _Map, index: int) -> None:
    """Take a window out of the page table; nobody's bytes change, the next touch maps it again."""
    start = index * WINDOW
    _libc.madvise(of.address + start, min(WINDOW, of.key[2] - start), _MADV_DONTNEED)


class MappedReader:
    """Hands out slices of a map. Only a kernel may touch them: see the module's first words."""

    def __init__(self, windows: Windows, of: _Map) -> None:
        self._windows = windows
        self._map: _Map | None = of
        self._index = -1  # the window passing now
        self._resident = ctypes.create_string_buffer(WINDOW // _PAGE + 1)
        self._lock = threading.Lock()  # close() must not overtake load()

    def span(self, offset: int, end: int) -> int:
        """Return the bytes up to the next grid line, so that bodies share windows."""
        return min(end, (offset // WINDOW + 1) * WINDOW) - offset

    def ready(self, offset: int, length: int) -> memoryview | None:
        """Return the slice when every page of it is in memory."""
        of = self._open()
        _check_length(of.descriptor, offset + length)
        if time.monotonic() < of.cold_until or not self._is_resident(of, offset, length):
            return None
        return None if of.view is None else of.view[offset : offset + length]

    def passing(self, offset: int) -> None:
        """Keep the page table within its budget."""
        of, index = self._open(), offset // WINDOW
        if index != self._index:
            self._leave(of)
            self._index = index
        self._windows.note(of, index)

    def load(self, offset: int, length: int) -> memoryview:
        """Read the bytes: sequential reads get the kernel's best read-ahead, page faults do not."""
        with self._lock:
            of = self._open()
            if not self._is_resident(of, offset, length):
                of.cold_until = time.monotonic() + COLD
            return _read(of.descriptor, offset, length)

    def close(self) -> None:
        """Let go of the map."""
        with self._lock:
            of, self._map = self._map, None
        if of is not None:
            self._leave(of)
            self._windows.release(of)

    def _open(self) -> _Map:
        if self._map is None:
            raise ValueError("the reader is closed")
        return self._map

    def _leave(self, of: _Map) -> None:
        if self._index >= 0:
            self._windows.leave(of, self._index)

    def _is_resident(self, of: _Map, offset: int, length: int) -> bool:
        """Tell whether all pages are in memory; False when the kernel will not say."""
        start = offset - offset % _PAGE
        length += offset - start
        pages = -(-length // _PAGE)
        if of.has_cachestat:  # a tenth of the price of mincore(2), which walks page by page
            asked, told = (ctypes.c_uint64 * 2)(start, length), _CacheStat()
            if _libc.syscall(_CACHESTAT, of.descriptor, asked, told, 0) == 0:
                return int(told[0]) >= pages
            of.has_cachestat = False  # an older kernel, or a file that is not ours
        if not of.trusts_mincore:
            return False
        if _libc.mincore(of.address + start, length, self._resident) != 0:
            return False
        return self._resident[:pages].count(b"\x01") == pages


class CopiedReader:
    """Hands out buffers of its own, which anybody may touch."""

    def __init__(self, path: Path, size: int) -> None:
        self._descriptor, _ = _open(path, size)
        self._may_peek = True
        self._cold_until = 0.0  # monotonic
        self._lock = threading.Lock()

    def span(self, offset: int, end: int) -> int:
        """Return the bytes left, at most one buffer of them."""
        return min(end - offset, COPY)

    def ready(self, offset: int, length: int) -> memoryview | None:
        """Return a copy when it can be read without waiting."""
        _check_length(self._descriptor, offset + length)
        if time.monotonic() < self._cold_until:
            return None
        return self._peek(offset, length)

    def load(self, offset: int, length: int) -> memoryview:
        """Read the bytes."""
        with self._lock:
            found = self._peek(offset, length)
            if found is None:
                self._cold_until = time.monotonic() + COLD
                found = _read(self._descriptor, offset, length)
            return found

    def passing(self, offset: int) -> None:
        """Have nothing to note: buffers go when their last reader does."""

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1

    def _peek(self, offset: int, length: int) -> memoryview | None:
        if not self._may_peek:
            return None
        buffer = bytearray(length)
        try:
            count = os.preadv(self._descriptor, [buffer], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self._may_peek = False  # this file system cannot say: always read in a thread
            return None
        return memoryview(buffer) if count == length else None


class _Buffer(ctypes.Structure):
    """``Py_buffer`` of the stable ABI (Python 3.11, docs/c-api/buffer)."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def _address(whole: mmap.mmap) -> int:
    """Return where ``whole`` begins; a read-only map gives its address to nobody but this call."""
    buffer = _Buffer()
    if ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(whole), ctypes.byref(buffer), 0) != 0:
        raise ValueError("the map has no buffer")
    address = int(buffer.buf)
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    return address


def _open(path: Path, size: int) -> tuple[int, os.stat_result]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise NotFound(f"The stored bytes {path.name} are gone.", reason="blob.not-found") from None
    try:
        _check_length(descriptor, size)
        return descriptor, os.fstat(descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _check_length(descriptor: int, least: int) -> None:
    held = os.fstat(descriptor).st_size
    if held < least:
        raise Corrupt(
            f"A stored file is cut short: {held} bytes are left, {least} are needed.",
            reason="blob.truncated",
            next_step="Run the storage check and import the file again.",
        )


def _read(descriptor: int, offset: int, length: int) -> memoryview:
    buffer = memoryview(bytearray(length))
    done = 0
    while done < length:
        count = os.preadv(descriptor, [buffer[done:]], offset + done)
        if count == 0:
            _check_length(descriptor, offset + length)
        done += count
    return buffer

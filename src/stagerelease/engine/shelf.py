"""The checkpoints in memory: loaded on first use, the longest unused forgotten to make room.

Tasks of one event loop borrow; a thread of its own loads. What is borrowed or has sequences under
way is never forgotten: a sequence that joined a forgotten model would wait for ever. So a model
that is always asked would never leave; one that had its turn takes nothing new for a while when
another does not fit beside it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog
import torch

from stagerelease.engine.batching import CHUNK, Scheduler
from stagerelease.engine.checkpoint import Opened, open_checkpoint
from stagerelease.engine.gpt2 import Gpt2
from stagerelease.engine.linear import Dtype
from stagerelease.engine.pages import give_back
from stagerelease.engine.ports import Checkpoint, ModelState
from stagerelease.engine.runner import Runner
from stagerelease.kernel.errors import DomainError, Invalid, Unavailable
from stagerelease.storage.ports import BlobStore

log = structlog.get_logger(__name__)

_ITEM = {"fp32": 4, "bf16": 2, "int8": 1}
TURN = 30.0
"""Seconds a model in use keeps its memory at least before it yields to one that needs it."""
COME_AGAIN = 15
"""Seconds after which who found no memory is told to come again."""
YIELD = 2.0 * COME_AGAIN
"""Seconds a model takes nothing new then, so that who was told to come again finds room."""
REST = 10
"""How many times as long as a load took that failed it is not tried again."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much may be held: ``memory`` bytes of weights and stores, ``store_memory`` of them in one
    model's store, ``sequences`` at once and ``queue`` waiting for each; ``patience`` in seconds.
    """

    memory: int
    store_memory: int
    sequences: int
    queue: int
    patience: float


@dataclass(eq=False, slots=True)
class _Entry:
    """A checkpoint that is loading or ready; ``users`` have borrowed it or wait to."""

    checkpoint: Checkpoint
    loaded: asyncio.Future[Runner]
    began: float = field(default_factory=time.monotonic)
    progress: float = 0.0
    bytes: int = 0
    runner: Runner | None = None
    users: int = 0
    used_at: float = 0.0
    ready_at: float = 0.0
    yields_until: float = 0.0

    @property
    def idle(self) -> bool:
        """Tell whether it may be forgotten."""
        return self.runner is not None and not self.users and self.runner.idle

    @property
    def last_used(self) -> float:
        """Return when it was borrowed or computed last."""
        return max(self.used_at, self.runner.used_at if self.runner is not None else 0.0)


@dataclass(frozen=True, slots=True)
class _Failed:
    """Why a checkpoint could not be loaded, and until when it is not tried again."""

    why: Invalid
    until: float


class Shelf:
    """Lends loaded checkpoints. ``threads`` is what the computing thread uses, for the checks made
    while loading.
    """

    def __init__(
        self, blobs: BlobStore, room: Room, *, dtype: Dtype, device: torch.device, threads: int
    ) -> None:
        self._blobs, self._room, self._dtype = blobs, room, dtype
        self._device, self._threads = device, threads
        self._entries: dict[str, _Entry] = {}
        self._failed: dict[str, _Failed] = {}
        self._lock = threading.Lock()  # of the table and of who has borrowed what
        self._loader = ThreadPoolExecutor(1, "load")
        self._past: Counter[str] = Counter()

    @asynccontextmanager
    async def borrow(self, checkpoint: Checkpoint) -> AsyncGenerator[Runner, None]:
        """Lend a checkpoint, which stays until it is given back and what was submitted to it has
        ended; the first to ask has it loaded.

        Raises:
            Invalid: it cannot be computed (``engine.model``).
            Unavailable: it is not loaded yet (``engine.loading``), does not fit beside those in
                use or makes room for another (``engine.memory``).
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            entry = self._entries.get(checkpoint.commit)
            new = entry is None
            if entry is not None and entry.yields_until > time.monotonic():
                raise _no_memory(f"{checkpoint.repo_id} makes room for another model now.")
            if entry is None:
                self._require_untried(checkpoint)
                entry = _Entry(checkpoint, loop.create_future())
                self._entries[checkpoint.commit] = entry
            entry.users += 1
        try:
            if new:
                entry.loaded.add_done_callback(_heard)
                self._loader.submit(_apart, self._load, entry, loop)
            yield entry.runner or await self._loaded_runner(entry)
        finally:
            with self._lock:
                entry.users -= 1
                entry.used_at = time.monotonic()

    def _require_untried(self, checkpoint: Checkpoint) -> None:
        failed = self._failed.get(checkpoint.commit)
        if failed is not None and failed.until > time.monotonic():
            raise failed.why.with_traceback(None)

    def runners(self) -> list[Runner]:
        """Return those that are ready."""
        with self._lock:
            return [e.runner for e in self._entries.values() if e.runner is not None]

    def states(self) -> tuple[ModelState, ...]:
        """Return how ready each is."""
        with self._lock:
            entries = list(self._entries.values())
        return tuple(
            ModelState(
                e.checkpoint.commit,
                "ready" if e.runner else "loading",
                e.progress,
                e.bytes,
                self._dtype,
            )
            for e in entries
        )

    def counts(self) -> Counter[str]:
        """Return what all models have done, forgotten ones too."""
        with self._lock:
            runners = [e.runner for e in self._entries.values() if e.runner is not None]
            total = Counter(self._past)
        for runner in runners:
            total.update(dict(runner.counts))  # a copy: the computing thread adds to it
        return total

    def close(self) -> None:
        """Load nothing more."""
        self._loader.shutdown(wait=False, cancel_futures=True)

    async def _loaded_runner(self, entry: _Entry) -> Runner:
        try:
            return await asyncio.wait_for(asyncio.shield(entry.loaded), self._room.patience)
        except TimeoutError:
            spent = time.monotonic() - entry.began
            left = spent / entry.progress - spent if entry.progress > 0.05 else 10.0
            raise Unavailable(
                f"{entry.checkpoint.repo_id} is being loaded: {entry.progress:.0%} is done.",
                retry_after=min(60, max(1, round(left))),
                reason="engine.loading",
            ) from None

    # In the loader's thread

    def _load(self, entry: _Entry, loop: asyncio.AbstractEventLoop) -> None:
        result: Runner | DomainError
        try:
            torch.set_grad_enabled(False)
            torch.set_num_threads(self._threads)
            result = self._make_runner(entry)
        except DomainError as error:
            result = error
        except MemoryError:
            log.exception("no memory to load a checkpoint", commit=entry.checkpoint.commit)
            result = _no_memory(f"{entry.checkpoint.repo_id} does not fit in this machine's memory")
        except BaseException:  # whatever a file may hold (a library's panic is no Exception)
            log.exception("a checkpoint could not be loaded", commit=entry.checkpoint.commit)
            result = Invalid("This checkpoint cannot be loaded.", reason="engine.model")
        give_back()  # copies made on the way, and what the forgotten ones held
        loop.call_soon_threadsafe(self._finish, entry, result)

    def _finish(self, entry: _Entry, result: Runner | DomainError) -> None:
        """Put what was loaded where it can be borrowed. In the event loop."""
        if isinstance(result, DomainError):
            with self._lock:
                del self._entries[entry.checkpoint.commit]
                if isinstance(result, Invalid):
                    self._note_failure(entry, result)
            entry.loaded.set_exception(result)
            return
        with self._lock:
            entry.runner, entry.progress, entry.used_at = result, 1.0, time.monotonic()
            entry.ready_at = entry.used_at
        entry.loaded.set_result(result)
        log.info(
            "checkpoint loaded",
            commit=entry.checkpoint.commit,
            seconds=round(time.monotonic() - entry.began, 2),
            bytes=entry.bytes,
            dtype=self._dtype,
        )

    def _note_failure(self, entry: _Entry, why: Invalid) -> None:
        """Remember that a load failed, so that those who ask again and again leave the loader to
        others. Under the lock.
        """
        now = time.monotonic()
        self._failed = {name: old for name, old in self._failed.items() if old.until > now}
        until = now + REST * (now - entry.began)
        self._failed[entry.checkpoint.commit] = _Failed(why, until)

    def _make_runner(self, entry: _Entry) -> Runner:
        opened = open_checkpoint(self._blobs, entry.checkpoint)
        shape, most = opened.shape, self._room.sequences
        whole = -(-shape.positions // CHUNK) * CHUNK
        room = max(self._room.store_memory // shape.token_bytes, whole)
        room = min(room, most * whole)
        self._make_room(entry, _weight_bytes(opened, self._dtype) + room * shape.token_bytes)
        slots = slots_of(room, whole, most, paged=self._device.type == "cpu")
        model = Gpt2(shape, opened.weights, dtype=self._dtype, slots=slots, device=self._device)

        def progress(share: float) -> None:
            entry.progress = share

        model.prepare(progress)
        scheduler = Scheduler(slots=slots, room=room, queue=self._room.queue)
        return Runner(model, opened.vocabulary, scheduler)

    def _make_room(self, entry: _Entry, size: int) -> None:
        """Forget idle models, the longest unused first, until ``size`` bytes fit; if they would not
        fit even so, forget none.

        Raises:
            Unavailable: they do not fit beside those in use (``engine.memory``).
        """
        if size > self._room.memory:
            raise Unavailable(
                f"{entry.checkpoint.repo_id} needs {size / 2**30:.2f} GiB, more than the "
                f"{self._room.memory / 2**30:.2f} GiB there are for models: it cannot be served "
                "here.",
                retry_after=3600,
                reason="engine.memory",
            )
        with self._lock:
            others = [e for e in self._entries.values() if e is not entry]
            idle = [e for e in others if e.idle]
            in_use = sum(e.bytes for e in others) - sum(e.bytes for e in idle)
            if in_use + size > self._room.memory:
                self._let_yield([e for e in others if e not in idle], in_use + size)
                raise _no_memory(
                    f"{entry.checkpoint.repo_id} needs {size / 2**30:.2f} GiB, and what is in use "
                    f"leaves {max(0, self._room.memory - in_use) / 2**30:.2f} GiB."
                )
            idle.sort(key=lambda e: -e.last_used)
            while in_use + sum(e.bytes for e in idle) + size > self._room.memory:
                last = idle.pop()
                del self._entries[last.checkpoint.commit]
                if last.runner is not None:
                    self._past.update(last.runner.counts)
                log.info("checkpoint forgotten to make room", commit=last.checkpoint.commit)
            entry.bytes = size

    def _let_yield(self, in_use: Sequence[_Entry], needed: int) -> None:
        """Have those that had their turn take nothing new, the longest ready first, if their room
        would be enough. Under the lock.
        """
        now, yielding = time.monotonic(), []
        for entry in sorted(in_use, key=lambda e: e.ready_at):
            if entry.runner is None or now - entry.ready_at < TURN:
                continue
            yielding.append(entry)
            needed -= entry.bytes
            if needed <= self._room.memory:
                for one in yielding:
                    one.yields_until = now + YIELD
                return


def slots_of(room: int, whole: int, most: int, *, paged: bool) -> int:
    """Return how many sequences of ``whole`` tokens a store of ``room`` tokens has places for.

    Where memory is taken page by page, short sequences share it; elsewhere each place is allocated
    as a whole.
    """
    return max(1, min(most, room // (CHUNK if paged else whole)))


def _weight_bytes(opened: Opened, dtype: Dtype) -> int:
    return opened.parameters * _ITEM[dtype]


def _apart(work: Callable[..., None], *args: object) -> None:
    """Run ``work`` in a thread that ends with it. libgomp keeps helpers for every thread that has
    computed, and counts them: with more than there are cores, all of them sleep at each barrier
    instead of waiting awake, and a step of 30 ms takes 42.
    """
    thread = threading.Thread(target=work, args=args, name="load", daemon=True)
    thread.start()
    thread.join()


def _heard(future: asyncio.Future[Runner]) -> None:
    """Mark a failed load as heard of, for when whoever asked has gone."""
    if not future.cancelled():
        future.exception()


def _no_memory(sentence: str) -> Unavailable:
    return Unavailable(sentence, retry_after=COME_AGAIN, reason="engine.memory")

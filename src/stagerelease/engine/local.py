"""The engine on this machine: checkpoints load on first use, one thread computes, tasks listen.

It lives in a process of its own (``stagerelease infer``): the only one that loads torch.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
import torch

from stagerelease.engine.answering import Answer, Figures, Stream
from stagerelease.engine.batching import CHUNK, Line, Scheduler
from stagerelease.engine.checkpoint import Opened, open_checkpoint
from stagerelease.engine.gpt2 import Gpt2
from stagerelease.engine.linear import Dtype
from stagerelease.engine.ports import (
    Admitted,
    Checkpoint,
    Ended,
    EngineState,
    Event,
    Job,
    ModelState,
    Piece,
    Prompt,
    ScoredToken,
)
from stagerelease.engine.runner import Runner
from stagerelease.kernel.errors import DomainError, Invalid, Unavailable
from stagerelease.storage.ports import BlobStore

log = structlog.get_logger(__name__)

_ITEM = {"fp32": 4, "bf16": 2, "int8": 1}
TTFT_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds, in seconds, of the histogram of times to the first token."""


def default_dtype() -> Dtype:
    """Return bf16 where the processor multiplies it in hardware, else fp32."""
    if torch.cuda.is_available():
        return "bf16"
    capable = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bf16" if capable is not None and capable() else "fp32"


def default_memory() -> int:
    """Return six tenths of this machine's memory, in bytes."""
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 0.6)


@dataclass(frozen=True, slots=True)
class Options:
    """What an operator can decide of the local engine.

    ``memory`` bounds weights and key-value stores together, in bytes; ``store_memory`` is one
    model's share for keys and values. ``patience``: how long a first request waits for its model
    before it is told to come again, in seconds.
    """

    dtype: Dtype | Literal["auto"] = "auto"
    threads: int = 0  # 0: all cores but one, which the web process needs
    memory: int = 0  # 0: ``default_memory``
    store_memory: int = 2 * 2**30
    sequences: int = 32
    queue: int = 256
    patience: float = 5.0
    grace: float = 20.0


@dataclass(eq=False, slots=True)
class _Entry:
    """A checkpoint that is loading or ready."""

    checkpoint: Checkpoint
    loaded: asyncio.Future[Runner]
    began: float = field(default_factory=time.monotonic)
    progress: float = 0.0
    bytes: int = 0
    runner: Runner | None = None


class LocalEngine:
    """Computes checkpoints from a blob store with torch. Made inside a running event loop."""

    def __init__(self, blobs: BlobStore, options: Options | None = None) -> None:
        options = options or Options()
        self._blobs = blobs
        self._options = options
        self._dtype: Dtype = default_dtype() if options.dtype == "auto" else options.dtype
        self._memory = options.memory or default_memory()
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._threads = options.threads or max(1, (os.cpu_count() or 2) - 1)
        self._entries: dict[str, _Entry] = {}
        self._loader = ThreadPoolExecutor(1, "load")
        self._wake = threading.Condition()
        self._stopping = False
        self._draining = False
        self._counts: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """See ``Engine.generate``."""
        runner = await self._ready(job.checkpoint)
        stream = Stream(asyncio.get_running_loop())
        answers = self._answers(runner, job, stream)
        asked = time.monotonic()
        self._submit(runner, answers)
        waiting = True
        try:
            yield Admitted(tuple(a.line.prompt for a in answers[:: job.n]))
            left = len(answers)
            while left:
                item = await stream.queue.get()
                if isinstance(item, DomainError):
                    raise item
                for event in item:
                    if waiting and isinstance(event, Piece | Ended):
                        waiting = False
                        self._note_wait(time.monotonic() - asked)
                    left -= isinstance(event, Ended)
                    yield event
        finally:
            runner.call_off(answers)

    async def score(
        self, checkpoint: Checkpoint, texts: Sequence[Prompt], *, top: int = 0
    ) -> tuple[tuple[ScoredToken, ...], ...]:
        """See ``Engine.score``."""
        runner = await self._ready(checkpoint)
        loop = asyncio.get_running_loop()
        stream = Stream(loop)
        job = Job(checkpoint, texts, max_tokens=0)
        answers = [
            self._scoring(runner, job, index, text, top, stream) for index, text in enumerate(texts)
        ]
        self._submit(runner, answers)
        scores = asyncio.gather(*(a.scores for a in answers if a.scores is not None))
        failure = asyncio.ensure_future(self._failure(stream))
        try:
            both: set[asyncio.Future[Any]] = {scores, failure}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                raise failure.result()
            return tuple(await scores)
        finally:
            failure.cancel()
            scores.cancel()
            runner.call_off(answers)

    async def state(self) -> EngineState:
        """See ``Engine.state``."""
        models, running, waiting = [], 0, 0
        figures: Counter[str] = Counter(self._counts)
        for entry in self._entries.values():
            state: Literal["loading", "ready"] = "ready" if entry.runner else "loading"
            models.append(
                ModelState(entry.checkpoint.commit, state, entry.progress, entry.bytes, self._dtype)
            )
            if entry.runner is not None:
                scheduler = entry.runner.scheduler
                running += len(scheduler.running)
                waiting += len(scheduler.waiting)
                figures.update(entry.runner.counts)
                figures["store_tokens"] += sum(slot.weight for slot in scheduler.slots)
                figures["store_room"] += scheduler.room
        return EngineState(tuple(models), running, waiting, self._draining, dict(figures))

    async def close(self) -> None:
        """Take nothing new; let what runs finish within the grace; then stop the thread."""
        self._draining = True
        deadline = time.monotonic() + self._options.grace
        while time.monotonic() < deadline and any(r.busy for r in self._runners()):
            await asyncio.sleep(0.02)
        for runner in self._runners():
            runner.fail(list(runner.answers), _draining())
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        await asyncio.to_thread(self._thread.join, 10)
        self._loader.shutdown(wait=False, cancel_futures=True)

    # What a job becomes

    def _answers(self, runner: Runner, job: Job, stream: Stream) -> list[Answer]:
        shape, made = runner.model.shape, []
        if len(job.prompts) * job.n > self._options.queue:
            raise Invalid(
                f"{len(job.prompts) * job.n} sequences are more than one call may ask for.",
                reason="engine.sequences",
                next_step=f"Ask for {self._options.queue} at most.",
            )
        for number, prompt in enumerate(job.prompts):
            ids = runner.vocabulary.encode(prompt)
            self._check_length(shape.positions, len(ids), job.max_tokens)
            shown = job.echo and job.logprobs is not None
            figures = (
                Figures(runner.vocabulary, ids, job.logprobs or 0, rank=False) if shown else None
            )
            lead: Line | None = None
            for choice in range(job.n):
                line = Line(
                    list(ids), len(ids), len(ids) + job.max_tokens, job.cache_salt, lead,
                    fresh=shown,
                )  # fmt: skip
                lead = lead or line
                made.append(
                    Answer(
                        job,
                        line,
                        index=number * job.n + choice,
                        vocabulary=runner.vocabulary,
                        ends=shape.ends,
                        stream=stream,
                        figures=figures,
                    )
                )
        return made

    def _scoring(
        self, runner: Runner, job: Job, index: int, text: Prompt, top: int, stream: Stream
    ) -> Answer:
        ids = runner.vocabulary.encode(text)
        self._check_length(runner.model.shape.positions, len(ids), 0)
        return Answer(
            job,
            Line(list(ids), len(ids), len(ids), fresh=True),
            index=index,
            vocabulary=runner.vocabulary,
            ends=runner.model.shape.ends,
            stream=stream,
            figures=Figures(runner.vocabulary, ids, top, rank=True),
            scores=stream.loop.create_future(),
        )

    @staticmethod
    def _check_length(positions: int, prompt: int, more: int) -> None:
        if prompt + more > positions:
            raise Invalid(
                f"This model holds {positions} tokens: the prompt's {prompt} and the {more} asked "
                f"for are {prompt + more}.",
                reason="engine.context",
                next_step=f"Shorten the prompt, or ask for {max(0, positions - prompt)} at most.",
            )

    def _submit(self, runner: Runner, answers: Sequence[Answer]) -> None:
        if self._draining:
            raise _draining()
        runner.submit(answers)
        with self._wake:
            self._wake.notify_all()

    def _note_wait(self, seconds: float) -> None:
        self._counts["ttft_seconds_count"] += 1
        self._counts["ttft_milliseconds_sum"] += int(seconds * 1000)
        for bound in TTFT_BOUNDS:
            self._counts[f"ttft_seconds_le_{bound}"] += seconds <= bound

    @staticmethod
    async def _failure(stream: Stream) -> DomainError:
        while True:
            item = await stream.queue.get()
            if isinstance(item, DomainError):
                return item

    # Loading and making room

    async def _ready(self, checkpoint: Checkpoint) -> Runner:
        if self._draining:
            raise _draining()
        entry = self._entries.get(checkpoint.commit)
        if entry is None:
            loop = asyncio.get_running_loop()
            entry = _Entry(checkpoint, loop.create_future())
            entry.loaded.add_done_callback(_heard)
            self._entries[checkpoint.commit] = entry
            self._loader.submit(self._load, entry, loop)
        if entry.runner is not None:
            return entry.runner
        try:
            return await asyncio.wait_for(asyncio.shield(entry.loaded), self._options.patience)
        except TimeoutError:
            raise self._still_loading(entry) from None

    @staticmethod
    def _still_loading(entry: _Entry) -> Unavailable:
        spent = time.monotonic() - entry.began
        left = spent / entry.progress - spent if entry.progress > 0.05 else 10.0
        return Unavailable(
            f"{entry.checkpoint.repo_id} is being loaded: {entry.progress:.0%} is done.",
            retry_after=min(60, max(1, round(left))),
            reason="engine.loading",
        )

    def _load(self, entry: _Entry, loop: asyncio.AbstractEventLoop) -> None:
        """Load one checkpoint, in the loader's thread."""
        result: Runner | DomainError
        try:
            torch.set_grad_enabled(False)
            torch.set_num_threads(self._threads)
            result = self._make_runner(entry)
        except DomainError as error:
            result = error
        except Exception:  # whatever a file may hold, the engine goes on
            log.exception("a checkpoint could not be loaded", commit=entry.checkpoint.commit)
            result = Invalid("This checkpoint cannot be loaded.", reason="engine.model")
        loop.call_soon_threadsafe(self._loaded, entry, result)

    def _loaded(self, entry: _Entry, result: Runner | DomainError) -> None:
        if isinstance(result, DomainError):
            self._entries.pop(entry.checkpoint.commit, None)
            entry.loaded.set_exception(result)
            return
        entry.runner, entry.progress = result, 1.0
        entry.loaded.set_result(result)
        log.info(
            "checkpoint loaded",
            commit=entry.checkpoint.commit,
            seconds=round(time.monotonic() - entry.began, 2),
            bytes=entry.bytes,
            dtype=self._dtype,
        )

    def _make_runner(self, entry: _Entry) -> Runner:
        opened = open_checkpoint(self._blobs, entry.checkpoint)
        shape = opened.shape
        whole = -(-shape.positions // CHUNK) * CHUNK
        room = max(self._options.store_memory // shape.token_bytes, whole)
        room = min(room, self._options.sequences * whole)
        entry.bytes = _weight_bytes(opened, self._dtype) + room * shape.token_bytes
        self._make_room(entry)
        slots = max(1, min(self._options.sequences, room // CHUNK))
        model = Gpt2(shape, opened.weights, dtype=self._dtype, slots=slots, device=self._device)

        def progress(share: float) -> None:
            entry.progress = share

        model.prepare(progress)
        scheduler = Scheduler(slots=slots, room=room, queue=self._options.queue)
        return Runner(model, opened.vocabulary, scheduler)

    def _make_room(self, entry: _Entry) -> None:
        """Forget idle models, the longest unused first, until ``entry`` fits.

        Raises:
            Unavailable: it does not fit beside those in use.
        """

        def used() -> int:
            return sum(e.bytes for e in list(self._entries.values()) if e is not entry)

        def by_use(runner: Runner) -> float:
            return runner.used_at

        while used() + entry.bytes > self._memory:
            idle = sorted((r for r in self._runners() if not r.busy), key=by_use)
            if not idle:
                raise Unavailable(
                    f"{entry.checkpoint.repo_id} needs {entry.bytes / 2**30:.1f} GiB, and what is "
                    f"in use leaves {max(0, self._memory - used()) / 2**30:.1f} GiB.",
                    retry_after=15,
                    reason="engine.memory",
                )
            for commit, other in list(self._entries.items()):
                if other.runner is idle[0]:
                    del self._entries[commit]
                    log.info("checkpoint forgotten to make room", commit=commit)

    def _runners(self) -> list[Runner]:
        return [e.runner for e in list(self._entries.values()) if e.runner is not None]

    # The thread

    def _work(self) -> None:
        torch.set_grad_enabled(False)
        torch.set_num_threads(self._threads)
        while True:
            busy = [runner for runner in self._runners() if runner.busy]
            if not busy:
                with self._wake:
                    if self._stopping:
                        return
                    self._wake.wait(0.05)
                continue
            for runner in busy:
                try:
                    runner.step()
                except Exception:
                    log.exception("the engine's step broke; its sequences are ended")
                    runner.fail(
                        list(runner.answers),
                        Unavailable("The engine failed.", reason="engine.failed"),
                    )


def _weight_bytes(opened: Opened, dtype: Dtype) -> int:
    return opened.parameters * _ITEM[dtype]


def _heard(future: asyncio.Future[Runner]) -> None:
    """Mark a failed load as heard of, for when whoever asked has gone."""
    if not future.cancelled():
        future.exception()


def _draining() -> Unavailable:
    return Unavailable(
        "The engine is shutting down and takes nothing new.", reason="engine.draining"
    )

"""The engine on this machine: checkpoints load on first use, one thread computes, tasks listen.

It lives in a process of its own (``stagerelease infer``): the only one that loads torch.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from weakref import ref

import structlog
import torch

from stagerelease.engine.answering import Answer, Figures, Stream
from stagerelease.engine.batching import Line
from stagerelease.engine.linear import Dtype
from stagerelease.engine.ports import (
    Admitted,
    Checkpoint,
    Ended,
    EngineState,
    Event,
    Job,
    Piece,
    Prompt,
    ScoredToken,
)
from stagerelease.engine.rules import require_sound, require_texts
from stagerelease.engine.runner import Runner
from stagerelease.engine.shelf import Room, Shelf
from stagerelease.kernel.errors import DomainError, Invalid, Unavailable
from stagerelease.storage.ports import BlobStore

log = structlog.get_logger(__name__)

TTFT_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds, in seconds, of the histogram of times to the first token."""


def default_dtype() -> Dtype:
    """Return bf16 where the processor multiplies it in hardware, else fp32."""
    if torch.cuda.is_available():
        return "bf16"
    capable = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bf16" if capable is not None and capable() else "fp32"


def default_memory() -> int:
    """Return six tenths of the memory this process may use, in bytes: the machine's, or less where
    a container has less (cgroup v2, ``memory.max``).
    """
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    given = limit.read_text().strip() if limit.is_file() else ""
    return int(min(most, int(given)) * 0.6) if given.isdigit() else int(most * 0.6)


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


class LocalEngine:
    """Computes checkpoints from a blob store with torch. Made inside a running event loop."""

    def __init__(self, blobs: BlobStore, options: Options | None = None) -> None:
        options = options or Options()
        self._options = options
        self._dtype: Dtype = default_dtype() if options.dtype == "auto" else options.dtype
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._threads = options.threads or max(1, (os.cpu_count() or 2) - 1)
        room = Room(
            options.memory or default_memory(),
            options.store_memory,
            options.sequences,
            options.queue,
            options.patience,
        )
        self._shelf = Shelf(blobs, room, dtype=self._dtype, device=device, threads=self._threads)
        self._wake = threading.Condition()
        self._stopping = False
        self._draining = False
        self._counts: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """See ``Engine.generate``."""
        require_sound(job)
        stream = Stream(asyncio.get_running_loop())
        async with self._borrow(job.checkpoint) as runner:
            answers = await self._answers(runner, job, stream)
            asked = time.monotonic()
            call_off = self._submit(runner, answers)
        # From here on the sequences keep their model. Whoever takes their events late does not.
        del runner
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
            call_off()

    async def score(
        self, checkpoint: Checkpoint, texts: Sequence[Prompt], *, top: int = 0
    ) -> tuple[tuple[ScoredToken, ...], ...]:
        """See ``Engine.score``."""
        require_texts(texts, top)
        stream = Stream(asyncio.get_running_loop())
        job = Job(checkpoint, texts, max_tokens=0)
        async with self._borrow(checkpoint) as runner:
            answers = await self._scorings(runner, job, top, stream)
            call_off = self._submit(runner, answers)
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
            call_off()

    async def state(self) -> EngineState:
        """See ``Engine.state``."""
        figures = self._shelf.counts()
        figures.update(self._counts)
        running = waiting = 0
        for runner in self._shelf.runners():
            scheduler = runner.scheduler
            running += len(scheduler.running)
            waiting += len(scheduler.waiting)
            figures["store_tokens"] += sum(slot.weight for slot in scheduler.slots)
            figures["store_room"] += scheduler.room
        return EngineState(self._shelf.states(), running, waiting, self._draining, dict(figures))

    async def close(self) -> None:
        """Take nothing new; let what runs finish within the grace; then stop the thread."""
        self._draining = True
        deadline = time.monotonic() + self._options.grace
        while time.monotonic() < deadline and any(r.busy for r in self._shelf.runners()):
            await asyncio.sleep(0.02)
        for runner in self._shelf.runners():
            runner.fail(list(runner.answers), _draining())
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        await asyncio.to_thread(self._thread.join, 10)
        self._shelf.close()

    # What a job becomes

    async def _read(
        self, runner: Runner, prompts: Sequence[Prompt], *, each: int, more: int
    ) -> list[list[int]]:
        """Return the ids of prompts that are to be continued in ``each`` ways by ``more`` tokens.

        Raises:
            Invalid: see ``Engine``.
        """
        if len(prompts) * each > self._options.queue:  # it would never get in
            raise Invalid(
                f"{len(prompts) * each} sequences are more than may wait here at once.",
                reason="engine.parameter",
                next_step=f"Ask for {self._options.queue} at most.",
            )
        positions = runner.model.shape.positions
        longest = runner.vocabulary.most_bytes(positions)
        for prompt in prompts:
            # Long before it is known how many tokens it has: counting them would take seconds.
            if isinstance(prompt, str) and longest is not None and len(prompt) > longest:
                self._check_length(positions, positions + 1, more, at_least="at least ")
        # Elsewhere, for who is being answered meanwhile.
        found = await asyncio.to_thread(lambda: [runner.vocabulary.encode(p) for p in prompts])
        for ids in found:
            self._check_length(positions, len(ids), more)
        return found

    async def _answers(self, runner: Runner, job: Job, stream: Stream) -> list[Answer]:
        runner.vocabulary.check(job.sampling.logit_bias, param="logit_bias")
        shape, made = runner.model.shape, []
        found = await self._read(runner, job.prompts, each=job.n, more=job.max_tokens)
        for number, ids in enumerate(found):
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

    async def _scorings(self, runner: Runner, job: Job, top: int, stream: Stream) -> list[Answer]:
        found = await self._read(runner, job.prompts, each=1, more=0)
        return [
            Answer(
                job,
                Line(list(ids), len(ids), len(ids), fresh=True),
                index=index,
                vocabulary=runner.vocabulary,
                ends=runner.model.shape.ends,
                stream=stream,
                figures=Figures(runner.vocabulary, ids, top, rank=True),
                scores=stream.loop.create_future(),
            )
            for index, ids in enumerate(found)
        ]

    @staticmethod
    def _check_length(positions: int, prompt: int, more: int, *, at_least: str = "") -> None:
        if prompt + more > positions:
            raise Invalid(
                f"This model holds {positions} tokens: the prompt's {at_least}{prompt} and the "
                f"{more} asked for are {at_least}{prompt + more}.",
                reason="engine.context",
                next_step=f"Shorten the prompt, or ask for {max(0, positions - prompt)} at most.",
            )

    def _submit(self, runner: Runner, answers: Sequence[Answer]) -> Callable[[], None]:
        """Let sequences join; return what calls them off, which does not hold on to the model."""
        if self._draining:
            raise _draining()
        runner.submit(answers)
        with self._wake:
            self._wake.notify_all()
        its_runner = ref(runner)

        def call_off() -> None:
            if (runner := its_runner()) is not None:
                runner.call_off(answers)

        return call_off

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

    @asynccontextmanager
    async def _borrow(self, checkpoint: Checkpoint) -> AsyncGenerator[Runner, None]:
        if self._draining:
            raise _draining()
        async with self._shelf.borrow(checkpoint) as runner:
            yield runner

    # The thread

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        with torch.inference_mode():
            while True:
                if self._pass():
                    continue
                with self._wake:
                    if self._stopping:
                        return
                    # Asked again under the lock: who joins wakes this thread after having joined.
                    if not any(runner.busy for runner in self._shelf.runners()):
                        self._wake.wait(0.05)

    def _pass(self) -> bool:
        """Compute one step of each model that has something to do; tell whether any had.

        By itself, so that nothing here holds on to a model that is forgotten.
        """
        busy = [runner for runner in self._shelf.runners() if runner.busy]
        for runner in busy:
            try:
                runner.step()
            except Exception:
                log.exception("the engine's step broke; its sequences are ended")
                runner.fail(
                    list(runner.answers),
                    Unavailable("The engine failed.", reason="engine.failed"),
                    keep=False,
                )
        return bool(busy)


def _draining() -> Unavailable:
    return Unavailable(
        "The engine is shutting down and takes nothing new.", reason="engine.draining"
    )

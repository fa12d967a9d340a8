"""Sixteen clients for a minute, or for SOAK_MINUTES: no wrong text, no lost place, flat memory."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import statistics
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from miniatures import LABELS, Answered, ask, directory, held_out_ids, options, prompts, put
from test_local import resident

from stagerelease.engine import pages
from stagerelease.engine.local import LocalEngine, Options
from stagerelease.engine.ports import Admitted, Checkpoint, Ended, Job, Piece, Sampling
from stagerelease.kernel.errors import TooMany, Unavailable
from stagerelease.storage.local import LocalBlobStore

MINUTES = float(os.environ.get("SOAK_MINUTES", "1"))
CLIENTS = 16
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(MINUTES * 60 + 600)]


def jobs_of(checkpoint: Checkpoint) -> list[Job]:
    """Texts of all lengths; shared beginnings, several choices, stops, figures, echoes."""
    made, ids = [], held_out_ids()
    ways = [
        {"temperature": 0.8}, {"top_p": 0.9}, {"top_k": 30}, {"temperature": 0.0},
        {"repetition_penalty": 1.3}, {"min_p": 0.02, "frequency_penalty": 0.2},
    ]  # fmt: skip
    for i, prompt in enumerate(prompts(12, seed=7)):
        given = tuple(ids[: 100 + 3 * i]) if i % 2 else prompt
        made.append(
            Job(
                checkpoint,
                [given],
                n=1 + i % 3,
                max_tokens=6 + 4 * i,
                sampling=Sampling(seed=1000 + i, **ways[i % len(ways)]),  # type: ignore[arg-type]
                stop=["\n", "the"] if i % 5 == 0 else [],
                logprobs=1 if i % 3 == 0 else None,
                echo=i % 4 == 3,
                cache_salt=f"salt {i % 2}",
            )
        )
    return made


async def alone(blobs: LocalBlobStore, jobs: list[Job]) -> list[list[Answered]]:
    """Each by itself, nothing used again: the texts that all others are compared with."""
    found = []
    for checkpoint in {job.checkpoint.commit: job.checkpoint for job in jobs}.values():
        engine = LocalEngine(blobs, options(sequences=1))
        mine = [job for job in jobs if job.checkpoint is checkpoint]
        found += [await ask(engine, job) for job in mine]
        await engine.close()
    return found


@dataclass
class Soak:
    engine: LocalEngine
    jobs: list[Job]
    want: list[list[Answered]]
    ends_at: float
    seen: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    async def client(self, number: int) -> None:
        """Ask for one thing after another; now and then go away, or be cut off from outside."""
        chance = random.Random(number)
        while time.monotonic() < self.ends_at:
            which = chance.randrange(len(self.jobs))
            # Most stay with one model for a while: with four for each, all would only load.
            favourite = int(time.monotonic() / 7 + number / 8) % len(LABELS)
            if chance.random() < 0.9:
                which = favourite * 12 + which % 12
            try:
                way = chance.random()
                if way < 0.2:
                    await self.cut_off(which, chance.random() * 0.3)
                else:
                    await self.listen(which, chance.randrange(1, 30) if way < 0.45 else 1 << 30)
            except (Unavailable, TooMany) as refusal:
                self.seen[refusal.reason] += 1
                if refusal.reason == "engine.failed":
                    self.wrong.append(refusal.sentence)
                await asyncio.sleep(chance.random() * 0.2)

    async def listen(self, which: int, leaves: int) -> None:
        """Take events, at most so many, and compare all that came."""
        job, want = self.jobs[which], self.want[which]
        found = [Answered() for _ in want]
        stream = self.engine.generate(job)
        count = 0
        async for event in stream:
            match event:
                case Admitted():
                    pass
                case Piece(index, text, tokens):
                    found[index].text += text
                    found[index].tokens += tokens
                case Ended(index, reason, completion):
                    found[index].reason, found[index].count = reason, completion
            count += 1
            if count == leaves:
                break
        await stream.aclose()
        for ours, theirs in zip(found, want, strict=True):
            whole = ours.reason != ""
            same = ours == theirs if whole else theirs.text.startswith(ours.text)
            if not same or (count < leaves and not whole):
                self.wrong.append(f"{which}: {ours.text!r} and not {theirs.text!r}")
        self.seen["left" if count == leaves else "whole"] += 1

    async def cut_off(self, which: int, after: float) -> None:
        """What a hold does: the task is cancelled wherever it is."""
        task = asyncio.create_task(self.listen(which, 1 << 30))
        await asyncio.wait([task], timeout=after)
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.seen["cut off"] += 1
        else:
            task.result()

    async def watch(self) -> None:
        while time.monotonic() < self.ends_at:
            self.sizes.append(resident())
            await asyncio.sleep(0.5)


def growth(sizes: list[int]) -> float:
    """How much larger the last quarter is than the second; the first is for warming up."""
    quarter = len(sizes) // 4
    return statistics.median(sizes[-quarter:]) / statistics.median(sizes[quarter : 2 * quarter]) - 1


@dataclass(frozen=True)
class Outcome:
    """What came of a soak, as it leaves the process it ran in."""

    seen: Counter[str]
    wrong: list[str]
    sizes: list[int]


async def soaked(room: Path) -> Outcome:
    """Let the clients ask for as long as they shall; every place must be free afterwards."""
    blobs = LocalBlobStore(room)
    checkpoints = [put(blobs, directory(label)) for label in LABELS]
    jobs = [job for checkpoint in checkpoints for job in jobs_of(checkpoint)]
    want = await alone(blobs, jobs)
    # Room for two of the four at once, or three small ones; stores of a few whole lengths.
    given: Options = options(
        sequences=8, queue=24, store_memory=6_000_000, memory=26_000_000, patience=0.5
    )
    soak = Soak(LocalEngine(blobs, given), jobs, want, time.monotonic() + MINUTES * 60)
    await asyncio.gather(*(soak.client(i) for i in range(CLIENTS)), soak.watch())
    state = await soak.engine.state()
    soak.seen |= Counter({k: int(v) for k, v in state.figures.items() if "_le_" not in k})
    assert (state.running, state.waiting) == (0, 0)
    # No place is lost: as many as there are can be had at once, of any model.
    for checkpoint in checkpoints:
        whole = Job(checkpoint, [(9,)], n=8, max_tokens=3)
        assert len(await ask(soak.engine, whole)) == 8
    await soak.engine.close()
    return Outcome(soak.seen, soak.wrong, soak.sizes)


def run_soak(room: Path) -> Outcome:
    """Do ``soaked``; a process of its own begins here."""
    return asyncio.run(soaked(room))


def test_soak(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process that begins as the product's does: with other wishes glibc keeps an arena for
    every thread that ever loaded a model, and what lies idle there looks like a leak.
    """
    monkeypatch.setenv(pages.NAME, pages.WISH)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        soak = pool.submit(run_soak, tmp_path).result()
    with capsys.disabled():
        grown = growth(soak.sizes)
        print(f"\nsoak of {MINUTES:g} min: {dict(sorted(soak.seen.items()))}")
        print(f"memory {soak.sizes[0] >> 20} to {soak.sizes[-1] >> 20} MiB, growth {grown:+.2%}")
    assert soak.wrong == []
    assert min(soak.seen[k] for k in ("whole", "left", "cut off")) > 0
    assert grown < 0.05

"""Text from GPT-2 at true size: our engine against ``transformers.generate``, in one run.

Random weights (the figures do not depend on them). Three measures, each with both sides in
interleaved rounds, printed as tokens a second, as a ratio to ``generate`` in fp32, and as a share
of the floor: one reading of the weights a step at the memory bandwidth measured in this run, which
serves one token of each sequence there is (16 of a crowd, one where requests wait in a row). On a
machine with a GPU both sides compute there, and its memory is what is measured.

- one stream: 32 prompt tokens and 64 new ones, greedy;
- a crowd: 16 clients arriving at random, each asking for one thing after the other, lengths mixed,
  against ``generate`` taking the same requests one by one; with the time to the first token;
- the price of each precision: perplexity of the trained miniatures on text held out.

    python bench/inference.py                        # 124M; about six minutes
    python bench/inference.py --variant 774M --quick
    python bench/inference.py --vllm http://127.0.0.1:8100 --vllm-dtype fp32   # a running server

Exit code 1 when a goal is missed. Nothing else should want the cores: two busy threads wait for
each other at every product, and a third halves both.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import math
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import torch

from stagerelease.catalog.synthesize import synthesize
from stagerelease.demo.world import CHECKPOINTS
from stagerelease.engine import pages
from stagerelease.engine.local import LocalEngine, Options
from stagerelease.engine.ports import Admitted, Checkpoint, Ended, Job, Sampling
from stagerelease.storage.local import LocalBlobStore

PROMPT, NEW, CLIENTS = 32, 64, 16
Dtype = Literal["fp32", "bf16", "int8"]
DTYPES: tuple[Dtype, ...] = ("fp32", "bf16", "int8")
AIMED_AT = "124M"
"""What the goals are of; larger ones are measured against nothing but the other side."""
GOAL_ONE = {"fp32": 1.7, "bf16": 2.8, "int8": 4.0}
GOAL_CROWD = {"fp32": 6.0, "bf16": 8.0, "int8": 12.0}
GOAL_TTFT, GOAL_VLLM, GOAL_PERPLEXITY = 1.0, 0.9, 1.02
WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
VOCABULARY = 50257


@dataclass(frozen=True, slots=True)
class Request:
    """One request: how long its client waits before it comes, in seconds, what it brings, and how
    many tokens it wants.
    """

    after: float
    prompt: tuple[int, ...]
    new: int


@dataclass(slots=True)
class Outcome:
    """What a crowd got: tokens a second, and the times to the first token."""

    rate: float
    waits: list[float]

    def p95(self) -> float:
        """Return the 95th percentile of the waits, in seconds."""
        return sorted(self.waits)[math.ceil(0.95 * len(self.waits)) - 1]


Crowd = list[list[Request]]
"""What each client asks for, one after the other."""


def make_crowd(each: int, seed: int = 7) -> Crowd:
    """Return ``each`` requests of 16 clients, who pause for half a second or so between them."""
    dice = random.Random(seed)

    def request(after: float) -> Request:
        prompt = tuple(dice.randrange(VOCABULARY - 1) for _ in range(dice.randint(8, 96)))
        return Request(after, prompt, dice.randint(16, 112))

    return [
        [request(dice.uniform(0, 1))] + [request(dice.expovariate(2.0)) for _ in range(each - 1)]
        for _ in range(CLIENTS)
    ]


def first_of(clients: Crowd, count: int) -> Crowd:
    """Return the first ``count`` requests of each client."""
    return [requests[:count] for requests in clients]


def device() -> torch.device:
    """Return what both sides compute on: what the engine chooses by itself."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bandwidth() -> float:
    """Return the memory bandwidth of reading, in bytes a second, with the threads in use."""
    block = torch.ones(256 * 2**20 // 4, device=device())
    best = math.inf
    for _ in range(5):
        began = time.perf_counter()
        block.sum().item()
        best = min(best, time.perf_counter() - began)
    return block.numel() * 4 / best


class Generate:
    """The other side: the library's own ``generate``."""

    def __init__(self, directory: Path) -> None:
        from transformers import GPT2LMHeadModel

        loaded = GPT2LMHeadModel.from_pretrained(directory, dtype=torch.float32)
        self.model = loaded.eval().to(device())

    def run(self, prompt: tuple[int, ...], new: int, streamer: Any = None) -> list[int]:
        """Return ``new`` greedy tokens after ``prompt``."""
        ids = torch.tensor([prompt], device=device())
        out = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new,
            do_sample=False, pad_token_id=0, streamer=streamer,
        )  # fmt: skip
        return out[0, len(prompt) :].tolist()

    def crowd(self, clients: Crowd) -> Outcome:
        """Answer the requests of ``clients`` one by one, in the order in which they come."""
        began, waits, tokens = time.perf_counter(), [], 0
        coming = [(client[0].after, number, 0) for number, client in enumerate(clients)]
        while coming:
            heapq.heapify(coming)
            at, number, turn = heapq.heappop(coming)
            time.sleep(max(0.0, at - (time.perf_counter() - began)))
            request, first = clients[number][turn], FirstToken()
            tokens += len(self.run(request.prompt, request.new, first))
            now = time.perf_counter() - began
            waits.append((first.at or time.perf_counter()) - began - at)
            if turn + 1 < len(clients[number]):
                coming.append((now + clients[number][turn + 1].after, number, turn + 1))
        return Outcome(tokens / (time.perf_counter() - began), waits)


def process(*, large_pages: bool) -> ProcessPoolExecutor:
    """Return a process of its own for one side of the comparison, with large pages asked for as the
    product's inference process does, or not. Threads that have computed once make those of the same
    process wait asleep (libgomp), whichever side they belong to.
    """
    os.environ.pop(pages.NAME, None)
    if large_pages:
        os.environ[pages.NAME] = pages.WISH
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    pool.submit(os.getpid).result()  # it begins now, under this environment
    return pool


RIVAL: list[Generate] = []


def load_rival(directory: Path, threads: int) -> float:
    """Make this process the rival's; return the memory bandwidth it finds, in bytes a second."""
    torch.set_grad_enabled(False)
    torch.set_num_threads(threads)
    speed = bandwidth()
    RIVAL.append(Generate(directory))
    return speed


def rival_rate(prompt: tuple[int, ...]) -> float:
    """Return the tokens a second of one stream."""
    began = time.perf_counter()
    RIVAL[0].run(prompt, NEW)
    return NEW / (time.perf_counter() - began)


def rival_crowd(clients: Crowd) -> Outcome:
    """Return what a crowd gets from the rival."""
    return RIVAL[0].crowd(clients)


class FirstToken:
    """Notes when the first new token comes (the library's streamer protocol)."""

    def __init__(self) -> None:
        self.at: float | None = None
        self._prompt = True

    def put(self, _: Any) -> None:
        if not self._prompt and self.at is None:
            self.at = time.perf_counter()
        self._prompt = False

    def end(self) -> None:
        return None


async def ask(engine: LocalEngine, checkpoint: Checkpoint, request: Request) -> tuple[int, float]:
    """Return how many tokens a request got from our engine, and the wait for the first."""
    began, first, tokens = time.perf_counter(), 0.0, 0
    job = Job(
        checkpoint, [request.prompt], max_tokens=request.new, sampling=Sampling(temperature=0)
    )
    async for event in engine.generate(job):
        if not isinstance(event, Admitted):
            first = first or time.perf_counter() - began
        if isinstance(event, Ended):
            tokens = event.completion_tokens
    return tokens, first


async def crowd_of(
    clients: Crowd, answer: Callable[[Request], Awaitable[tuple[int, float]]]
) -> Outcome:
    """Let ``clients`` ask side by side, each for one thing at a time."""
    began = time.perf_counter()

    async def one(requests: list[Request]) -> list[tuple[int, float]]:
        got = []
        for request in requests:
            await asyncio.sleep(request.after)
            got.append(await answer(request))
        return got

    got = [pair for found in await asyncio.gather(*map(one, clients)) for pair in found]
    return Outcome(
        sum(tokens for tokens, _ in got) / (time.perf_counter() - began), [wait for _, wait in got]
    )


def stored(blobs: LocalBlobStore, directory: Path) -> Checkpoint:
    """Return ``directory`` as a checkpoint whose files are in ``blobs``."""
    files = {}
    for path in sorted(directory.iterdir()):
        with blobs.writer() as writer, path.open("rb") as source:
            while block := source.read(1 << 20):
                writer.write(block)
            files[path.name] = writer.commit().sha256
    return Checkpoint(f"{abs(hash(directory.name)):040x}"[:40], directory.name, files)


async def ours(
    room: Path, checkpoint: Checkpoint, dtype: Dtype, threads: int, rounds: int, clients: Crowd
) -> tuple[list[float], Outcome]:
    """Return our figures in one precision: single-stream rates, and the crowd's outcome."""
    engine = LocalEngine(LocalBlobStore(room), Options(dtype=dtype, threads=threads, patience=600))
    single = Request(0, clients[0][0].prompt[:1] * PROMPT, NEW)
    await ask(engine, checkpoint, single)
    rates = []
    for _ in range(rounds):
        began = time.perf_counter()
        tokens, _ = await ask(engine, checkpoint, single)
        rates.append(tokens / (time.perf_counter() - began))
    await crowd_of(first_of(clients, 1), lambda r: ask(engine, checkpoint, r))  # prepares kernels
    outcome = await crowd_of(clients, lambda r: ask(engine, checkpoint, r))
    await engine.close()
    return rates, outcome


def run_ours(*args: Any) -> tuple[list[float], Outcome]:
    """Return what ``ours`` does, in a process of its own."""
    return asyncio.run(ours(*args))


async def ask_server(client: httpx.AsyncClient, model: str, request: Request) -> tuple[int, float]:
    """Return the same of a server that speaks the OpenAI completions protocol."""
    began, first, tokens = time.perf_counter(), 0.0, 0
    body = {
        "model": model, "prompt": list(request.prompt), "max_tokens": request.new,
        "temperature": 0, "stream": True, "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    async with client.stream("POST", "/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[6:])
            if event["choices"]:
                first = first or time.perf_counter() - began
            if event.get("usage"):
                tokens = event["usage"]["completion_tokens"]
    return tokens, first


async def against_server(url: str, key: Path | None, clients: Crowd) -> Outcome:
    """Return what the same crowd gets from the server at ``url``, which asks for ``key``."""
    headers = {"Authorization": f"Bearer {key.read_text()}"} if key is not None else {}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=600) as client:
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        await crowd_of(first_of(clients, 1), lambda r: ask_server(client, model, r))
        return await crowd_of(clients, lambda r: ask_server(client, model, r))


async def perplexity(engine: LocalEngine, checkpoint: Checkpoint, text: str) -> float:
    """Return the perplexity of ``text`` in windows the model can hold."""
    windows = [text[i : i + 400] for i in range(0, min(len(text), 24_000), 400)]
    total, count = 0.0, 0
    for scored in await engine.score(checkpoint, windows):
        figures = [t.logprob for t in scored if t.logprob is not None]
        total, count = total - sum(figures), count + len(figures)
    return math.exp(total / count)


async def precisions(blobs: LocalBlobStore, text: str) -> dict[str, dict[str, float]]:
    """Return the perplexity of each miniature in each precision."""
    found: dict[str, dict[str, float]] = {}
    for dtype in DTYPES:
        engine = LocalEngine(blobs, Options(dtype=dtype))
        for directory in sorted(CHECKPOINTS.iterdir()):
            if directory.is_dir():
                by = found.setdefault(directory.name, {})
                by[dtype] = await perplexity(engine, stored(blobs, directory), text)
        await engine.close()
    return found


class Report:
    """Prints a table and remembers whether a goal was missed."""

    def __init__(self) -> None:
        self.missed = False

    def line(self, name: str, *cells: str, goal: tuple[float, bool] | None = None) -> None:
        """Print one row; ``goal`` is the figure aimed at, and whether it was met."""
        text = f"{name:<26}" + "".join(f"{cell:>14}" for cell in cells)
        if goal is not None:
            text += f"   goal {goal[0]:g} {'met' if goal[1] else 'MISSED'}"
            self.missed |= not goal[1]
        print(text, flush=True)


def busy_elsewhere() -> float:
    """Return the share of the cores that is busy now, before this program uses them."""

    def read() -> tuple[int, int]:
        values = [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
        return sum(values), values[3] + values[4]

    before = read()
    time.sleep(1)
    after = read()
    return 1 - (after[1] - before[1]) / max(1, after[0] - before[0])


async def run(args: argparse.Namespace, directory: Path, room: Path) -> bool:
    report = Report()
    print(f"{args.variant} at true size, {args.threads} threads, {device().type}; others took "
          f"{busy_elsewhere():.0%} of the cores.")  # fmt: skip
    blobs = LocalBlobStore(room)
    checkpoint = stored(blobs, directory)
    clients = make_crowd(1 if args.quick else 4)
    rival = process(large_pages=False)
    speed = rival.submit(load_rival, directory, args.threads).result()
    print(f"memory is read at {speed / 1e9:.0f} GB/s")
    weights = (directory / "model.safetensors").stat().st_size / 4
    single = clients[0][0].prompt[:1] * PROMPT
    rival.submit(rival_rate, single).result()

    base: list[float] = []
    results = {}
    for dtype in args.dtypes:
        for _ in range(1 if args.quick else 3):
            base.append(rival.submit(rival_rate, single).result())
        with process(large_pages=True) as mine:
            rounds = 2 if args.quick else 5
            asked = (room, checkpoint, dtype, args.threads, rounds, clients)
            rates, outcome = mine.submit(run_ours, *asked).result()
        results[dtype] = (statistics.median(rates), outcome)
    generate = statistics.median(base)
    queue = rival.submit(rival_crowd, first_of(clients, 2)).result()
    rival.shutdown()

    aims = args.variant == AIMED_AT
    floor = speed / weights
    report.line("one stream", "tokens/s", "ratio", "of the floor")
    report.line("  generate fp32", f"{generate:.1f}", "1.00", f"{generate * 4 / floor:.2f}")
    for dtype, (rate, _) in results.items():
        ratio = rate / generate
        report.line(
            f"  ours {dtype}", f"{rate:.1f}", f"{ratio:.2f}",
            f"{rate * WEIGHT_BYTES[dtype] / floor:.2f}",
            goal=(GOAL_ONE[dtype], ratio >= GOAL_ONE[dtype]) if aims else None,
        )  # fmt: skip
    report.line(f"{CLIENTS} clients", "tokens/s", "ratio", "of the floor", "TTFT p95 s")
    share = f"{queue.rate * 4 / floor:.2f}"
    report.line("  generate one by one", f"{queue.rate:.1f}", "1.00", share, f"{queue.p95():.2f}")
    for dtype, (_, outcome) in results.items():
        ratio, wait = outcome.rate / queue.rate, outcome.p95()
        share = f"{outcome.rate * WEIGHT_BYTES[dtype] / (CLIENTS * floor):.2f}"
        report.line(
            f"  ours {dtype}", f"{outcome.rate:.1f}", f"{ratio:.2f}", share, f"{wait:.2f}",
            goal=(GOAL_CROWD[dtype], ratio >= GOAL_CROWD[dtype] and wait <= GOAL_TTFT)
            if aims else None,
        )  # fmt: skip
    if args.vllm:
        other = await against_server(args.vllm, args.vllm_key, clients)
        ratio = results[args.vllm_dtype][1].rate / other.rate
        share = f"{other.rate * WEIGHT_BYTES[args.vllm_dtype] / (CLIENTS * floor):.2f}"
        wait = f"{other.p95():.2f}"
        report.line(f"  vLLM {args.vllm_dtype}", f"{other.rate:.1f}", "", share, wait)
        report.line(f"  ours to vLLM {args.vllm_dtype}", "", f"{ratio:.2f}",
                    goal=(GOAL_VLLM, ratio >= GOAL_VLLM))  # fmt: skip
    if not args.quick:
        text = (Path(__file__).parent.parent / "tests/data/demo_heldout.txt").read_text()
        report.line("perplexity", *DTYPES)
        for name, by in (await precisions(blobs, text)).items():
            worst = by["int8"] / by["fp32"]
            report.line(f"  {name}", *(f"{by[d]:.3f}" for d in DTYPES),
                        goal=(GOAL_PERPLEXITY, worst <= GOAL_PERPLEXITY))  # fmt: skip
    return report.missed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--variant", default="124M", choices=("124M", "335M", "774M", "1.5B"))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--vllm", metavar="URL", help="a vLLM server of the same checkpoint")
    parser.add_argument("--vllm-key", type=Path, help="a file with the secret it asks for")
    parser.add_argument("--vllm-dtype", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--checkpoint", type=Path, help="a directory made before by synthesize")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        directory = args.checkpoint or Path(room) / f"gpt2-{args.variant}"
        if args.checkpoint is None:
            synthesize(args.variant, directory)
        missed = asyncio.run(run(args, directory, Path(room) / "blobs"))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()

"""Text from GPT-2 at true size: our engine against ``transformers.generate``, in one run.

Random weights (the figures do not depend on them). Three measures, each with both sides in
interleaved rounds, printed as tokens a second, as a ratio to ``generate`` in fp32, and as a share
of the floor: one reading of the weights a step at the memory bandwidth measured in this run.

- one stream: 32 prompt tokens and 64 new ones, greedy;
- a crowd: 16 clients arriving at random, lengths mixed, against ``generate`` taking the same
  requests one by one; with the time to the first token;
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
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import torch

from stagerelease.catalog.synthesize import synthesize
from stagerelease.demo.world import CHECKPOINTS
from stagerelease.engine.local import LocalEngine, Options
from stagerelease.engine.ports import Admitted, Checkpoint, Ended, Job, Sampling
from stagerelease.storage.local import LocalBlobStore

PROMPT, NEW, CLIENTS = 32, 64, 16
Dtype = Literal["fp32", "bf16", "int8"]
DTYPES: tuple[Dtype, ...] = ("fp32", "bf16", "int8")
GOAL_ONE = {"fp32": 1.7, "bf16": 2.8, "int8": 4.0}
GOAL_CROWD = {"fp32": 6.0, "bf16": 8.0, "int8": 12.0}
GOAL_TTFT, GOAL_VLLM, GOAL_PERPLEXITY = 1.0, 0.9, 1.02
WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}
VOCABULARY = 50257


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the crowd: when it comes, what it brings, how much it wants."""

    at: float
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


def make_crowd(count: int, seed: int = 7) -> list[Request]:
    """Return ``count`` requests of 16 clients, each client's a second or so apart."""
    dice = random.Random(seed)
    crowd = []
    for _ in range(CLIENTS):
        at = dice.uniform(0, 1)
        for _ in range(max(1, count // CLIENTS)):
            prompt = tuple(dice.randrange(VOCABULARY - 1) for _ in range(dice.randint(8, 96)))
            crowd.append(Request(at, prompt, dice.randint(16, 112)))
            at += dice.expovariate(1.0)
    return sorted(crowd, key=lambda r: r.at)


def bandwidth() -> float:
    """Return the memory bandwidth of reading, in bytes a second, with the threads in use."""
    block = torch.ones(256 * 2**20 // 4)
    best = math.inf
    for _ in range(5):
        began = time.perf_counter()
        block.sum()
        best = min(best, time.perf_counter() - began)
    return block.numel() * 4 / best


class Generate:
    """The other side: the library's own ``generate``."""

    def __init__(self, directory: Path) -> None:
        from transformers import GPT2LMHeadModel

        self.model = GPT2LMHeadModel.from_pretrained(directory, dtype=torch.float32).eval()

    def run(self, prompt: tuple[int, ...], new: int, streamer: Any = None) -> list[int]:
        """Return ``new`` greedy tokens after ``prompt``."""
        ids = torch.tensor([prompt])
        out = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new,
            do_sample=False, pad_token_id=0, streamer=streamer,
        )  # fmt: skip
        return out[0, len(prompt) :].tolist()

    def crowd(self, requests: list[Request]) -> Outcome:
        """Answer ``requests`` one by one, each as soon as it has come and the last is done."""
        began, waits, tokens = time.perf_counter(), [], 0
        for request in requests:
            now = time.perf_counter() - began
            time.sleep(max(0.0, request.at - now))
            first = FirstToken()
            tokens += len(self.run(request.prompt, request.new, first))
            waits.append((first.at or time.perf_counter()) - began - request.at)
        return Outcome(tokens / (time.perf_counter() - began), waits)


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
    requests: list[Request], answer: Callable[[Request], Awaitable[tuple[int, float]]]
) -> Outcome:
    """Let ``requests`` arrive at their times and be answered side by side."""
    began = time.perf_counter()

    async def one(request: Request) -> tuple[int, float]:
        await asyncio.sleep(max(0.0, request.at - (time.perf_counter() - began)))
        return await answer(request)

    got = await asyncio.gather(*(one(request) for request in requests))
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
    blobs: LocalBlobStore, checkpoint: Checkpoint, dtype: Dtype, threads: int,
    rounds: int, requests: list[Request],
) -> tuple[list[float], Outcome, LocalEngine]:  # fmt: skip
    """Return our figures in one precision: single-stream rates, and the crowd's outcome."""
    engine = LocalEngine(blobs, Options(dtype=dtype, threads=threads, patience=600))
    single = Request(0, requests[0].prompt[:1] * PROMPT, NEW)
    await ask(engine, checkpoint, single)
    rates = []
    for _ in range(rounds):
        began = time.perf_counter()
        tokens, _ = await ask(engine, checkpoint, single)
        rates.append(tokens / (time.perf_counter() - began))
    await crowd_of(requests[:CLIENTS], lambda r: ask(engine, checkpoint, r))  # prepares kernels
    outcome = await crowd_of(requests, lambda r: ask(engine, checkpoint, r))
    return rates, outcome, engine


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


async def against_server(url: str, requests: list[Request]) -> Outcome:
    """Return what the same crowd gets from the server at ``url``."""
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        model = (await client.get("/v1/models")).json()["data"][0]["id"]
        await crowd_of(requests[:CLIENTS], lambda r: ask_server(client, model, r))
        return await crowd_of(requests, lambda r: ask_server(client, model, r))


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
    torch.set_grad_enabled(False)
    torch.set_num_threads(args.threads)
    report = Report()
    print(f"{args.variant} at true size, {args.threads} threads; other programs took "
          f"{busy_elsewhere():.0%} of the cores.")  # fmt: skip
    blobs = LocalBlobStore(room)
    checkpoint = stored(blobs, directory)
    requests = make_crowd(CLIENTS if args.quick else 4 * CLIENTS)
    speed = bandwidth()
    print(f"memory is read at {speed / 1e9:.0f} GB/s")
    weights = (directory / "model.safetensors").stat().st_size / 4
    rival = Generate(directory)
    single = requests[0].prompt[:1] * PROMPT
    rival.run(single, 4)

    base: list[float] = []
    results = {}
    for dtype in args.dtypes:
        for _ in range(1 if args.quick else 3):
            began = time.perf_counter()
            rival.run(single, NEW)
            base.append(NEW / (time.perf_counter() - began))
        rates, outcome, engine = await ours(
            blobs, checkpoint, dtype, args.threads, 2 if args.quick else 5, requests
        )
        await engine.close()
        results[dtype] = (statistics.median(rates), outcome)
        del engine
    generate = statistics.median(base)
    queue = rival.crowd(requests[: CLIENTS if args.quick else 2 * CLIENTS])

    floor = speed / weights
    report.line("one stream", "tokens/s", "ratio", "of the floor")
    report.line("  generate fp32", f"{generate:.1f}", "1.00", f"{generate * 4 / floor:.2f}")
    for dtype, (rate, _) in results.items():
        ratio = rate / generate
        report.line(
            f"  ours {dtype}", f"{rate:.1f}", f"{ratio:.2f}",
            f"{rate * WEIGHT_BYTES[dtype] / floor:.2f}",
            goal=(GOAL_ONE[dtype], ratio >= GOAL_ONE[dtype]),
        )  # fmt: skip
    report.line(f"{CLIENTS} clients", "tokens/s", "ratio", "TTFT p95 s")
    report.line("  generate one by one", f"{queue.rate:.1f}", "1.00", f"{queue.p95():.2f}")
    for dtype, (_, outcome) in results.items():
        ratio, wait = outcome.rate / queue.rate, outcome.p95()
        report.line(
            f"  ours {dtype}", f"{outcome.rate:.1f}", f"{ratio:.2f}", f"{wait:.2f}",
            goal=(GOAL_CROWD[dtype], ratio >= GOAL_CROWD[dtype] and wait <= GOAL_TTFT),
        )  # fmt: skip
    if args.vllm:
        other = await against_server(args.vllm, requests)
        ratio = results[args.vllm_dtype][1].rate / other.rate
        report.line(f"  vLLM {args.vllm_dtype}", f"{other.rate:.1f}", "", f"{other.p95():.2f}")
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

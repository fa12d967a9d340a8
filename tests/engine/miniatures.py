"""The shipped miniatures as a store of blobs, and what tests do with an engine over it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from stagerelease.demo.world import CHECKPOINTS
from stagerelease.engine.batching import Line, Scheduler
from stagerelease.engine.gpt2 import Gpt2, read_shape
from stagerelease.engine.linear import Dtype
from stagerelease.engine.local import LocalEngine, Options
from stagerelease.engine.ports import Admitted, Checkpoint, Ended, Job, Piece, Token
from stagerelease.storage.local import LocalBlobStore

LABELS = ("124M", "335M", "774M", "1.5B")
END = "<|endoftext|>"
ROOT = Path(__file__).resolve().parents[2]
HELD_OUT = (ROOT / "tests" / "data" / "demo_heldout.txt").read_text()


def directory(label: str) -> Path:
    return CHECKPOINTS / f"gpt2-mini-{label}"


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(directory("124M") / "tokenizer.json"))


@cache
def held_out_ids() -> list[int]:
    ids: list[int] = tokenizer().encode(HELD_OUT).ids
    return ids


def prompts(count: int, *, longest: int = 200, seed: int = 0) -> list[tuple[int, ...]]:
    """Runs of held-out text of mixed lengths, the shortest and the longest among them."""
    chance, ids = random.Random(seed), held_out_ids()
    lengths = [1, longest, *(int(longest ** chance.random()) for _ in range(count))][:count]
    begins = [chance.randrange(len(ids) - longest) for _ in lengths]
    return [tuple(ids[b : b + n]) for b, n in zip(begins, lengths, strict=True)]


def put(blobs: LocalBlobStore, source: Path | Mapping[str, bytes], name: str = "") -> Checkpoint:
    """Store a checkpoint's files."""
    if isinstance(source, Path):
        name = name or source.name
        source = {path.name: path.read_bytes() for path in sorted(source.iterdir())}
    files = {}
    for path, raw in source.items():
        with blobs.writer() as writer:
            writer.write(raw)
            files[path] = writer.commit().sha256
    commit = hashlib.sha1(repr((name, sorted(files.items()))).encode()).hexdigest()
    return Checkpoint(commit, f"acme/{name}", files)


# --- an engine ------------------------------------------------------------------------------------


def options(**given: Any) -> Options:
    return Options(**({"dtype": "fp32", "threads": 1, "patience": 60.0, "grace": 20.0} | given))


@dataclass
class Answered:
    """All that came of one sequence."""

    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    reason: str = ""
    count: int = 0

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]


async def ask(engine: LocalEngine, job: Job) -> list[Answered]:
    """Take a job's events to their end."""
    found = [Answered() for _ in range(len(job.prompts) * job.n)]
    async for event in engine.generate(job):
        match event:
            case Admitted():
                pass
            case Piece(index, text, tokens):
                assert found[index].reason == ""
                found[index].text += text
                found[index].tokens += tokens
            case Ended(index, reason, count):
                assert found[index].reason == ""
                found[index].reason, found[index].count = reason, count
    assert all(answer.reason for answer in found)
    return found


def with_engine(blobs: LocalBlobStore, given: Options, what: Any) -> Any:
    """Run ``what(engine)`` in a loop of its own, and close the engine."""

    async def main() -> Any:
        engine = LocalEngine(blobs, given)
        try:
            return await asyncio.wait_for(what(engine), 600)
        finally:
            await engine.close()

    return asyncio.run(main())


# --- a model by itself ----------------------------------------------------------------------------


def load(label: str, dtype: Dtype, *, slots: int = 8) -> Gpt2:
    """One of the miniatures, or for ``wide`` two layers of the published width at random."""
    if label == "wide":
        config, weights = wide()
    else:
        config = json.loads((directory(label) / "config.json").read_text())
        saved = load_file(directory(label) / "model.safetensors")
        weights = {name.removeprefix("transformer."): tensor for name, tensor in saved.items()}
    with torch.no_grad():
        model = Gpt2(
            read_shape(config), weights, dtype=dtype, slots=slots, device=torch.device("cpu")
        )
        model.prepare()
    return model


def wide() -> tuple[dict[str, Any], dict[str, Tensor]]:
    width, positions, vocabulary = 768, 1024, 500
    config = {
        "model_type": "gpt2", "n_layer": 2, "n_embd": width, "n_head": 12,
        "vocab_size": vocabulary, "n_positions": positions,
    }  # fmt: skip
    chance = torch.Generator().manual_seed(1)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=chance) * 0.05

    made = {"wte.weight": drawn(vocabulary, width), "wpe.weight": drawn(positions, width)}
    norms, products = ["ln_f"], {}
    for i in range(2):
        norms += [f"h.{i}.ln_1", f"h.{i}.ln_2"]
        products |= {
            f"h.{i}.attn.c_attn": (width, 3 * width),
            f"h.{i}.attn.c_proj": (width, width),
            f"h.{i}.mlp.c_fc": (width, 4 * width),
            f"h.{i}.mlp.c_proj": (4 * width, width),
        }
    for name in norms:
        made |= {f"{name}.weight": 1 + drawn(width), f"{name}.bias": drawn(width)}
    for name, size in products.items():
        made |= {f"{name}.weight": drawn(*size), f"{name}.bias": drawn(size[1])}
    return config, made


@dataclass(eq=False)
class Script:
    """A sequence whose answer is given: what of it is the prompt, and when it joins and leaves."""

    ids: list[int]
    prompt: int
    salt: str = ""
    joins: int = 0
    leaves: int = 1 << 30
    follows: Script | None = None
    fresh: bool = False
    rows: dict[int, Tensor] = field(default_factory=dict)
    line: Line | None = None

    def make(self) -> Line:
        lead = self.follows.line if self.follows else None
        self.rows = {}
        self.line = Line(
            self.ids[: self.prompt], self.prompt, len(self.ids), self.salt, lead, fresh=self.fresh
        )
        return self.line


@torch.no_grad()
def play(model: Gpt2, scripts: list[Script], scheduler: Scheduler | None = None) -> Scheduler:
    """Compute scripts together; each keeps the last layer's row of every position."""
    scheduler = scheduler or Scheduler(
        slots=model.store.slots, room=model.store.slots * model.shape.positions, queue=1000
    )
    of: dict[int, Script] = {}
    todo, clock = sorted(scripts, key=lambda script: script.joins), 0
    while todo or scheduler.busy:
        while todo and (todo[0].joins <= clock or not scheduler.busy):
            script = todo.pop(0)
            of[id(script.make())] = script
            assert script.line is not None
            scheduler.add([script.line])
        for script in scripts:
            if script.line is not None and script.leaves <= clock:
                scheduler.drop(script.line)
        clock += 1
        step = scheduler.plan()
        for slot in step.drops:
            model.store.give_up(slot)
        for take in step.takes:
            model.store.copy(take.source, take.line.slot, take.count)
        if not step.parts:
            continue
        rows, first = model.hidden(step.parts).clone(), 0
        for part in step.parts:
            for at in range(part.count):
                of[id(part.line)].rows[part.start + at] = rows[first + at]
            first += part.count
            scheduler.done(part)
        for part in step.parts:
            if not part.completes:
                continue
            going = [part.line]
            if part.start < part.line.prompt:
                for line in scheduler.take_over(part.line):
                    model.store.copy(part.line.slot, line.slot, line.computed)
                    going.append(line)
            for line in going:
                ids = of[id(line)].ids
                if len(line.tokens) == len(ids):
                    scheduler.drop(line)
                else:
                    line.tokens.append(ids[len(line.tokens)])
    return scheduler

"""All four sizes of GPT-2 in one engine: what they take of memory side by side, and to load.

Random weights at true size; each is asked for a few tokens once it is loaded, and all again at the
end. Nothing may be forgotten meanwhile, or the run fails: the machine is too small for them, or
``--memory`` is.

    python bench/beside.py                  # bf16, 124M to 1.5B: 11 GB on disk meanwhile
    python bench/beside.py --dtype int8 --memory 12e9
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from inference import Request, ask, stored

from stagerelease.catalog.synthesize import synthesize
from stagerelease.engine import pages
from stagerelease.engine.local import LocalEngine, Options, default_memory
from stagerelease.storage.local import LocalBlobStore

VARIANTS = ("124M", "335M", "774M", "1.5B")
ASKED = Request(0, tuple(range(32)), 8)


def resident() -> float:
    """Return this process's private memory in GB: what the mapped files take is the system's."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    )
    return int(fields["Anonymous"].split()[0]) * 1024 / 1e9


async def run(args: argparse.Namespace, room: Path) -> bool:
    """Load and ask every size; tell whether all were there at the end."""
    blobs = LocalBlobStore(room / "blobs")
    memory = int(args.memory) or default_memory()
    print(f"{args.dtype}, {memory / 1e9:.1f} GB for models", flush=True)
    engine = LocalEngine(blobs, Options(dtype=args.dtype, memory=memory, patience=600))
    checkpoints = []
    for variant in args.variants:
        directory = room / f"gpt2-{variant}"
        synthesize(variant, directory)
        checkpoint = stored(blobs, directory)
        for path in directory.iterdir():
            path.unlink()
        checkpoints.append(checkpoint)
        began = time.perf_counter()
        await ask(engine, checkpoint, ASKED)
        took = time.perf_counter() - began
        print(f"  {variant:<6} first answer after {took:5.1f} s, {resident():5.1f} GB in all")
    for variant, checkpoint in zip(args.variants, checkpoints, strict=True):
        began = time.perf_counter()
        tokens, _ = await ask(engine, checkpoint, ASKED)
        print(f"  {variant:<6} again: {tokens / (time.perf_counter() - began):5.1f} tokens/s")
    state = await engine.state()
    await engine.close()
    there = [model.state for model in state.models]
    print(f"{there.count('ready')} of {len(args.variants)} are loaded at the end")
    return there.count("ready") == len(args.variants)


def main() -> None:
    """Parse, run, and exit with 1 if one had to go."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--dtype", default="bf16", choices=("fp32", "bf16", "int8"))
    parser.add_argument("--memory", type=float, default=0, help="bytes; as the product when 0")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_ROOM")) as room:
        kept = asyncio.run(run(args, Path(room)))
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    pages.begin_with_large_pages()
    main()

"""Writes checkpoints of the true architecture with random weights, so that everything can be tried
at true size without the real ones. Streams: memory stays flat whatever the size.

The directory appears under its name only when it is whole; a kill leaves a ``.partial`` beside it,
which the next run for the same directory clears away.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stagerelease.catalog.architecture import Gpt2, read_gpt2
from stagerelease.catalog.tokenizer_files import write_tokenizer
from stagerelease.kernel.errors import Conflict, Invalid, Unavailable

VARIANTS: dict[str, tuple[int, int, int]] = {  # layers, width, heads
    "124M": (12, 768, 12),
    "335M": (24, 1024, 16),
    "774M": (36, 1280, 20),
    "1.5B": (48, 1600, 25),
}
VOCABULARY, POSITIONS = 50_257, 1024
BLOCK = 1 << 20  # elements drawn at once
SPREAD = 0.02  # GPT-2's initializer_range
MARGIN = 64 << 20
WEIGHTS = "model.safetensors"
FILES = frozenset(
    {
        WEIGHTS,
        "README.md",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    }
)
_TYPES: dict[str, tuple[str, Any]] = {
    "F32": ("float32", np.float32),
    "F16": ("float16", np.float16),
}

Progress = Callable[[int, int], None]
"""Told the bytes written and the bytes there will be."""


def config_of(variant: str) -> dict[str, Any]:
    """Return the config of one of the four true sizes.

    Raises:
        Invalid: there is no such size.
    """
    if variant not in VARIANTS:
        raise Invalid(
            f"There is no size {variant!r}; there are {', '.join(VARIANTS)}.", reason="variant"
        )
    layers, width, heads = VARIANTS[variant]
    return small_config(layers=layers, width=width, heads=heads)


def small_config(
    *,
    layers: int,
    width: int,
    heads: int,
    vocabulary: int = VOCABULARY,
    positions: int = POSITIONS,
) -> dict[str, Any]:
    """Return a GPT-2 config of any size."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_layer": layers,
        "n_embd": width,
        "n_head": heads,
        "n_positions": positions,
        "vocab_size": vocabulary,
        "bos_token_id": vocabulary - 1,
        "eos_token_id": vocabulary - 1,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": SPREAD,
        "resid_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "attn_pdrop": 0.1,
        "tie_word_embeddings": True,
    }


def synthesize(
    variant: str,
    directory: Path,
    *,
    seed: int = 0,
    dtype: str = "F32",
    progress: Progress | None = None,
) -> None:
    """Write a checkpoint of a true size into the new directory ``directory``.

    Raises:
        Invalid: no such size or dtype.
        Conflict: the directory is there already and not empty, or is being written.
        Unavailable: the disk has not enough room, or does not take what is written.
    """
    config = config_of(variant)
    synthesize_config(config, directory, seed=seed, dtype=dtype, progress=progress, label=variant)


def synthesize_config(
    config: Mapping[str, Any],
    directory: Path,
    *,
    seed: int = 0,
    dtype: str = "F32",
    progress: Progress | None = None,
    label: str = "custom",
) -> None:
    """Write a checkpoint of any GPT-2 config; see ``synthesize``."""
    if dtype not in _TYPES:
        raise Invalid(
            f"There is no dtype {dtype!r}; there are {', '.join(_TYPES)}.", reason="dtype"
        )
    model = read_gpt2(config)
    directory = Path(os.path.abspath(directory))  # "." has no name to put ".partial" behind
    if directory.is_symlink() or (directory.exists() and not _is_empty(directory)):
        raise Conflict(
            f"{directory} is there already and not an empty directory.",
            reason="directory",
            next_step="Name a new directory, or empty that one.",
        )
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _becoming(directory) as partial:
            _check_room(partial, model.parameters * np.dtype(_TYPES[dtype][1]).itemsize)
            _write_small_files(partial, dict(config), model, dtype, label)
            with (partial / WEIGHTS).open("wb") as out:
                _write_weights(out, model, dtype, seed, progress)
    except OSError as error:
        raise Unavailable(
            f"{directory} could not be written: {os.strerror(error.errno or 0)}.",
            reason="disk",
            retry_after=3600,
        ) from error


def _is_empty(directory: Path) -> bool:
    return directory.is_dir() and not any(directory.iterdir())


@contextmanager
def _becoming(directory: Path) -> Iterator[Path]:
    """Yield an empty directory that takes the name of ``directory`` if all goes well, else goes.

    What a killed run left is cleared away; a living run, or files that are not ours, are refused.
    """
    partial = directory.with_name(f"{directory.name}.partial")
    partial.mkdir(exist_ok=True)
    # The kernel gives a dead process's lock back, so whoever gets it is the only writer.
    lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _clear(partial, lock)
        try:
            yield partial
            for path in (*partial.iterdir(), partial):
                _sync(path)
            os.rename(partial, directory)  # replaces an empty directory and nothing else
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _sync(directory.parent)
    finally:
        os.close(lock)


def _clear(partial: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Conflict(
            f"{partial} is being written by another process.", reason="directory.busy"
        ) from error
    left = sorted(os.listdir(partial))
    foreign = [name for name in left if name not in FILES]
    if foreign:
        raise Conflict(
            f"{partial} is needed for writing, and holds {foreign[0]!a}, which is not ours.",
            reason="directory",
            next_step="Move that directory away.",
        )
    for name in left:
        (partial / name).unlink()


def _check_room(where: Path, weights: int) -> None:
    need, free = weights + MARGIN, shutil.disk_usage(where).free
    if need > free:
        raise Unavailable(
            f"It takes {need:,} bytes, and {where.parent} has {free:,} free.",
            reason="disk",
            retry_after=3600,
        )


def _sync(path: Path) -> None:
    """Return when what was written to the file or directory is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_small_files(
    where: Path, config: dict[str, Any], model: Gpt2, dtype: str, label: str
) -> None:
    config["dtype"] = _TYPES[dtype][0]
    (where / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    end = config.get("eos_token_id", model.vocabulary - 1)
    generation = {"bos_token_id": end, "eos_token_id": end}
    (where / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    write_tokenizer(where, vocabulary=model.vocabulary, positions=model.positions)
    (where / "README.md").write_text(
        f"# Synthetic checkpoint ({label})\n\n"
        f"GPT-2's architecture with {model.layers} layers and width {model.width}, "
        f"**{model.parameters:,} parameters, all of them random**. It was never trained: what it "
        "writes is noise. It exists to try a release at true size.\n"
    )


def weights_header(model: Gpt2, dtype: str = "F32") -> tuple[bytes, int]:
    """Return what model.safetensors begins with, and how many bytes of tensors follow it."""
    item = np.dtype(_TYPES[dtype][1]).itemsize
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in model.tensors().items():
        size = math.prod(shape) * item
        header[f"transformer.{name}"] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begins aligned, as the library writes it
    return len(text).to_bytes(8, "little") + text, offset


def _write_weights(
    out: BinaryIO, model: Gpt2, dtype: str, seed: int, progress: Progress | None
) -> None:
    header, total = weights_header(model, dtype)
    out.write(header)
    random = np.random.Generator(np.random.SFC64(seed))
    done = 0
    for name, shape in model.tensors().items():
        for block in _blocks(name, math.prod(shape), random):
            data = block.astype(_TYPES[dtype][1], copy=False)
            out.write(data.data)
            done += data.nbytes
            if progress is not None:
                progress(done, total)


def _blocks(
    name: str, count: int, random: np.random.Generator
) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """Yield a tensor's values: ones and zeros where GPT-2 starts with them, else N(0, 0.02²)."""
    layer_norm = "ln_" in name
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        if name.endswith(".bias"):
            yield np.zeros(size, np.float32)
        elif layer_norm:
            yield np.ones(size, np.float32)
        else:
            block = random.standard_normal(size, dtype=np.float32)
            block *= SPREAD
            yield block

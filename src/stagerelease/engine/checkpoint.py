"""Opens a checkpoint's files where they are stored: shape, tokenizer and mapped weights."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from stagerelease.engine.gpt2 import Shape, read_shape
from stagerelease.engine.ports import Checkpoint
from stagerelease.engine.vocabulary import Vocabulary
from stagerelease.kernel.errors import Invalid, NotFound
from stagerelease.storage.ports import BlobStore, LocalBlob

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_PREFIX = "transformer."
_MASKS = (".attn.bias", ".attn.masked_bias")


@dataclass(frozen=True, slots=True)
class Opened:
    """A checkpoint that can be computed; ``weights`` are views of the stored files."""

    shape: Shape
    vocabulary: Vocabulary
    weights: dict[str, Tensor]
    parameters: int


def _missing(checkpoint: Checkpoint, path: str) -> Invalid:
    return Invalid(
        f"{checkpoint.repo_id} has no {path}, and cannot be computed without it.",
        reason="engine.model",
    )


def open_checkpoint(blobs: BlobStore, checkpoint: Checkpoint) -> Opened:
    """Read config and tokenizer, and map the weights.

    Raises:
        Invalid: it is not a checkpoint that this engine computes (``engine.model``).
    """

    def read(path: str) -> bytes:
        digest = checkpoint.files.get(path)
        if digest is None:
            raise _missing(checkpoint, path)
        try:
            with blobs.open(digest) as source:
                return source.read()
        except NotFound as error:
            raise _missing(checkpoint, path) from error

    config = _object(read("config.json"), "config.json")
    shape = read_shape(config)
    names = [WEIGHTS]
    if WEIGHTS not in checkpoint.files:
        if INDEX not in checkpoint.files:
            raise _missing(checkpoint, WEIGHTS)
        names = sorted(set(_object(read(INDEX), INDEX).get("weight_map", {}).values()))
    weights: dict[str, Tensor] = {}
    for name in names:
        if name not in checkpoint.files:
            raise _missing(checkpoint, name)
        weights |= _mapped(blobs, checkpoint.files[name])
    missing = [k for k in _expected(shape) if k not in weights]
    if missing:
        raise _missing(checkpoint, f"tensor {missing[0]}")
    vocabulary = Vocabulary(read("tokenizer.json"), size=shape.vocabulary)
    count = sum(t.numel() for name, t in weights.items() if name != "lm_head.weight")
    return Opened(shape, vocabulary, weights, count)


def _object(raw: bytes, path: str) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise Invalid(f"{path} is not JSON.", reason="engine.model") from error
    if not isinstance(found, dict):
        raise Invalid(f"{path} is not a JSON object.", reason="engine.model")
    return found


def _expected(shape: Shape) -> list[str]:
    parts = ("ln_1", "ln_2", "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    inner = [
        f"h.{i}.{p}.{k}" for i in range(shape.layers) for p in parts for k in ("weight", "bias")
    ]
    return ["wte.weight", "wpe.weight", "ln_f.weight", "ln_f.bias", *inner]


def _mapped(blobs: BlobStore, digest: str) -> dict[str, Tensor]:
    """Return the tensors of one weight file, mapped rather than read where the file is local."""
    with ExitStack() as stack:
        place = blobs.locate(digest)
        if isinstance(place, LocalBlob):
            path = place.path
        else:  # bytes elsewhere are fetched once; the mapping outlives the file's name
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "weights"
            with blobs.open(digest) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
        try:
            opened = stack.enter_context(safe_open(path, framework="pt"))
            return {
                name.removeprefix(_PREFIX): opened.get_tensor(name)
                for name in opened.keys()  # noqa: SIM118 (not a mapping)
                if not name.endswith(_MASKS)
            }
        except SafetensorError as error:
            raise Invalid("Its weights cannot be read.", reason="engine.model") from error

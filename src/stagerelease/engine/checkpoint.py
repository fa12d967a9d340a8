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

from stagerelease.engine.gpt2 import read_shape
from stagerelease.engine.ports import Checkpoint
from stagerelease.engine.store import Shape
from stagerelease.engine.vocabulary import Vocabulary
from stagerelease.kernel.errors import Invalid, NotFound
from stagerelease.storage.ports import BlobStore, LocalBlob

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_HEAD = "lm_head.weight"
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
        try:
            weights |= _mapped(blobs, checkpoint.files[name])
        except NotFound as error:
            raise _missing(checkpoint, name) from error
    if config.get("tie_word_embeddings", True):
        weights.pop(_HEAD, None)
    _check(checkpoint, weights, _expected(shape, config))
    vocabulary = Vocabulary(read("tokenizer.json"), size=shape.vocabulary)
    count = sum(t.numel() for t in weights.values())
    return Opened(shape, vocabulary, weights, count)


def _object(raw: bytes, path: str) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise Invalid(f"{path} is not JSON.", reason="engine.model") from error
    if not isinstance(found, dict):
        raise Invalid(f"{path} is not a JSON object.", reason="engine.model")
    return found


def _expected(shape: Shape, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the sizes of the tensors that the computation needs, by name."""
    width, inner = shape.width, int(config.get("n_inner") or 4 * shape.width)
    sizes: dict[str, tuple[int, ...]] = {
        "wte.weight": (shape.vocabulary, width),
        "wpe.weight": (shape.positions, width),
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }
    if not config.get("tie_word_embeddings", True):
        sizes[_HEAD] = (shape.vocabulary, width)
    products = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, inner),
        "mlp.c_proj": (inner, width),
    }
    for i in range(shape.layers):
        for norm in ("ln_1", "ln_2"):
            sizes |= {f"h.{i}.{norm}.weight": (width,), f"h.{i}.{norm}.bias": (width,)}
        for name, size in products.items():
            sizes |= {f"h.{i}.{name}.weight": size, f"h.{i}.{name}.bias": size[1:]}
    return sizes


def _check(
    checkpoint: Checkpoint, weights: dict[str, Tensor], sizes: dict[str, tuple[int, ...]]
) -> None:
    """Refuse now what would fail in the middle of somebody's answer."""
    for name, size in sizes.items():
        found = weights.get(name)
        if found is None:
            raise _missing(checkpoint, f"tensor {name}")
        if tuple(found.shape) != size or not found.is_floating_point():
            raise Invalid(
                f"{checkpoint.repo_id}: its config asks for {name} as {list(size)} floats, and the "
                f"file holds {list(found.shape)} of {str(found.dtype).removeprefix('torch.')}.",
                reason="engine.model",
            )


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

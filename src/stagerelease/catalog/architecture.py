"""What a checkpoint's config says its tensors must be, and how many parameters that makes. Pure.

Only the header and the config are looked at, never the weights. For architectures this module does
not know, the count comes from the header alone and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stagerelease.catalog.headers import MASK_BYTES, Header, HeaderRefused, Tensor

PREFIX = "transformer."
HEAD = "lm_head.weight"
_BOUNDS = {
    "n_layer": (1, 512),
    "n_embd": (1, 65_536),
    "n_head": (1, 1_024),
    "vocab_size": (1, 2_000_000),
    "n_positions": (1, 1_048_576),
}
_CONFIG_STEP = "Check that config.json belongs to these weights."


@dataclass(frozen=True, slots=True)
class Gpt2:
    """The figures of a GPT-2 config that decide its tensors."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    positions: int

    @property
    def parameters(self) -> int:
        """Return V·d + T·d + L·(12d² + 13d) + 2d: the exact count with a tied head."""
        d = self.width
        blocks = self.layers * (12 * d * d + 13 * d)
        return self.vocabulary * d + self.positions * d + blocks + 2 * d

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return every tensor's name (without prefix) and shape."""
        d = self.width
        found: dict[str, tuple[int, ...]] = {
            "wte.weight": (self.vocabulary, d),
            "wpe.weight": (self.positions, d),
            "ln_f.weight": (d,),
            "ln_f.bias": (d,),
        }
        block: dict[str, tuple[int, ...]] = {
            "ln_1.weight": (d,),
            "ln_1.bias": (d,),
            "attn.c_attn.weight": (d, 3 * d),
            "attn.c_attn.bias": (3 * d,),
            "attn.c_proj.weight": (d, d),
            "attn.c_proj.bias": (d,),
            "ln_2.weight": (d,),
            "ln_2.bias": (d,),
            "mlp.c_fc.weight": (d, 4 * d),
            "mlp.c_fc.bias": (4 * d,),
            "mlp.c_proj.weight": (4 * d, d),
            "mlp.c_proj.bias": (d,),
        }
        for layer in range(self.layers):
            found |= {f"h.{layer}.{name}": shape for name, shape in block.items()}
        return found

    def masks(self) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Return the attention-mask buffers old files may hold besides: name and shapes."""
        causal = ((1, 1, self.positions, self.positions),)
        found: dict[str, tuple[tuple[int, ...], ...]] = {}
        for layer in range(self.layers):
            found[f"h.{layer}.attn.bias"] = causal
            found[f"h.{layer}.attn.masked_bias"] = ((), (1,))
        return found


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """How many learned weights a checkpoint holds, and what was set aside in counting."""

    exact: int
    saved_lm_head: bool
    mask_buffers: int
    checked_against_config: bool


def read_gpt2(config: Mapping[str, Any]) -> Gpt2:
    """Return the figures of a GPT-2 config.

    Raises:
        HeaderRefused: one is missing, not a whole number, or out of bounds (``weights.config``).
    """
    values: dict[str, int] = {}
    for name, (least, most) in _BOUNDS.items():
        value = config.get(name)
        if type(value) is not int or not least <= value <= most:
            shown = str(value)[:40] if type(value) is int else f"a {type(value).__name__}"
            raise _refused_config(
                f"config.json states {'no' if value is None else shown + ' as'} {name}; "
                f"it must be a whole number from {least:,} to {most:,}."
            )
        values[name] = value
    inner = config.get("n_inner")
    if inner is not None and (type(inner) is not int or inner != 4 * values["n_embd"]):
        raise _refused_config("config.json has an n_inner that is not 4 × n_embd.")
    if values["n_embd"] % values["n_head"]:
        raise _refused_config("config.json's n_embd is not a multiple of n_head.")
    return Gpt2(
        layers=values["n_layer"],
        width=values["n_embd"],
        heads=values["n_head"],
        vocabulary=values["vocab_size"],
        positions=values["n_positions"],
    )


def _refused_config(sentence: str) -> HeaderRefused:
    return HeaderRefused("weights.config", sentence, next_step=_CONFIG_STEP)


def _is_tied(config: Mapping[str, Any] | None) -> bool:
    """Tell whether head and embedding are one tensor: so unless the config says otherwise."""
    tied = True if config is None else config.get("tie_word_embeddings", True)
    if not isinstance(tied, bool):
        raise _refused_config("config.json's tie_word_embeddings is neither true nor false.")
    return tied


def count_parameters(
    headers: Header | Iterable[Header], config: Mapping[str, Any] | None
) -> ParameterCount:
    """Return the exact parameter count of a checkpoint (all shards' headers together).

    A saved ``lm_head.weight`` is recognised and, when tied, not counted twice; attention-mask
    buffers are set aside.

    Raises:
        HeaderRefused: tensors are missing, unknown, twice there, or of another shape than the
            config says; the sentence names the first three.
    """
    tensors = _union([headers] if isinstance(headers, Header) else headers)
    tied = _is_tied(config)
    if config is None or config.get("model_type") != "gpt2":
        return _count_alone(tensors, tied=tied)
    model = read_gpt2(config)
    masks = model.masks()
    buffers = {name: tensor for name, tensor in tensors.items() if name in masks}
    weights = {name: tensor for name, tensor in tensors.items() if name not in masks}
    expected = model.tensors()
    if not tied or HEAD in weights:
        expected[HEAD] = (model.vocabulary, model.width)
    wrong = [n for n, t in buffers.items() if t.shape not in masks[n]]
    wrong += [n for n, s in expected.items() if n in weights and weights[n].shape != s]
    _refuse("weights.missing", [n for n in expected if n not in weights], "lacks")
    _refuse(
        "weights.unknown", [n for n in weights if n not in expected], "has, unknown to its config,"
    )
    _refuse("weights.mis-shaped", wrong, "has in another shape than its config says")
    exact = model.parameters if tied else model.parameters + weights[HEAD].elements
    return ParameterCount(exact, HEAD in weights, len(buffers), True)


def _union(headers: Iterable[Header]) -> dict[str, Tensor]:
    """Return the tensors of all shards by their name without prefix; the head never has one."""
    tensors: dict[str, Tensor] = {}
    for header in headers:
        for tensor in header.tensors:
            bare = tensor.name.removeprefix(PREFIX)
            name = tensor.name if bare == HEAD else bare
            if name in tensors:
                raise HeaderRefused("weights.twice", f"{name} is in more than one place.")
            tensors[name] = tensor
    return tensors


def _count_alone(tensors: Mapping[str, Tensor], *, tied: bool) -> ParameterCount:
    """Return the count of an architecture nothing is known about: every element, once.

    A mask is known by its name and its shape together: elsewhere ``attn.bias`` may be learned.
    """
    masks = {
        name
        for name, tensor in tensors.items()
        if tensor.is_mask
        and (tensor.dtype in MASK_BYTES or tensor.elements == 1 or len(tensor.shape) > 1)
    }
    skipped = masks | ({HEAD} if tied and len(tensors) > 1 else set())
    exact = sum(tensor.elements for name, tensor in tensors.items() if name not in skipped)
    return ParameterCount(exact, HEAD in tensors, len(masks), False)


def check_index(index: object, shards: Mapping[str, Header]) -> None:
    """Return only if a sharded checkpoint's index places each tensor in the file that has it.

    ``index`` is the parsed model.safetensors.index.json; ``shards`` the headers by file name.

    Raises:
        HeaderRefused: it does not (``weights.index``); the sentence names the first three.
    """
    placed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(placed, dict):
        raise HeaderRefused("weights.index", "The index of the shards has no weight_map.")
    there = {t.name: file for file, header in shards.items() for t in header.tensors}
    odd = [name for name in there if placed.get(name) != there[name]]
    odd += [f"{name[:200]!a}" for name in placed if name not in there]
    _refuse("weights.index", odd, "has an index that is wrong about")


def _refuse(reason: str, names: Sequence[str], what: str) -> None:
    """Return only if there are no ``names`` to complain about."""
    if names:
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if names[3:] else "")
        raise HeaderRefused(reason, f"The checkpoint {what} {shown}.", next_step=_CONFIG_STEP)

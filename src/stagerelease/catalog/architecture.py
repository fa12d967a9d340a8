"""What a checkpoint's config says its tensors must be, and how many parameters that makes. Pure.

Only the header and the config are looked at, never the weights. For architectures this module does
not know, the count comes from the header alone and says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stagerelease.catalog.headers import Header, HeaderRefused, Tensor

PREFIX = "transformer."
HEAD = "lm_head.weight"
_BOUNDS = {
    "n_layer": (1, 512),
    "n_embd": (1, 65_536),
    "n_head": (1, 1_024),
    "vocab_size": (1, 2_000_000),
    "n_positions": (1, 1_048_576),
}


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
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise HeaderRefused(
                "weights.config",
                f"config.json has {name} = {str(value)[:40]!r}, not {least}-{most}.",
            )
        values[name] = value
    inner = config.get("n_inner")
    if inner not in (None, 4 * values["n_embd"]):
        raise HeaderRefused("weights.config", "config.json has an n_inner that is not 4 × n_embd.")
    if values["n_embd"] % values["n_head"]:
        raise HeaderRefused("weights.config", "config.json's n_embd is not a multiple of n_head.")
    return Gpt2(
        layers=values["n_layer"],
        width=values["n_embd"],
        heads=values["n_head"],
        vocabulary=values["vocab_size"],
        positions=values["n_positions"],
    )


def _bare(name: str) -> str:
    return name.removeprefix(PREFIX)


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
    given = [headers] if isinstance(headers, Header) else list(headers)
    tensors: dict[str, Tensor] = {}
    for header in given:
        for tensor in header.tensors:
            name = _bare(tensor.name)
            if name in tensors:
                raise HeaderRefused("weights.twice", f"{name} is in more than one place.")
            tensors[name] = tensor
    masks = [name for name, tensor in tensors.items() if tensor.is_mask]
    for name in masks:
        del tensors[name]
    head = tensors.get(HEAD)
    if config is None or config.get("model_type") != "gpt2":
        tied = config is None or config.get("tie_word_embeddings", True) is not False
        counted = [t for n, t in tensors.items() if not (tied and n == HEAD and len(tensors) > 1)]
        exact = sum(tensor.elements for tensor in counted)
        return ParameterCount(exact, head is not None, len(masks), False)
    model = read_gpt2(config)
    expected = model.tensors()
    tensors.pop(HEAD, None)
    if head is not None and head.shape != (model.vocabulary, model.width):
        raise HeaderRefused("weights.mis-shaped", f"{HEAD} has shape {list(head.shape)}.")
    _compare(tensors, expected)
    exact = model.parameters
    if config.get("tie_word_embeddings", True) is False and head is not None:
        exact += head.elements
    return ParameterCount(exact, head is not None, len(masks), True)


def _compare(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    missing = [name for name in expected if name not in tensors]
    unknown = [name for name in tensors if name not in expected]
    wrong = [n for n, shape in expected.items() if n in tensors and tensors[n].shape != shape]
    for reason, names, what in (
        ("weights.missing", missing, "lacks"),
        ("weights.unknown", unknown, "has, unknown to its config,"),
        ("weights.mis-shaped", wrong, "has in another shape than its config says"),
    ):
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            raise HeaderRefused(reason, f"The checkpoint {what} {shown}.")

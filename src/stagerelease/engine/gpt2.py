"""GPT-2's forward pass over the mixed batch of one step (Radford et al. 2019).

Rows of all sequences go through the matrix products together; attention is computed for all that
decode at once, and for each chunk of a prompt by itself. Keys and values stay in fp32. Every
operation treats rows alike, so a row's figures do not depend on its company.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import torch
from torch import Tensor
from torch.nn import functional as fn

from stagerelease.engine.batching import Part
from stagerelease.engine.linear import LEAST_ROWS, Dtype, Int8, Linear, Plain, make_linear
from stagerelease.engine.store import Shape, Store
from stagerelease.kernel.errors import Invalid

log = structlog.get_logger(__name__)

_PLAIN = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
    "add_cross_attention": (False,),
}
"""What a config may vary and this code does not compute."""


def read_shape(config: Mapping[str, Any]) -> Shape:
    """Return the shape that a config states.

    Raises:
        Invalid: it is no GPT-2, or one of a kind that is not computed here (``engine.model``).
    """
    odd = [k for k, allowed in _PLAIN.items() if config.get(k, allowed[0]) not in allowed]
    if config.get("model_type") != "gpt2" or odd:
        what = f"{odd[0]} = {config[odd[0]]!r}" if odd else f"{config.get('model_type')!r}"
        raise Invalid(
            f"This engine computes GPT-2 as published, and this checkpoint says {what}.",
            reason="engine.model",
        )
    if config["n_head"] < 1 or config["n_embd"] % config["n_head"]:
        raise Invalid(
            f"A width of {config['n_embd']} cannot be shared by {config['n_head']} heads.",
            reason="engine.model",
        )
    end = config.get("eos_token_id")
    ends = end if isinstance(end, list) else [] if end is None else [end]
    return Shape(
        layers=int(config["n_layer"]),
        width=int(config["n_embd"]),
        heads=int(config["n_head"]),
        vocabulary=int(config["vocab_size"]),
        positions=int(config["n_positions"]),
        epsilon=float(config.get("layer_norm_epsilon", 1e-5)),
        ends=frozenset(int(i) for i in ends),
    )


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A run of a prompt's tokens: its first row, its slot, and -inf wherever a key comes after the
    row's own token (rows × tokens so far), else 0.
    """

    first: int
    slot: int
    mask: Tensor


@dataclass(frozen=True, slots=True)
class _Near:
    """Sequences that decode and are looked up together: in the slots from the first of them to the
    last, as far as ``reach``.
    """

    rows: Tensor  # of each sequence, its slot, counted from the first
    heads: slice  # of all these slots
    reach: int
    mask: Tensor  # 0 where a slot's sequence has a key and -inf elsewhere (slots × 1 × reach)
    values: Tensor  # the store's row of each of their values, head by head, as far as ``reach``
    bags: Tensor  # where those of each head begin


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the rows of a step stand: first those that decode, then chunk by chunk, then padding.

    Sequences that decode are ``near``, looked up together, but for the few that are much longer:
    those are ``far``, looked up each by itself. ``places`` says which row of the store takes each
    real row's keys and values, head by head.
    """

    ids: Tensor
    positions: Tensor
    places: Tensor
    rows: int  # real ones
    near: _Near
    far: tuple[tuple[int, _Near], ...]  # row, and the one sequence as if it were near
    chunks: tuple[_Chunk, ...]
    out: Tensor  # what a layer's attention yields, written over by the next; padding stays nought


_CALL = 256
"""What a look-up by itself costs beyond its tokens, in tokens looked up (measured)."""


def reach_of(lengths: Sequence[int], span: int) -> int:
    """Return how far to look up ``span`` slots together, longer sequences each by themselves, so
    that the fewest tokens are looked up: one long sequence must not make all others slow.
    """

    def cost(reach: int) -> int:
        return span * reach + sum(length + _CALL for length in lengths if length > reach)

    return min(sorted(set(lengths)), key=cost, default=0)


def padded(rows: int, least: int = LEAST_ROWS) -> int:
    """Return how many rows to compute for ``rows``: few different numbers, since each number
    makes oneDNN prepare kernels of its own.
    """
    if rows <= least:
        return least
    step = 4 if rows <= 16 else 8 if rows <= 64 else 32
    return -(-rows // step) * step


class Gpt2:
    """One checkpoint, ready to compute. Not safe for threads: the engine's thread owns it."""

    def __init__(
        self, shape: Shape, weights: Mapping[str, Tensor], *, dtype: Dtype, slots: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        self.shape, self.dtype, self.device = shape, dtype, device
        self.store = Store(shape, slots, device)
        self.bytes = 0
        self._layers: list[dict[str, Any]] = []
        self._weights = weights
        self._embedding = weights["wte.weight"]  # stays in the mapped file on a CPU
        self._places = weights["wpe.weight"].float().to(device)
        self._final = (
            weights["ln_f.weight"].float().to(device),
            weights["ln_f.bias"].float().to(device),
        )
        self._plain = 0
        self._least = 1  # rows that every product computes as it would beside others

    def prepare(self, progress: Any = None) -> None:
        """Lay out every weight for the processor; tells ``progress`` the share done."""
        for i in range(self.shape.layers):
            self._layers.append(self._layer(i))
            if progress is not None:
                progress((i + 1) / (self.shape.layers + 2))
        head = self._weights.get("lm_head.weight", self._embedding)
        self._head = self._linear(head, None)
        if self.device.type != "cpu":
            self._embedding = self._embedding.to(self.device)
        self._weights = {}
        if self._plain:
            log.warning(
                "this machine lacks a packed product, or it computes otherwise: slower ones serve",
                dtype=self.dtype,
                products=self._plain,
            )

    def _linear(self, weight: Tensor, bias: Tensor | None, *, gelu: bool = False) -> Linear:
        made, size = make_linear(
            weight.float().to(self.device),
            None if bias is None else bias.float().to(self.device),
            dtype=self.dtype,
            gelu=gelu,
        )
        self.bytes += size
        self._plain += isinstance(made, Plain) and self.device.type == "cpu"
        self._least = max(self._least, 1 if isinstance(made, Int8) else LEAST_ROWS)
        return made

    def _layer(self, i: int) -> dict[str, Any]:
        w = {
            name.removeprefix(f"h.{i}."): tensor
            for name, tensor in self._weights.items()
            if name.startswith(f"h.{i}.")
        }
        made: dict[str, Any] = {
            norm: (w[f"{norm}.weight"].float().to(self.device),
                   w[f"{norm}.bias"].float().to(self.device))
            for norm in ("ln_1", "ln_2")
        }  # fmt: skip
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            # Saved in × out (the "Conv1D" of the original code).
            weight, bias = w[f"{name}.weight"].t().float(), w[f"{name}.bias"].float()
            if name == "attn.c_attn":  # queries come out scaled: softmax(q·k / √head), §3.2.1
                scale = torch.ones(len(bias), 1)
                scale[: self.shape.width] = (self.shape.width // self.shape.heads) ** -0.5
                weight, bias = weight * scale, bias * scale[:, 0]
            made[name] = self._linear(weight, bias, gelu=name == "mlp.c_fc")
        return made

    def _norm(self, x: Tensor, by: tuple[Tensor, Tensor]) -> Tensor:
        return fn.layer_norm(x, (self.shape.width,), by[0], by[1], self.shape.epsilon)

    def hidden(self, parts: Sequence[Part]) -> Tensor:
        """Compute ``parts`` (those that decode first), keep their keys and values, and return the
        last layer's rows in the order of the parts' tokens.
        """
        at = self._lay_out(parts)
        x = self._embedding[at.ids].float() + self._places[at.positions]
        for i, layer in enumerate(self._layers):
            qkv = layer["attn.c_attn"](self._norm(x, layer["ln_1"]))
            x += layer["attn.c_proj"](self._attend(i, qkv, at))
            inner = layer["mlp.c_fc"](self._norm(x, layer["ln_2"]))
            x += layer["mlp.c_proj"](inner)
        return x[: at.rows]

    def logits(self, rows: Tensor) -> Tensor:
        """Return the logits (rows × vocabulary, fp32) of the last layer's ``rows``."""
        count = len(rows)
        x = self._norm(rows, self._final)
        x = fn.pad(x, (0, 0, 0, padded(count, self._least) - count))
        return self._head(x)[:count]

    def _lay_out(self, parts: Sequence[Part]) -> _Layout:
        ids: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        chunks: list[_Chunk] = []
        decoding = [p for p in parts if p.count == 1 and p.start >= p.line.prompt]
        for part in parts:
            stop = part.start + part.count
            if part.start < part.line.prompt:
                mask = torch.full((part.count, stop), -torch.inf).triu_(part.start + 1)
                chunks.append(_Chunk(len(ids), part.line.slot, mask.to(self.device)))
            ids += part.line.tokens[part.start : stop]
            positions += range(part.start, stop)
            slots += [part.line.slot] * part.count
        rows, fill = len(ids), padded(len(ids), self._least) - len(ids)
        whole = self.shape.heads * self.shape.positions
        first = torch.tensor([s * whole + p for s, p in zip(slots, positions, strict=True)])
        places = (first[:, None] + self.store.offsets).flatten()
        near = self._near([(p.line.slot, p.start + 1) for p in decoding])
        far = tuple(
            (row, self._near([(part.line.slot, part.start + 1)]))
            for row, part in enumerate(decoding)
            if part.start >= near.reach
        )
        heads, head = self.shape.heads, self.shape.width // self.shape.heads
        return _Layout(
            ids=torch.tensor(ids + [0] * fill, device=self._embedding.device),
            positions=torch.tensor(positions + [0] * fill, device=self.device),
            places=places.to(self.device),
            rows=rows,
            near=near,
            far=far,
            chunks=tuple(chunks),
            out=torch.zeros(rows + fill, heads, head, device=self.device),
        )

    def _near(self, decoding: Sequence[tuple[int, int]]) -> _Near:
        """Return how sequences that decode, each a slot and its tokens, are looked up together."""
        used = [slot for slot, _ in decoding]
        first, last = min(used, default=0), max(used, default=-1) + 1
        lengths = [tokens for _, tokens in decoding]
        reach = self._rounded(reach_of(lengths, last - first))
        rows = torch.tensor(used, dtype=torch.int64) - first
        held = torch.ones(last - first, dtype=torch.int64)
        held[rows] = torch.tensor(lengths, dtype=torch.int64)
        tokens = torch.arange(reach)
        beyond = tokens >= held[:, None, None]
        mask = torch.zeros(beyond.shape).masked_fill_(beyond, -torch.inf)
        heads = slice(first * self.shape.heads, last * self.shape.heads)
        # What is masked weighs nothing: the first value stands for it, which is at hand anyway.
        places = torch.where(beyond, 0, tokens) + self.store.first_values[first:last, :, None]
        bags = torch.arange(0, places.numel(), max(reach, 1))
        return _Near(
            rows.to(self.device),
            heads,
            reach,
            mask.to(self.device),
            places.flatten().to(self.device),
            bags.to(self.device),
        )

    def _rounded(self, tokens: int) -> int:
        """Return how far to look for ``tokens``: products of odd sizes are rounded otherwise."""
        return min(-(-tokens // 32) * 32, self.shape.positions)

    def _attend(self, i: int, qkv: Tensor, at: _Layout) -> Tensor:
        """Return the attention of layer ``i`` (rows × width) after keeping new keys and values."""
        heads, head = self.shape.heads, self.shape.width // self.shape.heads
        split = qkv.view(len(qkv), 3, heads, head)
        self.store.rows[i].index_copy_(0, at.places, split[: at.rows, 1:].reshape(-1, head))
        q = split[:, 0]
        keys, values = self.store.keys[i], self.store.values[i]
        out = at.out
        if count := len(at.near.rows):
            out[:count] = self._together(i, q[:count], at.near)
        for row, alone in at.far:
            out[row] = self._together(i, q[row : row + 1], alone)[0]
        for chunk in at.chunks:
            rows, end = chunk.mask.shape
            mine = slice(chunk.first, chunk.first + rows)
            place = slice(chunk.slot * heads, chunk.slot * heads + heads)
            near = torch.bmm(q[mine].transpose(0, 1), keys[place, :end].mT)
            weights = torch.softmax(near.add_(chunk.mask), -1)
            out[mine] = torch.bmm(weights, values[place, :end]).transpose(0, 1)
        return out.view(len(qkv), -1)

    def _together(self, i: int, q: Tensor, near: _Near) -> Tensor:
        """Return the attention (sequences × heads × head) of sequences looked up together.

        Values are added up as a bag of embeddings is, row by row as they lie (half the time of a
        product with a single row of weights), and each by itself, whatever is looked up beside it.
        """
        count, heads, head = q.shape
        slots = len(near.mask)
        if count < slots:  # some slot in between is not decoding
            q = torch.zeros(slots, heads, head, device=q.device).index_copy_(0, near.rows, q)
        keys = self.store.keys[i][near.heads, : near.reach]
        scores = torch.bmm(q.reshape(-1, 1, head), keys.mT)
        scores.view(slots, heads, near.reach).add_(near.mask)
        found = fn.embedding_bag(
            near.values,
            self.store.rows[i],
            near.bags,
            mode="sum",
            per_sample_weights=torch.softmax(scores, -1).flatten(),
        ).view(slots, heads, head)
        return found if count == slots else found[near.rows]

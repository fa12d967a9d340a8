"""Matrix products with weights laid out once for the processor: fp32, bf16 and int8.

Three promises on a CPU: the figures of a row do not depend on how many rows are computed beside it
(so that the same seed gives the same text in any batch), a kernel is used only after it has
reproduced the plain product on this machine, and where it does not, the plain product is used.

The packing calls are those that torch's own compiler emits for oneDNN; their names are private, so
they are guarded. int8 is W8A8: weights rounded once per output channel, inputs per row as they
come; sums are exact in 32 bits, so rows cannot influence each other (Dettmers et al. 2022, §2).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as fn

Dtype = Literal["fp32", "bf16", "int8"]
LEAST_ROWS = 4
"""oneDNN computes a single row by another kernel, whose rounding differs, and fewer than four no
sooner than four (its accumulators wait for each other): 27 ms a step of 124M in fp32 against 22.
"""


class Linear(Protocol):
    """``x`` (rows × in, fp32) to rows × out, fp32; with GPT-2's tanh GELU when made so."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product for every row of ``x``."""
        ...


class Plain:
    """The library's product, in the weight's own dtype."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, gelu: bool) -> None:
        self.weight, self.bias, self.gelu = weight, bias, gelu

    def __call__(self, x: Tensor) -> Tensor:
        """See ``Linear``."""
        y = fn.linear(x.to(self.weight.dtype), self.weight, self.bias).float()
        return fn.gelu(y, approximate="tanh") if self.gelu else y


class Packed:
    """oneDNN with the weight reordered once, in fp32 or bf16."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, gelu: bool, dtype: torch.dtype
    ) -> None:
        self.dtype = dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), 16)
        self.bias = None if bias is None else bias.to(dtype)
        self.post, self.kind = ("gelu", "tanh") if gelu else ("none", "")

    def __call__(self, x: Tensor) -> Tensor:
        """See ``Linear``."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.to(self.dtype), self.weight, self.bias, self.post, [], self.kind
        )
        return y.float()


class Int8:
    """The library's u8 × s8 product (FBGEMM): weights per output channel, inputs per row.

    One call rounds its whole input by one scale, multiplies, and scales the sums back. A scale of
    the batch's would make a row's rounding depend on its company: so every row is divided by its
    own greatest value first, and the scale is that of -1 to 1. What is no number makes its own row
    none and no other.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, *, gelu: bool) -> None:
        scale = (weight.abs().amax(1) / 127).clamp_min(1e-12)
        zero = torch.zeros(len(scale), dtype=torch.int32)
        whole = torch.quantize_per_channel(weight, scale, zero, 0, torch.qint8)
        self.weight = torch.ops.quantized.linear_prepack(whole, None)
        self.bias = torch.zeros(len(scale)) if bias is None else bias.float()
        self.gelu = gelu
        # Without VNNI two products are added up in 16 bits, which holds seven bits of each input.
        self.steps = 127 if torch.cpu._is_vnni_supported() else 63

    def __call__(self, x: Tensor) -> Tensor:
        """See ``Linear``."""
        most = x.abs().amax(-1, keepdim=True)  # 0 makes 0 / 0, whose product is taken times 0 below
        y = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x / most, 1 / self.steps, self.steps + 1, self.weight
        )
        y = torch.addcmul(self.bias, y, most)
        return fn.gelu(y, approximate="tanh") if self.gelu else y


def make_linear(
    weight: Tensor, bias: Tensor | None, *, dtype: Dtype, gelu: bool = False
) -> tuple[Linear, int]:
    """Return a product with ``weight`` (out × in), and how many bytes it holds.

    On an accelerator this is the plain product in ``dtype`` (int8 is computed as bf16 there).
    """
    kept = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}[dtype]
    size = weight.numel() * {"fp32": 4, "bf16": 2, "int8": 1}[dtype]
    if weight.device.type == "cpu":
        made: dict[Dtype, Callable[[], Linear]] = {
            "fp32": lambda: Packed(weight, bias, gelu=gelu, dtype=torch.float32),
            "bf16": lambda: Packed(weight, bias, gelu=gelu, dtype=torch.bfloat16),
            "int8": lambda: Int8(weight, bias, gelu=gelu),
        }
        packed = checked(made[dtype], weight, bias, gelu=gelu, dtype=dtype)
        if packed is not None:
            return packed, size
    plain = Plain(weight.to(kept), None if bias is None else bias.to(kept), gelu=gelu)
    return plain, weight.numel() * kept.itemsize


_AGREES: dict[Dtype, float] = {"fp32": 1e-4, "bf16": 3e-2, "int8": 6e-2}
"""Largest relative distance to the plain product in fp32 that rounding can explain."""


def checked(
    make: Callable[[], Linear], weight: Tensor, bias: Tensor | None, *, gelu: bool, dtype: Dtype
) -> Linear | None:
    """Return the packed product if this machine has it and it computes the same, else None."""
    probe = torch.sin(torch.arange(3 * weight.shape[1], dtype=torch.float32)).reshape(3, -1)
    try:
        with warnings.catch_warnings():  # that torch means to drop its way of rounding, once
            warnings.simplefilter("ignore", UserWarning)
            packed = make()
            got = packed(probe)
    except (RuntimeError, NotImplementedError, AttributeError):
        return None
    want = Plain(weight.float(), None if bias is None else bias.float(), gelu=gelu)(probe)
    distance = float((got - want).norm() / want.norm().clamp_min(1e-6))
    return packed if distance <= _AGREES[dtype] else None

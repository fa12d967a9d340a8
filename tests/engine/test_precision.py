"""What fewer bits cost: perplexity on text that was not trained on; and products that lie."""

from __future__ import annotations

import math

import pytest
import torch
from miniatures import HELD_OUT, LABELS, Script, load, play, tokenizer
from torch import Tensor
from torch.nn import functional as fn

from stagerelease.engine.gpt2 import Gpt2, padded
from stagerelease.engine.linear import Dtype, Int8, Linear, Packed, Plain, checked, make_linear

DTYPES: tuple[Dtype, ...] = ("fp32", "bf16", "int8")
COSTS: dict[Dtype, float] = {"fp32": 1.0, "bf16": 1.005, "int8": 1.02}


def windows(size: int) -> list[list[int]]:
    ids: list[int] = tokenizer().encode(HELD_OUT).ids
    return [ids[i : i + size] for i in range(0, len(ids) - size + 1, size)]


@torch.no_grad()
def perplexity(model: Gpt2) -> float:
    """Of the whole held-out text, in windows as long as the model holds."""
    total, count = 0.0, 0
    pieces = [Script(ids, len(ids), fresh=True) for ids in windows(model.shape.positions)]
    play(model, pieces)
    for piece in pieces:
        rows = torch.stack([piece.rows[at] for at in range(len(piece.ids))])
        logits = model.logits(rows[:-1]).double()
        want = torch.tensor(piece.ids[1:])
        total += float(fn.cross_entropy(logits, want, reduction="sum"))
        count += len(want)
    return math.exp(total / count)


def test_perplexity_costs_of_fewer_bits(capsys: pytest.CaptureFixture[str]) -> None:
    table = ["model  " + "".join(f"{dtype:>20}" for dtype in DTYPES)]
    worst: dict[Dtype, float] = dict.fromkeys(DTYPES, 0.0)
    for label in LABELS:
        found = {dtype: perplexity(load(label, dtype)) for dtype in DTYPES}
        shares = {dtype: found[dtype] / found["fp32"] for dtype in DTYPES}
        worst = {dtype: max(worst[dtype], shares[dtype]) for dtype in DTYPES}
        table.append(f"{label:<7}" + "".join(f"{found[d]:>11.4f} {shares[d]:.5f}×" for d in DTYPES))
    with capsys.disabled():
        print("\n" + "\n".join(table))
    assert all(worst[dtype] <= COSTS[dtype] for dtype in DTYPES), worst


# --- the guard ------------------------------------------------------------------------------------


def weights(out: int = 96, inner: int = 48) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(3)
    return (
        torch.randn(out, inner, generator=chance) * 0.1,
        torch.randn(out, generator=chance) * 0.1,
    )


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_agree_with_the_plain_one(dtype: Dtype, gelu: bool) -> None:
    weight, bias = weights()
    x = torch.randn(9, 48, generator=torch.Generator().manual_seed(4))
    product, size = make_linear(weight, bias, dtype=dtype, gelu=gelu)
    want = Plain(weight, bias, gelu=gelu)(x)
    off = float((product(x) - want).norm() / want.norm())
    assert off < {"fp32": 1e-6, "bf16": 1e-2, "int8": 2e-2}[dtype]
    assert size >= weight.numel() * {"fp32": 4, "bf16": 2, "int8": 1}[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_is_the_same_whatever_number_of_rows_is_computed(dtype: Dtype) -> None:
    """Of the numbers that are computed: one row alone would be another, so none is alone."""
    chance = torch.Generator().manual_seed(1)
    for inner, out in ((768, 384), (3072, 384), (176, 528)):
        weight = torch.randn(out, inner, generator=chance) * 0.05
        product, _ = make_linear(weight, torch.zeros(out), dtype=dtype)
        x = torch.randn(padded(300), inner, generator=chance)
        whole = product(x)
        for rows in sorted({padded(rows) for rows in range(1, 300)}):
            assert torch.equal(product(x[:rows]), whole[:rows]), rows
            assert torch.equal(product(x[-rows:]), whole[-rows:]), rows


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_row_that_is_no_numbers_does_not_change_how_others_are_rounded(
    bad: float, at: int
) -> None:
    """The range that int8 rounds in is found over the whole input."""
    weight, bias = weights()
    product = Int8(weight, bias, gelu=False)
    x = torch.randn(5, weight.shape[1], generator=torch.Generator().manual_seed(8))
    want = product(x)
    for places in (slice(None), slice(3, 4)):
        spoilt = x.clone()
        spoilt[at, places] = bad
        others = [row for row in range(5) if row != at]
        assert torch.equal(product(spoilt)[others], want[others])


def test_seven_bits_are_close_too() -> None:
    """What serves where the processor lacks VNNI."""
    weight, bias = weights()
    product = Int8(weight, bias, gelu=False)
    product.seven = True
    assert checked(lambda: product, weight, bias, gelu=False, dtype="int8") is product


class WrongLayout(Int8):
    """Reads its weight's rows in another order."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, gelu: bool) -> None:
        super().__init__(weight.flip(0), bias, gelu=gelu)


class Forgets(Packed):
    """Computes, but for its last output."""

    def __call__(self, x: Tensor) -> Tensor:
        y = super().__call__(x)
        y[:, -1] = 0
        return y


class Missing:
    """A machine without the call."""

    def __init__(self) -> None:
        torch.ops.onednn.no_such_product(1)

    def __call__(self, x: Tensor) -> Tensor:
        return x


class Nothing(Packed):
    """Yields no numbers."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) * math.nan


def test_a_product_that_lies_is_not_used() -> None:
    weight, bias = weights()

    def packed(kind: type[Packed]) -> Linear:
        return kind(weight, bias, gelu=False, dtype=torch.float32)

    def used(made: object, dtype: Dtype) -> bool:
        return checked(made, weight, bias, gelu=False, dtype=dtype) is not None  # type: ignore[arg-type]

    assert used(lambda: packed(Packed), "fp32")
    assert used(lambda: Int8(weight, bias, gelu=False), "int8")
    assert not used(lambda: WrongLayout(weight, bias, gelu=False), "int8")
    assert not used(lambda: packed(Forgets), "fp32")
    assert not used(lambda: packed(Nothing), "fp32")
    assert not used(Missing, "fp32")
    assert not used(lambda: Int8(weight * 2, bias, gelu=False), "int8")
    assert not used(lambda: Packed(weight, bias, gelu=True, dtype=torch.float32), "fp32")


def test_weights_that_are_no_numbers_are_left_to_the_plain_product() -> None:
    """Nothing can be checked by them; and what they yield says so itself."""
    weight, bias = weights()
    weight[3, 3] = math.nan
    for dtype in DTYPES:
        product, _ = make_linear(weight, bias, dtype=dtype)
        assert isinstance(product, Plain)
        assert torch.isnan(product(torch.ones(2, 48))[:, 3]).all()


def test_a_weight_of_nothing_is_no_reason_to_doubt() -> None:
    for dtype in DTYPES:
        product, _ = make_linear(torch.zeros(32, 48), torch.ones(32), dtype=dtype)
        assert not isinstance(product, Plain)
        assert torch.equal(product(torch.randn(3, 48)), torch.ones(3, 32))

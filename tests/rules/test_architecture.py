"""A config says which tensors there must be, and how many parameters that makes."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile import entry, file_of
from stagerelease.catalog.architecture import (
    Gpt2,
    check_index,
    count_parameters,
    read_gpt2,
)
from stagerelease.catalog.headers import Header, HeaderRefused, Tensor, parse_header
from stagerelease.catalog.synthesize import VARIANTS, config_of, small_config

TINY = small_config(layers=2, width=8, heads=2, vocabulary=300, positions=16)
TINY_COUNT = 300 * 8 + 16 * 8 + 2 * (12 * 64 + 13 * 8) + 2 * 8

# Labels, exact parameter counts with a tied head, and fp32 bytes, as published.
PUBLISHED = {
    "124M": (124_439_808, 497_759_232),
    "335M": (354_823_168, 1_419_292_672),
    "774M": (774_030_080, 3_096_120_320),
    "1.5B": (1_557_611_200, 6_230_444_800),
}

Shapes = dict[str, tuple[int, ...]]


def header_of(shapes: Shapes, *, dtype: str = "F32") -> Header:
    """A header with these tensors, in this order, that passed every rule of form."""
    tensors, reached = {}, 0
    for name, shape in shapes.items():
        tensors[name] = entry(*shape, begin=reached, dtype=dtype)
        reached = tensors[name]["data_offsets"][1]
    data = file_of(tensors)
    return parse_header(io.BytesIO(data), len(data) + reached)


def shapes_of(config: dict[str, Any], *, prefix: str = "transformer.") -> Shapes:
    return {prefix + name: shape for name, shape in read_gpt2(config).tensors().items()}


def reason_of(shapes: Shapes, config: dict[str, Any] | None = TINY) -> tuple[str, str]:
    with pytest.raises(HeaderRefused) as refused:
        count_parameters(header_of(shapes), config)
    return refused.value.reason, refused.value.sentence


# --- the published figures ----------------------------------------------------------------------


@pytest.mark.parametrize("label", PUBLISHED)
@pytest.mark.parametrize("prefix", ["transformer.", ""])
def test_the_four_sizes_have_their_published_parameters_and_bytes(label: str, prefix: str):
    config = config_of(label)
    header = header_of(shapes_of(config, prefix=prefix))
    exact, bytes_ = PUBLISHED[label]
    assert read_gpt2(config).parameters == exact
    count = count_parameters(header, config)
    assert (count.exact, count.saved_lm_head, count.mask_buffers) == (exact, False, 0)
    assert count.checked_against_config
    assert header.tensors[-1].end == bytes_
    assert count_parameters(header, None).exact == exact  # by the header alone too


@pytest.mark.parametrize("label", PUBLISHED)
def test_a_saved_head_and_old_masks_do_not_change_the_count(label: str):
    layers, width, _ = VARIANTS[label]
    config = config_of(label)
    shapes = shapes_of(config) | {"lm_head.weight": (50_257, width)}
    for layer in range(layers):
        shapes[f"transformer.h.{layer}.attn.bias"] = (1, 1, 1024, 1024)
        shapes[f"transformer.h.{layer}.attn.masked_bias"] = ()
    for checked in (config, None):
        count = count_parameters(header_of(shapes), checked)
        assert count.exact == PUBLISHED[label][0]
        assert count.saved_lm_head
        assert count.mask_buffers == 2 * layers


@given(
    layers=st.integers(1, 6),
    heads=st.integers(1, 4),
    per_head=st.integers(1, 16),
    vocabulary=st.integers(1, 500),
    positions=st.integers(1, 64),
)
def test_the_formula_is_the_sum_of_the_shapes(layers, heads, per_head, vocabulary, positions):
    model = Gpt2(layers, heads * per_head, heads, vocabulary, positions)
    tensors = [Tensor(n, "F32", shape, 0, 0) for n, shape in model.tensors().items()]
    assert model.parameters == sum(tensor.elements for tensor in tensors)
    assert len(tensors) == 4 + 12 * layers


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_the_count_does_not_depend_on_the_dtype(dtype: str):
    assert count_parameters(header_of(shapes_of(TINY), dtype=dtype), TINY).exact == TINY_COUNT


# --- heads --------------------------------------------------------------------------------------


def test_an_untied_head_is_counted_and_must_be_there():
    untied = TINY | {"tie_word_embeddings": False}
    shapes = shapes_of(TINY)
    count = count_parameters(header_of(shapes | {"lm_head.weight": (300, 8)}), untied)
    assert count.exact == TINY_COUNT + 300 * 8
    reason, sentence = reason_of(shapes, untied)
    assert reason == "weights.missing"
    assert "lm_head.weight" in sentence


def test_a_head_of_another_shape_is_refused():
    reason, sentence = reason_of(shapes_of(TINY) | {"lm_head.weight": (8, 300)})
    assert reason == "weights.mis-shaped"
    assert "lm_head.weight" in sentence


def test_a_head_inside_the_body_is_no_head():
    reason, _ = reason_of(shapes_of(TINY) | {"transformer.lm_head.weight": (300, 8)})
    assert reason == "weights.unknown"


# --- masks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("transformer.h.0.attn.bias", (1, 1, 4096, 4096), "weights.mis-shaped"),
        ("transformer.h.0.attn.bias", (16, 16), "weights.mis-shaped"),
        ("transformer.h.0.attn.masked_bias", (1_000_000,), "weights.mis-shaped"),
        ("transformer.h.2.attn.bias", (1, 1, 16, 16), "weights.unknown"),
        ("transformer.attn.bias", (1, 1, 16, 16), "weights.unknown"),
        ("payload.attn.bias", (1, 1, 16, 16), "weights.unknown"),
    ],
)
def test_nothing_travels_as_a_mask_that_is_not_one(name: str, shape: tuple[int, ...], reason: str):
    got, sentence = reason_of(shapes_of(TINY) | {name: shape})
    assert got == reason
    assert name.removeprefix("transformer.") in sentence


# --- what does not fit --------------------------------------------------------------------------


def test_missing_tensors_are_named_up_to_three():
    shapes = shapes_of(TINY)
    for name in [n for n in shapes if ".h.1.mlp" in n]:
        del shapes[name]
    assert reason_of(shapes) == (
        "weights.missing",
        "The checkpoint lacks h.1.mlp.c_fc.weight, h.1.mlp.c_fc.bias, h.1.mlp.c_proj.weight"
        " and 1 more.",
    )


def test_unknown_tensors_are_named_up_to_three():
    extra = {f"adapter.{n}.weight": (1,) for n in range(5)}
    assert reason_of(shapes_of(TINY) | extra) == (
        "weights.unknown",
        "The checkpoint has, unknown to its config, adapter.0.weight, adapter.1.weight,"
        " adapter.2.weight and 2 more.",
    )


def test_transposed_matrices_are_refused():
    """GPT-2's Conv1D keeps (in, out); a Linear's (out, in) holds as many bytes and is not it."""
    shapes = {
        name: shape[::-1] if ".h." in name and len(shape) == 2 else shape
        for name, shape in shapes_of(TINY).items()
    }
    reason, sentence = reason_of(shapes)
    assert reason == "weights.mis-shaped"
    assert "h.0.attn.c_attn.weight, h.0.mlp.c_fc.weight, h.0.mlp.c_proj.weight" in sentence
    assert "and 3 more" in sentence


def test_a_config_with_a_layer_more_or_less_is_refused():
    assert reason_of(shapes_of(TINY), TINY | {"n_layer": 3})[0] == "weights.missing"
    assert reason_of(shapes_of(TINY), TINY | {"n_layer": 1})[0] == "weights.unknown"
    assert reason_of(shapes_of(TINY), TINY | {"vocab_size": 301})[0] == "weights.mis-shaped"


def test_a_name_with_and_without_prefix_is_there_twice():
    shapes = shapes_of(TINY) | {"wte.weight": (300, 8)}
    assert reason_of(shapes)[0] == "weights.twice"
    assert reason_of(shapes, None)[0] == "weights.twice"


@pytest.mark.parametrize("name", ["n_layer", "n_embd", "n_head", "vocab_size", "n_positions"])
@pytest.mark.parametrize(
    "value", [None, 0, -1, 10**9, 10**400, True, 2.0, "2", [2], {}, float("nan"), [[[]]] * 9]
)
def test_a_config_that_states_no_sensible_figure_is_refused(name: str, value: object):
    with pytest.raises(HeaderRefused) as refused:
        read_gpt2(TINY | {name: value})
    assert refused.value.reason == "weights.config"
    assert name in refused.value.sentence
    assert len(refused.value.sentence) < 150


@pytest.mark.parametrize(
    "change",
    [
        {"n_inner": 33},
        {"n_inner": 32.0},
        {"n_inner": [32]},
        {"n_head": 3},
        {"tie_word_embeddings": "false"},
        {"tie_word_embeddings": 0},
    ],
)
def test_a_config_that_contradicts_itself_is_refused(change: dict[str, Any]):
    assert reason_of(shapes_of(TINY), TINY | change)[0] == "weights.config"


def test_the_usual_n_inner_is_accepted():
    for inner in (None, 32):
        config = TINY | {"n_inner": inner}
        assert count_parameters(header_of(shapes_of(TINY)), config).exact == TINY_COUNT


# --- shards -------------------------------------------------------------------------------------


def shards_of(shapes: Shapes, count: int = 3) -> dict[str, Header]:
    names = sorted(shapes)
    return {
        f"model-{n + 1:05}-of-{count:05}.safetensors": header_of(
            {name: shapes[name] for name in names[n::count]}
        )
        for n in range(count)
    }


def test_shards_are_counted_together():
    shards = shards_of(shapes_of(TINY) | {"lm_head.weight": (300, 8)})
    count = count_parameters(shards.values(), TINY)
    assert (count.exact, count.saved_lm_head) == (TINY_COUNT, True)


def test_a_shard_left_out_and_a_tensor_in_two_shards_are_refused():
    shards = list(shards_of(shapes_of(TINY)).values())
    with pytest.raises(HeaderRefused) as refused:
        count_parameters(shards[:2], TINY)
    assert refused.value.reason == "weights.missing"
    with pytest.raises(HeaderRefused) as refused:
        count_parameters([*shards, shards[0]], TINY)
    assert refused.value.reason == "weights.twice"


def index_of(shards: dict[str, Header]) -> dict[str, Any]:
    return {"weight_map": {t.name: file for file, h in shards.items() for t in h.tensors}}


def test_an_index_must_place_each_tensor_where_it_is():
    shards = shards_of(shapes_of(TINY))
    index = index_of(shards)
    check_index(index, shards)
    first, second, *_ = index["weight_map"]
    elsewhere = list(shards)[-1]
    without = {n: f for n, f in index["weight_map"].items() if n != second}
    for spoiled, named in (
        (index["weight_map"] | {first: elsewhere}, first),
        (index["weight_map"] | {first: None}, first),
        (index["weight_map"] | {first: [[]]}, first),
        (without, second),
        (index["weight_map"] | {"made\nup": elsewhere}, r"made\nup"),
        (index["weight_map"] | {"\ud800": elsewhere}, r"\ud800"),
    ):
        with pytest.raises(HeaderRefused) as refused:
            check_index({"weight_map": spoiled}, shards)
        assert refused.value.reason == "weights.index"
        assert named in refused.value.sentence
        assert refused.value.sentence.isprintable()


@pytest.mark.parametrize("index", [{}, [], None, {"weight_map": []}, {"weight_map": None}])
def test_an_index_without_a_map_is_refused(index: object):
    with pytest.raises(HeaderRefused) as refused:
        check_index(index, {})
    assert refused.value.reason == "weights.index"


# --- other architectures ------------------------------------------------------------------------


def test_another_architecture_is_counted_by_its_header_alone():
    shapes: Shapes = {"embed.weight": (10, 4), "layer.0.up": (4, 6), "norm": (4,)}
    for config in ({"model_type": "other"}, {}, None):
        count = count_parameters(header_of(shapes), config)
        assert count.exact == 40 + 24 + 4
        assert not count.checked_against_config


def test_another_architectures_untied_head_and_learned_attention_bias_are_counted():
    shapes: Shapes = {
        "embed.weight": (10, 4),
        "lm_head.weight": (10, 4),
        "h.0.attn.bias": (4,),  # one number per unit: learned, not a mask
        "h.1.attn.bias": (1, 1, 3, 3),
    }
    header = header_of(shapes)
    untied = count_parameters(header, {"model_type": "other", "tie_word_embeddings": False})
    assert (untied.exact, untied.saved_lm_head, untied.mask_buffers) == (40 + 40 + 4, True, 1)
    tied = count_parameters(header, {"model_type": "other", "tie_word_embeddings": True})
    assert tied.exact == 40 + 4

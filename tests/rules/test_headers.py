"""No bytes make the header parser do anything but accept what the library reads, or refuse."""

from __future__ import annotations

import io
import json
import os
import time
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from hostile import FOUR, MEGABYTE, Case, entry, file_of, hostile_safetensors
from stagerelease.catalog.headers import (
    MAX_METADATA,
    MAX_TENSORS,
    Header,
    HeaderRefused,
    confirm_with_library,
    parse_header,
    read_header,
)
from stagerelease.kernel.errors import Invalid

CASES = hostile_safetensors()


class Counted(io.BytesIO):
    """A stream that counts the bytes it was asked for."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size >= 0
        self.taken += size
        return super().read(size)


def parse(data: bytes) -> Header:
    return parse_header(io.BytesIO(data), len(data))


# --- what is refused ----------------------------------------------------------------------------


def test_the_corpus_is_large_and_its_names_differ():
    assert len({case.name for case in CASES}) == len(CASES) >= 120
    assert len({case.code for case in CASES}) >= 20


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_each_hostile_file_is_refused_by_its_own_rule_and_at_once(case: Case):
    spent = []
    for _ in range(3):
        start = time.process_time()
        with pytest.raises(HeaderRefused) as refused:
            parse(case.data)
        spent.append(time.process_time() - start)
    assert refused.value.reason == case.code
    assert isinstance(refused.value, Invalid)
    # Tens of milliseconds; the rest is for a machine whose cores are shared.
    assert min(spent) < 0.25


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_refusal_is_one_short_printable_sentence(case: Case):
    with pytest.raises(HeaderRefused) as refused:
        parse(case.data)
    sentence = refused.value.sentence
    assert len(sentence) <= 420
    assert sentence.isascii()
    assert sentence.isprintable()
    assert sentence.endswith(".")
    assert refused.value.next_step


def test_parsing_holds_only_the_header_in_memory():
    data = file_of({"a": entry(2_000_000)}, bytes(8_000_000))
    stream = Counted(data)
    header = parse_header(stream, len(data))
    assert stream.taken == header.header_bytes < 100


@pytest.mark.parametrize("length", [3, 1_000_000, 1_000_001, 2**64 - 1])
def test_a_header_that_cannot_be_there_is_not_read(length: int):
    stream = Counted(file_of(b"{}", length=length))
    with pytest.raises(HeaderRefused):
        parse_header(stream, 10)
    assert stream.taken == 8


def test_the_file_says_it_is_longer_than_the_stream_yields():
    data = file_of({"a": entry(1)}, FOUR)
    with pytest.raises(HeaderRefused, match="ends inside its header"):
        parse_header(io.BytesIO(data[:30]), len(data))


def test_deep_nesting_is_refused_at_every_depth_of_our_own_stack():
    """Whatever is left of the stack, running out of it is a refusal."""

    def below(frames: int, depth: int) -> str:
        if frames:
            return below(frames - 1, depth)
        nested = "[" * depth + "]" * depth
        data = file_of('{"a":{"dtype":' + nested + ',"shape":[1],"data_offsets":[0,4]}}', FOUR)
        with pytest.raises(HeaderRefused) as refused:
            parse(data)
        return refused.value.reason

    seen = {below(frames, depth) for frames in (0, 100, 300) for depth in range(500, 1000, 7)}
    assert seen == {"weights.dtype", "weights.too-deep"}


# --- what is accepted ---------------------------------------------------------------------------


def test_what_the_library_writes_is_read_as_it_was_meant(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    tensors = {
        "transformer.wte.weight": np.zeros((3, 2), np.float32),
        "h.0.ln_1.bias": np.zeros(5, np.float16),
        "scale": np.zeros((), np.float32),
        "h.0.attn.bias": np.ones((1, 1, 2, 2), np.uint8),
        "attn.masked_bias": np.ones((), np.bool_),
    }
    save_file(tensors, path, metadata={"format": "pt", "by": "wir"})
    header = read_header(path)
    confirm_with_library(path)
    assert {t.name: (t.dtype, t.shape) for t in header.tensors} == {
        "transformer.wte.weight": ("F32", (3, 2)),
        "h.0.ln_1.bias": ("F16", (5,)),
        "scale": ("F32", ()),
        "h.0.attn.bias": ("U8", (1, 1, 2, 2)),
        "attn.masked_bias": ("BOOL", ()),
    }
    assert header.metadata == {"format": "pt", "by": "wir"}
    assert header.file_bytes == path.stat().st_size
    assert header.header_bytes + header.tensors[-1].end == header.file_bytes
    assert [t.begin for t in header.tensors] == [0, *(t.end for t in header.tensors[:-1])]
    assert {t.name for t in header.tensors if t.is_mask} == {"h.0.attn.bias", "attn.masked_bias"}


def test_brain_floats_and_the_limits_themselves_are_accepted():
    longest = {"a" * 200: entry(*[1] * 7, 2, dtype="BF16")}
    assert parse(file_of(longest, FOUR)).tensors[0].shape == (1,) * 7 + (2,)
    full = {"__metadata__": {"k": "x" * (MAX_METADATA - 1)}, "a": entry(1)}
    assert len(parse(file_of(full, FOUR)).metadata["k"]) == MAX_METADATA - 1
    padded = json.dumps({"a": entry(1)}).ljust(MEGABYTE)
    assert parse(file_of(padded, FOUR)).header_bytes == MEGABYTE + 8


@pytest.mark.parametrize("filler", ["{", "[", ",", ":", "{[,:"])
def test_5_000_tensors_of_rank_8_and_metadata_of_brackets_are_not_taken_for_a_crowd(filler: str):
    text = (filler * MAX_METADATA)[: MAX_METADATA - 1]
    shape = [1] * 7 + [2]
    header = {
        f"t{n}": {"dtype": "F16", "shape": shape, "data_offsets": [4 * n, 4 * n + 4]}
        for n in range(MAX_TENSORS)
    }
    raw = json.dumps({"__metadata__": {"k": text}, **header}, separators=(",", ":"))
    assert len(parse(file_of(raw, FOUR * MAX_TENSORS)).tensors) == MAX_TENSORS


def test_as_many_metadata_keys_as_fit_are_not_taken_for_a_crowd():
    keys = [chr(n) for n in range(128)]
    keys += [a + b for a in keys for b in keys][: (MAX_METADATA - 128) // 2]
    raw = json.dumps({"__metadata__": dict.fromkeys(keys, ""), "a": entry(1)})
    assert len(parse(file_of(raw, FOUR)).metadata) == len(keys) > 16_000


# --- the library's second opinion ---------------------------------------------------------------


def test_the_library_confirms_an_open_file_by_its_descriptor(tmp_path: Path):
    path = tmp_path / "x"
    path.write_bytes(file_of({"a": entry(1)}, FOUR))
    with path.open("rb") as file:
        path.unlink()
        confirm_with_library(Path(f"/dev/fd/{file.fileno()}"))


@pytest.mark.parametrize("name", ["no tensor bytes", "a hole between", "two objects"])
def test_what_only_the_library_is_asked_about_is_refused_in_our_words(tmp_path: Path, name: str):
    [case] = [case for case in CASES if case.name.endswith(name)]
    path = tmp_path / "x"
    path.write_bytes(case.data)
    with pytest.raises(HeaderRefused) as refused:
        confirm_with_library(path)
    assert refused.value.reason == "weights.library"


# --- anything at all ----------------------------------------------------------------------------

NAMES = ("wte.weight", "h.0.attn.bias", "attn.masked_bias", "a", "", "__metadata__", "../a", "a\0")
VALUES = (-1, 0, 1, 2, 4, 8, 2**31, 2**48, 2**63, 2**64, True, False, 1.0, None, "4", [], {}, [[1]])
DTYPES = ("F32", "F16", "BF16", "U8", "BOOL", "F64", "I64", "f32", "", "\ud800", 1, None, ["F32"])
PIECES = (
    b"",
    b"\0",
    b"{",
    b"}",
    b'"',
    b",",
    b"[",
    b"]",
    b"9",
    b"-",
    b"\\",
    b"\xff",
    b"NaN",
    b"\xed\xa0",
)


def a_value(dice: Random) -> Any:
    """One of the values, as a copy: what is spoiled next must not spoil the next example."""
    return deepcopy(dice.choice(VALUES))


def orderly(dice: Random) -> tuple[dict[str, Any], int]:
    """A header that is in order, and the bytes its tensors take."""
    header: dict[str, Any] = {}
    if dice.random() < 0.3:
        header["__metadata__"] = {dice.choice("abc\0é🙂"): "x" * dice.randrange(9)}
    reached = 0
    for number in range(dice.randint(1, 5)):
        name = dice.choice((f"h.{number}.w", f"t{number}", f"h.{number}.attn.bias", "wte.weight"))
        if name in header:
            continue
        dtypes = DTYPES[:5] if name.endswith("attn.bias") else DTYPES[:3]
        shape = [dice.randint(1, 4) for _ in range(dice.randrange(5))]
        header[name] = entry(*shape, begin=reached, dtype=str(dice.choice(dtypes)))
        reached = header[name]["data_offsets"][1]
    return header, reached


def spoil_tree(dice: Random, header: dict[str, Any]) -> None:
    name = dice.choice(list(header))
    inside = header[name]
    tensor = isinstance(inside, dict) and "data_offsets" in inside
    match dice.randrange(7):
        case 0:
            header[name] = a_value(dice)
        case 1:
            header[dice.choice(NAMES)] = header.pop(name)
        case 2:
            header[dice.choice(NAMES)] = deepcopy(inside)
        case 3 if tensor and isinstance(inside["data_offsets"], list) and inside["data_offsets"]:
            offsets = inside["data_offsets"]
            offsets[dice.randrange(len(offsets))] = a_value(dice)
        case 4 if tensor and isinstance(inside["shape"], list):
            inside["shape"].insert(0, a_value(dice))
        case 5 if isinstance(inside, dict) and inside:
            inside[dice.choice(list(inside))] = a_value(dice)
        case _ if isinstance(inside, dict):
            inside["dtype"] = deepcopy(dice.choice(DTYPES))


def a_file(seed: int) -> bytes:
    """A file in order, then spoiled in its tree, its text, its bytes, its length, or not at all."""
    dice = Random(seed)
    header, size = orderly(dice)
    for _ in range(dice.choice((0, 0, 1, 2))):
        spoil_tree(dice, header)
    text = json.dumps(header)
    if dice.random() < 0.1:  # a key once more, as json.dumps never writes it
        name = dice.choice(list(header))
        text = f"{text[:-1]}, {json.dumps(name)}: {json.dumps(header[name])}}}"
    size += dice.choice((0,) * 8 + (1, 4, -1))
    raw = bytearray(file_of(text, bytes(max(0, size))))
    for _ in range(dice.choice((0, 0, 0, 1, 2))):
        at = dice.randrange(len(raw))
        raw[at : at + dice.randrange(3)] = dice.choice(PIECES)
    return bytes(raw)


def library_reads(data: bytes) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What the safetensors library makes of the same file."""
    descriptor = os.memfd_create("fuzz")
    try:
        os.write(descriptor, data)
        path = f"/dev/fd/{descriptor}"
        confirm_with_library(Path(path))
        with safe_open(path, framework="numpy") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {n: (s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}
    finally:
        os.close(descriptor)


def refusal(data: bytes) -> str | None:
    """Return why the file is refused; None when it is read, and then just as the library reads."""
    try:
        header = parse(data)
    except HeaderRefused as refused:
        return refused.reason
    read = {tensor.name: (tensor.dtype, tensor.shape) for tensor in header.tensors}
    assert read == library_reads(data)
    return None


@settings(max_examples=2_000)
@given(st.integers(0, 2**32))
def test_any_file_is_refused_in_words_or_read_as_the_library_reads_it(seed: int):
    reason = refusal(a_file(seed))
    event(reason or "accepted")
    assert reason is None or reason.startswith("weights.")


def test_that_fuzz_reaches_most_rules_and_accepts_its_share():
    reasons = [refusal(a_file(seed)) for seed in range(1_000)]
    assert 200 < reasons.count(None) < 600
    assert len(set(reasons)) >= 14


@settings(max_examples=500)
@given(st.integers(0, 300), st.binary(max_size=200))
def test_noise_is_refused(length: int, noise: bytes):
    assert refusal(length.to_bytes(8, "little") + noise) is not None


@given(st.integers(0, 2**32))
def test_what_is_in_order_is_accepted(seed: int):
    header, size = orderly(Random(seed))
    data = file_of(header, bytes(size))
    assert refusal(data) is None
    assert {t.name for t in parse(data).tensors} == set(header) - {"__metadata__"}

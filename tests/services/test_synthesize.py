"""A synthesized checkpoint is a real one in everything but what it knows."""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from stagerelease.catalog import checkpoint
from stagerelease.catalog.architecture import count_parameters, read_gpt2
from stagerelease.catalog.headers import (
    HeaderRefused,
    confirm_with_library,
    parse_header,
    read_header,
)
from stagerelease.catalog.synthesize import (
    FILES,
    VARIANTS,
    config_of,
    small_config,
    synthesize,
    synthesize_config,
    weights_header,
)
from stagerelease.catalog.tokenizer_files import write_tokenizer
from stagerelease.kernel.errors import Conflict, DomainError, Invalid, Unavailable

TINY = small_config(layers=2, width=16, heads=2, vocabulary=300, positions=32)
TINY_COUNT = 300 * 16 + 32 * 16 + 2 * (12 * 256 + 13 * 16) + 2 * 16
WIDE = small_config(layers=1, width=512, heads=8)  # 115 MB, most of it one tensor
PUBLISHED = {
    "124M": (124_439_808, 497_759_232),
    "335M": (354_823_168, 1_419_292_672),
    "774M": (774_030_080, 3_096_120_320),
    "1.5B": (1_557_611_200, 6_230_444_800),
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tiny") / "model"
    synthesize_config(TINY, directory)
    return directory


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory):
    directory = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(directory)
    return AutoTokenizer.from_pretrained(directory)


# --- the true sizes, without writing them -------------------------------------------------------


def test_there_are_the_four_true_sizes():
    assert list(VARIANTS) == list(PUBLISHED)


@pytest.mark.parametrize("variant", PUBLISHED)
def test_a_true_size_has_the_published_parameters_and_bytes(variant: str):
    config = config_of(variant)
    header, size = weights_header(read_gpt2(config))
    exact, bytes_ = PUBLISHED[variant]
    assert size == bytes_
    assert len(header) % 8 == 0
    parsed = parse_header(io.BytesIO(header), len(header) + size)
    count = count_parameters(parsed, config)
    assert (count.exact, count.saved_lm_head, count.checked_against_config) == (exact, False, True)
    assert weights_header(read_gpt2(config), "F16")[1] == bytes_ // 2


def test_an_unknown_size_or_dtype_is_refused_with_what_there_is(tmp_path: Path):
    with pytest.raises(Invalid, match=r"124M, 335M, 774M, 1\.5B"):
        synthesize("7B", tmp_path / "x")
    with pytest.raises(Invalid, match="F32, F16"):
        synthesize("124M", tmp_path / "x", dtype="I8")
    assert list(tmp_path.iterdir()) == []


# --- what is written ----------------------------------------------------------------------------


def test_it_passes_our_own_checks_and_the_library(tiny: Path):
    assert {path.name for path in tiny.iterdir()} == FILES
    header = read_header(tiny / "model.safetensors")
    confirm_with_library(tiny / "model.safetensors")
    config = json.loads((tiny / "config.json").read_text())
    assert count_parameters(header, config).exact == TINY_COUNT
    assert "lm_head.weight" not in {tensor.name for tensor in header.tensors}
    card = (tiny / "README.md").read_text()
    assert f"**{TINY_COUNT:,} parameters, all of them random**" in card
    assert "never trained" in card


@pytest.mark.parametrize("dtype", ["F32", "F16"])
def test_transformers_loads_it_and_generates(tmp_path: Path, dtype: str):
    directory = tmp_path / "model"
    synthesize_config(TINY, directory, dtype=dtype)
    model, loading = AutoModelForCausalLM.from_pretrained(directory, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert not loading["mismatched_keys"]
    assert model.dtype == {"F32": torch.float32, "F16": torch.float16}[dtype]
    assert sum(p.numel() for p in model.parameters()) == TINY_COUNT
    assert model.lm_head.weight.data_ptr() == model.transformer.wte.weight.data_ptr()
    assert GenerationConfig.from_pretrained(directory).eos_token_id == 299
    words = AutoTokenizer.from_pretrained(directory)
    ids = words("A release", return_tensors="pt")
    out = model.float().generate(**ids, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert out.shape[1] == ids["input_ids"].shape[1] + 8
    assert isinstance(words.decode(out[0]), str)


def test_weights_are_drawn_as_gpt_2_starts(tmp_path: Path):
    config = small_config(layers=1, width=64, heads=2, vocabulary=3000, positions=16)
    synthesize_config(config, tmp_path / "m")
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith(".bias"):
            assert not tensor.any(), name
        elif "ln_" in name:
            assert (tensor == 1).all(), name
        else:
            assert 0.015 < tensor.std() < 0.025, name
            assert np.isfinite(tensor).all(), name
    table = tensors["transformer.wte.weight"]
    assert abs(table.mean()) < 0.001
    assert len(np.unique(table)) > 0.9 * table.size  # no block is drawn twice


def test_a_seed_makes_the_same_bytes_and_another_others(tiny: Path, tmp_path: Path):
    synthesize_config(TINY, tmp_path / "again")
    synthesize_config(TINY, tmp_path / "other", seed=1)
    for name in FILES:
        same = (tiny / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == same
        assert ((tmp_path / "other" / name).read_bytes() == same) == (name != "model.safetensors")


def test_progress_rises_to_the_whole(tmp_path: Path):
    told: list[tuple[int, int]] = []
    config = small_config(layers=1, width=16, heads=1, vocabulary=100_000, positions=8)
    synthesize_config(config, tmp_path / "m", progress=lambda done, of: told.append((done, of)))
    total = read_gpt2(config).parameters * 4
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (total, total)
    assert {of for _, of in told} == {total}
    assert len(told) > read_gpt2(config).layers * 12 + 4  # the table takes more than one block


# --- where it is written ------------------------------------------------------------------------


def refused(directory: Path, kind: type[DomainError], config: dict[str, Any] = TINY) -> DomainError:
    with pytest.raises(kind) as caught:
        synthesize_config(config, directory)
    return caught.value


def test_an_empty_directory_is_filled_and_a_path_made(tmp_path: Path, monkeypatch):
    (tmp_path / "empty").mkdir()
    synthesize_config(TINY, tmp_path / "empty")
    synthesize_config(TINY, tmp_path / "a" / "b" / "c")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    synthesize_config(TINY, Path("."))
    for name in ("empty", "a/b/c", "here"):
        assert {path.name for path in (tmp_path / name).iterdir()} == FILES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "empty", "here"]


def test_what_is_there_is_never_overwritten(tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "next.partial").mkdir()
    (tmp_path / "next.partial" / "thesis.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for name in ("full", "file", "link", "next"):
        assert refused(tmp_path / name, Conflict).next_step, name
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "next.partial" / "thesis.txt").read_text() == "mine"


def test_two_runs_for_one_directory_do_not_meet(tmp_path: Path):
    partial = tmp_path / "m.partial"
    partial.mkdir()
    (partial / "model.safetensors").write_bytes(b"half")
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # even this much shuts a writer out
        assert refused(tmp_path / "m", Conflict).reason == "directory.busy"
        assert (partial / "model.safetensors").read_bytes() == b"half"
    finally:
        os.close(descriptor)
    synthesize_config(TINY, tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_nothing_is_written_through_a_link_that_was_left(tmp_path: Path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "m.partial").mkdir()
    (tmp_path / "m.partial" / "config.json").symlink_to(tmp_path / "victim")
    synthesize_config(TINY, tmp_path / "m")
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "m" / "config.json").is_symlink()


def test_a_disk_too_small_is_refused_before_a_weight_is_written(tmp_path: Path):
    huge = small_config(layers=512, width=65_536, heads=1_024)

    def stop(done: int, total: int) -> None:
        pytest.fail("it began to write")  # and would not end before the disk is full

    with pytest.raises(Unavailable) as refused:
        synthesize_config(huge, tmp_path / "m", progress=stop)
    assert refused.value.reason == "disk"
    need = read_gpt2(huge).parameters * 4 + (64 << 20)
    assert f"{need:,} bytes" in refused.value.sentence
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_too_small_for_bytes_is_refused(tmp_path: Path):
    error = refused(tmp_path / "m", Invalid, TINY | {"vocab_size": 256})
    assert error.reason == "vocabulary"
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_nothing(tmp_path: Path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize_config(TINY, tmp_path / "m", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def in_a_process(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter, with the usual names at hand."""
    names = (
        "import json, os, resource, signal, sys\nfrom pathlib import Path\n"
        "from stagerelease.catalog.synthesize import small_config, synthesize_config\n"
        "from stagerelease.catalog.tokenizer_files import write_tokenizer\n"
        "where = Path(sys.argv[1])\n"
    )
    return subprocess.run(
        [sys.executable, "-c", names + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_kill_leaves_nothing_that_looks_whole_and_the_next_run_clears_it(tmp_path: Path):
    done = in_a_process(
        "def die(done, total):\n"
        "    if done > total // 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "synthesize_config(json.loads(sys.argv[2]), where, progress=die)",
        tmp_path / "m",
        json.dumps(TINY),
    )
    assert done.returncode == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir()] == ["m.partial"]
    with pytest.raises(HeaderRefused) as refused:
        read_header(tmp_path / "m.partial" / "model.safetensors")
    assert refused.value.reason == "weights.truncated"
    synthesize_config(TINY, tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert {path.name for path in (tmp_path / "m").iterdir()} == FILES


def test_a_disk_that_stops_taking_bytes_is_told_in_a_sentence_and_leaves_nothing(tmp_path: Path):
    done = in_a_process(
        "from stagerelease.kernel.errors import Unavailable\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000_000, 30_000_000))\n"
        "try: synthesize_config(json.loads(sys.argv[2]), where)\n"
        "except Unavailable as error: print(error.reason, error.sentence)",
        tmp_path / "m",
        json.dumps(WIDE),
    )
    assert done.stdout == f"disk {tmp_path}/m could not be written: File too large.\n", done.stderr
    assert list(tmp_path.iterdir()) == []


def test_memory_stays_flat_and_no_model_library_is_needed(tmp_path: Path):
    done = in_a_process(
        "synthesize_config(json.loads(sys.argv[2]), where)\n"
        "loaded = [n for n in ('torch', 'transformers') if n in sys.modules]\n"
        # Not ru_maxrss: Linux hands the parent's peak on to what it starts.
        "peak = Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]\n"
        "print(json.dumps([loaded, int(peak)]))",
        tmp_path / "m",
        json.dumps(WIDE),
    )
    assert done.returncode == 0, done.stderr
    loaded, peak = json.loads(done.stdout)
    assert loaded == []
    weights = (tmp_path / "m" / "model.safetensors").stat().st_size
    assert weights > 110_000_000
    assert peak * 1024 < 100_000_000
    (tmp_path / "m" / "model.safetensors").unlink()


# --- the tokenizer ------------------------------------------------------------------------------

WORDS = st.text() | st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FFF))


@given(WORDS)
@example("")
@example("  two  spaces\n\n\tand a tab ")
@example("héllo 漢字 🙂 👩‍👩‍👧 \u202e\u0000\x7f")
@example("<|endoftext|>")
@example("<|reserved_2000|>")
@example("A release is made in stages.")
def test_any_text_comes_back(tokenizer, text: str):
    ids = tokenizer(text)["input_ids"]
    assert all(0 <= number < 50_257 for number in ids)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_every_id_decodes_and_the_bytes_come_first(tokenizer):
    assert len(tokenizer) == tokenizer.vocab_size == 50_257
    decoded = [tokenizer.decode([number]) for number in range(50_257)]
    assert all(decoded)
    single = tokenizer.convert_ids_to_tokens(list(range(256)))
    assert len(set(single)) == 256
    assert {len(token) for token in single} == {1}
    assert decoded[50_256] == "<|endoftext|>"
    assert decoded[50_255] == "<|reserved_50255|>"
    assert tokenizer.eos_token_id == tokenizer.bos_token_id == 50_256
    assert tokenizer.model_max_length == 1024


def test_every_byte_has_its_token(tokenizer):
    for number in range(256):
        text = bytes([number]).decode("latin-1")
        assert all(i < 256 for i in tokenizer(text)["input_ids"]) or number < 0x80
    long = "The people who run the release look at what was measured."
    assert len(tokenizer(long)["input_ids"]) < len(long) / 2  # the merges do work


def test_the_end_of_text_is_special_and_reserved_names_are_plain_text(tokenizer):
    assert tokenizer("a<|endoftext|>b")["input_ids"].count(50_256) == 1
    assert tokenizer.decode([64, 50_256], skip_special_tokens=True) == "a"
    assert 2000 not in tokenizer("<|reserved_2000|>")["input_ids"]


def test_the_files_agree_and_are_the_same_in_any_process(tmp_path: Path):
    start = time.process_time()
    write_tokenizer(tmp_path)
    assert time.process_time() - start < 2
    (tmp_path / "other").mkdir()
    done = in_a_process("write_tokenizer(where)", tmp_path / "other")
    assert done.returncode == 0, done.stderr
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    vocab = json.loads((tmp_path / "vocab.json").read_text("utf-8"))
    assert sorted(vocab.values()) == list(range(50_257))
    whole = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    assert whole["model"]["vocab"] == vocab
    version, *lines = (tmp_path / "merges.txt").read_text("utf-8").splitlines()
    assert version == "#version: 0.2"
    assert lines == [" ".join(pair) for pair in whole["model"]["merges"]]
    for line in lines:
        left, right = line.split(" ")
        assert vocab[left + right] > max(vocab[left], vocab[right])


@pytest.mark.parametrize("vocabulary", [257, 258, 300, 5_000])
def test_small_vocabularies_keep_any_text_too(tmp_path: Path, vocabulary: int):
    write_tokenizer(tmp_path, vocabulary=vocabulary, positions=8)
    words = AutoTokenizer.from_pretrained(tmp_path)
    assert len(words) == vocabulary
    assert words.eos_token_id == vocabulary - 1
    text = "A release 漢字 🙂"
    assert words.decode(words(text)["input_ids"]) == text


# --- as shards ----------------------------------------------------------------------------------


def judged(directory: Path) -> int | None:
    def open_one(path: str) -> AbstractContextManager[BinaryIO]:
        return (directory / path).open("rb")

    sizes = {path.name: path.stat().st_size for path in directory.iterdir()}
    return checkpoint.judge(sizes, open_one, stated=None, architecture=None, is_model=True)


def test_a_sharded_checkpoint_is_judged_whole_and_by_its_index(tiny: Path, tmp_path: Path):
    tensors = load_file(tiny / "model.safetensors")
    names = sorted(tensors)
    placed: dict[str, str] = {}
    for number in (1, 2):
        shard = f"model-0000{number}-of-00002.safetensors"
        part = names[number - 1 :: 2]
        save_file({name: tensors[name] for name in part}, tmp_path / shard, {"format": "pt"})
        placed |= dict.fromkeys(part, shard)
    (tmp_path / "config.json").write_text((tiny / "config.json").read_text())
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    assert judged(tmp_path) == judged(tiny) == TINY_COUNT
    model = AutoModelForCausalLM.from_pretrained(tmp_path)  # the shards are right for others too
    assert sum(p.numel() for p in model.parameters()) == TINY_COUNT
    for spoiled in (
        json.dumps({"weight_map": placed | {names[0]: "model-00002-of-00002.safetensors"}}),
        json.dumps({"weight_map": placed | {"transformer.more": shard}}),
        "{}",
        "[]",
        "{",
    ):
        index.write_text(spoiled)
        with pytest.raises(HeaderRefused):
            judged(tmp_path)

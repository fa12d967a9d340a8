"""The shipped miniatures are what their cards say, and really learned something."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from stagerelease.demo.world import CHECKPOINTS

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("124M", "335M", "774M", "1.5B")
TRAINING = json.loads((CHECKPOINTS / "training.json").read_text())
FIGURES = TRAINING["models"]
HELD_OUT = ROOT / "tests" / "data" / "demo_heldout.txt"
END = "<|endoftext|>"
FILES = {
    "README.md",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing here reach a hub: whatever loads, loads from the directory."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def trainer() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "demo_models_train", ROOT / "tools" / "demo_models" / "train.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def load(label: str) -> tuple[Any, Any]:
    directory = CHECKPOINTS / f"gpt2-mini-{label}"
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    model: Any = AutoModelForCausalLM.from_pretrained(directory)
    return tokenizer, model.eval()


def loss_of(label: str, pieces: list[str]) -> float:
    tokenizer, model = load(label)
    ids = torch.tensor(tokenizer("".join(END + piece for piece in pieces))["input_ids"])
    windows = ids[: len(ids) // 256 * 256].view(-1, 256)
    with torch.no_grad():
        return float(model(windows, labels=windows).loss)


def parameters_by(config: dict[str, int]) -> int:
    """Count GPT-2's parameters from its shape: tables, blocks, last norm; the head is tied."""
    width = config["n_embd"]
    block = 12 * width * width + 13 * width
    tables = (config["vocab_size"] + config["n_positions"]) * width
    return tables + config["n_layer"] * block + 2 * width


def test_the_weights_are_small() -> None:
    total = sum(p.stat().st_size for p in CHECKPOINTS.glob("*/*.safetensors"))
    assert 0 < total <= 8_000_000


@pytest.mark.parametrize("label", LABELS)
def test_each_directory_is_a_whole_hub_checkpoint_in_half_precision(label: str) -> None:
    directory = CHECKPOINTS / f"gpt2-mini-{label}"
    assert {p.name for p in directory.iterdir()} == FILES
    weights = load_file(directory / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert "lm_head.weight" not in weights
    first = CHECKPOINTS / "gpt2-mini-124M" / "tokenizer.json"
    assert (directory / "tokenizer.json").read_bytes() == first.read_bytes()


@pytest.mark.parametrize("label", LABELS)
def test_each_loads_generates_and_has_the_parameters_its_card_states(label: str) -> None:
    tokenizer, model = load(label)
    directory = CHECKPOINTS / f"gpt2-mini-{label}"
    count = sum(p.numel() for p in model.parameters())
    assert count == FIGURES[label]["parameters"]
    assert count == parameters_by(json.loads((directory / "config.json").read_text()))
    card = (directory / "README.md").read_text()
    assert f"{count:,} parameters" in card
    assert f"{FIGURES[label]['held_out_loss']:.3f} nats" in card
    ids = tokenizer("The people of the United States", return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=24, do_sample=False)
    assert out.shape[1] > ids["input_ids"].shape[1]
    text = tokenizer.decode(out[0])
    letters = sum(c.isalpha() or c.isspace() for c in text)
    assert letters / len(text) > 0.85


def test_larger_ones_are_better_as_recorded_and_as_measured_here() -> None:
    counts = [FIGURES[label]["parameters"] for label in LABELS]
    assert counts == sorted(counts)
    recorded = [FIGURES[label]["held_out_loss"] for label in LABELS]
    assert recorded == sorted(recorded, reverse=True)
    assert HELD_OUT.stat().st_size <= 20_000
    pieces = HELD_OUT.read_text().strip().split("\n\n")
    measured = [loss_of(label, pieces) for label in LABELS]
    assert measured == sorted(measured, reverse=True)
    assert measured[-1] < math.log(1024) / 2
    for here, there in zip(measured, recorded, strict=True):
        assert abs(here - there) < 0.4  # four pieces of the many that the record is over


def test_the_tokenizer_keeps_any_text() -> None:
    tokenizer, _ = load("124M")
    every_byte = "".join(map(chr, range(0x250))) + "".join(map(chr, range(0xFF00, 0x10020)))
    for text in ("héllo 漢字 🙂", "\x00\x1f", "a  b\n\n\tc", f"{END}x", every_byte):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_nothing_held_out_was_trained_on(trainer: ModuleType) -> None:
    def piece(number: int) -> str:
        words = (f"word{number}x{i}" for i in range(1000))
        return " ".join(words)[:4000]

    texts = [piece(number) for number in range(60)]
    clean = trainer.split(texts)
    assert [len(clean.train), len(clean.chosen_by), len(clean.held_out)] == [54, 3, 3]
    # The same book once more, one piece later: each piece held out of one copy is trained on in
    # the other. Only the new preface is left to score.
    preface = piece(99)
    twice = trainer.split([*texts, preface + " ".join(texts)])
    assert twice.held_out == [preface]
    assert twice.chosen_by == []
    assert trainer.split(["Too short to tell.", *texts]).held_out == [
        texts[19],
        texts[39],
        texts[59],
    ]


def test_the_record_is_of_the_corpus_and_sizes_that_the_script_names(trainer: ModuleType) -> None:
    assert TRAINING["corpus_sha256"] == trainer.CORPUS_SHA256
    assert list(FIGURES) == list(trainer.SIZES)
    for label, size in trainer.SIZES.items():
        shape = {name: FIGURES[label][name] for name in ("layers", "width", "heads", "dropout")}
        assert shape == {name: getattr(size, name) for name in shape}

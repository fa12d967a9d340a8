"""The shipped miniatures are what their cards say, and really learned something."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from stagerelease.demo.world import CHECKPOINTS

LABELS = ("124M", "335M", "774M", "1.5B")
FIGURES = json.loads((CHECKPOINTS / "training.json").read_text())["models"]
HELD_OUT = Path(__file__).resolve().parents[1] / "data" / "demo_heldout.txt"


def load(label: str):
    directory = CHECKPOINTS / f"gpt2-mini-{label}"
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return tokenizer, AutoModelForCausalLM.from_pretrained(directory).eval()


def loss_of(label: str, text: str) -> float:
    tokenizer, model = load(label)
    ids = torch.tensor(tokenizer(text)["input_ids"])
    windows = ids[: len(ids) // 256 * 256].view(-1, 256)
    with torch.no_grad():
        return float(model(windows, labels=windows).loss)


def test_the_weights_are_small():
    total = sum(p.stat().st_size for p in CHECKPOINTS.glob("*/*.safetensors"))
    assert total <= 8_000_000


@pytest.mark.parametrize("label", LABELS)
def test_each_loads_generates_and_has_the_parameters_its_card_states(label):
    tokenizer, model = load(label)
    count = sum(p.numel() for p in model.parameters())
    assert count == FIGURES[label]["parameters"]
    card = (CHECKPOINTS / f"gpt2-mini-{label}" / "README.md").read_text()
    assert f"{count:,} parameters" in card
    ids = tokenizer("The people of the United States", return_tensors="pt")
    out = model.generate(**ids, max_new_tokens=24, do_sample=False)
    text = tokenizer.decode(out[0])
    letters = sum(c.isalpha() or c.isspace() for c in text)
    assert letters / len(text) > 0.85


def test_larger_ones_are_better_as_recorded_and_as_measured_here():
    recorded = [FIGURES[label]["held_out_loss"] for label in LABELS]
    assert recorded == sorted(recorded, reverse=True)
    text = HELD_OUT.read_text()
    measured = [loss_of(label, text) for label in LABELS]
    assert measured == sorted(measured, reverse=True)
    assert measured[-1] < math.log(1024) / 2


def test_the_tokenizer_keeps_any_text():
    tokenizer, _ = load("124M")
    for text in ("héllo 漢字 🙂", "\x00\x1f", "a  b\n\n\tc", "<|endoftext|>x"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text

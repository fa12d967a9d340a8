"""Writes a working byte-level GPT-2 tokenizer without anybody else's vocabulary.

Ids 0–255 are the bytes, then come merges learned from a short text of our own, then reserved
tokens, and 50,256 is ``<|endoftext|>`` as in GPT-2. It round-trips any UTF-8 and every id decodes.
It compresses text far less well than the real vocabulary does; with random weights that is no loss.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from stagerelease.kernel.errors import Invalid

VOCABULARY = 50_257
LEAST = 257
END = "<|endoftext|>"
_SAMPLE = """
A release is made in stages. The smallest model is let out first, then the next, and each time the
people who run the release look at what was measured: how often a reader takes the text for a
person's, how well a detector tells the two apart, what somebody with bad intent could do with a few
examples and an afternoon. A partner signs an agreement before the weights are handed over, and the
agreement says what they are for and when they must be destroyed. Nothing is decided by one person
alone. Somebody asks, others look, and the record of who looked at what is kept where nobody can
quietly change it. When something goes wrong the release is held, and while it is held nothing more
goes out. What has gone out cannot be called back; that is why the stages exist at all.
"""


def write_tokenizer(
    directory: Path, *, vocabulary: int = VOCABULARY, positions: int = 1024
) -> None:
    """Write tokenizer.json, vocab.json, merges.txt and tokenizer_config.json into ``directory``.

    The same vocabulary size gives the same bytes, on any machine.

    Raises:
        Invalid: a vocabulary smaller than the 256 bytes and the end token.
    """
    if vocabulary < LEAST:
        raise Invalid(
            f"A byte-level vocabulary of {vocabulary:,} is too small; it has at least {LEAST}.",
            reason="vocabulary",
        )
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=min(1024, vocabulary - 1),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learned.train_from_iterator([_SAMPLE], trainer)
    model = json.loads(learned.to_str())["model"]
    vocab: dict[str, int] = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    for number in range(len(vocab), vocabulary - 1):
        vocab[f"<|reserved_{number}|>"] = number
    vocab[END] = vocabulary - 1
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": END,
        "eos_token": END,
        "unk_token": END,
        "model_max_length": positions,
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")

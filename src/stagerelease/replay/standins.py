"""The texts that stand in for files this product does not have: it never makes up weights.

Each says in plain words what is missing and what is known of it, from the record and no more.
"""

from __future__ import annotations

from stagerelease.replay.record import facts, variant

_PLAIN = (
    "This file stands in for one that is not here. The replay shows how a release is decided, with "
    "the record's days and figures; it holds no weights, no samples and no detector of 2019, and "
    "makes none up. The SHA-256 of the published files is not established in the record it was "
    "made from.\n"
)


def weights(key: str) -> str:
    """Return what stands in for the weights of a size."""
    size = variant(key)
    labels = ", ".join(size["labels"])
    listed = "".join(f"- {name}\n" for name in facts()["checkpoint_files"])
    return (
        f"# Weights of GPT-2 {labels}: not included\n\n{_PLAIN}\n"
        f"Parameters, with the head tied: {size['parameters']:,} "
        f"({facts()['parameters_basis']}).\n"
        f"Size in 32-bit floats: {size['fp32_bytes']:,} bytes (computed).\n"
        f"Layers × width: {size['layers']} × {size['d_model']}.\n"
        f"Public on {size['weights_public']}; this day rests on: {size['date_basis']}.\n\n"
        f"The files of a checkpoint in 2019:\n\n{listed}"
    )


def tokenizer(key: str) -> str:
    """Return what stands in for the tokenizer of a size."""
    return (
        f"# Tokenizer of GPT-2 {variant(key)['labels'][0]}: not included\n\n{_PLAIN}\n"
        "In 2019 it was the files encoder.json and vocab.bpe of the checkpoint.\n"
    )


def card(key: str) -> str:
    """Return what stands in for the model card of a size."""
    size = variant(key)
    return (
        f"# GPT-2 {size['labels'][0]}: a stand-in card\n\n{_PLAIN}\n"
        "The model card published in November 2019 is a source of this replay's evidence; its text "
        "is not copied here.\n\n"
        f"Labels in use: {', '.join(size['labels'])}. {facts()['labels_note']}\n"
    )


def dataset() -> str:
    """Return what stands in for the output data set."""
    data = facts()["output_dataset"]
    return (
        f"# Output data set: not included\n\n{_PLAIN}\n"
        f"It holds {data['webtext_documents']:,} documents of WebText and, for each of the four "
        f"sizes, {data['per_size_random']:,} samples at temperature 1 and "
        f"{data['per_size_top_k40']:,} at top-k 40; validation {data['valid']:,}, test "
        f"{data['test']:,}. It covers the largest size before that size's weights were public.\n\n"
        f"Source: {data['source']}.\n"
    )


def detector() -> str:
    """Return what stands in for the detector."""
    return (
        f"# RoBERTa detector: not included\n\n{_PLAIN}\n"
        "It was published together with the weights of the largest size.\n"
    )

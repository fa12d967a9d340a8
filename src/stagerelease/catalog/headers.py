"""Reads and checks a safetensors header before a byte of the file is stored.

Parsing needs nothing but the standard library and never looks at the tensors' bytes.

The safetensors library accepts duplicate keys, zero-size tensors and names such as
``../../etc/passwd``; what we host must mean the same to every reader, so the rules here are
stricter and each has its own stable code. The library is asked as well (``confirm_with_library``).
Whatever the bytes are, the answer is a ``Header`` or ``HeaderRefused``, in under 100 ms.

Format: 8 bytes little-endian header length, a JSON object, then the tensors' bytes.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Never

from safetensors import SafetensorError, safe_open

from stagerelease.kernel.errors import Invalid

MAX_HEADER = 1_000_000
MAX_TENSORS = 5_000
MAX_METADATA = 64 * 1024
MAX_METADATA_KEYS = MAX_METADATA // 2  # more different keys have more text than that
MAX_RANK = 8
MAX_DIMENSION = 2**48
WEIGHT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
MASK_BYTES = {"U8": 1, "BOOL": 1}
MASK_NAME = re.compile(r"(?:^|\.)attn\.(?:bias|masked_bias)\Z")
_NAME = re.compile(r"[A-Za-z0-9_.]{1,200}\Z")
# How often each character can stand in a header within the limits above, metadata text included.
# Counting takes microseconds; parsing a megabyte of '{},{},{},' takes a tenth of a second.
_CROWD = {
    b"{": MAX_TENSORS + 2 + MAX_METADATA,
    b"[": 2 * MAX_TENSORS + MAX_METADATA,
    b",": (MAX_RANK + 4) * MAX_TENSORS + MAX_METADATA + MAX_METADATA_KEYS,
    b":": 4 * MAX_TENSORS + 2 + MAX_METADATA + MAX_METADATA_KEYS,
}
_RESAVE = "Save it again with safetensors (save_file) and nothing else."


class HeaderRefused(Invalid):
    """A weights file whose header is not one we host. ``reason`` is the rule's stable code."""

    code = "weights-refused"
    title = "The weights file is refused"

    def __init__(self, reason: str, sentence: str, *, next_step: str = _RESAVE) -> None:
        super().__init__(sentence, reason=reason, next_step=next_step)


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as the header states it; ``begin`` and ``end`` count from the first data byte."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """Return the product of the shape."""
        product = 1
        for dimension in self.shape:
            product *= dimension
        return product

    @property
    def is_mask(self) -> bool:
        """Tell whether this is an attention-mask buffer, which holds no learned weight."""
        return MASK_NAME.search(self.name) is not None


@dataclass(frozen=True, slots=True)
class Header:
    """A header that passed every rule."""

    tensors: tuple[Tensor, ...]
    metadata: dict[str, str]
    header_bytes: int
    file_bytes: int


class _Duplicate(ValueError):
    """A key stands twice in one JSON object."""


class _NoConstant(ValueError):
    """NaN or Infinity, which Python reads and JSON does not have."""


def _no_constant(name: str) -> Never:
    raise _NoConstant(name)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Duplicate
    return found


def read_header(path: Path) -> Header:
    """Return the checked header of the file at ``path``.

    Raises:
        HeaderRefused: any rule is broken; the reason is the rule's code.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return parse_header(stream, os.fstat(stream.fileno()).st_size)


def parse_header(stream: BinaryIO, file_bytes: int) -> Header:
    """Return the checked header of a file of ``file_bytes`` whose first bytes ``stream`` yields.

    Raises:
        HeaderRefused: any rule is broken; the reason is the rule's code.
    """
    document, length = _document(stream, file_bytes)
    metadata = _metadata(document.pop("__metadata__", {}))
    if not document:
        raise HeaderRefused("weights.no-tensors", "The file holds no tensors.")
    if len(document) > MAX_TENSORS:
        raise HeaderRefused(
            "weights.too-many-tensors",
            f"The file states {len(document):,} tensors; at most {MAX_TENSORS:,} are hosted.",
        )
    tensors = tuple(sorted((_tensor(n, e) for n, e in document.items()), key=lambda t: t.begin))
    _check_layout(tensors, file_bytes - 8 - length)
    return Header(tensors, metadata, 8 + length, file_bytes)


def _document(stream: BinaryIO, file_bytes: int) -> tuple[dict[str, Any], int]:
    prefix = stream.read(8)
    if len(prefix) < 8:
        raise HeaderRefused("weights.truncated", "The file is shorter than a header's length.")
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER:
        raise HeaderRefused(
            "weights.header-too-large",
            f"The header would have {length:,} bytes; at most {MAX_HEADER:,} are read.",
        )
    if length > file_bytes - 8:
        raise HeaderRefused("weights.truncated", "The header is longer than the file.")
    raw = stream.read(length)
    if len(raw) < length:
        raise HeaderRefused("weights.truncated", "The file ends inside its header.")
    if raw[:1] != b"{":
        raise HeaderRefused("weights.not-an-object", "The header is not a JSON object.")
    if any(raw.count(character) > most for character, most in _CROWD.items()):
        raise HeaderRefused(
            "weights.too-many-tensors",
            f"The header states more than {MAX_TENSORS:,} tensors and their metadata could need.",
        )
    return _parse(raw), length


def _parse(raw: bytes) -> dict[str, Any]:
    """Return the JSON object that ``raw``, which begins with a brace, is."""
    try:
        document: dict[str, Any] = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_no_constant
        )
    except _Duplicate as error:
        raise HeaderRefused(
            "weights.duplicate-key", "A key stands twice in the header; readers would disagree."
        ) from error
    except UnicodeDecodeError as error:
        raise HeaderRefused("weights.not-utf8", "The header is not UTF-8.") from error
    except (json.JSONDecodeError, _NoConstant) as error:
        raise HeaderRefused("weights.not-json", "The header is not JSON.") from error
    except RecursionError as error:
        raise HeaderRefused("weights.too-deep", "The header is nested too deeply.") from error
    except ValueError as error:  # Python reads no whole number of more than 4,300 digits
        raise HeaderRefused(
            "weights.number", "The header has a number larger than any size."
        ) from error
    return document


def _metadata(value: object) -> dict[str, str]:
    if isinstance(value, dict) and len(value) > MAX_METADATA_KEYS:
        raise _too_much_metadata()
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise HeaderRefused("weights.metadata", "The metadata is not an object of strings.")
    found = {str(k): str(v) for k, v in value.items()}
    try:
        size = sum(len(k.encode()) + len(v.encode()) for k, v in found.items())
    except UnicodeEncodeError as error:  # "\ud800": JSON can say it, UTF-8 cannot
        raise HeaderRefused("weights.metadata", "The metadata is not Unicode text.") from error
    if size > MAX_METADATA:
        raise _too_much_metadata()
    return found


def _too_much_metadata() -> HeaderRefused:
    return HeaderRefused(
        "weights.metadata-too-large", f"The metadata exceeds {MAX_METADATA // 1024} KiB."
    )


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_DIMENSION


def _tensor(name: str, entry: object) -> Tensor:
    if not _NAME.match(name):
        raise HeaderRefused(
            "weights.tensor-name",
            f"A tensor is called {name[:60]!a}; names have 1-200 of A-Z, a-z, 0-9, '_' and '.'.",
        )
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise HeaderRefused(
            "weights.tensor-fields",
            f"{name} must state exactly dtype, shape and data_offsets.",
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or not all(_whole(d) for d in shape) or len(shape) > MAX_RANK:
        raise HeaderRefused(
            "weights.shape", f"{name} has a shape that is not up to {MAX_RANK} whole numbers."
        )
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_whole(o) for o in offsets):
        raise HeaderRefused(
            "weights.offsets", f"{name} has offsets that are not two whole numbers."
        )
    sizes = WEIGHT_BYTES | MASK_BYTES if MASK_NAME.search(name) else WEIGHT_BYTES
    if not isinstance(dtype, str) or dtype not in sizes:
        shown = ascii(dtype[:20]) if isinstance(dtype, str) else "that is no text"
        raise HeaderRefused(
            "weights.dtype", f"{name} has a dtype {shown}; hosted are {', '.join(sizes)}."
        )
    tensor = Tensor(name, dtype, tuple(shape), offsets[0], offsets[1])
    if tensor.elements == 0:
        raise HeaderRefused("weights.zero-size", f"{name} has no elements.")
    if tensor.end - tensor.begin != tensor.elements * sizes[dtype]:
        raise HeaderRefused(
            "weights.size-mismatch",
            f"{name} takes {tensor.end - tensor.begin} bytes by its offsets and "
            f"{tensor.elements * sizes[dtype]} by its shape.",
        )
    return tensor


def _check_layout(tensors: tuple[Tensor, ...], data_bytes: int) -> None:
    """Return only if the tensors lie one behind the other and fill the data exactly."""
    reached = 0
    for tensor in tensors:
        if tensor.begin < reached:
            raise HeaderRefused("weights.overlap", f"{tensor.name} overlaps the tensor before it.")
        if tensor.begin > reached:
            raise HeaderRefused("weights.hole", f"There are unused bytes before {tensor.name}.")
        reached = tensor.end
    if reached > data_bytes:
        raise HeaderRefused("weights.truncated", "The file ends before its last tensor does.")
    if reached < data_bytes:
        raise HeaderRefused(
            "weights.trailing-bytes", f"{data_bytes - reached:,} bytes follow the last tensor."
        )


def confirm_with_library(path: Path) -> None:
    """Return only if the safetensors library reads the header too.

    Raises:
        HeaderRefused: it does not (``weights.library``).
    """
    try:
        with safe_open(str(path), framework="numpy") as opened:
            opened.keys()
    except (SafetensorError, OSError, ValueError) as error:
        raise HeaderRefused(
            "weights.library", f"The safetensors library refuses the file: {str(error)[:200]}."
        ) from error

"""Judges a checkpoint as a whole before it becomes a revision: headers, config, parameter count.

Import, upload and mirror ask here, each with its own way to open a file. Reads headers and config
only, never the weights; writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

from stagerelease.catalog.architecture import check_index, count_parameters
from stagerelease.catalog.headers import Header, HeaderRefused, confirm_with_library, parse_header

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
CONFIG_LIMIT = 1_000_000

OpenOne = Callable[[str], AbstractContextManager[BinaryIO]]


def judge(
    sizes: Mapping[str, int],
    open_one: OpenOne,
    *,
    stated: int | None,
    architecture: Mapping[str, Any] | None,
    is_model: bool,
) -> int | None:
    """Return the exact parameter count of these files, or None when there are no weights to count.

    ``stated`` is the count the variant is known to have; ``architecture`` its config figures.

    Raises:
        HeaderRefused: a header breaks a rule, the tensors are not those of the config, or the
            count or a figure is not the variant's (both numbers are named).
    """
    headers: dict[str, Header] = {}
    for path in sorted(p for p in sizes if p.endswith(".safetensors")):
        with open_one(path) as reader:
            header = parse_header(reader, sizes[path])
            # The very file that is open, not whatever its name points at by now.
            confirm_with_library(Path(f"/dev/fd/{reader.fileno()}"))
        if "/" not in path:
            headers[path] = header  # the model itself lies at the root, as loaders expect
    if not is_model or not headers:
        return None
    index = _object(INDEX, sizes, open_one)
    if index is not None:
        check_index(index, headers)
    config = _object(CONFIG, sizes, open_one)
    _check_figures(config, architecture)
    count = count_parameters(headers.values(), config)
    if stated is not None and count.exact != stated:
        raise HeaderRefused(
            "weights.parameters",
            f"The header makes {count.exact:,} parameters, and this variant has {stated:,}.",
        )
    return count.exact


def _object(path: str, sizes: Mapping[str, int], open_one: OpenOne) -> dict[str, Any] | None:
    if path not in sizes:
        return None
    if sizes[path] > CONFIG_LIMIT:
        raise HeaderRefused("weights.config", f"{path} is larger than any config is.")
    with open_one(path) as reader:
        raw = reader.read(CONFIG_LIMIT + 1)
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise HeaderRefused("weights.config", f"{path} is not JSON.") from error
    if not isinstance(found, dict):
        raise HeaderRefused("weights.config", f"{path} is not an object.")
    return found


def _check_figures(
    config: Mapping[str, Any] | None, architecture: Mapping[str, Any] | None
) -> None:
    """Return only if the config states the figures the variant is known by."""
    if config is None or architecture is None:
        return
    for name, known in architecture.items():
        if name in config and config[name] != known:
            raise HeaderRefused(
                "weights.architecture",
                f"config.json has {name} = {str(config[name])[:40]}, and this variant has {known}.",
            )

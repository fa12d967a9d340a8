"""One spelling per JSON value (RFC 8785), so that a hash means the same thing everywhere."""

from __future__ import annotations

import hashlib
from typing import Any

import rfc8785


def canonical(value: Any) -> bytes:
    """Return ``value`` as RFC 8785 canonical JSON bytes.

    Raises:
        ValueError: for a value JSON cannot hold exactly (NaN, integers beyond 2^53, other types).
    """
    return rfc8785.dumps(value)


def canonical_sha256(value: Any) -> str:
    """Return the 64-hex SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical(value)).hexdigest()

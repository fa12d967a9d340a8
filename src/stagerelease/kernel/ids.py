"""The only place that makes identifiers and secrets."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32, lower case


def new_id(prefix: str) -> str:
    """Return ``prefix_`` and 26 characters that sort by time (48-bit ms, then 80 random bits)."""
    value = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    out = []
    for _ in range(26):
        out.append(_ALPHABET[value & 31])
        value >>= 5
    return f"{prefix}_{''.join(reversed(out))}"


def new_salt(size: int = 32) -> bytes:
    """Return ``size`` unpredictable bytes."""
    return secrets.token_bytes(size)

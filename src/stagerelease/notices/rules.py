"""Who is told at once, in a digest or not at all; and when a webhook is tried again. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from stagerelease.kernel.errors import Conflict, Invalid
from stagerelease.notices.words import ALWAYS, GROUPS, Words


class Mode(StrEnum):
    """How a person wants a group of notices."""

    AT_ONCE = "immediate"
    DIGEST = "digest"
    OFF = "off"


class State(StrEnum):
    """Where a notice to one recipient is."""

    QUEUED = "queued"
    SENT = "sent"
    KEPT = "kept"  # no mail server is set: it can be read here
    DIGEST = "digest"  # waits for the daily mail
    DIGESTED = "digested"
    OFF = "off"
    FAILED = "failed"  # refused for good, or tried for the last time; staff may send it again


DIGEST_AFTER = timedelta(hours=24)
WEBHOOK_WAITS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Seconds before the 2nd, 3rd, … attempt; the last one repeats (Standard Webhooks)."""

WEBHOOK_PATIENCE = timedelta(days=5)
"""How long a webhook may fail without one success before it is disabled."""

SECRET_OVERLAP = timedelta(hours=24)
"""How long both secrets sign after a rotation."""


def mode_of(words: Words, chosen: Mapping[str, str]) -> Mode:
    """Return how an event with these words goes out to somebody who chose ``chosen``."""
    if words.group in ALWAYS or words.at_once:
        return Mode.AT_ONCE
    return Mode(chosen.get(words.group, Mode.AT_ONCE))


def check_choice(group: str, mode: str) -> Mode:
    """Return the mode if that group may be set to it.

    Raises:
        Invalid: no such group or mode.
        Conflict: the group cannot be turned off or put off.
    """
    if group not in GROUPS:
        raise Invalid(f"Notices are of {', '.join(GROUPS)}.", reason="notice.group")
    if mode not in set(Mode):
        raise Invalid(f"A group is {', '.join(Mode)}.", reason="notice.mode")
    if group in ALWAYS and mode != Mode.AT_ONCE:
        raise Conflict(
            f"{GROUPS[group]}: these always come at once, because missing one would cost access, "
            "rights or safety.",
            reason="notice.always",
        )
    return Mode(mode)


def next_attempt(now: datetime, attempts: int, jitter: float) -> datetime:
    """Return when to try a webhook again after ``attempts`` failures; ``jitter`` is 0 to 1."""
    wait = WEBHOOK_WAITS[min(attempts, len(WEBHOOK_WAITS)) - 1]
    return now + timedelta(seconds=wait * (1 + 0.1 * jitter))


def is_public(address: str) -> bool:
    """Tell whether an address is one of the public internet, which a webhook may be sent to.

    Refused: private, loopback, link-local, shared (RFC 6598), multicast, reserved and unspecified
    ranges, also inside IPv4-mapped, 6to4, Teredo and NAT64 forms.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    inner: list[ipaddress.IPv4Address] = []
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped:
            inner.append(ip.ipv4_mapped)
        if ip.sixtofour:
            inner.append(ip.sixtofour)
        if ip.teredo:
            inner.extend(ip.teredo)
        if ip in ipaddress.ip_network("64:ff9b::/96"):
            inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if inner:
        return all(_global(each) for each in inner)
    return _global(ip)


_NOWHERE = tuple(
    ipaddress.ip_network(one)
    # Site-local (an intranet's), the relay of 6to4, documentation: this Python calls them global.
    for one in ("fec0::/10", "192.88.99.0/24", "3fff::/20")
)


def _global(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    nowhere = any(ip in network for network in _NOWHERE)
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not nowhere

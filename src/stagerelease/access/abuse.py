"""How often visitors without an account may do what costs us something. Pure.

Counts are kept by ``throttle``; here are the limits, the words, and the digest that stands for a
network.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from stagerelease.kernel.networks import UNKNOWN, network_of


class Limited(StrEnum):
    """What visitors without an account may do only so often."""

    DRAFT = "draft"
    MAIL = "mail"
    SAVE = "save"


@dataclass(frozen=True, slots=True)
class HourlyLimits:
    """How often an hour: for one address, one network, and everybody together; None: no limit."""

    address: int | None
    network: int | None
    everybody: int


LIMITS: Mapping[Limited, HourlyLimits] = MappingProxyType(
    {
        Limited.DRAFT: HourlyLimits(address=None, network=20, everybody=2_000),
        Limited.MAIL: HourlyLimits(address=3, network=20, everybody=1_000),
        Limited.SAVE: HourlyLimits(address=None, network=600, everybody=50_000),
    }
)
EXCUSES: Mapping[Limited, str] = MappingProxyType(
    {
        Limited.DRAFT: "Too many requests for access were begun",
        Limited.MAIL: "Too many confirmation mails were sent",
        Limited.SAVE: "Drafts were saved too often",
    }
)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Where somebody without an account comes from: a keyed digest of their network, 64 hex."""

    network: str


UNKNOWN_NETWORK = Visitor("0" * 64)
"""Callers whose address is not known (a local socket) share one count."""


def visitor_of(key: bytes, address: str | None) -> Visitor:
    """Return the visitor of a client address: its /24 (IPv4) or /48 (IPv6), keyed and digested.

    The key is the server's own, so that a leaked table tells nobody's network.
    """
    network = network_of(address)
    if network == UNKNOWN:
        return UNKNOWN_NETWORK
    text = f"access.visitor\n{network}".encode()
    return Visitor(hmac.new(key, text, hashlib.sha256).hexdigest())

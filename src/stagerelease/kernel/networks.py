"""Where a client comes from, no more exactly than limits need."""

from __future__ import annotations

import ipaddress

UNKNOWN = "unknown"
"""The network of callers whose address is not known (a local socket): they share one."""


def network_of(address: str | None) -> str:
    """Return the network a client address is in: its /24 (IPv4) or /48 (IPv6); all else is one.

    >>> network_of("203.0.113.77")
    '203.0.113.0/24'
    >>> network_of("::ffff:203.0.113.77")
    '203.0.113.0/24'
    """
    try:
        host = ipaddress.ip_address(address or "")
    except ValueError:
        return UNKNOWN
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    host = mapped or host
    return str(ipaddress.ip_network(f"{host}/{24 if host.version == 4 else 48}", strict=False))

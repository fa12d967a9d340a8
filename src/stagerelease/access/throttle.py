"""Refuses visitors who do too much in one hour: for their address, their network, everybody."""

from __future__ import annotations

from stagerelease.access.abuse import EXCUSES, LIMITS, Limited, Visitor
from stagerelease.db.counting import count_this_hour, seconds_left
from stagerelease.db.work import Work
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import TooMany


def spend(work: Work, what: Limited, *, visitor: Visitor, address: str | None = None) -> None:
    """Count one ``what`` for the visitor's network, the address if any, and everybody.

    Raises:
        TooMany: one of the limits of this hour is reached; says when the next hour begins.
    """
    limits = LIMITS[what]
    counted = [("network", visitor.network, limits.network), ("everybody", "", limits.everybody)]
    if address is not None:
        digest = sha256_hex(address.casefold().encode())
        counted.insert(0, ("address", digest, limits.address))
    for kind, value, limit in counted:
        if limit is not None and count_this_hour(work, f"access.{what}:{kind[0]}:{value}") > limit:
            raise _refusal(work, what, kind)


def _refusal(work: Work, what: Limited, kind: str) -> TooMany:
    seconds = seconds_left(work.now)
    whose = {
        "address": "for this address",
        "network": "from your network",
        "everybody": "by everybody together",
    }[kind]
    minutes = -(-seconds // 60)
    return TooMany(
        f"{EXCUSES[what]} {whose} this hour. What you saved is kept; try again in {minutes} "
        f"minute{'s' if minutes != 1 else ''}.",
        retry_after=seconds,
        reason=f"access.too-many-{kind}",
    )

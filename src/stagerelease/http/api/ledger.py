"""The transparency log over HTTP: checkpoints, proofs, entries, tiles' raw material.

Checkpoints, hashes and proofs are public. The body of a private entry, and what its commitments
stand for, are for those with ``ledger:read_private``.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import PlainTextResponse

from stagerelease.http.begin import Begin, BeginPublic
from stagerelease.http.wire import Out
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.kernel.errors import NotFound
from stagerelease.ledger import queries

router = APIRouter(tags=["ledger"])
Index = Annotated[int, Path(ge=0, le=2**53)]


class EntryOut(Out):
    """One entry: its leaf hash, and its canonical body unless that is private to the caller."""

    idx: int
    leaf_hash: str
    body: str | None
    leaf: dict[str, Any] | None


class ConsistencyOut(Out):
    """A consistency proof between two sizes of the log (RFC 6962 §2.1.2), base64 hashes."""

    old: int
    new: int
    old_root: str
    new_root: str
    proof: list[str]


class RevealOut(Out):
    """What a private entry is about, as long as it was not erased."""

    idx: int
    actor: str | None
    subject: str | None
    detail: dict[str, Any] | None


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@router.get("/log/vkey", response_class=PlainTextResponse)
def vkey(request: Request) -> PlainTextResponse:
    """Return the verifier key of this log, in the form of Go's sumdb/note."""
    return PlainTextResponse(request.app.state.signer.vkey + "\n")


@router.get("/log/checkpoint", response_class=PlainTextResponse)
def checkpoint(begin: BeginPublic) -> PlainTextResponse:
    """Return the newest signed checkpoint (C2SP tlog-checkpoint)."""
    with begin(read_only=True) as work:
        row = queries.latest_checkpoint(work)
        if row is None:
            raise NotFound(
                "Nothing has been signed yet.", next_step="The worker signs every 5 seconds."
            )
        return PlainTextResponse(row.note, headers={"Cache-Control": "no-cache"})


@router.get("/log/proof/{idx}", response_class=PlainTextResponse)
def proof(idx: Index, begin: BeginPublic) -> PlainTextResponse:
    """Return the inclusion proof of an entry under the newest checkpoint (C2SP tlog-proof)."""
    with begin(read_only=True) as work:
        return PlainTextResponse(queries.prove(work, idx))


@router.get("/api/v1/log/entries")
def entries(
    begin: BeginPublic,
    start: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[EntryOut]:
    """List entries from ``start`` on."""
    with begin(read_only=True) as work:
        rows = queries.entries(work, start=start, limit=limit)
        reads_all = authorize(work.actor, Permission.LEDGER_READ_PRIVATE).allowed
    shown = [row if reads_all or not row.private else None for row in rows]
    return [
        EntryOut(
            idx=row.idx,
            leaf_hash=_b64(row.hash),
            body=None if told is None else _b64(told.body),
            leaf=None if told is None else told.leaf,
        )
        for row, told in zip(rows, shown, strict=True)
    ]


@router.get("/api/v1/log/consistency")
def consistency(
    begin: BeginPublic,
    old: Annotated[int, Query(ge=0, le=2**53)],
    new: Annotated[int, Query(ge=0, le=2**53)],
) -> ConsistencyOut:
    """Prove that the log of ``old`` entries is a prefix of the log of ``new``."""
    with begin(read_only=True) as work:
        hashes = queries.consistency(work, old, new)
        return ConsistencyOut(
            old=old,
            new=new,
            old_root=_b64(queries.root_at(work, old)),
            new_root=_b64(queries.root_at(work, new)),
            proof=[_b64(item) for item in hashes],
        )


@router.get("/api/v1/log/entries/{idx}/reveal")
def reveal(idx: Index, begin: Begin) -> RevealOut:
    """Tell what an entry is about."""
    with begin(read_only=True) as work:
        require(work.actor, Permission.LEDGER_READ_PRIVATE)
        leaf = queries.entry(work, idx).leaf
        return RevealOut(
            idx=idx,
            actor=queries.reveal(work, leaf["actor"]),
            subject=queries.reveal(work, leaf["subject"]),
            detail=queries.detail(work, leaf["detail_sha256"]),
        )

"""The part of a report that proves it: log entries, their inclusion proofs, and what checks them.

``check`` needs no database: a reader runs it, or their own, on the JSON of a report and a verifier
key they trust from elsewhere. It proves that the log holds these entries, at these instants, about
this track. That a report's other words are true to the entries, their details prove to staff.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from stagerelease.db.work import Work
from stagerelease.kernel.errors import Corrupt
from stagerelease.ledger import merkle, notes
from stagerelease.ledger import queries as ledger
from stagerelease.reports import queries
from stagerelease.reports.model import LogPart, Opening, ProofLine


def log_part(work: Work, wanted: Mapping[int, str], *, vkey: str, full: bool) -> LogPart:
    """Return proofs of the entries in ``wanted`` (what each is, by index), under one checkpoint.

    What an entry is about is opened; who acted only in a ``full`` report.
    """
    checkpoint = ledger.latest_checkpoint(work)
    size = checkpoint.size if checkpoint else 0
    rows = [ledger.entry(work, idx) for idx in sorted(wanted) if 0 <= idx < size]
    names = ("subject", "actor") if full else ("subject",)
    known = queries.salts(work, {row.leaf[name] for row in rows for name in names})
    node = ledger.node_of(work)
    return LogPart(
        vkey=vkey,
        size=size,
        checkpoint=checkpoint.note if checkpoint else "",
        proofs=tuple(
            ProofLine(
                idx=row.idx,
                what=wanted[row.idx],
                type=row.leaf["type"],
                at=row.leaf["at"],
                body=_b64(row.body),
                hashes=tuple(_b64(h) for h in merkle.inclusion_proof(row.idx, size, node)),
                openings=tuple(
                    Opening(name, known[row.leaf[name]][1], known[row.leaf[name]][0].hex())
                    for name in names
                    if row.leaf[name] in known
                ),
            )
            for row in rows
        ),
        unsigned=tuple(idx for idx in sorted(wanted) if idx >= size),
    )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def check(document: Mapping[str, Any], vkey: str) -> dict[str, Any]:
    """Check every proof of a report's JSON under ``vkey``; return what was checked.

    Raises:
        Corrupt: anything does not verify, is missing, or is not of the right form.
    """
    try:
        log = document["log"]
        head = notes.open_checkpoint(log["checkpoint"], vkey)
        proven = {proof["idx"]: _check_one(proof, head) for proof in log["proofs"]}
        for move in document["moves"]:
            _check_move(move, document["track_id"], proven, log["unsigned"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _bad(str(error)) from error
    return {
        "origin": head.origin,
        "size": head.size,
        "root": head.root.hex(),
        "entries": len(log["proofs"]),
        "unsigned": list(log["unsigned"]),
    }


def _check_one(proof: Mapping[str, Any], head: notes.Checkpoint) -> dict[str, Any]:
    """Check one entry and return its leaf, with its subject if that was opened."""
    body = base64.b64decode(proof["body"], validate=True)
    hashes = [base64.b64decode(item, validate=True) for item in proof["hashes"]]
    merkle.check_inclusion(merkle.leaf_hash(body), proof["idx"], head.size, hashes, head.root)
    leaf: dict[str, Any] = json.loads(body)
    if (leaf["type"], leaf["at"]) != (proof["type"], proof["at"]):
        raise ValueError(f"entry {proof['idx']} is not what the report says of it")
    opened = {}
    for opening in proof["openings"]:
        salted = bytes.fromhex(opening["salt"]) + opening["value"].encode()
        if hashlib.sha256(salted).hexdigest() != leaf[opening["name"]]:
            raise ValueError(f"entry {proof['idx']} is about something else")
        opened[opening["name"]] = opening["value"]
    return leaf | {"opened": opened}


def _check_move(
    move: Mapping[str, Any],
    track_id: str,
    proven: Mapping[int, Mapping[str, Any]],
    unsigned: Collection[int],
) -> None:
    """Check that a move is what its log entry says: this track, this stage, this instant."""
    idx = move["leaf_idx"]
    if idx in unsigned and idx not in proven:
        return
    if idx not in proven:
        raise ValueError(f"the move to {move['to_stage']} carries no proof")
    leaf = proven[idx]
    said = (leaf["opened"].get("subject"), leaf.get("new_state"), leaf["at"])
    if said != (f"track:{track_id}", move["to_stage"], move["at"]):
        raise ValueError(f"entry {idx} does not say that the track moved to {move['to_stage']}")


def _bad(what: str) -> Corrupt:
    return Corrupt(
        f"The report does not verify: {what}.",
        reason="report.proof",
        next_step="Get it again from the service, and the verifier key from a source you trust.",
    )

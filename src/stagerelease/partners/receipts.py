"""The receipt of a signature: the record, its log entry and the proof, checkable by anybody alone.

``sha256(detail) == leaf.detail_sha256`` ties the record to the leaf, and the tlog-proof ties the
leaf to a signed checkpoint. Nothing in it is known only to this service.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from stagerelease.db.work import Work
from stagerelease.kernel.canonical import canonical
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import NotFound
from stagerelease.ledger import queries as ledger
from stagerelease.partners.documents import Document
from stagerelease.partners.signatures import show_signature

FORMAT = "stagerelease-signature-receipt/v1"


def signature_receipt(work: Work, signature_id: str, *, vkey: str) -> Document:
    """Return the receipt of a signature to both sides, also after its end.

    ``vkey`` is the log's verifier key (C2SP signed-note), so that the file can be checked alone.
    A countersignature comes with its own record, log entry and proof.

    Raises:
        NotFound: there is no such signature, or a log entry is not under a signed checkpoint yet.
    """
    row = show_signature(work, signature_id)
    receipt: dict[str, Any] = {
        "format": FORMAT,
        "signature": {
            "id": row.id,
            "agreement": row.agreement,
            "version": row.version,
            "text_sha256": row.text_sha256,
            "signed_at": iso(row.signed_at),
            "state": row.state,
        },
        **_entered(work, row.leaf_idx),
        "vkey": vkey,
    }
    if row.countersign_leaf_idx is not None:
        receipt["countersignature"] = _entered(work, row.countersign_leaf_idx)
    return Document(f"receipt-{row.id}.json", canonical(receipt))


def _entered(work: Work, leaf_idx: int) -> dict[str, Any]:
    """Return a log entry with the record it commits to, and its proof."""
    entry = ledger.entry(work, leaf_idx)
    detail = ledger.detail_body(work, entry.leaf["detail_sha256"])
    if detail is None:
        raise NotFound("The record was erased.", reason="signature.erased")
    json.loads(detail)  # what is handed out can be read
    return {
        "detail": detail,
        "leaf": base64.b64encode(entry.body).decode(),
        "leaf_idx": leaf_idx,
        "proof": ledger.prove(work, leaf_idx),
    }

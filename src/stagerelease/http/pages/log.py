"""The audit log for people: its entries, what one says, and its proof, checked where one reads it.

Hashes and proofs are everybody's. What a private entry says is for those who may read such; what
its commitments stand for, too.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response

from stagerelease.db.work import Work
from stagerelease.http.pages.begin import BeginVisitor
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import whole
from stagerelease.http.pages.frame import page, plain
from stagerelease.http.wire import origin_of
from stagerelease.identity.rules import Permission, authorize
from stagerelease.kernel.errors import NotFound
from stagerelease.ledger import merkle, notes, queries
from stagerelease.ledger.queries import EntryRow, Search

router = APIRouter(prefix="/log", include_in_schema=False, dependencies=[Depends(speak_page)])
ON_A_PAGE = 50
LONGEST = 100
KINDS = (
    *("access_form", "access_request", "advisory", "agreement", "agreement_version", "card"),
    *("catalog", "coordination", "download", "evidence", "grant", "hold", "incident", "inference"),
    *("manifest", "membership", "notice", "organisation", "passkey", "password", "person", "plan"),
    *("promotion", "review", "role", "session", "signature", "signing-key", "token", "track"),
    *("waiver", "webhook"),
)
"""What entries are of: the first words of their types, to choose from."""
ROW = 58
"""Height of one step in the drawing."""


@dataclass(frozen=True, slots=True)
class Line:
    """An entry in the list. ``subject`` is empty for those who may not know it."""

    idx: int
    at: datetime
    type: str
    to: str
    subject: str
    private: bool

    @property
    def kind(self) -> str:
        """Return the first word of its type, which says what it is of."""
        return self.type.partition(".")[0]

    @property
    def event(self) -> str:
        """Return the rest of its type, which says what happened."""
        return self.type.partition(".")[2]


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the path as it is drawn: short hashes, and where everything stands."""

    y: int
    own: str
    other: str
    other_is_left: bool
    result: str


@dataclass(frozen=True, slots=True)
class Proof:
    """An entry's place under the newest signed checkpoint."""

    size: int
    root: str
    note: str
    text: str
    signers: int
    steps: tuple[Step, ...]

    @property
    def height(self) -> int:
        """Return how tall the drawing is."""
        return ROW * (len(self.steps) + 1)


def _reads_all(work: Work) -> bool:
    return authorize(work.actor, Permission.LEDGER_READ_PRIVATE).allowed


def _choices(chosen: str) -> list[tuple[str, str]]:
    """Return the types to choose from, in words, with ``chosen`` among them."""
    found = {"": "All"} | {f"{kind}.": plain(kind) for kind in KINDS}
    if chosen not in found:
        kind, _, event = chosen.partition(".")
        found[chosen] = f"{plain(kind)}: {plain(event).lower()}" if event else plain(kind)
    return list(found.items())


def _line(work: Work, row: EntryRow, *, reveal: bool) -> Line:
    leaf = row.leaf
    subject = queries.reveal(work, leaf["subject"]) if reveal or not row.private else None
    return Line(
        idx=row.idx,
        at=datetime.fromisoformat(leaf["at"]),
        type=leaf["type"],
        to=leaf.get("new_state", ""),
        subject=subject or "",
        private=row.private,
    )


@router.get("")
def entries(
    request: Request, begin: BeginVisitor, type: str = "", about: str = "", before: str = ""
) -> Response:
    """List entries, newest first, narrowed by what happened and what it is about."""
    type, about = type.strip()[:LONGEST], about.strip()[:LONGEST]
    start = whole(before, digits=15)
    with begin(read_only=True) as work:
        may = _reads_all(work)
        wanted = Search(type=type, value=about if may else "")
        found = queries.search(work, wanted, before=start, limit=ON_A_PAGE)
        lines = [_line(work, row, reveal=may) for row in found.rows]
        size = queries.log_size(work)
    chosen = {k: v for k, v in (("type", type), ("about", wanted.value)) if v}
    older = f"/log?{urlencode({**chosen, 'before': found.next})}" if found.next else ""
    return page(
        request,
        "log.html",
        lines=lines,
        size=size,
        may=may,
        type=type,
        types=_choices(type),
        about=wanted.value,
        newest="/log" + (f"?{urlencode(chosen)}" if chosen else "") if start is not None else "",
        older=older,
        looked_at=queries.LOOKED_AT,
    )


def _index(text: str) -> int:
    idx = whole(text, digits=15)
    if idx is None:
        raise NotFound("There is no such entry of the log.", reason="ledger.entry")
    return idx


def _proof(work: Work, row: EntryRow) -> Proof | None:
    """Return the proof of an entry, or None when no checkpoint is over it yet."""
    try:
        text = queries.prove(work, row.idx)
    except NotFound:
        return None
    _, hashes, note = notes.parse_proof(text)
    parsed = notes.parse_note(note)
    head = notes.parse_checkpoint(parsed.text)
    climbed = merkle.climb(row.hash, row.idx, head.size, hashes)
    last = len(climbed)
    steps = tuple(
        Step(
            y=ROW * (last - n),
            own=step.own.hex()[:8],
            other=step.other.hex()[:8],
            other_is_left=step.other_is_left,
            result=step.result.hex()[:8],
        )
        for n, step in enumerate(climbed)
    )
    return Proof(head.size, head.root.hex(), note, text, len(parsed.signatures), steps)


@router.get("/{idx}")
def entry(request: Request, begin: BeginVisitor, idx: str) -> Response:
    """Show one entry: what it says, its proof, and the means to check both."""
    with begin(read_only=True) as work:
        row = queries.entry(work, _index(idx))
        may = _reads_all(work)
        proof = _proof(work, row)
        shown = may or not row.private
        about = {
            "actor": queries.reveal(work, row.leaf["actor"]) if shown else None,
            "subject": queries.reveal(work, row.leaf["subject"]) if shown else None,
            "detail": queries.detail_body(work, row.leaf["detail_sha256"]) if shown else None,
        }
        size = queries.log_size(work)
    return page(
        request,
        "log_entry.html",
        row=row,
        at=datetime.fromisoformat(row.leaf["at"]),
        before=row.leaf.get("prev_state", ""),
        after=row.leaf.get("new_state", ""),
        private=row.private,
        shown=shown,
        body=row.body.decode() if shown else "",
        pretty=json.dumps(row.leaf, indent=2, ensure_ascii=False) if shown else "",
        about=about,
        proof=proof,
        size=size,
        vkey=request.app.state.signer.vkey,
        origin=origin_of(request),
    )


@router.get("/{idx}/bundle")
def bundle(request: Request, begin: BeginVisitor, idx: str) -> Response:
    """Download an entry with everything that its proof needs; what is private stays a hash."""
    with begin(read_only=True) as work:
        row = queries.entry(work, _index(idx))
        shown = _reads_all(work) or not row.private
        proof = queries.prove(work, row.idx)
    document = {
        "format": "stagerelease-log-bundle/v1",
        "idx": row.idx,
        "leaf_hash": base64.b64encode(row.hash).decode(),
        "body": base64.b64encode(row.body).decode() if shown else None,
        "proof": proof,
        "vkey": request.app.state.signer.vkey,
    }
    return Response(
        json.dumps(document, indent=2),
        media_type="application/json",
        headers={
            "Content-Disposition": f'attachment; filename="log-{row.idx}.json"',
            "Cache-Control": "no-store",
            "Vary": "Cookie",
        },
    )

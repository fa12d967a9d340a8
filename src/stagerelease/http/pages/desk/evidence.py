"""Evidence as those who decide on it see it: what waits, and one piece with all that is known."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from fastapi import Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from stagerelease.db.work import Work
from stagerelease.evidence import service as evidence
from stagerelease.evidence.queries import EvidenceRow
from stagerelease.evidence.rules import State
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.desk.steps import (
    Act,
    after_refusal,
    desk_router,
    names_of,
    needed,
    take,
)
from stagerelease.http.pages.desk.thread import Said
from stagerelease.http.pages.forms import Sent, Typed
from stagerelease.http.pages.frame import page
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.kernel.errors import DomainError
from stagerelease.releases import service as releases
from stagerelease.storage.ports import BlobStore, LocalBlob

router = desk_router("/staff/evidence")
ROWS = 50
PIECE = 1 << 20
SHOWS = {
    "submitted": "To decide",
    "disputed": "Disputed",
    "accepted": "Accepted",
    "all": "All",
    "rejected": "Rejected",
    "retracted": "Retracted",
    "superseded": "Superseded",
    "draft": "Drafts",
}
FIELDS = ("accept_reason", "reject_reason", "dispute_reason", "resolve_reason", "retract_reason")
NOTICES = {
    "accepted": "It is accepted and counts for gates.",
    "rejected": "It is rejected. Its authors were told why.",
    "disputed": "It is disputed and counts for no gate. Promotions that used it are open again.",
    "resolved": "The dispute is over, and it counts again.",
    "retracted": "It is retracted. Promotions that used it are open again.",
    "shown": "Everybody may see it.",
    "hidden": "It is not shown to everybody any more.",
}
KINDS = {"accepted": "good", "rejected": "bad", "retracted": "bad", "disputed": "ask"}


@router.get("")
def queue(request: Request, begin: BeginPage, show: str = "submitted", after: str = "") -> Response:
    """List evidence by what is to be done with it, newest first."""
    show = show if show in SHOWS else "submitted"
    wanted = evidence.Wanted(state=None if show == "all" else show)
    with begin(read_only=True) as work:
        require(work.actor, Permission.EVIDENCE_READ)
        rows = evidence.list_evidence(work, wanted, limit=ROWS + 1, after=after or None)
    older = ""
    if len(rows) > ROWS:
        older = "/staff/evidence?" + urlencode({"show": show, "after": rows[ROWS - 1].id})
    return page(
        request,
        "desk/evidence_queue.html",
        rows=rows[:ROWS],
        show=show,
        shows=SHOWS,
        older=older,
        newer=f"/staff/evidence?show={show}" if after else "",
    )


@router.get("/{evidence_id}")
def show_evidence(request: Request, begin: BeginPage, evidence_id: str, done: str = "") -> Response:
    """Show one piece of evidence with everything needed to decide on it."""
    return _show(request, begin, evidence_id, done=done)


def _show(
    request: Request,
    begin: Any,
    evidence_id: str,
    *,
    done: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        require(work.actor, Permission.EVIDENCE_READ)
        found = evidence.show_evidence(work, evidence_id)
        e = found.evidence
        who = names_of(
            work, [*found.authors, e.created_by, e.accepted_by, *(x.actor_id for x in found.events)]
        )
        decides = authorize(work.actor, Permission.EVIDENCE_DECIDE).allowed
        me = work.actor.id
    own = me in found.authors or me == e.created_by
    return page(
        request,
        "desk/evidence.html",
        found=found,
        e=e,
        who=who,
        bar=_bar(decides=decides, own=own),
        decides=decides,
        own=own,
        events=[
            Said(
                x.to_state.capitalize(),
                x.at,
                who.get(x.actor_id, ""),
                x.reason,
                KINDS.get(x.to_state, ""),
                x.leaf_idx,
            )
            for x in found.events
        ],
        live=e.state in (State.ACCEPTED, State.DISPUTED),
        notice=NOTICES.get(done, ""),
        **after_refusal(refusal, typed, *FIELDS),
    )


def _bar(*, decides: bool, own: bool) -> str:
    if not decides:
        return "A reviewer, a release manager or security decides on evidence. Ask one of them."
    if own:
        return "You wrote or entered it, so somebody else decides on it."
    return ""


def _step(
    request: Request, begin: Any, evidence_id: str, sent: Typed, act: Act, *, done: str
) -> Response:
    again = partial(_show, request, begin, evidence_id, typed=sent)
    where = f"/staff/evidence/{evidence_id}?done={done}#done"
    return take(begin, Permission.EVIDENCE_DECIDE, act, then=where, again=again)


@router.post("/{evidence_id}/accept")
def accept(request: Request, begin: BeginPage, sent: Sent, evidence_id: str) -> Response:
    """Accept submitted evidence, so that it counts for gates."""

    def act(work: Work) -> EvidenceRow:
        reason, seen = sent.get("accept_reason"), sent.get("seen") or None
        return releases.accept_evidence(work, evidence_id, reason=reason, seen=seen)

    return _step(request, begin, evidence_id, sent, act, done="accepted")


@router.post("/{evidence_id}/reject")
def reject(request: Request, begin: BeginPage, sent: Sent, evidence_id: str) -> Response:
    """Refuse submitted evidence with a reason that its authors see."""

    def act(work: Work) -> EvidenceRow:
        reason = needed(sent, "reject_reason", "Say why. Its authors read it.")
        return evidence.reject(work, evidence_id, reason=reason)

    return _step(request, begin, evidence_id, sent, act, done="rejected")


@router.post("/{evidence_id}/dispute")
def dispute(request: Request, begin: BeginPage, sent: Sent, evidence_id: str) -> Response:
    """Call accepted evidence into question; promotions that used it are re-opened."""

    def act(work: Work) -> object:
        reason = needed(sent, "dispute_reason", "Say what is in question.")
        return releases.dispute_evidence(work, evidence_id, reason=reason)

    return _step(request, begin, evidence_id, sent, act, done="disputed")


@router.post("/{evidence_id}/resolve")
def resolve(request: Request, begin: BeginPage, sent: Sent, evidence_id: str) -> Response:
    """End a dispute in favour of the evidence."""

    def act(work: Work) -> EvidenceRow:
        reason = needed(sent, "resolve_reason", "Say what settled it.")
        return evidence.resolve(work, evidence_id, reason=reason)

    return _step(request, begin, evidence_id, sent, act, done="resolved")


@router.post("/{evidence_id}/retract")
def retract(request: Request, begin: BeginPage, sent: Sent, evidence_id: str) -> Response:
    """End evidence that turned out wrong; promotions that used it are re-opened."""

    def act(work: Work) -> object:
        reason = needed(sent, "retract_reason", "Say what turned out wrong.")
        return releases.retract_evidence(work, evidence_id, reason=reason)

    return _step(request, begin, evidence_id, sent, act, done="retracted")


@router.post("/{evidence_id}/public")
def approve_public(request: Request, begin: BeginPage, sent: Sent, evidence_id: str) -> Response:
    """Let accepted evidence marked public be shown to all, or stop that."""
    shown = sent.get("shown") == "yes"

    def act(work: Work) -> EvidenceRow:
        return evidence.approve_public(work, evidence_id, shown=shown)

    done = "shown" if shown else "hidden"
    return _step(request, begin, evidence_id, sent, act, done=done)


@router.get("/{evidence_id}/files/{attachment_id}")
def download(request: Request, begin: BeginPage, evidence_id: str, attachment_id: str) -> Response:
    """Download an attached file; it is never shown as a page, whatever it holds."""
    blobs: BlobStore = request.app.state.blobs
    with begin(read_only=True) as work:
        require(work.actor, Permission.EVIDENCE_READ)
        row = evidence.open_attachment(work, evidence_id, attachment_id)
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(row.filename, safe='')}",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, no-store",
    }
    located = blobs.locate(row.sha256)
    if isinstance(located, LocalBlob):
        return FileResponse(located.path, media_type="application/octet-stream", headers=headers)
    headers["Content-Length"] = str(row.size)
    return StreamingResponse(
        _pieces(blobs.open(row.sha256)), media_type="application/octet-stream", headers=headers
    )


def _pieces(reader: BinaryIO) -> Iterator[bytes]:
    with reader:
        while piece := reader.read(PIECE):
            yield piece

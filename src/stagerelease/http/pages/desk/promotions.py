"""A promotion as those who decide it see it: gates, approvals, what changes, what was said.

Every step says which edition of the request it was decided on. When something moved meanwhile the
page is shown again with what happened and with what was typed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request, Response

from stagerelease.db.work import Work
from stagerelease.evidence import queries as evidence
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.desk.differences import difference
from stagerelease.http.pages.desk.steps import (
    Act,
    Number,
    after_refusal,
    desk_router,
    needed,
    seen_at,
    stamp,
    take,
    take_grave,
    typed_name,
    wrong,
)
from stagerelease.http.pages.desk.thread import ago, thread_of
from stagerelease.http.pages.forms import Sent, Typed, end_of_day, whole
from stagerelease.http.pages.frame import page
from stagerelease.identity.rules import Permission, authorize
from stagerelease.kernel.errors import DomainError
from stagerelease.releases import service as releases
from stagerelease.releases.facts import FactsPage
from stagerelease.releases.gates import GateResult
from stagerelease.releases.rules import ENDED, REVIEWABLE, State

router = desk_router("/staff")
ONE = "/promotions/{number}"
ROWS = 50
SHOWS = {
    "open": "Open",
    **{state.value: state.value.replace("_", " ").capitalize() for state in State},
}
NOTICES = {
    "opened": "The promotion is submitted. Its reviewers were told.",
    "draft": "The draft is kept. Nobody is asked before you submit it.",
    "submitted": "The promotion is submitted. Its reviewers were told.",
    "approved": "Your approval is on record. It counts for exactly what this page says.",
    "rejected": "The promotion is rejected. Its requester was told why.",
    "changes": "Your wish for changes is on record, and the requester was told.",
    "judged": "Your answer is on record.",
    "cancelled": "The promotion is cancelled.",
    "promoted": "Promoted. What changed counts from now on.",
    "waiver": "The waiver is written and signed by you. A second signer puts it in force.",
    "signed": "You signed the waiver.",
    "ended": "The waiver has ended.",
}


@dataclass(frozen=True, slots=True)
class Bars:
    """Why each act is not for the one who looks now; empty where it is."""

    decide: str
    apply: str
    edit: str
    cancel: str
    submit: str


@router.get("/promotions")
def list_promotions(
    request: Request, begin: BeginPage, show: str = "open", after: str = ""
) -> Response:
    """List promotion requests, oldest first."""
    show = show if show in SHOWS else "open"
    behind = whole(after)
    with begin(read_only=True) as work:
        rows = releases.list_promotions(work, state=show, after=behind, limit=ROWS + 1)
    more = f"/staff/promotions?show={show}&after={rows[ROWS - 1].id}" if len(rows) > ROWS else ""
    return page(
        request,
        "desk/promotions.html",
        rows=rows[:ROWS],
        show=show,
        shows=SHOWS,
        older=more,
        newer=f"/staff/promotions?show={show}" if behind else "",
    )


@router.get(ONE)
def show_promotion(request: Request, begin: BeginPage, number: Number, done: str = "") -> Response:
    """Show one request with everything a decision rests on."""
    return show(request, begin, number, done=done)


def show(
    request: Request,
    begin: Any,
    number: int,
    *,
    done: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    """Return the page of a request; after a refusal with what happened, and what was typed."""
    with begin(read_only=True) as work:
        found = releases.facts_page(work, number)
        used = {one.id for gate in found.gates for one in gate.evidence}
        sources = {f.id: f for f in evidence.facts_of(work, used)}
        changes = difference(work, request.app.state.blobs, found.promotion)
        events = thread_of(found)
        since = seen_at(typed, work.now)
        moved = [ago(one, work.now) for one in events if one.at > since] if refusal else []
        context = {
            "bars": _bars(work, found),
            "may_judge": _may_judge(work, found),
            "may_waive": _may_waive(work, found),
            "me": work.actor.id,
            "stamp": stamp(work),
            "now": work.now,
        }
    return page(
        request,
        "desk/promotion.html",
        found=found,
        p=found.promotion,
        changes=changes,
        sources=sources,
        events=events,
        moved=moved,
        approved=sum(1 for a in found.approvals if a.current and a.verdict == "approve"),
        notice=NOTICES.get(done, ""),
        **after_refusal(refusal),
        typed=typed.everything() if typed else {},
        answerable=[g.key for g in found.gates if _answerable(g)],
        **context,
    )


# --- who may do what now -------------------------------------------------------------------------


def _bars(work: Work, found: FactsPage) -> Bars:
    p, me = found.promotion, work.actor.id
    state, ended = State(p.state), State(p.state) in ENDED
    mine = p.requester_id == me
    over = f"It is {state.replace('_', ' ')}."
    opens = authorize(work.actor, Permission.PROMOTION_OPEN)
    return Bars(
        decide=_bar_to_decide(work, found),
        apply=_bar_to_apply(work, found),
        edit=over if ended else "" if mine and opens.allowed else "Only its requester edits it.",
        cancel=over if ended else "" if opens.allowed else opens.sentence,
        submit="" if mine and state is State.DRAFT else "It is no draft of yours.",
    )


def _bar_to_decide(work: Work, found: FactsPage) -> str:
    p, me = found.promotion, work.actor.id
    if p.requester_id == me:
        return "You opened this promotion, so somebody else decides it."
    if State(p.state) not in REVIEWABLE:
        return f"It is {p.state.replace('_', ' ')}: there is nothing to decide now."
    mine = next((d for d in found.deciders if d.person_id == me), None)
    if mine is not None:
        return "" if mine.may else mine.why
    roles = sorted({role for d in found.deciders for role in d.roles}) or ["reviewer"]
    return f"People with the role {' or '.join(roles)} decide this stage; ask one of them."


def _bar_to_apply(work: Work, found: FactsPage) -> str:
    verdict = authorize(work.actor, Permission.PROMOTION_APPLY)
    if not verdict.allowed:
        return "A release manager promotes it once every gate passes."
    if found.blockers:
        count = len(found.blockers)
        return f"{count} {'thing stands' if count == 1 else 'things stand'} in the way; see above."
    return ""


def _may_judge(work: Work, found: FactsPage) -> bool:
    p = found.promotion
    decides = authorize(work.actor, Permission.PROMOTION_DECIDE).allowed
    return decides and p.requester_id != work.actor.id and State(p.state) in REVIEWABLE


def _may_waive(work: Work, found: FactsPage) -> bool:
    p = found.promotion
    signs = authorize(work.actor, Permission.WAIVER_SIGN).allowed
    return signs and p.requester_id != work.actor.id and State(p.state) not in ENDED


def _answerable(gate: GateResult) -> bool:
    if gate.judgement is not None:
        return False
    return gate.kind == "manual" or gate.outcome == "inconclusive"


# --- steps ---------------------------------------------------------------------------------------


def _step(
    request: Request,
    begin: Any,
    number: int,
    sent: Typed,
    needs: Permission,
    act: Act,
    *,
    done: str,
    grave: bool = False,
) -> Response:
    again = partial(show, request, begin, number, typed=sent)
    way = take_grave if grave else take
    return way(begin, needs, act, then=f"/staff/promotions/{number}?done={done}#done", again=again)


@router.post(ONE + "/approve")
def approve(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Approve exactly the request that was shown."""

    def act(work: Work) -> object:
        return releases.approve(
            work, number, request_hash=sent.get("request_hash"), comment=sent.get("comment")
        )

    return _step(
        request,
        begin,
        number,
        sent,
        Permission.PROMOTION_DECIDE,
        act,
        done="approved",
        grave=True,
    )


@router.post(ONE + "/reject")
def reject(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """End the request that was shown, with reasons."""

    def act(work: Work) -> object:
        comment = needed(sent, "comment", "Say why you reject it. The requester reads it.")
        return releases.reject(work, number, request_hash=sent.get("request_hash"), comment=comment)

    return _step(request, begin, number, sent, Permission.PROMOTION_DECIDE, act, done="rejected")


@router.post(ONE + "/changes")
def request_changes(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Send the request that was shown back to its requester."""

    def act(work: Work) -> object:
        comment = needed(sent, "comment", "Say what should change. The requester reads it.")
        return releases.request_changes(
            work, number, request_hash=sent.get("request_hash"), comment=comment
        )

    return _step(request, begin, number, sent, Permission.PROMOTION_DECIDE, act, done="changes")


@router.post(ONE + "/judge")
def judge(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Answer a manual or an inconclusive gate."""
    gate = sent.get("gate")

    def act(work: Work) -> object:
        answer = sent.get(f"answer-{gate}")
        if answer not in ("yes", "no"):
            raise wrong(f"answer-{gate}", "Answer yes or no.")
        reason = needed(sent, f"why-{gate}", "Say what you looked at. It stays on record.")
        return releases.judge(
            work,
            number,
            gate=gate,
            passed=answer == "yes",
            reason=reason,
            request_hash=sent.get("request_hash"),
        )

    return _step(request, begin, number, sent, Permission.PROMOTION_DECIDE, act, done="judged")


@router.post(ONE + "/submit")
def submit(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Submit one's own draft."""

    def act(work: Work) -> object:
        return releases.resubmit(work, number)

    return _step(request, begin, number, sent, Permission.PROMOTION_OPEN, act, done="submitted")


@router.post(ONE + "/cancel")
def cancel(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """End an unapplied request."""

    def act(work: Work) -> object:
        return releases.cancel(work, number, reason=sent.get("cancel_reason"))

    return _step(request, begin, number, sent, Permission.PROMOTION_OPEN, act, done="cancelled")


@router.post(ONE + "/apply")
def apply(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Apply the request that was shown, once the model's name was typed."""

    def act(work: Work) -> object:
        typed_name(sent, releases.facts_page(work, number).promotion.repo_id)
        return releases.apply(work, number, request_hash=sent.get("request_hash"))

    return _step(
        request,
        begin,
        number,
        sent,
        Permission.PROMOTION_APPLY,
        act,
        done="promoted",
        grave=True,
    )


# --- waivers -------------------------------------------------------------------------------------


@router.post(ONE + "/waive")
def waive(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Write a waiver of one gate and sign it as the first of two."""
    gate = sent.get("gate")

    def act(work: Work) -> object:
        reason = needed(sent, f"waive-{gate}", "Say why. Everybody may read it, for ever.")
        key = f"until-{gate}"
        ends = end_of_day(needed(sent, key, "Say when the waiver ends."), key)
        if ends is None:
            raise wrong(key, "Say when the waiver ends.")
        row = releases.facts_page(work, number).promotion
        return releases.propose_waiver(
            work, track_id=row.track_id, stage=row.to_stage, gate=gate, reason=reason, ends_at=ends
        )

    return _step(
        request, begin, number, sent, Permission.WAIVER_SIGN, act, done="waiver", grave=True
    )


@router.post(ONE + "/waivers/{waiver_id}/sign")
def sign_waiver(
    request: Request, begin: BeginPage, sent: Sent, number: Number, waiver_id: str
) -> Response:
    """Sign a waiver as the second of two."""

    def act(work: Work) -> object:
        return releases.sign_waiver(work, waiver_id)

    return _step(
        request, begin, number, sent, Permission.WAIVER_SIGN, act, done="signed", grave=True
    )


@router.post(ONE + "/waivers/{waiver_id}/end")
def end_waiver(
    request: Request, begin: BeginPage, sent: Sent, number: Number, waiver_id: str
) -> Response:
    """End a waiver before its time."""

    def act(work: Work) -> object:
        reason = needed(sent, "end_reason", "Say why the waiver ends.")
        return releases.end_waiver(work, waiver_id, reason=reason)

    return _step(request, begin, number, sent, Permission.WAIVER_SIGN, act, done="ended")

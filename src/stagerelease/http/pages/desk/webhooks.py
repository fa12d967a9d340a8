"""Webhooks: where events are posted, how that went, and posting again."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import Request, Response

from stagerelease.db.work import Work
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.desk.steps import (
    REFUSALS,
    Act,
    after_refusal,
    desk_router,
    instant,
    needed,
    take,
    wrong,
)
from stagerelease.http.pages.forms import Sent, Typed
from stagerelease.http.pages.frame import page
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.errors import DomainError, NotFound
from stagerelease.notices import service as notices

router = desk_router("/staff/webhooks")
ROWS = 50
NOTICES = {
    "stopped": "Nothing is posted there now. What happens meanwhile is kept for a replay.",
    "started": "Events are posted there again. Replay what it missed.",
    "replayed": "The deliveries are queued again, each under its first id.",
    "deleted": "The webhook is deleted, with its deliveries.",
}


@router.get("")
def list_webhooks(request: Request, begin: BeginPage, done: str = "") -> Response:
    """List webhooks."""
    return _list(request, begin, done=done)


def _list(
    request: Request,
    begin: Any,
    *,
    status: int = 200,
    done: str = "",
    secret: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        rows = notices.list_webhooks(work)
    return page(
        request,
        "desk/webhooks.html",
        rows=rows,
        secret=secret,
        notice=NOTICES.get(done, ""),
        **after_refusal(refusal, typed, "url", "events", status=status),
    )


@router.post("")
def create(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Register a webhook and show its secret, this once."""
    state = request.app.state
    try:
        with begin(read_only=True) as work:
            require(work.actor, Permission.WEBHOOK_MANAGE)
        with begin(quiet=True, proved=True) as work:  # a secret is made, and events leave the house
            row = notices.create_webhook(
                work,
                url=needed(sent, "url", "Give the https address that events are posted to."),
                events=sent.get("events").replace(",", " ").split(),
                link_key=state.link_key,
                loopback=state.settings.webhooks_to_loopback,
            )
    except REFUSALS as error:
        return _list(request, begin, refusal=error, typed=sent)
    return _list(request, begin, status=201, secret=row.secret or "")


@router.get("/{webhook_id}")
def show_webhook(
    request: Request, begin: BeginPage, webhook_id: str, after: str = "", done: str = ""
) -> Response:
    """Show a webhook and its deliveries, newest first."""
    return _show(request, begin, webhook_id, after=after, done=done)


def _show(
    request: Request,
    begin: Any,
    webhook_id: str,
    *,
    after: str = "",
    done: str = "",
    secret: str = "",
    status: int = 200,
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        row = next((w for w in notices.list_webhooks(work) if w.id == webhook_id), None)
        if row is None:
            raise NotFound(
                f"There is no webhook {webhook_id!r:.60}.",
                reason="webhook.unknown",
                next_step="See the list of webhooks.",
            )
        found = notices.list_deliveries(work, row.id, limit=ROWS + 1, after=after or None)
    older = f"/staff/webhooks/{row.id}?after={found[ROWS - 1].id}" if len(found) > ROWS else ""
    return page(
        request,
        "desk/webhook.html",
        row=row,
        deliveries=found[:ROWS],
        older=older,
        newer=f"/staff/webhooks/{row.id}" if after else "",
        secret=secret,
        notice=NOTICES.get(done, ""),
        **after_refusal(refusal, typed, "since", "reason", status=status),
    )


def _step(
    request: Request,
    begin: Any,
    webhook_id: str,
    sent: Typed,
    act: Act,
    *,
    done: str,
    where: str = "",
) -> Response:
    again = partial(_show, request, begin, webhook_id, typed=sent)
    where = f"{where or f'/staff/webhooks/{webhook_id}'}?done={done}#done"
    return take(begin, Permission.WEBHOOK_MANAGE, act, then=where, again=again)


@router.post("/{webhook_id}/rotate")
def rotate(request: Request, begin: BeginPage, sent: Sent, webhook_id: str) -> Response:
    """Make a new secret and show it, this once; the old one signs beside it for a day."""
    del sent  # read, so that a proof that is asked for first can send it on
    with begin(read_only=True) as work:
        require(work.actor, Permission.WEBHOOK_MANAGE)
    with begin(quiet=True, proved=True) as work:
        row = notices.rotate_secret(work, webhook_id, link_key=request.app.state.link_key)
    return _show(request, begin, webhook_id, status=201, secret=row.secret or "")


@router.post("/{webhook_id}/stop")
def stop(request: Request, begin: BeginPage, sent: Sent, webhook_id: str) -> Response:
    """Stop posting to a webhook."""

    def act(work: Work) -> object:
        reason = needed(sent, "reason", "Say why.")
        return notices.disable_webhook(work, webhook_id, reason=reason)

    return _step(request, begin, webhook_id, sent, act, done="stopped")


@router.post("/{webhook_id}/start")
def start(request: Request, begin: BeginPage, sent: Sent, webhook_id: str) -> Response:
    """Post to a webhook again."""

    def act(work: Work) -> object:
        return notices.enable_webhook(work, webhook_id)

    return _step(request, begin, webhook_id, sent, act, done="started")


@router.post("/{webhook_id}/delete")
def delete(request: Request, begin: BeginPage, sent: Sent, webhook_id: str) -> Response:
    """Forget a webhook that was stopped, and what was posted to it."""

    def act(work: Work) -> object:
        notices.delete_webhook(work, webhook_id)
        return None

    return _step(request, begin, webhook_id, sent, act, done="deleted", where="/staff/webhooks")


@router.post("/{webhook_id}/replay")
def replay(request: Request, begin: BeginPage, sent: Sent, webhook_id: str) -> Response:
    """Post one delivery again, or all since an instant."""

    def act(work: Work) -> object:
        delivery = sent.get("delivery") or None
        since = None if delivery else instant(sent.get("since"), "since")
        if delivery is None and since is None:
            raise wrong("since", "Say since when, in UTC.")
        return notices.replay(work, webhook_id, delivery_id=delivery, since=since)

    return _step(request, begin, webhook_id, sent, act, done="replayed")

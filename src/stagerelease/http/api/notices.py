"""Notices over JSON: one's own and how one wants them; webhooks, their deliveries and replay."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, InstantIn, Out, Paging, keyset
from stagerelease.notices import service

router = APIRouter(prefix="/api/v1", tags=["notices"])
Id = Annotated[str, Path(max_length=64)]


class NoticeOut(Out):
    """One notice. A link that was mailed is not in it."""

    id: str
    event: str
    subject: str
    title: str
    said: str
    why: str
    todo: str
    path: str
    state: str
    created_at: Instant
    sent_at: Instant | None


class StaffNoticeOut(NoticeOut):
    """One notice with whom it is for and why it failed."""

    person_id: str | None
    error: str | None


class ChoiceOut(Out):
    """How a group of notices comes; ``always`` ones cannot be put off."""

    group: str
    title: str
    mode: str
    always: bool


class ChoiceIn(In):
    """How a group of notices is to come."""

    mode: Annotated[str, Field(max_length=16)]


class WebhookIn(In):
    """A webhook to register; no events named means all."""

    url: Annotated[str, Field(min_length=1, max_length=500)]
    events: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=100)] = []


class WebhookOut(Out):
    """A webhook; ``secret`` is there only in the answer that makes it."""

    id: str
    url: str
    events: list[str]
    created_by: str
    created_at: Instant
    failing_since: Instant | None
    disabled_at: Instant | None
    disabled_for: str | None
    secret: str | None = None


class DeliveryOut(Out):
    """One event for one webhook."""

    id: str
    event_id: str
    event: str
    state: str
    attempts: int
    created_at: Instant
    tried_at: Instant | None
    status: int | None
    milliseconds: int | None
    answer: str | None


class ReplayIn(In):
    """What to post again: one delivery, or all since a time."""

    delivery_id: Annotated[str, Field(max_length=64)] | None = None
    since: InstantIn | None = None
    until: InstantIn | None = None


class ReplayOut(Out):
    """How many deliveries were queued again."""

    deliveries: int


class AgainIn(In):
    """Which mail to send again: one failed notice, or all that failed of those since a time."""

    notice_id: Annotated[str, Field(max_length=64)] | None = None
    since: InstantIn | None = None


class AgainOut(Out):
    """How many notices were queued again."""

    notices: int


class ReasonIn(In):
    """Why a webhook stops."""

    reason: Annotated[str, Field(min_length=1, max_length=300)]


@router.get("/me/notices")
def my_notices(request: Request, response: Response, begin: Begin, page: Paging) -> list[NoticeOut]:
    """List one's own notices, newest first."""
    with begin(read_only=True) as work:
        rows = service.my_notices(work, limit=page.limit + 1, after=page.after)
    part = keyset(request, response, rows, page, lambda row: row.id)
    return [NoticeOut.model_validate(row) for row in part]


@router.get("/me/notice-choices")
def my_choices(begin: Begin) -> list[ChoiceOut]:
    """Say how one's notices come."""
    with begin(read_only=True) as work:
        return [ChoiceOut.model_validate(row) for row in service.my_choices(work)]


@router.put("/me/notice-choices/{group}")
def choose(
    group: Annotated[str, Path(max_length=32)], body: ChoiceIn, begin: Begin
) -> list[ChoiceOut]:
    """Set how a group of one's notices comes: immediate, digest or off."""
    with begin(quiet=True) as work:
        return [ChoiceOut.model_validate(row) for row in service.choose(work, group, body.mode)]


@router.get("/notices")
def list_notices(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    state: Annotated[str | None, Query(max_length=16)] = None,
) -> list[StaffNoticeOut]:
    """List notices to anybody, newest first: those that failed, for one."""
    with begin(read_only=True) as work:
        rows = service.list_notices(work, state=state, limit=page.limit + 1, after=page.after)
    part = keyset(request, response, rows, page, lambda row: row.id)
    return [StaffNoticeOut.model_validate(row) for row in part]


@router.post("/notices/send-again")
def send_again(body: AgainIn, begin: Begin) -> AgainOut:
    """Send mail again that failed: refused by its server, or tried for the last time."""
    with begin(quiet=True) as work:
        return AgainOut(notices=service.send_again(work, **body.model_dump()))


@router.get("/webhooks")
def list_webhooks(begin: Begin) -> list[WebhookOut]:
    """List webhooks, without their secrets."""
    with begin(read_only=True) as work:
        return [WebhookOut.model_validate(row) for row in service.list_webhooks(work)]


@router.post("/webhooks", status_code=201)
def create_webhook(body: WebhookIn, request: Request, begin: Begin) -> WebhookOut:
    """Register a webhook; its secret is in this answer and never shown again."""
    state = request.app.state
    with begin(quiet=True) as work:
        row = service.create_webhook(
            work,
            url=body.url,
            events=body.events,
            link_key=state.link_key,
            loopback=state.settings.webhooks_to_loopback,
        )
        return WebhookOut.model_validate(row)


@router.post("/webhooks/{webhook_id}/rotate")
def rotate_secret(webhook_id: Id, request: Request, begin: Begin) -> WebhookOut:
    """Make a new secret; the old one signs beside it for a day."""
    with begin(quiet=True) as work:
        row = service.rotate_secret(work, webhook_id, link_key=request.app.state.link_key)
        return WebhookOut.model_validate(row)


@router.post("/webhooks/{webhook_id}/disable")
def disable_webhook(webhook_id: Id, body: ReasonIn, begin: Begin) -> WebhookOut:
    """Stop posting to a webhook; what happens meanwhile is kept for a replay."""
    with begin(quiet=True) as work:
        row = service.disable_webhook(work, webhook_id, reason=body.reason)
        return WebhookOut.model_validate(row)


@router.post("/webhooks/{webhook_id}/enable")
def enable_webhook(webhook_id: Id, begin: Begin) -> WebhookOut:
    """Post to a webhook again."""
    with begin(quiet=True) as work:
        return WebhookOut.model_validate(service.enable_webhook(work, webhook_id))


@router.delete("/webhooks/{webhook_id}", status_code=204)
def delete_webhook(webhook_id: Id, begin: Begin) -> None:
    """Forget a webhook that was stopped, and what was posted to it."""
    with begin(quiet=True) as work:
        service.delete_webhook(work, webhook_id)


@router.get("/webhooks/{webhook_id}/deliveries")
def list_deliveries(
    webhook_id: Id, request: Request, response: Response, begin: Begin, page: Paging
) -> list[DeliveryOut]:
    """List what was queued for a webhook and how its last attempts went, newest first."""
    with begin(read_only=True) as work:
        rows = service.list_deliveries(work, webhook_id, limit=page.limit + 1, after=page.after)
    part = keyset(request, response, rows, page, lambda row: row.id)
    return [DeliveryOut.model_validate(row) for row in part]


@router.post("/webhooks/{webhook_id}/replay")
def replay(webhook_id: Id, body: ReplayIn, begin: Begin) -> ReplayOut:
    """Post one delivery again, or all of a time, each under its first id."""
    with begin(quiet=True) as work:
        return ReplayOut(deliveries=service.replay(work, webhook_id, **body.model_dump()))

"""Notices and webhooks on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from stagerelease.cli.box import instant, opened
from stagerelease.identity.links import load_or_create_link_key
from stagerelease.notices import service

notice = typer.Typer(help="Notices: what was told to whom, and what failed.", no_args_is_help=True)
webhook = typer.Typer(help="Webhooks: signed posts of events.", no_args_is_help=True)
GROUPS = {"notice": notice, "webhook": webhook}
_COLUMNS = ("id", "event", "title", "state", "created_at", "error")
_HOOKS = ("id", "url", "events", "failing_since", "disabled_at", "disabled_for")
_DELIVERIES = ("id", "event", "state", "attempts", "status", "milliseconds", "tried_at")


@notice.command("list")
def notice_list(
    state: Annotated[str | None, typer.Option(help="Only in this state: failed, kept, …")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only your own.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
) -> None:
    """List notices, newest first."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        rows = (
            service.my_notices(work, limit=limit)
            if mine
            else service.list_notices(work, state=state, limit=limit)
        )
        box.out.show(rows, columns=_COLUMNS)


@notice.command("send-again")
def notice_send_again(
    notice_id: Annotated[str | None, typer.Argument(help="One failed notice's id.")] = None,
    since: Annotated[str | None, typer.Option(help="All that failed since this instant.")] = None,
) -> None:
    """Send mail again that failed."""
    with opened() as box, box.works.begin(box.actor, quiet=True) as work:
        count = service.send_again(work, notice_id=notice_id, since=instant(since))
        box.out.say(f"{count} notice(s) queued again.")


@notice.command("choices")
def notice_choices() -> None:
    """Say how your notices come."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        box.out.show(service.my_choices(work))


@notice.command("choose")
def notice_choose(
    group: str, mode: Annotated[str, typer.Argument(help="immediate, digest or off.")]
) -> None:
    """Set how a group of your notices comes."""
    with opened() as box, box.works.begin(box.actor, quiet=True) as work:
        box.out.show(service.choose(work, group, mode))


@webhook.command("create")
def webhook_create(
    url: str,
    event: Annotated[
        list[str] | None, typer.Option(help="promotion.applied, incident.*; all if none.")
    ] = None,
) -> None:
    """Register a webhook and print its secret, once."""
    with opened() as box:
        key = load_or_create_link_key(box.settings.link_key_file)
        with box.works.begin(box.actor, quiet=True) as work:
            row = service.create_webhook(
                work,
                url=url,
                events=event or [],
                link_key=key,
                loopback=box.settings.webhooks_to_loopback,
            )
        box.out.show(row, columns=(*_HOOKS, "secret"))


@webhook.command("rotate")
def webhook_rotate(webhook_id: str) -> None:
    """Make a new secret and print it; the old one signs beside it for a day."""
    with opened() as box:
        key = load_or_create_link_key(box.settings.link_key_file)
        with box.works.begin(box.actor, quiet=True) as work:
            row = service.rotate_secret(work, webhook_id, link_key=key)
        box.out.show(row, columns=("id", "url", "secret"))


@webhook.command("list")
def webhook_list() -> None:
    """List webhooks."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        box.out.show(service.list_webhooks(work), columns=_HOOKS)


@webhook.command("disable")
def webhook_disable(
    webhook_id: str, reason: Annotated[str, typer.Option("--reason", "-m")] = "By hand."
) -> None:
    """Stop posting to a webhook."""
    with opened() as box, box.works.begin(box.actor, quiet=True) as work:
        box.out.show(service.disable_webhook(work, webhook_id, reason=reason), columns=_HOOKS)


@webhook.command("enable")
def webhook_enable(webhook_id: str) -> None:
    """Post to a webhook again."""
    with opened() as box, box.works.begin(box.actor, quiet=True) as work:
        box.out.show(service.enable_webhook(work, webhook_id), columns=_HOOKS)


@webhook.command("delete")
def webhook_delete(webhook_id: str) -> None:
    """Forget a webhook that was stopped, and what was posted to it."""
    with opened() as box, box.works.begin(box.actor, quiet=True) as work:
        service.delete_webhook(work, webhook_id)
        box.out.say("Deleted.")


@webhook.command("deliveries")
def webhook_deliveries(webhook_id: str) -> None:
    """List what was queued for a webhook, newest first."""
    with opened() as box, box.works.begin(box.actor, read_only=True) as work:
        box.out.show(service.list_deliveries(work, webhook_id), columns=_DELIVERIES)


@webhook.command("replay")
def webhook_replay(
    webhook_id: str,
    delivery: Annotated[str | None, typer.Option(help="One delivery's id.")] = None,
    since: Annotated[str | None, typer.Option(help="All since this date or instant.")] = None,
) -> None:
    """Post deliveries again, each under its first id."""
    with opened() as box, box.works.begin(box.actor, quiet=True) as work:
        count = service.replay(work, webhook_id, delivery_id=delivery, since=instant(since))
        box.out.say(f"{count} delivery(ies) queued again.")

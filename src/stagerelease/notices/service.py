"""This slice's use cases and job handlers, under one name for the faces and the worker."""

from __future__ import annotations

from stagerelease.notices.feed import Entry, Stretch, stretch, timeline, version_of
from stagerelease.notices.hooks import (
    create_webhook,
    delete_webhook,
    disable_webhook,
    enable_webhook,
    list_deliveries,
    list_webhooks,
    replay,
    rotate_secret,
)
from stagerelease.notices.reading import choose, list_notices, my_choices, my_notices
from stagerelease.notices.resending import send_again

__all__ = [
    "Entry",
    "Stretch",
    "choose",
    "create_webhook",
    "delete_webhook",
    "disable_webhook",
    "enable_webhook",
    "list_deliveries",
    "list_notices",
    "list_webhooks",
    "my_choices",
    "my_notices",
    "replay",
    "rotate_secret",
    "send_again",
    "stretch",
    "timeline",
    "version_of",
]

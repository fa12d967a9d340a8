"""What the worker runs for this slice, wired to its mail server and its key."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog

from stagerelease.db.work import Works
from stagerelease.jobs.runner import GivenUp
from stagerelease.kernel.actor import SYSTEM
from stagerelease.notices import delivering, digest, mailing, posting
from stagerelease.notices.mailing import MailServer, read_server
from stagerelease.settings import Settings

log = structlog.get_logger(__name__)
Handler = Callable[[Works, Mapping[str, Any]], None]
GIVEN_UP: dict[str, GivenUp] = {"notices.mail": mailing.give_up}
"""What becomes of a notice whose mail was tried for the last time."""


def server_of(settings: Settings, link_key: bytes) -> MailServer | None:
    """Return the mail server that the settings name, or None.

    Raises:
        Invalid: they name one that cannot be used.
    """
    return read_server(
        settings.smtp_url,
        sender=settings.mail_from,
        password_file=settings.smtp_password_file,
        origin=settings.origin,
        link_key=link_key,
    )


def handlers(settings: Settings, link_key: bytes) -> dict[str, Handler]:
    """Return the handlers of this slice's jobs."""
    server = server_of(settings, link_key)
    found: dict[str, Handler] = {
        "notices.deliver": partial(delivering.deliver, has_mail=server is not None),
        "notices.webhook": partial(
            posting.deliver, link_key=link_key, loopback=settings.webhooks_to_loopback
        ),
    }
    if server is None:
        log.warning("no mail server is set: notices are kept, and nothing is mailed")
    else:
        found["notices.mail"] = partial(mailing.send, server=server)
    return found


def send_digests(works: Works, server: MailServer | None) -> int:
    """Send everybody's digest that is due; return how many mails went out."""
    if server is None:
        return 0
    with works.begin(SYSTEM, read_only=True) as work:
        people = digest.due(work)
    sent = 0
    for person_id in people:
        try:
            sent += digest.send_digest(works, person_id, server=server) > 0
        except (OSError, smtplib.SMTPException) as error:
            log.warning("a digest waits", person=person_id, error=type(error).__name__)
    return sent

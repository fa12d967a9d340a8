"""Sends notices by SMTP, one message each. No database connection is held while a server talks.

At least once: a worker that dies between the server's answer and its own note sends again, with the
same Message-ID, by which mail programs recognise a repetition.
"""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import structlog
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from stagerelease.db.work import Work, Works
from stagerelease.identity.links import sign_link
from stagerelease.identity.tables import MailLink, Person
from stagerelease.kernel.actor import SYSTEM
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import Invalid
from stagerelease.notices.rules import State
from stagerelease.notices.tables import MailBounce, Notice
from stagerelease.notices.words import one_line

log = structlog.get_logger(__name__)
TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed over: read from ``smtp://user@host:587?starttls`` or ``smtps://…``."""

    host: str
    port: int
    security: str  # plain | starttls | tls
    user: str
    password: str = field(repr=False)
    sender: str
    origin: str  # of links, without a slash at the end
    link_key: bytes = field(repr=False)


def read_server(
    url: str, *, sender: str, password_file: Path | None, origin: str, link_key: bytes
) -> MailServer | None:
    """Return the mail server that a URL names, or None when it is empty.

    Raises:
        Invalid: no such URL, a password inside it, or a password for a server without encryption.
    """
    if not url:
        return None
    parts = urlsplit(url)
    options = parse_qs(parts.query, keep_blank_values=True)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname or set(options) - {"starttls"}:
        raise Invalid(
            "The mail server is written smtp://host:port, smtp://user@host:587?starttls or "
            "smtps://user@host:465.",
            reason="mail.url",
        )
    if parts.password:
        raise Invalid(
            "A password does not belong in the mail server's URL.",
            reason="mail.password",
            next_step="Put it in a file and name it in STAGERELEASE_SMTP_PASSWORD_FILE.",
        )
    security = "tls" if parts.scheme == "smtps" else "starttls" if options else "plain"
    password = password_file.read_text().strip() if password_file is not None else ""
    if password and security == "plain":
        raise Invalid(
            "The mail server's password would travel in the clear.",
            reason="mail.clear",
            next_step="Use smtps:// or ?starttls.",
        )
    port = parts.port or {"tls": 465, "starttls": 587, "plain": 25}[security]
    user = unquote(parts.username or "")
    return MailServer(
        parts.hostname, port, security, user, password, sender, origin.rstrip("/"), link_key
    )


@dataclass(frozen=True, slots=True)
class Letter:
    """What one message says."""

    message_id: str
    address: str
    title: str
    at: datetime
    items: tuple[Mapping[str, str], ...]  # title, said, why, todo, url
    optional: bool  # may the recipient turn this off?


def send(works: Works, payload: Mapping[str, Any], *, server: MailServer) -> None:
    """Send one notice; what is sent, or refused for good, is not sent again.

    Raises:
        OSError, smtplib.SMTPException: the server did not take it this time; the job tries again.
    """
    with works.begin(SYSTEM, read_only=True) as work:
        notice = work.session.get(Notice, payload["notice"])
        if notice is None or notice.state != State.QUEUED:
            return
        address = _address(work, notice)
        item = {
            "title": notice.title,
            "said": notice.said,
            "why": notice.why,
            "todo": notice.todo,
            "url": url_of(server, notice.path, notice.link_id),
        }
        letter = Letter(notice.id, address or "", notice.title, notice.created_at, (item,), True)
    state, error = State.SENT, None
    if address is None:
        state, error = State.FAILED, "no address"
    else:
        try:
            hand_over(server, letter)
        except smtplib.SMTPRecipientsRefused as refused:
            code, said = next(iter(refused.recipients.values()))
            if not 500 <= code < 600:
                _note(works, payload["notice"], State.QUEUED, f"{code}", address=None)
                raise
            state, error = State.FAILED, one_line(f"{code} {said.decode('utf-8', 'replace')}", 300)
        except (OSError, smtplib.SMTPException) as failed:
            _note(works, payload["notice"], State.QUEUED, type(failed).__name__, address=None)
            raise
    _note(works, payload["notice"], state, error, address=address)


def give_up(work: Work, payload: Mapping[str, Any], error: str) -> None:
    """Note that a notice was tried for the last time: it has failed, until staff send it again.

    The address is not marked: it was the server that could not take the mail.
    """
    notice = work.session.get(Notice, payload["notice"], with_for_update=True)
    if notice is not None and notice.state == State.QUEUED:
        notice.state = State.FAILED
        notice.error = notice.error or one_line(error, 300)


def _address(work: Work, notice: Notice) -> str | None:
    if notice.person_id is not None:
        person = work.session.get(Person, notice.person_id)
        return person.email if person is not None and person.disabled_at is None else None
    link = work.session.get(MailLink, notice.link_id) if notice.link_id else None
    return link.address if link is not None else None


def _note(
    works: Works, notice_id: str, state: State, error: str | None, *, address: str | None
) -> None:
    with works.begin(SYSTEM, quiet=True) as work:
        notice = work.session.get_one(Notice, notice_id, with_for_update=True)
        notice.state, notice.error = state, error
        if state is State.SENT:
            notice.sent_at = work.now
        if state is State.FAILED and notice.person_id is not None and address is not None:
            log.warning("mail refused for good", notice=notice_id, person=notice.person_id)
            work.session.merge(
                MailBounce(
                    person_id=notice.person_id,
                    address_sha256=sha256_hex(address.encode()),
                    answer=error or "",
                    at=work.now,
                )
            )


def url_of(server: MailServer, path: str, link_id: str | None) -> str:
    """Return the address to open, its secret made only now; "" when there is nothing to open."""
    if not path.startswith("/") or path.startswith("//"):
        return ""
    url = server.origin + quote(path, safe="/?=&%-._~")
    if link_id is None:
        return url
    return f"{url}{'&' if '?' in url else '?'}t={quote(sign_link(server.link_key, link_id))}"


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("stagerelease.notices"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def message_of(server: MailServer, letter: Letter) -> EmailMessage:
    """Return the message: plain text and HTML that say the same, and no header but ours."""
    message = EmailMessage()
    message["From"] = server.sender
    message["To"] = one_line(letter.address, 320)
    message["Subject"] = one_line(letter.title)
    message["Date"] = format_datetime(letter.at)
    host = urlsplit(server.origin).hostname or "stagerelease"
    message["Message-ID"] = f"<{letter.message_id}@{host}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence answers this
    settings = f"{server.origin}/me"
    if letter.optional:
        message["List-Unsubscribe"] = f"<{settings}>"
    values = {"letter": letter, "settings": settings}
    message.set_content(_templates().get_template("notice.txt").render(values))
    html = _templates().get_template("notice.html").render(values)
    message.add_alternative(html, subtype="html")
    return message


def hand_over(server: MailServer, letter: Letter) -> None:
    """Hand one message to the mail server; return only when it has taken it.

    Raises:
        OSError, smtplib.SMTPException: it has not.
    """
    context = ssl.create_default_context()
    if server.security == "tls":
        connection: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, server.port, timeout=TIMEOUT, context=context
        )
    else:
        connection = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT)
    with connection:
        if server.security == "starttls":
            connection.starttls(context=context)
        if server.user:
            connection.login(server.user, server.password)
        connection.send_message(message_of(server, letter), to_addrs=[letter.address])

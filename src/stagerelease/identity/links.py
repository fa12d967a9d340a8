"""Links that are mailed: one row each, one use each, and no secret at rest.

A link is the row's id with a signature (HMAC-SHA-256, itsdangerous) under a key that lies outside
the database: a copy of the database opens nothing, and neither does a job row that names a link.
Opening a link changes nothing, since mail programs open links by themselves; using it is a second
step, and works once.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from itsdangerous import BadData, URLSafeSerializer
from sqlalchemy import delete, select, update

from stagerelease.db.work import Work
from stagerelease.identity.tables import MailLink
from stagerelease.kernel.clock import said
from stagerelease.kernel.errors import Conflict, Invalid
from stagerelease.kernel.ids import new_id, new_salt

SALT = "stagerelease.mail-link"
KEPT = timedelta(days=30)
"""How long after its end a link is still known, so that it can be said what became of it."""
LONGEST_TOKEN = 200
_KEY_HEX = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A link: what it is for, to whom it was mailed, and whether it still works."""

    id: str
    purpose: str
    subject: str
    person_id: str | None
    address: str | None
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None


def load_or_create_link_key(path: Path) -> bytes:
    """Return the 32-byte key in ``path``, making it on first use (mode 600).

    Several processes may start at once: the file is linked exclusively, and the loser reads.

    Raises:
        Invalid: the file holds no such key.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(new_salt().hex() + "\n")
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    text = path.read_text().strip()
    if not _KEY_HEX.match(text):
        raise Invalid(
            f"The key for mailed links in {path} is not 64 hexadecimal digits.",
            reason="links.key",
            next_step="Restore it from a backup, or delete it: links already mailed stop working.",
        )
    return bytes.fromhex(text)


def _signer(key: bytes) -> URLSafeSerializer:
    return URLSafeSerializer(key, salt=SALT, signer_kwargs={"digest_method": hashlib.sha256})


def make_link(
    work: Work,
    *,
    purpose: str,
    subject: str,
    person_id: str | None,
    address: str | None,
    lifetime: timedelta,
    network: str | None = None,
) -> str:
    """Make a link for ``purpose`` about ``subject`` and return its id; ``sign_link`` completes it.

    ``network`` is a digest of where it was asked for, for callers that count.
    """
    work.session.execute(delete(MailLink).where(MailLink.expires_at < work.now - KEPT))
    link = MailLink(
        id=new_id("lnk"),
        purpose=purpose,
        subject=subject,
        person_id=person_id,
        address=address,
        network=network,
        created_at=work.now,
        expires_at=work.now + lifetime,
    )
    work.session.add(link)
    work.session.flush()
    return link.id


def sign_link(key: bytes, link_id: str) -> str:
    """Return the token that goes into the mail for a link."""
    return str(_signer(key).dumps(link_id))


def open_link(work: Work, key: bytes, token: str, *, purpose: str) -> LinkRow:
    """Return the link of a token that still works; changes nothing.

    Raises:
        Invalid: it is no link of ours for this purpose (``link.unknown``).
        Conflict: it was used (``link.used``) or its time is over (``link.expired``).
    """
    return _open(work, key, token, purpose=purpose, lock=False)


def use_link(work: Work, key: bytes, token: str, *, purpose: str) -> LinkRow:
    """Use a link up, and return it; of two at once, one gets it.

    Raises:
        Invalid, Conflict: as ``open_link``.
    """
    link = _open(work, key, token, purpose=purpose, lock=True)
    work.session.execute(update(MailLink).where(MailLink.id == link.id).values(used_at=work.now))
    return link


def _open(work: Work, key: bytes, token: str, *, purpose: str, lock: bool) -> LinkRow:
    statement = select(
        MailLink.id,
        MailLink.purpose,
        MailLink.subject,
        MailLink.person_id,
        MailLink.address,
        MailLink.created_at,
        MailLink.expires_at,
        MailLink.used_at,
    ).where(MailLink.id == _link_id(key, token), MailLink.purpose == purpose)
    if lock:
        statement = statement.with_for_update()
    found = work.session.execute(statement).one_or_none()
    if found is None:
        raise _unknown()
    link = LinkRow(*found)
    if link.used_at is not None:
        raise Conflict(
            "This link was used already, and each works once.",
            reason="link.used",
            next_step="Ask for a new one if you need it.",
        )
    if link.expires_at <= work.now:
        raise Conflict(
            f"This link worked until {said(link.expires_at)}.",
            reason="link.expired",
            next_step="Ask for a new one.",
        )
    return link


def _link_id(key: bytes, token: str) -> str:
    """Return the id a token was signed for; the signature is compared in constant time."""
    if not token or len(token) > LONGEST_TOKEN:
        raise _unknown()
    try:
        value = _signer(key).loads(token)
    except (BadData, UnicodeError) as error:
        raise _unknown() from error
    if not isinstance(value, str):
        raise _unknown()
    return value


def _unknown() -> Invalid:
    return Invalid(
        "This is not a link that this service sent, or it is not whole.",
        reason="link.unknown",
        next_step="Copy the whole address from the mail, or ask for a new one.",
    )

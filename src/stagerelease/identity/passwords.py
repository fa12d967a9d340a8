"""Passwords, for who has no passkey: hashed with Argon2id, guessed at a bounded rate.

Checking one takes tens of megabytes and half a second on purpose, so it is done outside any Work:
``begin_attempt`` counts the attempt and hands out what to compare with, ``matches`` compares, and
only then does somebody sign in. For an address without an account the same work is done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import select

from stagerelease.db.counting import count_in, forget_count, insert_into, window_of
from stagerelease.db.work import Work
from stagerelease.identity.entering import find_by_address
from stagerelease.identity.queries import PersonRow, load_person
from stagerelease.identity.tables import Password
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import FieldError, Invalid, TooMany
from stagerelease.ledger import service as ledger

SHORTEST, LONGEST = 12, 200
WINDOW = timedelta(minutes=15)
PER_ACCOUNT_AND_NETWORK, PER_NETWORK = 10, 100
"""Passwords typed within ``WINDOW``; a right one begins the first count anew."""
_ARGON2 = Argon2Hasher()  # RFC 9106: Argon2id, 64 MiB, 3 passes, 4 lanes
NOBODY = (
    "$argon2id$v=19$m=65536,t=3,p=4$c3RhZ2VyZWxlYXNlLW5vYm9keQ"
    "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
"""What the passwords of addresses without an account are compared with; nothing matches it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that was counted: whose it would be, what to compare with, and its count."""

    person: PersonRow | None
    hash: str
    key: str


def begin_attempt(work: Work, address: str, *, network: str) -> Attempt:
    """Count an attempt to sign in with a password and return what to compare it with.

    ``network`` is a keyed digest of where it comes from. It is counted before it is known to be
    wrong, so that many at once are no way around the limit.

    Raises:
        TooMany: there were too many wrong ones within ``WINDOW``.
    """
    person = find_by_address(work, address.strip())
    return _attempt(work, person, address.strip().lower(), network)


def begin_my_attempt(work: Work, *, network: str) -> Attempt:
    """Count an attempt of the caller to prove that it is them, as ``begin_attempt`` does."""
    person = load_person(work, work.actor.id)
    return _attempt(work, person, person.id, network)


def _attempt(work: Work, person: PersonRow | None, account: str, network: str) -> Attempt:
    digest = sha256_hex(f"{account}\n{network}".encode())
    key = f"password:a:{digest}"
    for name, limit in ((key, PER_ACCOUNT_AND_NETWORK), (f"password:n:{network}", PER_NETWORK)):
        if count_in(work, name, WINDOW) > limit:
            left = math.ceil((window_of(work.now, WINDOW) + WINDOW - work.now).total_seconds())
            raise TooMany(
                "Too many wrong passwords were typed from your network. Try again in "
                f"{-(-left // 60)} minutes, or have a link mailed to you.",
                retry_after=left,
                reason="password.too-many",
            )
    stored = None
    if person is not None:
        stored = work.session.execute(
            select(Password.hash).where(Password.person_id == person.id)
        ).scalar_one_or_none()
    return Attempt(person if stored else None, stored or NOBODY, key)


def matches(attempt: Attempt, password: str) -> bool:
    """Tell whether a password is the right one. Slow on purpose; to be called outside any Work."""
    right = _ARGON2.verify(password[: LONGEST + 1], attempt.hash)
    return right and attempt.person is not None


def succeed(work: Work, attempt: Attempt) -> None:
    """Forget the wrong passwords before a right one."""
    forget_count(work, attempt.key)


def wrong() -> Invalid:
    """Return the refusal of a wrong password, which is the same for an unknown address."""
    sentence = "That address and password do not go together."
    return Invalid(
        sentence,
        reason="password.wrong",
        next_step="Check both, or have a link mailed to you.",
        fields=[FieldError("password", sentence)],
    )


def check_new(password: str, *, person: PersonRow) -> None:
    """Return only if a password may be set.

    Raises:
        Invalid: it is too short, too long, or made of the person's own name.
    """
    sentence = ""
    if not SHORTEST <= len(password) <= LONGEST:
        sentence = f"Use {SHORTEST} to {LONGEST} characters; a few unrelated words are good."
    elif len(set(password)) < 5:
        sentence = "Use at least five different characters."
    else:
        names = {person.handle, (person.email or "").partition("@")[0], person.display_name}
        rest = password.casefold()
        for name in names:
            rest = rest.replace(name.casefold(), "") if name else rest
        if len(rest) < SHORTEST // 2:
            sentence = "Do not make it of your own name or address."
    if sentence:
        raise Invalid(sentence, reason="password.weak", fields=[FieldError("new", sentence)])


def hash_new(password: str) -> str:
    """Return the hash of a new password. Slow on purpose; to be called outside any Work."""
    return _ARGON2.hash(password)


def set_password(work: Work, hashed: str) -> None:
    """Make a password, already hashed, the caller's."""
    statement = insert_into(work, Password).values(
        person_id=work.actor.id, hash=hashed, set_at=work.now
    )
    work.session.execute(
        statement.on_conflict_do_update(
            index_elements=[Password.person_id], set_={"hash": hashed, "set_at": work.now}
        )
    )
    detail = {"person": work.actor.id}
    ledger.append(work, type="password.set", subject=f"person:{work.actor.id}", detail=detail)


def has_password(work: Work) -> bool:
    """Tell whether the caller has set a password."""
    return work.session.get(Password, work.actor.id) is not None

"""The one tree of refusals. A class knows no HTTP; faces translate it once.

::

    DomainError
    ├── Invalid            the input cannot be understood or breaks a rule of form
    ├── Unauthenticated    nobody is known behind this request
    ├── ProofNeeded        somebody is signed in, and shows first that it is still them
    ├── Forbidden          somebody is known, and may not
    │   └── Gated          the bytes exist, and this caller is not entitled to them
    ├── NotFound           there is no such thing, or the caller may not know of it
    ├── Conflict           the state of the world forbids it now
    │   └── Blocked        a release decision is refused; carries every blocker
    ├── Stale              the caller decided on a version that has moved on
    ├── TooLarge           the input is larger than the limit
    ├── TooMany            the caller must wait (``retry_after`` seconds)
    ├── Unavailable        try again later (``retry_after`` seconds)
    └── Corrupt            stored bytes or log entries do not verify

``code`` and ``title`` belong to the class, are public and are never reused. The instance adds the
sentence (what, why), an optional ``next_step`` (what to do) and an optional finer ``reason``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason a release decision cannot go through: a stable code and a sentence."""

    code: str
    sentence: str


@dataclass(frozen=True, slots=True)
class FieldError:
    """One input field that is wrong: a path such as ``files.0.path`` and a sentence."""

    field: str
    sentence: str


class DomainError(Exception):
    """A refusal with a sentence for the person who asked."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "The request could not be carried out"

    def __init__(
        self,
        sentence: str,
        *,
        reason: str | None = None,
        next_step: str | None = None,
        fields: Sequence[FieldError] = (),
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.reason = reason or self.code
        self.next_step = next_step
        self.fields = tuple(fields)


class Invalid(DomainError):
    """The input cannot be understood or breaks a rule of form."""

    code = "invalid"
    title = "The input is not valid"


class Unauthenticated(DomainError):
    """Nobody is known behind this request."""

    code = "unauthenticated"
    title = "Sign in or send a token"


class ProofNeeded(DomainError):
    """Somebody is signed in; this act needs a fresh proof that it is still them."""

    code = "proof-needed"
    title = "Show that it is you"

    def __init__(self, sentence: str, *, way: str) -> None:
        super().__init__(
            sentence,
            reason=f"proof.{way}",
            next_step="Show that it is you, then do it again; nothing you typed is lost.",
        )
        self.way = way


class Forbidden(DomainError):
    """The caller is known and may not do this."""

    code = "forbidden"
    title = "You may not do this"


class Gated(Forbidden):
    """The bytes exist, and this caller is not entitled to them now."""

    code = "gated"
    title = "This release is gated"

    def __init__(
        self, sentence: str, *, reason: str, next_step: str | None = None, anonymous: bool = False
    ) -> None:
        super().__init__(sentence, reason=reason, next_step=next_step)
        self.anonymous = anonymous


class NotFound(DomainError):
    """There is no such thing, or the caller may not know of it."""

    code = "not-found"
    title = "There is no such thing"


class Conflict(DomainError):
    """The state of the world forbids it now."""

    code = "conflict"
    title = "The present state does not allow this"


class Blocked(Conflict):
    """A release decision is refused; every reason is listed, not just the first."""

    code = "blocked"
    title = "The release decision is blocked"

    def __init__(self, blockers: Sequence[Blocker], *, next_step: str | None = None) -> None:
        self.blockers = tuple(blockers)
        super().__init__(" ".join(b.sentence for b in blockers), next_step=next_step)


class Stale(DomainError):
    """The caller decided on a version that has moved on."""

    code = "stale"
    title = "This changed since you looked"


class TooLarge(DomainError):
    """The input is larger than the limit."""

    code = "too-large"
    title = "The input is too large"


class TooMany(DomainError):
    """The caller asks too often; wait ``retry_after`` seconds."""

    code = "too-many"
    title = "Too many requests"

    def __init__(self, sentence: str, *, retry_after: int, reason: str | None = None) -> None:
        super().__init__(sentence, reason=reason, next_step=f"Wait {retry_after} seconds.")
        self.retry_after = retry_after


class Unavailable(DomainError):
    """Not possible right now; try again in ``retry_after`` seconds."""

    code = "unavailable"
    title = "Not available right now"

    def __init__(self, sentence: str, *, retry_after: int = 5, reason: str | None = None) -> None:
        super().__init__(sentence, reason=reason, next_step=f"Try again in {retry_after} seconds.")
        self.retry_after = retry_after


class Corrupt(DomainError):
    """Stored bytes or log entries do not verify."""

    code = "corrupt"
    title = "Stored data does not verify"

"""What an incident may become, who that takes, and what words it may hold. Pure.

The life of an incident is the table ``MOVES``; nothing else moves one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import timedelta
from enum import IntEnum, StrEnum

from stagerelease.kernel.errors import Conflict, FieldError, Invalid


class State(StrEnum):
    """Where an incident stands."""

    REPORTED = "reported"
    TRIAGED = "triaged"
    CONFIRMED = "confirmed"
    MITIGATED = "mitigated"
    CLOSED = "closed"
    DISMISSED = "dismissed"


class Step(StrEnum):
    """What is done to an incident; the past tense names the event and the log entry."""

    TRIAGE = "triaged"
    REASSESS = "reassessed"
    CONFIRM = "confirmed"
    DISMISS = "dismissed"
    MITIGATE = "mitigated"
    CLOSE = "closed"
    REOPEN = "reopened"


S = State
MOVES: Mapping[tuple[State, Step], State] = {
    (S.REPORTED, Step.TRIAGE): S.TRIAGED,
    (S.TRIAGED, Step.TRIAGE): S.TRIAGED,
    (S.TRIAGED, Step.CONFIRM): S.CONFIRMED,
    (S.TRIAGED, Step.DISMISS): S.DISMISSED,
    (S.CONFIRMED, Step.REASSESS): S.CONFIRMED,
    (S.CONFIRMED, Step.MITIGATE): S.MITIGATED,
    (S.MITIGATED, Step.REASSESS): S.MITIGATED,
    (S.MITIGATED, Step.CLOSE): S.CLOSED,
    (S.CLOSED, Step.REOPEN): S.CONFIRMED,
    (S.DISMISSED, Step.REOPEN): S.TRIAGED,
}
"""Every step there is, from which state and to which. What is not here cannot be done."""

OPEN = frozenset({S.REPORTED, S.TRIAGED, S.CONFIRMED, S.MITIGATED})
BLOCKING_STATES = frozenset({S.CONFIRMED, S.MITIGATED})
"""Where a blocking incident blocks: no longer a rumour, not yet closed."""

CLOSE_CONSENTS = 2
"""Confirming takes one person; closing a blocking incident lets releases go on, and takes this."""


class Severity(StrEnum):
    """How bad it is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class ActorTier(IntEnum):
    """Who is thought to be behind it."""

    CURIOUS = 1
    SKILLED_AND_RESOURCED = 2
    ADVANCED_PERSISTENT = 3


class Visibility(StrEnum):
    """Who may read a word on an incident; each includes those before it."""

    PRIVATE = "private"  # staff
    REPORTER = "reporter"  # and whoever reported it
    PUBLIC = "public"  # and everybody


class Scope(StrEnum):
    """What an incident covers: the tracks and families listed with it, or everything."""

    LISTED = "listed"
    EVERYTHING = "everything"


def next_state(now: str, step: Step, number: int) -> State:
    """Return where ``step`` leads from ``now``.

    Raises:
        Conflict: it cannot be done there; says what can.
    """
    to = MOVES.get((State(now), step))
    if to is not None:
        return to
    possible = sorted({s.value for (state, s) in MOVES if state == now})
    raise Conflict(
        f"Incident {number} is {now}, so it cannot be {step}.",
        reason="incident.state",
        next_step=f"From here it can be {', '.join(possible)}." if possible else None,
    )


def blocks(state: str, *, blocking: bool) -> bool:
    """Tell whether an incident keeps what it covers from being promoted."""
    return blocking and state in BLOCKING_STATES


def consents_to_close(*, blocking: bool) -> int:
    """Return how many distinct people closing takes (invariant 14 in spirit)."""
    return CLOSE_CONSENTS if blocking else 1


def check_assessment(
    *, severity: str | None, actor_tier: int | None, blocking: bool, covers: bool
) -> None:
    """Return only if an incident assessed so can be acted on.

    Raises:
        Invalid: no such severity or tier, or blocking and covering nothing; names the field.
    """
    wrong: list[FieldError] = []
    if severity is None or severity not in set(Severity):
        words = ", ".join(Severity)
        wrong.append(FieldError("severity", f"Say how severe it is: {words}."))
    if actor_tier is not None and actor_tier not in set(ActorTier):
        wrong.append(
            FieldError(
                "actor_tier",
                "The actor tier is 1 (curious), 2 (skilled and resourced) or 3 (advanced "
                "persistent); leave it out when nothing is known.",
            )
        )
    if blocking and not covers:
        wrong.append(
            FieldError(
                "tracks", "A blocking incident covers a track, a family or everything; name them."
            )
        )
    if wrong:
        raise Invalid(wrong[0].sentence, reason="incident.assessment", fields=wrong)


# --- words ---------------------------------------------------------------------------------------

MAX_TEXT = 8_000
MAX_TITLE = 200
MAX_PUBLIC = 500
MAX_ABOUT = 200
MAX_CONTACT = 320
_JOINERS = "\u200c\u200d"  # Persian, Indic scripts and emoji cannot be written without them


def _kept(character: str) -> bool:
    return (
        character in "\n\t"
        or character in _JOINERS
        or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )


def check_words(
    text: str, what: str, *, field: str, required: bool = True, limit: int = MAX_TEXT
) -> str:
    """Return ``text`` trimmed, its line ends made ``\\n``, if it can be kept and shown safely.

    Text that turns writing around or hides in it (control and format characters) is refused:
    readers must see what was written. Any script and emoji are fine.

    Raises:
        Invalid: empty (when ``required``), longer than ``limit`` characters, or holding such
            characters; names ``field`` and says which.
    """
    for end in ("\r\n", "\r", "\u2028", "\u2029"):
        text = text.replace(end, "\n")
    text = text.strip()
    odd = next((c for c in text if not _kept(c)), None)
    if required and not text:
        sentence = f"Write the {what}."
    elif len(text) > limit:
        sentence = f"The {what} has {len(text):,} characters; at most {limit:,} are kept."
    elif odd is not None:
        sentence = f"The {what} holds a hidden character (U+{ord(odd):04X}); take it out."
    else:
        return text
    raise Invalid(sentence, reason="incident.text", fields=[FieldError(field, sentence)])


def check_line(text: str, what: str, *, field: str, required: bool = True, limit: int) -> str:
    """Return ``text`` as ``check_words`` does, if it is one line.

    Raises:
        Invalid: as ``check_words``, or it has several lines.
    """
    text = check_words(text, what, field=field, required=required, limit=limit)
    if "\n" in text:
        sentence = f"The {what} is one line."
        raise Invalid(sentence, reason="incident.text", fields=[FieldError(field, sentence)])
    return text


# --- how often somebody may report ---------------------------------------------------------------

PER_NETWORK = 5
"""Reports without an account, an hour, from one network."""
IN_ALL = 60
"""Reports without an account, an hour, from everywhere together."""
PER_PERSON = 20
"""Reports of one signed-in person, an hour. They do not count towards everybody's."""
WORDS_PER_REPORT = 10
"""Words a reporter may add, an hour, to one report."""

ACKNOWLEDGE_WITHIN = timedelta(days=3)
"""How long holders have to acknowledge an advisory unless it says otherwise."""
ACKNOWLEDGE_AT_MOST = timedelta(days=90)

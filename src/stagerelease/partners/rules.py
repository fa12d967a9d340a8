"""When a grant counts, and what may become of agreements, signatures and grants. Pure.

``is_active`` is the whole of invariants 6, 7 and 8: everything a grant rests on goes in, and one
answer with its reason and its end comes out. It never looks anything up.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from stagerelease.kernel.clock import said
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import Blocker, Conflict, Invalid
from stagerelease.releases.ladder import WITHDRAWN, Plan, Stage

RESUME_CONSENTS = 2
"""Suspending needs one person; resuming needs this many (invariant 14)."""

LONGEST_GRANT = timedelta(days=731)
"""Two years, one of which may be a leap year."""

RECONSENT_WITHIN = timedelta(days=30)
"""How long holders have to sign a material new version, unless its publisher says otherwise."""

LONGEST_RECONSENT = timedelta(days=366)
MAX_PURPOSE = 2000
MAX_AGREEMENT = 200_000
ORGANISATIONS, PEOPLE = "organisations", "people"

_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")  # what a plan can name


class VersionState(StrEnum):
    """Where an agreement version is."""

    DRAFT = "draft"
    IN_FORCE = "in_force"
    SUPERSEDED = "superseded"
    RETIRED = "retired"


class SignatureState(StrEnum):
    """Where a signature is; ``pending`` while it waits for a countersignature."""

    PENDING = "pending"
    IN_FORCE = "in_force"
    SUPERSEDED = "superseded"
    TERMINATED = "terminated"
    EXPIRED = "expired"


class GrantState(StrEnum):
    """Where a grant is."""

    PENDING = "pending"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    EXPIRED = "expired"
    REVOKED = "revoked"


class Suspension(StrEnum):
    """Why a grant is suspended."""

    WITHDRAWAL = "withdrawal"
    DECISION = "decision"
    TERMS = "terms"
    RECONSENT = "reconsent"


TAKES_TWO = (Suspension.WITHDRAWAL, Suspension.DECISION, Suspension.TERMS)
"""Suspensions that two people lift; signing the new text is all that ``RECONSENT`` waits for."""


V, S, G = VersionState, SignatureState, GrantState
VERSION_MOVES: Mapping[VersionState, frozenset[VersionState]] = MappingProxyType(
    {
        V.DRAFT: frozenset({V.IN_FORCE}),
        V.IN_FORCE: frozenset({V.SUPERSEDED}),
        V.SUPERSEDED: frozenset({V.RETIRED}),
        V.RETIRED: frozenset(),
    }
)
SIGNATURE_MOVES: Mapping[SignatureState, frozenset[SignatureState]] = MappingProxyType(
    {
        S.PENDING: frozenset({S.IN_FORCE, S.SUPERSEDED, S.TERMINATED, S.EXPIRED}),
        S.IN_FORCE: frozenset({S.SUPERSEDED, S.TERMINATED, S.EXPIRED}),
        S.SUPERSEDED: frozenset(),
        S.TERMINATED: frozenset(),
        S.EXPIRED: frozenset(),
    }
)
GRANT_MOVES: Mapping[GrantState, frozenset[GrantState]] = MappingProxyType(
    {
        G.PENDING: frozenset({G.ACTIVE, G.EXPIRED, G.REVOKED}),
        G.ACTIVE: frozenset({G.SUSPENDED, G.EXPIRED, G.REVOKED}),
        G.SUSPENDED: frozenset({G.ACTIVE, G.EXPIRED, G.REVOKED}),
        G.EXPIRED: frozenset(),
        G.REVOKED: frozenset(),
    }
)
LIVE = frozenset({G.PENDING, G.ACTIVE, G.SUSPENDED})
"""States from which a grant may still deliver, now or after somebody's decision."""

LASTING = (SignatureState.PENDING, SignatureState.IN_FORCE)
"""States from which a signature can still end by its date."""

ACCEPTED_VERSIONS = frozenset({V.IN_FORCE, V.SUPERSEDED})
"""A version that was superseded binds those who signed it until it is retired."""


def check_grant_move(state: str, to: GrantState) -> None:
    """Return only if a grant in ``state`` may move to ``to``.

    Raises:
        Conflict: the table does not have that move; says what state the grant is in.
    """
    if to not in GRANT_MOVES[GrantState(state)]:
        ended = GrantState(state) not in LIVE
        raise Conflict(
            f"The grant is {state}, and that does not lead to {to}.",
            reason=f"grant.{state}",
            next_step="Issue a new grant that names this one." if ended else "Look at its events.",
        )


@dataclass(frozen=True, slots=True)
class GrantStanding:
    """Everything a grant's worth depends on, read at the instant ``at``.

    ``audience_rank`` is the rung of the stage the grantee is admitted at, None when the track's
    plan has no such stage; ``stage_rank`` is the rung the track is at. ``membership_until`` and
    ``token_until`` are ends of the roster line and the token in use, None when open-ended.
    """

    at: datetime
    state: str
    suspended_for: str | None
    valid_from: datetime
    valid_until: datetime
    signature_state: str | None
    signature_until: datetime | None
    agreement_version_state: str | None
    audience_rank: int | None
    stage_rank: int
    withdrawn: bool
    membership_until: datetime | None = None
    token_until: datetime | None = None
    reconsent_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a grant counts now, why not, and until when that answer holds at the longest."""

    active: bool
    reason: str
    sentence: str
    until: datetime | None


def effective_end(*ends: datetime | None) -> datetime | None:
    """Return the earliest of ``ends``; None means no end (the GA4GH minimum rule, invariant 8)."""
    known = [end for end in ends if end is not None]
    return min(known) if known else None


def end_of(standing: GrantStanding) -> datetime | None:
    """Return when the grant stops counting at the latest, all it rests on taken together."""
    return effective_end(
        standing.valid_until,
        standing.signature_until,
        standing.reconsent_until,
        standing.membership_until,
        standing.token_until,
    )


_STATES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        G.PENDING: (
            "grant.pending",
            "Your grant waits: for your signature on its agreement, or a second person's consent.",
        ),
        G.EXPIRED: ("grant.expired", "Your grant has ended."),
        G.REVOKED: ("grant.revoked", "Your grant was revoked."),
    }
)
_SUSPENSIONS: Mapping[str | None, str] = MappingProxyType(
    {
        Suspension.WITHDRAWAL: "Your grant is suspended: the release was withdrawn.",
        Suspension.TERMS: "Your grant is suspended: the signature it rested on has ended.",
        Suspension.DECISION: "Your grant is suspended by a decision; its events say why.",
        Suspension.RECONSENT: "Your grant is suspended until the new version of its agreement is "
        "signed.",
    }
)
_SIGNATURES: Mapping[str, str] = MappingProxyType(
    {
        S.PENDING: "The signature your grant rests on waits for its countersignature.",
        S.SUPERSEDED: "The signature your grant rests on was replaced by a newer one.",
        S.TERMINATED: "The signature your grant rests on was terminated.",
        S.EXPIRED: "The signature your grant rests on has ended.",
    }
)


def is_active(standing: GrantStanding) -> Standing:
    """Tell whether a grant counts at ``standing.at``; the first thing amiss is the reason.

    The stored state is never believed alone: every end is compared with the clock (invariant 9).
    """
    amiss = _amiss(standing)
    if amiss is not None:
        return Standing(False, *amiss, None)
    return Standing(True, "grant", "The grant is active.", end_of(standing))


def _amiss(s: GrantStanding) -> tuple[str, str] | None:
    if s.withdrawn:
        return "grant.withdrawn", "The release your grant was for was withdrawn."
    if s.state != G.ACTIVE:
        if s.state == G.SUSPENDED:
            fallback = _SUSPENSIONS[Suspension.DECISION]
            return "grant.suspended", _SUSPENSIONS.get(s.suspended_for, fallback)
        return _STATES.get(s.state, ("grant.unknown", "Your grant is in no state that counts."))
    if s.at < s.valid_from:
        return "grant.not-yet", f"Your grant begins at {said(s.valid_from)}."
    if s.at >= s.valid_until:
        return "grant.expired", f"Your grant ended at {said(s.valid_until)}."
    if s.signature_state != S.IN_FORCE:
        sentence = _SIGNATURES.get(
            str(s.signature_state), "The signature it rests on is not in force."
        )
        return f"signature.{s.signature_state}", sentence
    if s.signature_until is not None and s.at >= s.signature_until:
        return (
            "signature.expired",
            f"The signature your grant rests on ended at {said(s.signature_until)}.",
        )
    if s.reconsent_until is not None and s.at >= s.reconsent_until:
        return (
            "agreement.changed",
            "The agreement changed materially, and its new version was not signed by "
            f"{said(s.reconsent_until)}.",
        )
    if s.agreement_version_state not in ACCEPTED_VERSIONS:
        return (
            f"agreement.{s.agreement_version_state}",
            "The agreement version your grant rests on is not accepted any more.",
        )
    if s.audience_rank is None or s.audience_rank > s.stage_rank:
        return "grant.audience", "The release is not at a stage that admits you yet."
    if s.membership_until is not None and s.at >= s.membership_until:
        return "membership.ended", "Your place on the organisation's roster has ended."
    if s.token_until is not None and s.at >= s.token_until:
        return "token.expired", "Your token, or a role it rests on, has ended."
    return None


# --- issuing -------------------------------------------------------------------------------------


def admitting_stages(plan: Plan, stage: str, audience_kind: str) -> tuple[Stage, ...]:
    """Return the stages of ``plan`` up to ``stage`` that let ``audience_kind`` in, lowest first.

    Staff need no grant and everyone needs none, so only ``organisations`` and ``people`` are let in
    by grants. Empty for a withdrawn track.
    """
    if stage == WITHDRAWN or plan.find(stage) is None:
        return ()
    reached = plan.ladder[: plan.rank(stage) + 1]
    return tuple(s for s in reached if s.audience == audience_kind and s.agreement is not None)


def no_stage_blocker(stage: str, audience_kind: str, named: str | None) -> Blocker:
    """Return why nobody of ``audience_kind`` can be let in while the track is at ``stage``."""
    if stage == WITHDRAWN:
        return Blocker("withdrawn", "The release was withdrawn, so nobody is let in to it.")
    if named is not None:
        return Blocker(
            "grant.audience",
            f"{named!r} is not a stage that the release has reached and that lets {audience_kind} "
            f"in; it is at {stage}.",
        )
    return Blocker(
        "grant.audience",
        f"The release is at {stage}, and no stage up to that lets {audience_kind} in.",
    )


def check_permissions(permissions: Collection[str], stage: Stage) -> list[str]:
    """Return ``permissions`` in order, if the stage gives each of them.

    Raises:
        Invalid: none is named, or one that the stage does not give.
    """
    extra = sorted(set(permissions) - stage.permissions)
    if extra or not permissions:
        raise Invalid(
            f"The stage {stage.name} gives {', '.join(sorted(stage.permissions))}; "
            f"asked for {', '.join(extra) or 'nothing'}.",
            reason="grant.permissions",
        )
    return sorted(set(permissions))


def check_dates(now: datetime, valid_until: datetime) -> None:
    """Return only if a grant issued ``now`` may last until ``valid_until``.

    Raises:
        Invalid: no zone, not in the future, or more than ``LONGEST_GRANT`` away.
    """
    if valid_until.tzinfo is None:
        raise Invalid("Say in which zone the end date is.", reason="grant.dates")
    if not now < valid_until <= now + LONGEST_GRANT:
        raise Invalid(
            f"A grant ends after now and at most two years on; {said(valid_until)} is not in "
            "that range.",
            reason="grant.dates",
            next_step="Name an earlier end; a grant can be renewed.",
        )


# --- agreements ----------------------------------------------------------------------------------


def check_slug(slug: str) -> str:
    """Return ``slug`` if it can name an agreement.

    Raises:
        Invalid: it cannot.
    """
    if not _SLUG.match(slug):
        raise Invalid(
            "An agreement is named by 1-32 of a-z, 0-9, '-' and '_', beginning with a letter or "
            "digit.",
            reason="agreement.slug",
        )
    return slug


def normal_text(text: str) -> str:
    """Return an agreement's text as it is kept: LF line ends, trimmed, one newline at the end.

    Its SHA-256 is then the one that ``sha256sum`` prints for a file of the text.

    Raises:
        Invalid: empty, longer than ``MAX_AGREEMENT`` characters, or with control characters.
    """
    text = text.replace("\r\n", "\n").strip()
    if not text or len(text) > MAX_AGREEMENT:
        raise Invalid(
            f"An agreement's text is 1 to {MAX_AGREEMENT:,} characters.", reason="agreement.text"
        )
    odd = any(
        (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000
        for c in text
    )
    if odd:
        raise Invalid("The text holds control characters.", reason="agreement.text")
    return text + "\n"


def text_sha256(text: str) -> str:
    """Return the 64-hex SHA-256 of a normal text, as UTF-8."""
    return sha256_hex(text.encode())


def address_sha256(signature_id: str, address: str) -> str:
    """Return a hash that can confirm a claimed network address, and differs for each signature."""
    return sha256_hex(f"{signature_id}\n{address}".encode())

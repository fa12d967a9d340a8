"""Who may do what: the one table, and the one function that reads it. Pure.

``authorize`` decides permissions on this service's own objects. Whether somebody may have the
*bytes* of a release is decided in ``entitlements``, which asks here first what the roles say.
"""

from __future__ import annotations

import secrets
import string
import zlib
from dataclasses import dataclass
from enum import StrEnum

from stagerelease.kernel.actor import Actor, ActorKind
from stagerelease.kernel.errors import Forbidden, Invalid, Unauthenticated


class Role(StrEnum):
    """Roles of this service (partner_* come from rosters)."""

    OWNER = "owner"
    RELEASE_MANAGER = "release_manager"
    REVIEWER = "reviewer"
    ACCESS_OFFICER = "access_officer"
    SECURITY = "security"
    AUDITOR = "auditor"
    PARTNER_ADMIN = "partner_admin"
    PARTNER_MEMBER = "partner_member"
    RESEARCHER = "researcher"


STAFF = frozenset(
    {
        Role.OWNER,
        Role.RELEASE_MANAGER,
        Role.REVIEWER,
        Role.ACCESS_OFFICER,
        Role.SECURITY,
        Role.AUDITOR,
    }
)


class Permission(StrEnum):
    """Everything one can be allowed to do, ``noun:verb``, alphabetical."""

    ACCESS_FORM_EDIT = "access_form:edit"
    ACCESS_REQUEST_DECIDE = "access_request:decide"
    ACCESS_REQUEST_READ = "access_request:read"
    ACCESS_REQUEST_SUBMIT = "access_request:submit"
    AGREEMENT_PUBLISH = "agreement:publish"
    AGREEMENT_READ = "agreement:read"
    AGREEMENT_SIGN = "agreement:sign"
    CARD_LOCK = "card:lock"
    CATALOG_READ_INTERNAL = "catalog:read_internal"
    CATALOG_WRITE = "catalog:write"
    COORDINATION_READ = "coordination:read"
    COORDINATION_RECORD = "coordination:record"
    EVIDENCE_DECIDE = "evidence:decide"
    EVIDENCE_READ = "evidence:read"
    EVIDENCE_SUBMIT = "evidence:submit"
    GRANT_ISSUE = "grant:issue"
    GRANT_READ = "grant:read"
    GRANT_RESUME = "grant:resume"
    GRANT_STOP = "grant:stop"
    HOLD_LAY = "hold:lay"
    HOLD_LIFT = "hold:lift"
    INCIDENT_MANAGE = "incident:manage"
    INCIDENT_READ = "incident:read"
    LEDGER_READ_PRIVATE = "ledger:read_private"
    MANIFEST_SIGN = "manifest:sign"
    PEOPLE_MANAGE = "people:manage"
    PEOPLE_READ = "people:read"
    PLAN_APPLY = "plan:apply"
    PLAN_CONSENT = "plan:consent"
    PLAN_READ = "plan:read"
    PROMOTION_APPLY = "promotion:apply"
    PROMOTION_DECIDE = "promotion:decide"
    PROMOTION_OPEN = "promotion:open"
    PROMOTION_READ = "promotion:read"
    RELEASE_WITHDRAW = "release:withdraw"
    TOKEN_MANAGE_ANY = "token:manage_any"  # noqa: S105
    TOKEN_MANAGE_OWN = "token:manage_own"  # noqa: S105
    TRACK_CREATE = "track:create"
    TRACK_READ = "track:read"
    USAGE_READ = "usage:read"
    WAIVER_SIGN = "waiver:sign"
    WEBHOOK_MANAGE = "webhook:manage"


P = Permission
EVERYONE_KNOWN = frozenset({P.TOKEN_MANAGE_OWN, P.ACCESS_REQUEST_SUBMIT})
"""What every account may do, whatever its roles."""
_READS = frozenset(
    {
        P.ACCESS_REQUEST_READ,
        P.AGREEMENT_READ,
        P.CATALOG_READ_INTERNAL,
        P.COORDINATION_READ,
        P.EVIDENCE_READ,
        P.GRANT_READ,
        P.INCIDENT_READ,
        P.PEOPLE_READ,
        P.PLAN_READ,
        P.PROMOTION_READ,
        P.TRACK_READ,
    }
)

HUMAN_ACTS = frozenset({P.PROMOTION_DECIDE, P.AGREEMENT_SIGN, P.PLAN_CONSENT, P.WAIVER_SIGN})
"""What only an accountable person of the named role may do: never an owner's rank, nor a shell."""

ROLE_PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.OWNER: frozenset(P) - HUMAN_ACTS,
    Role.RELEASE_MANAGER: _READS
    | {
        P.CATALOG_WRITE,
        P.TRACK_CREATE,
        P.PLAN_APPLY,
        P.PROMOTION_OPEN,
        P.PROMOTION_APPLY,
        P.RELEASE_WITHDRAW,
        P.HOLD_LAY,
        P.CARD_LOCK,
        P.COORDINATION_RECORD,
        P.EVIDENCE_DECIDE,
        P.EVIDENCE_SUBMIT,
        P.MANIFEST_SIGN,
        P.PLAN_CONSENT,
        P.USAGE_READ,
        P.WEBHOOK_MANAGE,
    },
    Role.REVIEWER: _READS
    | {P.PROMOTION_DECIDE, P.EVIDENCE_DECIDE, P.EVIDENCE_SUBMIT, P.PLAN_CONSENT, P.WAIVER_SIGN},
    Role.ACCESS_OFFICER: _READS
    | {
        P.ACCESS_REQUEST_DECIDE,
        P.AGREEMENT_PUBLISH,
        P.GRANT_ISSUE,
        P.GRANT_STOP,
        P.GRANT_RESUME,
        P.ACCESS_FORM_EDIT,
    },
    Role.SECURITY: _READS
    | {
        P.HOLD_LAY,
        P.HOLD_LIFT,
        P.GRANT_STOP,
        P.GRANT_RESUME,
        P.RELEASE_WITHDRAW,
        P.LEDGER_READ_PRIVATE,
        P.COORDINATION_RECORD,
        P.EVIDENCE_DECIDE,
        P.EVIDENCE_SUBMIT,
        P.INCIDENT_MANAGE,
        P.USAGE_READ,
        P.WAIVER_SIGN,
    },
    Role.AUDITOR: _READS | {P.LEDGER_READ_PRIVATE, P.USAGE_READ},
    Role.PARTNER_ADMIN: frozenset({P.AGREEMENT_SIGN, P.EVIDENCE_SUBMIT}),
    Role.PARTNER_MEMBER: frozenset({P.EVIDENCE_SUBMIT}),
    Role.RESEARCHER: frozenset({P.AGREEMENT_SIGN, P.EVIDENCE_SUBMIT}),
}
"""Deny by default: what is not in this table is not allowed. ``docs/permissions.md`` prints it."""

SCOPES: dict[str, frozenset[Permission] | None] = {
    "all": None,
    "read": frozenset(
        {
            P.ACCESS_REQUEST_READ,
            P.AGREEMENT_READ,
            P.CATALOG_READ_INTERNAL,
            P.COORDINATION_READ,
            P.EVIDENCE_READ,
            P.GRANT_READ,
            P.INCIDENT_READ,
            P.PEOPLE_READ,
            P.PLAN_READ,
            P.PROMOTION_READ,
            P.TRACK_READ,
            P.USAGE_READ,
            P.LEDGER_READ_PRIVATE,
        }
    ),
    "download": frozenset(),
    "infer": frozenset(),
    "catalog": frozenset({P.CATALOG_READ_INTERNAL, P.CATALOG_WRITE}),
}
"""What a token's scope leaves of its owner's permissions; None leaves everything."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer of ``authorize``: yes or no, and the rule that said so."""

    allowed: bool
    rule: str
    sentence: str = ""


def permissions_of(actor: Actor) -> frozenset[Permission]:
    """Return everything ``actor`` may do here, after its token's scopes."""
    if actor.kind in (ActorKind.OPERATOR, ActorKind.SYSTEM):
        # A shell on the host can set the service up. It can never stand in for a person who
        # approves or signs: those acts need an accountable human.
        return frozenset(P) - HUMAN_ACTS
    if not actor.known:
        return frozenset()
    held = set(EVERYONE_KNOWN)
    for role in actor.roles:
        held |= ROLE_PERMISSIONS[Role(role)]
    if actor.scopes is None:
        return frozenset(held)
    left: set[Permission] = set()
    for scope in actor.scopes:
        allowed = SCOPES.get(scope, frozenset())
        left |= held if allowed is None else held & allowed
    return frozenset(left)


def authorize(actor: Actor, permission: Permission) -> Verdict:
    """Decide whether ``actor`` may do ``permission``; deny unless the table says otherwise."""
    if permission in permissions_of(actor):
        return Verdict(True, f"role:{permission}")
    if not actor.known:
        return Verdict(False, "anonymous", f"Nobody is signed in, and {permission} needs somebody.")
    roles = ", ".join(sorted(actor.roles)) or "no role"
    return Verdict(False, f"deny:{permission}", f"{permission} is not given to you ({roles}).")


def require(actor: Actor, permission: Permission) -> None:
    """Return only if ``actor`` may do ``permission``.

    Raises:
        Unauthenticated: nobody is known behind this.
        Forbidden: somebody is, and may not; the sentence names the permission and their roles.
    """
    verdict = authorize(actor, permission)
    if verdict.allowed:
        return
    if not actor.known:
        raise Unauthenticated(verdict.sentence, next_step="Send an API token as a bearer token.")
    raise Forbidden(
        verdict.sentence,
        reason=f"permission.{permission}",
        next_step=f"Ask someone who holds {permission} (docs/permissions.md), or an owner.",
    )


def is_staff(actor: Actor) -> bool:
    """Tell whether ``actor`` belongs to the people who run releases here."""
    return actor.kind in (ActorKind.OPERATOR, ActorKind.SYSTEM) or bool(actor.roles & STAFF)


# --- API tokens: format -------------------------------------------------------------------------
# ``srp_`` personal, ``srs_`` service, ``srd_`` download; 30 base-62 characters (178 bits); a CRC-32
# of both as six base-62 characters, so that junk is turned away without asking the database.

_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
TOKEN_PREFIXES = ("srp_", "srs_", "srd_")
TOKEN_LENGTH = 40


def _checksum(text: str) -> str:
    value = zlib.crc32(text.encode())
    out = ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        out = _BASE62[digit] + out
    return out


def make_token_text(prefix: str) -> str:
    """Return a new token of 40 characters with ``prefix`` (one of ``TOKEN_PREFIXES``)."""
    if prefix not in TOKEN_PREFIXES:
        raise ValueError(f"no such token prefix: {prefix}")
    body = prefix + "".join(secrets.choice(_BASE62) for _ in range(30))
    return body + _checksum(body)


def is_token_shaped(text: str) -> bool:
    """Tell whether ``text`` could be a token of ours: length, prefix, alphabet and checksum."""
    if len(text) != TOKEN_LENGTH or not text.startswith(TOKEN_PREFIXES) or not text.isascii():
        return False
    return secrets.compare_digest(_checksum(text[:34]), text[34:])


def check_text(text: str, what: str) -> str:
    """Return a name as it is kept.

    Raises:
        Invalid: it is empty, too long, or holds what cannot be printed.
    """
    text = text.strip()
    if not 1 <= len(text) <= 200 or any(ord(c) < 32 for c in text):
        raise Invalid(f"The {what} must be 1 to 200 printable characters.", reason="text.malformed")
    return text

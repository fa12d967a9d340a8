"""This slice's use cases, under one name for the floors above.

Agreements, signatures, grants, stopping and sweeping each have their own module; nothing is decided
here.
"""

from __future__ import annotations

from stagerelease.partners.agreements import (
    create_agreement,
    draft_version,
    list_agreements,
    list_outdated,
    publish_numbered,
    publish_version,
    retire_numbered,
    retire_version,
    show_version,
)
from stagerelease.partners.granting import (
    Grantee,
    GrantPage,
    issue_grant,
    list_deliveries,
    list_grants,
    show_grant,
)
from stagerelease.partners.moving import standing_of
from stagerelease.partners.signing import (
    countersign,
    list_signatures,
    show_signature,
    sign,
    terminate_signature,
)
from stagerelease.partners.stopping import (
    attest_destruction,
    lock_for_withdrawal,
    resume_grant,
    revoke_grant,
    suspend_for_withdrawal,
    suspend_grant,
)
from stagerelease.partners.sweeping import sweep_due, sweep_expired

__all__ = [
    "GrantPage",
    "Grantee",
    "attest_destruction",
    "countersign",
    "create_agreement",
    "draft_version",
    "issue_grant",
    "list_agreements",
    "list_deliveries",
    "list_grants",
    "list_outdated",
    "list_signatures",
    "lock_for_withdrawal",
    "publish_numbered",
    "publish_version",
    "resume_grant",
    "retire_numbered",
    "retire_version",
    "revoke_grant",
    "show_grant",
    "show_signature",
    "show_version",
    "sign",
    "standing_of",
    "suspend_for_withdrawal",
    "suspend_grant",
    "sweep_due",
    "sweep_expired",
    "terminate_signature",
]

"""This slice's use cases, under one name for the floors above.

Agreements, signatures, grants, stopping and sweeping each have their own module; nothing is decided
here.
"""

from __future__ import annotations

from stagerelease.partners.agreements import (
    create_agreement,
    diff_versions,
    draft_version,
    list_agreements,
    list_outdated,
    publish_numbered,
    publish_version,
    retire_numbered,
    retire_version,
    show_version,
)
from stagerelease.partners.attesting import attest_destruction, list_attestations
from stagerelease.partners.consenting import consent_to_grant
from stagerelease.partners.documents import Document, signed_pdf, version_pdf
from stagerelease.partners.duo import DUO_CODES
from stagerelease.partners.granting import Grantee, issue_grant
from stagerelease.partners.holding import holders_report
from stagerelease.partners.moving import standing_of
from stagerelease.partners.receipts import signature_receipt
from stagerelease.partners.renewing import ask_renewal, renew_grant, renewal_of
from stagerelease.partners.showing import GrantPage, list_deliveries, list_grants, show_grant
from stagerelease.partners.signatures import (
    countersign,
    list_signatures,
    show_signature,
    terminate_signature,
)
from stagerelease.partners.signing import sign
from stagerelease.partners.stopping import (
    give_up_grant,
    lock_for_withdrawal,
    resume_grant,
    revoke_grant,
    revoke_organisation,
    suspend_for_withdrawal,
    suspend_grant,
)
from stagerelease.partners.sweeping import sweep_due, sweep_expired
from stagerelease.partners.warning import warn_of_ends, warnings_due

__all__ = [
    "DUO_CODES",
    "Document",
    "GrantPage",
    "Grantee",
    "ask_renewal",
    "attest_destruction",
    "consent_to_grant",
    "countersign",
    "create_agreement",
    "diff_versions",
    "draft_version",
    "give_up_grant",
    "holders_report",
    "issue_grant",
    "list_agreements",
    "list_attestations",
    "list_deliveries",
    "list_grants",
    "list_outdated",
    "list_signatures",
    "lock_for_withdrawal",
    "publish_numbered",
    "publish_version",
    "renew_grant",
    "renewal_of",
    "resume_grant",
    "retire_numbered",
    "retire_version",
    "revoke_grant",
    "revoke_organisation",
    "show_grant",
    "show_signature",
    "show_version",
    "sign",
    "signature_receipt",
    "signed_pdf",
    "standing_of",
    "suspend_for_withdrawal",
    "suspend_grant",
    "sweep_due",
    "sweep_expired",
    "terminate_signature",
    "version_pdf",
    "warn_of_ends",
    "warnings_due",
]

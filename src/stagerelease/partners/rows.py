"""What this slice's reads return: frozen rows that carry no connection."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class AgreementRow:
    """A named agreement."""

    id: str
    slug: str
    title: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AgreementVersionRow:
    """A version of an agreement, without its text."""

    id: str
    agreement_id: str
    agreement: str
    title: str
    version: int
    text_sha256: str
    state: str
    material: bool
    duo_codes: tuple[str, ...]
    effective_from: datetime | None
    created_at: datetime
    leaf_idx: int | None
    reconsent_until: datetime | None = None
    needs_countersignature: bool = False


@dataclass(frozen=True, slots=True)
class SignatureRow:
    """A signature and the version it is on."""

    id: str
    agreement_version_id: str
    agreement: str
    version: int
    person_id: str
    organisation_id: str | None
    typed_name: str
    typed_title: str
    text_sha256: str
    method: str
    state: str
    signed_at: datetime
    valid_until: datetime | None
    countersigned_by: str | None
    countersigned_at: datetime | None
    ended_at: datetime | None
    leaf_idx: int
    reconsent_until: datetime | None = None
    countersign_leaf_idx: int | None = None


@dataclass(frozen=True, slots=True)
class GrantRow:
    """A grant."""

    id: str
    organisation_id: str | None
    person_id: str | None
    track_id: str
    audience: str
    permissions: frozenset[str]
    purpose: str
    signature_id: str | None  # only a pending grant has none
    state: str
    suspended_for: str | None
    valid_from: datetime
    valid_until: datetime
    version: int
    renewed_from_id: str | None
    created_by: str
    created_at: datetime
    ended_at: datetime | None
    awaits_agreement: str | None = None
    awaits_consent: bool = False

    @property
    def party(self) -> dict[str, str | None]:
        """Return the grantee as queries name one."""
        return {"person_id": self.person_id, "organisation_id": self.organisation_id}


@dataclass(frozen=True, slots=True)
class EffectiveGrant:
    """A grant with the state of everything it rests on; None where it rests on nothing yet."""

    grant: GrantRow
    signature_state: str | None
    agreement_slug: str | None
    agreement_version_state: str | None
    signature_until: datetime | None
    reconsent_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class GrantEventRow:
    """Something that happened to a grant."""

    id: str
    grant_id: str
    from_state: str | None
    to_state: str
    reason: str
    actor_id: str
    at: datetime
    leaf_idx: int


@dataclass(frozen=True, slots=True)
class AttestationRow:
    """What the holder of a revoked grant is asked to declare destroyed."""

    id: str
    grant_id: str
    delivered: tuple[dict[str, Any], ...]
    opened_at: datetime
    attested_at: datetime | None
    attested_by: str | None
    leaf_idx: int | None
    typed_name: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """One delivery of one file under a grant: what left, and whether all of it did."""

    download_id: str
    person_id: str | None
    path: str
    sha256: str
    size: int
    bytes_sent: int
    started_at: datetime
    completed_at: datetime | None

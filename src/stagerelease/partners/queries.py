"""Reads of grants and what they left behind, as frozen rows; with ``papers``, the slice's reads.

``grants_for`` is on the path of every gated byte: one statement, no ORM objects. Nothing here
decides who may see what; ``service`` does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import (
    BigInteger,
    Select,
    String,
    bindparam,
    column,
    false,
    func,
    or_,
    select,
    table,
)

from stagerelease.db.types import UtcDateTime
from stagerelease.db.work import Work
from stagerelease.kernel.errors import NotFound
from stagerelease.partners.papers import (
    find_agreement,
    find_in_force,
    find_numbered,
    find_signature,
    find_version,
    has_signed,
    list_outdated,
    list_signatures,
    list_versions,
    load_agreement,
    signature_in_force,
    text_of,
)
from stagerelease.partners.rows import (
    AgreementRow,
    AgreementVersionRow,
    AttestationRow,
    DeliveryRow,
    EffectiveGrant,
    GrantEventRow,
    GrantRow,
    SignatureRow,
)
from stagerelease.partners.rules import LIVE, GrantState
from stagerelease.partners.tables import (
    Agreement,
    AgreementVersion,
    DestructionAttestation,
    Grant,
    GrantEvent,
    GrantResume,
    Signature,
)
from stagerelease.releases.queries import storable

__all__ = [
    "AgreementRow",
    "AgreementVersionRow",
    "AttestationRow",
    "DeliveryRow",
    "EffectiveGrant",
    "GrantEventRow",
    "GrantRow",
    "SignatureRow",
    "deliveries",
    "find_agreement",
    "find_attestation",
    "find_effective",
    "find_grant",
    "find_in_force",
    "find_numbered",
    "find_signature",
    "find_version",
    "grant_events",
    "grants_for",
    "has_signed",
    "list_grants",
    "list_outdated",
    "list_signatures",
    "list_versions",
    "live_grants",
    "load_agreement",
    "load_grant",
    "open_attestations",
    "resume_consents",
    "signature_in_force",
    "text_of",
]

_GRANT_COLUMNS = (
    Grant.id,
    Grant.organisation_id,
    Grant.person_id,
    Grant.track_id,
    Grant.audience,
    Grant.permissions,
    Grant.purpose,
    Grant.signature_id,
    Grant.state,
    Grant.suspended_for,
    Grant.valid_from,
    Grant.valid_until,
    Grant.version,
    Grant.renewed_from_id,
    Grant.created_by,
    Grant.created_at,
    Grant.ended_at,
    Grant.awaits_agreement,
    Grant.awaits_consent,
)
_WIDTH = len(_GRANT_COLUMNS)
_GRANT: Select[*tuple[Any, ...]] = select(*_GRANT_COLUMNS)
_EFFECTIVE: Select[*tuple[Any, ...]] = (
    select(
        *_GRANT_COLUMNS,
        Signature.state,
        Agreement.slug,
        AgreementVersion.state,
        Signature.valid_until,
        Signature.reconsent_until,
    )
    # A pending grant may rest on nothing yet, and is still to be told of.
    .outerjoin(Signature, Signature.id == Grant.signature_id)
    .outerjoin(AgreementVersion, AgreementVersion.id == Signature.agreement_version_id)
    .outerjoin(Agreement, Agreement.id == AgreementVersion.agreement_id)
)
# Two halves, so that each can use the index on its grantee however many grants a track has.
_ON_TRACKS = Grant.track_id.in_(bindparam("track_ids", expanding=True))
_FOR_PERSON = _EFFECTIVE.where(_ON_TRACKS, Grant.person_id == bindparam("person_id"))
_FOR_BOTH = _FOR_PERSON.union_all(
    _EFFECTIVE.where(
        _ON_TRACKS, Grant.organisation_id.in_(bindparam("organisation_ids", expanding=True))
    )
)


def _grant(row: Any) -> GrantRow:
    values = list(row[:_WIDTH])
    values[5] = frozenset(values[5])  # permissions, stored as a JSON list
    return GrantRow(*values)


def _effective(row: Any) -> EffectiveGrant:
    return EffectiveGrant(_grant(row), *row[_WIDTH:])


def grants_for(
    work: Work, *, person_id: str, organisation_ids: Collection[str], track_ids: Collection[str]
) -> list[EffectiveGrant]:
    """Return every grant of this person or these organisations on these tracks, in one statement.

    Ended ones are among them, so that a refusal can say what became of a grant; live ones come
    first, then the newest.
    """
    parameters: dict[str, Any] = {"person_id": person_id, "track_ids": list(track_ids)}
    statement: Any = _FOR_PERSON
    if organisation_ids:
        statement = _FOR_BOTH
        parameters["organisation_ids"] = list(organisation_ids)
    found = [_effective(row) for row in work.session.execute(statement, parameters)]
    found.sort(key=lambda e: (e.grant.created_at, e.grant.id), reverse=True)
    found.sort(key=lambda e: _ORDER[e.grant.state])
    return found


_ORDER: dict[str, int] = {
    GrantState.ACTIVE: 0,
    GrantState.SUSPENDED: 1,
    GrantState.PENDING: 2,
    GrantState.REVOKED: 3,
    GrantState.EXPIRED: 3,
}


def find_effective(work: Work, grant_id: str) -> EffectiveGrant | None:
    """Return a grant with the state of all it rests on, or None."""
    if not storable(grant_id):
        return None
    row = work.session.execute(_EFFECTIVE.where(Grant.id == grant_id)).one_or_none()
    return _effective(row) if row else None


def find_grant(work: Work, grant_id: str) -> GrantRow | None:
    """Return a grant by its id, or None."""
    if not storable(grant_id):
        return None
    row = work.session.execute(_GRANT.where(Grant.id == grant_id)).one_or_none()
    return _grant(row) if row else None


def load_grant(work: Work, grant_id: str) -> GrantRow:
    """Return a grant by its id.

    Raises:
        NotFound: there is none.
    """
    row = find_grant(work, grant_id)
    if row is None:
        raise NotFound(f"There is no grant {grant_id!r}.", reason="grant.unknown")
    return row


def list_grants(
    work: Work,
    *,
    track_id: str | None = None,
    state: str | None = None,
    signature_id: str | None = None,
    person_id: str | None = None,
    organisation_ids: Collection[str] | None = None,
    limit: int | None = None,
    after: str | None = None,
) -> list[GrantRow]:
    """Return grants, newest first; ``person_id`` and ``organisation_ids`` narrow to either's.

    ``after`` is the id of the last grant seen; ids grow with time, so they order a page.
    """
    statement = _GRANT.order_by(Grant.id.desc())
    if after is not None:
        if not storable(after):
            return []
        statement = statement.where(Grant.id < after)
    if limit is not None:
        statement = statement.limit(limit)
    for col, value in (
        (Grant.track_id, track_id),
        (Grant.state, state),
        (Grant.signature_id, signature_id),
    ):
        if value is not None:
            if not storable(value):
                return []
            statement = statement.where(col == value)
    if person_id is not None or organisation_ids is not None:
        statement = statement.where(
            or_(
                Grant.person_id == person_id if person_id is not None else false(),
                Grant.organisation_id.in_(sorted(organisation_ids or ())),
            )
        )
    return [_grant(row) for row in work.session.execute(statement)]


def live_grants(
    work: Work, *, track_id: str, person_id: str | None = None, organisation_id: str | None = None
) -> list[GrantRow]:
    """Return a grantee's grants on a track that have not ended by state or by date."""
    statement = _GRANT.where(
        Grant.track_id == track_id,
        Grant.state.in_(sorted(LIVE)),
        Grant.valid_until > work.now,
        Grant.organisation_id == organisation_id
        if organisation_id is not None
        else Grant.person_id == person_id,
    )
    return [_grant(row) for row in work.session.execute(statement.order_by(Grant.id))]


def grant_events(work: Work, grant_id: str) -> list[GrantEventRow]:
    """Return everything that happened to a grant, oldest first."""
    rows = work.session.execute(
        select(
            GrantEvent.id,
            GrantEvent.grant_id,
            GrantEvent.from_state,
            GrantEvent.to_state,
            GrantEvent.reason,
            GrantEvent.actor_id,
            GrantEvent.at,
            GrantEvent.leaf_idx,
        )
        .where(GrantEvent.grant_id == grant_id)
        .order_by(GrantEvent.leaf_idx, GrantEvent.at, GrantEvent.from_state.is_not(None))
    )
    return [GrantEventRow(*row) for row in rows]


def resume_consents(work: Work, grant_id: str, suspension: str) -> list[str]:
    """Return the people who have consented to lift the suspension that event began."""
    rows = work.session.execute(
        select(GrantResume.person_id)
        .where(GrantResume.grant_id == grant_id, GrantResume.suspension == suspension)
        .order_by(GrantResume.leaf_idx)
    )
    return list(rows.scalars())


_ATTESTATION: Select[*tuple[Any, ...]] = select(
    DestructionAttestation.id,
    DestructionAttestation.grant_id,
    DestructionAttestation.delivered,
    DestructionAttestation.opened_at,
    DestructionAttestation.attested_at,
    DestructionAttestation.attested_by,
    DestructionAttestation.leaf_idx,
    DestructionAttestation.typed_name,
)


def _attestation(row: Any) -> AttestationRow:
    return AttestationRow(row[0], row[1], tuple(row[2]), *row[3:])


def find_attestation(work: Work, grant_id: str) -> AttestationRow | None:
    """Return what was asked of a revoked grant's holder, or None."""
    row = work.session.execute(
        _ATTESTATION.where(DestructionAttestation.grant_id == grant_id)
    ).one_or_none()
    return _attestation(row) if row else None


def open_attestations(
    work: Work, *, limit: int = 100, after: str | None = None
) -> list[AttestationRow]:
    """Return what was asked of holders of revoked grants and not declared yet, oldest first."""
    statement = _ATTESTATION.where(DestructionAttestation.attested_at.is_(None))
    if after is not None:
        if not storable(after):
            return []
        statement = statement.where(DestructionAttestation.id > after)
    rows = work.session.execute(statement.order_by(DestructionAttestation.id).limit(limit))
    return [_attestation(row) for row in rows]


# What was delivered is written by a floor above this one, so it is read by the table's name.
_DOWNLOAD = table(
    "download",
    column("id", String),
    column("grant_id", String),
    column("person_id", String),
    column("path", String),
    column("sha256", String),
    column("size", BigInteger),
    column("bytes_sent", BigInteger),
    column("started_at", UtcDateTime()),
    column("completed_at", UtcDateTime()),
)


def deliveries(work: Work, grant_id: str) -> list[DeliveryRow]:
    """Return what was delivered under a grant, oldest first.

    A delivery under way is among them; its ``bytes_sent`` counts when its body ends.
    """
    rows = work.session.execute(
        select(
            _DOWNLOAD.c.id,
            _DOWNLOAD.c.person_id,
            _DOWNLOAD.c.path,
            _DOWNLOAD.c.sha256,
            _DOWNLOAD.c.size,
            func.coalesce(_DOWNLOAD.c.bytes_sent, 0),
            _DOWNLOAD.c.started_at,
            _DOWNLOAD.c.completed_at,
        )
        .where(_DOWNLOAD.c.grant_id == grant_id)
        .order_by(_DOWNLOAD.c.started_at, _DOWNLOAD.c.id)
    )
    return [DeliveryRow(*row) for row in rows]

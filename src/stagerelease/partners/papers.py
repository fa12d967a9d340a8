"""Reads of agreements, their versions, and signatures."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, and_, false, or_, select

from stagerelease.db.work import Work
from stagerelease.identity.queries import find_organisation
from stagerelease.kernel.errors import NotFound
from stagerelease.partners.rows import AgreementRow, AgreementVersionRow, SignatureRow
from stagerelease.partners.rules import ACCEPTED_VERSIONS, SignatureState, VersionState
from stagerelease.partners.tables import Agreement, AgreementVersion, Signature
from stagerelease.releases.queries import MAX_ID, storable

# --- agreements ----------------------------------------------------------------------------------

_AGREEMENT = select(Agreement.id, Agreement.slug, Agreement.title, Agreement.created_at)
_VERSION: Select[*tuple[Any, ...]] = select(
    AgreementVersion.id,
    AgreementVersion.agreement_id,
    Agreement.slug,
    Agreement.title,
    AgreementVersion.version,
    AgreementVersion.text_sha256,
    AgreementVersion.state,
    AgreementVersion.material,
    AgreementVersion.duo_codes,
    AgreementVersion.effective_from,
    AgreementVersion.created_at,
    AgreementVersion.leaf_idx,
    AgreementVersion.reconsent_until,
    AgreementVersion.needs_countersignature,
).join(Agreement, Agreement.id == AgreementVersion.agreement_id)


def _version(row: Any) -> AgreementVersionRow:
    values = list(row)
    values[8] = tuple(values[8])  # DUO codes, stored as a JSON list
    return AgreementVersionRow(*values)


def find_agreement(work: Work, slug: str) -> AgreementRow | None:
    """Return the agreement called ``slug``, or None."""
    if not storable(slug):
        return None
    row = work.session.execute(_AGREEMENT.where(Agreement.slug == slug)).one_or_none()
    return AgreementRow(*row) if row else None


def load_agreement(work: Work, slug: str) -> AgreementRow:
    """Return the agreement called ``slug``.

    Raises:
        NotFound: there is none.
    """
    row = find_agreement(work, slug)
    if row is None:
        raise NotFound(f"There is no agreement {slug!r}.", reason="agreement.unknown")
    return row


def find_version(work: Work, version_id: str) -> AgreementVersionRow | None:
    """Return an agreement version by its id, or None."""
    if not storable(version_id):
        return None
    row = work.session.execute(_VERSION.where(AgreementVersion.id == version_id)).one_or_none()
    return _version(row) if row else None


def find_numbered(work: Work, agreement: str, number: int) -> AgreementVersionRow | None:
    """Return version ``number`` of the agreement called ``agreement``, or None."""
    if not storable(agreement) or not 0 < number <= MAX_ID:
        return None
    row = work.session.execute(
        _VERSION.where(Agreement.slug == agreement, AgreementVersion.version == number)
    ).one_or_none()
    return _version(row) if row else None


def find_in_force(work: Work, agreement: str) -> AgreementVersionRow | None:
    """Return the version in force of the agreement called ``agreement``, or None."""
    if not storable(agreement):
        return None
    row = work.session.execute(
        _VERSION.where(Agreement.slug == agreement, AgreementVersion.state == VersionState.IN_FORCE)
    ).one_or_none()
    return _version(row) if row else None


def list_versions(work: Work, *, agreement: str | None = None) -> list[AgreementVersionRow]:
    """Return versions by agreement, newest first within each."""
    statement = _VERSION.order_by(Agreement.slug, AgreementVersion.version.desc())
    if agreement is not None:
        if not storable(agreement):
            return []
        statement = statement.where(Agreement.slug == agreement)
    return [_version(row) for row in work.session.execute(statement)]


def text_of(work: Work, version_id: str) -> str:
    """Return the text of a version that is known to exist."""
    return work.session.execute(
        select(AgreementVersion.text).where(AgreementVersion.id == version_id)
    ).scalar_one()


# --- signatures ----------------------------------------------------------------------------------

_SIGNATURE: Select[*tuple[Any, ...]] = (
    select(
        Signature.id,
        Signature.agreement_version_id,
        Agreement.slug,
        AgreementVersion.version,
        Signature.person_id,
        Signature.organisation_id,
        Signature.typed_name,
        Signature.typed_title,
        Signature.text_sha256,
        Signature.method,
        Signature.state,
        Signature.signed_at,
        Signature.valid_until,
        Signature.countersigned_by,
        Signature.countersigned_at,
        Signature.ended_at,
        Signature.leaf_idx,
        Signature.reconsent_until,
        Signature.countersign_leaf_idx,
    )
    .join(AgreementVersion, AgreementVersion.id == Signature.agreement_version_id)
    .join(Agreement, Agreement.id == AgreementVersion.agreement_id)
)


def _party(person_id: str | None, organisation_id: str | None) -> Any:
    """Return the condition that a signature is this organisation's, or this person's own."""
    if organisation_id is not None:
        return Signature.organisation_id == organisation_id
    return and_(Signature.person_id == person_id, Signature.organisation_id.is_(None))


def _in_force(work: Work) -> Any:
    return and_(
        Signature.state == SignatureState.IN_FORCE,
        or_(Signature.valid_until.is_(None), Signature.valid_until > work.now),
        or_(Signature.reconsent_until.is_(None), Signature.reconsent_until > work.now),
    )


def find_signature(work: Work, signature_id: str) -> SignatureRow | None:
    """Return a signature by its id, or None."""
    if not storable(signature_id):
        return None
    row = work.session.execute(_SIGNATURE.where(Signature.id == signature_id)).one_or_none()
    return SignatureRow(*row) if row else None


def list_signatures(
    work: Work,
    *,
    person_id: str | None = None,
    organisation_ids: Collection[str] | None = None,
) -> list[SignatureRow]:
    """Return signatures, newest first: all, or those of this person or these organisations."""
    statement = _SIGNATURE.order_by(Signature.signed_at.desc(), Signature.id.desc())
    if person_id is not None or organisation_ids is not None:
        statement = statement.where(
            or_(
                Signature.person_id == person_id if person_id is not None else false(),
                Signature.organisation_id.in_(sorted(organisation_ids or ())),
            )
        )
    return [SignatureRow(*row) for row in work.session.execute(statement)]


def signature_in_force(
    work: Work, agreement: str, *, person_id: str | None = None, organisation_id: str | None = None
) -> SignatureRow | None:
    """Return a party's newest signature in force on any accepted version of ``agreement``.

    The party is the organisation when one is named, else the person for themselves.
    """
    row = work.session.execute(
        _SIGNATURE.where(
            Agreement.slug == agreement,
            AgreementVersion.state.in_(sorted(ACCEPTED_VERSIONS)),
            _in_force(work),
            _party(person_id, organisation_id),
        )
        .order_by(AgreementVersion.version.desc(), Signature.signed_at.desc(), Signature.id.desc())
        .limit(1)
    ).one_or_none()
    return SignatureRow(*row) if row else None


def has_signed(
    work: Work, version_id: str, *, person_id: str, organisation: str | None = None
) -> bool:
    """Tell whether a signature on this version is in force: the organisation's, or one's own."""
    organisation_id = None
    if organisation is not None:
        found = find_organisation(work, organisation)
        if found is None:
            return False
        organisation_id = found.id
    statement = select(Signature.id).where(
        Signature.agreement_version_id == version_id,
        _in_force(work),
        _party(person_id, organisation_id),
    )
    return work.session.execute(statement.limit(1)).first() is not None


def list_outdated(work: Work, agreement: str) -> list[SignatureRow]:
    """Return signatures in force on a version that a later, material version has superseded.

    They stay in force; whoever looks after agreements asks these parties to sign again.
    """
    newer = AgreementVersion.__table__.alias("newer")
    rows = work.session.execute(
        _SIGNATURE.where(
            Agreement.slug == agreement,
            _in_force(work),
            select(newer.c.id)
            .where(
                newer.c.agreement_id == Agreement.id,
                newer.c.version > AgreementVersion.version,
                newer.c.material,
                newer.c.state.in_(sorted(ACCEPTED_VERSIONS)),
            )
            .exists(),
        ).order_by(Signature.signed_at, Signature.id)
    )
    return [SignatureRow(*row) for row in rows]

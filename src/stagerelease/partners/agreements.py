"""Use cases on agreements: name one, draft a version, put it in force, retire an old one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.partners import amending, queries
from stagerelease.partners.amending import Amendment
from stagerelease.partners.duo import check_duo
from stagerelease.partners.moving import require_known, suspend_for_terms
from stagerelease.partners.queries import AgreementRow, AgreementVersionRow, SignatureRow
from stagerelease.partners.rules import (
    VERSION_MOVES,
    VersionState,
    check_slug,
    normal_text,
    text_sha256,
)
from stagerelease.partners.tables import Agreement, AgreementVersion, Signature
from stagerelease.releases.rules import check_text


def create_agreement(work: Work, *, slug: str, title: str) -> AgreementRow:
    """Name an agreement; plans refer to it by ``slug``. It binds nobody before a version does.

    Raises:
        Conflict: there is one of that name.
    """
    require(work.actor, Permission.AGREEMENT_PUBLISH)
    check_slug(slug)
    title = check_text(title, "title", limit=200)
    if queries.find_agreement(work, slug) is not None:
        raise Conflict(f"There is an agreement {slug!r} already.", reason="agreement.exists")
    row = Agreement(id=new_id("agr"), slug=slug, title=title, created_at=work.now)
    work.session.add(row)
    work.session.flush()  # a lost race over the name shows before the log is locked
    ledger.append(
        work, type="agreement.created", subject=f"agreement:{row.id}", detail={"slug": slug}
    )
    return queries.load_agreement(work, slug)


def _lock_agreement(work: Work, slug: str) -> Agreement:
    row = queries.load_agreement(work, slug)
    return work.session.execute(
        select(Agreement).where(Agreement.id == row.id).with_for_update(key_share=True)
    ).scalar_one()


def draft_version(
    work: Work,
    *,
    agreement: str,
    text: str,
    duo_codes: Sequence[str] = (),
    material: bool = True,
    needs_countersignature: bool = False,
) -> AgreementVersionRow:
    """Write the next version of an agreement; nobody can sign it before it is published.

    ``material`` says that it changes something of substance, so that signatures on older versions
    are to be renewed once it is in force. With ``needs_countersignature`` a signature on it is
    pending until somebody signs for the publisher too. The text is kept as ``rules.normal_text``
    has it.

    Raises:
        NotFound: there is no such agreement.
        Conflict: text, codes and countersignature are those of the version in force.
        Invalid: the text or a Data Use Ontology code is malformed.
    """
    require(work.actor, Permission.AGREEMENT_PUBLISH)
    text = normal_text(text)
    digest = text_sha256(text)
    codes = check_duo(duo_codes)
    parent = _lock_agreement(work, agreement)
    current = queries.find_in_force(work, agreement)
    asked = (digest, tuple(codes), needs_countersignature)
    if current is not None and asked == (
        current.text_sha256,
        current.duo_codes,
        current.needs_countersignature,
    ):
        raise Conflict(
            f"Version {current.version}, which is in force, has exactly this text.",
            reason="agreement.unchanged",
        )
    newest = work.session.execute(
        select(func.max(AgreementVersion.version)).where(AgreementVersion.agreement_id == parent.id)
    ).scalar_one()
    version = AgreementVersion(
        id=new_id("agv"),
        agreement_id=parent.id,
        version=(newest or 0) + 1,
        text=text,
        text_sha256=digest,
        state=VersionState.DRAFT,
        material=material,
        needs_countersignature=needs_countersignature,
        duo_codes=codes,
        created_at=work.now,
    )
    work.session.add(version)
    _log(work, version, "agreement_version.drafted", before=None)
    return load_version(work, version.id)


def load_version(work: Work, version_id: str) -> AgreementVersionRow:
    """Return an agreement version by its id.

    Raises:
        NotFound: there is none.
    """
    row = queries.find_version(work, version_id)
    if row is None:
        raise NotFound(f"There is no agreement version {version_id!r}.", reason="agreement.unknown")
    return row


def _log(work: Work, version: AgreementVersion, event: str, *, before: str | None) -> int:
    return ledger.append(
        work,
        type=event,
        subject=f"agreement_version:{version.id}",
        prev_state=before,
        new_state=version.state,
        detail={
            "agreement": version.agreement_id,
            "version": version.version,
            "text_sha256": version.text_sha256,
            "material": version.material,
            "duo_codes": list(version.duo_codes),
            "needs_countersignature": version.needs_countersignature,
            "reconsent_until": iso(version.reconsent_until) if version.reconsent_until else None,
        },
    )


def _lock_version(work: Work, version_id: str) -> AgreementVersion:
    row = load_version(work, version_id)
    # The agreement first: publishing two versions at once is one after the other.
    _lock_agreement(work, row.agreement)
    return work.session.execute(
        select(AgreementVersion)
        .where(AgreementVersion.id == row.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).scalar_one()


def _check_move(version: AgreementVersion, to: VersionState) -> None:
    if to not in VERSION_MOVES[VersionState(version.state)]:
        raise Conflict(
            f"Version {version.version} is {version.state.replace('_', ' ')}, and that does not "
            f"lead to {to.replace('_', ' ')}.",
            reason=f"agreement.{version.state}",
        )


def publish_version(
    work: Work, version_id: str, *, reconsent_until: datetime | None = None
) -> AgreementVersionRow:
    """Put a draft in force from now on; the version in force until now is superseded.

    Signatures on superseded versions stay in force. After a material version they count until
    ``reconsent_until`` (``RECONSENT_WITHIN`` from now when None): by then the new one is to be
    signed, or grants that rest on them stop counting.

    Raises:
        NotFound: there is no such version.
        Conflict: it is not a draft, or a later version is in force.
        Invalid: the date is past or too far away, or the version changes nothing material.
    """
    require(work.actor, Permission.AGREEMENT_PUBLISH)
    version = _lock_version(work, version_id)
    _check_move(version, VersionState.IN_FORCE)
    current = work.session.execute(
        select(AgreementVersion)
        .where(
            AgreementVersion.agreement_id == version.agreement_id,
            AgreementVersion.state == VersionState.IN_FORCE,
        )
        .with_for_update(key_share=True)
    ).scalar_one_or_none()
    if current is not None and current.version > version.version:
        raise Conflict(
            f"Version {current.version} is in force, and it is later than {version.version}.",
            reason="agreement.later-in-force",
            next_step="Draft this text again as a new version.",
        )
    deadline = amending.deadline_of(version.material, reconsent_until, work.now)
    if current is not None:
        current.state = VersionState.SUPERSEDED
        version.reconsent_until = deadline
    version.state = VersionState.IN_FORCE
    version.effective_from = work.now
    outdated = amending.outdate(work, version) if version.reconsent_until else []
    work.session.flush()  # every change is written before the log is locked
    if current is not None:
        _log(work, current, "agreement_version.superseded", before=VersionState.IN_FORCE)
    leaf = _log(work, version, "agreement_version.published", before=VersionState.DRAFT)
    version.leaf_idx = leaf
    amending.tell_of_publishing(work, version, outdated)
    work.session.flush()  # the row returned is read back
    return load_version(work, version_id)


def retire_version(work: Work, version_id: str) -> AgreementVersionRow:
    """Stop accepting a superseded version; grants that rest on it are suspended, in this Work.

    Raises:
        NotFound: there is no such version.
        Conflict: it is not superseded.
    """
    require(work.actor, Permission.AGREEMENT_PUBLISH)
    version = _lock_version(work, version_id)
    _check_move(version, VersionState.RETIRED)
    signed = work.session.execute(
        select(Signature.id).where(Signature.agreement_version_id == version.id)
    ).scalars()
    version.state = VersionState.RETIRED
    suspend_for_terms(
        work,
        signature_ids=list(signed),
        reason=f"Version {version.version} of the agreement was retired.",
    )
    _log(work, version, "agreement_version.retired", before=VersionState.SUPERSEDED)
    return load_version(work, version_id)


def load_numbered(work: Work, agreement: str, number: int) -> AgreementVersionRow:
    """Return version ``number`` of an agreement.

    Raises:
        NotFound: there is none.
    """
    row = queries.find_numbered(work, agreement, number)
    if row is None:
        raise NotFound(
            f"There is no version {number} of an agreement {agreement!r}.",
            reason="agreement.unknown",
        )
    return row


def publish_numbered(
    work: Work, agreement: str, number: int, *, reconsent_until: datetime | None = None
) -> AgreementVersionRow:
    """Put version ``number`` in force; see ``publish_version``."""
    require(work.actor, Permission.AGREEMENT_PUBLISH)
    row = load_numbered(work, agreement, number)
    return publish_version(work, row.id, reconsent_until=reconsent_until)


def retire_numbered(work: Work, agreement: str, number: int) -> AgreementVersionRow:
    """Stop accepting version ``number``; see ``retire_version``."""
    require(work.actor, Permission.AGREEMENT_PUBLISH)
    return retire_version(work, load_numbered(work, agreement, number).id)


# --- looking -------------------------------------------------------------------------------------


def list_agreements(work: Work) -> list[AgreementVersionRow]:
    """Return the versions the caller may know of: those in force to anybody known, all to staff.

    Raises:
        Unauthenticated: nobody is known.
    """
    require_known(work.actor)
    rows = queries.list_versions(work)
    if authorize(work.actor, Permission.AGREEMENT_READ).allowed:
        return rows
    return [row for row in rows if row.state == VersionState.IN_FORCE]


def list_outdated(work: Work, agreement: str) -> list[SignatureRow]:
    """Return signatures in force that a later, material version outdates, to staff.

    Raises:
        NotFound: there is no such agreement.
    """
    require(work.actor, Permission.AGREEMENT_READ)
    return queries.list_outdated(work, queries.load_agreement(work, agreement).slug)


def show_version(
    work: Work, agreement: str, number: int | None = None
) -> tuple[AgreementVersionRow, str]:
    """Return a version (the one in force when None) and its text.

    Anybody known may read what is in force and what they or their organisation signed; staff may
    read all.

    Raises:
        NotFound: there is none, or the caller may not know of it.
    """
    require_known(work.actor)
    if number is None:
        row = queries.find_in_force(work, agreement)
    else:
        row = queries.find_numbered(work, agreement, number)
    if row is None or not _may_read(work, row):
        which = "version in force" if number is None else f"version {number}"
        raise NotFound(
            f"There is no {which} of an agreement {agreement!r}.", reason="agreement.unknown"
        )
    return row, queries.text_of(work, row.id)


def diff_versions(work: Work, agreement: str, old: int, new: int) -> Amendment:
    """Return what changes from version ``old`` to ``new``, to whoever may read both.

    Raises:
        NotFound: there is no such version, or the caller may not know of it.
    """
    before, old_text = show_version(work, agreement, old)
    after, new_text = show_version(work, agreement, new)
    return amending.difference(
        agreement,
        (before.version, old_text),
        (after.version, new_text),
        material=after.material,
    )


def _may_read(work: Work, row: AgreementVersionRow) -> bool:
    if row.state == VersionState.IN_FORCE:
        return True
    if authorize(work.actor, Permission.AGREEMENT_READ).allowed:
        return True
    signed = queries.list_signatures(
        work, person_id=work.actor.id, organisation_ids=work.actor.organisations
    )
    return any(signature.agreement_version_id == row.id for signature in signed)

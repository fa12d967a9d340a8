"""Signs the text that was read, for oneself or for an organisation; and moves what rests on it.

A signature is in force as soon as it is made; a countersignature is recorded beside it. What makes
it evidence (who, how signed in, when, which text) is in the log entry's detail; from where is kept
on the private side only.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, and_, select

from stagerelease.db.work import Work
from stagerelease.identity.queries import load_organisation, memberships_now
from stagerelease.identity.rules import Permission, Role, require
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, FieldError, Forbidden, Invalid, NotFound, Stale
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.partners import queries
from stagerelease.partners.granting import activate_pending
from stagerelease.partners.moving import lock_grants, move, note
from stagerelease.partners.queries import AgreementVersionRow, SignatureRow
from stagerelease.partners.rules import (
    LIVE,
    GrantState,
    SignatureState,
    Suspension,
    VersionState,
    address_sha256,
)
from stagerelease.partners.signatures import counts, load_signature
from stagerelease.partners.tables import AgreementVersion, Grant, Signature
from stagerelease.releases.humans import accountable
from stagerelease.releases.queries import storable
from stagerelease.releases.rules import check_text


def _organisation_id(work: Work, slug: str | None) -> str | None:
    """Return the id of the organisation that the caller administers now; None for None.

    Raises:
        NotFound: there is none, or the caller is not on its roster and need not know.
        Forbidden: the caller is on the roster, and does not administer it.
    """
    if slug is None:
        return None
    unknown = NotFound(f"There is no organisation called {slug!r}.", reason="organisation.unknown")
    if not storable(slug):
        raise unknown
    organisation = load_organisation(work, slug)
    roles = {
        role for org, role, _ in memberships_now(work, work.actor.id) if org == organisation.id
    }
    if not roles:
        raise unknown
    if Role.PARTNER_ADMIN not in roles:
        raise Forbidden(
            f"Only an administrator on the roster of {organisation.name} signs for it.",
            reason="signature.not-admin",
            next_step="Ask your organisation's administrator to sign.",
        )
    return organisation.id


def _lock_signable(work: Work, version_id: str, seen_sha256: str) -> AgreementVersionRow:
    """Return the version in force, kept so until this Work ends.

    Raises:
        NotFound: there is no such version, or it is a draft.
        Stale: it is not in force any more, or the text seen is not its text.
    """
    row = queries.find_version(work, version_id)
    if row is None or row.state == VersionState.DRAFT:
        raise NotFound(f"There is no agreement version {version_id!r}.", reason="agreement.unknown")
    state = work.session.execute(
        select(AgreementVersion.state)
        .where(AgreementVersion.id == row.id)
        .with_for_update(key_share=True)  # two signatures of one party come one after the other
    ).scalar_one()
    again = "Read the version in force and sign that."
    if state != VersionState.IN_FORCE:
        raise Stale(
            f"Version {row.version} of '{row.title}' is {state}; it cannot be signed any more.",
            reason=f"agreement.{state}",
            next_step=again,
        )
    if seen_sha256 != row.text_sha256:
        raise Stale(
            "The text you read is not the text of this version: their SHA-256 differ.",
            reason="signature.text",
            next_step=again,
        )
    return row


def _check_declared(authorised_to_bind: bool, consents_electronically: bool) -> None:
    wrong = [
        FieldError(field, sentence)
        for field, given, sentence in (
            ("authorised_to_bind", authorised_to_bind, "You must be authorised to bind the party."),
            (
                "consents_electronically",
                consents_electronically,
                "You must agree to sign electronically.",
            ),
        )
        if given is not True
    ]
    if wrong:
        raise Invalid(
            "A signature needs both declarations.", reason="signature.declarations", fields=wrong
        )


def sign(
    work: Work,
    *,
    version_id: str,
    text_sha256: str,
    typed_name: str,
    typed_title: str,
    authorised_to_bind: bool,
    consents_electronically: bool,
    organisation: str | None = None,
    method: str = "token",
    valid_until: datetime | None = None,
    client_address: str | None = None,
    user_agent: str | None = None,
) -> SignatureRow:
    """Sign the version in force, for ``organisation`` or for oneself; it is in force at once.

    ``text_sha256`` is that of the text the signer read. The party's older signature on the same
    agreement is superseded, and grants that rest on it rest on this one from now on. Those that
    were suspended because the new version was not signed in time count again, and those that only
    waited for this signature begin; others that are suspended stay so. ``client_address`` and
    ``user_agent`` are kept on the private side; the log commits to a hash of the address.

    Raises:
        Forbidden: not a human, or on the roster without administering it.
        NotFound: no such version or organisation that the caller may know of.
        Stale: the text was not the one read, or is not in force any more.
        Invalid: a declaration is missing, or a name or date is malformed.
        Conflict: this party's signature on this version is in force already.
    """
    require(work.actor, Permission.AGREEMENT_SIGN)
    me = accountable(work, "sign an agreement")
    _check_declared(authorised_to_bind, consents_electronically)
    name = check_text(typed_name, "typed name", limit=200)
    title = check_text(typed_title, "typed title", limit=200)
    method = check_text(method, "method", limit=32)
    if valid_until is not None and (valid_until.tzinfo is None or valid_until <= work.now):
        raise Invalid("A signature ends in the future, in a named zone.", reason="signature.dates")
    organisation_id = _organisation_id(work, organisation)
    version = _lock_signable(work, version_id, text_sha256)
    signature = Signature(
        id=new_id("sig"),
        agreement_version_id=version.id,
        person_id=me,
        organisation_id=organisation_id,
        typed_name=name,
        typed_title=title,
        authorised_to_bind=True,
        consents_electronically=True,
        text_sha256=version.text_sha256,
        method=method,
        state=SignatureState.IN_FORCE,
        signed_at=work.now,
        valid_until=valid_until,
        client_address=client_address[:64] if client_address else None,
        user_agent=user_agent[:300] if user_agent else None,
    )
    _take_effect(work, signature, version, client_address)
    return load_signature(work, signature.id)


def _take_effect(
    work: Work, signature: Signature, version: AgreementVersionRow, client_address: str | None
) -> None:
    """Record a new signature in place of the party's older ones; move what rested on those.

    Raises:
        Conflict: this party's signature on this version is in force already.
    """
    older = _lock_party(work, version, signature)
    if any(s.agreement_version_id == version.id and counts(work, s) for s in older):
        raise Conflict(
            f"'{version.title}' version {version.version} is signed already, and in force.",
            reason="signature.exists",
        )
    resting = lock_grants(
        work, Grant.signature_id.in_([s.id for s in older]) & Grant.state.in_(sorted(LIVE))
    )
    _record(work, signature, client_address)
    _supersede(work, older, by=signature)
    for grant in resting:
        grant.signature_id = signature.id
        note(
            work,
            grant,
            event="signature_renewed",
            before=grant.state,
            reason=f"It rests on the signature {signature.id} now.",
            detail={"signature": signature.id},
        )
        if grant.state == GrantState.SUSPENDED and grant.suspended_for == Suspension.RECONSENT:
            # No person's decision is lifted here: the one condition it waited for is met.
            move(
                work,
                grant,
                GrantState.ACTIVE,
                event="resumed",
                reason="The new version of the agreement is signed.",
            )
    _begin_waiting(work, signature, version)
    _tell(work, signature, version)
    work.session.flush()  # what was written is read back


def _begin_waiting(work: Work, signature: Signature, version: AgreementVersionRow) -> None:
    """Let the grants begin that only waited for this party to sign this agreement."""
    party = Grant.person_id == signature.person_id
    if signature.organisation_id is not None:
        party = Grant.organisation_id == signature.organisation_id
    waiting = lock_grants(
        work,
        party & (Grant.state == GrantState.PENDING) & (Grant.awaits_agreement == version.agreement),
    )
    for grant in waiting:
        grant.signature_id, grant.awaits_agreement = signature.id, None
        activate_pending(work, grant)


def _tell(work: Work, signature: Signature, version: AgreementVersionRow) -> None:
    organisation = signature.organisation_id
    emit(
        work,
        "signature.signed",
        subject=f"signature:{signature.id}",
        people=[signature.person_id],
        organisations=[organisation] if organisation else (),
        roles=("access_officer",),
        facts={
            "signature": signature.id,
            "agreement": version.agreement,
            "version": version.version,
            "typed_name": signature.typed_name,
            "link_path": f"/signatures/{signature.id}",
        },
    )


def _lock_party(work: Work, version: AgreementVersionRow, new: Signature) -> list[Signature]:
    """Return every signature of the same party on any version of the agreement, locked."""
    party: ColumnElement[bool] = and_(
        Signature.person_id == new.person_id, Signature.organisation_id.is_(None)
    )
    if new.organisation_id is not None:
        party = Signature.organisation_id == new.organisation_id
    rows = work.session.execute(
        select(Signature)
        .join(AgreementVersion, AgreementVersion.id == Signature.agreement_version_id)
        .where(AgreementVersion.agreement_id == version.agreement_id, party)
        .order_by(Signature.id)
        .with_for_update(of=Signature, key_share=True)
    )
    return list(rows.scalars())


def _record(work: Work, signature: Signature, client_address: str | None) -> None:
    signature.leaf_idx = ledger.append(
        work,
        type="signature.signed",
        subject=f"signature:{signature.id}",
        new_state=signature.state,
        detail={
            "agreement_version": signature.agreement_version_id,
            "text_sha256": signature.text_sha256,
            "person": signature.person_id,
            "organisation": signature.organisation_id,
            "typed_name": signature.typed_name,
            "typed_title": signature.typed_title,
            "authorised_to_bind": True,
            "consents_electronically": True,
            "method": signature.method,
            "token": work.actor.token_id,
            "signed_at": iso(signature.signed_at),
            "valid_until": iso(signature.valid_until) if signature.valid_until else None,
            "address_sha256": address_sha256(signature.id, client_address)
            if client_address
            else None,
        },
    )
    work.session.add(signature)
    work.session.flush()  # grants refer to it


def _supersede(work: Work, older: list[Signature], *, by: Signature) -> None:
    for signature in older:
        if signature.state != SignatureState.IN_FORCE:
            continue
        signature.state = SignatureState.SUPERSEDED
        signature.ended_at = work.now
        ledger.append(
            work,
            type="signature.superseded",
            subject=f"signature:{signature.id}",
            prev_state=SignatureState.IN_FORCE,
            new_state=SignatureState.SUPERSEDED,
            detail={"by": by.id},
        )

"""Signs the text that was read, for oneself or for an organisation.

A signature is in force as soon as it is made, unless its text asks for a countersignature: then it
is pending, and nothing rests on it until that is given (``signatures``). What makes it evidence
(who, how signed in, when, which text) is in the log entry's detail; from where is kept on the
private side only.
"""

from __future__ import annotations

from datetime import datetime

from stagerelease.db.work import Work
from stagerelease.identity.queries import load_organisation, memberships_now
from stagerelease.identity.rules import Permission, Role, require
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, FieldError, Forbidden, Invalid, NotFound, Stale
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.partners import queries
from stagerelease.partners.effect import (
    bring_in_force,
    lock_affected,
    lock_party,
    lock_version_state,
)
from stagerelease.partners.queries import AgreementVersionRow, SignatureRow
from stagerelease.partners.rules import SignatureState, VersionState, address_sha256
from stagerelease.partners.signatures import awaits_countersignature, counts, load_signature
from stagerelease.partners.tables import Signature
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
    state = lock_version_state(work, row.id)
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
    """Sign the version in force, for ``organisation`` or for oneself.

    ``text_sha256`` is that of the text the signer read. The signature is in force at once, and what
    rested on the party's older one rests on it (``effect.bring_in_force``); where the version needs
    a countersignature it is pending, and the older one goes on counting until that is given.
    ``client_address`` and ``user_agent`` are kept on the private side; the log commits to a hash of
    the address.

    Raises:
        Forbidden: not a human, or on the roster without administering it.
        NotFound: no such version or organisation that the caller may know of.
        Stale: the text was not the one read, or is not in force any more.
        Invalid: a declaration is missing, or a name or date is malformed.
        Conflict: this party's signature on this version is in force, or waits, already.
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
        state=SignatureState.PENDING if version.needs_countersignature else SignatureState.IN_FORCE,
        signed_at=work.now,
        valid_until=valid_until,
        client_address=client_address[:64] if client_address else None,
        user_agent=user_agent[:300] if user_agent else None,
    )
    _enter(work, signature, version, client_address)
    return load_signature(work, signature.id)


def _enter(
    work: Work, signature: Signature, version: AgreementVersionRow, client_address: str | None
) -> None:
    """Record a new signature and, unless it waits for its countersignature, bring it in force.

    Raises:
        Conflict: this party has signed this version already, and that is in force or waits.
    """
    older = lock_party(work, version, signature)
    for other in older:
        if other.agreement_version_id != version.id:
            continue
        if counts(work, other) or awaits_countersignature(work, other):
            waits = other.state == SignatureState.PENDING
            raise Conflict(
                f"'{version.title}' version {version.version} is signed already, and "
                f"{'waits for its countersignature' if waits else 'in force'}.",
                reason="signature.exists",
            )
    in_force = signature.state == SignatureState.IN_FORCE
    grants = lock_affected(work, version, signature, older) if in_force else []
    _record(work, signature, version, client_address)
    if in_force:
        bring_in_force(work, signature, older, grants)
    _tell(work, signature, version)
    work.session.flush()  # what was written is read back


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
            "effect": "It waits for the publisher's countersignature."
            if signature.state == SignatureState.PENDING
            else "It is in force.",
            "link_path": f"/signatures/{signature.id}",
        },
    )


def _record(
    work: Work, signature: Signature, version: AgreementVersionRow, client_address: str | None
) -> None:
    signature.leaf_idx = ledger.append(
        work,
        type="signature.signed",
        subject=f"signature:{signature.id}",
        new_state=signature.state,
        detail={
            "agreement_version": signature.agreement_version_id,
            "agreement": version.agreement,
            "version": version.version,
            "duo_codes": list(version.duo_codes),
            "needs_countersignature": version.needs_countersignature,
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

"""Passkeys: enrolling one, and showing one, by WebAuthn Level 3 (w3.org/TR/webauthn-3).

py_webauthn checks what authenticators send. Ours are the challenges (each good once, for two
minutes, for one purpose and one person), whose key it is, and what a count that goes backwards
means: there are two of that key, so it is not believed any more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import base64url_to_bytes, parse_authentication_credential_json
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from stagerelease.db.counting import count_in
from stagerelease.db.work import Work
from stagerelease.identity import queries
from stagerelease.identity.tables import Ceremony, Passkey
from stagerelease.kernel.errors import Conflict, FieldError, Forbidden, Invalid, NotFound, TooMany
from stagerelease.kernel.ids import new_id, new_salt
from stagerelease.ledger import service as ledger

LIFETIME = timedelta(minutes=2)
MOST = 20
WINDOW, PER_NETWORK = timedelta(minutes=15), 200
"""Sign-ins begun, whether they come to anything or not."""
LONGEST_NAME = 60
AGAIN = "Try again; if your browser asks, choose the passkey you made here."

UNREADABLE = (WebAuthnException, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading raises of what a browser, or somebody else, sent in its place."""


@dataclass(frozen=True, slots=True)
class Site:
    """The place a passkey belongs to: the host's name, and the origin a browser must be on."""

    host: str
    origin: str


@dataclass(frozen=True, slots=True)
class PasskeyRow:
    """A passkey as its person sees it."""

    id: str
    name: str
    synced: bool
    created_at: datetime
    last_used_at: datetime | None
    suspended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Shown:
    """What came of showing a passkey: whose it is, or that it was copied and is not believed."""

    person_id: str
    copied: bool

    def check(self) -> str:
        """Return whose passkey it is. To be called after the Work has ended, which keeps the find.

        Raises:
            Forbidden: there is a second copy of this passkey.
        """
        if self.copied:
            raise Forbidden(
                "This passkey counts its uses, and the count went backwards: somebody may have a "
                "copy of it. It is not accepted any more.",
                reason="passkey.copied",
                next_step="Sign in another way, remove this passkey, and tell the people who run "
                "this service.",
            )
        return self.person_id


def _begin(work: Work, purpose: str, person_id: str | None) -> Ceremony:
    work.session.execute(delete(Ceremony).where(Ceremony.expires_at <= work.now))
    ceremony = Ceremony(
        id=new_id("cer"),
        purpose=purpose,
        challenge=new_salt(),
        person_id=person_id,
        expires_at=work.now + LIFETIME,
    )
    work.session.add(ceremony)
    work.session.flush()
    return ceremony


def _use(work: Work, ceremony_id: str, purpose: str, person_id: str | None) -> bytes:
    """Use a challenge up and return it.

    Raises:
        Conflict: it was used, is over, or was given for something or somebody else.
    """
    ceremony = work.session.execute(
        select(Ceremony).where(Ceremony.id == ceremony_id).with_for_update()
    ).scalar_one_or_none()
    if (
        ceremony is None
        or ceremony.used_at is not None
        or ceremony.expires_at <= work.now
        or (ceremony.purpose, ceremony.person_id) != (purpose, person_id)
    ):
        raise Conflict(
            "Your browser took longer than two minutes, or this was answered already.",
            reason="passkey.challenge",
            next_step="Try again.",
        )
    ceremony.used_at = work.now
    return ceremony.challenge


def _options(ceremony: Ceremony, options: Any) -> dict[str, Any]:
    return {"ceremony": ceremony.id, "publicKey": json.loads(options_to_json(options))}


# --- enrolling ----------------------------------------------------------------------------------


def begin_enrolment(work: Work, site: Site) -> dict[str, Any]:
    """Return what the caller's browser makes a passkey from."""
    person = queries.load_person(work, work.actor.id)
    ceremony = _begin(work, "enrol", person.id)
    held = _passkeys(work, person.id)
    if len(held) >= MOST:
        raise Conflict(
            f"You have {MOST} passkeys, which is the most there can be.",
            reason="passkey.most",
            next_step="Remove one that you do not use.",
        )
    options = generate_registration_options(
        rp_id=site.host,
        rp_name="stagerelease",
        user_id=person.id.encode(),
        user_name=person.handle,
        user_display_name=person.display_name,
        challenge=ceremony.challenge,
        # Both are required: a passkey signs in by itself, without a name and as the only proof.
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED,
            user_verification=UserVerificationRequirement.REQUIRED,
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=k.credential_id) for k in held],
    )
    return _options(ceremony, options)


def enrol(work: Work, site: Site, *, ceremony: str, credential: str, name: str) -> PasskeyRow:
    """Keep the passkey that the caller's browser has made.

    Raises:
        Invalid: what the browser sent does not verify, or the name is not usable.
        Conflict: the challenge is over, or the passkey is known already.
    """
    name = name.strip()
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        sentence = f"Give it a name of 1 to {LONGEST_NAME} characters, such as “work laptop”."
        raise Invalid(sentence, reason="passkey.name", fields=[FieldError("name", sentence)])
    challenge = _use(work, ceremony, "enrol", work.actor.id)
    try:
        made = verify_registration_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=site.host,
            expected_origin=site.origin,
            require_user_verification=True,
        )
        transports = json.loads(credential)["response"].get("transports")
    except UNREADABLE as error:
        raise _refused(error) from error
    known = select(Passkey.id).where(Passkey.credential_id == made.credential_id)
    if work.session.execute(known).first() is not None:
        raise Conflict("This passkey is known already.", reason="passkey.known")
    row = Passkey(
        id=new_id("key"),
        person_id=work.actor.id,
        credential_id=made.credential_id,
        public_key=made.credential_public_key,
        sign_count=made.sign_count,
        name=name,
        transports=[str(t)[:20] for t in transports[:8]] if isinstance(transports, list) else [],
        synced=made.credential_device_type is CredentialDeviceType.MULTI_DEVICE,
        created_at=work.now,
    )
    work.session.add(row)
    detail = {"person": row.person_id, "synced": row.synced}
    ledger.append(work, type="passkey.added", subject=f"passkey:{row.id}", detail=detail)
    return _row(row)


def _refused(error: Exception) -> Invalid:
    reason = f"The passkey was not accepted: {str(error)[:200].rstrip('.')}."
    return Invalid(reason, reason="passkey.refused", next_step=AGAIN)


# --- showing ------------------------------------------------------------------------------------


def begin_sign_in(work: Work, site: Site, *, network: str) -> dict[str, Any]:
    """Return what a browser shows a passkey with to sign in, as ``begin_showing`` does.

    Raises:
        TooMany: too many were begun from this network, a keyed digest.
    """
    if count_in(work, f"passkey:n:{network}", WINDOW) > PER_NETWORK:
        raise TooMany(
            "Too many sign-ins were begun from your network.",
            retry_after=int(WINDOW.total_seconds()),
            reason="passkey.too-many",
        )
    return begin_showing(work, site)


def begin_showing(work: Work, site: Site, *, person_id: str | None = None) -> dict[str, Any]:
    """Return what a browser shows a passkey with: that of ``person_id``, or anybody's to sign in.

    Nothing tells whether an account exists: signing in names none.
    """
    ceremony = _begin(work, "step_up" if person_id else "sign_in", person_id)
    held = _passkeys(work, person_id) if person_id else []
    options = generate_authentication_options(
        rp_id=site.host,
        challenge=ceremony.challenge,
        allow_credentials=[PublicKeyCredentialDescriptor(id=k.credential_id) for k in held],
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return _options(ceremony, options)


def show(
    work: Work, site: Site, *, ceremony: str, credential: str, person_id: str | None = None
) -> Shown:
    """Check a passkey that a browser shows and return what came of it (``Shown.check``).

    Raises:
        Invalid: it does not verify, or is not known here (any more).
        Conflict: the challenge is over.
    """
    challenge = _use(work, ceremony, "step_up" if person_id else "sign_in", person_id)
    row = _find(work, credential)
    if row is None or (person_id is not None and row.person_id != person_id):
        raise Invalid(
            "This passkey is not known here, or was removed.",
            reason="passkey.unknown",
            next_step="Choose another passkey, or sign in another way.",
        )
    try:
        seen = verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=site.host,
            expected_origin=site.origin,
            credential_public_key=row.public_key,
            # The count is looked at below: only of a key whose signature holds, or anybody could
            # have somebody else's passkey suspended by sending a small number.
            credential_current_sign_count=0,
            require_user_verification=True,
        )
    except UNREADABLE as error:
        raise _refused(error) from error
    # Section 6.1.1: a count that does not grow is the sign of a copy; 0 twice means it has none.
    if (seen.new_sign_count or row.sign_count) and seen.new_sign_count <= row.sign_count:
        row.suspended_at = work.now
        detail = {"person": row.person_id, "count": seen.new_sign_count, "last": row.sign_count}
        ledger.append(work, type="passkey.suspended", subject=f"passkey:{row.id}", detail=detail)
        return Shown(row.person_id, copied=True)
    row.sign_count, row.last_used_at = seen.new_sign_count, work.now
    return Shown(row.person_id, copied=False)


def _find(work: Work, credential: str) -> Passkey | None:
    """Return the passkey in use that a browser names; its row is locked until the Work ends."""
    try:
        credential_id = base64url_to_bytes(parse_authentication_credential_json(credential).id)
    except UNREADABLE as error:
        raise _refused(error) from error
    return work.session.execute(
        select(Passkey)
        .where(
            Passkey.credential_id == credential_id,
            Passkey.removed_at.is_(None),
            Passkey.suspended_at.is_(None),
        )
        .with_for_update()
    ).scalar_one_or_none()


# --- keeping ------------------------------------------------------------------------------------


def _passkeys(work: Work, person_id: str) -> list[Passkey]:
    return list(
        work.session.scalars(
            select(Passkey)
            .where(Passkey.person_id == person_id, Passkey.removed_at.is_(None))
            .order_by(Passkey.created_at, Passkey.id)
        )
    )


def _row(key: Passkey) -> PasskeyRow:
    return PasskeyRow(
        key.id, key.name, key.synced, key.created_at, key.last_used_at, key.suspended_at
    )


def list_passkeys(work: Work) -> list[PasskeyRow]:
    """Return the caller's passkeys, oldest first."""
    return [_row(key) for key in _passkeys(work, work.actor.id)]


def remove_passkey(work: Work, passkey_id: str) -> None:
    """Have one of the caller's passkeys not be believed any more.

    Raises:
        NotFound: they have no such passkey.
    """
    key = work.session.execute(
        select(Passkey)
        .where(Passkey.id == passkey_id, Passkey.person_id == work.actor.id)
        .with_for_update()
    ).scalar_one_or_none()
    if key is None or key.removed_at is not None:
        raise NotFound("You have no such passkey.", reason="passkey.unknown")
    key.removed_at = work.now
    detail = {"person": key.person_id}
    ledger.append(work, type="passkey.removed", subject=f"passkey:{key.id}", detail=detail)

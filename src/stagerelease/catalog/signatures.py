"""Keeps signatures over manifests, and the public keys whose signatures count.

Signing happens offline, with OpenSSF Model Signing and a private key that this service never sees.
What is accepted here is verified first: the signature by a registered key, and then that it covers
exactly the files of one revision. A signature is never removed; a compromised key's count no more.
"""

from __future__ import annotations

import re

from sqlalchemy import select

from stagerelease.catalog import queries
from stagerelease.catalog.attested import (
    ManifestSignatureRow,
    SigningKeyRow,
    all_signatures,
    find_key,
    load_signature,
    signing_keys,
)
from stagerelease.catalog.bundles import (
    Bundle,
    difference,
    files_of,
    read_bundle,
    read_key,
    verify,
)
from stagerelease.catalog.queries import RevisionRow, VariantRow
from stagerelease.catalog.stored import refer
from stagerelease.catalog.tables import ManifestSignature, SigningKey
from stagerelease.db.work import Work, Works
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.actor import Actor
from stagerelease.kernel.errors import Conflict, Invalid, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.storage.ports import BlobStore, StoredBlob

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")

# --- keys ----------------------------------------------------------------------------------------


def add_key(work: Work, key_id: str, *, pem: str) -> SigningKeyRow:
    """Register a public key under a name that plans can use; its signatures count from now on.

    Whose keys count is decided by those who manage people, never by those who sign.

    Raises:
        Invalid: the name or the key cannot be used.
        Conflict: the name or the key is registered already.
    """
    require(work.actor, Permission.PEOPLE_MANAGE)
    if not _ID.match(key_id):
        raise Invalid(
            f"{key_id!r} cannot name a key: use a-z, 0-9, '.', '_', '-', at most 63 characters.",
            reason="key.name",
        )
    key = read_key(pem)
    for known in signing_keys(work):
        if known.id == key_id or known.pem_sha256 == key.pem_sha256:
            raise Conflict(f"This is registered already, as key {known.id}.", reason="key.exists")
    row = SigningKey(
        id=key_id,
        pem=key.pem,
        pem_sha256=key.pem_sha256,
        curve=key.curve,
        added_by=work.actor.id,
        added_at=work.now,
        leaf_idx=-1,
    )
    work.session.add(row)
    work.session.flush()  # a lost race shows here, before the log is touched
    row.leaf_idx = ledger.append(
        work,
        type="signing-key.added",
        subject=f"signing-key:{key_id}",
        new_state="active",
        detail={"pem_sha256": key.pem_sha256, "curve": key.curve},
    )
    work.session.flush()
    return _key(work, key_id)


def retire_key(work: Work, key_id: str, *, reason: str, compromised: bool = False) -> SigningKeyRow:
    """Accept no more signatures by a key; with ``compromised``, those it made count no more either.

    Retiring a retired key as compromised is possible; the reverse is not.

    Raises:
        NotFound: there is no such key. Conflict: it is retired already.
    """
    require(work.actor, Permission.PEOPLE_MANAGE)
    row = work.session.execute(
        select(SigningKey).where(SigningKey.id == key_id).with_for_update()
    ).scalar_one_or_none()
    if row is None:
        raise NotFound(f"There is no signing key {key_id!r}.", reason="signing-key")
    if row.compromised or (row.retired_at is not None and not compromised):
        raise Conflict(f"Key {key_id} is retired already.", reason="key.retired")
    before = "active" if row.retired_at is None else "retired"
    row.retired_at = row.retired_at or work.now
    row.compromised = compromised
    work.session.flush()
    ledger.append(
        work,
        type="signing-key.retired",
        subject=f"signing-key:{key_id}",
        prev_state=before,
        new_state="compromised" if compromised else "retired",
        detail={"reason": reason},
    )
    return _key(work, key_id)


def list_keys(work: Work) -> list[SigningKeyRow]:
    """Return every key that ever counted. Public keys are public: anybody may verify with them."""
    return signing_keys(work)


def _key(work: Work, key_id: str) -> SigningKeyRow:
    found = find_key(work, key_id)
    if found is None:
        raise NotFound(f"There is no signing key {key_id!r}.", reason="signing-key")
    return found


# --- signatures ----------------------------------------------------------------------------------


def add_signature(
    works: Works,
    blobs: BlobStore,
    actor: Actor,
    repo_id: str,
    *,
    bundle: bytes,
    rev: str = "main",
) -> ManifestSignatureRow:
    """Verify a bundle and keep it as a signature over the manifest of a revision.

    Raises:
        Invalid: it is malformed, no registered key made it, or it does not cover exactly the
            files of the revision.
        Conflict: that key signed this revision already.
    """
    require(actor, Permission.MANIFEST_SIGN)
    parsed = read_bundle(bundle)
    with works.begin(actor, read_only=True) as work:
        _judge(work, parsed, repo_id, rev)  # before its bytes take any room in the store
    with blobs.writer() as writer:
        writer.write(bundle)
        stored = writer.commit()
    with works.begin(actor) as work:
        _, revision, key = _judge(work, parsed, repo_id, rev)
        return _record(work, blobs, revision, key, stored)


def _judge(
    work: Work, bundle: Bundle, repo_id: str, rev: str
) -> tuple[VariantRow, RevisionRow, SigningKeyRow]:
    variant, revision = _revision(work, repo_id, rev)
    key = _signer(work, bundle)
    held = {file.path: file.sha256 for file in queries.files(work, revision.id)}
    wrong = difference(files_of(bundle), held)
    if wrong is not None:
        raise Invalid(
            f"{wrong} It must cover exactly the files of {variant.repo_id} at {revision.id[:8]}.",
            reason="bundle.files",
            next_step="Sign the directory that was imported, or name the revision that was signed.",
        )
    return variant, revision, key


def _revision(work: Work, repo_id: str, rev: str) -> tuple[VariantRow, RevisionRow]:
    variant = queries.load_variant(work, repo_id)
    found = queries.resolve_rev(work, variant.id, rev)
    if found is None:
        raise NotFound(f"{variant.repo_id} has no revision {rev!r}.", reason="revision")
    return variant, queries.load_revision(work, found)


def _signer(work: Work, bundle: Bundle) -> SigningKeyRow:
    """Return the key in use that made this signature; what the bundle hints at is not believed."""
    for key in signing_keys(work):
        if verify(bundle, key.pem):
            if key.retired_at is None:
                return key
            raise Invalid(
                f"This was signed with key {key.id}, which is retired.", reason="key.retired"
            )
    raise Invalid(
        "No key registered here made this signature"
        + (f" (it says it was made with {bundle.hint[:12]}…)." if bundle.hint else "."),
        reason="bundle.signature",
        next_step="Look at `stagerelease catalog key list`, and sign with one of those keys.",
    )


def _record(
    work: Work, blobs: BlobStore, revision: RevisionRow, key: SigningKeyRow, stored: StoredBlob
) -> ManifestSignatureRow:
    if any(row.key_id == key.id for row in all_signatures(work, revision.id)):
        raise Conflict(
            f"Key {key.id} signed revision {revision.id[:8]} already.", reason="signature.exists"
        )
    id = new_id("msg")
    refer(work, stored.sha256, size=stored.size, owner=f"manifest_signature:{id}", blobs=blobs)
    row = ManifestSignature(
        id=id,
        revision_id=revision.id,
        manifest_sha256=revision.manifest_sha256,
        key_id=key.id,
        bundle_sha256=stored.sha256,
        bundle_size=stored.size,
        signed_by=work.actor.id,
        at=work.now,
        leaf_idx=-1,
    )
    work.session.add(row)
    work.session.flush()  # a lost race shows here, before the log is touched
    row.leaf_idx = ledger.append(
        work,
        type="manifest.signed",
        subject=f"revision:{revision.id}",
        detail={
            "manifest_sha256": revision.manifest_sha256,
            "key": key.id,
            "bundle_sha256": stored.sha256,
        },
    )
    work.session.flush()
    return load_signature(work, id)


def list_signatures(work: Work, repo_id: str, *, rev: str = "main") -> list[ManifestSignatureRow]:
    """Return every signature over a revision, oldest first; ``counts`` tells which count now."""
    require(work.actor, Permission.CATALOG_READ_INTERNAL)
    return all_signatures(work, _revision(work, repo_id, rev)[1].id)


def no_signature() -> NotFound:
    """Return the one answer for a signature that is not there or may not be known."""
    return NotFound("There is no such signature over a manifest.", reason="manifest-signature")

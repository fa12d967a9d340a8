"""Locked model cards, signing keys and signatures over manifests, over JSON."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response
from pydantic import Field, StringConstraints

from stagerelease.catalog import cards, signatures
from stagerelease.catalog.bundles import LARGEST, MEDIA_TYPE
from stagerelease.http.begin import Begin, BeginPublic
from stagerelease.http.wire import In, Instant, Out
from stagerelease.reports import attestations

router = APIRouter(prefix="/api/v1", tags=["attestations"])
Part = Annotated[str, Path(max_length=96)]
KeyId = Annotated[str, Path(max_length=63)]
Rev = Annotated[str, Query(max_length=200)]
Text = Annotated[str, StringConstraints(strip_whitespace=False, max_length=LARGEST)]


class LockIn(In):
    """Which revision's model card to lock."""

    revision: Annotated[str, Field(max_length=200)] = "main"


class LockOut(Out):
    """A model card that is final."""

    id: str
    revision_id: str
    path: str
    sha256: str
    at: Instant
    leaf_idx: int


class KeyIn(In):
    """A public key to register."""

    id: Annotated[str, Field(max_length=63)]
    pem: Annotated[str, Field(max_length=4000)]


class KeyOut(Out):
    """A public key whose signatures count, or counted until it was retired."""

    id: str
    pem: str
    pem_sha256: str
    curve: str
    added_at: Instant
    retired_at: Instant | None
    compromised: bool


class RetireIn(In):
    """Why a key is retired."""

    reason: Annotated[str, Field(min_length=1, max_length=2000)]
    compromised: bool = False


class SignatureIn(In):
    """A bundle made with `model_signing sign key`, as the text of its file."""

    bundle: Text
    revision: Annotated[str, Field(max_length=200)] = "main"


class ManifestSignatureOut(Out):
    """A verified signature over exactly the files of a revision."""

    id: str
    revision_id: str
    manifest_sha256: str
    key_id: str
    bundle_sha256: str
    bundle_size: int
    at: Instant
    leaf_idx: int
    counts: bool


@router.post("/catalog/repos/{ns}/{name}/card-lock", status_code=201)
def lock_card(begin: Begin, ns: Part, name: Part, body: LockIn, dry_run: bool = False) -> LockOut:
    """Lock the model card of a revision, for ever."""
    with begin(dry_run=dry_run) as work:
        return LockOut.model_validate(cards.lock_card(work, f"{ns}/{name}", rev=body.revision))


@router.get("/catalog/repos/{ns}/{name}/card-lock")
def show_card_lock(begin: Begin, ns: Part, name: Part, revision: Rev = "main") -> LockOut:
    """Show the lock of the model card that a revision holds."""
    with begin(read_only=True) as work:
        return LockOut.model_validate(cards.find_lock(work, f"{ns}/{name}", rev=revision))


@router.get("/signing-keys")
def list_keys(begin: BeginPublic) -> list[KeyOut]:
    """List the public keys whose signatures count; there are few, and anybody may verify."""
    with begin(read_only=True) as work:
        return [KeyOut.model_validate(row) for row in signatures.list_keys(work)]


@router.post("/signing-keys", status_code=201)
def add_key(begin: Begin, body: KeyIn, dry_run: bool = False) -> KeyOut:
    """Register a public key."""
    with begin(dry_run=dry_run) as work:
        return KeyOut.model_validate(signatures.add_key(work, body.id, pem=body.pem))


@router.post("/signing-keys/{key_id}/retire")
def retire_key(begin: Begin, key_id: KeyId, body: RetireIn, dry_run: bool = False) -> KeyOut:
    """Accept no more signatures by a key; if it is compromised, let none of its count."""
    with begin(dry_run=dry_run) as work:
        row = signatures.retire_key(work, key_id, reason=body.reason, compromised=body.compromised)
        return KeyOut.model_validate(row)


@router.get("/catalog/repos/{ns}/{name}/signatures")
def list_signatures(
    begin: BeginPublic, ns: Part, name: Part, revision: Rev = "main"
) -> list[ManifestSignatureOut]:
    """List the signatures over a revision, for whoever may have its files; one per key."""
    with begin(read_only=True) as work:
        rows = attestations.signatures_of(work, f"{ns}/{name}", rev=revision)
        return [ManifestSignatureOut.model_validate(row) for row in rows]


@router.post("/catalog/repos/{ns}/{name}/signatures", status_code=201)
def add_signature(
    request: Request, begin: Begin, ns: Part, name: Part, body: SignatureIn
) -> ManifestSignatureOut:
    """Verify a bundle and keep it."""
    with begin(read_only=True) as work:
        actor = work.actor
    row = signatures.add_signature(
        request.app.state.works,
        request.app.state.blobs,
        actor,
        f"{ns}/{name}",
        bundle=body.bundle.encode(),
        rev=body.revision,
    )
    return ManifestSignatureOut.model_validate(row)


@router.get(
    "/catalog/repos/{ns}/{name}/signatures/{signature_id}/bundle",
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {}}}},
)
def show_bundle(
    request: Request,
    begin: BeginPublic,
    ns: Part,
    name: Part,
    signature_id: Annotated[str, Path(max_length=40)],
    revision: Rev = "main",
) -> Response:
    """Give a bundle, byte for byte, for `model_signing verify key`."""
    with begin(read_only=True) as work:
        bundle = attestations.bundle_of(
            work, request.app.state.blobs, f"{ns}/{name}", signature_id, rev=revision
        )
    return Response(
        bundle,
        media_type=MEDIA_TYPE,
        headers={"Content-Disposition": 'attachment; filename="model.sig.json"'},
    )

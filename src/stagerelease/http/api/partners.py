"""Agreements and signatures over JSON; grants are in the module beside this one."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field, StrictBool

from stagerelease.http.api.grants import DryRun, Id, ReasonIn
from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, InstantIn, Out, Paging, paged
from stagerelease.partners import service
from stagerelease.partners.queries import AgreementVersionRow

router = APIRouter(tags=["partners"])

Slug = Annotated[str, Path(max_length=64)]
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class AgreementIn(In):
    """An agreement to name."""

    slug: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
    title: Name


class AgreementOut(Out):
    """A named agreement."""

    id: str
    slug: str
    title: str
    created_at: Instant


class VersionIn(In):
    """A version to draft."""

    text: Annotated[str, Field(min_length=1, max_length=200_000)]
    duo_codes: Annotated[
        list[Annotated[str, Field(max_length=16)]], Field(max_length=20, default_factory=list)
    ]
    material: bool = True
    needs_countersignature: bool = False


class DuoOut(Out):
    """A Data Use Ontology code that an agreement can carry."""

    code: str
    term: str
    label: str
    meaning: str
    modifier: bool


class VersionOut(Out):
    """A version of an agreement, without its text."""

    id: str
    agreement: str
    title: str
    version: int
    text_sha256: str
    state: str
    material: bool
    needs_countersignature: bool
    duo_codes: list[str]
    effective_from: Instant | None
    reconsent_until: Instant | None
    created_at: Instant
    leaf_idx: int | None


class TextOut(VersionOut):
    """A version of an agreement with its text; its SHA-256 is over these bytes as UTF-8."""

    text: str


class PublishIn(In):
    """By when holders sign a material version again; 30 days from now when left out."""

    reconsent_until: InstantIn | None = None


class AmendmentOut(Out):
    """What changes between two versions; ``words`` are runs of kept, dropped and added text."""

    agreement: str
    old: int
    new: int
    material: bool
    lines: list[str]
    words: list[list[str]]


class SignatureIn(In):
    """A signature to make. Both declarations must be true; nothing is assumed."""

    version_id: Annotated[str, Field(max_length=64)]
    text_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    typed_name: Name
    typed_title: Name
    authorised_to_bind: StrictBool
    consents_electronically: StrictBool
    organisation: Annotated[str, Field(max_length=64)] | None = None
    valid_until: InstantIn | None = None


class SignatureOut(Out):
    """A signature and what it is on."""

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
    signed_at: Instant
    valid_until: Instant | None
    countersigned_by: str | None
    countersigned_at: Instant | None
    ended_at: Instant | None
    reconsent_until: Instant | None
    leaf_idx: int
    countersign_leaf_idx: int | None


# --- agreements ----------------------------------------------------------------------------------


def attachment(document: service.Document, media_type: str) -> Response:
    """Return a file to keep; it is never shown as a page of this origin."""
    return Response(
        document.content,
        media_type=media_type,
        headers={
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(document.name)}",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )


def _text(row: AgreementVersionRow, text: str) -> TextOut:
    return TextOut(**VersionOut.model_validate(row).model_dump(), text=text)


@router.get("/api/v1/agreements")
def list_agreements(
    request: Request, response: Response, begin: Begin, page: Paging
) -> list[VersionOut]:
    """List agreement versions: those in force, to staff all."""
    with begin(read_only=True) as work:
        rows = service.list_agreements(work)
    part = paged(request, response, rows, page, lambda row: row.id)
    return [VersionOut.model_validate(row) for row in part]


@router.get("/api/v1/duo-codes")
def duo_codes() -> list[DuoOut]:
    """List the Data Use Ontology codes that agreements can carry, with what they mean."""
    return [DuoOut.model_validate(code) for code in service.DUO_CODES.values()]


@router.post("/api/v1/agreements", status_code=201)
def create_agreement(body: AgreementIn, begin: Begin) -> AgreementOut:
    """Name an agreement."""
    with begin() as work:
        return AgreementOut.model_validate(
            service.create_agreement(work, slug=body.slug, title=body.title)
        )


@router.get("/api/v1/agreements/{slug}")
def show_agreement(slug: Slug, begin: Begin) -> TextOut:
    """Show the version in force, with its text."""
    with begin(read_only=True) as work:
        return _text(*service.show_version(work, slug))


@router.get("/api/v1/agreements/{slug}/outdated-signatures")
def outdated_signatures(slug: Slug, begin: Begin) -> list[SignatureOut]:
    """List signatures in force that a later, material version has outdated."""
    with begin(read_only=True) as work:
        rows = service.list_outdated(work, slug)
        return [SignatureOut.model_validate(row) for row in rows]


@router.post("/api/v1/agreements/{slug}/versions", status_code=201)
def draft_version(slug: Slug, body: VersionIn, begin: Begin) -> VersionOut:
    """Draft the next version."""
    with begin() as work:
        row = service.draft_version(work, agreement=slug, **body.model_dump())
        return VersionOut.model_validate(row)


@router.get("/api/v1/agreements/{slug}/versions/{number}")
def show_version(slug: Slug, number: Number, begin: Begin) -> TextOut:
    """Show one version, with its text."""
    with begin(read_only=True) as work:
        return _text(*service.show_version(work, slug, number))


@router.get("/api/v1/agreements/{slug}/versions/{number}/pdf", response_class=Response)
def version_pdf(slug: Slug, number: Number, begin: Begin) -> Response:
    """Download one version as PDF."""
    with begin(read_only=True) as work:
        return attachment(service.version_pdf(work, slug, number), "application/pdf")


@router.get("/api/v1/agreements/{slug}/diff")
def diff_versions(
    slug: Slug,
    begin: Begin,
    a: Annotated[int, Query(ge=1, le=2**31 - 1)],
    b: Annotated[int, Query(ge=1, le=2**31 - 1)],
) -> AmendmentOut:
    """Say what changes from version ``a`` to version ``b``, by line and by word."""
    with begin(read_only=True) as work:
        return AmendmentOut.model_validate(service.diff_versions(work, slug, a, b))


@router.post("/api/v1/agreements/{slug}/versions/{number}/publish")
def publish_version(
    slug: Slug, number: Number, begin: Begin, body: PublishIn | None = None
) -> VersionOut:
    """Put a draft in force; after a material one, older signatures count until a deadline."""
    until = body.reconsent_until if body is not None else None
    with begin() as work:
        row = service.publish_numbered(work, slug, number, reconsent_until=until)
        return VersionOut.model_validate(row)


@router.post("/api/v1/agreements/{slug}/versions/{number}/retire")
def retire_version(slug: Slug, number: Number, begin: Begin) -> VersionOut:
    """Stop accepting a superseded version; grants that rest on it are suspended."""
    with begin() as work:
        row = service.retire_numbered(work, slug, number)
        return VersionOut.model_validate(row)


# --- signatures ----------------------------------------------------------------------------------


@router.get("/api/v1/signatures")
def list_signatures(
    request: Request, response: Response, begin: Begin, page: Paging
) -> list[SignatureOut]:
    """List signatures: one's own and one's organisations', to staff all."""
    with begin(read_only=True) as work:
        rows = service.list_signatures(work)
    part = paged(request, response, rows, page, lambda row: row.id)
    return [SignatureOut.model_validate(row) for row in part]


@router.post("/api/v1/signatures", status_code=201)
def sign(body: SignatureIn, request: Request, begin: Begin) -> SignatureOut:
    """Sign the text that was read, for an organisation or for oneself."""
    address = request.client.host if request.client else None
    with begin() as work:
        row = service.sign(
            work,
            **body.model_dump(),
            method="token",
            client_address=address,
            user_agent=request.headers.get("user-agent"),
        )
        return SignatureOut.model_validate(row)


@router.get("/api/v1/signatures/{signature_id}")
def show_signature(signature_id: Id, begin: Begin) -> SignatureOut:
    """Show a signature."""
    with begin(read_only=True) as work:
        return SignatureOut.model_validate(service.show_signature(work, signature_id))


@router.get("/api/v1/signatures/{signature_id}/pdf", response_class=Response)
def signed_pdf(signature_id: Id, begin: Begin) -> Response:
    """Download the signed agreement as PDF: both sides may, also after its end."""
    with begin(read_only=True) as work:
        return attachment(service.signed_pdf(work, signature_id), "application/pdf")


@router.get("/api/v1/signatures/{signature_id}/receipt", response_class=Response)
def signature_receipt(signature_id: Id, request: Request, begin: Begin) -> Response:
    """Download the receipt: the record, its log entry and the proof."""
    vkey = request.app.state.signer.vkey
    with begin(read_only=True) as work:
        found = service.signature_receipt(work, signature_id, vkey=vkey)
        return attachment(found, "application/json")


@router.post("/api/v1/signatures/{signature_id}/countersign")
def countersign(signature_id: Id, begin: Begin) -> SignatureOut:
    """Sign for the publisher; a signature that waited for this is in force from now on."""
    with begin() as work:
        return SignatureOut.model_validate(service.countersign(work, signature_id))


@router.post("/api/v1/signatures/{signature_id}/terminate")
def terminate_signature(
    signature_id: Id, body: ReasonIn, begin: Begin, dry_run: DryRun = False
) -> SignatureOut:
    """End a signature; grants that rest on it are suspended."""
    with begin(dry_run=dry_run) as work:
        row = service.terminate_signature(work, signature_id, body.reason)
        return SignatureOut.model_validate(row)

"""Reading an agreement and signing it: the whole text in the page, its digest on top."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from stagerelease.db.work import Work
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent, Typed
from stagerelease.http.pages.frame import by_field, page, to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.http.pages.markdown import render_text
from stagerelease.http.problems import status_of
from stagerelease.identity import queries as people
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.kernel.errors import (
    Conflict,
    DomainError,
    FieldError,
    Invalid,
    NotFound,
    Stale,
)
from stagerelease.partners import queries as papers
from stagerelease.partners import service as partners
from stagerelease.partners.duo import uses
from stagerelease.partners.queries import AgreementVersionRow, SignatureRow
from stagerelease.partners.rules import SignatureState

router = APIRouter(
    include_in_schema=False, dependencies=[Depends(speak_page), Depends(refuse_forgery)]
)
FIELDS = ("typed_name", "typed_title", "organisation")


def _version(work: Work, named: str) -> tuple[AgreementVersionRow, str]:
    """Return a version by its id, or the one in force of a slug, and its text.

    Raises:
        NotFound: there is none that the caller may read.
    """
    row = papers.find_version(work, named)
    if row is not None:
        return partners.show_version(work, row.agreement, row.version)
    return partners.show_version(work, named)


def _mine(work: Work, version: AgreementVersionRow) -> SignatureRow | None:
    """Return the caller's own signature on exactly this version that is in force or waits."""
    for row in partners.list_signatures(work):
        if (
            row.agreement_version_id == version.id
            and row.state in (SignatureState.IN_FORCE, SignatureState.PENDING)
            and (row.person_id == work.actor.id or row.organisation_id in work.actor.administers)
        ):
            return row
    return None


def _show(
    request: Request,
    begin: BeginPage,
    version_id: str,
    *,
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        version, text = _version(work, version_id)
        me = people.load_person(work, work.actor.id)
        houses = [people.load_organisation(work, o) for o in sorted(work.actor.administers)]
        signed = _mine(work, version)
        may_sign = authorize(work.actor, Permission.AGREEMENT_SIGN).allowed
    values = {key: typed.raw(key) if typed else "" for key in FIELDS}
    if not typed:
        values["typed_name"] = ""
    return page(
        request,
        "sign.html",
        status=status_of(refusal) if refusal else 200,
        version=version,
        uses=uses(version.duo_codes),
        text=render_text(text),
        me=me,
        houses=houses,
        signed=signed,
        may_sign=may_sign,
        refusal=refusal,
        errors=by_field(refusal.fields) if refusal else {},
        values=values,
        ticked={
            key: typed.ticked(key) if typed else False
            for key in ("authorised_to_bind", "consents_electronically")
        },
    )


@router.get("/agreements/{version_id}/sign")
def sign_form(request: Request, begin: BeginPage, version_id: str) -> Response:
    """Show the whole text, and the form that signs exactly it."""
    return _show(request, begin, version_id)


@router.post("/agreements/{version_id}/sign")
def sign(request: Request, begin: BeginPage, sent: Sent, version_id: str) -> Response:
    """Sign the text that was shown; whoever signs has just shown that it is them."""
    client = request.client.host if request.client else None
    try:
        with begin(read_only=True) as work:  # a gap, or no right to sign, is told before that
            _version(work, version_id)
            _check_typed(sent)
            require(work.actor, Permission.AGREEMENT_SIGN)
        with begin(proved=True) as work:
            version, _ = _version(work, version_id)
            signature = partners.sign(
                work,
                version_id=version.id,
                text_sha256=sent.raw("text_sha256"),
                typed_name=sent.get("typed_name"),
                typed_title=sent.get("typed_title"),
                authorised_to_bind=sent.ticked("authorised_to_bind"),
                consents_electronically=sent.ticked("consents_electronically"),
                organisation=sent.get("organisation") or None,
                method="session",
                client_address=client,
            )
    except (Invalid, Stale, Conflict) as error:
        return _show(request, begin, version_id, refusal=error, typed=sent)
    return to(f"/signatures/{signature.id}?signed=1")


def _check_typed(sent: Typed) -> None:
    """Return only if nothing is missing; a signer sees every gap at once, not one by one."""
    wrong = [
        FieldError(key, sentence)
        for key, filled, sentence in (
            ("typed_name", bool(sent.get("typed_name")), "Type your full name."),
            ("typed_title", bool(sent.get("typed_title")), "Type your title or role."),
            (
                "authorised_to_bind",
                sent.ticked("authorised_to_bind"),
                "Tick this if it is true; without it nothing can be signed.",
            ),
            (
                "consents_electronically",
                sent.ticked("consents_electronically"),
                "Tick this if you agree; without it nothing can be signed here.",
            ),
        )
        if not filled
    ]
    if wrong:
        raise Invalid(
            "The signature is not complete yet.", reason="signature.incomplete", fields=wrong
        )


@router.get("/agreements/{version_id}/decline")
def decline(request: Request, begin: BeginPage, version_id: str) -> Response:
    """Say what not signing means. Nothing is recorded: there is nothing to decline later."""
    with begin(read_only=True) as work:
        version, _ = _version(work, version_id)
    return page(request, "decline.html", version=version)


@router.get("/signatures/{signature_id}")
def signature_page(
    request: Request, begin: BeginPage, signature_id: str, signed: str = ""
) -> Response:
    """Show a signature, its place in the log, and what to keep."""
    with begin(read_only=True) as work:
        row = partners.show_signature(work, signature_id)
        version = papers.find_version(work, row.agreement_version_id)
        house = people.load_organisation(work, row.organisation_id) if row.organisation_id else None
        grants = [g for g in partners.list_grants(work, limit=50) if g.signature_id == row.id]
    if version is None:
        raise NotFound("There is no such agreement.", reason="agreement.unknown")
    return page(
        request,
        "signature.html",
        row=row,
        version=version,
        house=house,
        grants=grants,
        signed=bool(signed),
    )


@router.get("/signatures/{signature_id}/text")
def signed_text(begin: BeginPage, signature_id: str) -> Response:
    """Download the very bytes that were signed, whose SHA-256 the signature names."""
    with begin(read_only=True) as work:
        row = partners.show_signature(work, signature_id)
        version, text = partners.show_version(work, row.agreement, row.version)
    name = f"{version.agreement}-version-{version.version}.md"
    return _to_keep(name, text.encode(), "text/markdown; charset=utf-8")


@router.get("/signatures/{signature_id}/pdf")
def signed_pdf(begin: BeginPage, signature_id: str) -> Response:
    """Download the signed agreement as PDF, with its signature page."""
    with begin(read_only=True) as work:
        document = partners.signed_pdf(work, signature_id)
    return _to_keep(document.name, document.content, "application/pdf")


@router.get("/signatures/{signature_id}/receipt")
def signature_receipt(request: Request, begin: BeginPage, signature_id: str) -> Response:
    """Download the receipt: the record, its log entry and the proof."""
    with begin(read_only=True) as work:
        document = partners.signature_receipt(
            work, signature_id, vkey=request.app.state.signer.vkey
        )
    return _to_keep(document.name, document.content, "application/json")


def _to_keep(name: str, content: bytes, media_type: str) -> Response:
    return Response(
        content,
        media_type=media_type,
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cache-Control": "no-store",
        },
    )

"""Agreements as staff keep them: versions, what one changes, and the signatures under them."""

from __future__ import annotations

from functools import partial
from typing import Any

from fastapi import Request, Response

from stagerelease.db.work import Work
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.desk.steps import (
    Act,
    Number,
    after_refusal,
    desk_router,
    names_of,
    needed,
    take,
    take_grave,
    typed_name,
)
from stagerelease.http.pages.forms import Sent, Typed, end_of_day
from stagerelease.http.pages.frame import page
from stagerelease.http.pages.markdown import render_text
from stagerelease.identity import queries as people
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.kernel.errors import DomainError, NotFound
from stagerelease.partners import service as partners
from stagerelease.partners.rows import AgreementVersionRow, SignatureRow

router = desk_router("/staff")
ROWS = 100
ONE = "/agreements/{slug}/versions/{number}"
NOTICES = {
    "named": "The agreement has a name. Draft its first version.",
    "drafted": "The draft is kept. Nobody can sign it before it is published.",
    "published": "The version is in force. Holders are told if they have to sign it.",
    "retired": "The version is accepted no more. Grants that rest on it are suspended.",
    "countersigned": "You signed for the publisher.",
    "terminated": "The signature has ended, and grants that rest on it are suspended.",
}


@router.get("/agreements")
def list_agreements(request: Request, begin: BeginPage) -> Response:
    """List agreements with their versions, and signatures that wait for the publisher's."""
    return _list(request, begin)


def _list(
    request: Request,
    begin: Any,
    *,
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        require(work.actor, Permission.AGREEMENT_READ)
        versions = partners.list_agreements(work)
        signatures = partners.list_signatures(work)
        parties = _parties(work, signatures[:ROWS])
        publishes = authorize(work.actor, Permission.AGREEMENT_PUBLISH).allowed
    shelf: dict[str, list[AgreementVersionRow]] = {}
    for row in versions:
        shelf.setdefault(row.agreement, []).append(row)
    return page(
        request,
        "desk/agreements.html",
        shelf={slug: sorted(rows, key=lambda v: -v.version) for slug, rows in shelf.items()},
        waiting=[s for s in signatures if s.state == "pending"][:ROWS],
        signatures=signatures[:ROWS],
        parties=parties,
        publishes=publishes,
        **after_refusal(refusal, typed, "slug", "title"),
    )


def _parties(work: Work, rows: list[SignatureRow]) -> dict[str, str]:
    """Return the party of each signature by its id: the organisation, or else the person."""
    organisations = {row.id: row.name for row in people.list_organisations(work)}
    return {
        row.id: organisations.get(row.organisation_id, "")
        if row.organisation_id
        else row.typed_name
        for row in rows
    }


@router.post("/agreements")
def name_agreement(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Name an agreement; it binds nobody before a version does."""

    def act(work: Work) -> str:
        slug = needed(sent, "slug", "Give a short name that plans refer to.")
        title = needed(sent, "title", "Give the title that signers read.")
        partners.create_agreement(work, slug=slug, title=title)
        return f"/staff/agreements/{slug}/draft?done=named#done"

    again = partial(_list, request, begin, typed=sent)
    return take(begin, Permission.AGREEMENT_PUBLISH, act, then=str, again=again)


# --- drafting ------------------------------------------------------------------------------------


@router.get("/agreements/{slug}/draft")
def draft_form(request: Request, begin: BeginPage, slug: str, done: str = "") -> Response:
    """Show the form of the next version, with the text in force in it."""
    return _draft(request, begin, slug, done=done)


def _draft(
    request: Request,
    begin: Any,
    slug: str,
    *,
    done: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        require(work.actor, Permission.AGREEMENT_PUBLISH)
        try:
            row, text = partners.show_version(work, slug)
            base: AgreementVersionRow | None = row
        except NotFound:
            base, text = None, ""
    codes = list(base.duo_codes) if base else []
    return page(
        request,
        "desk/agreement_draft.html",
        slug=slug,
        base=base,
        text=typed.raw("text") if typed else text,
        chosen=typed.all("duo") if typed else codes,
        material=typed.ticked("material") if typed else True,
        counter=typed.ticked("countersign")
        if typed
        else bool(base and base.needs_countersignature),
        codes=list(partners.DUO_CODES.values()),
        notice=NOTICES.get(done, ""),
        **after_refusal(refusal),
    )


@router.post("/agreements/{slug}/draft")
def draft(request: Request, begin: BeginPage, sent: Sent, slug: str) -> Response:
    """Write the next version down; nobody can sign it before it is published."""

    def act(work: Work) -> AgreementVersionRow:
        needed(sent, "text", "Write the text.")
        return partners.draft_version(
            work,
            agreement=slug,
            text=sent.raw("text"),
            duo_codes=sent.all("duo"),
            material=sent.ticked("material"),
            needs_countersignature=sent.ticked("countersign"),
        )

    def then(row: AgreementVersionRow) -> str:
        return f"/staff/agreements/{slug}/versions/{row.version}?done=drafted#done"

    again = partial(_draft, request, begin, slug, typed=sent)
    return take(begin, Permission.AGREEMENT_PUBLISH, act, then=then, again=again)


# --- a version -----------------------------------------------------------------------------------


@router.get(ONE)
def show_version(
    request: Request, begin: BeginPage, slug: str, number: Number, done: str = ""
) -> Response:
    """Show a version: its text, what it changes, and what can be done with it."""
    return _version(request, begin, slug, number, done=done)


def _version(
    request: Request,
    begin: Any,
    slug: str,
    number: int,
    *,
    done: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        require(work.actor, Permission.AGREEMENT_READ)
        row, text = partners.show_version(work, slug, number)
        amendment = partners.diff_versions(work, slug, number - 1, number) if number > 1 else None
        outdated = partners.list_outdated(work, slug) if row.state == "in_force" else []
        parties = _parties(work, outdated[:ROWS])
        publishes = authorize(work.actor, Permission.AGREEMENT_PUBLISH).allowed
    lines = [
        (line[:1] if line[:1] in "+-" else " ", line[1:] or " ")
        for line in (amendment.lines if amendment else ())
        if not line.startswith(("---", "+++", "@@"))
    ]
    return page(
        request,
        "desk/agreement.html",
        row=row,
        text=render_text(text),
        amendment=amendment,
        lines=lines,
        outdated=outdated,
        parties=parties,
        publishes=publishes,
        notice=NOTICES.get(done, ""),
        **after_refusal(refusal, typed, "until"),
    )


def _version_step(
    request: Request, begin: Any, slug: str, number: int, sent: Typed, act: Act, *, done: str
) -> Response:
    again = partial(_version, request, begin, slug, number, typed=sent)
    where = f"/staff/agreements/{slug}/versions/{number}?done={done}#done"
    return take_grave(begin, Permission.AGREEMENT_PUBLISH, act, then=where, again=again)


@router.post(ONE + "/publish")
def publish(request: Request, begin: BeginPage, sent: Sent, slug: str, number: Number) -> Response:
    """Put a draft in force."""

    def act(work: Work) -> object:
        until = end_of_day(sent.get("until"), "until")
        return partners.publish_numbered(work, slug, number, reconsent_until=until)

    return _version_step(request, begin, slug, number, sent, act, done="published")


@router.post(ONE + "/retire")
def retire(request: Request, begin: BeginPage, sent: Sent, slug: str, number: Number) -> Response:
    """Stop accepting a superseded version."""

    def act(work: Work) -> object:
        return partners.retire_numbered(work, slug, number)

    return _version_step(request, begin, slug, number, sent, act, done="retired")


# --- signatures ----------------------------------------------------------------------------------


@router.get("/signatures/{signature_id}")
def show_signature(
    request: Request, begin: BeginPage, signature_id: str, done: str = ""
) -> Response:
    """Show a signature, and what staff can do with it."""
    return _signature(request, begin, signature_id, done=done)


def _signature(
    request: Request,
    begin: Any,
    signature_id: str,
    *,
    done: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        require(work.actor, Permission.AGREEMENT_READ)
        row = partners.show_signature(work, signature_id)
        party = _parties(work, [row])[row.id]
        who = names_of(work, [row.person_id, row.countersigned_by])
        publishes = authorize(work.actor, Permission.AGREEMENT_PUBLISH).allowed
        stops = authorize(work.actor, Permission.GRANT_STOP).allowed
        own = row.person_id == work.actor.id
    return page(
        request,
        "desk/signature.html",
        row=row,
        party=party,
        who=who,
        publishes=publishes,
        stops=stops,
        own=own,
        notice=NOTICES.get(done, ""),
        **after_refusal(refusal, typed, "reason", "typed"),
    )


@router.post("/signatures/{signature_id}/countersign")
def countersign(request: Request, begin: BeginPage, sent: Sent, signature_id: str) -> Response:
    """Sign for the publisher."""

    def act(work: Work) -> object:
        return partners.countersign(work, signature_id)

    again = partial(_signature, request, begin, signature_id, typed=sent)
    where = f"/staff/signatures/{signature_id}?done=countersigned#done"
    return take_grave(begin, Permission.AGREEMENT_PUBLISH, act, then=where, again=again)


@router.post("/signatures/{signature_id}/terminate")
def terminate(request: Request, begin: BeginPage, sent: Sent, signature_id: str) -> Response:
    """End a signature, once the name under it was typed."""

    def act(work: Work) -> object:
        typed_name(sent, partners.show_signature(work, signature_id).typed_name)
        reason = needed(sent, "reason", "Say why. The party reads it.")
        return partners.terminate_signature(work, signature_id, reason)

    again = partial(_signature, request, begin, signature_id, typed=sent)
    where = f"/staff/signatures/{signature_id}?done=terminated#done"
    return take_grave(begin, Permission.GRANT_STOP, act, then=where, again=again)

"""My access: grants with their ends, requests, signatures; tokens; and what is kept about me."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from stagerelease.access import service as access
from stagerelease.db.work import Work
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent
from stagerelease.http.pages.frame import by_field, page, to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.http.pages.my_data import what_is_kept
from stagerelease.http.wire import origin_of
from stagerelease.identity import queries as people
from stagerelease.identity import service as identity
from stagerelease.identity.rules import SCOPES
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import FieldError, Invalid
from stagerelease.partners import service as partners
from stagerelease.partners.queries import SignatureRow
from stagerelease.partners.service import GrantPage
from stagerelease.releases import queries as releases
from stagerelease.releases.queries import TrackRow

router = APIRouter(
    prefix="/me",
    include_in_schema=False,
    dependencies=[Depends(speak_page), Depends(refuse_forgery)],
)
MOST = 50
LASTS = {"30": "30 days", "90": "90 days", "365": "A year"}
"""How long a token made on this page lasts, at the holder's choice."""
SCOPE_WORDS = {
    "download": ("Download", "the files you may download, and nothing else"),
    "infer": ("Infer", "ask the models that you may ask"),
    "read": ("Read", "look at whatever you may look at"),
    "catalog": ("Catalog", "put models in, if you may"),
    "all": ("Everything", "whatever you may do; keep it off shared machines"),
}
DONE = {
    "renewal": "Your wish was passed on to those who decide. The answer comes by mail and here.",
    "given-up": "You gave that access up. Please declare below what became of the files.",
    "declared": "Thank you. Your declaration is on record.",
}


@dataclass(frozen=True, slots=True)
class Held:
    """A grant as its card shows it."""

    shown: GrantPage
    track: TrackRow
    mine: bool
    may_end: bool
    signature: SignatureRow | None
    last: datetime | None

    @property
    def ended(self) -> bool:
        """Tell whether nothing more comes of it."""
        return self.shown.grant.ended_at is not None

    @property
    def undeclared(self) -> bool:
        """Tell whether its holder was asked what became of the files, and has not said."""
        asked = self.shown.attestation
        return asked is not None and asked.attested_at is None


def _held(work: Work, person_id: str) -> list[Held]:
    signatures = {s.id: s for s in partners.list_signatures(work)}
    found = []
    for row in partners.list_grants(work, limit=MOST):
        mine = row.person_id == person_id
        if not mine and row.organisation_id not in work.actor.organisations:
            continue
        deliveries = partners.list_deliveries(work, row.id)
        found.append(
            Held(
                shown=partners.show_grant(work, row.id),
                track=releases.load_track(work, row.track_id),
                mine=mine,
                may_end=mine or row.organisation_id in work.actor.administers,
                signature=signatures.get(row.signature_id or ""),
                last=deliveries[-1].started_at if deliveries else None,
            )
        )
    return sorted(found, key=lambda h: h.ended)


@router.get("")
def my_access(request: Request, begin: BeginPage, done: str = "") -> Response:
    """Show everything that the signed-in person holds here."""
    with begin(read_only=True) as work:
        me = people.load_person(work, work.actor.id)
        asked = [r for r in access.list_requests(work, limit=MOST) if r.applicant_id == me.id]
        held = _held(work, me.id)
        signatures = [s for s in partners.list_signatures(work)[:MOST] if s.person_id == me.id]
    return page(
        request,
        "me.html",
        me=me,
        asked=asked,
        held=held,
        signatures=signatures,
        origin=origin_of(request),
        done=DONE.get(done, ""),
    )


@router.post("/grants/{grant_id}/renew")
def ask_renewal(begin: BeginPage, sent: Sent, grant_id: str) -> Response:
    """Ask those who decide to let a grant go on."""
    with begin() as work:
        partners.ask_renewal(work, grant_id, message=sent.get("message"))
    return to("/me?done=renewal#done")


@router.get("/grants/{grant_id}/give-up")
def give_up_form(request: Request, begin: BeginPage, grant_id: str) -> Response:
    """Say what giving a grant up means, before it is done."""
    with begin(read_only=True) as work:
        shown = partners.show_grant(work, grant_id)
        track = releases.load_track(work, shown.grant.track_id)
        files = len(partners.list_deliveries(work, grant_id))
    return page(request, "give_up.html", grant=shown.grant, track=track, files=files)


@router.post("/grants/{grant_id}/give-up")
def give_up(begin: BeginPage, sent: Sent, grant_id: str) -> Response:
    """End a grant, as its holder."""
    with begin(proved=True) as work:
        partners.give_up_grant(work, grant_id, seen=sent.number("version"))
    return to("/me?done=given-up#done")


@router.post("/grants/{grant_id}/declare")
def declare(begin: BeginPage, sent: Sent, grant_id: str) -> Response:
    """Declare what became of the files of a grant that has ended."""
    with begin(proved=True) as work:
        partners.attest_destruction(
            work, grant_id, sent.get("statement"), typed_name=sent.get("typed_name")
        )
    return to("/me?done=declared#done")


# --- tokens -------------------------------------------------------------------------------------


def _show_tokens(request: Request, begin: BeginPage, *, status: int = 200, **more: Any) -> Response:
    with begin(read_only=True) as work:
        listed = people.list_tokens(work, person_id=work.actor.id)
        active = [
            releases.load_track(work, g.track_id).repo_id
            for g in partners.list_grants(work, limit=MOST)
            if g.state == "active"
            and (g.person_id == work.actor.id or g.organisation_id in work.actor.organisations)
        ]
        now = work.now
    context: dict[str, Any] = {
        "made": "",
        "name": "",
        "lasts": "90",
        "done": "",
        "chosen": ["download"],
        **more,
    }
    return page(
        request,
        "tokens.html",
        status=status,
        tokens=[
            t
            for t in listed
            if t.revoked_at is None and (t.expires_at is None or t.expires_at > now)
        ],
        origin=origin_of(request),
        example=active[0] if active else "",
        choices=list(LASTS.items()),
        scopes=[(key, *SCOPE_WORDS[key]) for key in SCOPE_WORDS if key in SCOPES],
        **context,
    )


@router.get("/tokens")
def my_tokens(request: Request, begin: BeginPage, done: str = "") -> Response:
    """Show the person's tokens, and the form that makes one."""
    return _show_tokens(request, begin, done=done)


@router.post("/tokens")
def make_token(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Make a token and show it, this once."""
    name, lasts, scopes = sent.get("name"), sent.get("lasts"), sent.all("scope")
    try:
        with begin(proved=True) as work:
            _check_token(name, lasts, scopes)
            _, text = identity.create_token(
                work,
                person=work.actor.id,
                name=name,
                scopes=scopes,
                expires_at=work.now + timedelta(days=int(lasts)),
            )
    except Invalid as error:
        errors = by_field(error.fields or (FieldError("name", error.sentence),))
        return _show_tokens(
            request, begin, status=422, errors=errors, name=name, lasts=lasts, chosen=scopes
        )
    return _show_tokens(request, begin, status=201, made=text)


def _check_token(name: str, lasts: str, scopes: list[str]) -> None:
    wrong = []
    if not name:
        wrong.append(FieldError("name", "Give the token a name."))
    if lasts not in LASTS:
        wrong.append(FieldError("lasts", "Choose how long it lasts."))
    if not scopes:
        wrong.append(FieldError("scope", "Tick at least one thing that it may do."))
    if wrong:
        raise Invalid("The token is not complete yet.", reason="token", fields=wrong)


@router.post("/tokens/{token_id}/revoke")
def revoke_token(begin: BeginPage, token_id: str) -> Response:
    """End a token now."""
    with begin() as work:
        identity.revoke_token(work, token_id)
    return to("/me/tokens?done=revoked#done")


# --- what is kept about me ----------------------------------------------------------------------


@router.get("/data")
def my_data(request: Request, begin: BeginPage) -> Response:
    """Say what is kept about the person, and offer all of it."""
    with begin(read_only=True) as work:
        me = people.load_person(work, work.actor.id)
    return page(request, "my_data.html", me=me)


@router.get("/data/export")
def export_my_data(begin: BeginPage) -> Response:
    """Download everything that is kept about the person, as JSON."""
    with begin(read_only=True) as work:
        kept = what_is_kept(work)
        day = iso(work.now)[:10]
    return Response(
        json.dumps(kept, indent=2, ensure_ascii=False),
        media_type="application/json",
        headers={
            "Content-Disposition": f'attachment; filename="stagerelease-my-data-{day}.json"',
            "Cache-Control": "no-store",
        },
    )

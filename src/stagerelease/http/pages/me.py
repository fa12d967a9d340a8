"""My access: requests, grants with their ends, signatures, tokens and sessions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from stagerelease.access import service as access
from stagerelease.http.pages.begin import BeginPage, clear_session
from stagerelease.http.pages.failing import speak_page
from stagerelease.http.pages.forms import Sent
from stagerelease.http.pages.frame import by_field, page, to
from stagerelease.http.pages.guard import refuse_forgery
from stagerelease.http.wire import origin_of
from stagerelease.identity import queries as people
from stagerelease.identity import service as identity
from stagerelease.identity import sessions
from stagerelease.kernel.errors import FieldError, Invalid
from stagerelease.partners import service as partners
from stagerelease.releases import queries as releases

router = APIRouter(
    prefix="/me",
    include_in_schema=False,
    dependencies=[Depends(speak_page), Depends(refuse_forgery)],
)
MOST = 50
LASTS = {"30": "30 days", "90": "90 days", "365": "A year"}
"""How long a token made on this page lasts, at the holder's choice."""


def _show(request: Request, begin: BeginPage, *, status: int = 200, **more: Any) -> Response:
    with begin(read_only=True) as work:
        me = people.load_person(work, work.actor.id)
        asked = [r for r in access.list_requests(work, limit=MOST) if r.applicant_id == me.id]
        grants = []
        for row in partners.list_grants(work, limit=MOST):
            if row.person_id == me.id or row.organisation_id in work.actor.organisations:
                shown = partners.show_grant(work, row.id)
                grants.append((shown, releases.load_track(work, row.track_id)))
        signatures = [s for s in partners.list_signatures(work)[:MOST] if s.person_id == me.id]
        tokens = [t for t in people.list_tokens(work, person_id=me.id) if t.revoked_at is None]
        open_sessions = sessions.list_sessions(work)
        now = work.now
    context: dict[str, Any] = {"made": "", "name": "", "lasts": "90", "done": "", **more}
    return page(
        request,
        "me.html",
        status=status,
        me=me,
        asked=asked,
        grants=grants,
        signatures=signatures,
        tokens=[t for t in tokens if t.expires_at is None or t.expires_at > now],
        open_sessions=open_sessions,
        origin=origin_of(request),
        choices=LASTS,
        **context,
    )


@router.get("")
def my_access(request: Request, begin: BeginPage, done: str = "") -> Response:
    """Show everything that the signed-in person holds here."""
    return _show(request, begin, done=done)


@router.post("/tokens")
def make_token(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Make a download token and show it, this once."""
    name, lasts = sent.get("name"), sent.get("lasts")
    try:
        with begin(proved=True) as work:
            if not name or lasts not in LASTS:
                wrong = "name" if not name else "lasts"
                sentence = "Give the token a name." if not name else "Choose how long it lasts."
                raise Invalid(sentence, reason="token", fields=[FieldError(wrong, sentence)])
            _, text = identity.create_token(
                work,
                person=work.actor.id,
                name=name,
                scopes=("download",),
                expires_at=work.now + timedelta(days=int(lasts)),
            )
    except Invalid as error:
        errors = by_field(error.fields or (FieldError("name", error.sentence),))
        return _show(request, begin, status=422, errors=errors, name=name, lasts=lasts)
    return _show(request, begin, status=201, made=text)


@router.post("/tokens/{token_id}/revoke")
def revoke_token(begin: BeginPage, token_id: str) -> Response:
    """End a token now."""
    with begin() as work:
        identity.revoke_token(work, token_id)
    return to("/me?done=revoked#done")


@router.post("/sessions/close")
def close_sessions(request: Request, begin: BeginPage) -> Response:
    """Sign out everywhere."""
    with begin() as work:
        sessions.close_all_sessions(work)
    response = to("/sign-in")
    clear_session(request, response)
    return response

"""Every page × every role is decided on purpose, in the spirit of ``test_every_route``.

``TABLE`` says for each page who may pass. One that is missing here fails the test. Who is not
signed in is led to signing in (303) or told to (401); who is, and may not, sees 403 or 404; who
may sees a page, a redirect that follows a form, or a refusal that is about the form.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from fastapi.routing import APIRoute
from test_every_route import EVERYONE, KNOWN, PERSONAS, STAFF

from browsing import ANSWERS, browser, draft_evidence
from stagerelease.access import service as access
from stagerelease.http.pages import LAST as LAST_ROUTER
from stagerelease.http.pages import ROUTERS
from stagerelease.http.pages.frame import assets
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR, SYSTEM
from stagerelease.ledger import service as ledger
from stagerelease.partners import queries as papers


@dataclass(frozen=True)
class Row:
    """Who may pass, and what is sent."""

    who: frozenset
    form: dict[str, str] = field(default_factory=dict)
    public: bool = False


OFFICERS = frozenset({"owner", "access_officer"})
APPLICANT = frozenset({"outsider"})
SIGNER = STAFF | {"researcher"}
ASK = "/models/{org}/{name}/request"
ONE = "/staff/requests/{request_id}"
TABLE = {
    "GET /": Row(EVERYONE),
    "GET /models": Row(EVERYONE),
    "GET /playground": Row(EVERYONE),
    "POST /playground": Row(KNOWN, {"prompt": ""}),
    "POST /playground/stream": Row(KNOWN, {"prompt": ""}),
    "GET /log": Row(EVERYONE),
    "GET /log/{idx}": Row(EVERYONE),
    "GET /log/{idx}/bundle": Row(EVERYONE),
    "GET /models/{org}/{name}/signatures/{signature_id}": Row(SIGNER),
    "GET /docs": Row(EVERYONE),
    "GET /docs/api": Row(EVERYONE),
    "GET /docs/api/{subject}": Row(EVERYONE),
    "GET /docs/decisions/{slug}": Row(EVERYONE),
    "GET /docs/{slug}": Row(EVERYONE),
    "GET /problems": Row(EVERYONE),
    "GET /problems/{code}": Row(EVERYONE),
    "GET /status": Row(EVERYONE),
    "GET /incidents/{number}": Row(EVERYONE),
    "GET /design": Row(EVERYONE),
    "POST /theme": Row(EVERYONE, {"theme": "dark", "next": "/models"}),
    "POST /demo/sign-in": Row(EVERYONE, {"role": "nobody"}),
    "GET /static/{digest}/{name:path}": Row(EVERYONE),
    "GET /{org}/{name}": Row(EVERYONE),
    "GET /models/{org}/{name}": Row(EVERYONE),
    f"GET {ASK}": Row(EVERYONE),
    f"POST {ASK}": Row(EVERYONE, {"_do": "save", "name": "A"}),
    f"POST {ASK}/discard": Row(EVERYONE),
    f"GET {ASK}/sent": Row(EVERYONE),
    "GET /access/confirm": Row(EVERYONE),
    "POST /access/confirm": Row(EVERYONE, {"t": "x"}),
    "GET /sign-in": Row(EVERYONE),
    "POST /sign-in": Row(EVERYONE, {"address": "nobody"}),
    "GET /sign-in/sent": Row(EVERYONE),
    "GET /sign-in/confirm": Row(EVERYONE),
    "POST /sign-in/confirm": Row(EVERYONE, {"t": "x"}),
    "GET /report": Row(EVERYONE),
    "POST /report": Row(EVERYONE, {"text": ""}),
    "GET /report/follow": Row(EVERYONE),
    "POST /report/follow": Row(EVERYONE, {"reference": "x" * 32}),
    "GET /me": Row(KNOWN),
    "GET /me/tokens": Row(KNOWN),
    "POST /me/tokens": Row(KNOWN, {"name": ""}),
    "POST /me/grants/{grant_id}/renew": Row(frozenset({"researcher"}), {"message": ""}),
    "GET /me/grants/{grant_id}/give-up": Row(SIGNER),
    "POST /me/grants/{grant_id}/give-up": Row(frozenset({"researcher"})),
    "POST /me/grants/{grant_id}/declare": Row(frozenset({"researcher"}), {"statement": ""}),
    "GET /me/data": Row(KNOWN),
    "GET /me/data/export": Row(KNOWN),
    "GET /me/evidence": Row(KNOWN),
    "POST /me/evidence": Row(KNOWN, {"title": ""}),
    "GET /me/evidence/{evidence_id}": Row(STAFF | {"researcher"}),
    "POST /me/evidence/{evidence_id}/submit": Row(frozenset({"researcher"})),
    "POST /me/evidence/{evidence_id}/attachments": Row(frozenset({"researcher"})),
    "GET /me/security": Row(KNOWN),
    "GET /me/security/passkey": Row(KNOWN),
    "POST /me/security/passkey/options": Row(KNOWN),
    "POST /me/security/passkey": Row(KNOWN, {"name": "x", "ceremony": "x"}),
    "POST /me/security/passkeys/{passkey_id}/remove": Row(KNOWN),
    "POST /me/security/password": Row(KNOWN, {"new": "short"}),
    "POST /me/sessions/{session_id}/close": Row(KNOWN),
    "GET /enrol": Row(EVERYONE),
    "POST /enrol": Row(EVERYONE, {"t": "x"}),
    "POST /sign-in/password": Row(EVERYONE, {"login": "nobody@example.org", "password": ""}),
    "POST /sign-in/passkey/options": Row(EVERYONE),
    "POST /sign-in/passkey": Row(EVERYONE, {"ceremony": "x", "credential": "{}"}),
    "POST /me/tokens/{token_id}/revoke": Row(frozenset({"owner", "outsider"})),
    "GET /requests/{request_id}": Row(STAFF | APPLICANT),
    "POST /requests/{request_id}/reply": Row(APPLICANT, {"message": ""}),
    "POST /requests/{request_id}/withdraw": Row(APPLICANT),
    "GET /agreements/{version_id}/sign": Row(KNOWN),
    "POST /agreements/{version_id}/sign": Row(KNOWN, {"typed_name": ""}),
    "GET /agreements/{version_id}/decline": Row(KNOWN),
    "GET /signatures/{signature_id}": Row(SIGNER),
    "GET /signatures/{signature_id}/text": Row(SIGNER),
    "GET /signatures/{signature_id}/pdf": Row(SIGNER),
    "GET /signatures/{signature_id}/receipt": Row(SIGNER),
    "GET /staff/requests": Row(STAFF),
    f"GET {ONE}": Row(STAFF),
    f"POST {ONE}/assign": Row(OFFICERS, {"assignee": "nobody-of-that-name"}),
    f"POST {ONE}/ask": Row(OFFICERS, {"question": ""}),
    f"POST {ONE}/note": Row(OFFICERS, {"text": "A note."}),
    f"POST {ONE}/conflict": Row(OFFICERS, {"conflict": ""}),
    f"POST {ONE}/approve": Row(OFFICERS, {"until": ""}),
    f"POST {ONE}/reject": Row(OFFICERS, {"reason": ""}),
    "POST /sign-out": Row(EVERYONE),
    "POST /step-up": Row(KNOWN, {"target": "//evil.example", "method": "post"}),
    "POST /step-up/link": Row(KNOWN, {"target": "/me", "method": "get"}),
    "GET /step-up/confirm": Row(KNOWN),
    "POST /step-up/confirm": Row(KNOWN, {"t": "x"}),
    "POST /step-up/passkey/options": Row(KNOWN),
    "POST /step-up/passkey": Row(KNOWN, {"ceremony": "x", "credential": "{}"}),
    "POST /me/sessions/close": Row(KNOWN),
}
LAST = ("/give-up", "/withdraw", "/revoke", "/sign-out", "/sessions/close")
EMPTY_IS_FINE = frozenset({404, 409, 422})


def routes() -> set[str]:
    found = set()
    for router in (*ROUTERS, LAST_ROUTER):
        for route in router.routes:
            assert isinstance(route, APIRoute)
            assert not route.include_in_schema
            found |= {f"{method} {route.path}" for method in route.methods}
    return found


def test_every_page_is_in_the_table_and_no_other():
    assert routes() == set(TABLE)


@pytest.fixture
def names(world):
    answers = {k: True if v == "on" else v for k, v in ANSWERS.items()}
    with world.box.works.begin(world.actor("outsider")) as work:
        draft = access.save_draft(work, answers=answers, repo_id=world.repos["researcher"])
        request = access.submit_draft(work, draft.id).check().request
    with world.box.works.begin(OPERATOR) as work:
        token, _ = identity.create_token(work, person="demo-outsider", name="theirs")
        version = papers.find_in_force(work, "researcher-terms")
        mine = papers.list_signatures(work, person_id=world.actor("researcher").id)
        grant = papers.list_grants(work, person_id=world.actor("researcher").id)[0]
    written = draft_evidence(world)
    with world.box.works.begin(SYSTEM, quiet=True) as work:
        ledger.sign_checkpoint(work, world.box.signer)
    return {
        "org": "demo",
        "name": "gpt2-mini-335M",
        "request_id": request.id,
        "token_id": token.id,
        "version_id": version.id,
        "signature_id": mine[0].id,
        "grant_id": grant.id,
        "evidence_id": written,
        "passkey_id": "key_of_nobody",
        "session_id": "ses_of_nobody",
        "subject": "releases",
        "slug": "staff",
        "code": "stale",
        "number": 1,
        "idx": 3,
        "digest": assets()["app.css"].digest[:16],
    }


def outcome(who, row: Row, method: str, status: int) -> str:
    """Return what is wrong with an answer; nothing when it is as the table says."""
    if status >= 500:
        return "broke"
    if who in row.who:
        fine = status < 400 or status in EMPTY_IS_FINE
    elif who is None:
        fine = status == (303 if method == "GET" else 401)
    else:
        fine = status in (403, 404)
    return "" if fine else "is let in, or kept out, otherwise than the table says"


def test_every_role_on_every_page(world, names):
    wrong = []
    clients = {who: browser(world, who) for who in PERSONAS}
    keys = sorted(TABLE, key=lambda k: (any(word in k for word in LAST), "POST" in k, k))
    keys.sort(key=lambda k: k.endswith(("/sign-out", "/sessions/close")))
    for key in keys:
        row, (method, template) = TABLE[key], key.split(" ")
        path = template.replace(":path}", "}").format(
            **{**names, "name": "app.css"} if "/static" in key else names
        )
        # Those who may not come first, so that what the others change cannot let them in.
        for who in sorted(PERSONAS, key=lambda w: (w in row.who, str(w))):
            got = clients[who].request(method, path, data=row.form or None)
            lost = who in row.who and who is not None and "/sign-in?" in str(got.headers)
            trouble = outcome(who, row, method, got.status_code)
            if trouble or lost:
                wrong.append(f"{key} as {who}: {got.status_code} {trouble}")
    assert wrong == []

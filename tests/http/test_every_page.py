"""Every page × every role is decided on purpose, in the spirit of ``test_every_route``.

``TABLE`` says for each page who may pass. One that is missing here fails the test. Who is not
signed in is led to signing in (303) or told to (401); who is, and may not, sees 403 or 404; who
may sees a page, a redirect that follows a form, or a refusal that is about the form.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Match
from test_every_route import (
    DECIDERS,
    EVERYONE,
    KNOWN,
    LAYERS,
    LIFTERS,
    MANAGERS,
    OWNER,
    PERSONAS,
    REQUESTER,
    REVIEWERS,
    STAFF,
    STOPPERS,
    WAIVERS,
)

from browsing import browser
from looks import LOOKS, lay_out
from stagerelease.http.pages import LAST as LAST_ROUTER
from stagerelease.http.pages import ROUTERS
from stagerelease.http.pages.frame import assets
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR
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


def desk_rows() -> dict[str, Row]:
    """Who may pass on the pages of staff: all of staff read, and each step has its own."""
    number, track = "/staff/promotions/{number}", "/staff/tracks/{track_id}"
    plan, incident = "/staff/plan-proposals/{number}", "/staff/incidents/{number}"
    one, paper = "/staff/evidence/{evidence_id}", "/staff/agreements/{slug}"
    version, signed = paper + "/versions/{number}", "/staff/signatures/{signature_id}"
    person, lab = "/staff/people/{handle}", "/staff/organisations/{slug}"
    hook = "/staff/webhooks/{webhook_id}"
    reads = (
        *("/staff", "/staff/promotions", number, track, "/staff/holds", "/staff/holds/{number}"),
        *("/staff/plans", "/staff/plans/{slug}", "/staff/plan-editor", plan),
        *("/staff/incidents", incident, incident + "/advisories/{advisory_id}"),
        *("/staff/evidence", one, one + "/files/{attachment_id}"),
        *("/staff/agreements", version, signed),
        *("/staff/people", person, lab, "/staff/holders"),
    )
    steps: tuple[tuple[str, frozenset], ...] = (
        *((number + step, REVIEWERS) for step in ("/approve", "/reject", "/changes", "/judge")),
        *((number + step, MANAGERS) for step in ("/cancel", "/apply")),
        *((number + step, REQUESTER) for step in ("/submit", "/edit")),
        *((number + step, WAIVERS) for step in ("/waive", *WAIVED)),
        (track + "/promote", MANAGERS),
        (track + "/withdraw", LAYERS),
        ("/staff/holds", LAYERS),
        ("/staff/holds/{number}/lift", LIFTERS),
        ("/staff/plan-editor", MANAGERS),
        ("/staff/plan-editor/check", STAFF),
        (plan + "/consent", REVIEWERS | {"release_manager"}),
        (plan + "/cancel", MANAGERS),
        ("/staff/incidents", STAFF),
        *((incident + step, LIFTERS) for step in HANDLED),
        *((one + step, DECIDERS) for step in JUDGED),
        ("/staff/agreements", OFFICERS),
        (paper + "/draft", OFFICERS),
        *((version + step, OFFICERS) for step in ("/publish", "/retire")),
        (signed + "/countersign", OFFICERS),
        (signed + "/terminate", STOPPERS),
        *((person + step, OWNER) for step in ("/roles", "/roles/{role}/end", "/stop", "/erase")),
        *((where, OWNER) for where in ("/staff/people", "/staff/organisations")),
        *((lab + step, OWNER) for step in ("/members", "/members/{handle}/end")),
        (lab + "/revoke", STOPPERS),
        *((hook + step, MANAGERS) for step in HOOKED),
        ("/staff/webhooks", MANAGERS),
    )
    rows = {f"GET {path}": Row(STAFF) for path in reads}
    rows |= {f"POST {path}": Row(who) for path, who in steps}
    rows |= {f"GET {path}": Row(MANAGERS) for path in (hook, "/staff/webhooks")}
    rows |= {
        f"GET {number}/edit": Row(REQUESTER),
        f"GET {track}/promote": Row(MANAGERS),
        "GET " + incident + "/freeze": Row(LIFTERS),
        "GET " + paper + "/draft": Row(OFFICERS),
        "GET /staff/usage": Row(MANAGERS | {"security", "auditor"}),
    }
    return rows


WAIVED = ("/waivers/{waiver_id}/sign", "/waivers/{waiver_id}/end")
HANDLED = (
    *("/triage", "/reassess", "/confirm", "/dismiss", "/mitigate", "/close", "/reopen"),
    *("/note", "/advise", "/erase"),
)
HOOKED = ("/rotate", "/stop", "/start", "/replay", "/delete")
JUDGED = ("/accept", "/reject", "/dispute", "/resolve", "/retract", "/public")
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
    "GET /me/evidence/new": Row(KNOWN),
    "GET /me/evidence/{evidence_id}/edit": Row(frozenset({"researcher"})),
    "POST /me/evidence/{evidence_id}/edit": Row(frozenset({"researcher"}), {"title": ""}),
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
    **desk_rows(),
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
NOT_LOOKED_AT = {
    "/log/{idx}/bundle": "a document of JSON",
    "/models/{org}/{name}/signatures/{signature_id}": "a signature to keep",
    "/me/data/export": "a document of JSON to keep",
    "/signatures/{signature_id}/text": "a text to keep",
    "/signatures/{signature_id}/pdf": "a PDF to keep",
    "/signatures/{signature_id}/receipt": "a document of JSON to keep",
    "/staff/evidence/{evidence_id}/files/{attachment_id}": "a file as it was handed in",
    "/static/{digest}/{name:path}": "styles, scripts, fonts",
    "/{org}/{name}": "leads to the model's page",
}
"""What a GET answers with no page of its own, and what it answers with."""


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


def page_of(path: str) -> str:
    """Return the page that answers an address: the first whose template fits."""
    scope = {"type": "http", "method": "GET", "path": path, "root_path": ""}
    found = (r for router in (*ROUTERS, LAST_ROUTER) for r in router.routes)
    return next(route.path for route in found if route.matches(scope)[0] is Match.FULL)


def test_every_page_is_looked_at_or_said_why_not():
    models = dict.fromkeys(("repo", "public", "held"), "org/name")
    filled = [look.path.format_map(defaultdict(lambda: "1", models)) for look in LOOKS.values()]
    looked_at = {page_of(path.partition("?")[0]) for path in filled if path != "/nowhere"}
    pages = {key.removeprefix("GET ") for key in TABLE if key.startswith("GET ")}
    assert pages - looked_at == set(NOT_LOOKED_AT)


@pytest.fixture
def names(world):
    found = lay_out(world, keys=False)  # who has keys is asked for a fresh proof first
    with world.box.works.begin(OPERATOR) as work:
        token, _ = identity.create_token(work, person="demo-outsider", name="theirs")
        grant = papers.list_grants(work, person_id=world.actor("researcher").id)[0]
    return {
        "org": "demo",
        "name": "gpt2-mini-335M",
        "request_id": found["request"],
        "token_id": token.id,
        "version_id": found["version"],
        "signature_id": found["signature"],
        "grant_id": grant.id,
        "passkey_id": "key_of_nobody",
        "session_id": "ses_of_nobody",
        "subject": "releases",
        "slug": "staff",
        "code": "stale",
        "number": 1,
        "idx": 3,
        "digest": assets()["app.css"].digest[:16],
        "track_id": found["track"],
        "evidence_id": found["evidence"],
        "attachment_id": "att_none",
        "advisory_id": found["advisory"],
        "waiver_id": "wvr_none",
        "webhook_id": found["webhook"],
        "handle": "demo-reviewer-b",
        "role": "reviewer",
        "meant": {
            "/staff/promotions": {"number": found["promotion"]},
            "/staff/plan-proposals": {"number": found["proposal"]},
            "/staff/incidents": {"number": found["reported"]},
            "/staff/agreements": {"slug": "researcher-terms", "number": 2},
            "/staff/plans": {"slug": "demo"},
            "/staff/organisations": {"slug": "partner-a"},
            "/static": {"name": "app.css"},
            "/me/evidence": {"evidence_id": found["draft"]},
        },
    }


def address(template: str, names: dict) -> str:
    """Return an address with its names filled in: one word means other things in other places."""
    own = next((v for k, v in names["meant"].items() if template.startswith(k)), {})
    return template.replace(":path}", "}").format(**names | own)


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
        path = address(template, names)
        # Those who may not come first, so that what the others change cannot let them in.
        for who in sorted(PERSONAS, key=lambda w: (w in row.who, str(w))):
            got = clients[who].request(method, path, data=row.form or None)
            lost = who in row.who and who is not None and "/sign-in?" in str(got.headers)
            trouble = outcome(who, row, method, got.status_code)
            if trouble or lost:
                wrong.append(f"{key} as {who}: {got.status_code} {trouble}")
    assert wrong == []

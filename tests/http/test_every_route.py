"""Every route × every role is decided on purpose.

``TABLE`` says for each route who may pass. A route that is missing here fails the test, and so does
a caller who gets in, or is kept out, otherwise than the table says. Those who may not must see 401,
403 or 404, never anything else; those who may must see none of the first two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from stagerelease.access import service as access
from stagerelease.catalog import queries as catalog
from stagerelease.identity import service as identity
from stagerelease.kernel.actor import OPERATOR
from stagerelease.partners import queries as partner_queries
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service

PERSONAS = (
    None,
    *("owner", "release_manager", "reviewer_a", "access_officer", "security", "auditor"),
    *("partner", "other_partner", "researcher", "outsider"),
)
EVERYONE = frozenset(PERSONAS)
KNOWN = EVERYONE - {None}
STAFF = frozenset(
    {"owner", "release_manager", "reviewer_a", "access_officer", "security", "auditor"}
)
OWNER = frozenset({"owner"})
MANAGERS = OWNER | {"release_manager"}
REQUESTER = frozenset({"release_manager"})
REVIEWERS = frozenset({"reviewer_a"})
OFFICERS = OWNER | {"access_officer"}
STOPPERS = OFFICERS | {"security"}
LIFTERS = OWNER | {"security"}
LAYERS = MANAGERS | {"security"}
SIGNERS = frozenset({"partner", "other_partner", "researcher"})


@dataclass(frozen=True)
class Row:
    """Who may pass, and a body that is well formed."""

    who: frozenset[str | None]
    body: dict[str, Any] | None = None
    query: dict[str, Any] = field(default_factory=dict)


WHY = {"reason": "A reason."}
SEEN = {"request_hash": "0" * 64}
TABLE: dict[str, Row] = {
    "GET /livez": Row(EVERYONE),
    "GET /readyz": Row(EVERYONE),
    "GET /version": Row(EVERYONE),
    "GET /problems/{code}": Row(EVERYONE),
    "GET /log/vkey": Row(EVERYONE),
    "GET /log/checkpoint": Row(EVERYONE),
    "GET /log/proof/{idx}": Row(EVERYONE),
    "GET /api/v1/log/entries": Row(EVERYONE),
    "GET /api/v1/log/consistency": Row(EVERYONE, query={"old": 1, "new": 2}),
    "GET /api/v1/log/entries/{idx}/reveal": Row(OWNER | {"security", "auditor"}),
    "GET /api/v1/me": Row(KNOWN),
    "GET /api/v1/people": Row(STAFF),
    "POST /api/v1/people": Row(OWNER, {"handle": "new", "display_name": "New"}),
    "POST /api/v1/people/{handle}/disable": Row(OWNER),
    "POST /api/v1/people/{handle}/roles": Row(OWNER, {"role": "auditor"}),
    "DELETE /api/v1/people/{handle}/roles/{role}": Row(OWNER),
    "GET /api/v1/organisations": Row(STAFF),
    "POST /api/v1/organisations": Row(OWNER, {"slug": "new", "name": "New"}),
    "POST /api/v1/organisations/{slug}/members": Row(OWNER, {"person": "victim"}),
    "DELETE /api/v1/organisations/{slug}/members/{handle}": Row(OWNER),
    "GET /api/v1/tokens": Row(KNOWN),
    "POST /api/v1/tokens": Row(OWNER, {"name": "x", "person": "victim"}),
    "DELETE /api/v1/tokens/{token_id}": Row(OWNER),
    "GET /api/v1/catalog/families": Row(STAFF),
    "GET /api/v1/catalog/repos": Row(STAFF),
    "GET /api/v1/catalog/repos/{ns}/{name}/revisions": Row(STAFF),
    "GET /api/v1/plans": Row(STAFF),
    "POST /api/v1/plans": Row(MANAGERS, {"source": "plan: [", "dry_run": None}),
    "GET /api/v1/plans/{slug}": Row(STAFF),
    "GET /api/v1/promotions": Row(STAFF),
    "POST /api/v1/promotions": Row(
        MANAGERS, {"track_id": "$track", "to": "public", "rationale": "Why."}
    ),
    "GET /api/v1/promotions/{promotion_id}": Row(STAFF),
    "POST /api/v1/promotions/{promotion_id}/approve": Row(REVIEWERS, SEEN),
    "POST /api/v1/promotions/{promotion_id}/reject": Row(REVIEWERS, {**SEEN, "comment": "No."}),
    "POST /api/v1/promotions/{promotion_id}/request-changes": Row(
        REVIEWERS, {**SEEN, "comment": "Change it."}
    ),
    "POST /api/v1/promotions/{promotion_id}/judge": Row(
        REVIEWERS, {**SEEN, **WHY, "gate": "manual", "passed": True}
    ),
    "POST /api/v1/promotions/{promotion_id}/edit": Row(REQUESTER, SEEN),
    "POST /api/v1/promotions/{promotion_id}/resubmit": Row(REQUESTER),
    "POST /api/v1/promotions/{promotion_id}/cancel": Row(MANAGERS, {}),
    "POST /api/v1/promotions/{promotion_id}/apply": Row(MANAGERS),
    "GET /api/v1/tracks": Row(STAFF),
    "POST /api/v1/tracks": Row(MANAGERS, {"repo_id": "demo/gpt2-mini-774M"}),
    "GET /api/v1/tracks/{track_id}": Row(STAFF),
    "GET /api/v1/tracks/{track_id}/gates": Row(STAFF, query={"to": "public"}),
    "POST /api/v1/tracks/{track_id}/withdraw": Row(LAYERS, WHY),
    "GET /api/v1/board": Row(STAFF),
    "GET /api/v1/holds": Row(STAFF),
    "POST /api/v1/holds": Row(LAYERS, {**WHY, "scope": "track", "scope_id": "$other_track"}),
    "GET /api/v1/holds/{hold_id}": Row(STAFF),
    "POST /api/v1/holds/{hold_id}/lift": Row(LIFTERS, WHY),
    "GET /api/v1/grants": Row(KNOWN),
    "POST /api/v1/grants": Row(
        OFFICERS,
        {
            "track_id": "$track",
            "organisation": "partner-b",
            "purpose": "Study.",
            "valid_until": "2026-12-01T00:00:00Z",
        },
    ),
    "GET /api/v1/grants/{grant_id}": Row(STAFF | {"partner"}),
    "GET /api/v1/grants/{grant_id}/deliveries": Row(STAFF | {"partner"}),
    "POST /api/v1/grants/{grant_id}/suspend": Row(STOPPERS, WHY),
    "POST /api/v1/grants/{grant_id}/resume": Row(STOPPERS),
    "POST /api/v1/grants/{grant_id}/revoke": Row(STOPPERS, WHY),
    "POST /api/v1/grants/{grant_id}/attest": Row(
        frozenset({"partner"}), {"statement": "Destroyed."}
    ),
    "GET /api/v1/agreements": Row(KNOWN),
    "POST /api/v1/agreements": Row(OFFICERS, {"slug": "new", "title": "New"}),
    "GET /api/v1/agreements/{slug}": Row(KNOWN),
    "GET /api/v1/agreements/{slug}/outdated-signatures": Row(STAFF),
    "POST /api/v1/agreements/{slug}/versions": Row(OFFICERS, {"text": "# Terms"}),
    "GET /api/v1/agreements/{slug}/versions/{number}": Row(KNOWN),
    "POST /api/v1/agreements/{slug}/versions/{number}/publish": Row(OFFICERS),
    "POST /api/v1/agreements/{slug}/versions/{number}/retire": Row(OFFICERS),
    "GET /api/v1/signatures": Row(KNOWN),
    "POST /api/v1/signatures": Row(
        SIGNERS,
        {
            "version_id": "$version",
            "text_sha256": "0" * 64,
            "typed_name": "N",
            "typed_title": "T",
            "authorised_to_bind": True,
            "consents_electronically": True,
        },
    ),
    "GET /api/v1/signatures/{signature_id}": Row(STAFF | {"partner"}),
    "POST /api/v1/signatures/{signature_id}/countersign": Row(OFFICERS),
    "POST /api/v1/signatures/{signature_id}/terminate": Row(STOPPERS | {"partner"}, WHY),
    "GET /api/v1/access-requests": Row(KNOWN),
    "POST /api/v1/access-requests": Row(KNOWN, {"repo_id": "$repo"}),
    "POST /api/v1/access-requests/admit": Row(
        OFFICERS, {"repo_id": "$repo", "person": "demo-outsider"}
    ),
    "GET /api/v1/access-requests/{request_id}": Row(STAFF | {"outsider"}),
    "POST /api/v1/access-requests/{request_id}/accept": Row(OFFICERS, {}),
    "POST /api/v1/access-requests/{request_id}/reject": Row(OFFICERS, WHY),
    "POST /api/v1/access-requests/{request_id}/reopen": Row(OFFICERS),
    "POST /api/v1/access-requests/{request_id}/withdraw": Row(frozenset({"outsider"})),
}


@pytest.fixture
def names(world) -> dict[str, str]:
    """Real things to name in paths and bodies."""
    box = world.box
    with box.works.begin(OPERATOR) as work:
        identity.create_person(work, handle="victim", display_name="Victim")
        identity.assign_role(work, person="victim", role="reviewer")
        row, _ = identity.create_token(work, person="victim", name="x")
        token_id = row.id
        identity.add_member(work, organisation="partner-b", person="victim", role="partner_member")
    with box.works.begin(world.actor("outsider")) as work:
        request = access.submit(work, repo_id=world.repos["partner"], answers={"why": "study"})
    tracks = {}
    with box.works.begin(read_only=True) as work:
        tracks = {t.repo_id: t for t in releases.list_tracks(work)}
        track, other = tracks[world.repos["partner"]], tracks[world.repos["internal"]]
        grant = partner_queries.list_grants(work, track_id=track.id)[0]
        version = partner_queries.find_in_force(work, "model-sharing")
        assert catalog.find_variant(work, world.repos["partner"])
    with box.works.begin(world.actor("release_manager")) as work:
        promotion = release_service.open_promotion(
            work, track_id=track.id, to="researcher", rationale="On we go."
        )
        hold = release_service.lay_hold(
            work, scope="track", scope_id=other.id, reason="For the test."
        )
    return {
        "code": "not-found",
        "idx": "1",
        "handle": "victim",
        "role": "reviewer",
        "slug": "model-sharing",
        "token_id": token_id,
        "ns": "demo",
        "name": "gpt2-mini-774M",
        "promotion_id": str(promotion.id),
        "track_id": track.id,
        "hold_id": str(hold.id),
        "grant_id": grant.id,
        "number": "1",
        "signature_id": grant.signature_id,
        "request_id": request.id,
        "$track": track.id,
        "$other_track": other.id,
        "$version": version.id,
        "$repo": world.repos["partner"],
    }


LAST = ("/withdraw", "/revoke", "/terminate", "/retire", "/disable", "DELETE ")


def in_order(keys: list[str]) -> list[str]:
    """Reads first, then changes, then what ends things."""
    return sorted(keys, key=lambda k: (not k.startswith("GET"), any(word in k for word in LAST), k))


def fill(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {k: fill(v, names) for k, v in value.items() if v is not None}
    return names.get(value, value) if isinstance(value, str) else value


def test_every_route_is_in_the_table_and_no_other(world):
    spec = world.client().get("/api/v1/openapi.json").json()
    there = {f"{m.upper()} {path}" for path, ways in spec["paths"].items() for m in ways}
    assert there == set(TABLE)


def test_every_role_on_every_route(world, names):
    wrong = []
    clients = {who: world.client(who) for who in PERSONAS}
    for key in in_order(list(TABLE)):
        row = TABLE[key]
        method, template = key.split(" ")
        path = template.format(**names)
        if "/organisations/" in path:
            path = path.replace("model-sharing", "partner-b")
        if template == "/api/v1/plans/{slug}":
            path = "/api/v1/plans/demo"
        body = fill(row.body, names) if row.body is not None else None
        # Those who may not come first, so that what the others change cannot let them in.
        for who in sorted(PERSONAS, key=lambda w: (w in row.who, str(w))):
            got = clients[who].request(method, path, json=body, params=row.query)
            if who in row.who:
                fine = got.status_code not in (401, 403) and got.status_code < 500
            elif who is None:
                fine = got.status_code == 401
            else:
                fine = got.status_code in (403, 404)
            if not fine:
                wrong.append(f"{key} as {who}: {got.status_code} {got.text[:160]}")
    assert wrong == []

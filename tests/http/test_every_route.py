"""Every route × every role is decided on purpose.

``TABLE`` says for each route who may pass. A route that is missing here fails the test, and so does
a caller who gets in, or is kept out, otherwise than the table says. Those who may not must see 401,
403 or 404, never anything else; those who may must see none of the first two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stagerelease.access import service as access
from stagerelease.catalog import queries as catalog
from stagerelease.evidence import service as evidence
from stagerelease.http.needs import NEEDS
from stagerelease.identity import service as identity
from stagerelease.identity.rules import EVERYONE_KNOWN, permissions_of
from stagerelease.incidents import service as incidents
from stagerelease.kernel.actor import OPERATOR
from stagerelease.notices import service as notices
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
WAIVERS = REVIEWERS | {"security"}
DECIDERS = LAYERS | {"reviewer_a"}
SUBMITTERS = DECIDERS | {"partner", "other_partner", "researcher"}
EVIDENCE = {
    "type": "benefit",
    "metric": "finding",
    "title": "Use",
    "subject_sha256": "$weights",
    "source": "A report.",
    "fact_status": "reported",
    "measured_at": "2026-01-01T00:00:00Z",
    "verdict": "some_benefit",
    "finding": "It is used.",
}
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
    "GET /log/vkey": Row(EVERYONE),
    "GET /log/checkpoint": Row(EVERYONE),
    "GET /log/proof/{idx}": Row(EVERYONE),
    "GET /api/v1/log/entries": Row(EVERYONE),
    "GET /api/v1/log/consistency": Row(EVERYONE, query={"old": 1, "new": 2}),
    "GET /api/v1/log/entries/{idx}/reveal": Row(OWNER | {"security", "auditor"}),
    "GET /api/v1/me": Row(KNOWN),
    "GET /api/v1/people": Row(STAFF),
    "POST /api/v1/people": Row(OWNER, {"handle": "new", "display_name": "New"}),
    "POST /api/v1/people/{handle}/erase": Row(OWNER, WHY),
    "POST /api/v1/people/{handle}/disable": Row(OWNER),
    "POST /api/v1/people/{handle}/roles": Row(OWNER, {"role": "auditor"}),
    "DELETE /api/v1/people/{handle}/roles/{role}": Row(OWNER),
    "GET /api/v1/organisations": Row(STAFF),
    "POST /api/v1/organisations": Row(OWNER, {"slug": "new", "name": "New"}),
    "POST /api/v1/organisations/{slug}/members": Row(OWNER, {"person": "victim"}),
    "GET /api/v1/organisations/{slug}/members": Row(STAFF | {"other_partner"}),
    "DELETE /api/v1/organisations/{slug}/members/{handle}": Row(OWNER | {"other_partner"}),
    "GET /api/v1/tokens": Row(KNOWN),
    "POST /api/v1/tokens": Row(OWNER, {"name": "x", "person": "robot"}),
    "DELETE /api/v1/tokens/{token_id}": Row(OWNER),
    "GET /api/v1/catalog/families": Row(STAFF),
    "GET /api/v1/catalog/repos": Row(STAFF),
    "GET /api/v1/catalog/repos/{ns}/{name}/revisions": Row(STAFF),
    "POST /api/v1/catalog/repos/{ns}/{name}/card-lock": Row(MANAGERS, {}),
    "GET /api/v1/catalog/repos/{ns}/{name}/card-lock": Row(STAFF),
    "GET /api/v1/catalog/repos/{ns}/{name}/signatures": Row(STAFF | {"partner"}),
    "POST /api/v1/catalog/repos/{ns}/{name}/signatures": Row(MANAGERS, {"bundle": "{}"}),
    "GET /api/v1/catalog/repos/{ns}/{name}/signatures/{signature_id}/bundle": Row(
        STAFF | {"partner"}
    ),
    "GET /api/v1/signing-keys": Row(EVERYONE),
    "POST /api/v1/signing-keys": Row(OWNER, {"id": "k", "pem": "x"}),
    "POST /api/v1/signing-keys/{key_id}/retire": Row(OWNER, WHY),
    "GET /api/v1/plans": Row(STAFF),
    "POST /api/v1/plans": Row(MANAGERS, {"source": "plan: [", "rationale": "Why."}),
    "POST /api/v1/plans/lint": Row(STAFF, {"source": "plan: ["}),
    "GET /api/v1/plans/schema.json": Row(EVERYONE),
    "GET /api/v1/plans/{slug}": Row(STAFF),
    "GET /api/v1/plans/{slug}/diff": Row(STAFF, query={"a": 1}),
    "GET /api/v1/plan-proposals": Row(STAFF),
    "GET /api/v1/plan-proposals/{proposal_id}": Row(STAFF),
    "POST /api/v1/plan-proposals/{proposal_id}/consent": Row(
        REVIEWERS | {"release_manager"}, {"sha256": "0" * 64}
    ),
    "POST /api/v1/plan-proposals/{proposal_id}/cancel": Row(MANAGERS, {"reason": "Why."}),
    "POST /api/v1/tracks/{track_id}/simulate": Row(STAFF, {"to": "public"}),
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
    "GET /api/v1/waivers": Row(STAFF),
    "POST /api/v1/waivers": Row(
        WAIVERS,
        {
            **WHY,
            "track_id": "$track",
            "stage": "public",
            "gate": "no-such-gate",
            "ends_at": "2026-12-01T00:00:00Z",
        },
    ),
    "GET /api/v1/waivers/{waiver_id}": Row(STAFF),
    "POST /api/v1/waivers/{waiver_id}/sign": Row(WAIVERS),
    "POST /api/v1/waivers/{waiver_id}/end": Row(WAIVERS, WHY),
    "GET /api/v1/tracks": Row(STAFF),
    "POST /api/v1/tracks": Row(MANAGERS, {"repo_id": "demo/gpt2-mini-774M"}),
    "GET /api/v1/tracks/{track_id}": Row(STAFF),
    "GET /api/v1/tracks/{track_id}/report": Row(STAFF, query={"audience": "full"}),
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
    "GET /api/v1/grants/holders": Row(STAFF),
    "GET /api/v1/grants/attestations": Row(STAFF),
    "POST /api/v1/grants/{grant_id}/consent": Row(OFFICERS),
    "GET /api/v1/agreements/{slug}/versions/{number}/pdf": Row(KNOWN),
    "GET /api/v1/agreements/{slug}/diff": Row(KNOWN, query={"a": 1, "b": 1}),
    "GET /api/v1/signatures/{signature_id}/pdf": Row(STAFF | {"partner"}),
    "GET /api/v1/signatures/{signature_id}/receipt": Row(STAFF | {"partner"}),
    "GET /api/v1/me/notices": Row(KNOWN),
    "GET /api/v1/me/notice-choices": Row(KNOWN),
    "PUT /api/v1/me/notice-choices/{group}": Row(KNOWN, {"mode": "immediate"}),
    "GET /api/v1/notices": Row(STAFF),
    "POST /api/v1/notices/send-again": Row(OWNER, {"notice_id": "ntc_none"}),
    "GET /api/v1/webhooks": Row(MANAGERS),
    "POST /api/v1/webhooks": Row(MANAGERS, {"url": "http://not-https.example"}),
    "POST /api/v1/webhooks/{webhook_id}/rotate": Row(MANAGERS),
    "POST /api/v1/webhooks/{webhook_id}/disable": Row(MANAGERS, WHY),
    "POST /api/v1/webhooks/{webhook_id}/enable": Row(MANAGERS),
    "DELETE /api/v1/webhooks/{webhook_id}": Row(MANAGERS),
    "GET /api/v1/webhooks/{webhook_id}/deliveries": Row(MANAGERS),
    "POST /api/v1/webhooks/{webhook_id}/replay": Row(MANAGERS, {}),
    "GET /api/v1/timeline": Row(EVERYONE),
    "GET /feed.atom": Row(EVERYONE),
    "GET /feed.json": Row(EVERYONE),
    "POST /api/v1/grants/{grant_id}/renew": Row(OFFICERS, {"valid_until": "2001-01-01T00:00:00Z"}),
    "GET /api/v1/grants/{grant_id}/renewal": Row(STAFF | {"partner"}),
    "POST /api/v1/organisations/{slug}/revoke-access": Row(STOPPERS, WHY),
    "GET /api/v1/grants/{grant_id}": Row(STAFF | {"partner"}),
    "GET /api/v1/grants/{grant_id}/deliveries": Row(STAFF | {"partner"}),
    "POST /api/v1/grants/{grant_id}/suspend": Row(STOPPERS, WHY),
    "POST /api/v1/grants/{grant_id}/resume": Row(STOPPERS),
    "POST /api/v1/grants/{grant_id}/revoke": Row(STOPPERS, WHY),
    "POST /api/v1/grants/{grant_id}/attest": Row(
        frozenset({"partner"}), {"statement": "Destroyed.", "typed_name": "A Name"}
    ),
    "GET /api/v1/duo-codes": Row(EVERYONE),
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
    "GET /api/v1/access-requests/queue": Row(STAFF),
    "GET /api/v1/access-requests/decision-times": Row(EVERYONE),
    "POST /api/v1/access-requests/drafts": Row(EVERYONE, {"repo_id": "$repo", "answers": {}}),
    "GET /api/v1/access-requests/drafts/{draft_id}": Row(EVERYONE),
    "PUT /api/v1/access-requests/drafts/{draft_id}": Row(EVERYONE, {"answers": {}}),
    "DELETE /api/v1/access-requests/drafts/{draft_id}": Row(EVERYONE),
    "POST /api/v1/access-requests/drafts/{draft_id}/submit": Row(EVERYONE),
    "GET /api/v1/access-requests/confirm": Row(EVERYONE, query={"token": "x"}),
    "POST /api/v1/access-requests/confirm": Row(EVERYONE, {"token": "x"}),
    "GET /api/v1/access-requests/{request_id}": Row(STAFF | {"outsider"}),
    "POST /api/v1/access-requests/{request_id}/approve": Row(OFFICERS, {}),
    "POST /api/v1/access-requests/{request_id}/ask": Row(OFFICERS, {"question": "Why?"}),
    "POST /api/v1/access-requests/{request_id}/assign": Row(OFFICERS, {}),
    "POST /api/v1/access-requests/{request_id}/notes": Row(OFFICERS, {"text": "A note."}),
    "POST /api/v1/access-requests/{request_id}/conflicts": Row(OFFICERS, WHY),
    "POST /api/v1/access-requests/{request_id}/reply": Row(
        frozenset({"outsider"}), {"message": "Hello."}
    ),
    "GET /api/v1/access-forms": Row(STAFF),
    "POST /api/v1/access-forms": Row(OFFICERS, {"source": "form: ["}),
    "POST /api/v1/access-forms/lint": Row(KNOWN, {"source": "form: ["}),
    "GET /api/v1/access-forms/asked": Row(EVERYONE, query={"repo_id": "demo/gpt2-mini-124M"}),
    "GET /api/v1/access-forms/{slug}": Row(STAFF),
    "POST /api/v1/access-requests/{request_id}/accept": Row(OFFICERS, {}),
    "POST /api/v1/access-requests/{request_id}/reject": Row(OFFICERS, WHY),
    "POST /api/v1/access-requests/{request_id}/reopen": Row(OFFICERS),
    "POST /api/v1/access-requests/{request_id}/withdraw": Row(frozenset({"outsider"})),
    "POST /api/v1/incident-reports": Row(EVERYONE, {"text": "Weights on a torrent site."}),
    "POST /api/v1/incident-reports/follow": Row(EVERYONE, {"reference": "$reference"}),
    "POST /api/v1/incident-reports/words": Row(
        EVERYONE, {"reference": "$reference", "text": "One more thing."}
    ),
    "POST /api/v1/incident-reports/forget-me": Row(EVERYONE, {"reference": "$reference"}),
    "GET /api/v1/public/incidents": Row(EVERYONE),
    "GET /api/v1/public/incidents/{incident_id}": Row(EVERYONE),
    "GET /api/v1/incidents": Row(STAFF),
    "GET /api/v1/incidents/{incident_id}": Row(STAFF),
    "POST /api/v1/incidents/{incident_id}/triage": Row(
        LIFTERS, {"severity": "low", "blocking": False}
    ),
    "POST /api/v1/incidents/{incident_id}/reassess": Row(LIFTERS, WHY),
    "POST /api/v1/incidents/{incident_id}/confirm": Row(LIFTERS, WHY),
    "POST /api/v1/incidents/{incident_id}/dismiss": Row(LIFTERS, WHY),
    "POST /api/v1/incidents/{incident_id}/mitigate": Row(LIFTERS, WHY),
    "POST /api/v1/incidents/{incident_id}/close": Row(LIFTERS, {"outcome": "Over."}),
    "POST /api/v1/incidents/{incident_id}/reopen": Row(LIFTERS, WHY),
    "POST /api/v1/incidents/{incident_id}/updates": Row(LIFTERS, {"text": "A word."}),
    "POST /api/v1/incidents/{incident_id}/advisories": Row(LIFTERS, {"text": "A word."}),
    "POST /api/v1/incidents/{incident_id}/erase-report": Row(LIFTERS, WHY),
    "GET /api/v1/advisories": Row(KNOWN),
    "GET /api/v1/advisories/overdue": Row(STAFF),
    "GET /api/v1/advisories/{advisory_id}/receipts": Row(STAFF),
    "POST /api/v1/advisories/{receipt_id}/acknowledge": Row(frozenset({"partner"})),
    "GET /v1/models": Row(KNOWN),
    "GET /v1/models/{model}": Row(STAFF | {"partner"}),
    "POST /v1/completions": Row(KNOWN, {"model": "$public", "prompt": "x", "max_tokens": 1}),
    "POST /v1/chat/completions": Row(
        KNOWN,
        {"model": "$public", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1},
    ),
    "POST /v1/score": Row(KNOWN, {"model": "$public", "texts": ["xy"]}),
    "POST /v1/embeddings": Row(KNOWN, {"model": "$public", "input": "x"}),
    "GET /api/v1/inference/usage": Row(KNOWN),
    "POST /api/v1/inference/prompts": Row(LIFTERS, WHY),
    "GET /api/v1/grants/{grant_id}/inference-limits": Row(STAFF | {"partner"}),
    "PUT /api/v1/grants/{grant_id}/inference-limits": Row(OFFICERS, {**WHY, "sequences": 2}),
    "GET /api/v1/usage": Row(MANAGERS | {"security", "auditor"}),
    "GET /api/v1/usage/anomalies": Row(MANAGERS | {"security", "auditor"}),
    "POST /api/v1/usage/evidence": Row(MANAGERS | {"security"}, {"track_id": "$track"}),
}


def with_incident(world, track_id: str) -> dict[str, str]:
    """A confirmed incident that stops nothing, its report and the advisory to the partner."""
    with world.box.works.begin(world.actor("security")) as work:
        reported = incidents.report(work, text="Somebody sells them.")
        number = reported.incident_id
        links = incidents.Links(tracks=[track_id])
        incidents.triage(work, number, severity="low", blocking=False, links=links)
        page = incidents.confirm(work, number, reason="Seen.", advisory="Look after your copies.")
    with world.box.works.begin(world.actor("partner")) as work:
        receipt = incidents.my_advisories(work)[0]
    return {
        "incident_id": str(number),
        "advisory_id": page.advisories[0].id,
        "receipt_id": receipt.id,
        "$reference": reported.reference,
    }


TABLE |= {
    "GET /api/v1/evidence-types": Row(EVERYONE),
    "GET /api/v1/evidence": Row(EVERYONE),
    "POST /api/v1/evidence": Row(DECIDERS | {"partner"}, EVIDENCE),
    "POST /api/v1/evidence/import": Row(SUBMITTERS, {"format": "json", "text": "[]"}),
    "GET /api/v1/evidence/{evidence_id}": Row(STAFF | {"partner"}),
    "PUT /api/v1/evidence/{evidence_id}": Row(frozenset({"partner"}), EVIDENCE),
    "POST /api/v1/evidence/{evidence_id}/submit": Row(frozenset({"partner"})),
    "POST /api/v1/evidence/{evidence_id}/accept": Row(DECIDERS, {}),
    "POST /api/v1/evidence/{evidence_id}/reject": Row(DECIDERS, WHY),
    "POST /api/v1/evidence/{evidence_id}/dispute": Row(DECIDERS | {"partner"}, WHY),
    # The owner has disputed it by then, first in the order below, and so may not resolve it.
    "POST /api/v1/evidence/{evidence_id}/resolve": Row(DECIDERS - {"owner"}, WHY),
    "POST /api/v1/evidence/{evidence_id}/retract": Row(DECIDERS | {"partner"}, WHY),
    "POST /api/v1/evidence/{evidence_id}/public": Row(DECIDERS, {"shown": True}),
    "POST /api/v1/evidence/{evidence_id}/attachments": Row(
        frozenset({"partner"}), {}, query={"filename": "a.txt"}
    ),
    "GET /api/v1/evidence/{evidence_id}/attachments/{attachment_id}": Row(STAFF | {"partner"}),
    "GET /api/v1/coordination": Row(STAFF),
    "POST /api/v1/coordination": Row(
        LAYERS,
        {
            "family_id": "$family",
            "developer": "Another laboratory",
            "claim": "Rebuilt it",
            "kind": "replication",
            "happened_on": "2019-08",
            "source": "Their report.",
            "fact_status": "reported",
        },
    ),
    "GET /api/v1/coordination/{record_id}": Row(STAFF),
    "POST /api/v1/coordination/{record_id}/update": Row(LAYERS, {"status": "closed"}),
}


def with_evidence(world, track) -> dict[str, str]:
    """Let the partner submit evidence with a file; name it, its subject and a talk."""
    box = world.box
    with box.works.begin(OPERATOR) as work:
        files = catalog.files(work, track.revision_id)
        weights = next(f.sha256 for f in files if f.path == "model.safetensors")
        record = evidence.add_coordination(
            work, **TABLE["POST /api/v1/coordination"].body | {"family_id": track.family_id}
        )
    new = evidence.NewEvidence(
        **{**EVIDENCE, "subject_sha256": weights, "measured_at": datetime(2026, 1, 1, tzinfo=UTC)}
    )
    with evidence.Receiver(box.blobs, limit=100) as receiver:
        receiver.write(b"a,b")
        stored = receiver.finish(None)
    with box.works.begin(world.actor("partner")) as work:
        row = evidence.hand_in(work, new)
        file = evidence.note_attached(work, box.blobs, row.id, filename="t.csv", stored=stored)
    return {
        "evidence_id": row.id,
        "attachment_id": file.id,
        "record_id": record.id,
        "$weights": weights,
        "$family": track.family_id,
    }


@pytest.fixture
def names(world) -> dict[str, str]:
    """Real things to name in paths and bodies."""
    box = world.box
    with box.works.begin(OPERATOR) as work:
        identity.create_person(work, handle="victim", display_name="Victim")
        identity.assign_role(work, person="victim", role="reviewer")
        identity.create_person(work, handle="robot", display_name="Robot", kind="service")
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
        webhook = notices.create_webhook(
            work, url="https://hooks.example/", events=[], link_key=b"k" * 32
        )
    watched = with_incident(world, track.id) | with_evidence(world, track)
    return {
        **watched,
        "code": "not-found",
        "idx": "1",
        "key_id": "none",
        "handle": "victim",
        "role": "reviewer",
        "slug": "model-sharing",
        "token_id": token_id,
        "ns": "demo",
        "name": "gpt2-mini-774M",
        "promotion_id": str(promotion.id),
        "waiver_id": "wvr_none",
        "proposal_id": "1",
        "track_id": track.id,
        "hold_id": str(hold.id),
        "webhook_id": webhook.id,
        "group": "access",
        "grant_id": grant.id,
        "number": "1",
        "signature_id": grant.signature_id,
        "request_id": request.id,
        "draft_id": "adr_none",
        "$track": track.id,
        "$other_track": other.id,
        "$version": version.id,
        "$repo": world.repos["partner"],
        "$public": world.repos["public"],
        "model": world.repos["partner"],
    }


LAST = ("/conflicts", "/withdraw", "/revoke", "/terminate", "/retire", "/disable", "DELETE ")


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


def said_of(world) -> dict[str, dict[str, Any]]:
    """Return what the description says of every operation, by method and path."""
    spec = world.client().get("/api/v1/openapi.json").json()
    return {
        f"{m.upper()} {path}": op for path, ways in spec["paths"].items() for m, op in ways.items()
    }


def printed_roles() -> dict[str, set[str]]:
    """Return who holds each permission, as docs/permissions.md prints it."""
    lines = (Path(__file__).parents[2] / "docs/permissions.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line[:1] == "|"]
    roles = rows[0][1:]
    return {
        row[0].strip("`"): {role for role, mark in zip(roles, row[1:], strict=True) if mark}
        for row in rows[2:]
    }


def test_the_description_says_who_may_call_what_as_the_tables_do(world):
    printed = printed_roles()
    holders = {who: permissions_of(world.actor(who)) for who in KNOWN}
    said = said_of(world)
    assert set(said) == set(NEEDS)
    for key, operation in said.items():
        needs, row = operation["x-permission"], TABLE[key]
        asked = set(needs.get("permissions", ()))
        assert operation["description"].endswith(f"\n\n{needs['words']}"), key
        assert all(one in needs["words"] for one in asked), key
        if asked - EVERYONE_KNOWN:
            roles = set.intersection(*(printed[one] for one in asked))
            assert set(needs["roles"]) == roles != set(), key
        may = {who for who in KNOWN if asked <= holders[who]} if needs["token"] else EVERYONE
        if "only" in needs:
            assert row.who <= may, key
        elif "also" in needs:
            assert row.who >= may, key
        else:
            assert row.who == may, key


def test_every_role_on_every_route(world, names):
    wrong = []
    said = said_of(world)
    clients = {who: world.client(who) for who in PERSONAS}
    for key in in_order(list(TABLE)):
        row = TABLE[key]
        method, template = key.split(" ")
        path = template.format(**names)
        if "/organisations/" in path:
            path = path.replace("model-sharing", "partner-b")
        if template.startswith("/api/v1/plans/{slug}"):
            path = template.format(slug="demo")
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
            lacks = re.search(r'"reason": ?"permission\.([^"]+)"', got.text)
            if lacks is not None:  # a refusal names a permission that the description names too
                fine = fine and lacks.group(1) in said[key]["x-permission"].get("permissions", ())
            if not fine:
                wrong.append(f"{key} as {who}: {got.status_code} {got.text[:160]}")
    assert wrong == []

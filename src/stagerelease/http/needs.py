"""Who may call each operation of the API, said once: in its description and in the reference.

The use cases decide; this repeats what they ask for. Which roles hold a permission is never said
here, it is read from the one table in ``identity.rules``. A test calls every operation as every
role and compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from stagerelease.http.problems import Problem
from stagerelease.identity.rules import EVERYONE_KNOWN, ROLE_PERMISSIONS, Permission, Role

P = Permission


@dataclass(frozen=True, slots=True)
class Needs:
    """Who may call an operation: whoever has a token, and all of ``permissions``.

    ``only`` says who of these may, where not all may; ``also`` says who may besides.
    """

    permissions: tuple[Permission, ...] = ()
    token: bool = True
    only: str = ""
    also: str = ""

    @property
    def roles(self) -> tuple[Role, ...]:
        """Return the roles that hold all its permissions; none where every account does."""
        if set(self.permissions) <= EVERYONE_KNOWN:
            return ()
        return tuple(r for r in Role if set(self.permissions) <= ROLE_PERMISSIONS[r])

    @property
    def words(self) -> str:
        """Return it as a sentence or two."""
        if not self.token:
            return "Open to everybody; no token is needed."
        if self.only and not self.permissions:
            return f"For {self.only} alone."
        names = " and ".join(self.permissions)
        roles = ", ".join(role.replace("_", " ") for role in self.roles)
        if roles:
            said = f"Needs {names} ({roles})."
        else:
            said = f"Needs {names}, which every account has." if names else "Needs any account."
        if self.only:
            said += f" Of these only {self.only}."
        return f"{said} Also open to {self.also}." if self.also else said

    def described(self) -> dict[str, Any]:
        """Return it as an OpenAPI document holds it."""
        found = {
            "token": self.token,
            "permissions": list(self.permissions),
            "roles": list(self.roles),
            "only": self.only,
            "also": self.also,
            "words": self.words,
        }
        return {key: value for key, value in found.items() if value not in ("", [])}


def needs(*permissions: Permission, only: str = "", also: str = "") -> Needs:
    """Return the need of these permissions."""
    return Needs(permissions, only=only, also=also)


EVERYBODY = Needs(token=False)
ACCOUNT = needs()
OWN = needs(P.TOKEN_MANAGE_OWN)
READS_PEOPLE, MANAGES_PEOPLE = needs(P.PEOPLE_READ), needs(P.PEOPLE_MANAGE)
OF_ANYBODY = needs(P.TOKEN_MANAGE_ANY, also="every account for tokens of its own")
READS_CATALOG = needs(P.CATALOG_READ_INTERNAL)
SIGNED = needs(P.CATALOG_READ_INTERNAL, also="whoever may know of the release")
READS_PLANS, PROPOSES_PLANS = needs(P.PLAN_READ), needs(P.PLAN_APPLY)
READS_PROMOTIONS, DECIDES = needs(P.PROMOTION_READ), needs(P.PROMOTION_DECIDE)
REQUESTS = needs(P.PROMOTION_OPEN, only="who opened the request")
WAIVES, READS_TRACKS = needs(P.WAIVER_SIGN), needs(P.TRACK_READ)
ISSUES, READS_GRANTS = needs(P.GRANT_ISSUE), needs(P.GRANT_READ)
GRANT = needs(P.GRANT_READ, also="its holder")
HOLDER = needs(only="the holder")
STOPS = needs(P.GRANT_STOP)
PUBLISHES = needs(P.AGREEMENT_PUBLISH)
SIGNATURE = needs(P.AGREEMENT_READ, also="those whose signature it is")
HOOKS = needs(P.WEBHOOK_MANAGE)
READS_REQUESTS, DECIDES_REQUESTS = needs(P.ACCESS_REQUEST_READ), needs(P.ACCESS_REQUEST_DECIDE)
APPLICANT = "the applicant"
READS_INCIDENTS, HANDLES = needs(P.INCIDENT_READ), needs(P.INCIDENT_MANAGE)
READS_USAGE = needs(P.USAGE_READ)
EVIDENCE = needs(P.EVIDENCE_READ, also="its authors, and whoever it is shown to")
AUTHOR = needs(P.EVIDENCE_SUBMIT, only="its authors")
JUDGES = needs(P.EVIDENCE_DECIDE, only="people who did not write it")

_AGREEMENT, _GRANT = "/api/v1/agreements/{slug}", "/api/v1/grants/{grant_id}"
_CATALOG, _EVIDENCE = "/api/v1/catalog/repos/{ns}/{name}", "/api/v1/evidence/{evidence_id}"
_REQUEST, _DRAFT = "/api/v1/access-requests/{request_id}", "/api/v1/access-requests/drafts"
_INCIDENT, _PROMOTION = "/api/v1/incidents/{incident_id}", "/api/v1/promotions/{promotion_id}"
_TRACK, _HOOK = "/api/v1/tracks/{track_id}", "/api/v1/webhooks/{webhook_id}"
_SIGNATURE, _PROPOSAL = "/api/v1/signatures/{signature_id}", "/api/v1/plan-proposals/{proposal_id}"
_ORGANISATION, _PERSON = "/api/v1/organisations/{slug}", "/api/v1/people/{handle}"

NEEDS: Mapping[str, Needs] = {
    "GET /livez": EVERYBODY,
    "GET /readyz": EVERYBODY,
    "GET /version": EVERYBODY,
    "GET /log/vkey": EVERYBODY,
    "GET /log/checkpoint": EVERYBODY,
    "GET /log/proof/{idx}": EVERYBODY,
    "GET /api/v1/log/entries": EVERYBODY,
    "GET /api/v1/log/consistency": EVERYBODY,
    "GET /api/v1/log/entries/{idx}/reveal": needs(P.LEDGER_READ_PRIVATE),
    "GET /feed.atom": EVERYBODY,
    "GET /feed.json": EVERYBODY,
    "GET /api/v1/timeline": EVERYBODY,
    # people
    "GET /api/v1/me": ACCOUNT,
    "GET /api/v1/people": READS_PEOPLE,
    "POST /api/v1/people": MANAGES_PEOPLE,
    f"POST {_PERSON}/disable": MANAGES_PEOPLE,
    f"POST {_PERSON}/erase": MANAGES_PEOPLE,
    f"POST {_PERSON}/roles": MANAGES_PEOPLE,
    f"DELETE {_PERSON}/roles/{{role}}": MANAGES_PEOPLE,
    "GET /api/v1/organisations": READS_PEOPLE,
    "POST /api/v1/organisations": MANAGES_PEOPLE,
    f"GET {_ORGANISATION}/members": needs(P.PEOPLE_READ, also="those on its roster"),
    f"POST {_ORGANISATION}/members": MANAGES_PEOPLE,
    f"DELETE {_ORGANISATION}/members/{{handle}}": needs(
        P.PEOPLE_MANAGE, also="administrators of the organisation"
    ),
    f"POST {_ORGANISATION}/revoke-access": STOPS,
    "GET /api/v1/tokens": OWN,
    "POST /api/v1/tokens": OF_ANYBODY,
    "DELETE /api/v1/tokens/{token_id}": OF_ANYBODY,
    # catalog
    "GET /api/v1/catalog/families": READS_CATALOG,
    "GET /api/v1/catalog/repos": READS_CATALOG,
    f"GET {_CATALOG}/revisions": READS_CATALOG,
    f"GET {_CATALOG}/card-lock": READS_CATALOG,
    f"POST {_CATALOG}/card-lock": needs(P.CARD_LOCK),
    f"GET {_CATALOG}/signatures": SIGNED,
    f"POST {_CATALOG}/signatures": needs(P.MANIFEST_SIGN),
    f"GET {_CATALOG}/signatures/{{signature_id}}/bundle": SIGNED,
    "GET /api/v1/signing-keys": EVERYBODY,
    "POST /api/v1/signing-keys": MANAGES_PEOPLE,
    "POST /api/v1/signing-keys/{key_id}/retire": MANAGES_PEOPLE,
    # releases
    "GET /api/v1/plans": READS_PLANS,
    "POST /api/v1/plans": PROPOSES_PLANS,
    "POST /api/v1/plans/lint": READS_PLANS,
    "GET /api/v1/plans/schema.json": EVERYBODY,
    "GET /api/v1/plans/{slug}": READS_PLANS,
    "GET /api/v1/plans/{slug}/diff": READS_PLANS,
    "GET /api/v1/plan-proposals": READS_PLANS,
    f"GET {_PROPOSAL}": READS_PLANS,
    f"POST {_PROPOSAL}/consent": needs(P.PLAN_CONSENT),
    f"POST {_PROPOSAL}/cancel": PROPOSES_PLANS,
    "GET /api/v1/promotions": READS_PROMOTIONS,
    "POST /api/v1/promotions": needs(P.PROMOTION_OPEN),
    f"GET {_PROMOTION}": READS_PROMOTIONS,
    f"POST {_PROMOTION}/approve": DECIDES,
    f"POST {_PROMOTION}/reject": DECIDES,
    f"POST {_PROMOTION}/request-changes": DECIDES,
    f"POST {_PROMOTION}/judge": DECIDES,
    f"POST {_PROMOTION}/edit": REQUESTS,
    f"POST {_PROMOTION}/resubmit": REQUESTS,
    f"POST {_PROMOTION}/cancel": needs(P.PROMOTION_OPEN),
    f"POST {_PROMOTION}/apply": needs(P.PROMOTION_APPLY),
    "GET /api/v1/waivers": READS_PROMOTIONS,
    "POST /api/v1/waivers": WAIVES,
    "GET /api/v1/waivers/{waiver_id}": READS_PROMOTIONS,
    "POST /api/v1/waivers/{waiver_id}/sign": WAIVES,
    "POST /api/v1/waivers/{waiver_id}/end": WAIVES,
    "GET /api/v1/tracks": READS_TRACKS,
    "POST /api/v1/tracks": needs(P.TRACK_CREATE),
    f"GET {_TRACK}": READS_TRACKS,
    f"GET {_TRACK}/gates": READS_PROMOTIONS,
    f"GET {_TRACK}/report": needs(
        P.PROMOTION_READ, P.GRANT_READ, also="everybody for the report made for the public"
    ),
    f"POST {_TRACK}/simulate": READS_PROMOTIONS,
    f"POST {_TRACK}/withdraw": needs(P.RELEASE_WITHDRAW),
    "GET /api/v1/board": READS_TRACKS,
    "GET /api/v1/holds": READS_TRACKS,
    "POST /api/v1/holds": needs(P.HOLD_LAY),
    "GET /api/v1/holds/{hold_id}": READS_TRACKS,
    "POST /api/v1/holds/{hold_id}/lift": needs(P.HOLD_LIFT),
    # evidence
    "GET /api/v1/evidence-types": EVERYBODY,
    "GET /api/v1/evidence": EVERYBODY,
    "POST /api/v1/evidence": needs(
        P.EVIDENCE_SUBMIT, only="staff, and those who hold what it is about"
    ),
    "POST /api/v1/evidence/import": needs(P.EVIDENCE_SUBMIT),
    f"GET {_EVIDENCE}": EVIDENCE,
    f"PUT {_EVIDENCE}": AUTHOR,
    f"POST {_EVIDENCE}/submit": AUTHOR,
    f"POST {_EVIDENCE}/accept": JUDGES,
    f"POST {_EVIDENCE}/reject": JUDGES,
    f"POST {_EVIDENCE}/dispute": needs(
        P.EVIDENCE_SUBMIT, only=f"its authors, holders of what it is about, and {P.EVIDENCE_DECIDE}"
    ),
    f"POST {_EVIDENCE}/resolve": needs(P.EVIDENCE_DECIDE, only="people who did not dispute it"),
    f"POST {_EVIDENCE}/retract": needs(
        P.EVIDENCE_SUBMIT, only=f"its authors, and {P.EVIDENCE_DECIDE}"
    ),
    f"POST {_EVIDENCE}/public": needs(P.EVIDENCE_DECIDE),
    f"POST {_EVIDENCE}/attachments": AUTHOR,
    f"GET {_EVIDENCE}/attachments/{{attachment_id}}": EVIDENCE,
    "GET /api/v1/coordination": needs(P.COORDINATION_READ),
    "POST /api/v1/coordination": needs(P.COORDINATION_RECORD),
    "GET /api/v1/coordination/{record_id}": needs(P.COORDINATION_READ),
    "POST /api/v1/coordination/{record_id}/update": needs(P.COORDINATION_RECORD),
    # agreements and grants
    "GET /api/v1/duo-codes": EVERYBODY,
    "GET /api/v1/agreements": ACCOUNT,
    "POST /api/v1/agreements": PUBLISHES,
    f"GET {_AGREEMENT}": ACCOUNT,
    f"GET {_AGREEMENT}/diff": ACCOUNT,
    f"GET {_AGREEMENT}/outdated-signatures": needs(P.AGREEMENT_READ),
    f"POST {_AGREEMENT}/versions": PUBLISHES,
    f"GET {_AGREEMENT}/versions/{{number}}": ACCOUNT,
    f"GET {_AGREEMENT}/versions/{{number}}/pdf": ACCOUNT,
    f"POST {_AGREEMENT}/versions/{{number}}/publish": PUBLISHES,
    f"POST {_AGREEMENT}/versions/{{number}}/retire": PUBLISHES,
    "GET /api/v1/signatures": ACCOUNT,
    "POST /api/v1/signatures": needs(P.AGREEMENT_SIGN),
    f"GET {_SIGNATURE}": SIGNATURE,
    f"GET {_SIGNATURE}/pdf": SIGNATURE,
    f"GET {_SIGNATURE}/receipt": SIGNATURE,
    f"POST {_SIGNATURE}/countersign": PUBLISHES,
    f"POST {_SIGNATURE}/terminate": needs(P.GRANT_STOP, also="those whose signature it is"),
    "GET /api/v1/grants": ACCOUNT,
    "POST /api/v1/grants": ISSUES,
    "GET /api/v1/grants/holders": READS_GRANTS,
    "GET /api/v1/grants/attestations": READS_GRANTS,
    f"GET {_GRANT}": GRANT,
    f"GET {_GRANT}/deliveries": GRANT,
    f"GET {_GRANT}/renewal": GRANT,
    f"POST {_GRANT}/consent": ISSUES,
    f"POST {_GRANT}/renew": ISSUES,
    f"POST {_GRANT}/suspend": STOPS,
    f"POST {_GRANT}/resume": needs(P.GRANT_RESUME),
    f"POST {_GRANT}/revoke": STOPS,
    f"POST {_GRANT}/attest": HOLDER,
    f"GET {_GRANT}/inference-limits": GRANT,
    f"PUT {_GRANT}/inference-limits": ISSUES,
    # requests for access
    "GET /api/v1/access-requests": ACCOUNT,
    "POST /api/v1/access-requests": needs(P.ACCESS_REQUEST_SUBMIT),
    "POST /api/v1/access-requests/admit": DECIDES_REQUESTS,
    "GET /api/v1/access-requests/queue": READS_REQUESTS,
    "GET /api/v1/access-requests/decision-times": EVERYBODY,
    "GET /api/v1/access-requests/confirm": EVERYBODY,
    "POST /api/v1/access-requests/confirm": EVERYBODY,
    f"POST {_DRAFT}": EVERYBODY,
    f"GET {_DRAFT}/{{draft_id}}": EVERYBODY,
    f"PUT {_DRAFT}/{{draft_id}}": EVERYBODY,
    f"DELETE {_DRAFT}/{{draft_id}}": EVERYBODY,
    f"POST {_DRAFT}/{{draft_id}}/submit": EVERYBODY,
    f"GET {_REQUEST}": needs(P.ACCESS_REQUEST_READ, also=APPLICANT),
    f"POST {_REQUEST}/reply": needs(only=APPLICANT),
    f"POST {_REQUEST}/withdraw": needs(P.ACCESS_REQUEST_SUBMIT, only=APPLICANT),
    **{
        f"POST {_REQUEST}/{step}": DECIDES_REQUESTS
        for step in ("approve", "accept", "reject", "ask", "assign", "notes", "conflicts", "reopen")
    },
    "GET /api/v1/access-forms": READS_REQUESTS,
    "POST /api/v1/access-forms": needs(P.ACCESS_FORM_EDIT),
    "POST /api/v1/access-forms/lint": ACCOUNT,
    "GET /api/v1/access-forms/asked": EVERYBODY,
    "GET /api/v1/access-forms/{slug}": READS_REQUESTS,
    # incidents
    "POST /api/v1/incident-reports": EVERYBODY,
    "POST /api/v1/incident-reports/follow": EVERYBODY,
    "POST /api/v1/incident-reports/words": EVERYBODY,
    "POST /api/v1/incident-reports/forget-me": EVERYBODY,
    "GET /api/v1/public/incidents": EVERYBODY,
    "GET /api/v1/public/incidents/{incident_id}": EVERYBODY,
    "GET /api/v1/incidents": READS_INCIDENTS,
    f"GET {_INCIDENT}": READS_INCIDENTS,
    **{
        f"POST {_INCIDENT}/{step}": HANDLES
        for step in (
            *("triage", "reassess", "confirm", "dismiss", "mitigate", "close", "reopen"),
            *("updates", "advisories", "erase-report"),
        )
    },
    "GET /api/v1/advisories": ACCOUNT,
    "GET /api/v1/advisories/overdue": READS_INCIDENTS,
    "GET /api/v1/advisories/{advisory_id}/receipts": READS_INCIDENTS,
    "POST /api/v1/advisories/{receipt_id}/acknowledge": HOLDER,
    "GET /api/v1/usage": READS_USAGE,
    "GET /api/v1/usage/anomalies": READS_USAGE,
    "POST /api/v1/usage/evidence": needs(P.USAGE_READ, P.EVIDENCE_SUBMIT),
    # asking models
    "GET /v1/models": ACCOUNT,
    "GET /v1/models/{model}": needs(P.CATALOG_READ_INTERNAL, also="whoever may ask it"),
    "POST /v1/completions": ACCOUNT,
    "POST /v1/chat/completions": ACCOUNT,
    "POST /v1/score": ACCOUNT,
    "POST /v1/embeddings": ACCOUNT,
    "GET /api/v1/inference/usage": ACCOUNT,
    "POST /api/v1/inference/prompts": HANDLES,
    # notices
    "GET /api/v1/me/notices": OWN,
    "GET /api/v1/me/notice-choices": OWN,
    "PUT /api/v1/me/notice-choices/{group}": OWN,
    "GET /api/v1/notices": READS_PEOPLE,
    "POST /api/v1/notices/send-again": MANAGES_PEOPLE,
    "GET /api/v1/webhooks": HOOKS,
    "POST /api/v1/webhooks": HOOKS,
    f"DELETE {_HOOK}": HOOKS,
    f"GET {_HOOK}/deliveries": HOOKS,
    **{f"POST {_HOOK}/{step}": HOOKS for step in ("rotate", "disable", "enable", "replay")},
}
"""By method and path; an operation that is missing here cannot be described."""


REFUSED: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "Refused: what, why and what to do (RFC 9457)",
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
}


class Described(FastAPI):
    """An application whose description says of each operation who may call it."""

    def take(self, *routers: APIRouter) -> None:
        """Add the routers' own routes, in this order.

        ``include_router`` would build each of them anew at the first request of every
        application (half a second), and look through two lists instead of one for all others.
        """
        for route in (route for router in routers for route in router.routes):
            if isinstance(route, APIRoute):
                tag = route.tags[0] if route.tags else "service"
                route.unique_id = f"{tag}_{route.name}".replace("-", "_")
                route.responses = REFUSED | route.responses
            self.router.routes.append(route)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, each operation with ``x-permission`` and its words."""
        described: dict[str, Any] = super().openapi()
        for path, ways in described["paths"].items():
            for method, operation in ways.items():
                if "x-permission" not in operation:  # the document is made once and kept
                    found = NEEDS[f"{method.upper()} {path}"]
                    operation["x-permission"] = found.described()
                    operation["description"] += f"\n\n{found.words}"
        return described

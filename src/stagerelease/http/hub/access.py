"""Asking for access, and deciding it, as Hub clients and the public Hub's page do it."""

from __future__ import annotations

import json
from typing import Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from stagerelease.access import service as access
from stagerelease.access.queries import RequestRow
from stagerelease.access.rules import Origin, Status
from stagerelease.entitlements import service as entitlements
from stagerelease.http.begin import Begin, BeginWork
from stagerelease.http.hub.wire import speak_hub
from stagerelease.http.wire import origin_of
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, Invalid, NotFound

router = APIRouter(tags=["hub"], dependencies=[Depends(speak_hub)], include_in_schema=False)
PAGE = 100
FORM_FIELDS = 40


class HandleIn(BaseModel):
    """A decision: on whom or on which request, and what."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    user: str | None = None
    request_id: str | None = Field(default=None, alias="requestId")
    status: Literal["accepted", "rejected", "pending"]
    rejection_reason: str = Field(default="", alias="rejectionReason", max_length=200)


class GrantIn(BaseModel):
    """Somebody to let in."""

    model_config = ConfigDict(extra="ignore")

    user: str


def _plain(answer: str | bool | list[str]) -> str:
    """Return an answer as the text that Hub clients know answers as."""
    if isinstance(answer, bool):
        return "true" if answer else "false"
    return answer if isinstance(answer, str) else ", ".join(answer)


def _row(row: RequestRow) -> dict[str, Any]:
    found: dict[str, Any] = {
        "requestId": row.id,
        "status": row.status.value,
        "timestamp": iso(row.submitted_at),
        "user": {"user": row.handle, "fullname": row.display_name, "email": row.email or ""},
    }
    if row.answers:
        found["fields"] = {key: _plain(answer) for key, answer in row.answers.items()}
    return found


@router.get("/api/models/{ns}/{name}/user-access-request/{status}")
def list_access_requests(
    request: Request,
    response: Response,
    begin: Begin,
    ns: str,
    name: str,
    status: Literal["pending", "accepted", "rejected"],
    cursor: str = "",
) -> list[dict[str, Any]]:
    """List requests in one state, oldest first, a page at a time."""
    with begin(read_only=True) as work:
        entitlements.see(work, work.actor, f"{ns}/{name}")
        require(work.actor, Permission.ACCESS_REQUEST_READ)
        rows = access.list_requests(
            work,
            repo_id=f"{ns}/{name}",
            status=Status(status),
            limit=PAGE + 1,
            after=cursor or None,
            newest_first=False,
        )
    if len(rows) > PAGE:
        url = request.url.include_query_params(cursor=rows[PAGE - 1].id)
        response.headers["Link"] = f'<{origin_of(request)}{url.path}?{url.query}>; rel="next"'
    return [_row(row) for row in rows[:PAGE]]


@router.post("/api/models/{ns}/{name}/user-access-request/handle")
def handle_access_request(begin: Begin, ns: str, name: str, body: HandleIn) -> dict[str, Any]:
    """Accept, reject or put back a request; 404 when it is in that state already.

    Accepting an applicant who has signed nothing issues a grant that waits for their signature.
    """
    with begin() as work:
        entitlements.see(work, work.actor, f"{ns}/{name}")
        row = access.find_for(
            work, repo_id=f"{ns}/{name}", handle=body.user, request_id=body.request_id
        )
        if row.status is Status(body.status):
            raise NotFound(f"The request is {body.status} already.", reason="access.same-state")
        access.decide(work, row.id, status=Status(body.status), reason=body.rejection_reason)
    return {}


@router.post("/api/models/{ns}/{name}/user-access-request/grant")
def grant_access(begin: Begin, ns: str, name: str, body: GrantIn) -> dict[str, Any]:
    """Let somebody in who has not asked."""
    with begin() as work:
        entitlements.see(work, work.actor, f"{ns}/{name}")
        try:
            access.grant(work, repo_id=f"{ns}/{name}", handle=body.user)
        except Conflict as error:
            if error.reason != "access.granted":
                raise
            raise Invalid(error.sentence, reason=error.reason) from error
    return {}


@router.post("/api/models/{ns}/{name}/user-access-request/cancel")
def cancel_access_request(begin: Begin, ns: str, name: str) -> dict[str, Any]:
    """Withdraw one's own waiting request."""
    with begin() as work:
        entitlements.see(work, work.actor, f"{ns}/{name}")
        mine = [
            row
            for row in access.list_requests(work, repo_id=f"{ns}/{name}", status=Status.PENDING)
            if row.applicant_id == work.actor.id
        ]
        if not mine:
            raise NotFound("You have no waiting request here.", reason="access.unknown")
        access.withdraw(work, mine[0].id)
    return {}


async def _answers(request: Request) -> dict[str, str]:
    """Read the gate's fields from a form or from JSON; size is limited before this.

    Raises:
        Invalid: it is neither, or a field is not text that can be kept.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            given = json.loads(await request.body() or b"{}")
        except (ValueError, RecursionError) as error:
            raise Invalid("The body is not JSON.", reason="access.answers") from error
    elif kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
        given = dict(await request.form(max_files=0, max_fields=FORM_FIELDS))
    else:
        given = {}
    if not isinstance(given, dict) or not all(
        isinstance(v, str | int | float | bool) for v in given.values()
    ):
        raise Invalid("The fields must be names with texts.", reason="access.answers")
    answers = {str(k): str(v) for k, v in given.items()}
    try:
        "".join([*answers, *answers.values()]).encode()
    except UnicodeEncodeError as error:  # JSON can hold half a character; no store can
        raise Invalid(
            "The fields must be whole Unicode characters.", reason="access.answers"
        ) from error
    return answers


def _may_see(begin: BeginWork, repo_id: str) -> None:
    with begin(read_only=True) as work:
        entitlements.see(work, work.actor, repo_id)


@router.post("/{ns}/{name}/ask-access", response_model=None)
async def ask_access(request: Request, begin: Begin, ns: str, name: str) -> Response:
    """Store a request for access; asking again while it waits changes nothing.

    Fields are kept under the keys of the form in force where their names fit, else as they came;
    what the form asks for and this body lacks is left open, as ``open_fields`` says and a notice
    tells the applicant: this protocol has no way to show them the form.
    """
    await run_in_threadpool(_may_see, begin, f"{ns}/{name}")  # nobody's body is read before this
    answers = await _answers(request)

    def ask() -> tuple[RequestRow, tuple[str, ...]]:
        with begin() as work:
            entitlements.see(work, work.actor, f"{ns}/{name}")
            row = access.submit(work, repo_id=f"{ns}/{name}", answers=answers, origin=Origin.HUB)
            return row, access.request_page(work, row.id).open

    row, missing = await run_in_threadpool(ask)
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(f"/requests/{row.id}", status_code=303)
    return JSONResponse({**_row(row), "open_fields": list(missing)})

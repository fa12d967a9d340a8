"""Grants over JSON: issue, show, stop, resume, attest. One use case per route."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import BeforeValidator, Field

from stagerelease.http.begin import Begin
from stagerelease.http.wire import In, Instant, InstantIn, Out, Paging, keyset, paged
from stagerelease.partners import service

router = APIRouter(prefix="/api/v1/grants", tags=["grants"])

Id = Annotated[str, Path(max_length=64)]
DryRun = Annotated[bool, Query(description="Do everything, then undo it.")]
Permission = Literal["download", "infer"]


async def seen_version(
    if_match: Annotated[str | None, Header(pattern=r'^"?[0-9]{1,9}"?$')] = None,
) -> int | None:
    """Read the version of the row that the caller decided on, if they send it."""
    return int(if_match.strip('"')) if if_match is not None else None


Seen = Annotated[int | None, Depends(seen_version)]


class ReasonIn(In):
    """Why; those concerned can read it."""

    reason: Annotated[str, Field(min_length=1, max_length=1000)]


class StatementIn(In):
    """What became of the delivered files."""

    statement: Annotated[str, Field(min_length=1, max_length=2000)]
    typed_name: Annotated[str, Field(min_length=1, max_length=200)]


class GrantIn(In):
    """A grant to issue, for exactly one of organisation and person."""

    track_id: Annotated[str, Field(max_length=64)]
    organisation: Annotated[str, Field(max_length=64)] | None = None
    person: Annotated[str, Field(max_length=64)] | None = None
    permissions: Annotated[
        list[Permission],
        Field(min_length=1, max_length=2, default_factory=lambda: ["download"]),
    ]
    purpose: Annotated[str, Field(min_length=1, max_length=2000)]
    audience: Annotated[str, Field(max_length=32)] | None = None
    valid_until: InstantIn
    signature_id: Annotated[str, Field(max_length=64)] | None = None
    renewed_from: Annotated[str, Field(max_length=64)] | None = None
    await_signature: bool = False


class GrantOut(Out):
    """A grant."""

    id: str
    organisation_id: str | None
    person_id: str | None
    track_id: str
    audience: str
    permissions: Annotated[list[str], BeforeValidator(sorted)]
    purpose: str
    signature_id: str | None
    awaits_agreement: str | None
    awaits_consent: bool
    state: str
    suspended_for: str | None
    valid_from: Instant
    valid_until: Instant
    version: int
    renewed_from_id: str | None
    created_at: Instant
    ended_at: Instant | None


class StandingOut(Out):
    """Whether the grant counts now, roster and token left aside."""

    active: bool
    reason: str
    sentence: str
    until: Instant | None


class GrantEventOut(Out):
    """Something that happened to a grant."""

    from_state: str | None
    to_state: str
    reason: str
    actor_id: str
    at: Instant
    leaf_idx: int


class AttestationOut(Out):
    """What the holder of a revoked grant is asked to declare destroyed."""

    grant_id: str
    delivered: list[dict[str, Any]]
    opened_at: Instant
    attested_at: Instant | None
    attested_by: str | None
    typed_name: str | None
    leaf_idx: int | None


class GrantPageOut(Out):
    """A grant with its history."""

    grant: GrantOut
    standing: StandingOut
    events: list[GrantEventOut]
    attestation: AttestationOut | None


class RenewIn(In):
    """How a grant goes on; what is left out stays as it was."""

    valid_until: InstantIn
    purpose: Annotated[str, Field(min_length=1, max_length=2000)] | None = None
    permissions: Annotated[list[Permission], Field(min_length=1, max_length=2)] | None = None


class RenewalOut(Out):
    """A renewed grant, the one it follows, and its purpose as runs of kept and changed words."""

    grant: GrantOut
    renews: GrantOut
    purpose: list[list[str]]


class HolderOut(Out):
    """One grant as it stood at the instant asked."""

    grant_id: str
    holder: str
    holder_kind: Literal["organisation", "person"]
    holder_id: str
    repo_id: str
    artifact: str
    track_id: str
    audience: str
    permissions: list[str]
    purpose: str
    state: str
    valid_from: Instant
    valid_until: Instant


class DeliveryOut(Out):
    """One delivery of one file under a grant."""

    download_id: str
    person_id: str | None
    path: str
    sha256: str
    size: int
    bytes_sent: int
    started_at: Instant
    completed_at: Instant | None


@router.get("")
def list_grants(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    track: Annotated[str | None, Query(max_length=64)] = None,
    state: Annotated[str | None, Query(max_length=16)] = None,
) -> list[GrantOut]:
    """List grants: one's own and one's organisations', to staff all."""
    with begin(read_only=True) as work:
        rows = service.list_grants(
            work, track_id=track, state=state, limit=page.limit + 1, after=page.after
        )
    part = keyset(request, response, rows, page, lambda row: row.id)
    return [GrantOut.model_validate(row) for row in part]


@router.post("", status_code=201)
def issue_grant(body: GrantIn, begin: Begin, dry_run: DryRun = False) -> GrantOut:
    """Let an organisation or a person in to a track until a date."""
    with begin(dry_run=dry_run) as work:
        return GrantOut.model_validate(service.issue_grant(work, **body.model_dump()))


@router.get("/holders")
def holders(
    request: Request,
    response: Response,
    begin: Begin,
    page: Paging,
    at: InstantIn | None = None,
    track: Annotated[str | None, Query(max_length=64)] = None,
    organisation: Annotated[str | None, Query(max_length=64)] = None,
    state: Annotated[str | None, Query(max_length=16)] = None,
) -> list[HolderOut]:
    """Say who holds what, now or at any past instant."""
    with begin(read_only=True) as work:
        rows = service.holders_report(
            work,
            at=at,
            track_id=track,
            organisation=organisation,
            state=state,
            limit=page.limit + 1,
            after=page.after,
        )
    part = keyset(request, response, rows, page, lambda row: row.grant_id)
    return [HolderOut.model_validate(row) for row in part]


@router.get("/attestations")
def list_attestations(
    request: Request, response: Response, begin: Begin, page: Paging
) -> list[AttestationOut]:
    """List what holders of revoked grants were asked to declare and have not, oldest first."""
    with begin(read_only=True) as work:
        rows = service.list_attestations(work, limit=page.limit + 1, after=page.after)
    part = keyset(request, response, rows, page, lambda row: row.id)
    return [AttestationOut.model_validate(row) for row in part]


@router.get("/{grant_id}")
def show_grant(grant_id: Id, begin: Begin) -> GrantPageOut:
    """Show a grant, whether it counts now, and everything that happened to it."""
    with begin(read_only=True) as work:
        return GrantPageOut.model_validate(service.show_grant(work, grant_id))


@router.get("/{grant_id}/deliveries")
def list_deliveries(
    grant_id: Id, request: Request, response: Response, begin: Begin, page: Paging
) -> list[DeliveryOut]:
    """List what was delivered under a grant."""
    with begin(read_only=True) as work:
        rows = service.list_deliveries(work, grant_id)
    part = paged(request, response, rows, page, lambda row: row.download_id)
    return [DeliveryOut.model_validate(row) for row in part]


@router.post("/{grant_id}/consent")
def consent_to_grant(grant_id: Id, begin: Begin, dry_run: DryRun = False) -> GrantOut:
    """Consent, as a second person, to letting somebody in again whose grant was revoked."""
    with begin(dry_run=dry_run) as work:
        return GrantOut.model_validate(service.consent_to_grant(work, grant_id))


@router.post("/{grant_id}/renew", status_code=201)
def renew_grant(grant_id: Id, body: RenewIn, begin: Begin, dry_run: DryRun = False) -> RenewalOut:
    """Issue the grant that follows this one."""
    with begin(dry_run=dry_run) as work:
        return RenewalOut.model_validate(service.renew_grant(work, grant_id, **body.model_dump()))


@router.get("/{grant_id}/renewal")
def renewal_of(grant_id: Id, begin: Begin) -> RenewalOut | None:
    """Say what this grant renews and how its purpose changed; null when it renews nothing."""
    with begin(read_only=True) as work:
        row = service.renewal_of(work, grant_id)
        return RenewalOut.model_validate(row) if row is not None else None


@router.post("/{grant_id}/suspend")
def suspend_grant(
    grant_id: Id, body: ReasonIn, seen: Seen, begin: Begin, dry_run: DryRun = False
) -> GrantOut:
    """Suspend a grant now. ``If-Match`` may carry the version you saw."""
    with begin(dry_run=dry_run) as work:
        row = service.suspend_grant(work, grant_id, reason=body.reason, seen=seen)
        return GrantOut.model_validate(row)


@router.post("/{grant_id}/resume")
def resume_grant(grant_id: Id, seen: Seen, begin: Begin, dry_run: DryRun = False) -> GrantOut:
    """Consent to resume a suspended grant; it is active once two people have consented."""
    with begin(dry_run=dry_run) as work:
        return GrantOut.model_validate(service.resume_grant(work, grant_id, seen=seen))


@router.post("/{grant_id}/revoke")
def revoke_grant(
    grant_id: Id, body: ReasonIn, seen: Seen, begin: Begin, dry_run: DryRun = False
) -> GrantOut:
    """End a grant for good; its holder is asked to destroy what was delivered."""
    with begin(dry_run=dry_run) as work:
        row = service.revoke_grant(work, grant_id, reason=body.reason, seen=seen)
        return GrantOut.model_validate(row)


@router.post("/{grant_id}/attest")
def attest_destruction(grant_id: Id, body: StatementIn, begin: Begin) -> AttestationOut:
    """Declare what became of the files delivered under a revoked grant."""
    with begin() as work:
        row = service.attest_destruction(work, grant_id, body.statement, typed_name=body.typed_name)
        return AttestationOut.model_validate(row)


organisations = APIRouter(prefix="/api/v1/organisations", tags=["grants"])


@organisations.post("/{slug}/revoke-access")
def revoke_organisation(
    slug: Id, body: ReasonIn, begin: Begin, dry_run: DryRun = False
) -> list[GrantOut]:
    """End every live grant of an organisation for good, in one act."""
    with begin(dry_run=dry_run) as work:
        rows = service.revoke_organisation(work, slug, reason=body.reason)
        return [GrantOut.model_validate(row) for row in rows]

"""Decisions on access requests over JSON. Parse, call one use case, shape the answer."""

from __future__ import annotations

from datetime import timedelta

from fastapi import APIRouter

from stagerelease.access import service
from stagerelease.http.api.access import AcceptIn, AdmitIn, ApproveIn, DryRun, Id, RejectIn
from stagerelease.http.api.access_shapes import RequestOut
from stagerelease.http.begin import Begin

router = APIRouter(prefix="/api/v1/access-requests", tags=["access"])


@router.post("/admit", status_code=201)
def admit(body: AdmitIn, begin: Begin, dry_run: DryRun = False) -> RequestOut:
    """Let somebody in who has not asked."""
    with begin(dry_run=dry_run) as work:
        row = service.grant(
            work,
            repo_id=body.repo_id,
            handle=body.person,
            valid_until=body.valid_until,
            permissions=body.permissions,
        )
        return RequestOut.model_validate(row)


@router.post("/{request_id}/approve")
def approve(request_id: Id, body: ApproveIn, begin: Begin, dry_run: DryRun = False) -> RequestOut:
    """Approve a request: the grant is issued, and waits for a signature where one is missing."""
    with begin(dry_run=dry_run) as work:
        row = service.approve(work, request_id, **body.model_dump())
        return RequestOut.model_validate(row)


@router.post("/{request_id}/accept")
def accept(request_id: Id, body: AcceptIn, begin: Begin, dry_run: DryRun = False) -> RequestOut:
    """Let in an applicant who has signed: a grant is issued in the same transaction."""
    with begin(dry_run=dry_run) as work:
        row = service.accept(work, request_id, **body.model_dump())
        return RequestOut.model_validate(row)


@router.post("/{request_id}/reject")
def reject(request_id: Id, body: RejectIn, begin: Begin, dry_run: DryRun = False) -> RequestOut:
    """Reject a request; access that it had led to is revoked."""
    with begin(dry_run=dry_run) as work:
        wait = timedelta(days=body.reapply_after_days)
        row = service.reject(
            work, request_id, reason=body.reason, reapply_after=wait, seen=body.seen
        )
        return RequestOut.model_validate(row)


@router.post("/{request_id}/reopen")
def reopen(request_id: Id, begin: Begin, dry_run: DryRun = False) -> RequestOut:
    """Put a decided request back to waiting; access that it had led to is revoked."""
    with begin(dry_run=dry_run) as work:
        return RequestOut.model_validate(service.reopen(work, request_id))

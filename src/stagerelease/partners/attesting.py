"""What becomes of delivered files: asked of the holder of a revoked grant, and declared by them.

Files that were delivered cannot be called back, so their holder declares, in their own name.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.identity.queries import memberships_now
from stagerelease.identity.rules import Permission, Role, require
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, Forbidden, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.partners import queries
from stagerelease.partners.moving import load_for, lock_grant, note, require_own_name
from stagerelease.partners.queries import AttestationRow, GrantRow
from stagerelease.partners.tables import DestructionAttestation, Grant
from stagerelease.releases.humans import accountable
from stagerelease.releases.rules import check_text


def delivered_under(work: Work, grant_id: str) -> list[dict[str, Any]]:
    """Return what was delivered under a grant, as its revocation lists it."""
    return [
        {
            "download": row.download_id,
            "path": row.path,
            "sha256": row.sha256,
            "bytes": row.bytes_sent,
            "completed": row.completed_at is not None,
            "at": iso(row.started_at),
        }
        for row in queries.deliveries(work, grant_id)
    ]


def ask_for_attestation(work: Work, grant: Grant, delivered: list[dict[str, Any]]) -> None:
    """Ask the holder of a grant that was just revoked what became of these files."""
    work.session.add(
        DestructionAttestation(
            id=new_id("dat"), grant_id=grant.id, delivered=delivered, opened_at=work.now
        )
    )
    _tell_of_attestation(work, grant, "opened", files=len(delivered))


def _tell_of_attestation(work: Work, grant: Grant, event: str, **facts: object) -> None:
    emit(
        work,
        f"attestation.{event}",
        subject=f"grant:{grant.id}",
        people=[grant.person_id] if grant.person_id else (),
        organisations=[grant.organisation_id] if grant.organisation_id else (),
        roles=("access_officer", "security") if event == "signed" else (),
        facts={"grant": grant.id, "track": grant.track_id, **facts},
    )


def attest_destruction(
    work: Work, grant_id: str, statement: str, *, typed_name: str
) -> AttestationRow:
    """Declare, as the holder of a revoked grant, what was done with the delivered files.

    ``typed_name`` is the declarer's legal name, typed as a signature.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Forbidden: the caller is not the person, or does not administer the organisation; or the
            token is too narrow to act in their name.
        Conflict: nothing is asked (the grant was not revoked), or it is declared already.
    """
    seen = load_for(work, grant_id, None)
    require_own_name(work.actor)
    me = accountable(work, "declare destruction")
    if not holds(work, seen, me):
        raise Forbidden(
            "Only the holder of the grant declares what became of the files.",
            reason="grant.not-holder",
            next_step="Ask the person, or an administrator of the organisation.",
        )
    statement = check_text(statement, "statement", limit=2000)
    typed_name = check_text(typed_name, "name", limit=200)
    grant = lock_grant(work, grant_id)
    row = work.session.execute(
        select(DestructionAttestation)
        .where(DestructionAttestation.grant_id == grant.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).scalar_one_or_none()
    if row is None:
        raise Conflict(
            f"The grant is {grant.state}; only a revoked one asks for this.",
            reason="attestation.not-open",
        )
    if row.attested_at is not None:
        raise Conflict("It is declared already.", reason="attestation.given")
    row.attested_at, row.attested_by, row.typed_name = work.now, me, typed_name
    _tell_of_attestation(work, grant, "signed", files=len(row.delivered))
    row.leaf_idx = note(
        work,
        grant,
        event="destruction_attested",
        before=grant.state,
        reason=statement,
        detail={"person": me, "typed_name": typed_name, "files": len(row.delivered)},
    )
    work.session.flush()  # the row returned is read back
    found = queries.find_attestation(work, grant.id)
    if found is None:
        raise NotFound(f"There is no grant {grant_id!r}.", reason="grant.unknown")
    return found


def list_attestations(
    work: Work, *, limit: int = 100, after: str | None = None
) -> list[AttestationRow]:
    """Return what was asked of holders and not declared yet, to somebody who may read grants."""
    require(work.actor, Permission.GRANT_READ)
    return queries.open_attestations(work, limit=limit, after=after)


def holds(work: Work, grant: GrantRow, person_id: str) -> bool:
    """Tell whether a grant is this person's to answer for: theirs, or of whom they administer."""
    if grant.person_id is not None:
        return grant.person_id == person_id
    return any(
        organisation == grant.organisation_id and role == Role.PARTNER_ADMIN
        for organisation, role, _ in memberships_now(work, person_id)
    )

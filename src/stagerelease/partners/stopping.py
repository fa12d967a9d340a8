"""Use cases that stop a grant and what follows: suspend, resume, revoke, attest destruction.

Stopping needs one person and takes effect on the next byte; resuming needs two. Files that were
delivered cannot be called back, so a revocation lists them and asks their holder to declare.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.identity.queries import load_organisation, memberships_now
from stagerelease.identity.rules import ROLE_PERMISSIONS, Permission, Role, require
from stagerelease.jobs.outbox import emit
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Conflict, Forbidden, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import queries as log
from stagerelease.ledger import service as ledger
from stagerelease.partners import queries
from stagerelease.partners.moving import (
    load_for,
    lock_grant,
    lock_grants,
    move,
    note,
    standing_of,
    suspend_all,
    tell,
)
from stagerelease.partners.queries import AttestationRow, GrantRow
from stagerelease.partners.rules import (
    LIVE,
    RESUME_CONSENTS,
    GrantState,
    Suspension,
    check_grant_move,
    is_active,
)
from stagerelease.partners.tables import DestructionAttestation, Grant, GrantResume
from stagerelease.releases.facts import standing as standing_of_people
from stagerelease.releases.humans import accountable
from stagerelease.releases.moving import lock_track
from stagerelease.releases.rules import check_text

MAX_REASON = 1000
CAN_EXPIRE = (GrantState.PENDING, GrantState.ACTIVE, GrantState.SUSPENDED)
_MAY_RESUME = frozenset(r for r in Role if Permission.GRANT_RESUME in ROLE_PERMISSIONS[r])


def suspend_grant(work: Work, grant_id: str, *, reason: str, seen: int | None = None) -> GrantRow:
    """Suspend a grant now by decision; one person is enough. Its holder can read the reason.

    A grant that is suspended for another reason stays so by decision from now on: two people resume
    it, whatever else is mended, and consents given before do not count.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Stale: it is not at version ``seen`` any more.
        Conflict: it is neither active nor suspended, or suspended by decision already.
    """
    load_for(work, grant_id, Permission.GRANT_STOP)
    reason = check_text(reason, "reason", limit=MAX_REASON)
    grant = lock_grant(work, grant_id, seen=seen)
    detail = {"for": Suspension.DECISION.value}
    if grant.state == GrantState.SUSPENDED and grant.suspended_for != Suspension.DECISION:
        grant.suspended_for = Suspension.DECISION
        tell(work, grant, "suspended", reason=reason)
        note(work, grant, event="suspended", before=grant.state, reason=reason, detail=detail)
        return _read(work, grant)
    move(
        work,
        grant,
        GrantState.SUSPENDED,
        event="suspended",
        reason=reason,
        suspended_for=Suspension.DECISION,
        detail=detail,
    )
    return _read(work, grant)


def _read(work: Work, grant: Grant) -> GrantRow:
    work.session.flush()  # the row returned is read back
    return queries.load_grant(work, grant.id)


def resume_grant(work: Work, grant_id: str, *, seen: int | None = None) -> GrantRow:
    """Consent to resume a suspended grant; it is active once two distinct people have consented.

    A consent belongs to one suspension, and counts while its giver may still resume grants. Who
    suspended the grant may be one of the two.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Forbidden: not a human with an open account.
        Stale: it is not at version ``seen`` any more.
        Conflict: it is not suspended, this person consented already, or it would not count even if
            it were active (withdrawn, nothing signed, ended): then a new grant is needed.
    """
    load_for(work, grant_id, Permission.GRANT_RESUME)
    me = accountable(work, "consent to resume a grant")
    grant = lock_grant(work, grant_id, seen=seen)
    check_grant_move(grant.state, GrantState.ACTIVE)
    if grant.state != GrantState.SUSPENDED:  # a pending grant has other ways to begin
        raise Conflict(
            f"The grant is {grant.state}; only a suspended one is resumed.",
            reason=f"grant.{grant.state}",
            next_step="Its events say what it waits for.",
        )
    _check_worth_resuming(work, grant.id)
    suspension = _suspension(work, grant.id)
    before = queries.resume_consents(work, grant.id, suspension)
    if me in before:
        raise Conflict(
            "You have consented already; somebody else has to consent too.",
            reason="grant.consented",
            next_step="Ask another person who may resume grants.",
        )
    who = standing_of_people(work, sorted(before), lock=True)
    counted = 1 + sum(
        1
        for _, human, disabled, roles in who.values()
        if human and not disabled and roles & _MAY_RESUME
    )
    _consent(work, grant, me, suspension, counted=counted)
    if counted >= RESUME_CONSENTS:
        move(
            work,
            grant,
            GrantState.ACTIVE,
            event="resumed",
            reason=f"{counted} people consented.",
            detail={"consents": counted},
        )
    return _read(work, grant)


def _suspension(work: Work, grant_id: str) -> str:
    """Return the event that suspended a grant last: what the log calls so, not what only passed."""
    return next(
        event.id
        for event in reversed(queries.grant_events(work, grant_id))
        if event.to_state == GrantState.SUSPENDED
        and log.entry(work, event.leaf_idx).leaf["type"] == "grant.suspended"
    )


def _check_worth_resuming(work: Work, grant_id: str) -> None:
    effective = queries.find_effective(work, grant_id)
    if effective is None:
        raise NotFound(f"There is no grant {grant_id!r}.", reason="grant.unknown")
    answer = is_active(standing_of(work, effective, state=GrantState.ACTIVE))
    if not answer.active:
        raise Conflict(
            f"Resuming it would not let anybody in. {answer.sentence}",
            reason=answer.reason,
            next_step="Mend that first, or revoke the grant and issue a new one.",
        )


def _consent(work: Work, grant: Grant, me: str, suspension: str, *, counted: int) -> None:
    leaf = ledger.append(
        work,
        type="grant.resume_consented",
        subject=f"grant:{grant.id}",
        prev_state=grant.state,
        new_state=grant.state,
        detail={"person": me, "suspension": suspension, "consents": counted},
    )
    work.session.add(
        GrantResume(
            id=new_id("grs"),
            grant_id=grant.id,
            person_id=me,
            suspension=suspension,
            at=work.now,
            leaf_idx=leaf,
        )
    )


def revoke_grant(work: Work, grant_id: str, *, reason: str, seen: int | None = None) -> GrantRow:
    """End a grant for good, list what was delivered under it, and ask for its destruction.

    Downloads in flight are cut because this Work moves the access epoch.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Stale: it is not at version ``seen`` any more.
        Conflict: it has ended already.
    """
    load_for(work, grant_id, Permission.GRANT_STOP)
    reason = check_text(reason, "reason", limit=MAX_REASON)
    grant = lock_grant(work, grant_id, seen=seen)
    _revoke(work, grant, reason)
    return _read(work, grant)


def revoke_organisation(work: Work, organisation: str, *, reason: str) -> list[GrantRow]:
    """End every live grant of an organisation for good, in one act; return them as they are now.

    One person is enough, as for one grant. Whatever is in flight is cut, and for each grant the
    delivered files are listed and their destruction is asked for.

    Raises:
        NotFound: there is no such organisation.
    """
    require(work.actor, Permission.GRANT_STOP)
    reason = check_text(reason, "reason", limit=MAX_REASON)
    row = load_organisation(work, organisation)
    live = lock_grants(
        work, (Grant.organisation_id == row.id) & Grant.state.in_(sorted(CAN_EXPIRE))
    )
    for grant in live:
        _revoke(work, grant, reason)
    return [_read(work, grant) for grant in live]


def give_up_grant(work: Work, grant_id: str, *, seen: int | None = None) -> GrantRow:
    """End a grant for good, as its holder: the person, or an administrator of the organisation.

    What was delivered is listed and its destruction asked for, as when it is revoked.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Forbidden: the caller does not hold it.
        Stale: it is not at version ``seen`` any more.
        Conflict: it has ended already.
    """
    shown = load_for(work, grant_id, None)
    if not _holds(work, shown, accountable(work, "give access up")):
        raise Forbidden(
            "Only who holds access can give it up.",
            reason="grant.not-holder",
            next_step="Ask an administrator of your organisation.",
        )
    grant = lock_grant(work, grant_id, seen=seen)
    _revoke(work, grant, "Given up by its holder.", event="given_up")
    return _read(work, grant)


def _revoke(work: Work, grant: Grant, reason: str, *, event: str = "revoked") -> None:
    delivered = [
        {
            "download": row.download_id,
            "path": row.path,
            "sha256": row.sha256,
            "bytes": row.bytes_sent,
            "completed": row.completed_at is not None,
            "at": iso(row.started_at),
        }
        for row in queries.deliveries(work, grant.id)
    ]
    move(
        work,
        grant,
        GrantState.REVOKED,
        event=event,
        reason=reason,
        detail={"delivered": delivered},
    )
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
        Forbidden: the caller is not the person, or does not administer the organisation.
        Conflict: nothing is asked (the grant was not revoked), or it is declared already.
    """
    seen = load_for(work, grant_id, None)
    me = accountable(work, "declare destruction")
    if not _holds(work, seen, me):
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


def _holds(work: Work, grant: GrantRow, person_id: str) -> bool:
    if grant.person_id is not None:
        return grant.person_id == person_id
    return any(
        organisation == grant.organisation_id and role == Role.PARTNER_ADMIN
        for organisation, role, _ in memberships_now(work, person_id)
    )


# --- what others' decisions do to grants ---------------------------------------------------------


def lock_for_withdrawal(work: Work, track_id: str) -> None:
    """Take the locks of a withdrawal, track and grants, before its first log entry.

    Without this, somebody who stops or resumes a grant at the same moment holds what the withdrawal
    waits for while waiting for the log, and the withdrawal may be the one that is refused.

    Raises:
        NotFound: there is no such track.
    """
    require(work.actor, Permission.RELEASE_WITHDRAW)
    lock_track(work, track_id)
    lock_grants(work, (Grant.track_id == track_id) & Grant.state.in_(sorted(LIVE)))


def suspend_for_withdrawal(work: Work, track_id: str) -> list[str]:
    """Suspend every active grant on a track that was withdrawn in this Work; return their ids."""
    require(work.actor, Permission.RELEASE_WITHDRAW)
    return suspend_all(
        work,
        Grant.track_id == track_id,
        why=Suspension.WITHDRAWAL,
        reason="The release was withdrawn.",
    )


def expire_grants(work: Work, grants: Iterable[Grant]) -> int:
    """Mark those of these locked grants whose date has passed; return how many.

    They stopped counting at that date, by the clock.
    """
    over = [g for g in grants if g.state in CAN_EXPIRE and g.valid_until <= work.now]
    for grant in over:
        move(work, grant, GrantState.EXPIRED, event="expired", reason="Its date has passed.")
    return len(over)

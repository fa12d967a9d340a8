"""Use cases that stop a grant and lift that: suspend, resume, revoke, give up.

Stopping needs one person and takes effect on the next byte; resuming needs two. Whatever renews the
grant, or is renewed by it, is stopped with it: two grants of one grantee are one decision.
"""

from __future__ import annotations

from collections.abc import Iterable

from stagerelease.db.work import Work
from stagerelease.identity.queries import load_organisation
from stagerelease.identity.rules import ROLE_PERMISSIONS, Permission, Role, require
from stagerelease.kernel.errors import Conflict, Forbidden
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import queries as log
from stagerelease.ledger import service as ledger
from stagerelease.partners import queries
from stagerelease.partners.attesting import ask_for_attestation, delivered_under, holds
from stagerelease.partners.interests import refuse_interested
from stagerelease.partners.moving import (
    load_for,
    lock_grant,
    lock_grants,
    lock_with_renewals,
    move,
    require_own_name,
    standing_if_active,
    suspend,
    suspend_all,
)
from stagerelease.partners.queries import GrantRow
from stagerelease.partners.rules import (
    LIVE,
    RESUME_CONSENTS,
    GrantState,
    Suspension,
    check_grant_move,
)
from stagerelease.partners.tables import Grant, GrantResume
from stagerelease.releases.humans import accountable
from stagerelease.releases.moving import lock_track
from stagerelease.releases.people import standing as standing_of_people
from stagerelease.releases.rules import check_text

MAX_REASON = 1000
CAN_EXPIRE = (GrantState.PENDING, GrantState.ACTIVE, GrantState.SUSPENDED)
_MAY_RESUME = frozenset(r for r in Role if Permission.GRANT_RESUME in ROLE_PERMISSIONS[r])


def suspend_grant(work: Work, grant_id: str, *, reason: str, seen: int | None = None) -> GrantRow:
    """Suspend a grant now by decision; one person is enough. Its holder can read the reason.

    A grant that is suspended for another reason stays so by decision from now on: two people resume
    it, whatever else is mended, and consents given before do not count. Its renewals, and what it
    renews, are suspended with it; one that has not begun will ask for a second person's consent.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Stale: it is not at version ``seen`` any more.
        Conflict: it is neither active nor suspended, or suspended by decision already.
    """
    row = load_for(work, grant_id, Permission.GRANT_STOP)
    reason = check_text(reason, "reason", limit=MAX_REASON)
    grant, beside = lock_with_renewals(work, row, seen=seen)
    suspend(work, grant, why=Suspension.DECISION, reason=reason)
    for other in beside:
        # One that has not begun is asked about when it would (``stops.stopped_since``).
        if other.state != GrantState.PENDING and other.suspended_for != Suspension.DECISION:
            suspend(work, other, why=Suspension.DECISION, reason=reason, detail={"with": grant.id})
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
        Forbidden: not a human with an open account, or somebody with an interest in the grant.
        Stale: it is not at version ``seen`` any more.
        Conflict: it is not suspended, this person consented already, or it would not count even if
            it were active (withdrawn, nothing signed, ended): then a new grant is needed.
    """
    row = load_for(work, grant_id, Permission.GRANT_RESUME)
    me = accountable(work, "consent to resume a grant")
    refuse_interested(work, track_id=row.track_id, **row.party)
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
    answer = standing_if_active(work, grant_id)
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

    Its renewals, and what it renews, end with it: they would go on delivering the same files.
    Downloads in flight are cut because this Work moves the access epoch.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Stale: it is not at version ``seen`` any more.
        Conflict: it has ended already.
    """
    row = load_for(work, grant_id, Permission.GRANT_STOP)
    reason = check_text(reason, "reason", limit=MAX_REASON)
    grant, beside = lock_with_renewals(work, row, seen=seen)
    for each in (grant, *beside):
        _revoke(work, each, reason)
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
    live = (Grant.organisation_id == row.id) & Grant.state.in_(sorted(CAN_EXPIRE))
    lock_grants(work, live)
    locked = lock_grants(work, live)  # with any renewal issued while these were waited for
    for grant in locked:
        _revoke(work, grant, reason)
    return [_read(work, grant) for grant in locked]


def give_up_grant(work: Work, grant_id: str, *, seen: int | None = None) -> GrantRow:
    """End a grant for good, as its holder: the person, or an administrator of the organisation.

    What was delivered is listed and its destruction asked for, as when it is revoked.

    Raises:
        NotFound: there is none, or the caller may not know of it.
        Forbidden: the caller does not hold it, or the token is too narrow to act in their name.
        Stale: it is not at version ``seen`` any more.
        Conflict: it has ended already.
    """
    shown = load_for(work, grant_id, None)
    require_own_name(work.actor)
    if not holds(work, shown, accountable(work, "give access up")):
        raise Forbidden(
            "Only who holds access can give it up.",
            reason="grant.not-holder",
            next_step="Ask an administrator of your organisation.",
        )
    grant, beside = lock_with_renewals(work, shown, seen=seen)
    for each in (grant, *beside):
        _revoke(work, each, "Given up by its holder.", event="given_up")
    return _read(work, grant)


def _revoke(work: Work, grant: Grant, reason: str, *, event: str = "revoked") -> None:
    delivered = delivered_under(work, grant.id)
    move(
        work,
        grant,
        GrantState.REVOKED,
        event=event,
        reason=reason,
        detail={"delivered": delivered},
    )
    ask_for_attestation(work, grant, delivered)


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
    """Suspend every grant on a track that was withdrawn in this Work; return their ids."""
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

"""A grant that waits begins: a second person consents to it, or its holder has signed."""

from __future__ import annotations

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission
from stagerelease.kernel.errors import Conflict
from stagerelease.partners import queries
from stagerelease.partners.interests import refuse_interested
from stagerelease.partners.moving import load_for, lock_grant, move, note, standing_if_active
from stagerelease.partners.queries import GrantRow
from stagerelease.partners.rules import GrantState
from stagerelease.partners.tables import Grant
from stagerelease.releases.humans import accountable


def consent_to_grant(work: Work, grant_id: str) -> GrantRow:
    """Consent, as a second person, to letting somebody in again who was stopped before.

    Raises:
        NotFound: there is no such grant.
        Conflict: it waits for no consent, the caller issued it, or it could not begin (withdrawn,
            its signature ended, its date passed).
        Forbidden: not a person who may issue grants, or somebody with an interest in this one.
    """
    row = load_for(work, grant_id, Permission.GRANT_ISSUE)
    me = accountable(work, "consent to a grant")
    refuse_interested(work, track_id=row.track_id, **row.party)
    grant = lock_grant(work, grant_id)
    if grant.state != GrantState.PENDING or not grant.awaits_consent:
        raise Conflict("The grant waits for nobody's consent.", reason="grant.no-consent")
    if me == grant.created_by:
        raise Conflict(
            "Somebody else than who issued it has to consent.",
            reason="grant.consent-own",
            next_step="Ask another access officer.",
        )
    _check_worth_consenting(work, grant)
    grant.awaits_consent = False
    note(
        work,
        grant,
        event="consented",
        before=grant.state,
        reason="A second person consented.",
        detail={"person": me},
    )
    activate_pending(work, grant)
    work.session.flush()
    return queries.load_grant(work, grant.id)


def _check_worth_consenting(work: Work, grant: Grant) -> None:
    answer = standing_if_active(work, grant.id)
    unsigned = grant.awaits_agreement is not None and answer.reason.startswith("signature.")
    if not answer.active and not unsigned:
        raise Conflict(
            f"Consenting would not let anybody in. {answer.sentence}",
            reason=answer.reason,
            next_step="Mend that first, or revoke the grant and issue a new one.",
        )


def activate_pending(work: Work, grant: Grant) -> bool:
    """Make a locked pending grant active if it waits for nothing more; tell whether it did.

    One that would not count (its release was withdrawn, its date has passed) does not begin.
    """
    if grant.awaits_consent or grant.awaits_agreement is not None:
        return False
    if not standing_if_active(work, grant.id).active:
        return False
    move(
        work,
        grant,
        GrantState.ACTIVE,
        event="issued" if grant.renewed_from_id is None else "renewed",
        reason="It waits for nothing more.",
    )
    return True

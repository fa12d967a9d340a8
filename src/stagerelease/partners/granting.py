"""Use cases on grants: issue one, and show them to staff and to those who hold them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.identity import queries as people
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.clock import iso, said
from stagerelease.kernel.errors import Blocked, Blocker, Conflict, Invalid, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.partners import queries
from stagerelease.partners.interests import refuse_interested
from stagerelease.partners.moving import lock_grants, tell
from stagerelease.partners.queries import (
    GrantRow,
    SignatureRow,
)
from stagerelease.partners.rules import (
    LIVE,
    MAX_PURPOSE,
    ORGANISATIONS,
    PEOPLE,
    TAKES_TWO,
    GrantState,
    admitting_stages,
    check_dates,
    check_permissions,
    no_stage_blocker,
)
from stagerelease.partners.stops import stopped_before
from stagerelease.partners.tables import AgreementVersion, Grant, GrantEvent, Signature
from stagerelease.releases import queries as releases
from stagerelease.releases.ladder import Stage
from stagerelease.releases.moving import lock_track
from stagerelease.releases.queries import TrackRow, storable
from stagerelease.releases.rules import check_text


@dataclass(frozen=True, slots=True)
class Grantee:
    """Who a grant is for: exactly one of the two ids is set."""

    name: str
    organisation_id: str | None = None
    person_id: str | None = None
    disabled: bool = False

    @property
    def party(self) -> dict[str, str | None]:
        """Return the grantee as queries name one."""
        return {"person_id": self.person_id, "organisation_id": self.organisation_id}

    @property
    def audience_kind(self) -> str:
        """Return the audience of the stages that let this kind of grantee in."""
        return ORGANISATIONS if self.organisation_id is not None else PEOPLE


def grantee_of(work: Work, *, organisation: str | None, person: str | None) -> Grantee:
    """Return the grantee that a slug or a handle names.

    Raises:
        Invalid: not exactly one of the two is given.
        NotFound: there is none of that name.
    """
    if (organisation is None) == (person is None):
        raise Invalid(
            "A grant is for one organisation or one person.",
            reason="grant.grantee",
            next_step="Name exactly one of the two.",
        )
    name = organisation or person or ""
    if not storable(name):
        raise NotFound("There is nobody of that name.", reason="grant.grantee")
    if organisation is not None:
        row = people.load_organisation(work, organisation)
        return Grantee(row.name, organisation_id=row.id)
    who = people.load_person(work, name)
    return Grantee(who.handle, person_id=who.id, disabled=who.disabled_at is not None)


def issue_grant(
    work: Work,
    *,
    track_id: str,
    organisation: str | None = None,
    person: str | None = None,
    permissions: Collection[str] = ("download",),
    purpose: str,
    valid_until: datetime,
    audience: str | None = None,
    signature_id: str | None = None,
    renewed_from: str | None = None,
    await_signature: bool = False,
) -> GrantRow:
    """Let one organisation or person in to a track until a date; active at once.

    Two things make it ``pending`` first: with ``await_signature`` a grantee who has not signed the
    stage's agreement yet, until they do; and a grantee who was stopped on this track and not let
    in again since, until a second person consents (``consenting``).

    ``audience`` is the stage the grantee is admitted at: one the track has reached that lets this
    kind of grantee in, the lowest such when None. The grant rests on the grantee's own signature in
    force of the agreement that stage names.

    Raises:
        Invalid: purpose, permissions, dates or grantee are malformed.
        NotFound: no such track, grantee, signature or renewed grant.
        Forbidden: the caller has an interest in the grant.
        Conflict: the grant to renew was stopped.
        Blocked: held, withdrawn, no stage that admits, nothing signed, or a live grant is there.
    """
    require(work.actor, Permission.GRANT_ISSUE)
    purpose = check_text(purpose, "purpose", limit=MAX_PURPOSE)
    check_dates(work.now, valid_until)
    grantee = grantee_of(work, organisation=organisation, person=person)
    # Locked, so that no withdrawal or hold comes between reading the stage and letting somebody in.
    lock_track(work, track_id)
    track = releases.load_track(work, track_id)
    refuse_interested(work, track_id=track.id, **grantee.party)
    stage = _admission(work, track, grantee, audience)
    granted = check_permissions(permissions, stage)
    signature = _signature(work, stage, grantee, signature_id)
    _lock_others(work, track, grantee)
    _check_renewed(work, renewed_from, track, grantee)
    signed = signature is not None or await_signature
    _refuse_blocked(work, track, grantee, stage, renewed_from, signed=signed)
    grant = _pending(
        work,
        track,
        grantee,
        stage,
        signature,
        permissions=granted,
        purpose=purpose,
        valid_until=valid_until,
        renewed_from_id=renewed_from,
    )
    _issue(work, grant)
    return queries.load_grant(work, grant.id)


def _admission(work: Work, track: TrackRow, grantee: Grantee, audience: str | None) -> Stage:
    """Return the lowest stage reached that lets this kind of grantee in, or the one named.

    Raises:
        Blocked: there is none.
    """
    plan = releases.plan_of(work, track.plan_version_id)
    for stage in admitting_stages(plan, track.stage, grantee.audience_kind):
        if audience in (None, stage.name):
            return stage
    raise Blocked([no_stage_blocker(track.stage, grantee.audience_kind, audience)])


def _lock_others(work: Work, track: TrackRow, grantee: Grantee) -> None:
    """Keep the grantee's live grants as they are: one of them may be stopped at this moment."""
    theirs = (
        Grant.organisation_id == grantee.organisation_id
        if grantee.organisation_id is not None
        else Grant.person_id == grantee.person_id
    )
    lock_grants(work, (Grant.track_id == track.id) & theirs & Grant.state.in_(sorted(LIVE)))


def _check_renewed(work: Work, renewed_from: str | None, track: TrackRow, grantee: Grantee) -> None:
    if renewed_from is None:
        return
    old = queries.load_grant(work, renewed_from)
    same = (old.organisation_id, old.person_id) == (grantee.organisation_id, grantee.person_id)
    if not same or old.track_id != track.id:
        raise Invalid(
            "A renewal is for the same grantee and the same track as the grant it names.",
            reason="grant.renewal",
        )
    _refuse_stopped(work, old)


def _refuse_stopped(work: Work, old: GrantRow) -> None:
    """Return only if a grant may be renewed: what was stopped is let in again by two people."""
    again = "If its holder is to be let in again, issue a new grant; a second person consents."
    if old.state == GrantState.REVOKED:
        raise Conflict(
            "The grant was revoked; that is not renewed.", reason="grant.revoked", next_step=again
        )
    if old.suspended_for in TAKES_TWO and old.valid_until <= work.now:
        raise Conflict(
            "The grant was suspended when its date passed; that is not renewed.",
            reason="grant.suspended",
            next_step=again,
        )


def _signature(
    work: Work, stage: Stage, grantee: Grantee, signature_id: str | None
) -> SignatureRow | None:
    """Return the grantee's signature in force for ``stage``, kept in force until this Work ends.

    Raises:
        NotFound: ``signature_id`` names none.
        Invalid: it names one of another party or of another agreement.
    """
    party = grantee.party
    found = queries.signature_in_force(work, str(stage.agreement), **party)
    if signature_id is not None and (found is None or found.id != signature_id):
        named = queries.find_signature(work, signature_id)
        if named is None:
            raise NotFound(f"There is no signature {signature_id!r}.", reason="signature.unknown")
        raise Invalid(
            f"{signature_id} is not the signature in force of {grantee.name} on "
            f"'{stage.agreement}'.",
            reason="grant.signature",
            next_step="Leave it out: the one in force is found.",
        )
    if found is None:
        return None
    # The version first: one that is being retired has no new grant come to rest on it unseen.
    version, signed = found.agreement_version_id, found.id
    work.session.execute(
        select(AgreementVersion.id).where(AgreementVersion.id == version).with_for_update(read=True)
    )
    work.session.execute(
        select(Signature.id).where(Signature.id == signed).with_for_update(key_share=True)
    )
    # Read again under the locks: it may have been terminated, or superseded, a moment ago.
    return queries.signature_in_force(work, str(stage.agreement), **party)


def _refuse_blocked(
    work: Work,
    track: TrackRow,
    grantee: Grantee,
    stage: Stage,
    renewed_from: str | None,
    *,
    signed: bool,
) -> None:
    """Return only if nothing stands against the grant.

    Raises:
        Blocked: with everything that does.
    """
    blockers = _blockers(work, track, grantee, stage, signed=signed)
    blockers += _other_grants(work, track, grantee, renewed_from)
    if blockers:
        raise Blocked(blockers)


def _blockers(
    work: Work, track: TrackRow, grantee: Grantee, stage: Stage, *, signed: bool
) -> list[Blocker]:
    found = [
        Blocker("held", f"The release is on hold: {hold.public_reason or hold.reason}")
        for hold in releases.holds_over(work, track)
    ]
    if grantee.disabled:
        found.append(Blocker("account.disabled", f"The account {grantee.name} is disabled."))
    if not signed:
        found.append(
            Blocker(
                "signature.missing",
                f"{grantee.name} has not signed '{stage.agreement}', which the {stage.name} stage "
                "asks for; a grant rests on a signature in force.",
            )
        )
    return found


def _other_grants(
    work: Work, track: TrackRow, grantee: Grantee, renewed_from: str | None
) -> list[Blocker]:
    found = []
    for grant in queries.live_grants(work, track_id=track.id, **grantee.party):
        if grant.state == GrantState.SUSPENDED:
            found.append(
                Blocker(
                    "grant.suspended",
                    f"{grant.id} is suspended. A new grant would lift that with one person's "
                    "consent: two people resume it, or it is revoked.",
                )
            )
        elif grant.id != renewed_from:
            found.append(
                Blocker(
                    "grant.exists",
                    f"{grantee.name} holds {grant.id} on this track until "
                    f"{said(grant.valid_until)}; to renew it, name it.",
                )
            )
    return found


def _pending(
    work: Work,
    track: TrackRow,
    grantee: Grantee,
    stage: Stage,
    signature: SignatureRow | None,
    **asked: Any,
) -> Grant:
    """Return a grant as ``asked`` for, not written yet, that knows what it waits for."""
    return Grant(
        id=new_id("grt"),
        **grantee.party,
        track_id=track.id,
        audience=stage.name,
        signature_id=signature.id if signature is not None else None,
        awaits_agreement=stage.agreement if signature is None else None,
        awaits_consent=stopped_before(work, track_id=track.id, **grantee.party),
        state=GrantState.PENDING,
        valid_from=work.now,
        created_by=work.actor.id,
        created_at=work.now,
        **asked,
    )


def _issue(work: Work, grant: Grant) -> None:
    """Write a new grant and log it; walk it on to active unless it waits for somebody."""
    waits = grant.awaits_agreement is not None or grant.awaits_consent
    work.session.add(grant)
    work.session.flush()  # its events refer to it
    leaf = ledger.append(
        work,
        type="grant.issued",
        subject=f"grant:{grant.id}",
        new_state=GrantState.PENDING if waits else GrantState.ACTIVE,
        detail={
            "track": grant.track_id,
            "organisation": grant.organisation_id,
            "person": grant.person_id,
            "audience": grant.audience,
            "permissions": list(grant.permissions),
            "purpose": grant.purpose,
            "signature": grant.signature_id,
            "awaits_agreement": grant.awaits_agreement,
            "awaits_consent": grant.awaits_consent,
            "valid_until": iso(grant.valid_until),
            "renewed_from": grant.renewed_from_id,
        },
    )
    _step(work, grant, None, GrantState.PENDING, "Issued.", leaf)
    if waits:
        return
    reason = "It rests on a signature in force."
    _step(work, grant, GrantState.PENDING, GrantState.ACTIVE, reason, leaf)
    tell(work, grant, "renewed" if grant.renewed_from_id else "issued", purpose=grant.purpose)


def _step(
    work: Work, grant: Grant, before: str | None, after: GrantState, reason: str, leaf: int
) -> None:
    grant.state = after
    work.session.add(
        GrantEvent(
            id=new_id("gev"),
            grant_id=grant.id,
            from_state=before,
            to_state=after,
            reason=reason,
            actor_id=work.actor.id,
            at=work.now,
            leaf_idx=leaf,
        )
    )
    work.session.flush()  # in this order

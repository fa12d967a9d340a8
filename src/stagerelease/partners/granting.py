"""Use cases on grants: issue one, and show them to staff and to those who hold them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from stagerelease.db.work import Work
from stagerelease.identity import queries as people
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Blocked, Blocker, Forbidden, Invalid, NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.partners import queries
from stagerelease.partners.moving import load_for, require_known, standing_of
from stagerelease.partners.queries import (
    AttestationRow,
    DeliveryRow,
    GrantEventRow,
    GrantRow,
    SignatureRow,
)
from stagerelease.partners.rules import (
    MAX_PURPOSE,
    ORGANISATIONS,
    PEOPLE,
    GrantState,
    Standing,
    admitting_stages,
    check_dates,
    check_permissions,
    is_active,
    no_stage_blocker,
)
from stagerelease.partners.tables import Grant, GrantEvent, Signature
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
    def audience_kind(self) -> str:
        """Return the audience of the stages that let this kind of grantee in."""
        return ORGANISATIONS if self.organisation_id is not None else PEOPLE


@dataclass(frozen=True, slots=True)
class GrantPage:
    """A grant with its history, whether it counts now, and what it left to attest."""

    grant: GrantRow
    standing: Standing
    events: tuple[GrantEventRow, ...]
    attestation: AttestationRow | None


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
) -> GrantRow:
    """Let one organisation or person in to a track until a date; active at once.

    ``audience`` is the stage the grantee is admitted at: one the track has reached that lets this
    kind of grantee in, the lowest such when None. The grant rests on the grantee's own signature in
    force of the agreement that stage names.

    Raises:
        Invalid: purpose, permissions, dates or grantee are malformed.
        NotFound: no such track, grantee, signature or renewed grant.
        Forbidden: the grantee is the caller.
        Blocked: held, withdrawn, no stage that admits, nothing signed, or a live grant is there.
    """
    require(work.actor, Permission.GRANT_ISSUE)
    purpose = check_text(purpose, "purpose", limit=MAX_PURPOSE)
    check_dates(work.now, valid_until)
    grantee = grantee_of(work, organisation=organisation, person=person)
    if work.actor.is_human and grantee.person_id == work.actor.id:
        raise Forbidden(
            "Nobody issues a grant to themselves.",
            reason="grant.own",
            next_step="Ask another access officer.",
        )
    # Locked, so that no withdrawal or hold comes between reading the stage and letting somebody in.
    lock_track(work, track_id)
    track = releases.load_track(work, track_id)
    stage = _admission(work, track, grantee, audience)
    granted = check_permissions(permissions, stage)
    _check_renewed(work, renewed_from, track, grantee)
    signature = _signature(work, stage, grantee, signature_id)
    blockers = _blockers(work, track, grantee, stage, signature, renewed_from)
    if blockers or signature is None:
        raise Blocked(blockers)
    grant = Grant(
        id=new_id("grt"),
        organisation_id=grantee.organisation_id,
        person_id=grantee.person_id,
        track_id=track.id,
        audience=stage.name,
        permissions=granted,
        purpose=purpose,
        signature_id=signature.id,
        state=GrantState.PENDING,
        valid_from=work.now,
        valid_until=valid_until,
        renewed_from_id=renewed_from,
        created_by=work.actor.id,
        created_at=work.now,
    )
    _activate(work, grant)
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


def _signature(
    work: Work, stage: Stage, grantee: Grantee, signature_id: str | None
) -> SignatureRow | None:
    """Return the grantee's signature in force for ``stage``, kept in force until this Work ends.

    Raises:
        NotFound: ``signature_id`` names none.
        Invalid: it names one of another party or of another agreement.
    """
    party = {"organisation_id": grantee.organisation_id, "person_id": grantee.person_id}
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
    work.session.execute(
        select(Signature.id).where(Signature.id == found.id).with_for_update(key_share=True)
    )
    # Read again under the lock: it may have been terminated, or superseded, a moment ago.
    return queries.signature_in_force(work, str(stage.agreement), **party)


def _blockers(
    work: Work,
    track: TrackRow,
    grantee: Grantee,
    stage: Stage,
    signature: SignatureRow | None,
    renewed_from: str | None,
) -> list[Blocker]:
    found = [
        Blocker("held", f"The release is on hold: {hold.public_reason or hold.reason}")
        for hold in releases.holds_over(work, track)
    ]
    if grantee.disabled:
        found.append(Blocker("account.disabled", f"The account {grantee.name} is disabled."))
    if signature is None:
        found.append(
            Blocker(
                "signature.missing",
                f"{grantee.name} has not signed '{stage.agreement}', which the {stage.name} stage "
                "asks for; a grant rests on a signature in force.",
            )
        )
    for grant in queries.live_grants(
        work,
        track_id=track.id,
        person_id=grantee.person_id,
        organisation_id=grantee.organisation_id,
    ):
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
                    f"{iso(grant.valid_until)}; to renew it, name it.",
                )
            )
    return found


def _activate(work: Work, grant: Grant) -> None:
    """Write a new grant, log it, and walk it from pending to active in one step of the log."""
    work.session.add(grant)
    work.session.flush()  # its events refer to it
    leaf = ledger.append(
        work,
        type="grant.issued",
        subject=f"grant:{grant.id}",
        new_state=GrantState.ACTIVE,
        detail={
            "track": grant.track_id,
            "organisation": grant.organisation_id,
            "person": grant.person_id,
            "audience": grant.audience,
            "permissions": list(grant.permissions),
            "purpose": grant.purpose,
            "signature": grant.signature_id,
            "valid_until": iso(grant.valid_until),
            "renewed_from": grant.renewed_from_id,
        },
    )
    steps = ((None, GrantState.PENDING, "Issued."), (GrantState.PENDING, GrantState.ACTIVE, ""))
    for before, after, reason in steps:
        grant.state = after
        event = GrantEvent(
            id=new_id("gev"),
            grant_id=grant.id,
            from_state=before,
            to_state=after,
            reason=reason or "It rests on a signature in force.",
            actor_id=work.actor.id,
            at=work.now,
            leaf_idx=leaf,
        )
        work.session.add(event)
        work.session.flush()  # in this order


# --- looking -------------------------------------------------------------------------------------


def list_grants(
    work: Work, *, track_id: str | None = None, state: str | None = None
) -> list[GrantRow]:
    """Return grants, newest first: all to staff, to others theirs and their organisations'.

    Raises:
        Unauthenticated: nobody is known.
        Invalid: ``state`` is no state of a grant.
    """
    require_known(work.actor)
    if state is not None and state not in set(GrantState):
        raise Invalid(f"A grant is {', '.join(GrantState)}.", reason="grant.state")
    if authorize(work.actor, Permission.GRANT_READ).allowed:
        return queries.list_grants(work, track_id=track_id, state=state)
    return queries.list_grants(
        work,
        track_id=track_id,
        state=state,
        person_id=work.actor.id,
        organisation_ids=work.actor.organisations,
    )


def show_grant(work: Work, grant_id: str) -> GrantPage:
    """Return a grant with its history to staff and to those who hold it.

    Raises:
        Unauthenticated: nobody is known.
        NotFound: there is none, or the caller may not know of it.
    """
    grant = load_for(work, grant_id, None)
    effective = queries.find_effective(work, grant.id)
    if effective is None:
        raise NotFound(f"There is no grant {grant_id!r}.", reason="grant.unknown")
    return GrantPage(
        grant,
        is_active(standing_of(work, effective)),
        tuple(queries.grant_events(work, grant.id)),
        queries.find_attestation(work, grant.id),
    )


def list_deliveries(work: Work, grant_id: str) -> list[DeliveryRow]:
    """Return what was delivered under a grant, oldest first.

    Staff and the organisation's administrators see every delivery; its members their own.

    Raises:
        Unauthenticated: nobody is known.
        NotFound: there is no such grant, or the caller may not know of it.
    """
    grant = load_for(work, grant_id, None)
    rows = queries.deliveries(work, grant.id)
    actor = work.actor
    if (
        authorize(actor, Permission.GRANT_READ).allowed
        or grant.organisation_id in actor.administers
    ):
        return rows
    return [row for row in rows if row.person_id == actor.id]

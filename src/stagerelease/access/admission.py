"""Finds how an applicant can be let in: on which track, at which stage, under whose signature.

It issues the grant through ``partners`` and decides nothing about the request itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from stagerelease.access.applicants import make_researcher
from stagerelease.db.work import Work
from stagerelease.identity import queries as people
from stagerelease.identity.queries import OrganisationRow, PersonRow
from stagerelease.identity.rules import Role
from stagerelease.kernel.errors import Conflict
from stagerelease.partners import queries as papers
from stagerelease.partners import service as partners
from stagerelease.partners.queries import GrantRow, SignatureRow
from stagerelease.partners.rules import ORGANISATIONS, PEOPLE, GrantState, admitting_stages
from stagerelease.releases import queries as releases
from stagerelease.releases.ladder import Stage
from stagerelease.releases.queries import TrackRow

WEIGHTS = "weights"


@dataclass(frozen=True, slots=True)
class Admitted:
    """A grant that was issued, and the agreement its holder must sign first (None: signed)."""

    grant: GrantRow
    unsigned: str | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """One way in: a stage reached by a track, and the signature it would rest on (None: unsigned).

    ``organisation`` is None where the applicant would be let in for themselves.
    """

    track: TrackRow
    stage: Stage
    organisation: OrganisationRow | None
    signature: SignatureRow | None


def tracks_of(work: Work, variant_id: str) -> list[TrackRow]:
    """Return the tracks that access to a variant is about, newest first: its weights, if any."""
    tracks = releases.list_tracks(work, variant_id=variant_id)
    return [track for track in tracks if track.kind == WEIGHTS] or tracks


def _organisations(work: Work, person_id: str) -> list[OrganisationRow]:
    ids = {organisation for organisation, _, _ in people.memberships_now(work, person_id)}
    return sorted((people.load_organisation(work, i) for i in ids), key=lambda o: o.slug)


def openings(work: Work, variant_id: str, applicant: PersonRow) -> list[Opening]:
    """Return every way in, best first: newer tracks, then one's own, then lower stages."""
    organisations = _organisations(work, applicant.id)
    found: list[Opening] = []
    for track in tracks_of(work, variant_id):
        plan = releases.plan_of(work, track.plan_version_id)
        for stage in admitting_stages(plan, track.stage, PEOPLE):
            own = papers.signature_in_force(work, str(stage.agreement), person_id=applicant.id)
            found.append(Opening(track, stage, None, own))
        for stage in admitting_stages(plan, track.stage, ORGANISATIONS):
            for organisation in organisations:
                theirs = papers.signature_in_force(
                    work, str(stage.agreement), organisation_id=organisation.id
                )
                found.append(Opening(track, stage, organisation, theirs))
    return found


def admit(
    work: Work,
    *,
    variant_id: str,
    applicant: PersonRow,
    permissions: Collection[str],
    purpose: str,
    valid_until: datetime,
    await_signature: bool = False,
) -> Admitted:
    """Issue the grant that lets the applicant in, themselves or through their organisation.

    With ``await_signature`` a grant is issued, ``pending``, before anything is signed: to the
    applicant themselves where a stage lets people in, and they become a researcher, who may sign
    what it asks for; else to their organisation, whose administrator signs.

    Raises:
        Conflict: they are let in already, no stage lets anybody like them in, or nothing is signed;
            the sentence names the agreement and the next step says who does what.
        Blocked: the grant cannot be issued now; says every reason.
    """
    ways = openings(work, variant_id, applicant)
    _refuse_holders(work, variant_id, applicant)
    way = next((w for w in ways if w.signature is not None), None)
    if way is None and await_signature:
        way = next((w for w in ways if w.organisation is None), ways[0] if ways else None)
    if way is None:
        raise _unsigned(work, variant_id, applicant, ways)
    organisation, signed = way.organisation, way.signature is not None
    grant = partners.issue_grant(
        work,
        track_id=way.track.id,
        organisation=organisation.slug if organisation else None,
        person=None if organisation else applicant.handle,
        audience=way.stage.name,
        permissions=permissions,
        purpose=purpose,
        valid_until=valid_until,
        await_signature=not signed,
    )
    if signed:
        return Admitted(grant)
    if organisation is None:
        make_researcher(work, applicant.id)
    return Admitted(grant, str(way.stage.agreement))


def _refuse_holders(work: Work, variant_id: str, applicant: PersonRow) -> None:
    tracks = tracks_of(work, variant_id)
    held = papers.grants_for(
        work,
        person_id=applicant.id,
        organisation_ids=[o.id for o in _organisations(work, applicant.id)],
        track_ids=[tracks[0].id] if tracks else [],
    )
    for row in held:
        if row.grant.state == GrantState.ACTIVE and row.grant.valid_until > work.now:
            through = " through their organisation" if row.grant.organisation_id else ""
            raise Conflict(
                f"{applicant.handle} has access already{through}, by the grant {row.grant.id}.",
                reason="access.granted",
                next_step="Reject the request with that as the reason, or let it be withdrawn.",
            )


def _unsigned(work: Work, variant_id: str, applicant: PersonRow, ways: list[Opening]) -> Conflict:
    """Return the refusal that says which signature is missing and how it comes about."""
    who = applicant.handle
    own = next((w for w in ways if w.organisation is None), None)
    if own is not None:
        title = _title(work, own.stage)
        roles = people.roles_now(work, applicant.id)
        first = "" if Role.RESEARCHER in roles else "Give them the role researcher, then "
        ask = "ask them" if first else "Ask them"
        return Conflict(
            f"{who} has not signed {title} yet, which the {own.stage.name} stage asks for.",
            reason="access.no-signature",
            next_step=f"{first}{ask} to read and sign it: stagerelease agreement show "
            f"{own.stage.agreement}.",
        )
    if ways:
        titles = _title(work, ways[0].stage)
        return Conflict(
            f"No organisation that {who} belongs to has signed {titles} yet, which the "
            f"{ways[0].stage.name} stage asks for.",
            reason="access.no-signature",
            next_step="Ask an administrator of their organisation to read and sign it.",
        )
    tracks = tracks_of(work, variant_id)
    at = f"at {tracks[0].stage}" if tracks else "not on any track"
    return Conflict(
        f"The release is {at}: no stage it has reached lets in {who}, who is on the roster of no "
        "organisation that could be let in.",
        reason="access.no-stage",
        next_step="Wait for the release to reach a wider stage, or put them on a partner's roster.",
    )


def _title(work: Work, stage: Stage) -> str:
    slug = str(stage.agreement)
    agreement = papers.find_agreement(work, slug)
    return f"'{agreement.title}' ({slug})" if agreement else f"'{slug}'"

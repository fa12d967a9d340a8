"""Who must not let somebody in: whoever has an interest in it. Asked at each act that lets in."""

from __future__ import annotations

from sqlalchemy import ColumnElement, String, column, exists, or_, select, table

from stagerelease.db.work import Work
from stagerelease.identity.queries import memberships_now
from stagerelease.identity.tables import Membership
from stagerelease.kernel.errors import Forbidden
from stagerelease.releases import queries as releases

# Requests and what their reviewers declared are a floor above: read by the tables' names.
_CONFLICT = table("access_conflict", column("request_id", String), column("person_id", String))
_REQUEST = table(
    "access_request",
    column("id", String),
    column("applicant_id", String),
    column("variant_id", String),
)
INTERESTS = {
    "own": "Nobody lets themselves in.",
    "same-organisation": "You and whom this grant lets in are on the roster of one organisation.",
    "conflict-declared": "You declared a conflict of interest in their request for this release.",
}
"""What each kind of interest is; the code of the refusal is ``grant.`` and the kind."""


def refuse_interested(
    work: Work, *, track_id: str, person_id: str | None, organisation_id: str | None
) -> None:
    """Return only if nothing keeps the caller from letting this grantee in to this track.

    The local operator is nobody's colleague; what a shell decides, the log says a shell did.

    Raises:
        Forbidden: the caller is the grantee, shares an organisation with them now, or declared a
            conflict of interest in a request of theirs for the same release.
    """
    if not work.actor.is_human:
        return
    kind = _interest(work, track_id, person_id, organisation_id)
    if kind is not None:
        raise Forbidden(
            INTERESTS[kind],
            reason=f"grant.{kind}",
            next_step="Ask another access officer, who has no interest in it.",
        )


def _interest(
    work: Work, track_id: str, person_id: str | None, organisation_id: str | None
) -> str | None:
    me = work.actor.id
    if person_id == me:
        return "own"
    theirs = {organisation_id} if organisation_id else _organisations(work, str(person_id))
    if theirs & _organisations(work, me):
        return "same-organisation"
    if _declared(work, track_id, person_id, organisation_id):
        return "conflict-declared"
    return None


def _organisations(work: Work, person_id: str) -> set[str]:
    return {organisation for organisation, _, _ in memberships_now(work, person_id)}


def _declared(
    work: Work, track_id: str, person_id: str | None, organisation_id: str | None
) -> bool:
    """Tell whether the caller declared a conflict about this grantee, or one of its members."""
    applicant: ColumnElement[bool] = _REQUEST.c.applicant_id == person_id
    if organisation_id is not None:
        applicant = _REQUEST.c.applicant_id.in_(
            select(Membership.person_id).where(
                Membership.organisation_id == organisation_id,
                Membership.starts_at <= work.now,
                or_(Membership.ends_at.is_(None), Membership.ends_at > work.now),
            )
        )
    declared = exists().where(
        _CONFLICT.c.person_id == work.actor.id,
        _CONFLICT.c.request_id == _REQUEST.c.id,
        _REQUEST.c.variant_id == releases.load_track(work, track_id).variant_id,
        applicant,
    )
    return bool(work.session.execute(select(declared)).scalar_one())

"""What evidence must know of the floors above: read as plain SQL, never imported, never written.

Tracks, promotions and grants live above this slice. Needed from there: which files a caller holds
a grant on, and which evidence an applied promotion used.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Select,
    String,
    and_,
    column,
    func,
    literal_column,
    or_,
    select,
    table,
    union,
)

from stagerelease.catalog.tables import Revision, RevisionFile
from stagerelease.db.types import UtcDateTime
from stagerelease.db.work import Work

_GRANT = table(
    "access_grant",
    column("organisation_id", String),
    column("person_id", String),
    column("track_id", String),
    column("signature_id", String),
    column("state", String),
    column("valid_from", UtcDateTime()),
    column("valid_until", UtcDateTime()),
)
_SIGNATURE = table(
    "signature",
    column("id", String),
    column("agreement_version_id", String),
    column("state", String),
    column("valid_until", UtcDateTime()),
    column("reconsent_until", UtcDateTime()),
)
_VERSION = table("agreement_version", column("id", String), column("state", String))
_TRACK = table(
    "track",
    column("id", String),
    column("revision_id", String),
    column("kind", String),
    column("stage", String),
)
_PROMOTION = table("promotion", column("state", String), column("evidence_ids", JSON))


def _held_tracks(
    work: Work, person_id: str, organisations: Collection[str]
) -> Select[tuple[str, str]]:
    """Select (revision, kind) of the tracks on which one of these holds a grant active now.

    Every end is compared with the clock, as where bytes are asked for: the sweep only announces.
    """
    holder: ColumnElement[bool] = _GRANT.c.person_id == person_id
    if organisations:
        holder = or_(holder, _GRANT.c.organisation_id.in_(sorted(organisations)))

    def goes_on(end: ColumnElement[datetime | None]) -> ColumnElement[bool]:
        return or_(end.is_(None), end > work.now)

    return (
        select(_TRACK.c.revision_id, _TRACK.c.kind)
        .join(_GRANT, _GRANT.c.track_id == _TRACK.c.id)
        .join(_SIGNATURE, _SIGNATURE.c.id == _GRANT.c.signature_id)
        .join(_VERSION, _VERSION.c.id == _SIGNATURE.c.agreement_version_id)
        .where(
            holder,
            _GRANT.c.state == "active",
            _GRANT.c.valid_from <= work.now,
            _GRANT.c.valid_until > work.now,
            _SIGNATURE.c.state == "in_force",
            goes_on(_SIGNATURE.c.valid_until),
            goes_on(_SIGNATURE.c.reconsent_until),
            _VERSION.c.state.in_(("in_force", "superseded")),
            _TRACK.c.stage != "withdrawn",
        )
    )


def held_digests(work: Work, *, person_id: str, organisations: Collection[str]) -> set[str]:
    """Return digests of the manifests and files of the tracks these hold an active grant on."""
    held = _held_tracks(work, person_id, organisations).distinct().subquery("held")
    manifests = select(Revision.manifest_sha256).join(held, held.c.revision_id == Revision.id)
    files = select(RevisionFile.sha256).join(
        held,
        and_(held.c.revision_id == RevisionFile.revision_id, held.c.kind == RevisionFile.kind),
    )
    return set(work.session.execute(union(manifests, files)).scalars())


def used_in_listed(work: Work) -> Select[Any]:
    """Select the ids of all evidence that an applied promotion to a listed stage names.

    What a move to an unlisted stage rests on would tell of a release nobody is to know of.
    """
    each: Any = func.json_array_elements_text if work.is_postgres else func.json_each
    ids = each(_PROMOTION.c.evidence_ids).table_valued(column("value", String), name="used")
    return (
        select(ids.c.value)
        .select_from(_PROMOTION.join(ids, literal_column("true")))
        .where(_PROMOTION.c.state == "applied", _led_to_listed(work))
    )


def _led_to_listed(work: Work) -> ColumnElement[bool]:
    """Return whether the stage that the promotion of the row led to is listed, by its own plan."""
    plan = table("plan_version", column("id", String), column("document", JSON))
    stages: Any = (
        func.json_array_elements(plan.c.document["stages"])
        if work.is_postgres
        else func.json_each(plan.c.document, "$.stages")
    )
    stage = stages.table_valued(column("value", JSON), name="stage")
    return (
        select(plan.c.id)
        .select_from(plan.join(stage, literal_column("true")))
        .where(
            plan.c.id == literal_column("promotion.plan_version_id"),
            stage.c.value["name"].as_string() == literal_column("promotion.to_stage"),
            stage.c.value["listed"].as_boolean(),
        )
        .exists()
    )

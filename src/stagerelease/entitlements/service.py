"""The one ``authorize`` that listing, metadata, ticket and bytes all ask; and withdrawal.

It reads facts from the slices below at one instant and hands them to the pure ``rules.decide``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.entitlements import requests
from stagerelease.entitlements.known import is_public
from stagerelease.entitlements.rules import (
    Action,
    Decision,
    Facts,
    GrantFact,
    decide,
    governing_kind,
    leading_kind,
)
from stagerelease.identity.rules import Permission, require
from stagerelease.identity.rules import authorize as allowed_by_role
from stagerelease.kernel.actor import Actor
from stagerelease.kernel.errors import DomainError, Gated, NotFound
from stagerelease.partners import queries as partner_queries
from stagerelease.partners import rules as partner_rules
from stagerelease.partners import service as partners
from stagerelease.partners.rules import Suspension
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service
from stagerelease.releases.ladder import Plan

LINEAGE = 50
"""How far back along a branch staff's newest revision is looked for: all are theirs to know."""
LONG_LINEAGE = 1_000
"""How far back everybody else's is: drafts without number must not hide what was released."""


class Moved(DomainError):
    """The name is an alias; the thing itself lives under ``repo_id``."""

    code = "moved"
    title = "This name is an alias"

    def __init__(self, alias: str, repo_id: str) -> None:
        super().__init__(f"{alias} is another name of {repo_id}.", next_step=f"Use {repo_id}.")
        self.alias = alias
        self.repo_id = repo_id


@dataclass(frozen=True, slots=True)
class Entitled:
    """A revision as one caller may see it: the decision, and the track it rests on.

    ``file`` is the file that was asked about, when one was and the revision holds it.
    """

    variant: catalog.VariantRow
    revision: catalog.RevisionRow
    track: releases.TrackRow | None
    stage: str | None
    gated: bool
    decision: Decision
    file: catalog.FileRow | None = None


def _scoped_out(actor: Actor, action: Action) -> bool:
    return actor.scopes is not None and action.value not in actor.scopes


def _membership_ends(actor: Actor) -> dict[str, datetime | None]:
    """Return when the caller leaves each organisation: the latest of several roster lines."""
    ends: dict[str, datetime | None] = {}
    for organisation, end in actor.membership_ends:
        known = ends.get(organisation, end)
        ends[organisation] = None if known is None or end is None else max(known, end)
    return ends


def _grant_facts(
    work: Work, actor: Actor, track: releases.TrackRow, plan: Plan
) -> tuple[GrantFact, ...]:
    if not actor.is_human:
        return ()
    rank = plan.rank(track.stage)
    rows = partner_queries.grants_for(
        work, person_id=actor.id, organisation_ids=actor.organisations, track_ids=[track.id]
    )
    ends = _membership_ends(actor)
    facts = []
    for row in rows:
        grant = row.grant
        stage = plan.find(grant.audience)
        standing = partner_rules.is_active(
            partner_rules.GrantStanding(
                at=work.now,
                state=grant.state,
                suspended_for=grant.suspended_for,
                valid_from=grant.valid_from,
                valid_until=grant.valid_until,
                signature_state=row.signature_state,
                signature_until=row.signature_until,
                reconsent_until=row.reconsent_until,
                agreement_version_state=row.agreement_version_state,
                audience_rank=plan.rank(stage.name) if stage is not None else None,
                stage_rank=rank,
                withdrawn=track.stage == "withdrawn",
                membership_until=ends.get(grant.organisation_id or ""),
                token_until=actor.until,
            )
        )
        facts.append(
            GrantFact(
                id=grant.id,
                active=standing.active,
                permissions=grant.permissions,
                reason=standing.reason,
                sentence=standing.sentence,
                until=standing.until,
                gives=stage.permissions if stage is not None else frozenset(),
            )
        )
    return tuple(facts)


def _was_let_in(work: Work, actor: Actor, track: releases.TrackRow) -> bool:
    """Tell whether a grant of the caller's is suspended because this track was withdrawn."""
    if not actor.is_human:
        return False
    rows = partner_queries.grants_for(
        work, person_id=actor.id, organisation_ids=actor.organisations, track_ids=[track.id]
    )
    return any(row.grant.suspended_for == Suspension.WITHDRAWAL for row in rows)


def _wide_holds(work: Work, variant: catalog.VariantRow) -> tuple[str, ...]:
    """Return the public reasons of the holds over everything or over the variant's family."""
    return _in_public(
        hold
        for hold in releases.active_holds(work)
        if hold.scope == "everything"
        or (hold.scope == "family" and hold.scope_id == variant.family_id)
    )


def _in_public(holds: Iterable[releases.HoldRow]) -> tuple[str, ...]:
    return tuple(hold.public_reason or "no reason is public." for hold in holds)


def _facts(
    work: Work,
    actor: Actor,
    variant: catalog.VariantRow,
    track: releases.TrackRow | None,
    action: Action,
) -> tuple[Facts, bool]:
    """Return the facts of one decision, and whether the track's present stage is gated."""
    staff = allowed_by_role(actor, Permission.CATALOG_READ_INTERNAL).allowed
    base = Facts(
        known=actor.known,
        staff=staff,
        scoped_out=_scoped_out(actor, action),
        stage=None,
        audience="staff",
        listed=False,
        withdrawn=False,
        agreement=None,
        holds=(),
        grants=(),
        staff_until=actor.until,
    )
    if track is None:
        # On no track, only staff know of it; a hold wider than a track stops it for them too.
        return replace(base, holds=_wide_holds(work, variant) if staff else ()), True
    plan = releases.plan_of(work, track.plan_version_id)
    withdrawn = track.stage == "withdrawn"
    holds = _in_public(releases.holds_over(work, track))
    if withdrawn:
        gone = replace(
            base,
            stage=track.stage,
            listed=is_public(work, track),
            withdrawn=True,
            was_let_in=_was_let_in(work, actor, track),
            holds=holds,
        )
        return gone, True
    stage = plan.stage(track.stage)
    # What everyone is given needs no look at grants; what only some are, does at every stage.
    gated = stage.audience != "everyone"
    grants: tuple[GrantFact, ...] = ()
    if gated or action.value not in stage.permissions:
        grants = _grant_facts(work, actor, track, plan)
    facts = replace(
        base,
        stage=track.stage,
        audience=stage.audience,
        listed=stage.listed,
        agreement=stage.agreement,
        holds=holds,
        grants=grants,
        gives=stage.permissions,
    )
    return facts, gated


def authorize(
    work: Work,
    actor: Actor,
    *,
    variant: catalog.VariantRow,
    revision: catalog.RevisionRow,
    path: str | None = None,
    action: Action = Action.DOWNLOAD,
) -> Entitled:
    """Decide whether ``actor`` may do ``action`` with ``revision`` now, or with one file of it.

    A file is governed by the track of its own kind; a path that is not there, like the revision as
    a whole, by the track the revision is released as.
    """
    tracks = {t.kind: t for t in releases.tracks_of_revision(work, revision.id)}
    file = catalog.find_file(work, revision.id, path) if path is not None else None
    kind = governing_kind(file.kind, tracks) if file is not None else leading_kind(tracks)
    track = tracks.get(kind) if kind is not None else None
    facts, gated = _facts(work, actor, variant, track, action)
    decision = decide(facts, action)
    if decision.reason == "no-grant" and actor.is_human:  # say what became of their request
        waits, rejected = requests.standing(work, variant_id=variant.id, person_id=actor.id)
        decision = decide(replace(facts, pending_request=waits, rejected_reason=rejected), action)
    stage = track.stage if track else None
    return Entitled(variant, revision, track, stage, gated, decision, file)


def find_variant(work: Work, repo_id: str) -> tuple[catalog.VariantRow, bool]:
    """Return the variant of a repository id, and whether the id is an alias of it.

    Raises:
        NotFound: there is none.
    """
    found = catalog.find_variant(work, repo_id)
    if found is None:
        raise hidden(repo_id)
    return found


def hidden(repo_id: str) -> NotFound:
    """Return the one answer for a repository that is not there or may not be known."""
    return NotFound(
        f"There is no repository {repo_id!r} here, or it is not visible to you.",
        reason="repo",
        next_step="Check the name, and that your token is the right one.",
    )


def see(
    work: Work,
    actor: Actor,
    repo_id: str,
    rev: str = "main",
    *,
    path: str | None = None,
    action: Action = Action.DOWNLOAD,
) -> Entitled:
    """Return the revision that ``rev`` means for this caller, with the decision on it or ``path``.

    On a branch this is the newest revision the caller may have, so that an import or a newer
    track does not take away what was released; when there is none, the newest they may know of.

    Raises:
        Moved: ``repo_id`` is an alias of a repository that is visible to the caller.
        NotFound: reason ``repo`` when the repository is not visible to the caller, ``revision``
            when it is, they are entitled to something in it, and ``rev`` names nothing they may
            know of.
    """
    variant, is_alias = find_variant(work, repo_id)
    if is_alias:
        try:
            see(work, actor, variant.repo_id, path=path, action=action)
        except NotFound as error:  # which would say what the alias stands for
            raise hidden(repo_id) if error.reason == "repo" else error from None
        raise Moved(repo_id, variant.repo_id)

    def ask(revision: catalog.RevisionRow) -> Entitled:
        return authorize(work, actor, variant=variant, revision=revision, path=path, action=action)

    start = catalog.resolve_rev(work, variant.id, rev)
    branch = start is not None and catalog.is_branch(work, variant.id, rev)
    if start is not None and not branch:
        exact = ask(catalog.load_revision(work, start))
        if exact.decision.visible:
            return exact
    tip = start if branch else catalog.find_ref(work, variant.id, "main")
    staff = allowed_by_role(actor, Permission.CATALOG_READ_INTERNAL).allowed
    if tip is None:
        if staff:
            raise NotFound(f"{repo_id} has no files yet.", reason="revision")
        raise hidden(repo_id)
    best = _newest(ask(revision) for revision in _line(work, variant, tip, everything=staff))
    if best is None:
        raise hidden(repo_id)
    if best.decision.allowed and not branch:
        raise NotFound(f"{repo_id} has no revision {rev!r}.", reason="revision")
    return best  # refused: a caller without access does not learn which revisions exist


def _line(
    work: Work, variant: catalog.VariantRow, tip: str, *, everything: bool
) -> Iterable[catalog.RevisionRow]:
    """Return the revisions to ask about, newest first: what is on no track only staff may know of.

    Asking about each of many would take long enough to tell a hidden repository from none.
    """
    if everything:
        return catalog.lineage(work, tip, limit=LINEAGE)
    released = {track.revision_id for track in releases.tracks_of_variants(work, [variant.id])}
    return catalog.lineage(work, tip, limit=LONG_LINEAGE, only=released) if released else ()


def _newest(line: Iterable[Entitled]) -> Entitled | None:
    """Return the first that is allowed, else the first that is visible; asks no further."""
    visible: Entitled | None = None
    for entitled in line:
        if entitled.decision.allowed:
            return entitled
        if visible is None and entitled.decision.visible:
            visible = entitled
    return visible


def refuse(decision: Decision, actor: Actor) -> Gated:
    """Return the refusal that ``decision`` stands for."""
    return Gated(
        decision.sentence,
        reason=decision.reason,
        next_step=decision.next_step,
        anonymous=not actor.known,
    )


def stage_of_grant(work: Work, grant_id: str) -> str | None:
    """Return the name of the stage that a grant admits its holder at, or None for no grant."""
    grant = partner_queries.find_grant(work, grant_id)
    return grant.audience if grant is not None else None


def withdraw(work: Work, track_id: str, *, reason: str) -> None:
    """Withdraw a release and suspend every grant on it, in this transaction (invariant 6)."""
    require(work.actor, Permission.RELEASE_WITHDRAW)
    partners.lock_for_withdrawal(work, track_id)
    release_service.withdraw_track(work, track_id, reason)
    partners.suspend_for_withdrawal(work, track_id)

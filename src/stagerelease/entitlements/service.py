"""The one ``authorize`` that listing, metadata, ticket and bytes all ask; and withdrawal.

It reads facts from the slices below at one instant and hands them to the pure ``rules.decide``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.entitlements import requests
from stagerelease.entitlements.rules import Action, Decision, Facts, GrantFact, decide
from stagerelease.identity.rules import Permission, require
from stagerelease.identity.rules import authorize as allowed_by_role
from stagerelease.kernel.actor import Actor
from stagerelease.kernel.errors import DomainError, NotFound
from stagerelease.partners import queries as partner_queries
from stagerelease.partners import rules as partner_rules
from stagerelease.partners import service as partners
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service

WEIGHTS = "weights"
LINEAGE = 50
"""How far back along a branch the newest revision a caller may have is looked for."""


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
    """A revision as one caller may see it: the decision, and the track it rests on."""

    variant: catalog.VariantRow
    revision: catalog.RevisionRow
    track: releases.TrackRow | None
    stage: str | None
    gated: bool
    decision: Decision


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
    work: Work, actor: Actor, track: releases.TrackRow, *, rank: int, ranks: dict[str, int]
) -> tuple[GrantFact, ...]:
    if not actor.is_human:
        return ()
    rows = partner_queries.grants_for(
        work, person_id=actor.id, organisation_ids=actor.organisations, track_ids=[track.id]
    )
    ends = _membership_ends(actor)
    facts = []
    for row in rows:
        grant = row.grant
        standing = partner_rules.is_active(
            partner_rules.GrantStanding(
                at=work.now,
                state=grant.state,
                suspended_for=grant.suspended_for,
                valid_from=grant.valid_from,
                valid_until=grant.valid_until,
                signature_state=row.signature_state,
                signature_until=row.signature_until,
                agreement_version_state=row.agreement_version_state,
                audience_rank=ranks.get(grant.audience),
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
            )
        )
    return tuple(facts)


def _facts(
    work: Work, actor: Actor, track: releases.TrackRow | None, action: Action
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
        return base, True
    plan = releases.plan_of(work, track.plan_version_id)
    withdrawn = track.stage == "withdrawn"
    holds = tuple(
        h.public_reason or "no reason is public." for h in releases.holds_over(work, track)
    )
    if withdrawn:
        return replace(base, stage=track.stage, listed=True, withdrawn=True, holds=holds), True
    stage = plan.stage(track.stage)
    ranks = {s.name: plan.rank(s.name) for s in plan.ladder}
    gated = stage.audience != "everyone"
    grants = _grant_facts(work, actor, track, rank=ranks[track.stage], ranks=ranks) if gated else ()
    facts = replace(
        base,
        stage=track.stage,
        audience=stage.audience,
        listed=stage.listed,
        agreement=stage.agreement,
        holds=holds,
        grants=grants,
    )
    return facts, gated


def governing_track(tracks: Sequence[releases.TrackRow], kind: str) -> releases.TrackRow | None:
    """Return the track that governs files of ``kind``: its own, else that of the weights."""
    by_kind = {track.kind: track for track in tracks}
    return by_kind.get(kind) or by_kind.get(WEIGHTS) or (tracks[0] if tracks else None)


def authorize(
    work: Work,
    actor: Actor,
    *,
    variant: catalog.VariantRow,
    revision: catalog.RevisionRow,
    kind: str = WEIGHTS,
    action: Action = Action.DOWNLOAD,
) -> Entitled:
    """Decide whether ``actor`` may do ``action`` with files of ``kind`` of ``revision`` now."""
    track = governing_track(releases.tracks_of_revision(work, revision.id), kind)
    facts, gated = _facts(work, actor, track, action)
    decision = decide(facts, action)
    if decision.reason == "no-grant" and actor.is_human:  # say what became of their request
        waits, rejected = requests.standing(work, variant_id=variant.id, person_id=actor.id)
        decision = decide(replace(facts, pending_request=waits, rejected_reason=rejected), action)
    return Entitled(variant, revision, track, track.stage if track else None, gated, decision)


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
    kind: str = WEIGHTS,
    action: Action = Action.DOWNLOAD,
) -> Entitled:
    """Return the revision that ``rev`` means for this caller, with the decision on it.

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
        see(work, actor, variant.repo_id, kind=kind, action=action)
        raise Moved(repo_id, variant.repo_id)
    start = catalog.resolve_rev(work, variant.id, rev)
    head = catalog.find_ref(work, variant.id, "main")
    branch = catalog.is_branch(work, variant.id, rev)
    tips = [tip for tip in (start, head) if tip is not None]
    if not tips:
        if allowed_by_role(actor, Permission.CATALOG_READ_INTERNAL).allowed:
            raise NotFound(f"{repo_id} has no files yet.", reason="revision")
        raise hidden(repo_id)
    if start is not None and not branch:
        revision = catalog.load_revision(work, start)
        entitled = authorize(
            work, actor, variant=variant, revision=revision, kind=kind, action=action
        )
        if entitled.decision.visible:
            return entitled
    line = [
        authorize(work, actor, variant=variant, revision=r, kind=kind, action=action)
        for r in catalog.lineage(work, start if branch and start else tips[-1], limit=LINEAGE)
    ]
    best = next((e for e in line if e.decision.allowed), None)
    best = best or next((e for e in line if e.decision.visible), None)
    if best is None:
        raise hidden(repo_id)
    if start is not None and branch:
        return best
    if best.decision.allowed:
        raise NotFound(f"{repo_id} has no revision {rev!r}.", reason="revision")
    return best  # refused: a caller without access does not learn which revisions exist


def withdraw(work: Work, track_id: str, *, reason: str) -> None:
    """Withdraw a release and suspend every grant on it, in this transaction (invariant 6)."""
    require(work.actor, Permission.RELEASE_WITHDRAW)
    partners.lock_for_withdrawal(work, track_id)
    release_service.withdraw_track(work, track_id, reason)
    partners.suspend_for_withdrawal(work, track_id)

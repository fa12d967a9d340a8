"""The facts a decision on a promotion request rests on, read at one instant in few statements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select

from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.evidence import queries as evidence
from stagerelease.evidence.coordinating import counts_from
from stagerelease.evidence.facts import EvidenceFact
from stagerelease.evidence.tables import Evidence
from stagerelease.kernel.errors import Blocker
from stagerelease.releases import queries
from stagerelease.releases.gates import (
    ContactFact,
    Facts,
    GateResult,
    HoldFact,
    SignatureFact,
    specs_of,
)
from stagerelease.releases.ladder import Stage
from stagerelease.releases.people import (
    approval_facts,
    judgement_facts,
    standing,
    waiver_facts,
)
from stagerelease.releases.queries import HoldRow, TrackRow
from stagerelease.releases.requests import (
    ApprovalRow,
    JudgementRow,
    PromotionRow,
    approvals_of,
    due_promotions,
    find_promotion,
    judgements_of,
    list_promotions,
    load_promotion,
)
from stagerelease.releases.rules import State
from stagerelease.releases.upward import (
    Served,
    blocking_incidents,
    completed_downloads,
    served_time,
)
from stagerelease.releases.waiver_rows import WaiverRow, waivers_of

__all__ = [
    "ApprovalRow",
    "FactsPage",
    "JudgementRow",
    "PromotionRow",
    "about",
    "approvals_of",
    "due_promotions",
    "find_promotion",
    "gather",
    "imagine",
    "judgements_of",
    "list_promotions",
    "load_promotion",
]


@dataclass(frozen=True, slots=True)
class DeciderRow:
    """Somebody who holds a role of the quorum now: whether their approval would count, and why.

    ``since`` is when they were given the latest of ``roles``, and ``given_by`` who gave it; None
    where it was given on the host.
    """

    person_id: str
    person: str
    roles: tuple[str, ...]
    since: datetime
    given_by: str | None
    may: bool
    why: str


@dataclass(frozen=True, slots=True)
class NamedEvidenceRow:
    """A piece of evidence about the track, as the page of facts shows it.

    ``named``: the request rests on it. Accepted evidence it does not name is shown beside.
    """

    id: str
    type: str
    title: str
    metric: str
    value: float  # of a finding: the rank of its verdict
    unit: str
    verdict: str | None
    fact_status: str
    state: str
    measured_at: datetime
    valid_until: datetime | None
    age: str
    named: bool
    counts: bool
    why: str


@dataclass(frozen=True, slots=True)
class FactsPage:
    """Everything about one request: its gates, what blocks it, and who said what."""

    promotion: PromotionRow
    track: TrackRow
    gates: tuple[GateResult, ...]
    blockers: tuple[Blocker, ...]
    approvals: tuple[ApprovalRow, ...]
    judgements: tuple[JudgementRow, ...]
    holds: tuple[HoldRow, ...]
    waivers: tuple[WaiverRow, ...]
    evidence: tuple[NamedEvidenceRow, ...]
    deciders: tuple[DeciderRow, ...]

    @property
    def track_stage(self) -> str:
        """Return the stage the track is at now."""
        return self.track.stage


# --- things --------------------------------------------------------------------------------------


def subjects_of(work: Work, track: TrackRow) -> frozenset[str]:
    """Return the digests evidence about this track may have as its subject.

    The files of the track's own kind, and the manifest of its revision: what was measured on a card
    or a tokenizer beside the weights, which other revisions share, says nothing about them.
    """
    files = {f.sha256 for f in catalog.files(work, track.revision_id) if f.kind == track.kind}
    return frozenset(files | {catalog.load_revision(work, track.revision_id).manifest_sha256})


def about(
    work: Work, track: TrackRow, *, subjects: frozenset[str] = frozenset()
) -> list[EvidenceFact]:
    """Return all evidence about this track that was ever submitted, in the order of its ids.

    ``subjects``, when known already, are its digests.
    """
    return evidence.facts_about(work, subjects or subjects_of(work, track))


def _served(work: Work, track: TrackRow, below: Stage | None) -> Served | None:
    if below is None or below.audience in ("staff", "everyone"):
        return Served(track.entered_at)  # nobody has to be let in one by one
    return served_time(work, track.id, below.name)


def _completed(
    work: Work, track: TrackRow, below: Stage | None, target: Stage, *, whole: bool
) -> int | None:
    if below is None or below.audience in ("staff", "everyone"):
        return None
    asked = [int(spec.options.get("at_least", 1)) for spec in target.gates if spec.kind == "served"]
    if not asked and not whole:
        return 0
    return completed_downloads(work, track.id, below.name, at_most=10_000 if whole else max(asked))


def _signatures(work: Work, revision_id: str) -> tuple[SignatureFact, ...]:
    return tuple(
        SignatureFact(row.manifest_sha256, row.key_id, row.at)
        for row in catalog.manifest_signatures(work, revision_id)
    )


def _card_locked_at(work: Work, revision_id: str) -> datetime | None:
    row = catalog.card_lock(work, revision_id)
    return row.at if row is not None else None


def _contacts(work: Work, family_id: str) -> tuple[ContactFact, ...]:
    return tuple(
        ContactFact(
            id=row.id,
            developer=row.developer,
            kind=row.kind,
            at=counts_from(row),
            window_ends_at=row.window_ends_at,
        )
        for row in evidence.coordination_about(work, family_id)
    )


def _hold_facts(holds: Sequence[HoldRow]) -> tuple[HoldFact, ...]:
    return tuple(HoldFact(h.id, h.reason, h.laid_at, h.lifted_at) for h in holds)


def _of_the_track(
    work: Work,
    track: TrackRow,
    target: Stage,
    *,
    manifest: str,
    holds: Sequence[HoldRow],
    whole: bool = False,
) -> Facts:
    """Return what is known of the track itself, with no request in it.

    What no gate of ``target`` looks at is not read, unless ``whole``: somebody will try other
    gates on it.
    """
    below = queries.plan_of(work, track.plan_version_id).find(track.stage)
    kinds = {spec.kind for spec in specs_of(target, track.kind)}

    def asked(kind: str) -> bool:
        return whole or kind in kinds

    revision = track.revision_id
    served = _served(work, track, below)
    return Facts(
        at=work.now,
        track_stage=track.stage,
        from_stage=track.stage,
        target=target,
        state=State.SUBMITTED.value,
        requester="",
        request_hash="",
        entered_at=track.entered_at,
        first_served_at=served.since if served else None,
        gaps=served.gaps if served else (),
        holds=_hold_facts(holds),
        kind=track.kind,
        manifest_sha256=manifest,
        incidents=blocking_incidents(work, track),
        completed=_completed(work, track, below, target, whole=whole),
        signatures=_signatures(work, revision) if asked("signed") else (),
        card_locked_at=_card_locked_at(work, revision) if asked("card_locked") else None,
        coordination=_contacts(work, track.family_id) if asked("coordination") else (),
    )


# --- a request -----------------------------------------------------------------------------------


def imagine(work: Work, track: TrackRow, to: str, *, target: Stage | None = None) -> Facts:
    """Return the facts of a request for ``to`` that nobody has opened yet.

    It would name all accepted evidence about the track, as a request does unless told otherwise.
    ``target`` tries another stage of that name than the track's own plan has.

    Raises:
        KeyError: the track's plan has no such stage.
    """
    target = target or queries.plan_of(work, track.plan_version_id).stage(to)
    subjects = subjects_of(work, track)
    manifest = catalog.load_revision(work, track.revision_id).manifest_sha256
    waivers = waivers_of(work, track.id, to)
    signers = {s.person_id for waiver in waivers for s in waiver.signatures}
    holds = queries.holds_over(work, track, lifted=True)
    return replace(
        _of_the_track(work, track, target, manifest=manifest, holds=holds, whole=True),
        subjects=subjects,
        evidence=tuple(e for e in evidence.facts_about(work, subjects) if e.state == "accepted"),
        waivers=waiver_facts(waivers, standing(work, signers) if signers else {}),
    )


@dataclass(frozen=True, slots=True)
class Gathered:
    """The facts of a request, and the rows they were read from."""

    facts: Facts
    promotion: PromotionRow
    track: TrackRow
    approvals: tuple[ApprovalRow, ...]
    judgements: tuple[JudgementRow, ...]
    waivers: tuple[WaiverRow, ...]
    holds: tuple[HoldRow, ...]  # lifted ones too


def gather(work: Work, promotion_id: int, *, lock: bool = False) -> Facts:
    """Return everything a decision on this request may look at, as it is now.

    ``lock`` keeps what approvers, judges, signers of waivers and evidence are until this Work ends;
    the caller holds the rows of the track and the request already.
    """
    return gather_all(work, promotion_id, lock=lock).facts


def gather_all(work: Work, promotion_id: int, *, lock: bool = False) -> Gathered:
    """Return the same with the rows behind it."""
    row = load_promotion(work, promotion_id)
    track = queries.load_track(work, row.track_id)
    target = queries.plan_of(work, row.plan_version_id).stage(row.to_stage)
    approvals = approvals_of(work, row)
    judgements = judgements_of(work, row)
    waivers = waivers_of(work, track.id, target.name)
    ids = {given.person_id for given in approvals if given.verdict == "approve"}
    ids |= {given.person_id for given in judgements}
    ids |= {signed.person_id for waiver in waivers for signed in waiver.signatures}
    if lock and row.evidence_ids:  # so that none of it is superseded before this Work ends
        ids_of = select(Evidence.id).where(Evidence.id.in_(row.evidence_ids))
        work.session.execute(ids_of.order_by(Evidence.id).with_for_update(read=True))
    who = standing(work, sorted(ids), lock=lock) if ids else {}
    known = evidence.facts_of(work, row.evidence_ids) if row.evidence_ids else []
    holds = queries.holds_over(work, track, lifted=True)
    facts = replace(
        _of_the_track(work, track, target, manifest=row.manifest_sha256, holds=holds),
        from_stage=row.from_stage,
        state=row.state,
        requester=row.requester_id,
        request_hash=row.request_hash,
        approvals=approval_facts(approvals, who),
        judgements=judgement_facts(judgements, who),
        subjects=subjects_of(work, track) if row.evidence_ids else frozenset(),
        evidence=tuple(known),
        waivers=waiver_facts(waivers, who),
        scheduled_for=row.scheduled_for,
        expires_at=row.expires_at,
    )
    return Gathered(facts, row, track, approvals, judgements, waivers, holds)

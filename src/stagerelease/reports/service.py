"""Builds release reports: for everybody what the public may know, for staff everything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stagerelease.catalog import attested
from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.entitlements.known import is_public
from stagerelease.evidence import queries as evidence_queries
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.kernel.clock import iso
from stagerelease.kernel.errors import Invalid, NotFound
from stagerelease.releases import queries as releases
from stagerelease.releases.gates import words
from stagerelease.releases.ladder import WITHDRAWN, Plan, Stage
from stagerelease.releases.queries import StageEventRow, TrackRow
from stagerelease.releases.waiver_rows import list_waivers
from stagerelease.reports import queries
from stagerelease.reports.decisions import Decided, decided_moves, gates_ahead
from stagerelease.reports.evidence import evidence_lines
from stagerelease.reports.model import (
    AUDIENCES,
    Card,
    ContactLine,
    FileLine,
    HolderLine,
    Holders,
    HoldLine,
    IncidentLine,
    LockLine,
    Moment,
    Move,
    PlanLine,
    Report,
    Rung,
    SignatureLine,
    WaiverLine,
)
from stagerelease.reports.proofs import log_part

MOST_HOLDERS = 1000
"""Holders that a full report lists by name; the counts are always whole."""


def build(
    work: Work, track_id: str, *, audience: str = "public", vkey: str = "", proofs: bool = True
) -> Report:
    """Return the release report of a track for ``audience``: ``public`` or ``full``.

    ``vkey`` is the log's verifier key, printed beside the proofs; without ``proofs`` there are
    none, for a page that shows parts of the report and leads to the whole.

    Raises:
        NotFound: there is no such track, or the public may not know of it.
        Forbidden: a full report was asked for by somebody who may not read requests.
        Invalid: there is no such audience.
    """
    if audience not in AUDIENCES:
        raise Invalid(f"A report is for one of {', '.join(AUDIENCES)}.", reason="report.audience")
    full = audience == "full"
    if full:
        require(work.actor, Permission.PROMOTION_READ)
        require(work.actor, Permission.GRANT_READ)
    track = _track(work, track_id)
    plan = releases.plan_of(work, track.plan_version_id)
    events = releases.stage_events(work, track.id)
    decided = decided_moves(work, track, plan, events, full=full)
    return _assemble(work, track, plan, events, decided, vkey=vkey, full=full, proofs=proofs)


def _track(work: Work, track_id: str) -> TrackRow:
    track = releases.find_track(work, track_id)
    staff = authorize(work.actor, Permission.TRACK_READ).allowed
    if track is None or not (staff or is_public(work, track)):
        raise NotFound(
            f"There is no track {track_id!r} here, or it is not visible to you.",
            reason="track.unknown",
        )
    return track


def _assemble(
    work: Work,
    track: TrackRow,
    plan: Plan,
    events: Sequence[StageEventRow],
    decided: Decided,
    *,
    vkey: str,
    full: bool,
    proofs: bool,
) -> Report:
    card, line = _card(work, track, plan, full=full), _plan(work, track, plan)
    waivers = _waivers(work, track, decided.moves, full=full)
    holds, incidents = _holds(work, track, full=full), _incidents(work, track, full=full)
    shown, withheld = evidence_lines(work, track, decided.evidence_ids, full=full)
    ahead = plan.next(track.stage)
    moments = _moments(card, line, decided.moves, holds, incidents)
    proven = _entries(card, line, decided.moves, waivers, holds) if proofs else {}
    return Report(
        audience="full" if full else "public",
        made_at=work.now,
        track_id=track.id,
        card=card,
        plan=line,
        stage=track.stage,
        entered_at=track.entered_at,
        withdrawn=track.stage == WITHDRAWN,
        ladder=_ladder(plan, track, events, full=full),
        moves=decided.moves,
        refused=queries.ended_otherwise(work, track.id),
        ahead=ahead.name if ahead else "",
        ahead_gates=gates_ahead(work, track, ahead) if full and ahead else (),
        evidence=shown,
        evidence_withheld=withheld,
        waivers=waivers,
        holds=holds,
        incidents=incidents,
        holders=_holders(work, track, full=full),
        contacts=_contacts(work, track) if full else (),
        moments=moments,
        log=log_part(work, proven, vkey=vkey, full=full),
        notes=_notes(full=full, withheld=withheld),
    )


def _notes(*, full: bool, withheld: int) -> tuple[str, ...]:
    if full:
        return ("For staff: this edition names people, partners and reasons.",)
    said = ["For everybody: people and partners are counted, not named."]
    if withheld:
        pieces = "piece" if withheld == 1 else "pieces"
        said.append(f"{withheld} {pieces} of evidence used in decisions are not public.")
    return tuple(said)


# --- what is released ----------------------------------------------------------------------------


def _card(work: Work, track: TrackRow, plan: Plan, *, full: bool) -> Card:
    variant = catalog.load_variant(work, track.repo_id)
    revision = catalog.load_revision(work, track.revision_id)
    files = catalog.files(work, revision.id)
    stage = plan.find(track.stage)
    listed = full or (stage is not None and stage.audience == "everyone")
    lock = attested.card_lock(work, revision.id)
    return Card(
        family=track.family_id,
        family_name=queries.family_name(work, track.family_id),
        repo_id=variant.repo_id,
        aliases=tuple(catalog.list_aliases(work, variant.id)),
        label=variant.label,
        kind=track.kind,
        parameters=variant.parameters or revision.parameters,
        revision_id=revision.id,
        manifest_sha256=revision.manifest_sha256,
        total_bytes=revision.total_bytes,
        recorded_at=revision.created_at,
        file_count=len(files),
        files=tuple(FileLine(f.path, f.size, f.sha256, f.kind) for f in files) if listed else (),
        lock=LockLine(lock.sha256, lock.at, lock.leaf_idx) if lock else None,
        signatures=tuple(
            SignatureLine(s.id, s.key_id, s.at, s.counts, s.leaf_idx)
            for s in attested.all_signatures(work, revision.id)
        ),
    )


def _plan(work: Work, track: TrackRow, plan: Plan) -> PlanLine:
    slug, version, sha256, at, leaf = queries.plan_row(work, track.plan_version_id)
    return PlanLine(slug, plan.title, version, sha256, at, leaf)


def _ladder(
    plan: Plan, track: TrackRow, events: Sequence[StageEventRow], *, full: bool
) -> tuple[Rung, ...]:
    entered = {event.to_stage: event.at for event in events}
    left = {event.from_stage: event.at for event in events if event.from_stage}
    current = plan.find(track.stage)
    here = plan.rank(track.stage) if current else len(plan.ladder)
    rungs = []
    for rank, stage in enumerate(plan.ladder):
        reached = stage.name in entered
        state = "current" if stage is current else "passed" if reached else "ahead"
        rungs.append(
            Rung(
                name=stage.name,
                audience=stage.audience,
                state=state,
                entered_at=entered.get(stage.name),
                left_at=left.get(stage.name),
                # What a plan asks of stages nobody outside knows of yet is not for the public.
                demands=demands_of(stage) if rank and (full or (rank <= here and reached)) else (),
            )
        )
    return tuple(rungs)


def demands_of(stage: Stage) -> tuple[str, ...]:
    """Return in words what a plan asks of a request into ``stage``, besides its listed gates."""
    said = []
    if stage.minimum_dwell:
        said.append(f"at least {words(stage.minimum_dwell)} in the stage below")
    if stage.not_before is not None:
        said.append(f"not before {iso(stage.not_before)[:10]}")
    roles = " or ".join(role.replace("_", " ") for role in stage.quorum.roles)
    said.append(f"{stage.quorum.count} approvals by a {roles}")
    if stage.agreement:
        said.append(f"agreement: {stage.agreement}")
    if stage.gates:
        kinds = len(stage.gates)
        said.append(f"{kinds} further gate{'s' if kinds > 1 else ''}")
    return tuple(said)


# --- what stood in its way, and who has it -------------------------------------------------------


def _waivers(
    work: Work, track: TrackRow, moves: Iterable[Move], *, full: bool
) -> tuple[WaiverLine, ...]:
    rows = list_waivers(work, track_id=track.id)
    # Everybody reads of a waiver once something was decided under it, and of no other.
    used = {waived.get("waiver") for move in moves for waived in move.waived}
    return tuple(
        WaiverLine(
            stage=row.stage,
            gate=row.gate,
            reason=row.reason,
            signed_at=row.signed_at,
            until=row.until,
            state=row.state,
            signers=tuple(
                s.person if full else " or ".join(r.replace("_", " ") for r in s.roles)
                for s in row.signatures
            ),
            leaf_idx=row.leaf_idx,
        )
        for row in rows
        if full or row.id in used
    )


def _holds(work: Work, track: TrackRow, *, full: bool) -> tuple[HoldLine, ...]:
    return tuple(
        HoldLine(
            id=row.id,
            scope=row.scope,
            reason=row.reason if full else row.public_reason or "No reason is public.",
            since=row.laid_at,
            until=row.lifted_at,
            leaf_idx=row.leaf_idx,
        )
        for row in releases.holds_over(work, track, lifted=True)
        if row.lifted_at is None or row.lifted_at >= track.created_at
    )


def _incidents(work: Work, track: TrackRow, *, full: bool) -> tuple[IncidentLine, ...]:
    return tuple(
        IncidentLine(
            id=row.id,
            state=row.state,
            severity=row.severity or "not judged",
            blocking=row.blocking,
            title=(row.title or row.public_summary) if full else row.public_summary,
            outcome=(row.outcome or row.public_outcome) if full else row.public_outcome,
            reported_at=row.reported_at if full else row.confirmed_at or row.reported_at,
            confirmed_at=row.confirmed_at,
            closed_at=row.closed_at,
        )
        for row in queries.incidents_over(work, track, confirmed=not full)
    )


def _holders(work: Work, track: TrackRow, *, full: bool) -> Holders:
    organisations, people, by_stage = queries.count_holders(work, track.id)
    total = sum(count for _, count in by_stage)
    lines = queries.list_holders(work, track.id, limit=MOST_HOLDERS) if full else []
    return Holders(
        organisations=organisations,
        people=people,
        by_stage=by_stage,
        lines=tuple(
            HolderLine(r.name, r.audience, r.permissions, r.purpose, r.since, r.until)
            for r in lines
        ),
        more=max(total - len(lines), 0) if full else 0,
    )


def _contacts(work: Work, track: TrackRow) -> tuple[ContactLine, ...]:
    rows = evidence_queries.coordination_about(work, track.family_id)
    cut = {"day": 10, "month": 7, "year": 4}
    return tuple(
        ContactLine(
            developer=row.developer,
            kind=row.kind.replace("_", " "),
            claim=row.claim,
            on=iso(row.happened_on)[: cut.get(row.happened_precision, 10)],
            status=row.fact_status,
            source=row.source,
        )
        for row in sorted(rows, key=lambda r: (r.happened_on, r.id))
    )


# --- when, and where in the log ------------------------------------------------------------------


def _moments(
    card: Card,
    plan: PlanLine,
    moves: Iterable[Move],
    holds: Iterable[HoldLine],
    incidents: Iterable[IncidentLine],
) -> tuple[Moment, ...]:
    found = [
        Moment(plan.registered_at, "plan", f"Plan {plan.slug} v{plan.version}", plan.leaf_idx),
        Moment(card.recorded_at, "revision", "Revision recorded"),
    ]
    if card.lock:
        found.append(Moment(card.lock.at, "card", "Model card locked", card.lock.leaf_idx))
    found += [
        Moment(s.at, "signature", f"Manifest signed with {s.key}", s.leaf_idx)
        for s in card.signatures
    ]
    for move in moves:
        said = "Opened" if move.from_stage is None else move.to_stage.capitalize()
        found.append(Moment(move.at, "move", said, move.leaf_idx))
    for hold in holds:
        found.append(Moment(hold.since, "hold", f"Hold {hold.id} laid", hold.leaf_idx))
        if hold.until:
            found.append(Moment(hold.until, "lift", f"Hold {hold.id} lifted"))
    found += [
        Moment(i.confirmed_at, "incident", f"Incident {i.id} confirmed")
        for i in incidents
        if i.confirmed_at
    ]
    return tuple(sorted(found, key=lambda m: (m.at, m.leaf_idx or 0)))


def _entries(
    card: Card,
    plan: PlanLine,
    moves: Iterable[Move],
    waivers: Iterable[WaiverLine],
    holds: Iterable[HoldLine],
) -> dict[int, str]:
    """Return what to prove: every entry that this report tells of, by its index."""
    found = {plan.leaf_idx: f"plan {plan.slug} v{plan.version} registered"}
    if card.lock:
        found[card.lock.leaf_idx] = "model card locked"
    found |= {s.leaf_idx: f"manifest signed with {s.key}" for s in card.signatures}
    for move in moves:
        found[move.leaf_idx] = f"track moved to {move.to_stage}"
        found |= {a.leaf_idx: f"approval for {move.to_stage}" for a in move.approvals}
    found |= {w.leaf_idx: f"waiver of {w.gate}" for w in waivers}
    return found | {h.leaf_idx: f"hold {h.id} laid" for h in holds}

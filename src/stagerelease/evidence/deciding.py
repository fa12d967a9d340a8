"""What becomes of submitted evidence: accepted, rejected, disputed, resolved, retracted, shown."""

from __future__ import annotations

from stagerelease.db.work import Work
from stagerelease.evidence import queries
from stagerelease.evidence.holding import held_digests
from stagerelease.evidence.humans import accountable
from stagerelease.evidence.moving import lock, move, record
from stagerelease.evidence.queries import EvidenceRow
from stagerelease.evidence.reading import load_visible
from stagerelease.evidence.rules import STANDING, FactStatus, State, check_text
from stagerelease.evidence.submitting import seen_sha256
from stagerelease.evidence.tables import Evidence
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.kernel.errors import Conflict, Forbidden, Stale


def accept(
    work: Work, evidence_id: str, *, reason: str = "", seen: str | None = None
) -> EvidenceRow:
    """Accept submitted evidence, so that it counts for gates; what it supersedes ends with it.

    Faces call ``releases.service.accept_evidence``, which also re-opens the requests that rest on
    what it supersedes. ``seen`` is the digest of what the judge read, words and files, as its page
    says it: a file may be attached until the decision. The log commits to it either way.

    Raises:
        Stale: it is not what was ``seen``.
        NotFound, Forbidden: no such evidence; the caller does not decide on evidence, wrote or
            entered it, or is no human.
        Conflict: it is not submitted, or is only recalled (``evidence.recalled``).
    """
    _check_judge(work)
    reason = check_text(reason, "reason", field="reason", required=False)
    evidence, old = _lock_with_old(work, evidence_id)
    _refuse_own(work, evidence)
    judged = _check_seen(work, evidence, seen)
    before = evidence.state
    if before == State.DISPUTED:
        raise Conflict(
            f"{evidence.id} is disputed, not submitted.",
            reason="evidence.state",
            next_step="A dispute is ended by resolving it.",
        )
    move(evidence, State.ACCEPTED, reason=reason)
    if evidence.fact_status == FactStatus.RECALLED:
        raise Conflict(
            f"{evidence.id} is only recalled; what nobody has re-checked is not accepted.",
            reason="evidence.recalled",
            next_step="Read it in its source and submit it as verified or reported.",
        )
    evidence.accepted_at = work.now
    evidence.accepted_by = work.actor.id
    if old is not None and old.state in STANDING:
        was = old.state
        move(old, State.SUPERSEDED, reason=f"Superseded by {evidence.id}.")
        record(work, old, "superseded", before=was, reason=old.state_reason)
    return record(
        work,
        evidence,
        "accepted",
        before=before,
        reason=reason,
        detail={"supersedes": evidence.supersedes_id, "seen_sha256": judged},
    )


def _check_seen(work: Work, evidence: Evidence, seen: str | None) -> str:
    """Return the digest of what is judged; refuse when it is not what was ``seen``."""
    judged = seen_sha256(work, queries.load_evidence(work, evidence.id))
    if seen is not None and seen != judged:
        raise Stale(
            f"{evidence.id} was changed, or given another file, after you opened it.",
            reason="evidence.changed",
            next_step="Look at it as it is now, and decide on that.",
        )
    return judged


def _lock_with_old(work: Work, evidence_id: str) -> tuple[Evidence, Evidence | None]:
    """Lock evidence and what it supersedes, in one order for all."""
    row = queries.load_evidence(work, evidence_id)
    names = sorted({row.id, row.supersedes_id} - {None}, key=str)
    locked = {name: lock(work, str(name)) for name in names}
    return locked[row.id], locked.get(row.supersedes_id)


def reject(work: Work, evidence_id: str, *, reason: str) -> EvidenceRow:
    """Refuse submitted evidence for good, with a reason its authors see.

    Raises:
        NotFound, Forbidden: see ``accept``. Conflict: it is not submitted.
        Invalid: no reason is given.
    """
    _check_judge(work)
    reason = check_text(reason, "reason", field="reason")
    evidence = lock(work, evidence_id)
    _refuse_own(work, evidence)
    before = evidence.state
    move(evidence, State.REJECTED, reason=reason)
    return record(work, evidence, "rejected", before=before, reason=reason)


def dispute(work: Work, evidence_id: str, *, reason: str) -> EvidenceRow:
    """Call accepted evidence into question; until somebody resolves it, it counts for no gate.

    Those who decide on evidence may, its authors, and who holds a track it is about. Faces call
    ``releases.service.dispute_evidence``, which also re-opens the requests that used it.

    Raises:
        NotFound, Forbidden: no such evidence, or not the caller's to dispute.
        Conflict: it is not accepted. Invalid: no reason is given.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    reason = check_text(reason, "reason", field="reason")
    load_visible(work, evidence_id)
    evidence = lock(work, evidence_id)
    if not (_decides_or_wrote(work, evidence) or _holds(work, evidence)):
        raise Forbidden(
            "Only its authors, holders of a track it is about, and those who decide on evidence "
            "can dispute it.",
            reason="evidence.not-held",
            next_step="Report what you know as an incident.",
        )
    before = evidence.state
    move(evidence, State.DISPUTED, reason=reason)
    return record(work, evidence, "disputed", before=before, reason=reason)


def resolve(work: Work, evidence_id: str, *, reason: str) -> EvidenceRow:
    """End a dispute in favour of the evidence, which counts again; the other end is to retract it.

    Raises:
        NotFound, Forbidden: see ``accept``; whoever disputed it does not resolve it either.
        Conflict: it is not disputed. Invalid: no reason is given.
    """
    _check_judge(work)
    reason = check_text(reason, "reason", field="reason")
    evidence = lock(work, evidence_id)
    _refuse_own(work, evidence)
    before = evidence.state
    if before != State.DISPUTED:
        raise Conflict(f"{evidence.id} is {before}, not disputed.", reason="evidence.state")
    disputes = [e for e in queries.events_of(work, evidence.id) if e.to_state == State.DISPUTED]
    if disputes[-1].actor_id == work.actor.id:
        raise Forbidden(
            "Whoever disputed it does not end the dispute.",
            reason="evidence.own",
            next_step="Ask somebody else who decides on evidence.",
        )
    move(evidence, State.ACCEPTED, reason=reason)
    return record(work, evidence, "resolved", before=before, reason=reason)


def retract(work: Work, evidence_id: str, *, reason: str) -> EvidenceRow:
    """End evidence that turned out wrong; its authors may, and those who decide on evidence.

    Faces call ``releases.service.retract_evidence``, which also re-opens the requests that used it.

    Raises:
        NotFound, Forbidden: no such evidence, or not the caller's to retract.
        Conflict: it has ended already.
        Invalid: no reason is given.
    """
    require(work.actor, Permission.EVIDENCE_SUBMIT)
    reason = check_text(reason, "reason", field="reason")
    load_visible(work, evidence_id)
    evidence = lock(work, evidence_id)
    if not _decides_or_wrote(work, evidence):
        raise Forbidden(
            "Only its authors, and those who decide on evidence, can retract it.",
            reason="evidence.not-yours",
        )
    before = evidence.state
    move(evidence, State.RETRACTED, reason=reason)
    return record(work, evidence, "retracted", before=before, reason=reason)


def approve_public(work: Work, evidence_id: str, *, shown: bool = True) -> EvidenceRow:
    """Let accepted evidence that its authors marked public be shown to all, or stop that.

    Without this it is shown once an applied promotion to a listed stage used it. Its authors never
    approve it; to stop showing it, anybody who decides on evidence may.

    Raises:
        NotFound, Forbidden: see ``accept``.
        Conflict: its authors did not mark it public, or it is not accepted.
    """
    _check_judge(work)
    evidence = lock(work, evidence_id)
    if shown:  # to stop it needs nobody else
        _refuse_own(work, evidence)
    if shown and (not evidence.public or evidence.state != State.ACCEPTED):
        raise Conflict(
            f"{evidence.id} is {evidence.state} and "
            f"{'marked public' if evidence.public else 'not marked public by its authors'}; only "
            "accepted evidence so marked is shown to all.",
            reason="evidence.not-public",
        )
    evidence.public_approved_by = work.actor.id if shown else None
    evidence.public_approved_at = work.now if shown else None
    event = "approved_for_public" if shown else "hidden_from_public"
    return record(work, evidence, event, before=evidence.state)


# --- who decides ---------------------------------------------------------------------------------


def _check_judge(work: Work) -> None:
    """Return only if an accountable human who may decide on evidence acts."""
    require(work.actor, Permission.EVIDENCE_DECIDE)
    accountable(work, "decide on evidence")


def _decides_or_wrote(work: Work, evidence: Evidence) -> bool:
    if authorize(work.actor, Permission.EVIDENCE_DECIDE).allowed:
        return True
    return work.actor.id in queries.authors_of(work, [evidence.id])[evidence.id]


def _holds(work: Work, evidence: Evidence) -> bool:
    held = held_digests(work, person_id=work.actor.id, organisations=work.actor.organisations)
    return evidence.subject_sha256 in held


def _refuse_own(work: Work, evidence: Evidence) -> None:
    if work.actor.id in queries.authors_of(work, [evidence.id])[evidence.id]:
        raise Forbidden(
            "Nobody decides on evidence they wrote or entered.",
            reason="evidence.own",
            next_step="Ask somebody else who decides on evidence.",
        )

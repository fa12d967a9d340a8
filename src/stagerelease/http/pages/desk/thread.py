"""What happened to something, one dated line after the other, as pages of staff show it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from stagerelease.http.pages.frame import span
from stagerelease.releases.facts import FactsPage
from stagerelease.releases.rules import State

VERDICTS = {
    "approve": ("Approved", "good"),
    "reject": ("Rejected", "bad"),
    "request_changes": ("Asked for changes", "ask"),
}


@dataclass(frozen=True, slots=True)
class Said:
    """Something that happened to a request, as its thread shows it."""

    title: str
    at: datetime
    by: str = ""
    said: str = ""
    kind: str = ""
    leaf_idx: int | None = None
    ago: str = ""


def ago(one: Said, now: datetime) -> Said:
    """Return a line with how long ago it was, for who looked before it."""
    return Said(one.title, one.at, one.by, ago=span((now - one.at).total_seconds()))


def thread_of(found: FactsPage) -> list[Said]:
    """Return what happened to a request, oldest first."""
    p = found.promotion
    events = [Said("Opened", p.created_at, p.requester, p.rationale)]
    if p.submitted_at is not None and p.submitted_at != p.created_at:
        events.append(Said("Submitted", p.submitted_at, p.requester))
    for a in found.approvals:
        title, kind = VERDICTS[a.verdict]
        late = "" if a.current else " an earlier edition"
        events.append(
            Said(title + late, a.at, a.person, a.comment, kind if a.current else "", a.leaf_idx)
        )
    for j in found.judgements:
        answer = f"Answered {j.gate}: {'yes' if j.passed else 'no'}"
        late = "" if j.current else ", of an earlier edition"
        events.append(
            Said(answer + late, j.at, j.person, j.reason, "good" if j.passed else "bad", j.leaf_idx)
        )
    for waiver in found.waivers:
        if waiver.stage != p.to_stage:
            continue
        for n, signature in enumerate(waiver.signatures):
            title = f"Proposed to waive {waiver.gate}" if n == 0 else f"Signed: {waiver.gate}"
            said = waiver.reason if n == 0 else ""
            events.append(Said(title, signature.at, signature.person, said, "", signature.leaf_idx))
    if p.ended_at is not None:
        kind = "good" if p.state == State.APPLIED else "bad"
        title = "Promoted" if p.state == State.APPLIED else p.state.replace("_", " ").capitalize()
        events.append(Said(title, p.ended_at, "", p.end_reason or "", kind))
    return sorted(events, key=lambda one: one.at)

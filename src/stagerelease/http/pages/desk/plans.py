"""Plans: the versions there are, a text to write with what is said of it beside, two people behind.

Lint and simulation are asked of the server. Where scripts run they come beside the text while one
writes; where none do, a button brings the same page.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request, Response

from stagerelease.db.work import Work
from stagerelease.http.pages.begin import BeginPage
from stagerelease.http.pages.desk.steps import (
    Number,
    after_refusal,
    desk_router,
    names_of,
    needed,
    status_after,
    take,
    take_grave,
)
from stagerelease.http.pages.forms import Sent, Typed, whole
from stagerelease.http.pages.frame import by_field, page
from stagerelease.identity.rules import Permission, authorize, require
from stagerelease.kernel.errors import DomainError, Invalid, NotFound
from stagerelease.releases import queries as reading
from stagerelease.releases import service as releases
from stagerelease.releases.differing import Change, differences
from stagerelease.releases.plans import Finding, parse_plan
from stagerelease.releases.proposing import CONSENTS, ProposalRow
from stagerelease.releases.queries import PlanRow
from stagerelease.releases.simulating import Simulation

router = desk_router("/staff")
MOST = 200
LONGEST = 65_536
NEW = """plan: our-plan
title: Our plan
stages:
  - name: internal
    audience: staff
    listed: false
  - name: public
    audience: everyone
    minimum_dwell: P14D
    quorum: {count: 2, roles: [reviewer]}
"""
NOTICES = {
    "proposed": "The plan is proposed. A second person’s consent puts it in force.",
    "applied": "The plan is in force. Tracks that began before keep their own version.",
    "consented": "Your consent is on record.",
    "cancelled": "The proposal is cancelled.",
}


@router.get("/plans")
def list_plans(request: Request, begin: BeginPage) -> Response:
    """List the plans there are, and what is proposed."""
    with begin(read_only=True) as work:
        rows = releases.list_plans(work)
        proposals = releases.list_proposals(work)
        who = names_of(
            work, [*(r.created_by for r in rows[:MOST]), *(p.proposed_by for p in proposals[:MOST])]
        )
    newest: dict[str, PlanRow] = {}
    for row in rows:
        newest.setdefault(row.slug, row)
    return page(
        request,
        "desk/plans.html",
        plans=list(newest.values()),
        pending=[p for p in proposals if p.state == "pending"],
        past=[p for p in proposals if p.state != "pending"][:MOST],
        who=who,
        proposes="plan:apply" in request.state.viewer.may,
    )


@router.get("/plans/{slug}")
def show_plan(request: Request, begin: BeginPage, slug: str, version: str = "") -> Response:
    """Show a version of a plan: its text, and what it changed."""
    with begin(read_only=True) as work:
        row = releases.show_plan(work, slug, whole(version) or None)
        versions = [one for one in releases.list_plans(work) if one.slug == row.slug]
        changes: tuple[Change, ...] = ()
        if row.version > 1:
            changes = releases.diff_versions(work, slug, row.version - 1, row.version)
        plan = reading.plan_of(work, row.id)
        who = names_of(work, [row.created_by])
    return page(
        request,
        "desk/plan.html",
        row=row,
        plan=plan,
        versions=versions,
        changes=changes,
        who=who,
        newest=versions[0].version == row.version,
    )


# --- the editor ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Beside:
    """What is said of a text: its mistakes, its changes, and how one track would fare under it."""

    findings: tuple[Finding, ...]
    changes: tuple[Change, ...]
    lines: tuple[tuple[str, str], ...]
    base: int | None
    ahead: Simulation | None
    ahead_words: str


def _beside(work: Work, source: str, track_id: str) -> Beside:
    try:
        findings = releases.lint(work, source)
    except Invalid as error:  # no YAML, so there is no field to speak of
        findings = (Finding(1, "", "error", error.sentence),)
    if any(f.severity == "error" for f in findings):
        return Beside(findings, (), (), None, None, "")
    plan = parse_plan(source)
    newest = reading.find_plan(work, plan.slug)
    changes: tuple[Change, ...] = ()
    lines: tuple[tuple[str, str], ...] = ()
    if newest is not None:
        changes = differences(parse_plan(newest.source), plan)
        lines = _lines(newest.source, source)
    ahead, words = _ahead(work, source, track_id)
    return Beside(findings, changes, lines, newest.version if newest else None, ahead, words)


def _lines(old: str, new: str) -> tuple[tuple[str, str], ...]:
    found = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1)
    body = [line for line in found if not line.startswith(("---", "+++", "@@"))]
    return tuple((line[:1], line[1:] or " ") for line in body[:400])


def _ahead(work: Work, source: str, track_id: str) -> tuple[Simulation | None, str]:
    """Return how a track would fare under a text, or why that cannot be said."""
    if not track_id:
        return None, ""
    try:
        track = reading.load_track(work, track_id)
        above = parse_plan(source).next(track.stage)
        if above is None:
            return None, f"This plan has nothing above {track.stage}, where that track is."
        return releases.simulate(work, track_id, above.name, source=source), ""
    except (NotFound, Invalid) as error:
        return None, error.sentence


def _editor(
    request: Request,
    begin: Any,
    *,
    source: str,
    track_id: str,
    rationale: str = "",
    refusal: DomainError | None = None,
) -> Response:
    with begin(read_only=True) as work:
        require(work.actor, Permission.PLAN_READ)
        beside = _beside(work, source, track_id)
        tracks = reading.list_tracks(work, limit=MOST)
        may = authorize(work.actor, Permission.PLAN_APPLY).allowed
    lines = [] if refusal is None else [f.sentence for f in refusal.fields]
    errors = by_field(refusal.fields) if refusal else {}
    return page(
        request,
        "desk/plan_edit.html",
        part="desk/plan_beside.html",
        status=status_after(refusal),
        source=source,
        beside=beside,
        tracks=[(row.id, f"{row.repo_id}, {row.kind}, at {row.stage}") for row in tracks],
        track_id=track_id,
        rationale=rationale,
        may=may,
        refusal=refusal,
        wrong_lines=lines,
        errors={key: words for key, words in errors.items() if key == "rationale"},
    )


@router.get("/plan-editor")
def editor(request: Request, begin: BeginPage, base: str = "") -> Response:
    """Show the editor, with the newest version of a plan in it or the beginning of a new one."""
    source = NEW
    if base:
        with begin(read_only=True) as work:
            source = releases.show_plan(work, base).source
    return _editor(request, begin, source=source, track_id="")


@router.post("/plan-editor/check")
def check(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Say everything there is to say of a text; nothing is kept."""
    return _editor(request, begin, **_typed(sent))


def _typed(sent: Typed) -> dict[str, Any]:
    """Return what the editor holds."""
    return {
        "source": sent.raw("source")[:LONGEST],
        "track_id": sent.get("track"),
        "rationale": sent.raw("rationale"),
    }


@router.post("/plan-editor")
def propose(request: Request, begin: BeginPage, sent: Sent) -> Response:
    """Propose a text as the next version of the plan it names."""

    def act(work: Work) -> ProposalRow:
        rationale = needed(sent, "rationale", "Say why. Who consents decides on it.")
        return releases.propose_plan(work, _typed(sent)["source"], rationale=rationale)

    def then(row: ProposalRow) -> str:
        done = "applied" if row.state == "applied" else "proposed"
        return f"/staff/plan-proposals/{row.id}?done={done}#done"

    again = partial(_editor, request, begin, **_typed(sent))
    return take(begin, Permission.PLAN_APPLY, act, then=then, again=again)


# --- proposals -----------------------------------------------------------------------------------


@router.get("/plan-proposals/{number}")
def show_proposal(request: Request, begin: BeginPage, number: Number, done: str = "") -> Response:
    """Show a proposed plan, what it changes, and who stands behind it."""
    return _proposal(request, begin, number, done=done)


def _proposal(
    request: Request,
    begin: Any,
    number: int,
    *,
    done: str = "",
    refusal: DomainError | None = None,
    typed: Typed | None = None,
) -> Response:
    with begin(read_only=True) as work:
        row = releases.show_proposal(work, number)
        base = None
        if row.base_version:
            base = reading.find_plan(work, row.slug, row.base_version)
        who = names_of(work, [row.proposed_by])
        me = work.actor.id
        consents = authorize(work.actor, Permission.PLAN_CONSENT).allowed
        cancels = authorize(work.actor, Permission.PLAN_APPLY).allowed
    bar = ""
    if row.proposed_by == me:
        bar = "You proposed it, so somebody else consents."
    elif any(one.person_id == me for one in row.consents):
        bar = "You have consented already."
    elif not consents:
        bar = "A reviewer or a release manager consents. Ask one of them."
    return page(
        request,
        "desk/plan_proposal.html",
        row=row,
        lines=_lines(base.source if base else "", row.source),
        who=who,
        bar=bar,
        cancels=cancels,
        asked=CONSENTS,
        notice=NOTICES.get(done, ""),
        **after_refusal(refusal, typed, "comment", "reason"),
    )


@router.post("/plan-proposals/{number}/consent")
def consent(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """Consent to the text that was shown."""

    def act(work: Work) -> ProposalRow:
        return releases.consent_to_plan(
            work, number, sha256=sent.get("sha256"), comment=sent.get("comment")
        )

    def then(row: ProposalRow) -> str:
        done = "applied" if row.state == "applied" else "consented"
        return f"/staff/plan-proposals/{number}?done={done}#done"

    again = partial(_proposal, request, begin, number, typed=sent)
    return take_grave(begin, Permission.PLAN_CONSENT, act, then=then, again=again)


@router.post("/plan-proposals/{number}/cancel")
def cancel(request: Request, begin: BeginPage, sent: Sent, number: Number) -> Response:
    """End a pending proposal."""

    def act(work: Work) -> object:
        reason = needed(sent, "reason", "Say why it is cancelled.")
        return releases.cancel_proposal(work, number, reason=reason)

    again = partial(_proposal, request, begin, number, typed=sent)
    where = f"/staff/plan-proposals/{number}?done=cancelled#done"
    return take(begin, Permission.PLAN_APPLY, act, then=where, again=again)

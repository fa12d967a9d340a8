"""What pages say of a model: where it is in its ladder, and what access to it would take.

Put together from the reads of the slices, for one caller; what they may not know of is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from stagerelease.db.work import Work
from stagerelease.entitlements import service as entitlements
from stagerelease.entitlements.service import Entitled, Moved
from stagerelease.partners import queries as papers
from stagerelease.partners.rules import ORGANISATIONS, PEOPLE, admitting_stages
from stagerelease.releases import queries as releases
from stagerelease.releases.ladder import Plan, Stage

AUDIENCES = {
    "staff": "The people who build it",
    "organisations": "Partner organisations that signed an agreement",
    "people": "Researchers whose request was approved and who signed",
    "everyone": "Everybody",
}


@dataclass(frozen=True, slots=True)
class Rung:
    """A stage of a ladder, and whether the release has reached it."""

    name: str
    reached: bool


@dataclass(frozen=True, slots=True)
class Paper:
    """The agreement that access rests on."""

    title: str
    version: int
    version_id: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelPage:
    """A model as one caller may see it. ``stage`` is None before any release."""

    repo_id: str
    label: str
    parameters: int | None
    stage: str | None
    audience: str
    since: datetime | None
    ladder: tuple[Rung, ...]
    held: bool
    withdrawn: bool
    gated: bool
    allowed: bool
    reason: str
    sentence: str
    paper: Paper | None
    lets_people_in: bool


def show_model(work: Work, repo_id: str) -> ModelPage:
    """Return one model.

    Raises:
        NotFound: there is none that the caller may know of.
        Moved: the name is an alias.
    """
    if not releases.storable(repo_id):
        raise entitlements.hidden(repo_id)
    return model_page(work, entitlements.see(work, work.actor, repo_id))


def canonical(work: Work, repo_id: str) -> str:
    """Return the name a repository lives under."""
    try:
        return show_model(work, repo_id).repo_id
    except Moved as moved:
        return moved.repo_id


def model_page(work: Work, entitled: Entitled) -> ModelPage:
    """Return what pages say of a model to the caller it was decided for."""
    track, variant = entitled.track, entitled.variant
    plan = releases.plan_of(work, track.plan_version_id) if track else None
    now = plan.find(track.stage) if plan and track else None
    opening = _opening(plan, track.stage) if plan and track else None
    return ModelPage(
        repo_id=variant.repo_id,
        label=variant.label,
        parameters=entitled.revision.parameters or variant.parameters,
        stage=entitled.stage,
        audience=AUDIENCES.get(now.audience, "") if now else "Nobody",
        since=track.entered_at if track else None,
        ladder=rungs(plan, now),
        held=entitled.decision.reason == "held" or bool(track and releases.holds_over(work, track)),
        withdrawn=entitled.stage == "withdrawn",
        gated=entitled.gated,
        allowed=entitled.decision.allowed,
        reason=entitled.decision.reason,
        sentence=entitled.decision.sentence,
        paper=_paper(work, opening),
        lets_people_in=opening is not None and opening.audience == PEOPLE,
    )


def rungs(plan: Plan | None, now: Stage | None) -> tuple[Rung, ...]:
    """Return the stages of a plan, narrowest first, and which of them are reached."""
    if plan is None:
        return ()
    rank = plan.rank(now.name) if now else -1
    return tuple(Rung(stage.name, n <= rank) for n, stage in enumerate(plan.ladder))


def _opening(plan: Plan, stage: str) -> Stage | None:
    """Return the lowest stage reached that lets people in, else organisations."""
    for audience in (PEOPLE, ORGANISATIONS):
        stages = admitting_stages(plan, stage, audience)
        if stages:
            return stages[0]
    return None


def _paper(work: Work, stage: Stage | None) -> Paper | None:
    version = papers.find_in_force(work, stage.agreement) if stage and stage.agreement else None
    if version is None:
        return None
    return Paper(version.title, version.version, version.id, version.text_sha256)

"""Use cases on release plans: apply a source as the next version, look at versions."""

from __future__ import annotations

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.releases import queries
from stagerelease.releases.ladder import SHIPPED, shipped_source
from stagerelease.releases.plans import parse_plan, plan_document
from stagerelease.releases.queries import PlanRow
from stagerelease.releases.tables import PlanVersion


def apply_plan(work: Work, source: str) -> PlanRow:
    """Record a plan source as the next version of the plan it names.

    Tracks keep the version they were created under: a plan is registered before what it governs.
    A source equal to the newest version is that version, and nothing is recorded.

    Raises:
        Invalid: the source is not a plan; ``fields`` names every mistake.
        Conflict: somebody applied a version at the same moment.
    """
    require(work.actor, Permission.PLAN_APPLY)
    plan = parse_plan(source)
    digest = sha256_hex(source.encode())
    newest = queries.find_plan(work, plan.slug)
    if newest is not None and newest.sha256 == digest:
        return newest
    version = newest.version + 1 if newest else 1
    document = plan_document(plan)
    leaf = ledger.append(
        work,
        type="plan.applied",
        subject=f"plan:{plan.slug}:{version}",
        prev_state=str(newest.version) if newest else None,
        new_state=str(version),
        detail={"slug": plan.slug, "version": version, "sha256": digest, "document": document},
        policy_sha256=digest,
        private=False,  # registered for everyone to see, before anything is decided under it
    )
    work.session.add(
        PlanVersion(
            id=new_id("pln"),
            slug=plan.slug,
            version=version,
            source=source,
            sha256=digest,
            document=document,
            created_by=work.actor.id,
            created_at=work.now,
            leaf_idx=leaf,
        )
    )
    work.session.flush()  # what follows in this Work reads and refers to it
    return load_plan(work, plan.slug, version)


def plan_in_force(work: Work, slug: str) -> PlanRow:
    """Return the newest version of a plan; a shipped plan is applied the first time it is asked.

    Raises:
        NotFound: no such plan was applied, and none of that name comes with the product.
    """
    found = queries.find_plan(work, slug)
    if found is None and slug in SHIPPED:
        return apply_plan(work, shipped_source(slug))
    return found or load_plan(work, slug)


def load_plan(work: Work, slug: str, version: int | None = None) -> PlanRow:
    """Return a version of a plan.

    Raises:
        NotFound: there is none.
    """
    found = queries.find_plan(work, slug, version)
    if found is None:
        which = f"version {version} of the plan" if version is not None else "plan"
        raise NotFound(
            f"There is no {which} {slug!r}.",
            reason="plan.unknown",
            next_step="List the plans, or apply one.",
        )
    return found


def show_plan(work: Work, slug: str, version: int | None = None) -> PlanRow:
    """Return a version of a plan to somebody who may read plans."""
    require(work.actor, Permission.PLAN_READ)
    return load_plan(work, slug, version)


def list_plans(work: Work) -> list[PlanRow]:
    """Return every version of every plan to somebody who may read plans."""
    require(work.actor, Permission.PLAN_READ)
    return queries.list_plans(work)

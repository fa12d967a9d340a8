"""Use cases on release plans: record a source as the next version, look at versions."""

from __future__ import annotations

from stagerelease.db.work import Work
from stagerelease.identity.rules import Permission, require
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import NotFound
from stagerelease.kernel.ids import new_id
from stagerelease.ledger import service as ledger
from stagerelease.releases import queries
from stagerelease.releases.differing import Change, differences
from stagerelease.releases.ladder import SHIPPED, shipped_source
from stagerelease.releases.plans import Finding, lint_plan, parse_plan, plan_document
from stagerelease.releases.queries import PlanRow
from stagerelease.releases.source import line_of, lines_of
from stagerelease.releases.tables import PlanVersion


def is_shipped(source: str) -> bool:
    """Tell whether ``source`` is, to the byte, a plan that comes with the product."""
    return any(source == shipped_source(slug) for slug in SHIPPED)


def all_shipped(work: Work, slug: str) -> bool:
    """Tell whether every version of a plan so far is one that comes with the product, if any is."""
    return all(is_shipped(source) for source in queries.sources_of(work, slug))


def record_version(work: Work, source: str) -> PlanRow:
    """Record a plan source as the next version of the plan it names.

    Whether it may be is decided by who calls: ``proposing``, or ``plan_in_force`` for a shipped
    one. Tracks keep the version they were created under: a plan is registered before what it
    governs. A source equal to the newest version is that version, and nothing is recorded.

    Raises:
        Invalid: the source is not a plan; ``fields`` names every mistake.
        Conflict: somebody applied a version at the same moment.
    """
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
    require(work.actor, Permission.PLAN_READ)
    found = queries.find_plan(work, slug)
    if found is None and slug in SHIPPED:
        return record_version(work, shipped_source(slug))
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


def lint(work: Work, source: str) -> tuple[Finding, ...]:
    """Return everything to say of a source, to somebody who may read plans.

    Beside what the text itself says, it is held against this service: a quorum that asks for more
    people than hold its roles now could never be met.
    """
    require(work.actor, Permission.PLAN_READ)
    found = lint_plan(source)
    if any(f.severity == "error" for f in found):
        return found
    lines = lines_of(source)
    more = []
    for i, stage in enumerate(parse_plan(source).ladder[1:], start=1):
        have = queries.count_holders(work, stage.quorum.roles)
        if have < stage.quorum.count:
            path = f"stages.{i}.quorum"
            sentence = (
                f"The quorum asks for {stage.quorum.count} people, and {have} hold "
                f"{' or '.join(stage.quorum.roles)} here now."
            )
            more.append(Finding(line_of(lines, path), path, "warning", sentence))
    return tuple(sorted((*found, *more), key=lambda f: (f.line, f.field)))


def diff_versions(work: Work, slug: str, a: int, b: int | None = None) -> tuple[Change, ...]:
    """Return what changes from version ``a`` of a plan to ``b``, the newest when None."""
    require(work.actor, Permission.PLAN_READ)
    old, new = load_plan(work, slug, a), load_plan(work, slug, b)
    return differences(parse_plan(old.source), parse_plan(new.source))


def show_plan(work: Work, slug: str, version: int | None = None) -> PlanRow:
    """Return a version of a plan to somebody who may read plans."""
    require(work.actor, Permission.PLAN_READ)
    return load_plan(work, slug, version)


def list_plans(work: Work) -> list[PlanRow]:
    """Return every version of every plan to somebody who may read plans."""
    require(work.actor, Permission.PLAN_READ)
    return queries.list_plans(work)

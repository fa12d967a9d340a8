"""Evidence as a report shows it: never a figure without its conditions, its source and its status.

A recalled fact is called not established wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select

from stagerelease.catalog import queries as catalog
from stagerelease.db.work import Work
from stagerelease.evidence import queries
from stagerelease.evidence.facts import EvidenceFact
from stagerelease.evidence.rules import Precision, describe_precision, precisions
from stagerelease.evidence.tables import Evidence
from stagerelease.releases.queries import TrackRow
from stagerelease.reports.model import EvidenceLine, number

MOST = 500
"""Pieces of evidence that one report shows; those that decisions rest on come first."""

_PUBLIC_STATES = frozenset({"accepted", "superseded", "retracted", "disputed"})


def is_public(fact: EvidenceFact) -> bool:
    """Tell whether everybody may read this piece, when an applied request rests on it."""
    return fact.public and fact.state in _PUBLIC_STATES


def evidence_lines(
    work: Work, track: TrackRow, used: Collection[str], *, full: bool
) -> tuple[tuple[EvidenceLine, ...], int]:
    """Return the evidence to show, and how many pieces that decisions rest on are not public.

    A full report adds other evidence about the track, the newest first in line.
    """
    rests_on = queries.facts_of(work, used)
    if not full:
        shown = [fact for fact in rests_on if is_public(fact)]
        return tuple(_line(fact) for fact in shown[:MOST]), len(rests_on) - len(shown)
    others = queries.facts_of(work, _about(work, track) - {fact.id for fact in rests_on})
    return tuple(_line(fact) for fact in [*rests_on, *others][:MOST]), 0


def _about(work: Work, track: TrackRow) -> set[str]:
    """Return the ids of evidence about a track, drafts left out: the newest, at most ``MOST``."""
    subjects = {file.sha256 for file in catalog.files(work, track.revision_id)}
    subjects.add(catalog.load_revision(work, track.revision_id).manifest_sha256)
    found: list[str] = []
    wanted = sorted(subjects)
    for start in range(0, len(wanted), 500):  # stay below every driver's parameter limit
        found += work.session.execute(
            select(Evidence.id)
            .where(
                Evidence.subject_sha256.in_(wanted[start : start + 500]), Evidence.state != "draft"
            )
            .order_by(Evidence.id.desc())
            .limit(MOST)
        ).scalars()
    return set(sorted(found, reverse=True)[:MOST])


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(fact: EvidenceFact) -> str:
    if fact.metric == "finding":
        return _words(fact.verdict or "no verdict")
    unit = f" {_unit(fact.unit)}" if fact.unit else ""
    return f"{number(fact.value)}{unit}"


def _precisions(fact: EvidenceFact) -> tuple[Precision, ...]:
    if fact.type != "detectability" or fact.metric == "finding":
        return ()
    return precisions(fact.metric, fact.value, fact.companions, fact.conditions.get("base_rate"))


def _unit(unit: str) -> str:
    return {"percent": "%", "ratio": "", "verdict": ""}.get(unit, _words(unit))


def _line(fact: EvidenceFact) -> EvidenceLine:
    interval = ""
    if fact.interval is not None:
        interval = f"{number(fact.interval[0])} to {number(fact.interval[1])}"
    return EvidenceLine(
        id=fact.id,
        type=_words(fact.type),
        title=fact.title,
        metric=_words(fact.metric),
        value=_value(fact),
        finding=fact.finding,
        n=fact.n,
        interval=interval,
        conditions=tuple((_words(k), number(v)) for k, v in sorted(fact.conditions.items())),
        companions=tuple((_words(k), number(v)) for k, v in sorted(fact.companions.items())),
        beside=tuple(describe_precision(one) for one in _precisions(fact)),
        caveat=fact.caveat,
        author=fact.author_name,
        measured_on=fact.measured_at,
        valid_until=fact.valid_until,
        source=fact.source,
        status="recalled: not established" if fact.fact_status == "recalled" else fact.fact_status,
        state=fact.state,
        subject_sha256=fact.subject_sha256,
    )

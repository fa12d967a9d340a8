"""GPT-2's staged release of 2019, replayed through the use cases of today with the clock of then.

Days come from the record; the hour is always the replay's own. Whoever acts is a role account.
What the record does not say (thresholds, who approved, when agreements were signed, which files a
partner got) is the replay's and is said to be, in the rationale, caveat or purpose concerned.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib.resources import files

from sqlalchemy import func, select

from stagerelease.catalog import service as catalog_service
from stagerelease.catalog.cards import lock_card
from stagerelease.db.work import Works
from stagerelease.evidence import service as evidence
from stagerelease.identity.tables import Person
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.clock import SetClock
from stagerelease.kernel.errors import Invalid
from stagerelease.ledger import queries as ledger
from stagerelease.ledger.signer import LogSigner
from stagerelease.partners.texts import shipped_text
from stagerelease.releases.ladder import shipped_source
from stagerelease.replay import handed_in, record
from stagerelease.replay.stage import Stage, Watch, unwatched
from stagerelease.replay.standins import card, dataset, detector, tokenizer, weights
from stagerelease.storage.ports import BlobStore

FAMILY = "gpt-2"
REPOS = {
    "small": "openai/gpt2-124M",
    "medium": "openai/gpt2-335M",
    "large": "openai/gpt2-774M",
    "xl": "openai/gpt2-1.5B",
}
PARTNERS = {
    "cornell": "Cornell University",
    "middlebury-ctec": "Middlebury Institute, CTEC",
    "oregon": "University of Oregon",
    "ut-austin": "University of Texas at Austin",
}
ROLES = {
    "release-manager": ("release_manager", "Release manager (role account)"),
    "reviewer-1": ("reviewer", "Reviewer 1 (role account)"),
    "reviewer-2": ("reviewer", "Reviewer 2 (role account)"),
    "access-officer": ("access_officer", "Access officer (role account)"),
    "security": ("security", "Security (role account)"),
    "auditor": ("auditor", "Auditor (role account)"),
}
START = record.day(record.variant("small")["weights_public"]) - timedelta(days=30)
IN_ADVANCE = timedelta(days=2)
"""How long before its first use each plan is registered. Nobody registered any in 2019."""
REPLAYED = "Replayed: who decided in 2019, and on what, is not on record beyond the sources named."

Say = Callable[[str], None]


def run(
    works: Works,
    blobs: BlobStore,
    signer: LogSigner,
    clock: SetClock,
    *,
    say: Say,
    watch: Watch = unwatched,
) -> Stage:
    """Replay the release into an empty installation; its clock must be the one that ``works`` has.

    Raises:
        Invalid: the installation is not empty.
    """
    refuse_used(works)
    clock.set(START)
    stage = Stage(works, blobs, signer, clock, watch)
    _set_up(stage)
    say("  February: the paper and the smallest size")
    _small(stage)
    say("  May: the second size, samples of every size, a detection baseline")
    _medium(stage)
    say("  August: the third size, and partners for the last")
    last = _large(stage)
    say("  November: the last size, its detector and its card")
    _extra_large(stage, last)
    return stage


def refuse_used(works: Works) -> None:
    """Return only if nothing has ever happened here.

    Raises:
        Invalid: there are people or log entries.
    """
    with works.begin(OPERATOR, read_only=True) as work:
        people = work.session.execute(select(func.count()).select_from(Person)).scalar_one()
        size = ledger.log_size(work)
    if people or size:
        raise Invalid(
            "This installation has been used: a replay would mix 2019 into its record.",
            reason="replay.not-empty",
            next_step="Name a data directory that does not exist yet: DATA_DIR=replay-data.",
        )


def _set_up(stage: Stage) -> None:
    with stage.works.begin(OPERATOR) as work:
        catalog_service.seed_gpt2(work)
    for handle, (role, name) in ROLES.items():
        stage.role(handle, role, name)


def _plan(stage: Stage, slug: str, before: str) -> None:
    """Register a plan ahead of the day it is first used."""
    stage.clock.set(record.day(before, 12) - IN_ADVANCE)
    source = files("stagerelease.replay").joinpath("plans", f"{slug}.yaml")
    text = source.read_text("utf-8") if source.is_file() else shipped_source(slug)
    stage.plan(text, why=f"Registered before it is used. {REPLAYED}")


def _weights(stage: Stage, key: str, plan: str) -> str:
    """Record the stand-in of a size and start the track of its weights."""
    revision = stage.revision(
        REPOS[key],
        {
            "WEIGHTS.md": ("weights", weights(key)),
            "TOKENIZER.md": ("tokenizer", tokenizer(key)),
            "README.md": ("model_card", card(key)),
        },
        message=f"Stand-in for {record.variant(key)['labels'][0]}: descriptions, no weights",
    )
    return stage.track(REPOS[key], revision, "weights", plan)


def _note(stage: Stage, *numbers: int) -> None:
    """Enter coordination records, by their place in the record."""
    for number in numbers:
        entry = record.facts()["coordination"][number]
        kind, status = _COORDINATION[number]
        with stage.begin("security") as work:
            evidence.add_coordination(
                work,
                family_id=FAMILY,
                developer=entry["developer"],
                claim=entry["claim"],
                kind=kind,
                happened_on=entry["date"],
                source=entry["source"],
                fact_status=entry["status"],
                status=status,
            )


_COORDINATION = (
    ("replication", "talking"),
    ("similar_release", "noted"),
    ("replication", "published"),
    ("similar_release", "published"),
)


# --- 14 February: the paper and the smallest size ------------------------------------------------


def _small(stage: Stage) -> None:
    public = record.variant("small")["weights_public"]
    _plan(stage, "gpt2-2019-124m", public)
    track = _weights(stage, "small", "gpt2-2019-124m")
    tokens = stage.track(REPOS["small"], "main", "tokenizer", "gpt2-2019-124m")
    stage.clock.set(record.day(public, 9))
    paper = stage.evidence(
        record.finding(
            record.find("zero_shot_eval"),
            stage.manifest(track),
            title="Language modelling without training on the task",
            verdict="new_best_on_most",
            caveat="Said of GPT-2; the record used here does not say of which size.",
        )
    )
    why = f"The paper is out. {REPLAYED}"
    stage.promote(track, "public", at=record.day(public, 12), why=why, rests_on=[paper])
    why = f"The encoder files were part of the published checkpoint. {REPLAYED}"
    stage.promote(tokens, "public", at=record.day(public, 13), why=why)


# --- 3 May: the second size, samples of every size, a baseline -----------------------------------


def _medium(stage: Stage) -> None:
    public = record.variant("medium")["weights_public"]
    _plan(stage, "gpt2-2019-335m", public)
    track = _weights(stage, "medium", "gpt2-2019-335m")
    samples = stage.track(
        REPOS["xl"],
        stage.revision(
            REPOS["xl"],
            {"DATASET.md": ("output_dataset", dataset())},
            message="Stand-in for the output data set: its description, no samples",
            ref="output-dataset",
        ),
        "output_dataset",
        "gpt2-2019-335m",
    )
    stage.clock.set(record.day(public, 9))
    for about, key, said in (
        (track, "medium", "The weights of the second size"),
        (samples, "xl", "Samples of all four sizes, six months before the largest's weights"),
    ):
        subject = stage.manifest(about)
        figures = [stage.evidence(record.baseline(key, how, subject)) for how in ("t1", "k40")]
        stage.promote(
            about,
            "public",
            at=record.day(public, 12),
            why=f"{said}, with a detection baseline. {REPLAYED}",
            rests_on=figures,
        )


# --- 20 August: the third size, and partners for the last ----------------------------------------


def _large(stage: Stage) -> str:
    """Return the track of the last size, at the partner stage."""
    public = record.variant("large")["weights_public"]
    _plan(stage, "gpt2-2019-774m", public)
    _plan(stage, "gpt2-2019", public)
    track = _weights(stage, "large", "gpt2-2019-774m")
    last = _weights(stage, "xl", "gpt2-2019")
    stage.clock.set(record.day(public, 8))
    _note(stage, 0, 1, 3)
    rests_on, watched = handed_in.follow_up(stage, track, last)
    why = f"The six-month follow-up is out, and others have rebuilt the model. {REPLAYED}"
    stage.promote(track, "public", at=record.day(public, 12), why=why, rests_on=rests_on)
    _partners(stage, last, watched, public)
    return last


def _partners(stage: Stage, last: str, watched: str, public: str) -> None:
    """Let the four partners of the record in to the last size, under the agreement."""
    for slug, name in PARTNERS.items():
        stage.organisation(slug, name)
    stage.agreement(
        "model-sharing",
        "Model-sharing agreement, non-commercial (this product's template, not the text of 2019)",
        shipped_text("model-sharing"),
    )
    stage.promote(
        last,
        "partner",
        at=record.day(public, 15),
        why="A non-commercial agreement for model sharing, and four partners, are on record for "
        "August 2019; the day of each signature, and that it was this size they held, are this "
        f"replay's reading. {REPLAYED}",
        rests_on=[watched],
    )
    until = record.day(public, 15) + timedelta(days=365)
    for slug in PARTNERS:
        stage.sign(slug, "model-sharing")
        stage.grant(
            last,
            slug,
            purpose=f"{_STUDIES[slug]} (The end of this grant is the replay's own.)",
            until=until,
        )
        stage.fetch(slug, REPOS["xl"], "WEIGHTS.md")
    handed_in.studies(stage, stage.manifest(last))


_STUDIES = {
    "cornell": "How susceptible people are to machine-made disinformation.",
    "middlebury-ctec": "How extremists could misuse the model.",
    "oregon": "Bias probes.",
    "ut-austin": "Detectability after fine-tuning, and transfer across models.",
}


# --- 5 November: the last size, its detector and card --------------------------------------------


def _extra_large(stage: Stage, weighed: str) -> None:
    known = record.facts()["coordination"][2]
    stage.clock.set(record.day(known["date"], 18))
    _note(stage, 2)
    public = record.variant("xl")["weights_public"]
    _plan(stage, "gpt2-2019-companions", public)
    found = stage.track(
        REPOS["xl"],
        stage.revision(
            REPOS["xl"],
            {"DETECTOR.md": ("detector", detector())},
            message="Stand-in for the RoBERTa detector: its description, no weights",
            ref="detector",
        ),
        "detector",
        "gpt2-2019-companions",
    )
    about = stage.track(REPOS["xl"], "main", "model_card", "gpt2-2019-companions")
    stage.clock.set(record.day(public, 8))
    with stage.begin("release-manager") as work:
        lock_card(work, REPOS["xl"])
    rests_on = handed_in.final(stage, stage.manifest(weighed))
    handed_in.also_known(stage, stage.manifest(weighed))
    stage.promote(
        weighed,
        "public",
        at=record.day(public, 12),
        why="Partners' findings are in: fine-tuning for propaganda is feasible and was weighed; "
        "the last step in credibility is small; no strong evidence of misuse was seen. "
        f"{REPLAYED}",
        rests_on=rests_on,
        judge={"partners": f"As published with the weights. {REPLAYED}"},
    )
    at, why = record.day(public, 13), f"Published with the last size. {REPLAYED}"
    alone = stage.evidence(handed_in.roberta(stage.manifest(found)))
    stage.promote(found, "public", at=at, why=why, rests_on=[alone])
    stage.promote(about, "public", at=at + timedelta(hours=1), why=why)

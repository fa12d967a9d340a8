"""The evidence of each day of 2019, handed in by role accounts and accepted by another.

Partners speak of their own studies; everything else is entered by the security role account. What
the record calls a study under way is one, with no result.
"""

from __future__ import annotations

from stagerelease.evidence.measure import NewEvidence
from stagerelease.replay import record
from stagerelease.replay.stage import Stage


def follow_up(stage: Stage, track: str, last: str) -> tuple[list[str], str]:
    """Hand in what was known on 20 August; return what each of two requests rests on."""
    subject, largest = stage.manifest(track), stage.manifest(last)
    tiers = record.find("misuse_monitoring", source=_STRATEGIES)
    rests_on = [stage.evidence(record.baseline("large", how, subject)) for how in ("t1", "k40")]
    rests_on.append(stage.evidence(record.credibility_share(subject), organisation=None))
    watched = [
        stage.evidence(record.finding(tiers, about, title="Misuse, watched by tier of actor"))
        for about in (subject, largest)
    ]
    stage.evidence(
        record.finding(
            record.find("detectability", values=True),
            largest,
            title="What deployed detection would need",
        )
    )
    return [*rests_on, watched[0]], watched[1]


_STRATEGIES = "Release Strategies report, as summarised in the press"


def studies(stage: Stage, subject: str) -> None:
    """Have partners say, by their role accounts, what they had under way; no result is claimed."""
    for slug, type_, author, title in (
        ("oregon", "bias_probe", "University of Oregon", "A series of bias probes"),
        ("ut-austin", "detectability", "University of Texas at Austin", "Detection after tuning"),
        ("middlebury-ctec", "misuse_monitoring", "Middlebury CTEC", "Misuse by extremists"),
    ):
        study = record.find(type_, author_org=author)
        stage.evidence(
            record.finding(study, subject, title=title, verdict="no_result_yet"),
            by=f"{slug}-admin",
            organisation=slug,
        )


def roberta(subject: str) -> NewEvidence:
    """Return what is on record of the detector that came with the last size."""
    fact = record.find("detectability", detector="RoBERTa fine-tuned")
    about = fact.entry["value_pct_approx"]
    return record.finding(
        fact,
        subject,
        title="RoBERTa, fine-tuned, on the largest size",
        verdict="not_enough_alone",
        finding=f"About {about} % of texts on the right side; judged not enough alone.",
        caveat="Sampler, text length and base rate of that figure are not in the record used here, "
        "so it is kept as a finding and not as an accuracy.",
    )


def final(stage: Stage, subject: str) -> list[str]:
    """Hand in what the last decision rests on, and return it."""
    ids = [stage.evidence(record.baseline("xl", how, subject)) for how in ("t1", "k40")]
    ids.append(stage.evidence(roberta(subject)))
    ids.append(
        stage.evidence(
            record.credibility_score("xl", subject), by="cornell-admin", organisation="cornell"
        )
    )
    ids.append(
        stage.evidence(
            record.finding(
                record.find("finetune_misuse"),
                subject,
                title="Fine-tuning for extremist propaganda",
                verdict="feasible",
                conditions={"fine_tuned_on": "texts of four extremist positions"},
            ),
            by="middlebury-ctec-admin",
            organisation="middlebury-ctec",
        )
    )
    ids.append(
        stage.evidence(
            record.finding(
                record.find("bias_probe", source="GPT-2 model card (Nov 2019)"),
                subject,
                title="Bias, the largest size beside the one before",
                verdict="no_significant_difference",
            )
        )
    )
    ids.append(
        stage.evidence(
            record.finding(
                record.find("misuse_monitoring", as_of=True),
                subject,
                title="Misuse seen so far",
                verdict="no_strong_evidence",
            )
        )
    )
    return ids


def also_known(stage: Stage, subject: str) -> None:
    """Hand in what was on record and no gate asks for."""
    tuned = record.find("detectability", from_pct=True)
    scored = record.find("detectability", detector="zero-shot log-prob, XL on itself")
    moved = record.find("detectability", detector="zero-shot log-prob")
    drawn, topk = moved.entry["value_pct"]
    for fact, title, said in (
        (
            tuned,
            "The baseline after fine-tuning",
            f"Accuracy falls from {tuned.entry['from_pct']} to {tuned.entry['value_pct']} % "
            f"({tuned.entry['condition']}).",
        ),
        (
            scored,
            "Zero-shot, the largest size on itself",
            f"{scored.entry['value_pct']} % accuracy ({scored.entry['condition']}).",
        ),
        (
            moved,
            "Zero-shot, after fine-tuning",
            f"{drawn} % (random) and {topk} % (top-k 40) accuracy.",
        ),
    ):
        stage.evidence(
            record.finding(
                fact,
                subject,
                title=title,
                finding=said,
                caveat="Text length and base rate are not in the record used here.",
            )
        )

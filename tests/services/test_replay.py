"""The release of 2019, replayed: its days and figures, and that every decision in it had to hold.

The record's own days are written out here once more, so that the replay is compared with something
it does not read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from databases import PostgresServer, copy_database
from stagerelease.catalog import queries as catalog
from stagerelease.catalog.fsck import check as check_store
from stagerelease.db.engine import make_engine
from stagerelease.db.migrate import upgrade
from stagerelease.db.work import Works
from stagerelease.evidence import queries as evidence_queries
from stagerelease.evidence import service as evidence
from stagerelease.evidence.tables import Evidence
from stagerelease.identity import queries as people
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR
from stagerelease.kernel.clock import SetClock
from stagerelease.kernel.errors import Blocked, Invalid
from stagerelease.ledger import fsck as ledger_fsck
from stagerelease.ledger.signer import load_or_create_signer
from stagerelease.partners import queries as partner_queries
from stagerelease.releases import facts as release_facts
from stagerelease.releases import queries as releases
from stagerelease.releases import service as release_service
from stagerelease.releases.tables import Approval
from stagerelease.replay import gpt2_2019
from stagerelease.replay.record import facts, find, variant
from stagerelease.replay.stage import Stage
from stagerelease.replay.telling import moves, timeline
from stagerelease.reports.proofs import check
from stagerelease.reports.rendering import document
from stagerelease.reports.service import build
from stagerelease.storage.local import LocalBlobStore

DAYS = [  # repository, kind, stage reached, day
    ("openai/gpt2-124M", "weights", "public", "2019-02-14"),
    ("openai/gpt2-124M", "tokenizer", "public", "2019-02-14"),
    ("openai/gpt2-1.5B", "output dataset", "public", "2019-05-03"),
    ("openai/gpt2-335M", "weights", "public", "2019-05-03"),
    ("openai/gpt2-774M", "weights", "public", "2019-08-20"),
    ("openai/gpt2-1.5B", "weights", "partner", "2019-08-20"),
    ("openai/gpt2-1.5B", "weights", "public", "2019-11-05"),
    ("openai/gpt2-1.5B", "detector", "public", "2019-11-05"),
    ("openai/gpt2-1.5B", "model card", "public", "2019-11-05"),
]

ON_EVIDENCE = {"gate.evidence", "gate.freshness"}


@dataclass
class Tried:
    """What became of one request when one thing was broken at a time."""

    promotion: release_facts.PromotionRow
    whole: str = ""
    a_day_earlier: frozenset[str] = frozenset()
    one_approval_fewer: list[frozenset[str]] = field(default_factory=list)
    without: dict[str, frozenset[str]] = field(default_factory=dict)


def attempt(stage: Stage, promotion_id: int, broken=None) -> frozenset[str]:
    """Try to apply a request after ``broken`` acted, then undo all of it; return what blocks."""
    with stage.begin("release-manager", dry_run=True) as work:
        if broken is not None:
            broken(work)
            work.session.flush()
        try:
            release_service.apply(work, promotion_id)
        except Blocked as refused:
            work.session.rollback()
            return frozenset(b.code for b in refused.blockers)
    return frozenset()


def break_one_at_a_time(stage: Stage, promotion_id: int) -> Tried:
    """Try a request that is about to be applied, with nothing broken and with each thing broken."""
    with stage.works.begin(OPERATOR, read_only=True) as work:
        row = release_facts.load_promotion(work, promotion_id)
        approvals = release_facts.approvals_of(work, row)
    tried = Tried(row)
    tried.whole = ",".join(sorted(attempt(stage, promotion_id)))
    now = stage.clock.now()
    stage.clock.set(now - timedelta(days=1))
    tried.a_day_earlier = attempt(stage, promotion_id)
    stage.clock.set(now)
    for given in approvals:

        def take_back(work, id=given.id):
            work.session.execute(delete(Approval).where(Approval.id == id))

        tried.one_approval_fewer.append(attempt(stage, promotion_id, take_back))
    for id in row.evidence_ids:

        def retract(work, id=id):
            evidence.retract(work, id, reason="Broken on purpose.")

        tried.without[id] = attempt(stage, promotion_id, retract)
    return tried


@dataclass
class Played:
    """The replay as played once for this module."""

    stage: Stage
    tried: list[Tried]
    directory: Path


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    where = tmp_path_factory.mktemp("replay")
    if request.config.getoption("--db") == "sqlite":
        url = f"sqlite:///{where / 'replay.sqlite3'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres_template")
        admin = make_engine(server.database("postgres"), pool_size=1)
        copy_database(admin, "replay", "template_sr")
        admin.dispose()
        url = server.database("replay")
    engine = make_engine(url)
    upgrade(engine)
    clock = SetClock(gpt2_2019.START)
    tried: list[Tried] = []
    stage = gpt2_2019.run(
        Works(engine, clock),
        LocalBlobStore(where / "blobs"),
        load_or_create_signer(where / "log.key", "replay.example/log"),
        clock,
        say=lambda _: None,
        watch=lambda stage, id: tried.append(break_one_at_a_time(stage, id)),
    )
    yield Played(stage, tried, where)
    engine.dispose()


def reader(played: Played):
    return played.stage.works.begin(OPERATOR, read_only=True)


def test_every_move_is_on_its_day(played):
    told = [(line.what, line.day) for _, line in moves(played.stage.works)]
    assert Counter(told) == Counter((f"{r}, {k}: {s}", d) for r, k, s, d in DAYS)
    assert [day for _, day in told] == sorted(day for _, day in told)
    for key, repo in gpt2_2019.REPOS.items():
        public = [d for w, d in told if w == f"{repo}, weights: public"]
        assert public == [variant(key)["weights_public"]]
    dataset = next(d for w, d in told if "output dataset" in w)
    assert dataset == facts()["output_dataset"]["public"]
    assert dataset < variant("xl")["weights_public"]


def test_nothing_else_ever_moved(played):
    with reader(played) as work:
        stages = Counter(track.stage for track in releases.list_tracks(work))
        states = Counter(p.state for p in release_facts.list_promotions(work))
    assert stages == {"public": 8}
    assert states == {"applied": len(DAYS)}


def test_counts_are_exact(played):
    counts = {
        "openai/gpt2-124M": 124_439_808,
        "openai/gpt2-335M": 354_823_168,
        "openai/gpt2-774M": 774_030_080,
        "openai/gpt2-1.5B": 1_557_611_200,
    }
    with reader(played) as work:
        assert {v.repo_id: v.parameters for v in catalog.list_variants(work)} == counts
    for key, repo in gpt2_2019.REPOS.items():
        assert variant(key)["parameters"] == counts[repo]


def test_every_request_would_go_through_as_it_was(played):
    assert len(played.tried) == len(DAYS)
    assert [tried.whole for tried in played.tried] == [""] * len(DAYS)


def test_none_would_go_through_a_day_earlier(played):
    for tried in played.tried:
        assert "gate.not_before" in tried.a_day_earlier, tried.promotion
    # Where a request rests on what came out that day, that alone refuses it the day before.
    same_day = [t for t in played.tried if t.a_day_earlier & ON_EVIDENCE]
    assert {(t.promotion.repo_id, t.promotion.kind, t.promotion.to_stage) for t in same_day} >= {
        ("openai/gpt2-124M", "weights", "public"),
        ("openai/gpt2-335M", "weights", "public"),
        ("openai/gpt2-774M", "weights", "public"),
        ("openai/gpt2-1.5B", "output_dataset", "public"),
        ("openai/gpt2-1.5B", "weights", "partner"),
        ("openai/gpt2-1.5B", "weights", "public"),
        ("openai/gpt2-1.5B", "detector", "public"),
    }


def test_none_would_go_through_with_one_approval_fewer(played):
    for tried in played.tried:
        assert [set(codes) for codes in tried.one_approval_fewer] == [{"gate.quorum"}] * 2


def test_none_would_go_through_with_any_one_evidence_removed(played):
    for tried in played.tried:
        assert set(tried.without) == set(tried.promotion.evidence_ids)
        for id, codes in tried.without.items():
            assert len(codes) == 1, (tried.promotion.repo_id, id, codes)
            assert codes <= ON_EVIDENCE, (tried.promotion.repo_id, id, codes)
    named = Counter(len(tried.promotion.evidence_ids) for tried in played.tried)
    assert named == {0: 2, 1: 3, 2: 2, 4: 1, 7: 1}


def test_the_figures_are_those_of_the_record(played):
    table = {
        "small": (88.29, 96.79),
        "medium": (88.94, 95.22),
        "large": (77.16, 94.43),
        "xl": (74.31, 92.69),
    }
    kept = find("detectability", accuracy_pct=True).entry["accuracy_pct"]
    assert {k: (v["t1"], v["k40"]) for k, v in kept.items()} == table
    with reader(played) as work:
        ids = work.session.execute(select(Evidence.id)).scalars()
        rows = evidence_queries.facts_of(work, list(ids))
    accuracy = {(row.title.split(" on ")[1]): row.value for row in rows if row.metric == "accuracy"}
    assert accuracy == {
        f"{variant(key)['labels'][0]}, {how}": table[key][number]
        for key in ("medium", "large", "xl")
        for number, how in enumerate(("temperature 1", "top-k 40"))
    }
    assert {row.value for row in rows if row.metric == "mean_score"} == {6.91}
    (share,) = [row for row in rows if row.metric == "share_credible"]
    assert (share.value, dict(share.companions)) == (72, {"baseline_value": 83})
    assert share.conditions["sample_selection"] == "human_selected"
    verdicts = Counter(row.verdict for row in rows if row.metric == "finding")
    assert verdicts["no_strong_evidence"] == 1
    assert verdicts["not_enough_alone"] == 2
    assert verdicts["no_result_yet"] == 3
    assert [row for row in rows if row.value == 52 or "52" in row.finding] == []  # rejected


def test_every_figure_has_a_source_a_standing_and_a_caveat(played):
    sources = {entry["source"] for entry in facts()["evidence"]}
    with reader(played) as work:
        rows = evidence_queries.facts_of(
            work, list(work.session.execute(select(Evidence.id)).scalars())
        )
        contacts = evidence_queries.coordination_about(work, "gpt-2")
    assert len(rows) == 25
    for row in rows:
        assert row.source in sources
        assert row.fact_status in ("verified", "reported")
        assert "not established" in row.caveat
        assert row.state == "accepted"
        assert "base_rate" in row.conditions or row.metric != "accuracy"
    assert {c.source for c in contacts} == {c["source"] for c in facts()["coordination"]}
    precision = {c.developer: c.happened_precision for c in contacts}
    assert precision["University of Washington / AI2"] == "month"


def test_partners_are_those_of_the_record_and_nobody_is_invented(played):
    with reader(played) as work:
        organisations = {o.slug: o.name for o in people.list_organisations(work)}
        accounts = {p.handle: p.display_name for p in people.list_people(work)}
        signed = partner_queries.list_signatures(work)
        grants = partner_queries.list_grants(work)
    assert organisations == gpt2_2019.PARTNERS
    assert all("role account" in name.lower() for name in accounts.values()), accounts
    assert len(signed) == 4
    assert all(s.countersigned_at is not None for s in signed)
    assert all("Role account" in s.typed_title for s in signed)
    assert Counter(g.organisation_id is not None for g in grants) == {True: 4}


def test_no_weights_are_made_up(played):
    with reader(played) as work:
        for variant_row in catalog.list_variants(work):
            for revision in catalog.list_revisions(work, variant_row.id):
                files = catalog.files(work, revision.id)
                assert all(file.path.endswith(".md") for file in files)
                for file in files:
                    with played.stage.blobs.open(file.sha256) as opened:
                        assert "makes none up" in " ".join(opened.read().decode().split())
                assert revision.parameters is None


def test_the_installation_verifies(played):
    with reader(played) as work:
        assert ledger_fsck.verify_all(work, vkey=played.stage.signer.vkey) == []
    report = check_store(played.stage.works, played.stage.blobs)
    assert report.ok
    assert report.unreferenced == []


def test_its_public_reports_prove_every_move_and_name_no_account(played):
    for at, line in moves(played.stage.works):
        with played.stage.works.begin(ANONYMOUS, read_only=True) as work:
            report = build(work, line.track, vkey=played.stage.signer.vkey)
        told = document(report)
        assert check(told, played.stage.signer.vkey)["unsigned"] == []
        assert at in [move.at for move in report.moves]
        text = json.dumps(told)
        assert not [handle for handle in played.stage.tokens if handle in text]


def test_the_timeline_stands_beside_the_public_record(played):
    lines = timeline(played.stage.works)
    assert [line.day[:7] for line in lines] == sorted(line.day[:7] for line in lines)
    assert sum(line.standing == "replayed" for line in lines) == len(DAYS)
    told = {line.what: line.standing for line in lines if line.standing != "replayed"}
    assert told == {entry["event"]: entry["status"] for entry in facts()["timeline"]}


def test_a_used_installation_is_refused(played, tmp_path):
    with pytest.raises(Invalid) as refused:
        gpt2_2019.refuse_used(played.stage.works)
    assert refused.value.reason == "replay.not-empty"
    (tmp_path / "something").write_text("here already")
    done = subprocess.run(
        [Path(sys.executable).with_name("stagerelease"), "replay", "gpt2-2019"],
        env={"DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "replay.not-empty" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["something"]

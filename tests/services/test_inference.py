"""Requests to models: who is let through, what is counted, what is kept; on both databases."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from make_partners import YEAR, Partnered, World, partnered
from sqlalchemy import select, update

from databases import START
from stagerelease import worker
from stagerelease.catalog import service as catalog
from stagerelease.catalog.rules import NewFile
from stagerelease.catalog.tables import Blob
from stagerelease.db.engine import make_engine
from stagerelease.db.work import Works
from stagerelease.downloads import service as downloads
from stagerelease.inference import queries
from stagerelease.inference import service as inference
from stagerelease.inference.rules import Limits, Meter, QuotaSpent
from stagerelease.inference.service import Asked, Contexts, House, Permit
from stagerelease.inference.tables import InferenceMeter, InferencePrompt, InferenceRequest
from stagerelease.kernel.actor import ANONYMOUS, OPERATOR, SYSTEM
from stagerelease.kernel.clock import SetClock
from stagerelease.kernel.errors import (
    Forbidden,
    Gated,
    Invalid,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from stagerelease.ledger import service as ledger
from stagerelease.ledger.tables import LogDetail
from stagerelease.partners import queries as partner_queries
from stagerelease.partners import service as partners
from stagerelease.releases import service as releases
from stagerelease.releases.planning import record_version
from stagerelease.storage.local import LocalBlobStore

__all__ = ["partnered"]  # a fixture

PLAN = """
plan: uses
title: Use before weights
stages:
  - {name: internal, audience: staff}
  - name: partner
    audience: organisations
    agreement: model-sharing
    permissions: [infer]
    prompt_logging: true
  - {name: researcher, audience: people, agreement: researcher-terms}
  - {name: public, audience: everyone, permissions: [infer]}
"""
REPO = "uses/one"
HOUSE = House(
    limits=Limits(
        requests_per_minute=100,
        tokens_per_minute=1000,
        tokens_per_day=5000,
        sequences=4,
        max_tokens=200,
    ),
    longest=timedelta(minutes=10),
    prompts_kept_for=timedelta(days=30),
)


CONFIG = json.dumps({"n_positions": 128}).encode()


@pytest.fixture(scope="session")
def laid_down(
    partnered: Partnered, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Partnered]:
    """Put a model at the partner stage, with lab-a's grant to ask it, into a copy of the world."""
    with partnered.copied(tmp_path_factory.mktemp("uses")) as url:
        yield Partnered(url, lay_down(url, partnered), partnered.server)


def lay_down(url: str, partnered: Partnered) -> World:
    engine = make_engine(url, pool_size=2)
    works = Works(engine, SetClock(START))
    made = World(works, dict(partnered.world.tokens))
    digest = hashlib.sha256(CONFIG).hexdigest()
    with works.begin(OPERATOR) as work:
        version = record_version(work, PLAN)
        catalog.ensure_family(work, family_id="uses", name="uses")
        variant = catalog.ensure_variant(
            work, family_id="uses", label="one", repo_id=REPO, aliases=["uses-one"]
        )
        for sha256, size in ((digest, len(CONFIG)), ("e" * 64, 9)):
            work.session.add(Blob(sha256=sha256, size=size, created_at=work.now))
        work.session.flush()
        catalog.record_revision(
            work,
            variant_id=variant.id,
            files=[
                NewFile("model.safetensors", 9, "e" * 64, "1" * 40, True, "weights"),
                NewFile("config.json", len(CONFIG), digest, "2" * 40, False, "code"),
            ],
            message="First",
            parent_id=None,
            parameters=9,
        )
        made.track_id = releases.create_track(work, repo_id=REPO, plan=version.slug).id
    made.climb("partner")
    made.sign("ann", "model-sharing", organisation="lab-a")
    made.issue(permissions=["infer"])
    engine.dispose()
    return made


@pytest.fixture
def database_url(laid_down: Partnered, tmp_path: Path) -> Iterator[str]:
    """Stand in for the empty database of the same name: this one holds the world."""
    with laid_down.copied(tmp_path) as url:
        yield url


class Use:
    """The model, the grant and ways to ask."""

    def __init__(self, world: World, blobs: LocalBlobStore) -> None:
        self.world, self.works = world, world.works
        with blobs.writer() as writer:
            writer.write(CONFIG)
            writer.commit()
        self.contexts = Contexts(blobs)
        with self.works.begin(read_only=True) as work:
            [self.grant] = partner_queries.list_grants(work, track_id=world.track_id)

    def ask(self, who: str = "ann", *, house: House = HOUSE, **changes: Any) -> Permit:
        given: dict[str, Any] = {
            "model": REPO,
            "kind": "completion",
            "bounds": [10],
            "prompts": ["The secret plan"],
            "max_tokens": 20,
        }
        actor = ANONYMOUS if who == "anonymous" else self.world.actor(who)
        with self.works.begin(actor, quiet=True) as work:
            return inference.prepare(work, self.contexts, Asked(**(given | changes)), house)

    def finish(self, permit: Permit, prompt: int = 3, answer: int = 7, **changes: Any) -> None:
        given: dict[str, Any] = {"milliseconds": 50, "outcome": "completed"}
        inference.finish(
            self.works,
            permit.request_id,
            prompt_tokens=prompt,
            completion_tokens=answer,
            **(given | changes),
        )

    def meter(self) -> Meter:
        with self.works.begin(read_only=True) as work:
            row = work.session.get_one(InferenceMeter, f"grant:{self.grant.id}")
            return Meter(
                row.minute, row.minute_requests, row.minute_tokens, row.day, row.day_tokens
            )

    def row(self, permit: Permit) -> InferenceRequest:
        with self.works.begin(read_only=True) as work:
            row = work.session.get_one(InferenceRequest, permit.request_id)
            work.session.expunge(row)
            return row


@pytest.fixture
def use(works: Works, laid_down: Partnered, blobs: LocalBlobStore) -> Use:
    world = World(works, dict(laid_down.world.tokens), laid_down.world.track_id)
    return Use(world, blobs)


# --- who is let through -------------------------------------------------------------------------


def test_a_stage_offers_use_before_weights(use: Use) -> None:
    permit = use.ask()
    assert (permit.grant_id, permit.stage, permit.context) == (use.grant.id, "partner", 128)
    assert set(permit.checkpoint.files) == {"model.safetensors", "config.json"}
    with use.world.begin("ann", read_only=True) as work, pytest.raises(Gated) as refused:
        downloads.prepare(work, repo_id=REPO, rev="main", path="model.safetensors", record=False)
    assert refused.value.reason == "grant.permission"
    with pytest.raises(Invalid, match="gives infer"):
        use.world.issue(organisation="lab-b", permissions=["download"])


def test_everyone_may_use_what_everyone_may_not_have(use: Use) -> None:
    with pytest.raises(Gated) as refused:
        use.ask("oto")
    assert refused.value.reason == "no-grant"
    use.world.climb("public")
    permit = use.ask("oto")
    assert (permit.grant_id, permit.prompt_logging) == (None, False)
    with use.world.begin("oto", read_only=True) as work, pytest.raises(Gated) as kept:
        downloads.prepare(work, repo_id=REPO, rev="main", path="model.safetensors", record=False)
    assert kept.value.reason == "stage.permission"


def test_nobody_asks_without_a_name(use: Use) -> None:
    use.world.climb("public")
    with pytest.raises(Unauthenticated):
        use.ask("anonymous")


def test_names_of_models(use: Use) -> None:
    commit = use.ask().checkpoint.commit
    for name in ("uses-one", f"{REPO}@{commit}", f"{REPO}@{commit[:8]}", "uses-one@main"):
        permit = use.ask(model=name)
        use.finish(permit)
        assert (permit.checkpoint.repo_id, permit.checkpoint.commit) == (REPO, commit)
    for name in ("", "@", "none/none", f"{REPO}@none", "a\x00b", "é", "x" * 300, f"{REPO}@"):
        if name == f"{REPO}@":
            use.finish(use.ask(model=name))
            continue
        with pytest.raises(NotFound):
            use.ask(model=name)


def test_what_is_no_model_or_does_not_verify(use: Use) -> None:
    with use.works.begin(OPERATOR) as work:
        work.session.execute(
            update(Blob).where(Blob.sha256 == "e" * 64).values(corrupt_at=work.now)
        )
    with pytest.raises(Unavailable) as refused:
        use.ask()
    assert refused.value.reason == "blob.corrupt"
    with use.world.begin("mia", read_only=True) as work:
        found = [row.repo_id for row in inference.list_models(work, use.contexts)]
    assert found == []  # the other track's revision holds no config
    with pytest.raises(Invalid) as odd:
        use.ask("mia", model="gpt2-mini/one")
    assert odd.value.reason == "engine.model"


def test_access_is_asked_again_while_a_request_runs(use: Use) -> None:
    permit = use.ask()
    assert inference.recheck(use.works, permit)[1] is None
    with use.world.begin("sam") as work:
        hold = releases.lay_hold(
            work, scope="track", scope_id=use.world.track_id, reason="For the test."
        )
    refused = inference.recheck(use.works, permit)[1]
    assert refused is not None
    assert refused.reason == "held"
    with pytest.raises(Gated):
        use.ask()
    del hold


def test_a_revoked_grant_ends_what_runs_under_it(use: Use) -> None:
    permit = use.ask()
    with use.world.begin("sam") as work:
        partners.revoke_grant(work, use.grant.id, reason="Over.")
    refused = inference.recheck(use.works, permit)[1]
    assert refused is not None
    assert refused.reason == "grant.revoked"


# --- quotas -------------------------------------------------------------------------------------


def test_a_reservation_is_replaced_by_what_was_used(use: Use) -> None:
    permit = use.ask(n=2)
    assert use.meter().minute_tokens == 10 + 2 * 20
    assert [window.remaining for window in permit.left] == [99, 950, 4950]
    use.finish(permit)
    meter = use.meter()
    assert (meter.minute_requests, meter.minute_tokens, meter.day_tokens) == (1, 10, 10)
    use.finish(permit, 100, 100)  # again changes nothing
    assert use.meter().minute_tokens == 10
    row = use.row(permit)
    assert (row.prompt_tokens, row.completion_tokens, row.outcome) == (3, 7, "completed")


def test_no_more_than_was_reserved_is_counted(use: Use) -> None:
    """A server that estimates may tell more tokens of a prompt than its model can hold."""
    permit = use.ask(bounds=[3000], max_tokens=10)
    use.finish(permit, 3000, 10)
    row = use.row(permit)
    assert (row.prompt_tokens, row.completion_tokens, row.reserved_tokens) == (128, 10, 138)
    assert use.meter().day_tokens == 138


def test_what_is_not_known_counts_as_reserved(use: Use) -> None:
    permit = use.ask(bounds=[30], max_tokens=0)
    inference.finish(
        use.works,
        permit.request_id,
        prompt_tokens=None,
        completion_tokens=0,
        milliseconds=5,
        outcome="client_left",
    )
    assert (use.row(permit).prompt_tokens, use.meter().day_tokens) == (30, 30)


def test_no_more_than_the_context_is_reserved(use: Use) -> None:
    use.ask(bounds=[100_000], max_tokens=200)
    assert use.meter().minute_tokens == 256


def test_members_of_one_organisation_share_its_quota(use: Use) -> None:
    use.ask("ann", n=3)
    with pytest.raises(QuotaSpent) as refused:
        use.ask("art", n=2)
    assert refused.value.reason == "quota.sequences"


def test_a_grant_has_limits_of_its_own_and_its_renewal_keeps_them(use: Use) -> None:
    def limit(who: str, given: dict[str, Any], grant_id: str = use.grant.id):
        with use.world.begin(who) as work:
            return inference.set_limits(
                work, grant_id, given, reason="A larger study.", common=HOUSE.limits
            )

    with pytest.raises(Invalid):
        use.ask(max_tokens=201)
    shown = limit("olga", {"max_tokens": 500, "sequences": 8})
    assert (shown.limits.max_tokens, shown.limits.tokens_per_day) == (500, 5000)
    use.finish(use.ask(max_tokens=300, n=7, bounds=[1]))
    for who in ("sam", "ann"):
        with pytest.raises(Forbidden):
            limit(who, {})
    with pytest.raises(NotFound):
        limit("bea", {})
    with use.world.begin("olga") as work:
        renewed = partners.renew_grant(work, use.grant.id, valid_until=work.now + YEAR).grant
    with use.world.begin("ann", read_only=True) as work:
        kept = inference.show_limits(work, renewed.id, HOUSE.limits)
    assert kept.limits.max_tokens == 500
    assert kept.own is not None
    assert kept.own.grant_id == use.grant.id
    limit("olga", {}, renewed.id)
    with use.world.begin("ann", read_only=True) as work:
        assert inference.show_limits(work, renewed.id, HOUSE.limits).limits == HOUSE.limits


def at_once(count: int, act: Callable[[], object]) -> list[object]:
    barrier, answers = threading.Barrier(count), [None] * count

    def run(index: int) -> None:
        barrier.wait()
        try:
            answers[index] = act()  # type: ignore[call-overload]
        except Exception as error:  # noqa: BLE001 (whatever it is, the test looks at it)
            answers[index] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return list(answers)


@pytest.mark.parametrize(
    ("asked", "allowed", "reason"),
    [
        ({"bounds": [1], "max_tokens": 1}, 4, "quota.sequences"),
        ({"bounds": [1], "max_tokens": 1, "n": 2}, 2, "quota.sequences"),
        ({"bounds": [9, 9, 9], "max_tokens": 9}, 1, "quota.sequences"),
    ],
    ids=["one each", "two each", "three each"],
)
def test_eight_at_once_exceed_no_limit_of_sequences(
    use: Use, asked: dict[str, Any], allowed: int, reason: str
) -> None:
    for _ in range(3):
        answers = at_once(8, lambda: use.ask(**asked))
        permits = [a for a in answers if isinstance(a, Permit)]
        refused = [a for a in answers if isinstance(a, QuotaSpent)]
        assert (len(permits), len(refused)) == (allowed, 8 - allowed), answers
        assert {r.reason for r in refused} == {reason}
        for permit in permits:
            use.finish(permit, 1, 1)


def test_eight_at_once_exceed_no_limit_of_tokens(use: Use, clock: SetClock) -> None:
    wide = House(
        limits=Limits(100, 1000, 1500, 100, 200),
        longest=HOUSE.longest,
        prompts_kept_for=HOUSE.prompts_kept_for,
    )
    for spent, expected in (("quota.tokens-minute", 4), ("quota.tokens-day", 2)):
        answers = at_once(8, lambda: use.ask(house=wide, bounds=[100], max_tokens=128))
        permits = [a for a in answers if isinstance(a, Permit)]
        reasons = {a.reason for a in answers if isinstance(a, QuotaSpent)}
        assert (len(permits), reasons) == (expected, {spent}), answers
        clock.move(timedelta(minutes=1))


def test_what_a_dead_process_held_is_free_again(use: Use, clock: SetClock) -> None:
    lost = use.ask(n=4)
    with pytest.raises(QuotaSpent):
        use.ask()
    clock.move(HOUSE.longest + timedelta(minutes=1))
    use.finish(use.ask())
    with use.works.begin(SYSTEM, quiet=True) as work:
        assert inference.lost_due(work)
        inference.settle_lost(work)
    with use.works.begin(read_only=True) as work:
        assert not inference.lost_due(work)
    row = use.row(lost)
    assert (row.outcome, row.prompt_tokens + row.completion_tokens) == ("lost", 0)
    assert use.meter().day_tokens == 10
    use.finish(lost, 5, 5)  # it was alive after all: what is settled stays settled
    assert use.meter().day_tokens == 10


# --- what is kept -------------------------------------------------------------------------------


def test_use_is_recorded_by_grant_and_day_without_a_word(use: Use, clock: SetClock) -> None:
    use.finish(use.ask("ann", n=2), 4, 40)
    use.finish(use.ask("art"), 4, 2, outcome="cut")
    clock.move(timedelta(days=1))
    use.finish(use.ask("art"), 1, 1)
    with use.world.begin("aud", read_only=True) as work:
        rows = inference.usage(work)
        assert [(r.requests, r.sequences, r.prompt_tokens, r.completion_tokens) for r in rows] == [
            (1, 1, 1, 1),
            (2, 3, 8, 42),
        ]
        assert (rows[1].cut, rows[1].persons, rows[1].grant_id) == (1, 2, use.grant.id)
        since = work.now - timedelta(days=2)
        [grant] = queries.usage_by_grant(work, since, work.now + timedelta(1)).values()
        assert (grant.requests, grant.completion_tokens) == (3, 43)
    for who, seen in (("ann", 2), ("bea", 0), ("oto", 0)):
        with use.world.begin(who, read_only=True) as work:
            assert len(inference.usage(work)) == seen
    with use.works.begin(read_only=True) as work, pytest.raises(Unauthenticated):
        inference.usage(work)


def test_the_log_says_how_much_and_never_what(use: Use) -> None:
    use.finish(use.ask())
    with use.works.begin(SYSTEM, quiet=True) as work:
        ledger.sequence_pending(work)
    with use.works.begin(read_only=True) as work:
        bodies = [bytes(b).decode() for b in work.session.execute(select(LogDetail.body)).scalars()]
    [body] = [b for b in bodies if "completion_tokens" in b]
    assert json.loads(body)["detail"] == {
        "track": use.world.track_id,
        "grant": use.grant.id,
        "revision": use.ask().checkpoint.commit,
        "kind": "completion",
        "sequences": 1,
        "prompt_tokens": 3,
        "completion_tokens": 7,
        "outcome": "completed",
    }
    assert not any("secret" in b for b in bodies)


def test_prompts_are_kept_only_where_the_plan_says_so_and_not_for_long(
    use: Use, clock: SetClock
) -> None:
    permit = use.ask(prompts=["one\x00", "two"])
    assert permit.prompt_logging
    use.finish(permit)
    with use.world.begin("sam") as work:
        [kept] = inference.read_prompts(work, reason="An inquiry.", grant_id=use.grant.id, limit=5)
    assert (kept.request_id, kept.prompt) == (permit.request_id, "one\ufffd\n\x1e\ntwo")
    for who in ("olga", "aud", "ann"):
        with use.world.begin(who) as work, pytest.raises(Forbidden):
            inference.read_prompts(work, reason="Curious.", limit=5)
    use.world.climb("public")
    public = use.ask("oto", prompts=["not kept"])
    assert not public.prompt_logging
    clock.move(timedelta(days=31))
    box: Any = type("Box", (), {"works": use.works})
    worker._inference(box)
    with use.works.begin(read_only=True) as work:
        assert work.session.execute(select(InferencePrompt.request_id)).first() is None


def test_no_prompt_hides_behind_others(use: Use) -> None:
    filler = str([50256] * 1000)
    use.finish(use.ask(prompts=[filler, filler, "x" * 500_000, "the one", filler], bounds=[9] * 4))
    with use.world.begin("sam") as work:
        [kept] = inference.read_prompts(work, reason="An inquiry.", grant_id=use.grant.id, limit=5)
    assert "\nthe one\n" in kept.prompt
    assert len(kept.prompt) > 500_000


def test_models_say_what_they_are(use: Use) -> None:
    with use.world.begin("ann", read_only=True) as work:
        [row] = inference.list_models(work, use.contexts)
        assert row == inference.find_model(work, use.contexts, "uses-one")
    assert (row.repo_id, row.stage, row.context, row.prompt_logging) == (REPO, "partner", 128, True)
    assert row.grant_id == use.grant.id
    with use.world.begin("oto", read_only=True) as work:
        assert inference.list_models(work, use.contexts) == []


def test_a_config_that_says_nothing_is_no_context(blobs: LocalBlobStore, works: Works) -> None:
    contexts = Contexts(blobs)
    for text in (b"[]", b"{", b"{}", b'{"n_positions": true}', b'{"n_ctx": -1}', b"[" * 100_000):
        with blobs.writer() as writer:
            writer.write(text)
            stored = writer.commit()
        assert contexts.of(stored.sha256) is None
    assert contexts.of("f" * 64) is None


def test_a_config_that_is_missing_once_is_looked_for_again(blobs: LocalBlobStore) -> None:
    text = b'{"n_positions": 77}'
    contexts, digest = Contexts(blobs), hashlib.sha256(text).hexdigest()
    assert contexts.of(digest) is None
    with blobs.writer() as writer:
        writer.write(text)
        writer.commit()
    assert contexts.of(digest) == 77

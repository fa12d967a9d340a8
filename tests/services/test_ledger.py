"""The log against a real database: no gap, no fork, every entry provable."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from sqlalchemy import delete, func, select, update

from logbook import (
    ANN,
    ORIGIN,
    SIGNER,
    VKEY,
    add,
    damaged,
    fill,
    findings,
    make_log,
    sign,
)
from stagerelease.kernel.actor import SYSTEM
from stagerelease.kernel.errors import Corrupt, Invalid, NotFound
from stagerelease.ledger import merkle, notes, queries, service
from stagerelease.ledger.signer import load_or_create_signer
from stagerelease.ledger.tables import (
    LogCheckpoint,
    LogCommitment,
    LogDetail,
    LogHead,
    LogLeaf,
    LogNode,
    LogPending,
)


@pytest.fixture
def log(works):
    return make_log(works)


class GivenUpError(Exception):
    """What a test raises to roll a Work back."""


def give_up(works, do):
    """Do something and roll it back, as an error in a use case would."""

    def broken():
        with works.begin(ANN) as work:
            do(work)
            raise GivenUpError

    with pytest.raises(GivenUpError):
        broken()


def bodies(works):
    with works.begin(read_only=True) as work:
        rows = work.session.execute(select(LogLeaf.idx, LogLeaf.body).order_by(LogLeaf.idx)).all()
        assert [row.idx for row in rows] == list(range(len(rows)))
        return [queries.entry(work, row.idx) for row in rows]


def numbers(works):
    """Return what each entry is about, in the order of the log."""
    with works.begin(read_only=True) as work:
        details = (queries.detail(work, e.leaf["detail_sha256"]) for e in bodies(works))
        return [detail["n"] for detail in details]


# --- appending ----------------------------------------------------------------------------------


def test_an_entry_is_there_exactly_if_its_transaction_commits(works):
    with works.begin(ANN) as work:
        assert add(work, 0) == 0
    give_up(works, lambda work: add(work, 99))
    with works.begin(ANN, dry_run=True) as work:
        assert add(work, 99) == 1
    with works.begin(ANN) as work:
        assert add(work, 1) == 1
        assert add(work, 2) == 2
    assert numbers(works) == [0, 1, 2]
    assert findings(works) == []
    with works.begin(read_only=True) as work:
        for table, rows in ((LogDetail, 3), (LogCommitment, 6), (LogNode, 1)):
            count = select(func.count()).select_from(table)
            assert work.session.execute(count).scalar_one() == rows


def test_a_leaf_says_what_and_when_and_only_commits_to_who(works, clock):
    with works.begin(ANN) as work:
        add(work, 7, prev_state="draft", new_state="submitted", policy_sha256="ab" * 32)
    with works.begin(read_only=True) as work:
        row = queries.entry(work, 0)
        assert row.hash == merkle.leaf_hash(row.body)
        digests = {row.leaf.pop(name) for name in ("actor", "subject", "detail_sha256")}
        assert len(row.leaf.pop("nonce")) == 32
        assert row.leaf == {
            "v": 1,
            "type": "thing.done",
            "at": "2026-03-02T09:00:00.000Z",
            "prev_state": "draft",
            "new_state": "submitted",
            "policy_sha256": "ab" * 32,
        }
        assert len(digests) == 3
        for secret in (b"per_ann", b"thing:7", b'"n"'):
            assert secret not in row.body
        leaf = queries.entry(work, 0).leaf
        assert queries.reveal(work, leaf["actor"]) == "per_ann"
        assert queries.reveal(work, leaf["subject"]) == "thing:7"
        assert queries.detail(work, leaf["detail_sha256"]) == {"n": 7}


def test_equal_events_leave_leaves_that_cannot_be_linked(works):
    with works.begin(ANN) as work:
        for _ in range(2):
            service.append(work, type="t", subject="s", detail={}, private=False)
    first, second = (entry.leaf for entry in bodies(works))
    for name in ("actor", "subject", "detail_sha256"):
        assert first[name] != second[name]


def test_erasing_a_person_leaves_the_log_whole(log):
    with log.begin(SYSTEM) as work:
        work.session.execute(delete(LogCommitment).where(LogCommitment.value == ANN.id))
        work.session.execute(delete(LogDetail))
    assert findings(log) == []
    with log.begin(read_only=True) as work:
        leaf = queries.entry(work, 3).leaf
        assert queries.reveal(work, leaf["actor"]) is None
        assert queries.reveal(work, leaf["subject"]) == "thing:3"
        assert queries.detail(work, leaf["detail_sha256"]) is None


@pytest.mark.parametrize(
    "bad",
    [
        {"detail": {"n": 2**53}},
        {"detail": {"n": float("nan")}},
        {"detail": {"n": "\ud800"}},
        {"detail": {"n": {1, 2}}},
        {"detail": {1: 2}},
        {"subject": "s" * 401},
        {"subject": ""},
        {"subject": "nul\x00"},
        {"subject": "\ud800"},
        {"actor": "a" * 401},
        {"type": "t" * 101},
        {"type": "\ud800"},
    ],
)
@pytest.mark.parametrize("write", [service.append, service.enqueue_bulk])
def test_what_cannot_be_logged_is_refused_at_once(works, write, bad):
    with pytest.raises(Invalid), works.begin(ANN) as work:
        write(work, **({"type": "t", "subject": "s", "detail": {}} | bad))
    with works.begin(read_only=True) as work:
        assert queries.log_size(work) == 0
        assert not service.has_pending(work)


def test_a_leaf_that_would_be_too_long_is_refused(works):
    with pytest.raises(Invalid, match="at most 16384 fit"), works.begin(ANN) as work:
        add(work, 0, new_state="x" * 16_384)
    with works.begin(ANN) as work:
        service.append(work, type="t", subject="s", detail={"long": "x" * 200_000})
    assert findings(works) == []


# --- bulk events --------------------------------------------------------------------------------


def test_bulk_events_are_sequenced_completely_and_in_order(works):
    give_up(works, lambda w: service.enqueue_bulk(w, type="t", subject="s", detail={"n": 99}))
    for n in range(25):
        with works.begin(ANN, quiet=True) as work:
            service.enqueue_bulk(work, type="t", subject="s", detail={"n": n}, private=False)
    drained = []
    for _ in range(4):
        with works.begin(SYSTEM, quiet=True) as work:
            drained.append(service.sequence_pending(work, limit=10))
    assert drained == [10, 10, 5, 0]
    assert numbers(works) == list(range(25))
    assert findings(works) == []


def test_a_bulk_event_keeps_its_own_actor_and_instant(works, clock):
    at = clock.now()
    with works.begin(ANN) as work:
        service.enqueue_bulk(work, type="t", subject="s", detail={"n": 0})
    clock.set(at.replace(year=2027))
    with works.begin(SYSTEM) as work:
        service.sequence_pending(work)
    (entry,) = bodies(works)
    assert entry.leaf["at"] == "2026-03-02T09:00:00.000Z"
    with works.begin(read_only=True) as work:
        assert queries.reveal(work, entry.leaf["actor"]) == "per_ann"


def test_pending_events_are_no_part_of_the_log_yet(log):
    with log.begin(ANN) as work:
        service.enqueue_bulk(work, type="t", subject="s", detail={"n": 0})
    assert findings(log) == []
    with log.begin(read_only=True) as work:
        assert work.session.execute(select(func.count()).select_from(LogPending)).scalar_one() == 1
        assert queries.log_size(work) == 32


# --- many at once -------------------------------------------------------------------------------


def at_once(*jobs):
    """Run ``jobs`` in threads that start together; raise what any of them raised."""
    barrier = threading.Barrier(len(jobs))

    def run(job):
        barrier.wait(10)
        job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        for future in [pool.submit(run, job) for job in jobs]:
            future.result(60)


def test_eight_writers_make_one_log_without_gap_or_fork(works):
    given = []

    def writer(me):
        for n in range(12):
            if n % 4 == 3:  # a rollback between commits must leave no hole
                give_up(works, lambda work: add(work, -1))
            with works.begin(ANN) as work:
                place = add(work, 100 * me + n)
            given.append((place, 100 * me + n))

    def signer():
        for _ in range(10):
            sign(works)

    at_once(*[lambda me=me: writer(me) for me in range(8)], signer)
    sign(works)
    assert sorted(place for place, _ in given) == list(range(96))
    assert numbers(works) == [n for _, n in sorted(given)]
    assert findings(works) == []
    with works.begin(read_only=True) as work:
        heads = [notes.open_checkpoint(c.note, VKEY) for c in queries.checkpoints(work)]
        for old, new in pairwise(heads):
            proof = queries.consistency(work, old.size, new.size)
            merkle.check_consistency(old.size, old.root, new.size, new.root, proof)
        assert heads[-1].size == 96


def test_two_sequencers_lose_nothing_and_do_not_overtake(works):
    done = threading.Event()

    def writer(me):
        for n in range(30):
            with works.begin(ANN, quiet=True) as work:
                service.enqueue_bulk(work, type="t", subject="s", detail={"n": 100 * me + n})

    def writers():
        try:
            at_once(*[lambda me=me: writer(me) for me in range(3)])
        finally:
            done.set()

    def sequencer():
        while True:
            last = done.is_set()
            with works.begin(SYSTEM, quiet=True) as work:
                drained = service.sequence_pending(work, limit=4)
            if last and not drained:
                return

    at_once(writers, sequencer, sequencer)
    found = numbers(works)
    for me in range(3):
        assert [n for n in found if n // 100 == me] == [100 * me + n for n in range(30)]
    assert len(found) == 90
    assert findings(works) == []


def test_the_check_runs_while_the_log_grows(works):
    fill(works, 20)
    grown = threading.Event()
    seen = []

    def writer():
        try:
            for n in range(60):
                with works.begin(ANN) as work:
                    add(work, n)
                if n % 10 == 0:
                    sign(works)
        finally:
            grown.set()

    def checker():
        while not grown.is_set():
            seen.append(findings(works))

    at_once(writer, checker)
    assert seen
    assert all(found == [] for found in seen)


# --- checkpoints and proofs ---------------------------------------------------------------------


def test_a_checkpoint_states_the_head_and_is_signed_once(works):
    with works.begin(read_only=True) as work:
        assert service.checkpoint_due(work)
        assert queries.latest_checkpoint(work) is None
    empty = notes.open_checkpoint(sign(works), VKEY)
    assert (empty.size, empty.root) == (0, merkle.EMPTY_ROOT)
    fill(works, 3)
    note = sign(works)
    assert sign(works) == note
    with works.begin(read_only=True) as work:
        assert not service.checkpoint_due(work)
        assert queries.latest_checkpoint(work).note == note
        head = notes.open_checkpoint(note, VKEY)
        assert (head.size, head.root) == (3, queries.root_at(work, 3))
        assert [c.size for c in queries.checkpoints(work)] == [0, 3]


def test_every_entry_has_a_proof_that_holds_on_its_own(log):
    with log.begin(read_only=True) as work:
        for idx in range(32):
            proved, hashes, note = notes.parse_proof(queries.prove(work, idx))
            head = notes.open_checkpoint(note, VKEY)
            leaf = merkle.leaf_hash(queries.entry(work, idx).body)
            merkle.check_inclusion(leaf, proved, head.size, hashes, head.root)
            assert proved == idx


def test_what_is_not_there_cannot_be_proved(log):
    with log.begin(ANN) as work:
        add(work, 32)
    with log.begin(read_only=True) as work:
        for idx in (-1, 32, 33):
            with pytest.raises(NotFound):
                queries.prove(work, idx)
        for old, new in ((-1, 3), (4, 3), (3, 34)):
            with pytest.raises(NotFound):
                queries.consistency(work, old, new)
        with pytest.raises(NotFound):
            queries.entry(work, 33)
        assert [e.idx for e in queries.entries(work, start=30, limit=10)] == [30, 31, 32]


def test_nothing_is_signed_that_contradicts_what_was_signed(log):
    """A log restored from before its last checkpoint, or rewritten, gets no new tree head."""
    with log.begin(ANN) as work:
        add(work, 32)
        old = queries.frontier(work)
    rewritten = merkle.Frontier(33, (bytes(32), *old.hashes[1:])).dump()
    for damage in (
        update(LogHead).values(frontier=rewritten),
        update(LogHead).values(size=4, frontier=bytes(32)),
        update(LogCheckpoint).where(LogCheckpoint.size == 32).values(note="no note"),
    ):
        with pytest.raises(Corrupt, match="does not continue"):
            damaged(log, lambda work: service.sign_checkpoint(work, SIGNER), damage)
    gone = delete(LogLeaf).where(LogLeaf.idx == 32)
    with pytest.raises(Corrupt, match="node 0/32 is missing"):
        damaged(log, lambda work: service.sign_checkpoint(work, SIGNER), gone)
    assert notes.open_checkpoint(sign(log), VKEY).size == 33


def test_a_damaged_head_is_reported_and_not_appended_to(log):
    for damage in (delete(LogHead), update(LogHead).values(frontier=b"short")):
        with pytest.raises(Corrupt):
            damaged(log, lambda work: add(work, 32), damage)
    assert findings(log) == []


def test_a_key_of_another_log_is_refused(tmp_path):
    path = tmp_path / "keys" / "log.key"
    first = load_or_create_signer(path, ORIGIN)
    assert load_or_create_signer(path, ORIGIN) == first
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Invalid, match=r"log\.example/two"):
        load_or_create_signer(path, "log.example/two")
    path.write_text("PRIVATE+KEY+nothing\n")
    with pytest.raises(Invalid, match="cannot be used") as refused:
        load_or_create_signer(path, ORIGIN)
    assert "nothing" not in str(refused.value)

"""The log against a real database: no gap, no fork, nothing altered without being found."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise

import pytest
from sqlalchemy import delete, func, insert, select, update

from stagerelease.kernel.actor import SYSTEM
from stagerelease.kernel.errors import Corrupt, Invalid, NotFound
from stagerelease.ledger import fsck, merkle, notes, queries, service
from stagerelease.ledger.signer import LogSigner, load_or_create_signer
from stagerelease.ledger.tables import (
    LogCheckpoint,
    LogCommitment,
    LogDetail,
    LogHead,
    LogLeaf,
    LogNode,
    LogPending,
)

ANN = replace(SYSTEM, id="per_ann")
ORIGIN = "log.example/one"
SKEY, VKEY = notes.generate_key(ORIGIN)
SIGNER = LogSigner(origin=ORIGIN, skey=SKEY, vkey=VKEY)


def add(work, n, **more):
    return service.append(work, type="thing.done", subject=f"thing:{n}", detail={"n": n}, **more)


def fill(works, count):
    for n in range(count):
        with works.begin(ANN) as work:
            add(work, n, private=n % 2 == 0)


def sign(works):
    with works.begin(SYSTEM, quiet=True) as work:
        return service.sign_checkpoint(work, SIGNER)


def findings(works):
    with works.begin(read_only=True) as work:
        return fsck.verify_all(work, vkey=VKEY)


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


@pytest.fixture
def log(works):
    """Thirty-two entries, some of them bulk, with checkpoints at 5, 20 and 32."""
    fill(works, 5)
    sign(works)
    with works.begin(ANN) as work:
        for n in range(5, 20):
            service.enqueue_bulk(work, type="thing.seen", subject=f"thing:{n}", detail={"n": n})
    with works.begin(SYSTEM, quiet=True) as work:
        assert service.sequence_pending(work) == 15
    sign(works)
    with works.begin(ANN) as work:
        for n in range(20, 32):
            add(work, n, prev_state="a", new_state="b", policy_sha256="0" * 64)
    sign(works)
    return works


# --- appending ----------------------------------------------------------------------------------


def test_an_entry_is_there_exactly_if_its_transaction_commits(works):
    with works.begin(ANN) as work:
        assert add(work, 0) == 0
    with pytest.raises(RuntimeError), works.begin(ANN) as work:
        assert add(work, 99) == 1
        raise RuntimeError
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
        assert {k: v for k, v in row.leaf.items() if not fsck.is_sha256(v)} == {
            "v": 1,
            "type": "thing.done",
            "at": "2026-03-02T09:00:00.000Z",
            "prev_state": "draft",
            "new_state": "submitted",
            "nonce": row.leaf["nonce"],
        } | {"v": 1}
        for secret in (b"per_ann", b"thing:7", b'"n"'):
            assert secret not in row.body
        assert queries.reveal(work, row.leaf["actor"]) == "per_ann"
        assert queries.reveal(work, row.leaf["subject"]) == "thing:7"
        assert queries.detail(work, row.leaf["detail_sha256"]) == {"n": 7}


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
    with pytest.raises(RuntimeError), works.begin(ANN) as work:
        service.enqueue_bulk(work, type="t", subject="s", detail={"n": 99})
        raise RuntimeError
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


# --- many at once -------------------------------------------------------------------------------


def at_once(*jobs):
    """Run ``jobs`` in threads that start together; raise what any of them raised."""
    barrier, errors = threading.Barrier(len(jobs)), []

    def run(job):
        try:
            barrier.wait(10)
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


def test_eight_writers_make_one_log_without_gap_or_fork(works):
    given = []

    def writer(me):
        for n in range(12):
            if n % 4 == 3:  # a rollback between commits must leave no hole
                with works.begin(ANN, dry_run=True) as work:
                    add(work, -1)
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
    with pytest.raises(Corrupt, match="does not continue"), log.begin(SYSTEM) as work:
        frontier = queries.frontier(work)
        bent = merkle.Frontier(33, (bytes(32), *frontier.hashes[1:]))
        work.session.execute(update(LogHead).values(frontier=bent.dump()))
        service.sign_checkpoint(work, SIGNER)
    with pytest.raises(Corrupt, match="does not continue"), log.begin(SYSTEM) as work:
        work.session.execute(update(LogHead).values(size=4, frontier=bytes(32)))
        service.sign_checkpoint(work, SIGNER)
    with pytest.raises(Corrupt, match="cannot|missing"), log.begin(SYSTEM) as work:
        work.session.execute(delete(LogNode).where(LogNode.level == 5))
        service.sign_checkpoint(work, SIGNER)
    assert notes.open_checkpoint(sign(log), VKEY).size == 33


def test_a_damaged_head_is_reported_and_not_appended_to(log):
    for damage in (delete(LogHead), update(LogHead).values(frontier=b"short")):
        with pytest.raises(Corrupt), log.begin(ANN) as work:
            work.session.execute(damage)
            add(work, 32)


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


# --- tampering ----------------------------------------------------------------------------------

BINARY = [
    (LogLeaf, LogLeaf.body),
    (LogLeaf, LogLeaf.hash),
    (LogNode, LogNode.hash),
    (LogHead, LogHead.frontier),
    (LogDetail, LogDetail.body),
    (LogCommitment, LogCommitment.salt),
]
TEXT = [
    (LogCheckpoint, LogCheckpoint.note),
    (LogCommitment, LogCommitment.value),
    (LogCommitment, LogCommitment.commitment),
    (LogDetail, LogDetail.sha256),
]
EVERYTHING = BINARY + TEXT


def named(case):
    return f"{case[0].__tablename__}.{case[1].key}"


def cells(work, table, column):
    """Return ``[(which row, value)]`` of a column."""
    keys = list(table.__table__.primary_key.columns)
    rows = work.session.execute(select(column, *keys)).all()
    return [([key == value for key, value in zip(keys, r[1:], strict=True)], r[0]) for r in rows]


def bent(value, at):
    if isinstance(value, str):
        return value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
    return value[:at] + bytes([value[at] ^ 1 << at % 8]) + value[at + 1 :]


def bend(work, table, column, row, value, at):
    work.session.execute(update(table.__table__).where(*row).values({column.key: bent(value, at)}))


def places(found):
    return [finding.where for finding in found]


@pytest.mark.parametrize("case", EVERYTHING, ids=named)
def test_the_same_byte_changed_in_every_row_is_found_in_every_row(log, case):
    """Every byte of every stored value is changed once; each row is judged on its own."""
    table, column = case
    with log.begin(read_only=True) as work:
        stored = cells(work, table, column)
    longest = max(len(value) for _, value in stored)
    for at in range(longest):
        hit = [(row, value) for row, value in stored if at < len(value)]
        with log.begin(SYSTEM, dry_run=True) as work:
            for row, value in hit:
                bend(work, table, column, row, value, at)
            found = places(fsck.verify_all(work, vkey=VKEY))
        if table is LogLeaf:
            assert {f"leaf {n}" for n in range(len(hit))} <= set(found)
        elif table is LogNode:
            assert len([where for where in found if where.startswith("node ")]) == len(hit)
        else:
            assert len(found) == len(hit), (at, found)


@pytest.mark.parametrize("case", EVERYTHING, ids=named)
def test_a_single_changed_byte_is_found_and_named(log, case):
    check_single_bytes(log, case, step=101)


@pytest.mark.e2e
@pytest.mark.parametrize("case", EVERYTHING, ids=named)
def test_each_single_changed_byte_is_found_and_named(log, case):
    """The same, for each byte of 32 entries on its own: some 25,000 checks of the whole log."""
    check_single_bytes(log, case, step=1)


def check_single_bytes(works, case, *, step):
    table, column = case
    with works.begin(read_only=True) as work:
        stored = cells(work, table, column)
    every = [(row, value, at) for row, value in stored for at in range(len(value))]
    for row, value, at in every[::step]:
        with works.begin(SYSTEM, dry_run=True) as work:
            bend(work, table, column, row, value, at)
            found = places(fsck.verify_all(work, vkey=VKEY))
        expected = {
            LogLeaf: "leaf ",
            LogNode: "node ",
            LogHead: "head",
            LogCheckpoint: "checkpoint ",
        }.get(table)
        if expected is None:  # named by its entry, or by itself when no entry names it any more
            expected = (table.__tablename__.removeprefix("log_") + " ", "leaf ")
        assert found, (row, at)
        assert found[0].startswith(expected), (at, found)


DAMAGE = {
    "the last leaf is gone": (delete(LogLeaf).where(LogLeaf.idx == 31), "leaves"),
    "a leaf inside is gone": (delete(LogLeaf).where(LogLeaf.idx == 9), "leaf 9"),
    "every leaf is gone": (delete(LogLeaf), "head"),
    "a leaf too many": (insert(LogLeaf).values(idx=32, body=b"{}", hash=bytes(32)), "leaves"),
    "a leaf before the first": (
        insert(LogLeaf).values(idx=-1, body=b"{}", hash=bytes(32)),
        "leaf 0",
    ),
    "a leaf has moved": (update(LogLeaf).where(LogLeaf.idx == 31).values(idx=77), "head"),
    "a body is a list": (
        update(LogLeaf).where(LogLeaf.idx == 4).values(body=b"[]", hash=merkle.leaf_hash(b"[]")),
        "leaf 4",
    ),
    "a body is deep": (
        update(LogLeaf)
        .where(LogLeaf.idx == 4)
        .values(body=b"[" * 9999, hash=merkle.leaf_hash(b"[" * 9999)),
        "leaf 4",
    ),
    "a body is spaced": (
        update(LogLeaf).where(LogLeaf.idx == 4).values(body=b"{ }", hash=merkle.leaf_hash(b"{ }")),
        "leaf 4",
    ),
    "a node is gone": (delete(LogNode).where(LogNode.level == 3, LogNode.idx == 2), "node 3/2"),
    "a node too many": (insert(LogNode).values(level=9, idx=0, hash=bytes(32)), "nodes"),
    "the head is gone": (delete(LogHead), "head"),
    "a second head": (insert(LogHead).values(id=2, size=0, frontier=b""), "head"),
    "the head is smaller": (update(LogHead).values(size=31), "head"),
    "the head is larger": (update(LogHead).values(size=33), "head"),
    "the head is negative": (update(LogHead).values(size=-1), "head"),
    "the frontier is gone": (update(LogHead).values(frontier=b""), "head"),
    "a checkpoint has moved": (
        update(LogCheckpoint).where(LogCheckpoint.size == 20).values(size=21),
        "checkpoint 21",
    ),
    "a checkpoint is ahead": (
        update(LogCheckpoint).where(LogCheckpoint.size == 20).values(size=99),
        "checkpoint 99",
    ),
    "a checkpoint of another key": (
        update(LogCheckpoint)
        .where(LogCheckpoint.size == 20)
        .values(note=notes.sign(f"{ORIGIN}\n20\n\n", notes.generate_key(ORIGIN)[0])),
        "checkpoint 20",
    ),
    "a checkpoint of another root": (
        update(LogCheckpoint)
        .where(LogCheckpoint.size == 20)
        .values(note=notes.sign(notes.Checkpoint(ORIGIN, 20, bytes(32)).body(), SKEY)),
        "checkpoint 20",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_rows_removed_added_or_replaced_are_found(log, damage):
    statement, where = DAMAGE[damage]
    with log.begin(SYSTEM, dry_run=True) as work:
        work.session.execute(statement.execution_options(synchronize_session=False))
        assert where in places(fsck.verify_all(work, vkey=VKEY))
    assert findings(log) == []


def test_two_swapped_entries_are_found(log):
    with log.begin(SYSTEM, dry_run=True) as work:
        first, second = queries.entry(work, 6), queries.entry(work, 21)
        for idx, entry in ((6, second), (21, first)):
            change = update(LogLeaf).where(LogLeaf.idx == idx)
            work.session.execute(change.values(body=entry.body, hash=entry.hash))
        found = places(fsck.verify_all(work, vkey=VKEY))
    assert {"node 1/3", "node 1/10", "node 5/0", "head", "checkpoint 20"} <= set(found)


def test_a_history_rewritten_in_full_is_found_by_what_was_signed(log):
    """Somebody with the whole database, but not the key, recomputes everything from entry 10."""
    rows = bodies(log)
    with log.begin(SYSTEM) as work:
        for table in (LogLeaf, LogNode):
            work.session.execute(delete(table))
        work.session.execute(update(LogHead).values(size=0, frontier=b""))
        changed = rows[10].body.replace(b"thing.seen", b"thing.sean")
        assert changed != rows[10].body
        service._extend(work, [*[r.body for r in rows[:10]], changed, *[r.body for r in rows[11:]]])
    assert places(findings(log)) == ["checkpoint 20", "checkpoint 32"]


def test_text_that_is_no_text_is_found(log, request):
    if request.config.getoption("--db") == "postgres":
        pytest.skip("PostgreSQL itself refuses to store text that is not UTF-8")
    for table, column in TEXT:
        name, key = table.__tablename__, column.key
        with log.begin(SYSTEM, dry_run=True) as work:
            work.session.connection().exec_driver_sql(
                f"UPDATE {name} SET {key} = CAST(x'ff' || substr({key}, 2) AS TEXT)"
                f" WHERE rowid = (SELECT max(rowid) FROM {name})"
            )
            assert len(fsck.verify_all(work, vkey=VKEY)) == 1


def test_reading_a_damaged_log_says_so(log):
    with log.begin(SYSTEM, dry_run=True) as work:
        work.session.execute(delete(LogNode))
        with pytest.raises(Corrupt, match="node 1/1 is missing"):
            queries.prove(work, 0)
        work.session.execute(update(LogLeaf).where(LogLeaf.idx == 0).values(body=b"\xff"))
        with pytest.raises(Corrupt, match="entry 0 cannot be read"):
            queries.entry(work, 0)
        work.session.execute(delete(LogHead))
        with pytest.raises(Corrupt, match="head"):
            queries.log_size(work)


def test_pending_events_are_no_part_of_the_log_yet(log):
    with log.begin(ANN) as work:
        service.enqueue_bulk(work, type="t", subject="s", detail={"n": 0})
    assert findings(log) == []
    with log.begin(read_only=True) as work:
        assert work.session.execute(select(func.count()).select_from(LogPending)).scalar_one() == 1
        assert queries.log_size(work) == 32

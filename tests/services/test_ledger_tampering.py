"""Whatever is changed in the stored log is found, and named."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from sqlalchemy import delete, insert, select, update

from logbook import ORIGIN, SKEY, VKEY, damaged, findings, make_log
from stagerelease.kernel.actor import SYSTEM
from stagerelease.kernel.errors import Corrupt
from stagerelease.ledger import fsck, merkle, notes, queries, service
from stagerelease.ledger.tables import (
    LogCheckpoint,
    LogCommitment,
    LogDetail,
    LogHead,
    LogLeaf,
    LogNode,
)

# --- tampering ----------------------------------------------------------------------------------


@pytest.fixture
def log(works):
    return make_log(works)


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


@dataclass(frozen=True)
class Cell:
    """One stored value: how to find its row, and what the check must call the row."""

    where: tuple
    owner: str
    value: bytes | str


def cells(works, table, column):
    """Return every stored value of a column."""
    keys = list(table.__table__.primary_key.columns)
    with works.begin(read_only=True) as work:
        rows = work.session.execute(select(column, *keys)).all()
        entries = queries.entries(work, start=0, limit=1000)
    owners = {}
    for entry in entries:
        for name in ("actor", "subject", "detail_sha256"):
            owners[entry.leaf[name]] = f"leaf {entry.idx}"
    made = []
    for value, *key in rows:
        place = {
            LogLeaf: lambda key: f"leaf {key[0]}",
            LogNode: lambda key: f"node {key[0]}/{key[1]}",
            LogHead: lambda key: "head",
            LogCheckpoint: lambda key: f"checkpoint {key[0]}",
        }.get(table, lambda key: owners[key[0]])(key)
        where = tuple(known == part for known, part in zip(keys, key, strict=True))
        made.append(Cell(where, place, value))
    return made


def bend(work, table, column, cell, at):
    """Change one byte of a stored value, and return what the check must then name."""
    value = cell.value
    if isinstance(value, str):
        value = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
    else:
        value = value[:at] + bytes([value[at] ^ 1 << at % 8]) + value[at + 1 :]
    change = update(table.__table__).where(*cell.where).values({column.key: value})
    assert work.session.execute(change).rowcount == 1
    if column in (LogDetail.sha256, LogCommitment.commitment):  # no entry names it any more
        return f"{table.__tablename__.removeprefix('log_')} {value}"
    return cell.owner


def check_every_row_at_once(works, table, column, *, step):
    """Change the same byte of every row; every row must be named, whatever befell the others."""
    stored = cells(works, table, column)
    for at in range(0, max(len(cell.value) for cell in stored), step):
        with works.begin(SYSTEM, dry_run=True) as work:
            expected = {bend(work, table, column, c, at) for c in stored if at < len(c.value)}
            found = {finding.where for finding in fsck.verify_all(work, vkey=VKEY)}
        assert expected <= found, at


def check_one_byte_at_a_time(works, table, column, *, step):
    """Change one byte of one row; that row must be named."""
    every = [(cell, at) for cell in cells(works, table, column) for at in range(len(cell.value))]
    for cell, at in every[::step]:
        with works.begin(SYSTEM, dry_run=True) as work:
            expected = bend(work, table, column, cell, at)
            assert expected in places(fsck.verify_all(work, vkey=VKEY)), at
    return len(every[::step])


def places(found):
    return [finding.where for finding in found]


def test_changed_bytes_are_found_and_named(log):
    """A sample of what the next test does completely."""
    for table, column in EVERYTHING:
        check_every_row_at_once(log, table, column, step=23)
        assert check_one_byte_at_a_time(log, table, column, step=401)
    assert findings(log) == []


@pytest.mark.e2e
@pytest.mark.parametrize("case", EVERYTHING, ids=lambda c: f"{c[0].__tablename__}.{c[1].key}")
def test_each_changed_byte_is_found_and_named(log, case):
    """Each byte of each value is changed once beside its neighbours, every seventh alone too."""
    check_every_row_at_once(log, *case, step=1)
    assert check_one_byte_at_a_time(log, *case, step=7)


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
    "a checkpoint of another root": (
        update(LogCheckpoint)
        .where(LogCheckpoint.size == 20)
        .values(note=notes.sign(notes.Checkpoint(ORIGIN, 20, bytes(32)).body(), SKEY)),
        "checkpoint 20",
    ),
}


def test_rows_removed_added_or_replaced_are_found(log):
    for name, (statement, where) in DAMAGE.items():
        with log.begin(SYSTEM, dry_run=True) as work:
            work.session.execute(statement.execution_options(synchronize_session=False))
            found = places(fsck.verify_all(work, vkey=VKEY))
        assert where in found, (name, found)
    assert findings(log) == []


def test_a_checkpoint_signed_by_another_key_of_the_same_name_is_found(log):
    skey, _ = notes.generate_key(ORIGIN)
    with log.begin(SYSTEM, dry_run=True) as work:
        row = work.session.get(LogCheckpoint, 20)
        row.note = notes.sign(notes.parse_note(row.note).text, skey)
        (found,) = fsck.verify_all(work, vkey=VKEY)
    assert found.where == "checkpoint 20"
    assert "not signed by" in found.sentence


def test_a_signed_checkpoint_with_the_right_root_and_a_wrong_size_is_found(log):
    with log.begin(SYSTEM, dry_run=True) as work:
        row = work.session.get(LogCheckpoint, 20)
        wrong = notes.Checkpoint(ORIGIN, 21, queries.root_at(work, 20))
        row.note = notes.sign(wrong.body(), SKEY)
        assert places(fsck.verify_all(work, vkey=VKEY)) == ["checkpoint 20"]


def test_an_entry_in_another_spelling_is_found_even_under_its_own_hash(log):
    with log.begin(SYSTEM, dry_run=True) as work:
        body = queries.entry(work, 4).body.replace(b",", b", ", 1)
        change = update(LogLeaf).where(LogLeaf.idx == 4)
        work.session.execute(change.values(body=body, hash=merkle.leaf_hash(body)))
        found = fsck.verify_all(work, vkey=VKEY)
    assert fsck.Finding("leaf 4", "its body is not canonical JSON") in found


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
    with log.begin(read_only=True) as work:
        rows = queries.entries(work, start=0, limit=100)
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
    bad = update(LogLeaf).where(LogLeaf.idx == 0).values(body=b"\xff")
    for damage, read, sentence in (
        (delete(LogNode), lambda work: queries.prove(work, 0), "node 1/1 is missing"),
        (bad, lambda work: queries.entry(work, 0), "entry 0 cannot be read"),
        (delete(LogHead), queries.log_size, "head of the log is missing"),
    ):
        with pytest.raises(Corrupt, match=sentence):
            damaged(log, read, damage)

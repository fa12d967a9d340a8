"""fsck: any flipped byte is found, what is referred to stays, leftovers go and only leftovers."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from make_catalog import REPO, head_of, make_actor, make_checkpoint, make_repo, stored
from stagerelease.catalog import queries
from stagerelease.catalog.fsck import FsckReport, check
from stagerelease.catalog.importer import import_directory
from stagerelease.catalog.stored import note_blobs
from stagerelease.catalog.tables import Revision, RevisionFile
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.clock import SetClock
from stagerelease.kernel.digests import sha256_hex
from stagerelease.kernel.errors import Forbidden, Unavailable

NOW = timedelta(0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def files(works, blobs, checkpoint) -> dict[str, queries.FileRow]:
    make_repo(works)
    row = import_directory(
        works, blobs, OPERATOR, directory=checkpoint, repo_id=REPO, message="first"
    )
    with works.begin(OPERATOR, read_only=True) as work:
        return {f.path: f for f in queries.files(work, row.id)}


def codes(report: FsckReport) -> list[tuple[str, str]]:
    return [(f.code, f.subject) for f in report.findings]


def put(blobs, content: bytes) -> str:
    with blobs.writer() as writer:
        writer.write(content)
        return writer.commit().sha256


def test_a_whole_store_verifies_and_says_when(works, blobs, files, clock):
    clock.move(timedelta(days=1))
    steps = []
    report = check(works, blobs, progress=lambda *step: steps.append(step))
    assert report.ok
    assert (report.blobs, report.revisions) == (len({f.sha256 for f in files.values()}), 1)
    assert report.bytes == steps[-1][0] == steps[-1][1] == sum(f.size for f in files.values())
    with works.begin(OPERATOR, read_only=True) as work:
        known = queries.find_blobs(work, [f.sha256 for f in files.values()])
    assert {row.verified_at for row in known.values()} == {clock.now()}


def test_any_flipped_byte_is_found_and_the_file_stays(works, blobs, files):
    file = files["model.safetensors"]
    path = blobs.locate(file.sha256).path
    whole = path.read_bytes()
    dice = random.Random(1)
    for position in [0, 7, len(whole) - 1, *(dice.randrange(len(whole)) for _ in range(20))]:
        spoiled = bytearray(whole)
        spoiled[position] ^= 1 << dice.randrange(8)
        path.chmod(0o600)
        path.write_bytes(spoiled)
        report = check(works, blobs, repair=True, grace=NOW)
        assert codes(report) == [("blob.corrupt", file.sha256)]
        assert path.read_bytes() == spoiled
        with works.begin(OPERATOR, read_only=True) as work:
            assert queries.find_blob(work, file.sha256).corrupt_at is not None
    path.write_bytes(whole)
    assert check(works, blobs).ok
    with works.begin(OPERATOR, read_only=True) as work:
        assert queries.find_blob(work, file.sha256).corrupt_at is None


def test_a_file_cut_short_and_a_file_gone_are_found(works, blobs, files):
    short, gone = files["config.json"], files["vocab.json"]
    path = blobs.locate(short.sha256).path
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    blobs.locate(gone.sha256).path.unlink()
    report = check(works, blobs, repair=True, grace=NOW)
    assert sorted(codes(report)) == [("blob.missing", gone.sha256), ("blob.size", short.sha256)]


def test_importing_the_same_files_again_heals(works, blobs, files, checkpoint):
    bad, gone = files["model.safetensors"], files["vocab.json"]
    path = blobs.locate(bad.sha256).path
    path.chmod(0o600)
    path.write_bytes(b"\x00" * bad.size)
    blobs.locate(gone.sha256).path.unlink()
    assert not check(works, blobs).ok
    said: list[str] = []
    row = import_directory(
        works,
        blobs,
        OPERATOR,
        directory=checkpoint,
        repo_id=REPO,
        message="again",
        note=said.append,
    )
    assert row.id == head_of(works)
    assert any("model.safetensors" in sentence for sentence in said)
    assert check(works, blobs).ok


def test_bytes_without_a_row_go_only_after_their_grace(works, blobs, files):
    orphan = put(blobs, b"nobody refers to this")
    assert check(works, blobs, repair=True).orphans == []
    assert orphan in stored(blobs)
    assert check(works, blobs, grace=NOW).orphans == [orphan]
    assert orphan in stored(blobs)  # without repair, nothing is done
    later = SetClock(datetime.now(UTC) + timedelta(hours=2))
    report = check(works, blobs, repair=True, file_clock=later)
    assert report.orphans == [orphan]
    assert report.cleared == 1
    assert set(stored(blobs)) == {f.sha256 for f in files.values()}
    assert check(works, blobs).ok


def test_rows_without_a_revision_go_with_their_bytes_only_after_their_grace(
    works, blobs, files, clock
):
    loose = put(blobs, b"uploaded, never committed")
    with works.begin(OPERATOR) as work:
        note_blobs(work, {loose: 25}, blobs=blobs)
    clock.move(timedelta(minutes=59))
    assert check(works, blobs, repair=True).unreferenced == []
    clock.move(timedelta(minutes=2))
    report = check(works, blobs, repair=True)
    assert (report.unreferenced, report.cleared) == ([loose], 1)
    assert loose not in stored(blobs)
    with works.begin(OPERATOR, read_only=True) as work:
        assert queries.find_blob(work, loose) is None


def test_partials_of_dead_writers_go_and_a_living_writers_stays(works, blobs, files):
    (blobs.root / "partial" / "dead").write_bytes(b"half")
    with blobs.writer() as writer:
        writer.write(b"alive")
        report = check(works, blobs, repair=True, grace=NOW)
        assert report.partials == 2
        assert report.cleared == 1
        kept = writer.commit()
    assert kept.sha256 == sha256_hex(b"alive")


def test_an_import_whose_bytes_were_cleared_meanwhile_fails_whole(works, blobs, checkpoint):
    make_repo(works)

    def meddle(done: int, total: int, path: str) -> None:
        if path == "vocab.json":  # by now the earlier files are stored and have no row
            check(works, blobs, repair=True, grace=NOW)

    arguments = {"directory": checkpoint, "repo_id": REPO, "message": "first"}
    with pytest.raises(Unavailable) as refused:
        import_directory(works, blobs, OPERATOR, progress=meddle, **arguments)
    assert refused.value.reason == "blob.missing"
    assert head_of(works) is None
    assert import_directory(works, blobs, OPERATOR, **arguments).id == head_of(works)
    assert check(works, blobs).ok


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        (update(Revision).values(message="another"), "revision.id"),
        (update(Revision).values(manifest_sha256="0" * 64), "revision.manifest"),
        (update(Revision).values(total_bytes=1), "revision.size"),
        (
            update(RevisionFile).where(RevisionFile.path == "vocab.json").values(path="v.json"),
            "revision.manifest",
        ),
        (
            update(RevisionFile).where(RevisionFile.path == "vocab.json").values(size=1),
            "revision.size",
        ),
        (
            update(RevisionFile).where(RevisionFile.path == "vocab.json").values(git_oid="0" * 40),
            "file.git-oid",
        ),
        (
            update(RevisionFile)
            .where(RevisionFile.path == "model.safetensors")
            .values(git_oid="0" * 40),
            "file.git-oid",
        ),
    ],
)
def test_a_changed_record_is_found(works, blobs, files, statement, code):
    with works.begin(OPERATOR) as work:
        work.session.execute(statement)
    assert code in [found for found, _ in codes(check(works, blobs))]


def test_an_auditor_may_check_and_may_not_repair(works, blobs, files):
    auditor = make_actor(works, handle="aud", role="auditor")
    assert check(works, blobs, actor=auditor).ok
    with pytest.raises(Forbidden):
        check(works, blobs, repair=True, actor=auditor)

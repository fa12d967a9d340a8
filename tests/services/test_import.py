"""Importing a directory: what becomes of it, what is refused before anything is stored, races."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from make_catalog import (
    REPO,
    TINY,
    TINY_PARAMETERS,
    head_of,
    make_actor,
    make_checkpoint,
    make_repo,
    stored,
)
from stagerelease.catalog import queries
from stagerelease.catalog.importer import import_directory
from stagerelease.catalog.rules import kind_of
from stagerelease.catalog.tables import Revision
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.digests import git_blob_sha1, lfs_pointer
from stagerelease.kernel.errors import Conflict, DomainError, Forbidden, Unavailable
from stagerelease.ledger import queries as ledger


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def directory(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(checkpoint, tmp_path / "tiny"))


@pytest.fixture
def importing(works, blobs):
    make_repo(works)

    def run(directory: Path, actor=OPERATOR, **more):
        more = {"repo_id": REPO, "message": "first", **more}
        return import_directory(works, blobs, actor, directory=directory, **more)

    return run


def test_a_checkpoint_becomes_a_revision(works, blobs, importing, checkpoint):
    seen = []
    row = importing(checkpoint, progress=lambda *step: seen.append(step))
    assert row.parameters == TINY_PARAMETERS
    assert head_of(works) == row.id
    on_disk = {p.name: p.read_bytes() for p in checkpoint.iterdir()}
    with works.begin(OPERATOR, read_only=True) as work:
        files = {f.path: f for f in queries.files(work, row.id)}
    assert set(files) == set(on_disk)
    for path, content in on_disk.items():
        file = files[path]
        assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        assert file.lfs == path.endswith(".safetensors")
        git = lfs_pointer(file.sha256, file.size) if file.lfs else content
        assert file.git_oid == git_blob_sha1(git)
        assert file.kind == kind_of(path)
        with blobs.open(file.sha256) as reader:
            assert reader.read() == content
    total = sum(map(len, on_disk.values()))
    assert row.total_bytes == total
    assert seen[-1][:2] == (total, total)
    assert [s[0] for s in seen] == sorted(s[0] for s in seen)


def test_an_import_is_logged_once(works, importing, checkpoint):
    def size() -> int:
        with works.begin(OPERATOR, read_only=True) as work:
            return ledger.log_size(work)

    before = size()
    importing(checkpoint)
    assert size() == before + 1


def test_the_same_directory_again_changes_nothing_and_says_so(works, blobs, importing, checkpoint):
    row = importing(checkpoint)
    before, said = stored(blobs), []
    assert importing(checkpoint, message="again", note=said.append) == row
    assert stored(blobs) == before
    assert row.id[:8] in said[0]


def test_a_changed_directory_is_a_new_revision_that_shares_what_is_equal(
    works, blobs, importing, directory
):
    first = importing(directory)
    before = stored(blobs)
    (directory / "README.md").write_text("another card\n")
    second = importing(directory, message="second")
    assert second.parent_id == first.id
    assert head_of(works) == second.id
    assert len(stored(blobs)) == len(before) + 1


def test_an_output_dataset_is_of_that_kind_in_every_file(works, importing, tmp_path):
    samples = tmp_path / "samples"
    samples.mkdir()
    (samples / "README.md").write_text("Samples at temperature 1.\n")
    (samples / "small-117M.test.jsonl").write_text('{"text": "once"}\n')
    row = importing(samples, kind="output_dataset")
    assert row.parameters is None
    with works.begin(OPERATOR, read_only=True) as work:
        assert queries.kinds(work, row.id) == {"output_dataset"}


def test_a_detector_need_not_be_the_variant(works, blobs, checkpoint):
    make_repo(works, parameters=124_439_808)
    arguments = {"directory": checkpoint, "repo_id": REPO, "message": "x"}
    row = import_directory(works, blobs, OPERATOR, kind="detector", **arguments)
    assert row.parameters is None


def test_another_count_than_the_variants_is_refused_with_both_numbers(works, blobs, checkpoint):
    make_repo(works, parameters=124_439_808)
    with pytest.raises(DomainError) as refused:
        import_directory(
            works, blobs, OPERATOR, directory=checkpoint, repo_id=REPO, message="wrong size"
        )
    assert "124,439,808" in refused.value.sentence
    assert f"{TINY_PARAMETERS:,}" in refused.value.sentence
    assert stored(blobs) == {}


def test_left_over_tool_directories_are_skipped_and_named(works, importing, directory):
    (directory / ".git").mkdir()
    (directory / ".git" / "config").write_text("[core]\n")
    (directory / ".cache").mkdir()
    (directory / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    said: list[str] = []
    row = importing(directory, note=said.append)
    with works.begin(OPERATOR, read_only=True) as work:
        assert not any(f.path.startswith(".") for f in queries.files(work, row.id))
    assert len(said) == 3


def spoil_link_out(directory: Path) -> None:
    (directory / "passwd.txt").symlink_to("/etc/passwd")


def spoil_link_in(directory: Path) -> None:
    (directory / "copy.md").symlink_to("README.md")


def spoil_link_directory(directory: Path) -> None:
    (directory / "etc").symlink_to("/etc")


def spoil_weights_link(directory: Path) -> None:
    target = directory.parent / "elsewhere.safetensors"
    shutil.move(directory / "model.safetensors", target)
    (directory / "model.safetensors").symlink_to(target)


def spoil_fifo(directory: Path) -> None:
    os.mkfifo(directory / "pipe.txt")


def spoil_socket(directory: Path) -> None:
    here = os.getcwd()
    os.chdir(directory)  # a socket's name has at most 108 bytes
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("s.txt")
    os.chdir(here)


def a_file(name: str, content: bytes = b"x"):
    def spoil(directory: Path) -> None:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return spoil


def spoil_case(directory: Path) -> None:
    (directory / "CONFIG.json").write_text("{}")


def spoil_deep(directory: Path) -> None:
    a_file("/".join(["d" * 50] * 8) + "/f")(directory)


def spoil_empty(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


def spoil_config(directory: Path) -> None:
    (directory / "config.json").write_text(json.dumps({**TINY, "n_layer": 2}))


def spoil_trailing(directory: Path) -> None:
    with (directory / "model.safetensors").open("ab") as out:
        out.write(b"more")


TAR = b"\x00" * 257 + b"ustar\x0000" + b"\x00" * 300
SPOILERS = {
    "a link that escapes": (spoil_link_out, "file.link"),
    "a link that stays inside": (spoil_link_in, "file.link"),
    "a linked directory": (spoil_link_directory, "file.link"),
    "linked weights": (spoil_weights_link, "file.link"),
    "a pipe": (spoil_fifo, "file.special"),
    "a socket": (spoil_socket, "file.special"),
    "a hidden file": (a_file(".env"), "path.hidden"),
    "a hidden directory": (a_file("data/.ssh/id"), "path.hidden"),
    "git further down": (a_file("sub/.git/config"), "path.hidden"),
    "a line break in a name": (a_file("a\r\nSet-Cookie: x"), "path.characters"),
    "a space in a name": (a_file("a b.txt"), "path.characters"),
    "an option as a name": (a_file("-rf"), "path.characters"),
    "a quote in a name": (a_file('a".txt'), "path.characters"),
    "a backslash in a name": (a_file("..\\x"), "path.traversal|path.characters"),
    "a letter beyond ASCII": (a_file("modèl.txt"), "path.characters"),
    "bytes that are no text": (a_file(os.fsdecode(b"\xff.txt")), "path.characters"),
    "a name that is too long": (spoil_deep, "path.length"),
    "names that differ in case": (spoil_case, "path.collision"),
    "nothing at all": (spoil_empty, "files.none"),
    "a pickle by name": (a_file("pytorch_model.bin"), "file.pickle"),
    "a pickle by name, in capitals": (a_file("M.PT"), "file.pickle"),
    "a pickle by content": (a_file("notes.txt", b"\x80\x02}q\x00."), "file.pickle"),
    "an old pickle by content": (
        a_file("notes.txt", b"cos\nsystem\n(S'true'\ntR."),
        "file.pickle",
    ),
    "a PyTorch archive by content": (a_file("weights.dat", b"PK\x03\x04rest"), "file.archive"),
    "an archive by name": (a_file("all.tar.gz"), "file.archive"),
    "gzip by content": (a_file("data.txt", b"\x1f\x8b\x08rest"), "file.archive"),
    "a tar by content": (a_file("data.dat", TAR), "file.archive"),
    "7-Zip by content": (a_file("data.dat", b"7z\xbc\xaf\x27\x1c"), "file.archive"),
    "GGUF by name": (a_file("model.gguf"), "file.container"),
    "GGUF by content": (a_file("model.dat", b"GGUF\x03"), "file.container"),
    "HDF5 by name": (a_file("tf_model.h5"), "file.container"),
    "a NumPy archive by name": (a_file("w.npz"), "file.container"),
    "a program": (a_file("run", b"\x7fELF\x02"), "file.container"),
    "NUL in text": (a_file("notes.md", b"a\x00b"), "file.binary"),
    "a config of another model": (spoil_config, "weights.missing"),
    "bytes after the last tensor": (spoil_trailing, "weights.trailing-bytes"),
    "weights that are a pickle": (
        a_file("model.safetensors", b"\x80\x02}q\x00." + b"\x00" * 64),
        "weights.header-too-large|weights.truncated",
    ),
    "weights in capitals": (a_file("MODEL-2.SafeTensors"), "path.characters"),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_one_bad_file_refuses_the_whole_and_nothing_is_stored(
    works, blobs, importing, directory, name
):
    spoil, reasons = SPOILERS[name]
    spoil(directory)
    with pytest.raises(DomainError) as refused:
        importing(directory)
    assert refused.value.reason in reasons.split("|"), refused.value.sentence
    assert stored(blobs) == {}
    assert head_of(works) is None
    with works.begin(OPERATOR, read_only=True) as work:
        assert queries.list_revisions(work, queries.load_variant(work, REPO).id) == []


def test_too_many_files_are_refused(works, blobs, importing, directory):
    for n in range(101):
        (directory / f"d{n}").mkdir()
        for m in range(100):
            (directory / f"d{n}" / f"{m}").touch()
    with pytest.raises(DomainError) as refused:
        importing(directory)
    assert refused.value.reason == "files.too-many"
    assert stored(blobs) == {}


def test_a_file_that_changes_while_it_is_read_is_refused(works, blobs, importing, directory):
    def meddle(done: int, total: int, path: str) -> None:
        if path == "model.safetensors":
            os.utime(directory / path)

    with pytest.raises(Conflict) as refused:
        importing(directory, progress=meddle)
    assert refused.value.reason == "file.changed"
    assert head_of(works) is None


def test_a_file_that_becomes_a_link_after_the_look_is_refused(works, importing, directory):
    def meddle(done: int, total: int, path: str) -> None:
        victim = directory / "vocab.json"
        if not victim.is_symlink():
            victim.unlink()
            victim.symlink_to("/etc/passwd")

    with pytest.raises(Conflict) as refused:
        importing(directory, progress=meddle)
    assert refused.value.reason == "file.changed"
    assert head_of(works) is None


def test_a_full_disk_is_refused_before_anything_is_copied(works, blobs, importing, checkpoint):
    with pytest.raises(Unavailable) as refused:
        importing(checkpoint, room=lambda: 1_000_000)
    assert refused.value.reason == "storage.full"
    assert stored(blobs) == {}
    assert importing(checkpoint, room=lambda: 10_000_000_000).id == head_of(works)


def test_who_may_not_write_may_not_import(works, blobs, importing, checkpoint):
    auditor = make_actor(works, handle="aud", role="auditor")
    with pytest.raises(Forbidden):
        importing(checkpoint, actor=auditor)
    assert stored(blobs) == {}


def test_the_importer_is_on_record(works, importing, checkpoint):
    manager = make_actor(works)
    row = importing(checkpoint, actor=manager)
    with works.begin(OPERATOR, read_only=True) as work:
        assert work.session.get_one(Revision, row.id).author_id == manager.id


def test_imports_at_once_make_one_revision_and_one_copy_of_each_blob(
    works, blobs, importing, checkpoint
):
    barrier = threading.Barrier(6)
    rows, errors = [], []

    def run() -> None:
        barrier.wait()
        try:
            rows.append(importing(checkpoint))
        except DomainError as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len({row.id for row in rows}) == 1
    contents = {hashlib.sha256(p.read_bytes()).hexdigest() for p in checkpoint.iterdir()}
    assert set(stored(blobs)) == contents
    with works.begin(OPERATOR, read_only=True) as work:
        variant = queries.load_variant(work, REPO)
        assert len(queries.list_revisions(work, variant.id)) == 1


def test_different_imports_at_once_line_up(works, blobs, importing, tmp_path):
    directories = [make_checkpoint(tmp_path / str(n), seed=n) for n in range(4)]
    threads = [
        threading.Thread(target=importing, args=(d,), kwargs={"message": d.name})
        for d in directories
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with works.begin(OPERATOR, read_only=True) as work:
        line = queries.lineage(work, str(head_of(works)))
    assert len(line) == 4


def test_shards_are_counted_together(works, importing, tmp_path):
    whole = make_checkpoint(tmp_path / "whole")
    tensors = load_file(whole / "model.safetensors")
    names = sorted(tensors)
    half = len(names) // 2
    for number, part in enumerate((names[:half], names[half:]), 1):
        save_file({n: tensors[n] for n in part}, whole / f"model-0000{number}-of-00002.safetensors")
    (whole / "model.safetensors").unlink()
    assert importing(whole).parameters == TINY_PARAMETERS

"""Families, variants, aliases, refs, revisions: what is recorded, and what is refused."""

from __future__ import annotations

import hashlib
import subprocess
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from make_catalog import REPO, make_actor, make_repo
from stagerelease.catalog import queries, service, views
from stagerelease.catalog.rules import (
    NewFile,
    check_paths,
    check_ref,
    check_repo_id,
    is_lfs,
    kind_of,
    manifest_sha256,
    revision_id,
)
from stagerelease.kernel.actor import OPERATOR
from stagerelease.kernel.digests import git_blob_sha1, lfs_pointer
from stagerelease.kernel.errors import Conflict, Forbidden, Invalid, NotFound, Stale, Unavailable

GPT2 = {
    "openai/gpt2-124M": (124_439_808, ["117M", "gpt2", "openai-community/gpt2", "small"]),
    "openai/gpt2-335M": (
        354_823_168,
        ["345M", "355M", "gpt2-medium", "medium", "openai-community/gpt2-medium"],
    ),
    "openai/gpt2-774M": (
        774_030_080,
        ["762M", "gpt2-large", "large", "openai-community/gpt2-large"],
    ),
    "openai/gpt2-1.5B": (
        1_557_611_200,
        ["1542M", "1558M", "gpt2-xl", "openai-community/gpt2-xl", "xl"],
    ),
}


def a_file(path: str = "README.md", content: bytes = b"hello") -> NewFile:
    sha256 = hashlib.sha256(content).hexdigest()
    return NewFile(path, len(content), sha256, git_blob_sha1(content), False, kind_of(path))


def record(works, variant, *files, parent=None, ref="main", message="one", **more):
    with works.begin(OPERATOR) as work:
        return service.record_revision(
            work,
            variant_id=variant.id,
            files=files or [a_file()],
            message=message,
            parent_id=parent,
            ref=ref,
            parameters=None,
            **more,
        )


def test_the_shipped_family_has_the_four_published_variants(works):
    for _ in range(2):  # twice: the second time changes nothing
        with works.begin(OPERATOR) as work:
            service.seed_gpt2(work)
    with works.begin(OPERATOR, read_only=True) as work:
        rows = queries.list_variants(work)
        assert [r.repo_id for r in rows] == list(GPT2)
        for row in rows:
            parameters, aliases = GPT2[row.repo_id]
            assert row.parameters == parameters
            assert sorted(queries.list_aliases(work, row.id)) == aliases
            assert queries.find_variant(work, row.repo_id) == (row, False)
            for alias in aliases:
                assert queries.find_variant(work, alias) == (row, True)
            shape = queries.architecture_of(work, row.id)
            d, layers = shape["n_embd"], shape["n_layer"]
            counted = (shape["vocab_size"] + shape["n_positions"]) * d
            assert counted + layers * (12 * d * d + 13 * d) + 2 * d == parameters


def test_an_alias_cannot_be_taken_from_another_variant(works):
    make_repo(works)
    with works.begin(OPERATOR) as work:
        service.ensure_variant(work, family_id="acme", label="b", repo_id="acme/b", aliases=["bee"])
    for taken in (
        {"repo_id": "bee/x", "aliases": ["bee"]},
        {"repo_id": "acme/c", "aliases": [REPO]},
    ):
        with pytest.raises(Conflict) as refused, works.begin(OPERATOR) as work:
            service.ensure_variant(work, family_id="acme", label="c", **taken)
        assert refused.value.reason == "repo.taken"


def test_a_revision_is_named_by_everything_it_commits_to(works, clock):
    variant = make_repo(works)
    files = [a_file("b.txt", b"b"), a_file("a.txt", b"a")]
    row = record(works, variant, *files)
    assert row.manifest_sha256 == manifest_sha256(list(reversed(files)))
    same = {
        "variant_id": variant.id,
        "parent_id": None,
        "message": "one",
        "created_at": clock.now(),
        "manifest": row.manifest_sha256,
    }
    assert row.id == revision_id(**same)
    others = [
        {"variant_id": "var_x"},
        {"parent_id": row.id},
        {"message": "two"},
        {"created_at": clock.now() + timedelta(milliseconds=1)},
        {"manifest": "0" * 64},
    ]
    assert len({revision_id(**{**same, **other}) for other in others} | {row.id}) == 6
    with works.begin(OPERATOR, read_only=True) as work:
        assert [f.path for f in queries.files(work, row.id)] == ["a.txt", "b.txt"]
        assert queries.find_file(work, row.id, "a.txt").size == 1
        assert queries.find_file(work, row.id, "c.txt") is None
        assert queries.kinds(work, row.id) == {"code"}
        assert row.total_bytes == 2


def test_git_ids_are_those_git_itself_gives(tmp_path):
    for content in (b"", b"hello\n", bytes(range(256))):
        said = subprocess.run(
            ["git", "hash-object", "--stdin"], input=content, capture_output=True, check=True
        )
        assert git_blob_sha1(content) == said.stdout.decode().strip()
    pointer = lfs_pointer("a" * 64, 12345)
    said = subprocess.run(
        ["git", "hash-object", "--stdin"], input=pointer, capture_output=True, check=True
    )
    assert git_blob_sha1(pointer) == said.stdout.decode().strip()


def test_revisions_line_up_and_resolve_by_every_spelling(works, clock):
    variant = make_repo(works)
    rows = []
    for n in range(4):
        clock.move(timedelta(seconds=1))
        parent = rows[-1].id if rows else None
        rows.append(record(works, variant, a_file("a", bytes([n])), parent=parent, message=str(n)))
    with works.begin(OPERATOR) as work:
        service.create_ref(work, variant_id=variant.id, name="v1", revision_id=rows[1].id)
        service.create_ref(
            work, variant_id=variant.id, name="dev/x", revision_id=rows[2].id, kind="branch"
        )
    with works.begin(OPERATOR, read_only=True) as work:
        line = queries.lineage(work, rows[3].id)
        assert [r.id for r in line] == [r.id for r in reversed(rows)]
        assert len(queries.lineage(work, rows[3].id, limit=2)) == 2
        wanted = {
            "main": rows[3],
            "refs/heads/main": rows[3],
            "v1": rows[1],
            "refs/tags/v1": rows[1],
            "dev/x": rows[2],
            rows[0].id: rows[0],
            rows[0].id[:12]: rows[0],
        }
        for spelling, row in wanted.items():
            assert queries.resolve_rev(work, variant.id, spelling) == row.id, spelling
        for unknown in ("nope", rows[0].id[:6], "0" * 40, rows[0].id[:39] + "x", "%", ""):
            assert queries.resolve_rev(work, variant.id, unknown) is None, unknown
        assert queries.is_branch(work, variant.id, "main")
        assert queries.is_branch(work, variant.id, "refs/heads/dev/x")
        assert not queries.is_branch(work, variant.id, "v1")
        assert not queries.is_branch(work, variant.id, rows[0].id)
        assert {(r.name, r.kind) for r in queries.list_refs(work, variant.id)} == {
            ("main", "branch"),
            ("v1", "tag"),
            ("dev/x", "branch"),
        }


def test_a_revision_of_another_repository_is_not_found_in_this_one(works):
    mine = make_repo(works)
    other = make_repo(works, repo_id="acme/other")
    row = record(works, other)
    with works.begin(OPERATOR, read_only=True) as work:
        assert queries.resolve_rev(work, mine.id, row.id) is None
    with pytest.raises(NotFound), works.begin(OPERATOR) as work:
        service.create_ref(work, variant_id=mine.id, name="v1", revision_id=row.id)
    with pytest.raises(NotFound):
        record(works, mine, parent=row.id)


def test_a_branch_moves_only_from_where_the_caller_saw_it(works):
    variant = make_repo(works)
    first = record(works, variant)
    for parent in (None, "0" * 40):
        with pytest.raises(Stale):
            record(works, variant, parent=parent, message="two")
    second = record(works, variant, parent=first.id, message="two")
    with pytest.raises(Stale), works.begin(OPERATOR) as work:
        service.move_ref(
            work, variant_id=variant.id, name="main", revision_id=first.id, seen=first.id
        )
    with works.begin(OPERATOR) as work:
        service.move_ref(
            work, variant_id=variant.id, name="main", revision_id=first.id, seen=second.id
        )
    with works.begin(OPERATOR, read_only=True) as work:
        assert queries.find_ref(work, variant.id, "main") == first.id


def test_tags_do_not_move_and_main_is_not_removed(works):
    variant = make_repo(works)
    row = record(works, variant)
    with works.begin(OPERATOR) as work:
        service.create_ref(work, variant_id=variant.id, name="v1", revision_id=row.id)
    with pytest.raises(Conflict, match="tag"):
        record(works, variant, parent=row.id, ref="v1", message="two")
    with pytest.raises(Conflict), works.begin(OPERATOR) as work:
        service.create_ref(work, variant_id=variant.id, name="v1", revision_id=row.id)
    with pytest.raises(Conflict), works.begin(OPERATOR) as work:
        service.delete_ref(work, variant_id=variant.id, name="main", kind="branch")
    with works.begin(OPERATOR) as work:
        service.delete_ref(work, variant_id=variant.id, name="v1", kind="tag")
    with works.begin(OPERATOR, read_only=True) as work:
        assert queries.find_ref(work, variant.id, "v1") is None


def test_bytes_that_are_not_in_the_store_make_no_revision(works, blobs):
    variant = make_repo(works)
    with pytest.raises(Unavailable) as refused:
        record(works, variant, blobs=blobs)
    assert refused.value.reason == "blob.missing"
    with works.begin(OPERATOR, read_only=True) as work:
        assert queries.list_revisions(work, variant.id) == []
        assert queries.find_blob(work, a_file().sha256) is None
    with blobs.writer() as writer:
        writer.write(b"hello")
        writer.commit()
    assert record(works, variant, blobs=blobs).total_bytes == 5


def test_one_digest_has_one_size(works):
    variant = make_repo(works)
    row = record(works, variant)
    lie = NewFile("b", 6, a_file().sha256, "0" * 40, False, "code")
    with pytest.raises(Invalid) as refused:
        record(works, variant, lie, parent=row.id, message="two")
    assert refused.value.reason == "blob.size"


def test_a_reviewer_reads_the_catalog_and_does_not_write_it(works):
    reviewer = make_actor(works, handle="rev", role="reviewer")
    variant = make_repo(works)
    record(works, variant)
    with works.begin(reviewer, read_only=True) as work:
        assert [r.repo_id for r in views.list_repos(work)] == [REPO]
        assert views.load_view(work, REPO).files[0].path == "README.md"
    for act in (
        lambda work: service.ensure_family(work, family_id="x", name="x"),
        lambda work: service.create_ref(
            work, variant_id=variant.id, name="v1", revision_id="0" * 40
        ),
        lambda work: service.record_revision(
            work, variant_id=variant.id, files=[], message="", parent_id=None, parameters=None
        ),
    ):
        with pytest.raises(Forbidden), works.begin(reviewer) as work:
            act(work)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("model.safetensors", "weights"),
        ("model-00001-of-00002.safetensors", "weights"),
        ("model.safetensors.index.json", "weights"),
        ("config.json", "weights"),
        ("generation_config.json", "weights"),
        ("tokenizer.json", "tokenizer"),
        ("tokenizer_config.json", "tokenizer"),
        ("vocab.json", "tokenizer"),
        ("merges.txt", "tokenizer"),
        ("special_tokens_map.json", "tokenizer"),
        ("added_tokens.json", "tokenizer"),
        ("README.md", "model_card"),
        ("LICENSE", "model_card"),
        ("LICENSE.txt", "model_card"),
        ("train.py", "code"),
        ("data/samples.jsonl", "code"),
        ("readme.md", "code"),
    ],
)
def test_a_files_name_says_what_governs_it(path, kind):
    assert kind_of(path) == kind


def test_large_and_binary_weights_are_lfs():
    assert is_lfs("model.safetensors", 1)
    assert is_lfs("samples.jsonl", 10_000_001)
    assert not is_lfs("vocab.json", 10_000_000)


@given(st.text(max_size=30))
def test_a_path_that_passes_stays_below_any_directory(path):
    try:
        check_paths([path])
    except Invalid:
        return
    parts = path.split("/")
    assert all(p and not p.startswith((".", "-")) for p in parts)
    assert path.isascii()
    assert "\\" not in path
    assert path.isprintable()


@pytest.mark.parametrize(
    "paths",
    [["a", "a"], ["a", "A"], ["a/b", "A/c"], ["a", "a/b"], ["a/b", "a"], ["x/y/z", "x/Y/w"], []],
)
def test_colliding_paths_are_refused(paths):
    with pytest.raises(Invalid):
        check_paths(paths)


@pytest.mark.parametrize("name", ["main", "v1.0", "release/stage-1", "a_b"])
def test_good_ref_names(name):
    assert check_ref(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-a",
        ".a",
        "a..b",
        "a//b",
        "a/",
        "a.lock",
        "f" * 40,
        "a b",
        "a\n",
        "refs/heads/x",
        "a/.b",
    ],
)
def test_bad_ref_names(name):
    with pytest.raises(Invalid):
        check_ref(name)


@pytest.mark.parametrize(
    "repo", ["a", "/a", "a/", "a/b/c", "../a", "a/..", "a/b--c", "a/b.git", "a b/c"]
)
def test_bad_repo_ids(repo):
    with pytest.raises(Invalid):
        check_repo_id(repo)

"""Model cards that are final, and signatures over manifests made with the real tool, offline."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from make_catalog import REPO, head_of, make_actor, make_checkpoint, make_repo
from stagerelease.catalog import cards, queries, signatures
from stagerelease.catalog.bundles import LARGEST, encode
from stagerelease.catalog.fsck import check
from stagerelease.catalog.importer import import_directory
from stagerelease.db.work import Works
from stagerelease.kernel.actor import OPERATOR, Actor
from stagerelease.kernel.errors import Conflict, DomainError, Forbidden, Invalid, NotFound

TOOL = Path(sys.executable).with_name("model_signing")


def make_key(directory: Path, name: str, *, curve: str = "prime256v1") -> Path:
    """Make a key pair with openssl, as the documentation says; return the private half."""
    key = directory / f"{name}.pem"
    new = ["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", str(key)]
    subprocess.run(new, check=True, capture_output=True)
    public = ["openssl", "ec", "-in", str(key), "-pubout", "-out", f"{key}.pub"]
    subprocess.run(public, check=True, capture_output=True)
    return key


def sign(directory: Path, key: Path, to: Path) -> bytes:
    """Sign a directory with the released command-line tool."""
    command = [str(TOOL), "sign", "key", str(directory), "--private_key", str(key)]
    subprocess.run([*command, "--signature", str(to)], check=True, capture_output=True)
    return to.read_bytes()


def rewritten(bundle: bytes, **changes: str) -> bytes:
    """Return a bundle whose statement says something else, under the old signature."""
    document = json.loads(bundle)
    payload = base64.b64decode(document["dsseEnvelope"]["payload"]).decode()
    for old, new in changes.items():
        assert old in payload
        payload = payload.replace(old, new)
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload.encode()).decode()
    return json.dumps(document).encode()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("keys")
    curves = {"one": "prime256v1", "two": "secp384r1", "three": "secp521r1", "odd": "secp256k1"}
    return {name: make_key(where, name, curve=curve) for name, curve in curves.items()}


@pytest.fixture(scope="module")
def signed(
    tmp_path_factory: pytest.TempPathFactory, keys: dict[str, Path]
) -> tuple[Path, dict[str, bytes]]:
    """A checkpoint, and bundles over it by three keys."""
    where = tmp_path_factory.mktemp("signed")
    directory = make_checkpoint(where / "tiny")
    (directory / "README.md").write_text("# Tiny\n\nA card.\n")
    (directory / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    names = ("one", "two", "three")
    return directory, {n: sign(directory, keys[n], where / f"{n}.json") for n in names}


@pytest.fixture
def manager(works: Works, blobs, signed, keys) -> Actor:
    """A release manager; the checkpoint is imported and key ``one`` registered."""
    make_repo(works)
    import_directory(works, blobs, OPERATOR, directory=signed[0], repo_id=REPO)
    with works.begin(OPERATOR) as work:
        signatures.add_key(work, "one", pem=Path(f"{keys['one']}.pub").read_text())
    return make_actor(works)


def add(works, blobs, actor, bundle: bytes, **options):
    return signatures.add_signature(works, blobs, actor, REPO, bundle=bundle, **options)


def refused(works, blobs, actor, bundle: bytes) -> str:
    with pytest.raises(Invalid) as caught:
        add(works, blobs, actor, bundle)
    with works.begin(OPERATOR, read_only=True) as work:
        assert signatures.list_signatures(work, REPO) == []
    return caught.value.reason


def test_a_card_is_locked_once_and_by_its_bytes(works, blobs, manager, signed, tmp_path):
    first = head_of(works)
    with works.begin(OPERATOR, read_only=True) as work:
        assert queries.card_lock(work, first) is None
    with works.begin(manager) as work:
        lock = cards.lock_card(work, REPO)
        assert (lock.revision_id, lock.path, lock.locked_by) == (first, "README.md", manager.id)
        assert lock.at == work.now
    with pytest.raises(Conflict), works.begin(manager) as work:
        cards.lock_card(work, REPO)
    again = tmp_path / "again"
    shutil.copytree(signed[0], again)
    (again / "extra.json").write_text("{}\n")
    second = import_directory(works, blobs, OPERATOR, directory=again, repo_id=REPO).id
    (again / "README.md").write_text("# Tiny\n\nAnother card.\n")
    third = import_directory(works, blobs, OPERATOR, directory=again, repo_id=REPO).id
    with works.begin(OPERATOR, read_only=True) as work:
        assert queries.card_lock(work, second) == lock  # the same bytes are as final as before
        assert queries.card_lock(work, third) is None
    with works.begin(manager) as work:
        assert cards.lock_card(work, REPO).revision_id == third


def test_a_revision_without_a_card_has_nothing_to_lock(works, blobs, tmp_path):
    make_repo(works)
    directory = make_checkpoint(tmp_path / "tiny")
    (directory / "README.md").unlink(missing_ok=True)
    import_directory(works, blobs, OPERATOR, directory=directory, repo_id=REPO)
    with pytest.raises(NotFound) as caught, works.begin(OPERATOR) as work:
        cards.lock_card(work, REPO)
    assert caught.value.reason == "card.missing"


def test_a_reviewer_may_neither_lock_nor_sign_nor_register(works, blobs, manager, signed, keys):
    reviewer = make_actor(works, handle="rae", role="reviewer")
    with pytest.raises(Forbidden), works.begin(reviewer) as work:
        cards.lock_card(work, REPO)
    with pytest.raises(Forbidden):
        add(works, blobs, reviewer, signed[1]["one"])
    for actor in (reviewer, manager):  # who signs does not say whose signatures count
        with pytest.raises(Forbidden), works.begin(actor) as work:
            signatures.add_key(work, "mine", pem=Path(f"{keys['two']}.pub").read_text())
        with pytest.raises(Forbidden), works.begin(actor) as work:
            signatures.retire_key(work, "one", reason="No.")


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_a_signature_of_the_real_tool_is_verified_and_kept(
    works, blobs, manager, signed, keys, name
):
    if name != "one":
        with works.begin(OPERATOR) as work:
            signatures.add_key(work, name, pem=Path(f"{keys[name]}.pub").read_text())
    row = add(works, blobs, manager, signed[1][name])
    assert (row.key_id, row.counts, row.signed_by) == (name, True, manager.id)
    with works.begin(OPERATOR, read_only=True) as work:
        assert queries.manifest_signatures(work, row.revision_id) == [row]
        assert row.manifest_sha256 == queries.load_revision(work, row.revision_id).manifest_sha256
    with blobs.open(row.bundle_sha256) as reader:
        assert reader.read() == signed[1][name]
    with pytest.raises(Conflict):
        add(works, blobs, manager, signed[1][name])


def test_fsck_keeps_the_bundle(works, blobs, manager, signed, clock):
    row = add(works, blobs, manager, signed[1]["one"])
    clock.move(timedelta(days=2))
    report = check(works, blobs, repair=True, grace=timedelta(0))
    assert (report.ok, report.unreferenced, report.orphans) == (True, [], [])
    assert blobs.has(row.bundle_sha256)


def test_what_is_not_exactly_this_revision_is_refused(works, blobs, manager, signed, keys):
    directory, bundles = signed
    assert refused(works, blobs, manager, bundles["two"]) == "bundle.signature"
    with works.begin(OPERATOR, read_only=True) as work:
        held = {f.path: f.sha256 for f in queries.files(work, head_of(works))}
    flipped = rewritten(bundles["one"], **{held["config.json"]: "0" * 64})
    assert refused(works, blobs, manager, flipped) == "bundle.signature"
    for change in ("missing", "extra", "changed"):
        other = directory.parent / change
        shutil.rmtree(other, ignore_errors=True)
        shutil.copytree(directory, other)
        if change == "missing":
            (other / "README.md").unlink()
        elif change == "extra":
            (other / "NOTES.txt").write_text("more")
        else:
            data = bytearray((other / "model.safetensors").read_bytes())
            data[-1] ^= 1
            (other / "model.safetensors").write_bytes(bytes(data))
        bundle = sign(other, keys["one"], directory.parent / f"{change}.json")
        assert refused(works, blobs, manager, bundle) == "bundle.files"


def test_malformed_bundles_are_refused_in_words(works, blobs, manager, signed):
    good = json.loads(signed[1]["one"])
    envelope = good["dsseEnvelope"]
    hostile = [
        b"",
        b"[]",
        b"\xff",
        b'{"mediaType": "x"}',
        b'{"a": 1, "a": 2}',
        b"[" * 100_000,
        b"{" + b" " * LARGEST + b"}",
        json.dumps({**good, "dsseEnvelope": None}).encode(),
        json.dumps({**good, "verificationMaterial": {"certificate": {}}}).encode(),
        json.dumps({**good, "dsseEnvelope": {**envelope, "payload": "***"}}).encode(),
        json.dumps({**good, "dsseEnvelope": {**envelope, "signatures": []}}).encode(),
        json.dumps({**good, "dsseEnvelope": {**envelope, "signatures": [1]}}).encode(),
        json.dumps({**good, "dsseEnvelope": {**envelope, "payload": 7}}).encode(),
    ]
    for text in hostile:
        assert refused(works, blobs, manager, text) == "bundle.malformed"
    other_type = {**good, "dsseEnvelope": {**envelope, "payloadType": "text/plain"}}
    assert refused(works, blobs, manager, json.dumps(other_type).encode()) == "bundle.signature"


def signed_by_hand(key: Path, statement: object) -> bytes:
    """Return a bundle with a good signature over any statement."""
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    payload = json.dumps(statement).encode()
    kind = "application/vnd.in-toto+json"
    signature = private.sign(encode(kind, payload), ec.ECDSA(hashes.SHA256()))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }
    return json.dumps(
        {
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {"publicKey": {"hint": ""}, "tlogEntries": []},
            "dsseEnvelope": envelope,
        }
    ).encode()


def test_a_good_signature_over_a_bad_statement_is_refused(works, blobs, manager, signed, keys):
    payload = json.loads(signed[1]["one"])["dsseEnvelope"]["payload"]
    good = json.loads(base64.b64decode(payload))
    predicate = good["predicate"]
    first = predicate["resources"][0]

    def with_files(files: object) -> dict:
        return {**good, "predicate": {**predicate, "resources": files}}

    statements = [
        {**good, "predicateType": "https://slsa.dev/provenance/v1"},
        {**good, "_type": "https://in-toto.io/Statement/v0.1"},
        {**good, "subject": []},
        {**good, "subject": [{"name": "x", "digest": {"sha256": "0" * 64}}]},
        {**good, "predicate": []},
        with_files({}),
        with_files(["README.md"]),
        with_files([{**first, "algorithm": "blake2b"}]),
        with_files([{**first, "digest": "xyz"}]),
        with_files([{**first, "name": 7}]),
        with_files([*predicate["resources"], first]),
        with_files(predicate["resources"][1:]),
    ]
    for statement in statements:
        bundle = signed_by_hand(keys["one"], statement)
        assert refused(works, blobs, manager, bundle) == "bundle.malformed"
    assert add(works, blobs, manager, signed_by_hand(keys["one"], good)).counts


def test_only_elliptic_public_keys_are_registered(works, keys, tmp_path):
    def reason(pem: str, name: str = "new") -> str:
        with pytest.raises(DomainError) as caught, works.begin(OPERATOR) as work:
            signatures.add_key(work, name, pem=pem)
        return caught.value.reason

    def public(algorithm: str) -> str:
        key = tmp_path / algorithm
        new = ["openssl", "genpkey", "-algorithm", algorithm, "-out", str(key)]
        subprocess.run(new, check=True, capture_output=True)
        show = ["openssl", "pkey", "-in", str(key), "-pubout"]
        return subprocess.run(show, check=True, capture_output=True, text=True).stdout

    good = Path(f"{keys['one']}.pub").read_text()
    assert reason(keys["one"].read_text()) == "key.private"
    assert reason("hello") == "key.malformed"
    assert reason(public("ed25519")) == "key.kind"
    assert reason(public("RSA")) == "key.kind"
    assert reason(Path(f"{keys['odd']}.pub").read_text()) == "key.kind"  # 256 bits, not P-256
    assert reason(good, "../x") == "key.name"
    with works.begin(OPERATOR) as work:
        signatures.add_key(work, "one", pem=good)
    assert reason(good, "again") == "key.exists"


def test_a_retired_key_signs_no_more_and_a_compromised_one_counts_no_more(
    works, blobs, manager, signed, keys
):
    with works.begin(OPERATOR) as work:
        signatures.add_key(work, "two", pem=Path(f"{keys['two']}.pub").read_text())
    row = add(works, blobs, manager, signed[1]["one"])
    with works.begin(OPERATOR) as work:
        signatures.retire_key(work, "one", reason="Its year is over.")
        assert queries.manifest_signatures(work, row.revision_id) == [row]
    with pytest.raises(Conflict), works.begin(OPERATOR) as work:
        signatures.retire_key(work, "one", reason="Again.")
    with works.begin(OPERATOR) as work:
        signatures.retire_key(work, "two", reason="Unused.")
    with pytest.raises(Invalid) as caught:
        add(works, blobs, manager, signed[1]["two"])
    assert caught.value.reason == "key.retired"
    with works.begin(OPERATOR) as work:
        signatures.retire_key(work, "one", reason="Its laptop was stolen.", compromised=True)
        assert queries.manifest_signatures(work, row.revision_id) == []
        (kept,) = signatures.list_signatures(work, REPO)
        assert (kept.id, kept.counts) == (row.id, False)
    with pytest.raises(Conflict), works.begin(OPERATOR) as work:
        signatures.retire_key(work, "one", reason="No way back.")

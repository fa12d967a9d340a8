"""A foreign verifier agrees: Go's sumdb/note and sumdb/tlog judge what our log hands out."""

from __future__ import annotations

import base64
import copy
import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from logbook import VKEY, add, sign
from stagerelease.kernel.actor import SYSTEM
from stagerelease.ledger import merkle, notes, queries

pytestmark = pytest.mark.e2e

SOURCE = Path(__file__).parent / "go" / "verify"
LARGEST = 64
TAMPERS = 300


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The verifier, built from source without a network."""
    if shutil.which("go") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Go is not installed. Debian: make system-packages")
        pytest.skip("Go is not installed. Debian: make system-packages")
    binary = tmp_path_factory.mktemp("judge") / "verify"
    offline = {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOSUMDB": "off", "GOTOOLCHAIN": "local"}
    environ = os.environ | offline | {"GOCACHE": str(binary.parent / "cache")}
    done = subprocess.run(
        ["go", "build", "-o", binary, "."],
        cwd=SOURCE,
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return binary


def judged(judge: Path, sets: list[dict]) -> tuple[int, list[str]]:
    done = subprocess.run(
        [judge], input=json.dumps(sets), capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def one_set(work) -> dict:
    """Return all that the log says about its newest checkpoint, as an outsider may fetch it."""
    checkpoint = queries.latest_checkpoint(work)
    size = checkpoint.size
    parsed = [notes.parse_proof(queries.prove(work, idx)) for idx in range(size)]
    assert [idx for idx, _, _ in parsed] == list(range(size))
    assert {note for _, _, note in parsed} == {checkpoint.note}
    return {
        "vkey": VKEY,
        "note": checkpoint.note,
        "leaves": [b64(entry.body) for entry in queries.entries(work, start=0, limit=size)],
        "inclusion": [[b64(item) for item in hashes] for _, hashes, _ in parsed],
        "consistency": [
            {
                "size": old,
                "root": b64(queries.root_at(work, old)),
                "proof": [b64(item) for item in queries.consistency(work, old, size)],
            }
            for old in range(1, size + 1)
        ],
    }


@pytest.fixture
def sets(works) -> list[dict]:
    """A set for each size from 1 to ``LARGEST``, as the log really grew in the database."""
    made = []
    for n in range(LARGEST):
        with works.begin(SYSTEM) as work:
            add(work, n, private=n % 3 == 0)
        sign(works)
        with works.begin(read_only=True) as work:
            made.append(one_set(work))
    return made


def test_go_accepts_every_size_and_refuses_every_altered_bit(judge, sets):
    code, verdicts = judged(judge, sets)
    assert verdicts == ["accepted"] * LARGEST
    assert code == 0

    rng = random.Random(20260302)
    tampered = [tamper(rng, rng.choice(sets)) for _ in range(TAMPERS)]
    code, verdicts = judged(judge, [case for _, case in tampered])
    passed = [
        part
        for (part, _), verdict in zip(tampered, verdicts, strict=True)
        if not verdict.startswith("refused: ")
    ]
    assert passed == []
    assert code == 1
    assert {part for part, _ in tampered} == set(PARTS)  # each kind had its turn
    for part, case in tampered:  # and we are as strict as the foreigner
        with pytest.raises(ValueError, match=r".") as refused:
            check(case)
        assert isinstance(refused.value, notes.NoteRefused | merkle.ProofRefused), part


def test_go_refuses_a_leaf_or_proof_under_another_place(judge, sets):
    swapped = copy.deepcopy(sets[40])
    swapped["inclusion"][3], swapped["inclusion"][9] = (
        swapped["inclusion"][9],
        swapped["inclusion"][3],
    )
    short = copy.deepcopy(sets[40])
    short["leaves"].pop()
    older = copy.deepcopy(sets[40])
    older["note"] = sets[39]["note"]
    code, verdicts = judged(judge, [swapped, short, older, sets[40]])
    assert [verdict.split(":")[0] for verdict in verdicts] == ["refused"] * 3 + ["accepted"]
    assert code == 1


# --- one bit ------------------------------------------------------------------------------------


def flip(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flip64(rng: random.Random, text: str) -> str:
    """Flip a bit of what base64 stands for; its spare bits stand for nothing in Go."""
    return b64(flip(rng, base64.b64decode(text)))


def flip_ascii(rng: random.Random, text: str) -> str:
    """Flip a bit of a character that stays ASCII, so that JSON carries exactly one change."""
    at = rng.randrange(len(text))
    return text[:at] + chr(ord(text[at]) ^ 1 << rng.randrange(7)) + text[at + 1 :]


def in_text(rng, case):
    text, signature = case["note"].split("\n\n")
    case["note"] = flip_ascii(rng, text) + "\n\n" + signature


def in_signature(rng, case):
    head, name, blob = case["note"].rstrip("\n").rsplit(" ", 2)
    case["note"] = f"{head} {name} {flip64(rng, blob)}\n"


def in_key(rng, case):
    name, key_id, data = case["vkey"].split("+", 2)
    case["vkey"] = f"{name}+{key_id}+{flip64(rng, data)}"


def in_leaf(rng, case):
    at = rng.randrange(len(case["leaves"]))
    case["leaves"][at] = flip64(rng, case["leaves"][at])


def in_inclusion(rng, case):
    proof = rng.choice([proof for proof in case["inclusion"] if proof])
    at = rng.randrange(len(proof))
    proof[at] = flip64(rng, proof[at])


def in_consistency(rng, case):
    proof = rng.choice([entry["proof"] for entry in case["consistency"] if entry["proof"]])
    at = rng.randrange(len(proof))
    proof[at] = flip64(rng, proof[at])


def in_old_root(rng, case):
    entry = rng.choice(case["consistency"])
    entry["root"] = flip64(rng, entry["root"])


PARTS = {
    "text": in_text,
    "signature": in_signature,
    "key": in_key,
    "leaf": in_leaf,
    "inclusion": in_inclusion,
    "consistency": in_consistency,
    "old root": in_old_root,
}


def tamper(rng: random.Random, genuine: dict) -> tuple[str, dict]:
    case = copy.deepcopy(genuine)
    part = rng.choice(list(PARTS))
    if len(case["leaves"]) == 1 and part in ("inclusion", "consistency"):
        part = "leaf"  # a log of one entry needs no proof
    PARTS[part](rng, case)
    assert case != genuine
    return part, case


def check(case: dict) -> None:
    """Judge a set with our own verifiers."""
    head = notes.open_checkpoint(case["note"], case["vkey"])
    for idx, (leaf, proof) in enumerate(zip(case["leaves"], case["inclusion"], strict=True)):
        body = merkle.leaf_hash(base64.b64decode(leaf))
        hashes = [base64.b64decode(item) for item in proof]
        merkle.check_inclusion(body, idx, head.size, hashes, head.root)
    for entry in case["consistency"]:
        hashes = [base64.b64decode(item) for item in entry["proof"]]
        root = base64.b64decode(entry["root"])
        merkle.check_consistency(entry["size"], root, head.size, head.root, hashes)

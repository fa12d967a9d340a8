"""The tree agrees with published vectors and a naive definition, and no altered proof passes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stagerelease.ledger import merkle

# The inputs, roots and proofs that the Certificate Transparency reference implementations share.
CT_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
L1 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
N23 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
N4567 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
L4 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
L7 = "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f"
N45 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
N67 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
N01 = CT_ROOTS[2]
N0123 = CT_ROOTS[4]
L0 = CT_ROOTS[1]


class Tree:
    """A log in memory, as the database keeps it: leaf hashes, complete subtrees, a frontier."""

    def __init__(self, bodies):
        self.leaves = [merkle.leaf_hash(body) for body in bodies]
        self.nodes = {(0, i): leaf for i, leaf in enumerate(self.leaves)}
        self.roots = [merkle.EMPTY_ROOT]
        frontier = merkle.Frontier(0, ())
        for leaf in self.leaves:
            frontier, made = frontier.append(leaf)
            frontier = merkle.Frontier.load(frontier.size, frontier.dump())  # as if stored
            self.nodes |= {(level, idx): digest for level, idx, digest in made}
            self.roots.append(frontier.root())

    def node(self, level, idx):
        return self.nodes[level, idx]

    def prove(self, idx, size):
        return merkle.inclusion_proof(idx, size, self.node)

    def grow(self, old, new):
        return merkle.consistency_proof(old, new, self.node)


def naive_root(bodies):
    """MTH exactly as RFC 6962 §2.1 writes it."""
    if not bodies:
        return hashlib.sha256(b"").digest()
    if len(bodies) == 1:
        return hashlib.sha256(b"\x00" + bodies[0]).digest()
    k = 1
    while 2 * k < len(bodies):
        k *= 2
    parts = naive_root(bodies[:k]) + naive_root(bodies[k:])
    return hashlib.sha256(b"\x01" + parts).digest()


BODIES = [b"%d" % i for i in range(300)]
BIG = Tree(BODIES)
CT = Tree(CT_LEAVES)
sizes = st.integers(1, 300)
flips = st.integers(0, 10**6)


def flipped(data: bytes, bit: int) -> bytes:
    out = bytearray(data)
    out[bit // 8 % len(out)] ^= 1 << bit % 8
    return bytes(out)


# --- what is known ------------------------------------------------------------------------------


def test_roots_are_the_published_ones():
    assert [root.hex() for root in CT.roots] == CT_ROOTS


@pytest.mark.parametrize(
    ("idx", "size", "path"),
    [
        (0, 1, []),
        (0, 8, [L1, N23, N4567]),
        (5, 8, [L4, N67, N0123]),
        (2, 3, [N01]),
        (1, 5, [L0, N23, L4]),
    ],
)
def test_inclusion_proofs_are_the_published_ones(idx, size, path):
    assert [item.hex() for item in CT.prove(idx, size)] == path


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        (1, 1, []),
        (1, 8, [L1, N23, N4567]),
        (6, 8, [N45, N67, N0123]),
        (2, 5, [N23, L4]),
    ],
)
def test_consistency_proofs_are_the_published_ones(old, new, path):
    assert [item.hex() for item in CT.grow(old, new)] == path


def test_proofs_are_those_of_the_rfc_example():
    """RFC 6962 §2.1.3 draws a tree of seven leaves, names its nodes, and lists these proofs."""
    tree = Tree([b"d%d" % i for i in range(7)])
    names = dict(zip("abcdefj", tree.leaves, strict=True))
    names |= {"g": tree.node(1, 0), "h": tree.node(1, 1), "i": tree.node(1, 2)}
    names |= {"k": tree.node(2, 0), "l": merkle.node_hash(names["i"], names["j"])}
    inclusion = {0: "bhl", 3: "cgl", 4: "fjk", 6: "ik"}
    consistency = {3: "cdgl", 4: "l", 6: "ijk"}
    for idx, path in inclusion.items():
        assert tree.prove(idx, 7) == [names[letter] for letter in path]
    for old, path in consistency.items():
        assert tree.grow(old, 7) == [names[letter] for letter in path]


def test_roots_equal_the_naive_definition_for_every_size_to_300():
    for size in range(301):
        assert BIG.roots[size] == naive_root(BODIES[:size]), size
        if size:
            assert merkle.range_hash(0, size, BIG.node) == BIG.roots[size]


def test_stored_nodes_are_counted_exactly():
    frontier, stored = merkle.Frontier(0, ()), 0
    for leaf in BIG.leaves:
        frontier, made = frontier.append(leaf)
        stored += len(made)
        assert merkle.stored_nodes(frontier.size) == stored


# --- what is proved is accepted -----------------------------------------------------------------


def test_every_inclusion_proof_up_to_70_leaves_verifies():
    for size in range(1, 71):
        for idx in range(size):
            proof = BIG.prove(idx, size)
            merkle.check_inclusion(BIG.leaves[idx], idx, size, proof, BIG.roots[size])


def test_every_consistency_proof_up_to_70_leaves_verifies():
    for new in range(71):
        for old in range(new + 1):
            proof = BIG.grow(old, new)
            merkle.check_consistency(old, BIG.roots[old], new, BIG.roots[new], proof)


@given(sizes, st.data())
def test_proofs_verify_and_are_no_longer_than_the_tree_is_high(size, data):
    idx = data.draw(st.integers(0, size - 1))
    proof = BIG.prove(idx, size)
    merkle.check_inclusion(BIG.leaves[idx], idx, size, proof, BIG.roots[size])
    assert len(proof) <= (size - 1).bit_length()
    path = BIG.grow(idx, size)
    merkle.check_consistency(idx, BIG.roots[idx], size, BIG.roots[size], path)
    assert len(path) <= (size - 1).bit_length() + 1


# --- one thing altered is refused ---------------------------------------------------------------


@given(sizes, flips, st.data())
def test_an_inclusion_proof_with_any_one_thing_altered_is_refused(size, bit, data):
    idx = data.draw(st.integers(0, size - 1))
    leaf, proof, root = BIG.leaves[idx], BIG.prove(idx, size), BIG.roots[size]
    altered = [
        (flipped(leaf, bit), idx, size, proof, root),
        (leaf, idx, size, proof, flipped(root, bit)),
        (leaf, idx, size, [*proof, root], root),
        (leaf, idx - size, size, proof, root),
        (leaf, idx + size, size, proof, root),
    ]
    other = data.draw(st.integers(0, size - 1))
    if other != idx:
        altered.append((leaf, other, size, proof, root))
    if proof:
        at = bit % len(proof)
        bent = [*proof[:at], flipped(proof[at], bit), *proof[at + 1 :]]
        altered.append((leaf, idx, size, bent, root))
        altered.append((leaf, idx, size, proof[:-1], root))
        altered.append((leaf, idx, size, proof[1:], root))
        altered.append((leaf, idx, size, [*proof[:at], proof[at][:-1], *proof[at + 1 :]], root))
    for case in altered:
        with pytest.raises(merkle.ProofRefused):
            merkle.check_inclusion(*case)


@given(sizes, flips, st.data())
def test_a_consistency_proof_with_any_one_thing_altered_is_refused(new, bit, data):
    old = data.draw(st.integers(0, new))
    first, last, proof = BIG.roots[old], BIG.roots[new], BIG.grow(old, new)
    altered = [
        (old, flipped(first, bit), new, last, proof),
        (old, first, new, last, [*proof, last]),
        (new + 1, first, new, last, proof),
        (-1, first, new, last, proof),
    ]
    if old:  # from nothing, every root is a continuation
        altered.append((old, first, new, flipped(last, bit), proof))
    if proof:
        at = bit % len(proof)
        bent = [*proof[:at], flipped(proof[at], bit), *proof[at + 1 :]]
        altered.append((old, first, new, last, bent))
        altered.append((old, first, new, last, proof[:-1]))
        altered.append((old, first, new, last, proof[1:]))
    for case in altered:
        with pytest.raises(merkle.ProofRefused):
            merkle.check_consistency(*case)


def test_a_proof_for_a_tree_of_another_height_is_refused():
    """The length of a path belongs to the size: a lie about the size must not shift the leaf."""
    lies = 0
    for size in range(1, 25):
        for idx in range(size):
            proof = BIG.prove(idx, size)
            growth = BIG.grow(idx, size)
            for other in range(idx + 1, 50):
                if len(BIG.prove(idx, other)) != len(proof):
                    with pytest.raises(merkle.ProofRefused):
                        merkle.check_inclusion(BIG.leaves[idx], idx, other, proof, BIG.roots[size])
                    lies += 1
                if idx and len(BIG.grow(idx, other)) != len(growth):
                    with pytest.raises(merkle.ProofRefused):
                        merkle.check_consistency(
                            idx, BIG.roots[idx], other, BIG.roots[size], growth
                        )
                    lies += 1
    assert lies > 10_000


def test_a_proof_that_goes_on_above_the_claimed_tree_is_refused():
    """The roots and hashes are true; only the sizes are smaller than the tree they are of."""
    leaf = BIG.leaves[1]
    merkle.check_inclusion(leaf, 1, 2, BIG.prove(1, 2), BIG.roots[2])
    with pytest.raises(merkle.ProofRefused, match="too long"):
        merkle.check_inclusion(leaf, 0, 1, BIG.prove(1, 2), BIG.roots[2])
    merkle.check_consistency(7, BIG.roots[7], 8, BIG.roots[8], BIG.grow(7, 8))
    with pytest.raises(merkle.ProofRefused, match="too long"):
        merkle.check_consistency(3, BIG.roots[7], 4, BIG.roots[8], BIG.grow(7, 8))


def test_one_hash_of_twice_the_length_is_not_two_hashes():
    pair = BIG.leaves[0] + BIG.leaves[1]
    assert merkle.node_hash(pair, b"") == BIG.roots[2]
    with pytest.raises(merkle.ProofRefused, match="32-byte"):
        merkle.check_inclusion(b"", 1, 2, [pair], BIG.roots[2])
    with pytest.raises(merkle.ProofRefused, match="32-byte"):
        merkle.check_consistency(1, b"", 2, BIG.roots[2], [pair])


@given(st.integers(2, 300), st.data())
def test_a_rewritten_past_has_no_consistency_proof(new, data):
    """A fork that changed a leaf the old checkpoint covers cannot be proved with its own nodes."""
    old = data.draw(st.integers(1, new - 1))
    at = data.draw(st.integers(0, old - 1))
    fork = Tree([*BODIES[:at], b"rewritten", *BODIES[at + 1 : new]])
    with pytest.raises(merkle.ProofRefused):
        merkle.check_consistency(old, BIG.roots[old], new, fork.roots[new], fork.grow(old, new))


@given(
    st.integers(-(2**70), 2**70),
    st.integers(-(2**70), 2**70),
    st.lists(st.binary(max_size=40), max_size=80),
    st.binary(max_size=40),
)
def test_hostile_proofs_are_refused_and_never_crash(first, second, proof, root):
    with pytest.raises(merkle.ProofRefused):
        merkle.check_inclusion(root, first, second, proof, b"no root")
    with pytest.raises(merkle.ProofRefused):
        merkle.check_consistency(first, b"no root", second, root, proof)


# --- what cannot be asked -----------------------------------------------------------------------


@pytest.mark.parametrize(("idx", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_no_inclusion_proof_exists_outside_the_log(idx, size):
    with pytest.raises(ValueError, match="not in a log"):
        BIG.prove(idx, size)


@pytest.mark.parametrize(("old", "new"), [(4, 3), (-1, 3)])
def test_no_consistency_proof_exists_backwards(old, new):
    with pytest.raises(ValueError, match="cannot shrink"):
        BIG.grow(old, new)


@pytest.mark.parametrize(
    ("size", "stored"),
    [(1, b""), (0, bytes(32)), (3, bytes(32)), (1, bytes(31)), (2, bytes(64)), (-1, b"")],
)
def test_a_stored_frontier_that_does_not_fit_is_refused(size, stored):
    with pytest.raises(ValueError, match="frontier"):
        merkle.Frontier.load(size, stored)


def test_a_leaf_hash_of_another_length_is_refused():
    with pytest.raises(ValueError, match="32-byte"):
        merkle.Frontier(0, ()).append(b"short")


@given(st.integers(1, 200), st.data())
def test_the_steps_of_a_proof_lead_where_its_check_ends(size, data):
    idx = data.draw(st.integers(0, size - 1))
    leaves = [merkle.leaf_hash(bytes([n % 256, n // 256])) for n in range(size)]
    frontier, nodes = merkle.Frontier(0, ()), {}
    for n, leaf in enumerate(leaves):
        nodes[0, n] = leaf
        frontier, made = frontier.append(leaf)
        nodes |= {(level, at): digest for level, at, digest in made}
    proof = merkle.inclusion_proof(idx, size, lambda level, at: nodes[level, at])
    steps = merkle.climb(leaves[idx], idx, size, proof)
    own = leaves[idx]
    for step, other in zip(steps, proof, strict=True):
        assert (step.own, step.other) == (own, other)
        pair = (other, own) if step.other_is_left else (own, other)
        own = merkle.node_hash(*pair)
        assert step.result == own
    assert own == frontier.root()

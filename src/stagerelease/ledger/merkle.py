"""RFC 6962 §2.1 hashes, proofs and their checks. Pure: bytes in, bytes out.

Proof algorithms follow RFC 9162 §2.1.3 and §2.1.4, which give the same proofs as RFC 6962 with
iterative checks. A complete subtree is named (level, idx): it covers leaves
``idx·2^level … (idx+1)·2^level − 1``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

HASH = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()  # RFC 6962 §2.1: MTH({}) = SHA-256()

NodeOf = Callable[[int, int], bytes]
"""Returns the stored hash of the complete subtree (level, idx)."""


class ProofRefused(ValueError):
    """A proof does not show what it claims."""


def leaf_hash(body: bytes) -> bytes:
    """Return the hash of a leaf: SHA-256(0x00 ‖ body) (RFC 9162 §2.1.1)."""
    return hashlib.sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node: SHA-256(0x01 ‖ left ‖ right) (RFC 9162 §2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """The roots of the complete subtrees of a log of ``size`` leaves, largest first.

    There is one for each bit set in ``size``; nothing else is needed to append or to tell the root.
    """

    size: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise ValueError("a frontier has one hash for each bit set in its size")
        if any(len(item) != HASH for item in self.hashes):
            raise ValueError("a frontier is made of 32-byte hashes")

    @classmethod
    def load(cls, size: int, stored: bytes) -> Frontier:
        """Return the frontier stored as concatenated hashes.

        Raises:
            ValueError: the length does not fit the size.
        """
        if len(stored) % HASH:
            raise ValueError("a stored frontier is a whole number of hashes")
        return cls(size, tuple(stored[i : i + HASH] for i in range(0, len(stored), HASH)))

    def dump(self) -> bytes:
        """Return the hashes, concatenated."""
        return b"".join(self.hashes)

    def append(self, leaf: bytes) -> tuple[Frontier, list[tuple[int, int, bytes]]]:
        """Return the frontier with one more leaf hash, and the subtrees it completed.

        The subtrees are ``(level, idx, hash)`` with level ≥ 1, in the order they were completed.
        """
        hashes, made, carried = list(self.hashes), [], leaf
        level, idx = 0, self.size
        while idx & 1:
            carried = node_hash(hashes.pop(), carried)
            level, idx = level + 1, idx >> 1
            made.append((level, idx, carried))
        return Frontier(self.size + 1, (*hashes, carried)), made

    def root(self) -> bytes:
        """Return the root hash of the whole log."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root


def stored_nodes(size: int) -> int:
    """Return how many complete subtrees of level ≥ 1 a log of ``size`` leaves has.

    That is Σ ⌊size / 2^level⌋ over the levels from 1, which is ``size`` less its set bits.
    """
    return size - size.bit_count()


def _split(size: int) -> int:
    """Return the largest power of two smaller than ``size`` (RFC 6962 §2.1: k < n ≤ 2k)."""
    return 1 << ((size - 1).bit_length() - 1)


def range_hash(begin: int, end: int, node: NodeOf) -> bytes:
    """Return MTH(D[begin:end]) where ``begin`` is aligned as the tree splits it.

    A complete subtree is one look-up; the ragged right edge is hashed together from several.
    """
    size = end - begin
    if size & (size - 1) == 0 and begin % size == 0:
        level = size.bit_length() - 1
        return node(level, begin >> level)
    k = _split(size)
    return node_hash(range_hash(begin, begin + k, node), range_hash(begin + k, end, node))


def inclusion_proof(idx: int, size: int, node: NodeOf) -> list[bytes]:
    """Return PATH(idx, D[size]) (RFC 6962 §2.1.1), leaf side first.

    Raises:
        ValueError: ``idx`` is not in a log of ``size`` leaves.
    """
    if not 0 <= idx < size:
        raise ValueError(f"leaf {idx} is not in a log of {size}")

    def path(begin: int, end: int) -> Iterator[bytes]:
        if end - begin == 1:
            return
        middle = begin + _split(end - begin)
        if idx < middle:
            yield from path(begin, middle)
            yield range_hash(middle, end, node)
        else:
            yield from path(middle, end)
            yield range_hash(begin, middle, node)

    return list(path(0, size))


def consistency_proof(old: int, new: int, node: NodeOf) -> list[bytes]:
    """Return PROOF(old, D[new]) (RFC 6962 §2.1.2); empty when the sizes are equal or old is 0.

    Raises:
        ValueError: ``old`` is larger than ``new`` or negative.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a log cannot shrink from {old} to {new}")
    if old in (0, new):
        return []

    def subproof(m: int, begin: int, end: int, *, whole: bool) -> Iterator[bytes]:
        if m == end - begin:
            if not whole:
                yield range_hash(begin, end, node)
            return
        k = _split(end - begin)
        if m <= k:
            yield from subproof(m, begin, begin + k, whole=whole)
            yield range_hash(begin + k, end, node)
        else:
            yield from subproof(m - k, begin + k, end, whole=False)
            yield range_hash(begin, begin + k, node)

    return list(subproof(old, 0, new, whole=True))


def _check_hashes(proof: Sequence[bytes]) -> None:
    if any(len(item) != HASH for item in proof):
        raise ProofRefused("a proof is made of 32-byte hashes")


def check_inclusion(leaf: bytes, idx: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Return only if ``proof`` shows that leaf hash ``leaf`` is entry ``idx`` (RFC 9162 §2.1.3.2).

    Raises:
        ProofRefused: it does not.
    """
    _check_hashes(proof)
    if not 0 <= idx < size:
        raise ProofRefused(f"leaf {idx} is not in a log of {size}")
    fn, sn, r = idx, size - 1, leaf  # steps 2 and 3
    for p in proof:  # step 4
        if sn == 0:
            raise ProofRefused("the proof is too long")
        if fn & 1 or fn == sn:
            r = node_hash(p, r)
            if not fn & 1:
                while fn and not fn & 1:
                    fn, sn = fn >> 1, sn >> 1
        else:
            r = node_hash(r, p)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:  # step 5
        raise ProofRefused("the proof is too short")
    if r != root:
        raise ProofRefused("the proof leads to another root")


@dataclass(frozen=True, slots=True)
class Climb:
    """One step from a leaf to the root: which of the two the proof's hash is, and what they make.

    ``other`` comes from the proof; ``own`` was the result of the step before.
    """

    own: bytes
    other: bytes
    other_is_left: bool
    result: bytes


def climb(leaf: bytes, idx: int, size: int, proof: Sequence[bytes]) -> list[Climb]:
    """Return the steps of a proof that holds (see ``check_inclusion``), for showing them."""
    fn, sn, own = idx, size - 1, leaf
    steps = []
    for other in proof:
        is_left = bool(fn & 1) or fn == sn
        result = node_hash(other, own) if is_left else node_hash(own, other)
        steps.append(Climb(own, other, is_left, result))
        if is_left and not fn & 1:
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        fn, sn, own = fn >> 1, sn >> 1, result
    return steps


def check_consistency(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Return only if ``proof`` shows that the old log is a prefix of the new (RFC 9162 §2.1.4.2).

    Raises:
        ProofRefused: it does not.
    """
    _check_hashes(proof)
    if not 0 <= old <= new:
        raise ProofRefused(f"a log cannot shrink from {old} to {new}")
    if old in (0, new):
        expected = EMPTY_ROOT if old == 0 else new_root
        if proof or old_root != expected:
            raise ProofRefused("an empty or equal log has a known root and an empty proof")
        return
    path = list(proof)
    if old & (old - 1) == 0:  # step 2
        path.insert(0, old_root)
    if not path:
        raise ProofRefused("the proof is too short")
    fn, sn = old - 1, new - 1  # steps 3 and 4
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]  # step 5
    for c in path[1:]:  # step 6
        if sn == 0:
            raise ProofRefused("the proof is too long")
        if fn & 1 or fn == sn:
            fr, sr = node_hash(c, fr), node_hash(c, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node_hash(sr, c)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:  # step 7
        raise ProofRefused("the proof is too short")
    if fr != old_root or sr != new_root:
        raise ProofRefused("the proof leads to other roots")
